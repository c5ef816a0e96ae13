//! What a tokenizer is built from: the published configuration, resolved and checked.

pub use super::raw_config::{Architecture, Preset};
use super::{hierarchy, raw_config::RawConfig};
use crate::{ModelError, config_kind};
use schemas::{TokenLevels, check_codebook_size};
use std::path::Path;

/// Size of one transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformerSize {
    /// Channels of the stream.
    pub width: i64,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: i64,
}

impl TransformerSize {
    /// The published sizes, from the tables in modeling/modules/blocks.py.
    pub fn preset(preset: Preset) -> Self {
        match preset {
            Preset::Small => Self { width: 512, layers: 6, heads: 8 },
            Preset::Base => Self { width: 768, layers: 12, heads: 12 },
            Preset::Large => Self { width: 1024, layers: 24, heads: 16 },
        }
    }

    /// Channels of one head.
    pub fn head_width(&self) -> i64 {
        self.width / self.heads
    }
}

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
    /// The published configuration with 128 latent tokens at 256 by 256 pixels, with transformers of `preset`'s size.
    /// Source: configs/training/ResTok/restok_l_128.yaml.
    pub fn preset(preset: Preset) -> Self {
        let size = serde_json::to_value(preset).expect("a preset is a word");
        let value = serde_json::json!({
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
        });
        Self::from_json(&value.to_string(), Path::new("preset")).expect("the published configuration is sound")
    }

    /// Reads and checks `text`; `file` names it in errors.
    ///
    /// # Errors
    /// When it is no JSON, the configuration of something else, has an unknown key, or settings that cannot be or do not go together.
    pub fn from_json(text: &str, file: &Path) -> Result<Self, ModelError> {
        let raw = serde_json::from_str(text)
            .map_err(|error| config_kind::unreadable(text, file, config_kind::TOKENIZER, &error))?;
        Self::resolve(raw)
    }

    /// The configuration as `config.json` holds it, with every key that was read.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.raw).expect("a configuration is plain data");
        text.push('\n');
        text
    }

    fn resolve(raw: RawConfig) -> Result<Self, ModelError> {
        let options = &raw.model.vq_model;
        let (encoder, decoder, pixel_networks) = match &raw.architecture {
            None => (
                TransformerSize::preset(options.vit_enc_model_size),
                TransformerSize::preset(options.vit_dec_model_size),
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
            encoder_grid: resolution / options.vit_enc_patch_size.max(1),
            decoder_grid: resolution / options.vit_dec_patch_size.max(1),
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
        if layers == 0 {
            return wrong("architecture.layers", &layers, "at least 1");
        }
        if heads < 1 || width < 1 || width % heads != 0 || (width / heads) % 4 != 0 {
            let expected = format!("a multiple of 4 times the {heads} heads: rotary embedding turns pairs on two axes");
            return wrong("architecture.width", &width, &expected);
        }
        let PixelNetworkSize { z, hidden, multipliers, residual_blocks } = &self.pixel_networks;
        if multipliers.is_empty() || multipliers.len() > 12 || multipliers.iter().any(|&multiplier| multiplier < 1) {
            return wrong("architecture.mult", &format!("{multipliers:?}"), "1 to 12 levels of at least 1");
        }
        if *hidden < 1 || multipliers.iter().any(|multiplier| (hidden * multiplier) % crate::layers::NORM_GROUPS != 0) {
            return wrong("architecture.hidden", hidden, "channels that divide into 32 groups at every level");
        }
        if *residual_blocks == 0 || *z < 1 {
            return wrong("architecture.nres and z", &format!("{residual_blocks} and {z}"), "at least 1");
        }
        if let Some(repeated) =
            self.raw.architecture.as_ref().and_then(|free| free.res).filter(|&res| res != self.resolution)
        {
            let expected = format!("{} as dataset.preprocessing.crop_size, or absent", self.resolution);
            return wrong("architecture.res", &repeated, &expected);
        }
        if options.token_size < 1 {
            return wrong("token_size", &options.token_size, "at least 1");
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
            if patch < 1 || self.resolution < 1 || self.resolution % patch != 0 {
                let expected = format!("a divisor of crop_size, which is {}", self.resolution);
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

    pub(super) fn options(&self) -> &super::raw_config::RawVqModel {
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
