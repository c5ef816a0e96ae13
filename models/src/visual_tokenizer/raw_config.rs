//! `config.json` as it is published, key by key.
//!
//! A key that nobody knows is an error, because it may change what the network computes. Keys of which that is known not to be
//! so (training, evaluation, the generator) are named here, accepted, and kept when a tokenizer is saved.

use crate::sizes::TokenizerSize;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) model: RawModel,
    pub(super) dataset: RawDataset,
    /// Ours: sizes other than the published small, base and large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) architecture: Option<Architecture>,
    // Sections of the training scripts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    experiment: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    losses: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    optimizer: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lr_scheduler: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    training: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModel {
    pub(super) vq_model: RawVqModel,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generator: Option<Value>,
}

/// Options with the published defaults, which are not always those of the published files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVqModel {
    pub(super) codebook_size: usize,
    pub(super) token_size: i64,
    pub(super) use_l2_norm: bool,
    pub(super) commitment_cost: f64,
    pub(super) entropy_loss_ratio: f64,
    pub(super) vit_enc_model_size: TokenizerSize,
    pub(super) vit_dec_model_size: TokenizerSize,
    pub(super) vit_enc_patch_size: i64,
    pub(super) vit_dec_patch_size: i64,
    #[serde(default = "ten_thousand")]
    pub(super) rope_base_len: f64,
    pub(super) num_latent_tokens: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) test_num_latent_tokens: Option<usize>,
    #[serde(default)]
    pub(super) merge_tokens: bool,
    #[serde(default = "four")]
    pub(super) hierarchy_stages: usize,
    #[serde(default = "half")]
    pub(super) reduction_ratio: f64,
    #[serde(default = "yes")]
    pub(super) residual_image_tokens: bool,
    #[serde(default = "yes")]
    pub(super) residual_latent_tokens: bool,
    #[serde(default)]
    pub(super) learnable_latent_tokens: bool,
    #[serde(default = "yes")]
    pub(super) learnable_dec_image_tokens: bool,
    #[serde(default = "yes")]
    pub(super) multi_quant: bool,
    #[serde(default)]
    pub(super) vae_encoder: bool,
    #[serde(default = "yes")]
    pub(super) latent_hierarchy: bool,
    #[serde(default = "yes")]
    pub(super) is_legacy: bool,
    // Used in training only: nested dropout of latent tokens, alignment with a vision foundation model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) num_min_tokens: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) drop_latent_tokens: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) drop_prob: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) encoder_feature_supervision: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) decoder_feature_supervision: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) learnable_dec_feat_tokens: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) use_vf: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reverse_proj: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDataset {
    pub(super) preprocessing: RawPreprocessing,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    params: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPreprocessing {
    pub(super) crop_size: i64,
    // Augmentation in training; crops for tokens are named elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resize_shorter_edge: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resize_with_crop: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    random_resized_crop: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    random_crop: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    random_flip: Option<Value>,
}

impl RawConfig {
    /// Without the sections of the training scripts.
    pub(super) fn new(vq_model: RawVqModel, crop_size: i64, architecture: Option<Architecture>) -> Self {
        Self {
            model: RawModel { vq_model, generator: None },
            dataset: RawDataset {
                preprocessing: RawPreprocessing {
                    crop_size,
                    resize_shorter_edge: None,
                    resize_with_crop: None,
                    random_resized_crop: None,
                    random_crop: None,
                    random_flip: None,
                },
                params: None,
            },
            architecture,
            experiment: None,
            losses: None,
            optimizer: None,
            lr_scheduler: None,
            training: None,
        }
    }
}

impl RawVqModel {
    /// configs/training/ResTok/restok_l_128.yaml, with transformers of `size`.
    pub(super) fn published(size: TokenizerSize) -> Self {
        Self {
            codebook_size: 8192,
            token_size: 8,
            use_l2_norm: true,
            commitment_cost: 0.25,
            entropy_loss_ratio: 0.0,
            vit_enc_model_size: size,
            vit_dec_model_size: size,
            vit_enc_patch_size: 16,
            vit_dec_patch_size: 16,
            rope_base_len: ten_thousand(),
            num_latent_tokens: 128,
            test_num_latent_tokens: Some(128),
            merge_tokens: true,
            hierarchy_stages: four(),
            reduction_ratio: half(),
            residual_image_tokens: true,
            residual_latent_tokens: true,
            learnable_latent_tokens: false,
            learnable_dec_image_tokens: true,
            multi_quant: true,
            vae_encoder: true,
            latent_hierarchy: true,
            is_legacy: true,
            num_min_tokens: Some(4),
            drop_latent_tokens: Some(true),
            drop_prob: Some(0.2),
            encoder_feature_supervision: Some(true),
            decoder_feature_supervision: Some(true),
            learnable_dec_feat_tokens: Some(true),
            use_vf: Some("dinov3".to_owned()),
            reverse_proj: Some(true),
        }
    }
}

/// Free sizes, for both transformers and both convolutional networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Channels of the transformers.
    pub width: i64,
    /// Blocks of each transformer.
    pub layers: usize,
    /// Attention heads.
    pub heads: i64,
    /// Channels between a convolutional network and its transformer.
    pub z: i64,
    /// Channels of the first convolution.
    pub hidden: i64,
    /// Channels of each level over `hidden`, finest first. One level fewer than this many halvings of the image.
    pub mult: Vec<i64>,
    /// Residual blocks a level.
    pub nres: usize,
    /// The image's side in pixels, if it is repeated here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub res: Option<i64>,
}

fn yes() -> bool {
    true
}

fn four() -> usize {
    4
}

fn half() -> f64 {
    0.5
}

fn ten_thousand() -> f64 {
    10_000.0
}
