//! Every term of the objective in one run: each is computed, reported and learned from, and a stop changes nothing.

use super::{
    AdamWOptions, CosineSchedule, DiscriminatorKind, FrozenFiles, ReconstructionKind, TokenizerRecipe,
    TokenizerTrainer, Trainer, objective::Objective,
};
use crate::{
    Device, Precision, TokenizerConfig,
    foundation::{FoundationKind, FoundationModel, VisionArchitecture},
    losses::reference_values::{file, reference_values},
};
use schemas::{PixelBatch, RandomStream};
use std::path::Path;

const SIDE: usize = 32;

/// A small tokenizer whose features are aligned on both sides.
fn config() -> TokenizerConfig {
    let config = serde_json::json!({
        "model": { "vq_model": {
            "codebook_size": 64, "token_size": 8, "use_l2_norm": true,
            "commitment_cost": 0.25, "entropy_loss_ratio": 0.1,
            "vit_enc_model_size": "small", "vit_dec_model_size": "small",
            "vit_enc_patch_size": 4, "vit_dec_patch_size": 4,
            "num_latent_tokens": 16, "num_min_tokens": 2,
            "merge_tokens": true, "vae_encoder": true, "drop_latent_tokens": true, "drop_prob": 0.2,
            "use_vf": "dinov3", "encoder_feature_supervision": true, "decoder_feature_supervision": true,
        } },
        "dataset": { "preprocessing": { "crop_size": SIDE } },
        "architecture": { "width": 32, "layers": 4, "heads": 2, "z": 32, "hidden": 32, "mult": [1, 1, 1], "nres": 1 },
    });
    TokenizerConfig::from_json(&config.to_string(), Path::new("test")).expect("a sound configuration")
}

fn recipe() -> TokenizerRecipe {
    let learning_rate = CosineSchedule { peak: 2e-3, end: 2e-4, warmup_steps: 0, steps: 10 };
    TokenizerRecipe {
        seed: 3,
        precision: Precision::Fp32,
        reconstruction: ReconstructionKind::L1,
        discriminator: DiscriminatorKind::Dino,
        adversarial_start: 1,
        learning_rate,
        discriminator_learning_rate: learning_rate,
        optimizer: AdamWOptions { beta1: 0.9, beta2: 0.95, weight_decay: 1e-4 },
        ..TokenizerRecipe::published()
    }
}

/// Frozen networks of the public shapes, with weights by a formula. The vision foundation model has two blocks, or the test would
/// need a gigabyte.
fn trainer(folder: &Path) -> TokenizerTrainer {
    let names = &reference_values()["names"];
    let frozen = FrozenFiles {
        vgg16: Some(file(folder, "vgg16.safetensors", &names["vgg16"])),
        lpips: Some(file(folder, "lpips.safetensors", &names["lpips"])),
        dino: Some(file(folder, "dino.safetensors", &names["dino"])),
        foundation_model: Some(file(
            folder,
            "dinov3.safetensors",
            &reference_values()["foundation"]["dinov3"]["names"],
        )),
    };
    let small = VisionArchitecture { width: 128, layers: 2, heads: 4, ..VisionArchitecture::DINOV3_LARGE };
    let (config, recipe) = (config(), recipe());
    let needed = frozen.needed(&recipe, &config).expect("every file is given");
    let (_, file) = needed.foundation_model.expect("the configuration names one");
    let kind = FoundationKind::from_setting("dinov3").expect("known");
    let foundation = FoundationModel::load_architecture(kind, &small, file, tch::Device::Cpu, [8, 8]).expect("loads");
    let objective = Objective::with_foundation(&needed, Some(foundation), Device::Cpu).expect("loads");
    TokenizerTrainer::with_objective(config.clone(), recipe, objective, needed.dino, Device::Cpu).expect("built")
}

fn noise(step: u64) -> PixelBatch {
    let mut drawn = RandomStream::new(1, "pixels", step);
    let pixels = (0..4 * SIDE * SIDE * 3).map(|_| drawn.below(256) as u8).collect();
    PixelBatch::try_new(pixels, 4, 4, SIDE, SIDE).expect("a batch")
}

#[test]
fn every_term_is_computed_reported_and_learned_from_and_a_stop_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut whole = trainer(folder.path());
    let start = whole.tensors();
    let mut expected = Vec::new();
    let checkpoint = tempfile::tempdir().expect("a folder");
    for step in 0..4 {
        expected = whole.step(&[noise(step)]).expect("a step").read().expect("read");
        if step == 1 {
            whole.save(checkpoint.path()).expect("saved");
        }
    }
    let mut names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
    let mut known = whole.scalars();
    names.sort_unstable();
    known.sort_unstable();
    assert_eq!(names, known);
    for name in ["perceptual_loss", "alignment_loss", "encoder_cosine", "decoder_cosine", "adversarial_loss"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert!(expected.iter().all(|(_, value)| value.is_finite()), "{expected:?}");
    for (name, before) in &start {
        let moved = (&whole.tensors()[name] - before).abs().max().double_value(&[]);
        assert!(moved > 0.0, "{name} has not moved");
    }

    let mut resumed = trainer(folder.path());
    resumed.restore(checkpoint.path(), 2).expect("restored");
    let mut found = Vec::new();
    for step in 2..4 {
        found = resumed.step(&[noise(step)]).expect("a step").read().expect("read");
    }
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        assert_eq!(found.to_bits(), expected.to_bits(), "{name}: {found} {expected}");
    }
    // What only training needs does not stand in the way of the tokenizer.
    whole.ema(Precision::Fp32).expect("a tokenizer");
}
