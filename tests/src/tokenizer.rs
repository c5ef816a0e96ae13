//! A very small tokenizer with random weights: its tokens mean nothing, but they depend on every pixel, and a process that uses
//! it spends its time on everything but the network.

use models::{Device, LoadOptions, Precision, TokenizerConfig, VisualTokenizer};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::path::Path;

/// Side of its images in pixels.
pub const RESOLUTION: usize = 32;
/// Tokens it gives an image.
pub const TOKENS_PER_IMAGE: usize = 32;
/// Codes of its codebook.
pub const CODEBOOK_SIZE: usize = 512;

/// Draws its weights from `seed` and saves it as a published folder.
pub fn save(folder: &Path, seed: i64) {
    let config =
        TokenizerConfig::from_json(&config().to_string(), Path::new("config.json")).expect("a sound configuration");
    let options = LoadOptions { device: Device::Cpu, precision: Precision::Fp32, name: None };
    let tokenizer = VisualTokenizer::init(config, seed, options).expect("random weights");
    tokenizer.save(folder).expect("a folder in the workspace");
    let file = folder.join("model.safetensors");
    let weights = std::fs::read(&file).expect("the weights just saved");
    std::fs::write(&file, widened(&weights)).expect("a file in the workspace");
}

/// The same weights with those of the encoder ten times as large. Training starts from weights so small that every image gets
/// nearly the same tokens, and a comparison of such tokens would show little.
fn widened(weights: &[u8]) -> Vec<u8> {
    let file = SafeTensors::deserialize(weights).expect("a safetensors file");
    let tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = file
        .iter()
        .map(|(name, tensor)| {
            let of_encoder = name.starts_with("encoder.") || name.starts_with("pixel_encoder.");
            let factor = if of_encoder && name.ends_with("weight") && tensor.shape().len() >= 2 { 10.0 } else { 1.0 };
            let values = tensor.data().as_chunks::<4>().0.iter();
            let bytes = values.flat_map(|&bytes| (f32::from_le_bytes(bytes) * factor).to_le_bytes()).collect();
            (name.to_owned(), tensor.dtype(), tensor.shape().to_vec(), bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, kind, shape, bytes)| {
        assert_eq!(*kind, Dtype::F32, "{name}");
        (name, TensorView::new(*kind, shape.clone(), bytes).expect("as many bytes as before"))
    });
    safetensors::serialize(views, None).expect("tensors in memory")
}

/// Its `config.json`.
pub fn config() -> serde_json::Value {
    serde_json::json!({
        "model": { "vq_model": {
            "codebook_size": CODEBOOK_SIZE, "token_size": 8, "use_l2_norm": true,
            "commitment_cost": 0.25, "entropy_loss_ratio": 0.0,
            "vit_enc_model_size": "small", "vit_dec_model_size": "small",
            "vit_enc_patch_size": 4, "vit_dec_patch_size": 4, "rope_base_len": 10_000,
            "num_latent_tokens": TOKENS_PER_IMAGE, "num_min_tokens": 4, "test_num_latent_tokens": TOKENS_PER_IMAGE,
            "merge_tokens": true, "hierarchy_stages": 2, "reduction_ratio": 0.5,
            "residual_image_tokens": true, "residual_latent_tokens": true,
            "learnable_latent_tokens": false, "learnable_dec_image_tokens": true,
            "multi_quant": true, "vae_encoder": true, "latent_hierarchy": true,
            "drop_latent_tokens": false, "drop_prob": 0.0,
            "encoder_feature_supervision": false, "decoder_feature_supervision": false,
            "learnable_dec_feat_tokens": true,
        } },
        "dataset": { "preprocessing": { "crop_size": RESOLUTION } },
        // The narrowest that group normalisation allows.
        "architecture": { "width": 32, "layers": 2, "heads": 4, "z": 16, "hidden": 32, "mult": [1, 1, 1], "nres": 1 },
    })
}
