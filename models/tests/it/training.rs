//! A tokenizer learns, and a run that was stopped goes on as if it had not been.

use super::{device, on_device};
use models::{
    AdamWOptions, CosineSchedule, DiscriminatorKind, FrozenFiles, Precision, TokenizerConfig, TokenizerRecipe,
    TokenizerTrainer, Trainer,
};
use schemas::{PixelBatch, RandomStream};
use std::path::Path;

const SIDE: usize = 32;

fn config() -> TokenizerConfig {
    let config = serde_json::json!({
        "model": { "vq_model": {
            "codebook_size": 64, "token_size": 8, "use_l2_norm": true,
            "commitment_cost": 0.25, "entropy_loss_ratio": 0.1,
            "vit_enc_model_size": "small", "vit_dec_model_size": "small",
            "vit_enc_patch_size": 4, "vit_dec_patch_size": 4,
            "num_latent_tokens": 16, "num_min_tokens": 2,
            "merge_tokens": true, "vae_encoder": true, "drop_latent_tokens": true, "drop_prob": 0.2,
        } },
        "dataset": { "preprocessing": { "crop_size": SIDE } },
        "architecture": { "width": 32, "layers": 2, "heads": 2, "z": 32, "hidden": 32, "mult": [1, 1, 1], "nres": 1 },
    });
    TokenizerConfig::from_json(&config.to_string(), Path::new("test")).expect("a sound configuration")
}

pub(super) fn recipe() -> TokenizerRecipe {
    let learning_rate = CosineSchedule { peak: 4e-3, end: 4e-4, warmup_steps: 4, steps: 60 };
    TokenizerRecipe {
        seed: 7,
        precision: Precision::Fp32,
        reconstruction_weight: 20.0,
        perceptual_weight: 0.0,
        alignment_weight: 0.0,
        adversarial_weight: 0.0,
        learning_rate,
        optimizer: AdamWOptions { beta1: 0.9, beta2: 0.95, weight_decay: 1e-4 },
        ..TokenizerRecipe::published()
    }
}

/// Discs of their own colour and place on grounds of their own colour.
pub(super) fn images(count: usize, seed: u64) -> PixelBatch {
    let mut pixels = Vec::with_capacity(count * SIDE * SIDE * 3);
    for image in 0..count {
        let mut drawn = RandomStream::new(seed, "disc", image as u64);
        let mut number = |limit: u64| drawn.below(limit) as i64;
        let (ground, disc) = ([number(256), number(256), number(256)], [number(256), number(256), number(256)]);
        let (row, column, radius) = (8 + number(16), 8 + number(16), 4 + number(6));
        for place in 0..(SIDE * SIDE) as i64 {
            let (down, right) = (place / SIDE as i64 - row, place % SIDE as i64 - column);
            let colour = if down * down + right * right <= radius * radius { disc } else { ground };
            pixels.extend(colour.map(|value| value as u8));
        }
    }
    PixelBatch::try_new(pixels, count, count, SIDE, SIDE).expect("a batch")
}

fn value(report: &models::StepReport, name: &str) -> f64 {
    let scalars = report.read().expect("read");
    scalars.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).expect("reported")
}

/// With a discriminator from the third step on.
fn adversarial_recipe() -> TokenizerRecipe {
    TokenizerRecipe {
        discriminator: DiscriminatorKind::Patch,
        adversarial_weight: 0.5,
        adversarial_start: 2,
        ..recipe()
    }
}

pub(super) fn adversarial_trainer() -> TokenizerTrainer {
    TokenizerTrainer::new(config(), adversarial_recipe(), &FrozenFiles::default(), device()).expect("built")
}

pub(super) fn trainer() -> TokenizerTrainer {
    trainer_in(Precision::Fp32)
}

pub(super) fn trainer_in(precision: Precision) -> TokenizerTrainer {
    trainer_of(TokenizerRecipe { precision, ..recipe() })
}

pub(super) fn trainer_of(recipe: TokenizerRecipe) -> TokenizerTrainer {
    TokenizerTrainer::new(config(), recipe, &FrozenFiles::default(), device()).expect("built")
}

#[test]
fn sixty_steps_on_four_images_bring_the_reconstruction_loss_below_a_fifth() {
    let mut trainer = trainer();
    let batch = images(4, 3);
    let mut losses = Vec::new();
    for _ in 0..60 {
        let report = trainer.step(std::slice::from_ref(&batch)).expect("a step");
        losses.push(value(&report, "reconstruction_loss"));
    }
    let (first, last) = (losses[0], losses[55..].iter().sum::<f64>() / 5.0);
    assert!(last < first / 5.0, "from {first} to {last}: {losses:?}");
}

