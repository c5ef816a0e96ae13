//! What a generator is built from: the published configuration, resolved and checked.

use super::{raw_config::RawConfig, steps::Steps};
use crate::{
    ModelError, config_kind,
    sizes::{GeneratorSize, TransformerSize},
};
use schemas::{TokenLevels, check_codebook_size};
use std::path::Path;

/// Most special tokens that a published generator has, whether it reads them or not.
const PUBLISHED_SPECIAL_TOKENS: usize = 127;
/// Tokens that the published generators sample one by one before they go by levels.
const PUBLISHED_SINGLE_TOKENS: usize = 4;

/// What a generator is to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratorData {
    /// Codes in the tokenizer's codebook.
    pub codebook_size: usize,
    /// Classes, counted from 0.
    pub classes: usize,
    /// Tokens an image: a power of two.
    pub tokens_per_image: usize,
}

/// Fractions that training sets to zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Dropouts {
    /// Of what the first block reads.
    pub(crate) token: f64,
    /// Of the attention's weights.
    pub(crate) attention: f64,
    /// Of what attention adds to the stream.
    pub(crate) residual: f64,
    /// Of what the hidden layer adds.
    pub(crate) hidden: f64,
    /// Of whole blocks, a sample each, in the last block; none in the first, and evenly between.
    pub(crate) path: f64,
}

/// A checked configuration. [`Self::of_size`], [`Self::from_json`] or a published `config.json` make one.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorConfig {
    raw: RawConfig,
    levels: TokenLevels,
    ffn_dim: i64,
}

/// Most classes: each has one row of the embedding, so that sets of millions of identities fit, and no product of sizes overflows.
const MAX_CLASSES: usize = 1 << 24;

/// Holds all sizes to what can be computed with.
fn check_sizes(raw: &RawConfig) -> Result<(), ModelError> {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    config_kind::check_sizes([
        ("dim", raw.dim),
        ("n_layer", count(raw.n_layer)),
        ("n_head", raw.n_head),
        ("n_kv_head", raw.n_kv_head.unwrap_or(1)),
        ("multiple_of", raw.multiple_of),
        ("block_size", count(raw.block_size)),
        ("spe_token_num", count(raw.spe_token_num.unwrap_or(1))),
    ])?;
    if !(1..=MAX_CLASSES).contains(&raw.num_classes) {
        return Err(ModelError::setting("num_classes", raw.num_classes, format!("1 to {MAX_CLASSES}")));
    }
    Ok(())
}

impl GeneratorConfig {
    /// The published configuration in `size` (configs/training/generator/llamagen_l_c2i_restok_l_128.yaml): four tokens one by one,
    /// then level by level.
    ///
    /// # Errors
    /// When `data` cannot be: a codebook too large for 16 bits, no class, tokens that are no power of two.
    pub fn of_size(size: GeneratorSize, data: GeneratorData) -> Result<Self, ModelError> {
        let TransformerSize { width, layers, heads } = size.transformer();
        let single = PUBLISHED_SINGLE_TOKENS.min(data.tokens_per_image / 2).max(1);
        Self::resolve(RawConfig {
            dim: width,
            n_layer: layers,
            n_head: heads,
            multiple_of: if size == GeneratorSize::Tiny { 32 } else { 256 },
            num_classes: data.classes,
            vocab_size: data.codebook_size,
            block_size: data.tokens_per_image,
            ar_token_num: Some(single),
            spe_token_num: Some(PUBLISHED_SPECIAL_TOKENS.max((data.tokens_per_image / 2).saturating_sub(1))),
            ..RawConfig::published()
        })
    }

    /// Reads and checks `text`; every error names `file`.
    ///
    /// # Errors
    /// When it is no JSON, the configuration of something else, has an unknown key, or settings that cannot be or do not go together.
    pub fn from_json(text: &str, file: &Path) -> Result<Self, ModelError> {
        config_kind::read(text, file, config_kind::GENERATOR, Self::resolve)
    }

    /// The configuration as `config.json` holds it, with every key that was read.
    pub fn to_json(&self) -> String {
        config_kind::written(&self.raw)
    }

    /// The same for `classes` classes.
    ///
    /// # Errors
    /// When there is none, or there are too many.
    pub fn with_classes(mut self, classes: usize) -> Result<Self, ModelError> {
        self.raw.num_classes = classes;
        Self::resolve(self.raw)
    }

    /// The same with the null class in place of an image's own in this fraction of training; without a null class for 0.
    ///
    /// # Errors
    /// When it is not at least 0 and below 1.
    pub fn with_class_dropout(mut self, fraction: f64) -> Result<Self, ModelError> {
        self.raw.class_dropout_prob = fraction;
        Self::resolve(self.raw)
    }

