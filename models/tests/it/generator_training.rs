//! A generator learns, and a run that was stopped goes on as if it had not been.

use super::{device, on_device};
use models::{
    AdamWOptions, CosineSchedule, Generator, GeneratorConfig, GeneratorRecipe, GeneratorTrainer, Precision, StepReport,
    TokenMeter, Trainer,
};
use schemas::{RandomStream, TokenBatch};
use std::path::Path;

const TOKENS: usize = 16;

pub(super) fn config() -> GeneratorConfig {
    let config = serde_json::json!({
        "dim": 32, "n_layer": 2, "n_head": 2, "multiple_of": 16, "num_classes": 4, "vocab_size": 32,
        "block_size": TOKENS, "ar_token_num": 2, "spe_token_num": 15, "attn_dropout_p": 0.1, "drop_path_rate": 0.1,
    });
    GeneratorConfig::from_json(&config.to_string(), Path::new("test")).expect("a sound configuration")
}

pub(super) fn recipe() -> GeneratorRecipe {
    GeneratorRecipe {
        seed: 7,
        precision: Precision::Fp32,
        learning_rate: CosineSchedule { peak: 1e-2, end: 1e-3, warmup_steps: 4, steps: 120 },
        optimizer: AdamWOptions { beta1: 0.9, beta2: 0.95, weight_decay: 0.05 },
        ema_decay: 0.9,
        ..GeneratorRecipe::published()
    }
}

pub(super) fn batch(rows: usize, seed: u64) -> (TokenBatch, Vec<i32>) {
    let mut drawn = RandomStream::new(seed, "tokens", 0);
    let codes = (0..rows * TOKENS).map(|_| drawn.below(32) as i16).collect();
    let classes = (0..rows).map(|row| (row % 4) as i32).collect();
    (TokenBatch::try_new(codes, TOKENS).expect("whole rows"), classes)
}

fn value(report: &StepReport, name: &str) -> f64 {
    let scalars = report.read().expect("read");
    scalars.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).expect("reported")
}

pub(super) fn trainer(config: GeneratorConfig, recipe: GeneratorRecipe) -> GeneratorTrainer {
    GeneratorTrainer::new(config, recipe, device()).expect("built")
}

#[test]
fn a_hundred_steps_on_four_rows_bring_the_loss_below_a_tenth() {
    let mut trainer = trainer(config().without_dropout(), recipe());
    let rows = batch(4, 3);
    let mut losses = Vec::new();
    for _ in 0..120 {
        losses.push(value(&trainer.step(std::slice::from_ref(&rows)).expect("a step"), "loss"));
    }
    // All codes are as likely as any other before the first step.
    assert!((losses[0] - 32.0_f64.ln()).abs() < 1e-5, "{}", losses[0]);
    let last = losses[115..].iter().sum::<f64>() / 5.0;
    assert!(last < losses[0] / 10.0, "from {} to {last}", losses[0]);

    // The average has learned them too, and says so level by level.
    let generator = trainer.ema(Precision::Fp32).expect("a generator");
    let mut meter = TokenMeter::new(&generator).expect("a meter");
    let halves = [batch(4, 3), batch(4, 4)];
    meter.update(&generator, &halves[0].0, &halves[0].1).expect("scored");
    let learned = meter.finish().expect("scores");
    assert!(learned.all.loss < losses[0] / 5.0 && learned.all.accuracy > 0.9, "{learned:?}");
    let mut meter = TokenMeter::new(&generator).expect("a meter");
    for (tokens, classes) in &halves {
        meter.update(&generator, tokens, classes).expect("scored");
    }
    let both = meter.finish().expect("scores");
    assert_eq!((both.images, both.levels.len()), (8, 5));
    assert!(both.all.loss > losses[0] && both.all.accuracy < 0.8, "other rows are not learned: {both:?}");
    let mean: f64 = both.levels.iter().zip([1.0, 1.0, 2.0, 4.0, 8.0]).map(|(level, size)| level.loss * size).sum();
    assert!((mean / 16.0 - both.all.loss).abs() < 1e-9, "{both:?}");
}

#[test]
fn the_loss_is_the_mean_over_tokens_of_its_levels() {
    let mut trainer = trainer(config(), recipe());
    for step in 0..3 {
        let report = trainer.step(&[batch(4, step), batch(4, 9)]).expect("a step");
        let levels: f64 = ["loss_level_0", "loss_level_1", "loss_level_2", "loss_level_3", "loss_level_4"]
            .iter()
            .zip([1.0, 1.0, 2.0, 4.0, 8.0])
            .map(|(name, size)| value(&report, name) * size / 16.0)
            .sum();
        assert!((levels - value(&report, "loss")).abs() < 1e-5);
    }
}

