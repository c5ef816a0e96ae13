//! What a tokenizer is built from: the published configuration, resolved and checked.

pub use super::raw_config::Architecture;
use super::{
    hierarchy,
    raw_config::{RawConfig, RawVqModel},
};
use crate::{
    ModelError, config_kind,
    sizes::{TINY_TOKENIZER, TokenizerSize, TransformerSize},
};
use schemas::{TokenLevels, check_codebook_size};
use std::path::Path;

/// How pixels become the image tokens of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageInput {
    /// Through the convolutional pixel encoder (`vae_encoder: true`).
    Convolutional,
    /// Straight from patches of pixels.
    Patches,
}

/// Sizes of the convolutional networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PixelNetworkSize {
    pub(crate) z: i64,
    pub(crate) hidden: i64,
    pub(crate) multipliers: Vec<i64>,
    pub(crate) residual_blocks: usize,
}

impl PixelNetworkSize {
    /// modeling/restok.py gives every published model the same.
    fn published() -> Self {
        Self { z: 256, hidden: 128, multipliers: vec![1, 1, 2, 2, 4], residual_blocks: 2 }
    }

    /// Pixels of the image's side that become one feature's.
    pub(crate) fn reduction(&self) -> i64 {
        1 << (self.multipliers.len() - 1)
    }
}

/// Most image tokens a side: tables over all pairs of image tokens are computed at load.
const MAX_GRID: i64 = 128;

/// Holds all sizes to what can be computed with.
fn check_sizes(raw: &RawConfig) -> Result<(), ModelError> {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let options = &raw.model.vq_model;
    config_kind::check_sizes([
        ("token_size", options.token_size),
        ("vit_enc_patch_size", options.vit_enc_patch_size),
        ("vit_dec_patch_size", options.vit_dec_patch_size),
        ("num_latent_tokens", count(options.num_latent_tokens)),
        // 0 is as good as 1: nothing merges.
        ("hierarchy_stages", count(options.hierarchy_stages.max(1))),
        ("crop_size", raw.dataset.preprocessing.crop_size),
    ])?;
    let Some(free) = &raw.architecture else { return Ok(()) };
    config_kind::check_sizes([
        ("architecture.width", free.width),
        ("architecture.layers", count(free.layers)),
        ("architecture.heads", free.heads),
        ("architecture.z", free.z),
        ("architecture.hidden", free.hidden),
        ("architecture.nres", count(free.nres)),
    ])?;
    config_kind::check_sizes(free.mult.iter().map(|&multiplier| ("architecture.mult", multiplier)))
}

/// A checked configuration. [`Self::preset`], [`Self::from_json`] or a published `config.json` make one.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizerConfig {
    raw: RawConfig,
    pub(crate) encoder: TransformerSize,
    pub(crate) decoder: TransformerSize,
    pub(crate) pixel_networks: PixelNetworkSize,
    pub(crate) levels: TokenLevels,
    pub(crate) resolution: i64,
    pub(crate) encoder_grid: i64,
    pub(crate) decoder_grid: i64,
    pub(crate) image_input: ImageInput,
}

impl TokenizerConfig {
    /// The published configuration with 128 latent tokens at 256 by 256 pixels, with transformers of `size`.
    /// Source: configs/training/ResTok/restok_l_128.yaml.
    pub fn preset(size: TokenizerSize) -> Self {
        let raw = RawConfig::new(RawVqModel::published(size), 256, None);
        Self::resolve(raw).expect("the published configuration is sound")
    }

    /// For images of 32 by 32 pixels, without any frozen network. The entropy loss keeps the codebook in use from the first steps, which
    /// the published configuration leaves to a much longer training.
    pub(crate) fn tiny() -> Self {
        let options = RawVqModel {
            codebook_size: 1024,
            entropy_loss_ratio: 0.1,
            vit_enc_patch_size: 4,
            vit_dec_patch_size: 4,
            num_latent_tokens: 32,
            num_min_tokens: Some(1),
            test_num_latent_tokens: Some(32),
            encoder_feature_supervision: Some(false),
            decoder_feature_supervision: Some(false),
            learnable_dec_feat_tokens: None,
            use_vf: None,
            reverse_proj: None,
            ..RawVqModel::published(TokenizerSize::Small)
        };
        let TransformerSize { width, layers, heads } = TINY_TOKENIZER;
        let architecture =
            Architecture { width, layers, heads, z: 64, hidden: 32, mult: vec![1, 1, 2], nres: 1, res: None };
        Self::resolve(RawConfig::new(options, 32, Some(architecture))).expect("the preset is sound")
    }