    /// The same with this dropout of tokens, of what attention adds and of what the hidden layer adds.
    ///
    /// # Errors
    /// When it is not at least 0 and below 1.
    pub fn with_dropout(mut self, fraction: f64) -> Result<Self, ModelError> {
        let raw = &mut self.raw;
        (raw.token_dropout_p, raw.resid_dropout_p, raw.ffn_dropout_p) = (fraction, fraction, fraction);
        Self::resolve(self.raw)
    }

    /// The same without levels, as gpt_vanilla.py has it: every step samples one token.
    pub fn token_by_token(mut self) -> Self {
        (self.raw.ar_token_num, self.raw.spe_token_num) = (None, None);
        self
    }

    fn resolve(raw: RawConfig) -> Result<Self, ModelError> {
        check_sizes(&raw)?;
        let levels = TokenLevels::published(raw.block_size)
            .map_err(|error| ModelError::setting("block_size", raw.block_size, error.to_string()))?;
        // Two thirds of four times the width, a number that is cut twice as published.
        let thirds = 2 * (4 * raw.dim) / 3;
        let hidden = raw.ffn_dim_multiplier.map_or(thirds, |multiplier| (multiplier * thirds as f64) as i64);
        let largest = 4 * config_kind::MAX_SIZE;
        if hidden > largest {
            let expected = format!("a width of the hidden layer of at most {largest}; this gives {hidden}");
            let found = raw.ffn_dim_multiplier.unwrap_or(1.0);
            return Err(ModelError::setting("ffn_dim_multiplier", found, expected));
        }
        let multiple = raw.multiple_of;
        let config = Self { levels, ffn_dim: (hidden.max(1) + multiple - 1) / multiple * multiple, raw };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ModelError> {
        let wrong = |setting, found: &dyn ToString, expected: &str| {
            Err(ModelError::setting(setting, found.to_string(), expected))
        };
        let raw = &self.raw;
        check_codebook_size(raw.vocab_size)?;
        if raw.model_type != "c2i" {
            return wrong("model_type", &raw.model_type, "c2i: only classes condition a generator here, no text");
        }
        if raw.cls_token_num != 1 {
            return wrong("cls_token_num", &raw.cls_token_num, "1");
        }
        let (width, heads) = (raw.dim, raw.n_head);
        if width % heads != 0 || (width / heads) % 2 != 0 {
            let expected = format!("a multiple of 2 times the {heads} heads: rotary embedding turns pairs");
            return wrong("dim", &width, &expected);
        }
        if let Some(kv_heads) = raw.n_kv_head.filter(|&kv_heads| heads % kv_heads != 0) {
            return wrong("n_kv_head", &kv_heads, &format!("a divisor of the {heads} heads, or null"));
        }
        config_kind::check_weights("n_layer", raw.n_layer, self.block_weights())?;
        if raw.rope_base <= 1.0 {
            return wrong("rope_base", &raw.rope_base, "more than 1");
        }
        for (setting, found) in [
            ("token_dropout_p", raw.token_dropout_p),
            ("attn_dropout_p", raw.attn_dropout_p),
            ("resid_dropout_p", raw.resid_dropout_p),
            ("ffn_dropout_p", raw.ffn_dropout_p),
            ("drop_path_rate", raw.drop_path_rate),
            ("class_dropout_prob", raw.class_dropout_prob),
        ] {
            if !(0.0..1.0).contains(&found) {
                return wrong(setting, &found, "at least 0, below 1");
            }
        }
        match (raw.ar_token_num, raw.spe_token_num) {
            (None, None) => Ok(()),
            (Some(single), special) => {
                let tokens = raw.block_size;
                if !single.is_power_of_two() || single > tokens / 2 {
                    let expected = format!("a power of two, at most half of block_size, which is {tokens}");
                    return wrong("ar_token_num", &single, &expected);
                }
                let (found, read) = (special.unwrap_or(0), tokens / 2 - 1);
                if found < read.max(1) {
                    return wrong(
                        "spe_token_num",
                        &found,
                        &format!("at least {}, half of block_size less one", read.max(1)),
                    );
                }
                Ok(())
            }
            (None, Some(special)) => wrong("spe_token_num", &special, "absent, as ar_token_num is"),
        }
    }

    /// Width, blocks and heads.
    pub fn size(&self) -> TransformerSize {
        TransformerSize { width: self.raw.dim, layers: self.raw.n_layer, heads: self.raw.n_head }
    }

    /// Codes in the codebook of the tokens.
    pub fn codebook_size(&self) -> usize {
        self.raw.vocab_size
    }

    /// Classes, counted from 0; the null class of guidance is not among them.
    pub fn classes(&self) -> usize {
        self.raw.num_classes
    }

    /// How the tokens of an image divide into levels.
    pub fn levels(&self) -> &TokenLevels {
        &self.levels
    }

    /// Tokens an image.
    pub fn tokens_per_image(&self) -> usize {
        self.raw.block_size
    }

    /// Whether there is a null class: without one, nothing can be guided.
    pub fn has_null_class(&self) -> bool {
        self.raw.class_dropout_prob > 0.0
    }

    /// How often training takes the null class for an image's own.
    pub fn class_dropout(&self) -> f64 {
        self.raw.class_dropout_prob
    }

    /// Steps in which the tokens of an image are sampled: 9 for the published 128.
    pub fn step_count(&self) -> usize {
        self.steps().len()
    }

    /// The same without any dropout but that of the class, which decides the tensors.
    pub fn without_dropout(mut self) -> Self {
        let raw = &mut self.raw;
        (raw.token_dropout_p, raw.attn_dropout_p, raw.resid_dropout_p) = (0.0, 0.0, 0.0);
        (raw.ffn_dropout_p, raw.drop_path_rate) = (0.0, 0.0);
        self
    }

    /// Tokens that are there after each step: 1, 2, 3, 4, 8, … 128 as published.
    pub fn step_ends(&self) -> Vec<usize> {
        self.steps().iter().map(|step| step.end() as usize).collect()
    }

    pub(crate) fn steps(&self) -> Steps {
        Steps::new(self.raw.block_size as i64, self.raw.ar_token_num.map(|single| single as i64))
    }

    pub(crate) fn dropouts(&self) -> Dropouts {
        Dropouts {
            token: self.raw.token_dropout_p,
            attention: self.raw.attn_dropout_p,
            residual: self.raw.resid_dropout_p,
            hidden: self.raw.ffn_dropout_p,
            path: self.raw.drop_path_rate,
        }
    }

    /// Rows of the class embedding.
    pub(crate) fn class_rows(&self) -> i64 {
        (self.raw.num_classes + usize::from(self.has_null_class())) as i64
    }

    /// Rows of the embedding of special tokens, where there is one.
    pub(crate) fn special_tokens(&self) -> Option<i64> {
        self.raw.spe_token_num.map(|tokens| tokens as i64)
    }

    /// Heads that keys and values have.
    pub(crate) fn kv_heads(&self) -> i64 {
        self.raw.n_kv_head.unwrap_or(self.raw.n_head)
    }

    pub(crate) fn ffn_dim(&self) -> i64 {
        self.ffn_dim
    }

    pub(crate) fn rotary_base(&self) -> f64 {
        self.raw.rope_base
    }

    pub(crate) fn norm_epsilon(&self) -> f64 {
        self.raw.norm_eps
    }

    pub(crate) fn init_std(&self) -> f64 {
        self.raw.initializer_range
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const IMAGENET: GeneratorData = GeneratorData { codebook_size: 8192, classes: 1000, tokens_per_image: 128 };

    #[test]
    fn published_sizes_have_the_published_hidden_widths_and_steps() {
        for (size, hidden) in [
            (GeneratorSize::GptB, 2048),
            (GeneratorSize::GptL, 2816),
            (GeneratorSize::GptXl, 3584),
            (GeneratorSize::GptXxl, 4096),
            (GeneratorSize::Tiny, 352),
        ] {
            let config = GeneratorConfig::of_size(size, IMAGENET).expect("a preset");
            assert_eq!((config.ffn_dim(), config.step_count()), (hidden, 9), "{}", size.name());
            assert_eq!(GeneratorSize::named(size.name()).expect("own name"), size);
            let again = GeneratorConfig::from_json(&config.to_json(), Path::new("again")).expect("reads");
            assert_eq!(again, config);
        }
        let error = GeneratorSize::named("gpt-m").expect_err("there is none").to_string();
        assert!(error.contains("gpt-xxl"), "{error}");
    }

    #[test]
    fn sizes_are_the_published_files() {
        for (size, data, [dim, n_layer, n_head, multiple_of], [single, special]) in [
            (GeneratorSize::GptL, IMAGENET, [1024, 24, 16, 256], [4, 127]),
            (GeneratorSize::Tiny, GeneratorData { tokens_per_image: 512, ..IMAGENET }, [128, 6, 4, 32], [4, 255]),
            (GeneratorSize::GptB, GeneratorData { tokens_per_image: 4, ..IMAGENET }, [768, 12, 12, 256], [2, 127]),
        ] {
            // The keys of configs/training/generator/llamagen_l_c2i_restok_l_128.yaml.
            let file = json!({
                "dim": dim, "n_layer": n_layer, "n_head": n_head, "n_kv_head": null,
                "multiple_of": multiple_of, "ffn_dim_multiplier": null,
                "rope_base": 10_000, "norm_eps": 1e-5, "initializer_range": 0.02,
                "token_dropout_p": 0.1, "attn_dropout_p": 0.0, "resid_dropout_p": 0.1, "ffn_dropout_p": 0.1,
                "drop_path_rate": 0.0,
                "num_classes": data.classes, "class_dropout_prob": 0.1, "model_type": "c2i",
                "vocab_size": data.codebook_size, "cls_token_num": 1, "block_size": data.tokens_per_image,
                "ar_token_num": single, "spe_token_num": special,
            });
            let read = GeneratorConfig::from_json(&file.to_string(), Path::new("config.json")).expect("sound");
            let preset = GeneratorConfig::of_size(size, data).expect("a preset");
            assert_eq!((preset.to_json(), &preset), (read.to_json(), &read));
        }
    }

    #[test]
    fn what_is_laid_over_is_as_if_the_file_said_so() {
        let preset = || GeneratorConfig::of_size(GeneratorSize::Tiny, IMAGENET).expect("a preset");
        let with = |changes: &[(&str, Value)]| {
            let mut file: Value = serde_json::from_str(&preset().to_json()).expect("JSON");
            for (key, value) in changes {
                file[*key] = value.clone();
            }
            GeneratorConfig::from_json(&file.to_string(), Path::new("config.json")).expect("sound")
        };
        assert_eq!(preset().with_classes(7).expect("sound"), with(&[("num_classes", json!(7))]));
        assert_eq!(preset().with_class_dropout(0.0).expect("sound"), with(&[("class_dropout_prob", json!(0.0))]));
        let keys = ["token_dropout_p", "resid_dropout_p", "ffn_dropout_p"].map(|key| (key, json!(0.3)));
        assert_eq!(preset().with_dropout(0.3).expect("sound"), with(&keys));
        assert_eq!(preset().token_by_token().step_count(), 128);
        for error in [preset().with_classes(0), preset().with_class_dropout(1.0), preset().with_dropout(-0.1)] {
            assert!(matches!(error, Err(ModelError::Setting { .. })), "{error:?}");
        }
    }

    #[test]
    fn every_setting_that_cannot_be_is_told_with_its_file() {
        let config = GeneratorConfig::of_size(GeneratorSize::Tiny, IMAGENET).expect("a preset").to_json();
        for (key, value, named) in [
            ("dim", json!(100), "dim"),
            ("n_layer", json!(0), "n_layer"),
            ("n_kv_head", json!(3), "n_kv_head"),
            ("num_classes", json!(0), "num_classes"),
            ("multiple_of", json!(0), "multiple_of"),
            ("model_type", json!("t2i"), "no text"),
            ("cls_token_num", json!(2), "cls_token_num"),
            ("block_size", json!(100), "block_size"),
            ("ar_token_num", json!(3), "ar_token_num"),
            ("ar_token_num", json!(128), "ar_token_num"),
            ("spe_token_num", json!(62), "at least 63"),
            ("ffn_dropout_p", json!(1.0), "ffn_dropout_p"),
            ("vocab_size", json!(1 << 20), "int16"),
            ("rope_scale", json!(2), "rope_scale"),
        ] {
            let mut changed: Value = serde_json::from_str(&config).expect("JSON");
            changed[key] = value;
            let error = GeneratorConfig::from_json(&changed.to_string(), Path::new("some/config.json"));
            let error = error.expect_err(key);
            assert!(matches!(error, ModelError::Config { .. }), "{error:?}");
            let error = error.to_string();
            assert!(error.contains(named), "{key}: {error}");
            assert_eq!(error.matches("some/config.json").count(), 1, "{error}");
        }
    }

    #[test]
    fn no_number_overflows_or_allocates_beyond_reason() {
        let config: Value =
            serde_json::from_str(&GeneratorConfig::of_size(GeneratorSize::Tiny, IMAGENET).expect("a preset").to_json())
                .expect("JSON");
        let keys =
            ["dim", "n_layer", "n_head", "n_kv_head", "multiple_of", "num_classes", "vocab_size", "cls_token_num"];
        for key in keys.into_iter().chain(["block_size", "ar_token_num", "spe_token_num", "ffn_dim_multiplier"]) {
            for huge in [json!(1_000_000_000), json!(1_i64 << 62), json!(i64::MAX), json!(u64::MAX)] {
                let mut changed = config.clone();
                changed[key] = huge.clone();
                let error = GeneratorConfig::from_json(&changed.to_string(), Path::new("some/config.json"));
                let error = error.expect_err(key).to_string();
                assert!(error.contains("some/config.json"), "{key} {huge}: {error}");
            }
        }
        let mut large = config;
        (large["dim"], large["n_layer"]) = (json!(1 << 15), json!(100));
        let error = GeneratorConfig::from_json(&large.to_string(), Path::new("config.json"));
        let error = error.expect_err("more than any memory").to_string();
        assert!(error.contains("n_layer is 100"), "{error}");
    }
}
