//! What the configurations of all models have in common: whose a `config.json` is that was not asked for, and how large its numbers may be.

use crate::{
    ModelError,
    weight_file::{Foreign, LOOKED_AT},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::path::Path;

/// The configuration that `resolve` makes of the keys in `text`; every error names `file`, and `expected` says whose it should be.
pub(crate) fn read<Raw: DeserializeOwned, Config>(
    text: &str,
    file: &Path,
    expected: &str,
    resolve: impl FnOnce(Raw) -> Result<Config, ModelError>,
) -> Result<Config, ModelError> {
    let raw = serde_json::from_str(text).map_err(|error| unreadable(text, file, expected, &error))?;
    resolve(raw).map_err(|error| ModelError::Config { file: file.to_owned(), problem: error.to_string() })
}

/// Keys as `config.json` holds them.
pub(crate) fn written(raw: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(raw).expect("a configuration is plain data");
    text.push('\n');
    text
}

/// The error of a configuration that does not read as that of `expected`, for the reason that the parser gives: where the text is known to be
/// something else, what it is.
fn unreadable(text: &str, file: &Path, expected: &str, reason: &serde_json::Error) -> ModelError {
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        let start = &text.as_bytes()[..text.len().min(LOOKED_AT)];
        return match Foreign::of(start) {
            Some(Foreign::Other { what, advice }) if !text.trim_start().starts_with('{') => {
                ModelError::ForeignFile { file: file.to_owned(), what, expected: "a configuration as JSON", advice }
            }
            _ => ModelError::Config { file: file.to_owned(), problem: reason.to_string() },
        };
    };
    let problem = match recognised(&value).filter(|found| found != expected) {
        Some(found) => {
            format!("it is the configuration of {found}, expected that of {expected}: name the folder of {expected}")
        }
        None => reason.to_string(),
    };
    ModelError::Config { file: file.to_owned(), problem }
}

/// Whose configuration something is, by the keys that it has.
fn recognised(value: &Value) -> Option<String> {
    let word = |key: &str| value.get(key).and_then(Value::as_str);
    if value.pointer("/model/vq_model/vit_enc_model_size").is_some() {
        return Some(TOKENIZER.to_owned());
    }
    if ["dim", "n_layer", "n_head", "vocab_size"].iter().all(|key| value.get(key).is_some()) {
        return Some(GENERATOR.to_owned());
    }
    if let Some(class) = word("_class_name") {
        return Some(format!("diffusers' {class}"));
    }
    if let Some(class) = value.pointer("/architectures/0").and_then(Value::as_str) {
        return Some(format!("transformers' {class}"));
    }
    if let (Some(model), true) = (word("architecture"), value.get("pretrained_cfg").is_some()) {
        return Some(format!("timm's {model}"));
    }
    let is_vqgan =
        ["/ddconfig", "/params/ddconfig", "/model/params/ddconfig"].iter().any(|key| value.pointer(key).is_some());
    is_vqgan.then(|| "a VQGAN or an autoencoder of latent diffusion".to_owned())
}

/// Most of anything that a configuration counts: far above every published model, and small enough that no arithmetic of sizes overflows.
pub(crate) const MAX_SIZE: i64 = 1 << 16;
/// Most numbers in the weights of one network: ten times the largest published.
const MAX_WEIGHTS: i64 = 1 << 34;

/// Holds every one of `sizes`, by its key, to 1 to [`MAX_SIZE`]. To be called before anything is computed from them.
///
/// # Errors
/// When one is out of range.
pub(crate) fn check_sizes(sizes: impl IntoIterator<Item = (&'static str, i64)>) -> Result<(), ModelError> {
    match sizes.into_iter().find(|(_, size)| !(1..=MAX_SIZE).contains(size)) {
        None => Ok(()),
        Some((setting, size)) => Err(ModelError::setting(setting, size, format!("1 to {MAX_SIZE}"))),
    }
}

/// Holds a network of `layers` blocks, each with `block_weights` numbers, to what could be loaded; `setting` is the key of the layers.
///
/// # Errors
/// When it is larger.
pub(crate) fn check_weights(setting: &'static str, layers: usize, block_weights: i64) -> Result<(), ModelError> {
    match i64::try_from(layers).ok().and_then(|layers| layers.checked_mul(block_weights)) {
        Some(weights) if weights <= MAX_WEIGHTS => Ok(()),
        _ => {
            let expected = format!("fewer blocks of {block_weights} weights each: {MAX_WEIGHTS} weights at most");
            Err(ModelError::setting(setting, layers, expected))
        }
    }
}

/// What the configurations of this crate are of.
pub(crate) const TOKENIZER: &str = "a ResTok tokenizer";
pub(crate) const GENERATOR: &str = "a generator";
