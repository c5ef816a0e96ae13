//! What a `config.json` is of that is not of the model that was asked for.

use crate::{
    ModelError,
    weight_file::{Foreign, LOOKED_AT},
};
use serde_json::Value;
use std::path::Path;

/// The error of a configuration that does not read as that of `expected`, for the reason that the parser gives: where the text is known to be
/// something else, what it is.
pub(crate) fn unreadable(text: &str, file: &Path, expected: &str, reason: &serde_json::Error) -> ModelError {
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

/// What the configurations of this crate are of.
pub(crate) const TOKENIZER: &str = "a ResTok tokenizer";
pub(crate) const GENERATOR: &str = "a generator";