    /// Reads and checks `text`; every error names `file`.
    ///
    /// # Errors
    /// When it is no JSON, the configuration of something else, has an unknown key, or settings that cannot be or do not go together.
    pub fn from_json(text: &str, file: &Path) -> Result<Self, ModelError> {
        config_kind::read(text, file, config_kind::TOKENIZER, Self::resolve)
    }

    /// The configuration as `config.json` holds it, with every key that was read.
    pub fn to_json(&self) -> String {
        config_kind::written(&self.raw)
    }

    fn resolve(raw: RawConfig) -> Result<Self, ModelError> {
        check_sizes(&raw)?;
        let options = &raw.model.vq_model;
        let (encoder, decoder, pixel_networks) = match &raw.architecture {
            None => (
                options.vit_enc_model_size.transformer(),
                options.vit_dec_model_size.transformer(),
                PixelNetworkSize::published(),
            ),
            Some(free) => {
                let size = TransformerSize { width: free.width, layers: free.layers, heads: free.heads };
                let pixel_networks = PixelNetworkSize {
                    z: free.z,
                    hidden: free.hidden,
                    multipliers: free.mult.clone(),
                    residual_blocks: free.nres,
                };
                (size, size, pixel_networks)
            }
        };
        let resolution = raw.dataset.preprocessing.crop_size;
        let image_input = if options.vae_encoder { ImageInput::Convolutional } else { ImageInput::Patches };
        let levels = TokenLevels::published(options.num_latent_tokens)?;
        let config = Self {
            encoder,
            decoder,
            levels,
            resolution,
            encoder_grid: resolution / options.vit_enc_patch_size,
            decoder_grid: resolution / options.vit_dec_patch_size,
            image_input,
            pixel_networks,
            raw,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ModelError> {
        let wrong = |setting, found: &dyn ToString, expected: &str| {
            Err(ModelError::setting(setting, found.to_string(), expected))
        };
        let options = self.options();
        check_codebook_size(options.codebook_size)?;
        let TransformerSize { width, layers, heads } = self.encoder;
        if width % heads != 0 || (width / heads) % 4 != 0 {
            let expected = format!("a multiple of 4 times the {heads} heads: rotary embedding turns pairs on two axes");
            return wrong("architecture.width", &width, &expected);
        }
        // Projections of the attention, and two matrices of four times the width.
        config_kind::check_weights("architecture.layers", layers, 12 * width * width)?;
        let PixelNetworkSize { hidden, multipliers, residual_blocks, .. } = &self.pixel_networks;
        if multipliers.is_empty() || multipliers.len() > 12 {
            return wrong("architecture.mult", &format!("{multipliers:?}"), "1 to 12 levels");
        }
        let channels: Vec<i64> = multipliers.iter().map(|multiplier| hidden * multiplier).collect();
        if channels.iter().any(|channels| channels % crate::layers::NORM_GROUPS != 0) {
            return wrong("architecture.hidden", hidden, "channels that divide into 32 groups at every level");
        }
        let widest = channels.into_iter().max().unwrap_or(0);
        config_kind::check_sizes([("architecture.hidden times the largest of architecture.mult", widest)])?;
        // Two convolutions of 3 by 3 a block.
        config_kind::check_weights("architecture.nres", *residual_blocks, 18 * widest * widest)?;
        if let Some(repeated) =
            self.raw.architecture.as_ref().and_then(|free| free.res).filter(|&res| res != self.resolution)
        {
            let expected = format!("{} as dataset.preprocessing.crop_size, or absent", self.resolution);
            return wrong("architecture.res", &repeated, &expected);
        }
        let reduction = self.pixel_networks.reduction();
        let by_convolutions = format!(
            "{reduction}, since {} convolutional levels halve {} times",
            multipliers.len(),
            multipliers.len() - 1
        );
        for (setting, patch, convolutional) in [
            ("vit_enc_patch_size", options.vit_enc_patch_size, self.image_input == ImageInput::Convolutional),
            ("vit_dec_patch_size", options.vit_dec_patch_size, options.is_legacy),
        ] {
            if self.resolution % patch != 0 {
                let expected = format!("a divisor of crop_size, which is {}", self.resolution);
                return wrong(setting, &patch, &expected);
            }
            if self.resolution / patch > MAX_GRID {
                let expected = format!("at most {MAX_GRID} patches a side of crop_size, which is {}", self.resolution);
                return wrong(setting, &patch, &expected);
            }
            if convolutional && patch != reduction {
                return wrong(setting, &patch, &by_convolutions);
            }
        }
        if let Some(kept) =
            options.test_num_latent_tokens.filter(|kept| !(1..=options.num_latent_tokens).contains(kept))
        {
            let expected = format!("1 to num_latent_tokens, which is {}", options.num_latent_tokens);
            return wrong("test_num_latent_tokens", &kept, &expected);
        }
        if options.rope_base_len <= 1.0 {
            return wrong("rope_base_len", &options.rope_base_len, "more than 1");
        }
        if options.merge_tokens {
            if !(options.reduction_ratio > 0.0 && options.reduction_ratio < 1.0) {
                return wrong("reduction_ratio", &options.reduction_ratio, "between 0 and 1");
            }
            hierarchy::image_levels(self)?;
        }
        Ok(())
    }

    pub(super) fn options(&self) -> &RawVqModel {
        &self.raw.model.vq_model
    }

    /// Fewest latent tokens that nested dropout leaves (`num_min_tokens`).
    pub fn fewest_tokens(&self) -> usize {
        self.options().num_min_tokens.unwrap_or(1)
    }

    /// How often nested dropout drops latent tokens in training (`drop_prob`), if it does at all (`drop_latent_tokens`). The
    /// published code drops unless told otherwise.
    pub fn nested_dropout(&self) -> Option<f64> {
        let options = self.options();
        options.drop_latent_tokens.unwrap_or(true).then(|| options.drop_prob.unwrap_or(0.2))
    }

    /// The same without a vision foundation model.
    pub fn without_alignment(mut self) -> Self {
        self.raw.model.vq_model.use_vf = None;
        self
    }

    /// Whether training can align this tokenizer as it is told to.
    ///
    /// # Errors
    /// When features of the foundation model are to be projected onto the tokenizer's: only the published direction is there.
    pub(crate) fn check_alignment(&self) -> Result<(), ModelError> {
        let aligned = self.encoder_features_are_aligned() || self.decoder_features_are_aligned();
        match self.options().reverse_proj {
            Some(false) if aligned => Err(ModelError::setting("reverse_proj", false, "true, or no use_vf")),
            _ => Ok(()),
        }
    }

    /// Whether training spreads the use of codes (`entropy_loss_ratio`).
    pub fn has_entropy_loss(&self) -> bool {
        self.options().entropy_loss_ratio != 0.0
    }

    /// The vision foundation model to whose features training aligns the tokenizer's (`use_vf`).
    pub fn foundation_model(&self) -> Option<&str> {
        self.options().use_vf.as_deref()
    }

    /// Whether training aligns the encoder's coarsest image tokens.
    pub fn encoder_features_are_aligned(&self) -> bool {
        self.foundation_model().is_some() && self.options().encoder_feature_supervision.unwrap_or(true)
    }

    /// Whether training aligns features that the decoder makes.
    pub fn decoder_features_are_aligned(&self) -> bool {
        self.foundation_model().is_some() && self.options().decoder_feature_supervision.unwrap_or(false)
    }

    /// Side of the square images, in pixels.
    pub fn resolution(&self) -> usize {
        self.resolution as usize
    }

    /// Codes in the codebook.
    pub fn codebook_size(&self) -> usize {
        self.options().codebook_size
    }

    /// How the tokens of an image divide into levels.
    pub fn levels(&self) -> &TokenLevels {
        &self.levels
    }

    /// Size of the encoder.
    pub fn encoder(&self) -> TransformerSize {
        self.encoder
    }

    /// Size of the decoder.
    pub fn decoder(&self) -> TransformerSize {
        self.decoder
    }

    /// How pixels become image tokens.
    pub fn image_input(&self) -> ImageInput {
        self.image_input
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The published file's keys (configs/training/ResTok/restok_l_128.yaml).
    fn published(size: &str) -> Value {
        json!({
            "model": { "vq_model": {
                "codebook_size": 8192, "token_size": 8, "use_l2_norm": true,
                "commitment_cost": 0.25, "entropy_loss_ratio": 0.0,
                "vit_enc_model_size": size, "vit_dec_model_size": size,
                "vit_enc_patch_size": 16, "vit_dec_patch_size": 16, "rope_base_len": 10_000,
                "num_latent_tokens": 128, "num_min_tokens": 4, "test_num_latent_tokens": 128,
                "merge_tokens": true, "hierarchy_stages": 4, "reduction_ratio": 0.5,
                "residual_image_tokens": true, "residual_latent_tokens": true,
                "learnable_latent_tokens": false, "learnable_dec_image_tokens": true,
                "multi_quant": true, "vae_encoder": true,
                "drop_latent_tokens": true, "drop_prob": 0.2, "latent_hierarchy": true,
                "encoder_feature_supervision": true, "decoder_feature_supervision": true,
                "learnable_dec_feat_tokens": true, "use_vf": "dinov3", "reverse_proj": true,
            } },
            "dataset": { "preprocessing": { "crop_size": 256 } },
        })
    }

    fn tiny() -> Value {
        json!({
            "model": { "vq_model": {
                "codebook_size": 1024, "token_size": 8, "use_l2_norm": true,
                "commitment_cost": 0.25, "entropy_loss_ratio": 0.1,
                "vit_enc_model_size": "small", "vit_dec_model_size": "small",
                "vit_enc_patch_size": 4, "vit_dec_patch_size": 4, "rope_base_len": 10_000,
                "num_latent_tokens": 32, "num_min_tokens": 1, "test_num_latent_tokens": 32,
                "merge_tokens": true, "hierarchy_stages": 4, "reduction_ratio": 0.5,
                "residual_image_tokens": true, "residual_latent_tokens": true,
                "learnable_latent_tokens": false, "learnable_dec_image_tokens": true,
                "multi_quant": true, "vae_encoder": true,
                "drop_latent_tokens": true, "drop_prob": 0.2, "latent_hierarchy": true,
                "encoder_feature_supervision": false, "decoder_feature_supervision": false,
            } },
            "dataset": { "preprocessing": { "crop_size": 32 } },
            "architecture": { "width": 96, "layers": 3, "heads": 3, "z": 64, "hidden": 32, "mult": [1, 1, 2], "nres": 1 },
        })
    }

    fn read(value: &Value) -> Result<TokenizerConfig, ModelError> {
        TokenizerConfig::from_json(&value.to_string(), Path::new("some/config.json"))
    }

    #[test]
    fn presets_are_the_published_files() {
        for (preset, file) in [
            (TokenizerConfig::preset(TokenizerSize::Small), published("small")),
            (TokenizerConfig::preset(TokenizerSize::Base), published("base")),
            (TokenizerConfig::preset(TokenizerSize::Large), published("large")),
            (TokenizerConfig::tiny(), tiny()),
        ] {
            let read = read(&file).expect("sound");
            assert_eq!((preset.to_json(), &preset), (read.to_json(), &read));
        }
    }

    #[test]
    fn every_setting_that_cannot_be_is_told_with_its_file() {
        for (key, value) in [
            ("/model/vq_model/vit_dec_patch_size", json!(5)),
            ("/model/vq_model/codebook_size", json!(0)),
            ("/model/vq_model/num_latent_tokens", json!(3)),
            ("/model/vq_model/reduction_ratio", json!(0.3)),
            ("/model/vq_model/rope_base_len", json!(1)),
            ("/model/vq_model/token_size", json!("eight")),
            ("/architecture/heads", json!(5)),
            ("/architecture/mult", json!([])),
        ] {
            let mut changed = tiny();
            *changed.pointer_mut(key).expect("a key") = value;
            let error = read(&changed).expect_err(key);
            assert!(matches!(error, ModelError::Config { .. }), "{error:?}");
            assert_eq!(error.to_string().matches("some/config.json").count(), 1, "{error}");
        }
    }

    #[test]
    fn no_number_overflows_or_allocates_beyond_reason() {
        for base in [published("large"), tiny()] {
            let mut changed = base.clone();
            let vq_model = base["model"]["vq_model"].as_object().expect("a section").iter();
            let mut keys: Vec<String> = vq_model.map(|(key, _)| format!("/model/vq_model/{key}")).collect();
            keys.push("/dataset/preprocessing/crop_size".to_owned());
            keys.extend(base.get("architecture").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| {
                if key == "mult" { "/architecture/mult/0".to_owned() } else { format!("/architecture/{key}") }
            }));
            for key in keys.iter().filter(|key| base.pointer(key).is_some_and(Value::is_i64)) {
                for huge in
                    [json!(1_000_000_000), json!(1_i64 << 62), json!(i64::MAX), json!(u64::MAX), json!(i64::MIN)]
                {
                    *changed.pointer_mut(key).expect("a key") = huge.clone();
                    let error = read(&changed);
                    // Training only reads it, and holds it to the tokens that there are.
                    if key.ends_with("num_min_tokens") || key.ends_with("rope_base_len") {
                        continue;
                    }
                    let error = error.expect_err(key).to_string();
                    assert!(error.contains("some/config.json"), "{key} {huge}: {error}");
                }
                changed = base.clone();
            }
        }
        let mut wide = tiny();
        wide["architecture"]["width"] = json!(3 * (1 << 14));
        wide["architecture"]["layers"] = json!(100);
        let error = read(&wide).expect_err("more than any memory").to_string();
        assert!(error.contains("architecture.layers is 100"), "{error}");
        let mut pixels = tiny();
        pixels["dataset"]["preprocessing"]["crop_size"] = json!(4096);
        let error = read(&pixels).expect_err("a million image tokens").to_string();
        assert!(error.contains("at most 128 patches"), "{error}");
    }
}
