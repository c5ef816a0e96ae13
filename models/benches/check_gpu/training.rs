//! Steps of training: forward, backward, clip, AdamW, average.

use crate::{
    Fallible,
    networks::{codes, generator_data, operations_by_precision, pictures},
    timing::{Work, print, rate_line, unix_seconds},
};
use models::{
    Device, DiscriminatorKind, FrozenFiles, GeneratorPreset, GeneratorSize, GeneratorTrainer, Precision, StepReport,
    TokenizerPreset, TokenizerTrainer, Trainer,
    measuring::{memory_peaks, wait},
};
use serde_json::Value;
use std::time::Instant;

/// A step computes the network forward once and backward at twice the cost.
const PASSES: i64 = 3;

/// Without the frozen networks, whose files are no part of the project, and with the convolutional discriminator from the first step on.
/// Operations are counted for the tokenizer alone.
pub(crate) fn tokenizer(
    device: Device,
    preset: &str,
    precision: Precision,
    batch: usize,
    steps: usize,
) -> Fallible<()> {
    let TokenizerPreset { config, mut recipe, .. } = TokenizerPreset::named(preset)?;
    let config = config.without_alignment();
    recipe.precision = precision;
    (recipe.perceptual_weight, recipe.alignment_weight) = (0.0, 0.0);
    (recipe.discriminator, recipe.adversarial_start) = (DiscriminatorKind::Patch, 0);
    let (encode, decode) = (config.encode_operations()?, config.decode_operations());
    let images = pictures(batch, config.resolution())?;
    let work = Work {
        what: "train the tokenizer",
        network: preset,
        precision: precision.name(),
        batch,
        operations: operations_by_precision(
            precision,
            batch,
            PASSES * (encode.in_precision + decode.in_precision),
            PASSES * (encode.in_float32 + decode.in_float32),
        ),
        bytes: 0,
    };
    let mut trainer = TokenizerTrainer::new(config, recipe, &FrozenFiles::default(), device)?;
    timed(&work, device, steps, || Ok(trainer.step(std::slice::from_ref(&images))?))
}

pub(crate) fn generator(device: Device, size: &str, precision: Precision, batch: usize, steps: usize) -> Fallible<()> {
    let size = GeneratorSize::named(size)?;
    let data = generator_data(size);
    let GeneratorPreset { config, mut recipe, .. } = GeneratorPreset::of_size(size, data)?;
    recipe.precision = precision;
    let classes = (0..data.classes as i32).cycle().take(batch).collect();
    let rows = [(codes(batch, data.tokens_per_image, data.codebook_size)?, classes)];
    let work = Work {
        what: "train the generator",
        network: size.name(),
        precision: precision.name(),
        batch,
        operations: operations_by_precision(precision, batch, PASSES * config.forward_operations(), 0),
        bytes: 0,
    };
    let mut trainer = GeneratorTrainer::new(config, recipe, device)?;
    timed(&work, device, steps, || Ok(trainer.step(&rows)?))
}

/// Steps that are waited for at the end only, as a run does between two lines of its log; two in front are not counted. The time of each
/// is that of all by their number.
fn timed(
    work: &Work<'_>,
    device: Device,
    steps: usize,
    mut step: impl FnMut() -> Fallible<StepReport>,
) -> Fallible<()> {
    let losses = |report: &StepReport| -> Fallible<Value> {
        Ok(report.read()?.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect())
    };
    let first = losses(&step()?)?;
    step()?;
    wait(device);
    memory_peaks(device)?;
    let (start, began) = (unix_seconds(), Instant::now());
    let mut report = step()?;
    for _ in 1..steps {
        report = step()?;
    }
    let launched = began.elapsed().as_secs_f64();
    let last = losses(&report)?;
    wait(device);
    let length = began.elapsed().as_secs_f64();
    let mut times = vec![length / steps.max(1) as f64; steps.max(1)];
    let mut line = rate_line(work, &mut times, start, length, memory_peaks(device)?);
    line["launched_ms"] = (1e3 * launched / steps.max(1) as f64).into();
    line["first_losses"] = first;
    line["last_losses"] = last;
    print(&line);
    Ok(())
}
