//! `config.json` of a generator as it is published, key by key (`ModelArgs` in autoregressive/models/gpt_har.py and
//! gpt_vanilla.py).
//!
//! A key that nobody knows is an error, because it may change what the network computes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) dim: i64,
    pub(super) n_layer: usize,
    pub(super) n_head: i64,
    /// As many as `n_head` when null or absent.
    #[serde(default)]
    pub(super) n_kv_head: Option<i64>,
    #[serde(default = "width_multiple")]
    pub(super) multiple_of: i64,
    #[serde(default)]
    pub(super) ffn_dim_multiplier: Option<f64>,
    #[serde(default = "ten_thousand")]
    pub(super) rope_base: f64,
    #[serde(default = "epsilon")]
    pub(super) norm_eps: f64,
    #[serde(default = "deviation")]
    pub(super) initializer_range: f64,
    #[serde(default = "tenth")]
    pub(super) token_dropout_p: f64,
    #[serde(default)]
    pub(super) attn_dropout_p: f64,
    #[serde(default = "tenth")]
    pub(super) resid_dropout_p: f64,
    #[serde(default = "tenth")]
    pub(super) ffn_dropout_p: f64,
    #[serde(default)]
    pub(super) drop_path_rate: f64,
    pub(super) num_classes: usize,
    #[serde(default = "tenth")]
    pub(super) class_dropout_prob: f64,
    #[serde(default = "class_to_image")]
    pub(super) model_type: String,
    pub(super) vocab_size: usize,
    #[serde(default = "one")]
    pub(super) cls_token_num: usize,
    pub(super) block_size: usize,
    /// Absent, with `spe_token_num`, in the configuration of `gpt_vanilla.py`: every step is one token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ar_token_num: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) spe_token_num: Option<usize>,
    // Of the other condition, by text, and sizes of a cache that is made anew for each batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) caption_dim: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_batch_size: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_seq_len: Option<Value>,
}

impl RawConfig {
    /// configs/training/generator/llamagen_l_c2i_restok_l_128.yaml.
    pub(super) fn published() -> Self {
        Self {
            dim: 1024,
            n_layer: 24,
            n_head: 16,
            n_kv_head: None,
            multiple_of: width_multiple(),
            ffn_dim_multiplier: None,
            rope_base: ten_thousand(),
            norm_eps: epsilon(),
            initializer_range: deviation(),
            token_dropout_p: tenth(),
            attn_dropout_p: 0.0,
            resid_dropout_p: tenth(),
            ffn_dropout_p: tenth(),
            drop_path_rate: 0.0,
            num_classes: 1000,
            class_dropout_prob: tenth(),
            model_type: class_to_image(),
            vocab_size: 8192,
            cls_token_num: one(),
            block_size: 128,
            ar_token_num: Some(4),
            spe_token_num: Some(127),
            caption_dim: None,
            max_batch_size: None,
            max_seq_len: None,
        }
    }
}

fn width_multiple() -> i64 {
    256
}

fn ten_thousand() -> f64 {
    10_000.0
}

fn epsilon() -> f64 {
    1e-5
}

fn deviation() -> f64 {
    0.02
}

fn tenth() -> f64 {
    0.1
}

fn one() -> usize {
    1
}

fn class_to_image() -> String {
    "c2i".to_owned()
}