/// Trains six steps at once, and six with a stop after three; both must report the same losses and leave the same files.
fn assert_resumes(recipe: &TokenizerRecipe, batches_a_step: usize) {
    let new = || TokenizerTrainer::new(config(), recipe.clone(), &FrozenFiles::default(), device()).expect("built");
    let folder = tempfile::tempdir().expect("a folder");
    let batches: Vec<Vec<_>> =
        (0..6).map(|step| (0..batches_a_step as u64).map(|part| images(4, 10 * step + part)).collect()).collect();
    let mut whole = new();
    let mut expected = Vec::new();
    for (step, batches) in batches.iter().enumerate() {
        expected.push(whole.step(batches).expect("a step").read().expect("read"));
        if step == 2 {
            whole.save(folder.path()).expect("saved");
        }
    }
    let mut resumed = new();
    resumed.restore(folder.path(), 3).expect("restored");
    for (step, batches) in batches.iter().enumerate().skip(3) {
        let found = resumed.step(batches).expect("a step").read().expect("read");
        for ((name, found), (_, expected)) in found.iter().zip(&expected[step]) {
            assert_eq!(found.to_bits(), expected.to_bits(), "step {step}, {name}: {found} {expected}");
        }
    }
    let known = whole.scalars();
    for (name, value) in &expected[5] {
        assert!(known.contains(name), "{name} is not announced: {known:?}");
        assert!(value.is_finite(), "{name} {value}");
    }
    assert_eq!(expected[5].len(), known.len(), "{known:?}");
    let (left, right) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    whole.save(left.path()).expect("saved");
    resumed.save(right.path()).expect("saved");
    let mut files = 0;
    for entry in std::fs::read_dir(left.path()).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        let read = |folder: &Path| std::fs::read(folder.join(&name)).expect("read");
        assert!(read(left.path()) == read(right.path()), "{} differs", name.display());
        files += 1;
    }
    assert_eq!(files, if recipe.adversarial_weight > 0.0 { 5 } else { 4 });
}

#[test]
fn a_run_stopped_and_taken_up_again_equals_one_never_stopped() {
    assert_resumes(&recipe(), 1);
}

/// The discriminator begins at the third step: one side of the stop has it and the other goes on with it.
#[test]
fn so_does_a_run_with_a_discriminator_and_accumulation() {
    assert_resumes(&adversarial_recipe(), 2);
}

#[test]
fn so_do_runs_in_half_precision() {
    assert_resumes(&TokenizerRecipe { precision: Precision::Bf16, ..recipe() }, 1);
    assert_resumes(&TokenizerRecipe { precision: Precision::Fp16, ..recipe() }, 1);
}

/// Two halves of a batch are the batch: nothing looks across images, once the entropy of codes over a batch is left out.
#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    let whole = images(8, 4);
    let half = |rows: std::ops::Range<usize>| {
        let pixels = rows.clone().flat_map(|row| whole.image(row).iter().copied()).collect();
        PixelBatch::try_new(pixels, rows.len(), rows.len(), SIDE, SIDE).expect("a batch")
    };
    let plain = config().to_json().replace("\"entropy_loss_ratio\": 0.1", "\"entropy_loss_ratio\": 0.0");
    let plain = TokenizerConfig::from_json(&plain, Path::new("test")).expect("a sound configuration");
    let losses = |batches: &[PixelBatch]| {
        let mut trainer =
            TokenizerTrainer::new(plain.clone(), recipe(), &FrozenFiles::default(), device()).expect("built");
        let reports: Vec<_> = (0..4).map(|_| trainer.step(batches).expect("a step")).collect();
        assert!(!trainer.scalars().contains(&"entropy_loss"));
        reports.iter().map(|report| value(report, "reconstruction_loss")).collect::<Vec<_>>()
    };
    let (together, apart) = (losses(std::slice::from_ref(&whole)), losses(&[half(0..4), half(4..8)]));
    assert!((together[3] - apart[3]).abs() < 1e-4 * together[3], "{together:?} {apart:?}");
    assert!((together[3] - together[0]).abs() > 1e-2 * together[0], "nothing was learned: {together:?}");
}

#[test]
fn the_average_is_a_tokenizer_that_saves_and_loads() {
    let mut trainer = trainer();
    let batch = images(4, 5);
    for _ in 0..3 {
        trainer.step(std::slice::from_ref(&batch)).expect("a step");
    }
    let size = |precision| {
        let ema = trainer.ema(precision).expect("a tokenizer");
        let folder = tempfile::tempdir().expect("a folder");
        ema.save(folder.path()).expect("saved");
        let loaded = models::VisualTokenizer::load(folder.path(), on_device(Precision::Fp32)).expect("loaded");
        let (left, right) = (ema.encode(&batch).expect("codes"), loaded.encode(&batch).expect("codes"));
        assert_eq!(left.codes(), right.codes(), "{precision}");
        std::fs::metadata(folder.path().join("model.safetensors")).expect("a file").len()
    };
    let (half, full) = (size(Precision::Fp16), size(Precision::Fp32));
    assert!(half < full * 3 / 5, "{half} bytes in float16, {full} in float32");
}
