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

/// Tensors of a weight file: name, type, shape and bytes.
type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(weights: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(weights).expect("a safetensors file");
    file.iter()
        .map(|(name, tensor)| (name.to_owned(), tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()))
        .collect()
}

fn serialized(tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, kind, shape, bytes)| {
        (name, TensorView::new(*kind, shape.clone(), bytes).expect("as many bytes as before"))
    });
    safetensors::serialize(views, None).expect("tensors in memory")
}

/// The same weights with those of the encoder ten times as large. Training starts from weights so small that every image gets
/// nearly the same tokens, and a comparison of such tokens would show little.
fn widened(weights: &[u8]) -> Vec<u8> {
    let mut tensors = tensors(weights);
    for (name, kind, shape, bytes) in &mut tensors {
        assert_eq!(*kind, Dtype::F32, "{name}");
        let of_encoder = name.starts_with("encoder.") || name.starts_with("pixel_encoder.");
        if of_encoder && name.ends_with("weight") && shape.len() >= 2 {
            for value in bytes.as_chunks_mut::<4>().0 {
                *value = (f32::from_le_bytes(*value) * 10.0).to_le_bytes();
            }
        }
    }
    serialized(&tensors)
}

/// Puts `prefix` in front of the names of the weights in `folder`.
pub fn put_under(prefix: &str, folder: &Path) {
    let file = folder.join("model.safetensors");
    let mut tensors = tensors(&std::fs::read(&file).expect("weights"));
    for (name, ..) in &mut tensors {
        name.insert_str(0, prefix);
    }
    std::fs::write(&file, serialized(&tensors)).expect("a file in the workspace");
}

/// Makes `shards` files with an index of the weights in `folder`, which go.
pub fn shard(folder: &Path, shards: usize) {
    let file = folder.join("model.safetensors");
    let tensors = tensors(&std::fs::read(&file).expect("weights"));
    let mut map = serde_json::Map::new();
    for (number, part) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
        let shard = format!("model-{:05}-of-{shards:05}.safetensors", number + 1);
        std::fs::write(folder.join(&shard), serialized(part)).expect("a file in the workspace");
        map.extend(part.iter().map(|(name, ..)| (name.clone(), shard.clone().into())));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).expect("a file in the workspace");
    std::fs::remove_file(file).expect("weights");
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