/// Trains six steps at once, and six with a stop after three; both must report the same losses and leave the same files.
fn assert_resumes(recipe: &GeneratorRecipe, batches_a_step: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let batches: Vec<Vec<_>> =
        (0..6).map(|step| (0..batches_a_step as u64).map(|part| batch(4, 10 * step + part)).collect()).collect();
    let mut whole = trainer(config(), recipe.clone());
    let mut expected = Vec::new();
    for (step, batches) in batches.iter().enumerate() {
        expected.push(whole.step(batches).expect("a step").read().expect("read"));
        if step == 2 {
            whole.save(folder.path()).expect("saved");
        }
    }
    let mut resumed = trainer(config(), recipe.clone());
    resumed.restore(folder.path(), 3).expect("restored");
    for (step, batches) in batches.iter().enumerate().skip(3) {
        let found = resumed.step(batches).expect("a step").read().expect("read");
        for ((name, found), (_, expected)) in found.iter().zip(&expected[step]) {
            assert_eq!(found.to_bits(), expected.to_bits(), "step {step}, {name}: {found} {expected}");
        }
    }
    let mut known = whole.scalars();
    let mut found: Vec<_> = expected[5].iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    found.sort_unstable();
    assert_eq!(known, found);
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
    assert_eq!(files, 4);
}

#[test]
fn a_run_with_every_dropout_that_was_stopped_equals_one_never_stopped() {
    assert_resumes(&recipe(), 1);
    assert_resumes(&recipe(), 3);
}

#[test]
fn so_do_runs_in_half_precision() {
    assert_resumes(&GeneratorRecipe { precision: Precision::Bf16, ..recipe() }, 1);
    assert_resumes(&GeneratorRecipe { precision: Precision::Fp16, ..recipe() }, 2);
}

/// Two runs differ by their seed, and two micro-batches of one step do not share a mask.
#[test]
fn dropout_differs_between_seeds_and_micro_batches() {
    let losses = |seed: u64, batches: &[(TokenBatch, Vec<i32>)]| {
        let mut trainer = trainer(config(), GeneratorRecipe { seed, ..recipe() });
        (0..3).map(|_| value(&trainer.step(batches).expect("a step"), "gradient_norm")).collect::<Vec<_>>()
    };
    let once = losses(1, &[batch(4, 0)]);
    assert_eq!(once, losses(1, &[batch(4, 0)]));
    assert_ne!(once[2], losses(2, &[batch(4, 0)])[2]);
    assert_ne!(once[2], losses(1, &[batch(4, 0), batch(4, 0)])[2]);
}

/// Two halves of a batch are the batch where nothing is dropped.
#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    let text =
        config().without_dropout().to_json().replace("\"class_dropout_prob\": 0.1", "\"class_dropout_prob\": 0.0");
    let config = GeneratorConfig::from_json(&text, Path::new("test")).expect("sound");
    let (whole, classes) = batch(8, 4);
    let half = |rows: std::ops::Range<usize>| {
        let codes = whole.codes()[rows.start * TOKENS..rows.end * TOKENS].to_vec();
        (TokenBatch::try_new(codes, TOKENS).expect("whole rows"), classes[rows].to_vec())
    };
    let losses = |batches: &[(TokenBatch, Vec<i32>)]| {
        let mut trainer = trainer(config.clone(), recipe());
        (0..6).map(|_| value(&trainer.step(batches).expect("a step"), "loss")).collect::<Vec<_>>()
    };
    let (together, apart) = (losses(&[(whole.clone(), classes.clone())]), losses(&[half(0..4), half(4..8)]));
    assert!((together[5] - apart[5]).abs() < 1e-4 * together[5], "{together:?} {apart:?}");
    assert!((together[5] - together[0]).abs() > 1e-2 * together[0], "nothing was learned: {together:?}");
}

#[test]
fn the_average_saves_and_loads_as_a_generator() {
    let mut trainer = trainer(config(), recipe());
    for step in 0..3 {
        trainer.step(&[batch(4, step)]).expect("a step");
    }
    let (tokens, classes) = batch(4, 8);
    for precision in [Precision::Fp16, Precision::Fp32] {
        let ema = trainer.ema(precision).expect("a generator");
        let folder = tempfile::tempdir().expect("a folder");
        ema.save(folder.path()).expect("saved");
        let loaded = Generator::load(folder.path(), on_device(Precision::Fp32)).expect("loaded");
        let (left, right) =
            (ema.logits(&tokens, &classes).expect("logits"), loaded.logits(&tokens, &classes).expect("logits"));
        assert_eq!((left - right).abs().max().double_value(&[]), 0.0, "{precision}");
    }
}

#[test]
fn rows_that_cannot_be_learned_are_refused() {
    let mut trainer = trainer(config(), recipe());
    trainer.step(&[]).expect_err("no batch");
    let (tokens, _) = batch(1, 0);
    let error = trainer.step(&[(tokens, vec![4])]).expect_err("the null class").to_string();
    assert!(error.contains("0 to 3"), "{error}");
}
