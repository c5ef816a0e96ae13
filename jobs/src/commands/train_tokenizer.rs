//! `restok train-tokenizer`: a tokenizer from images.

mod validation;

use crate::{
    progress::Progress,
    settings::TrainTokenizerSettings,
    training::{run_folder::RunFolder, run_loop::Training, session, sheet::Sheet},
};
use anyhow::Result;
use models::{Device, Precision, StepReport, TokenizerTrainer};
use pipeline::{DataPosition, Limits, RandomCrop, SourceOptions, TrainingCrop, TrainingImages, TrainingImagesOptions};
use schemas::{ImageIdRule, PixelBatch};
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};
use tokio_util::sync::CancellationToken;
use validation::Validation;

/// Where a run stands, and on which data.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    data: DataPosition,
    /// Of the frozen list of inputs: a run goes on only with the same images.
    source_digest: String,
}

/// A tokenizer in training with its images.
struct TokenizerTraining {
    trainer: TokenizerTrainer,
    images: TrainingImages,
    accumulation: usize,
    batch_size: usize,
    batches: Vec<PixelBatch>,
    /// Whether the batches are of the step to come.
    loaded: bool,
    epoch: u64,
    next: DataPosition,
    validation: Validation,
    publish_precision: Precision,
}

/// Trains until all is done or a signal comes.
///
/// # Errors
/// Whatever ended it; [`crate::exit_code::of`] tells what the scheduler should do.
pub(crate) fn run(
    settings: TrainTokenizerSettings,
    limits: &Limits,
    device: Device,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    let mut folder = RunFolder::open(&settings.run.output, settings.run.keep_checkpoints, fixed(&settings)?)?;
    let mut trainer =
        TokenizerTrainer::new(settings.config.clone(), settings.recipe.clone(), &settings.frozen, device)?;
    trainer.check_batch_size(settings.batch_size)?;
    session::tell_device(device, settings.recipe.precision);
    let newest = folder.newest::<Position>(settings.run.allow_other_settings, &models::machine(device))?;
    let from = newest.as_ref().map_or_else(DataPosition::default, |(_, state)| state.position.data);
    let images = TrainingImages::open(&image_options(&settings, limits), from)?;
    if let Some((checkpoint, state)) = &newest {
        anyhow::ensure!(
            images.source_digest() == state.position.source_digest,
            "{}: the images have changed since this run was begun (found {}, expected {}). Train on the same ones, or into \
             another --output",
            pipeline::without_secrets(&settings.source),
            images.source_digest(),
            state.position.source_digest,
        );
        trainer.restore(checkpoint, state.steps_done)?;
        tracing::info!(step = state.steps_done, checkpoint = %checkpoint.display(), "going on");
    }
    let mut training = TokenizerTraining {
        validation: Validation::new(&settings, limits, device)?,
        accumulation: settings.accumulation,
        batch_size: settings.batch_size,
        batches: Vec::new(),
        loaded: false,
        epoch: from.epoch,
        next: from,
        publish_precision: settings.run.publish_precision,
        trainer,
        images,
    };
    let mut columns: Vec<String> = training.trainer.scalars().into_iter().map(str::to_owned).collect();
    columns.extend(training.validation.columns(&settings.config));
    let result =
        session::carry_out(&mut training, &columns, settings.steps, &settings.run, &mut folder, progress, cancel);
    tell_rejected(&training.images);
    result?;
    Ok(crate::output::print(&session::report(&training, settings.steps, &settings.run))?)
}

/// Says what became of broken images; more of them than allowed are an error long before.
fn tell_rejected(images: &TrainingImages) {
    let reasons: Vec<String> = images.rejected().iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if !reasons.is_empty() {
        tracing::warn!("broken images passed over, each counted once an epoch: {}", reasons.join(", "));
    }
}

/// What must stay the same from the first start of a run to its last.
fn fixed(settings: &TrainTokenizerSettings) -> Result<serde_json::Value> {
    Ok(serde_json::json!({
        "tokenizer": serde_json::from_str::<serde_json::Value>(&settings.config.to_json())?,
        "recipe": settings.recipe,
        "frozen_networks": settings.frozen.digests(&settings.recipe, &settings.config)?,
        "batch_size": settings.batch_size,
        "accumulation": settings.accumulation,
        "smallest_scale": settings.scales.0,
        "largest_scale": settings.scales.1,
        "flip": settings.flip,
        "shuffle_images": settings.shuffle_images,
    }))
}

fn image_options(settings: &TrainTokenizerSettings, limits: &Limits) -> TrainingImagesOptions {
    let source = source_options(settings, &settings.source, settings.max_images);
    let crop = TrainingCrop::Random(RandomCrop {
        size: settings.config.resolution(),
        smallest_scale: settings.scales.0,
        largest_scale: settings.scales.1,
        flip: settings.flip,
    });
    TrainingImagesOptions {
        shuffle_images: settings.shuffle_images,
        max_reject_rate: settings.max_reject_rate.share(),
        limits: limits.clone(),
        ..TrainingImagesOptions::new(source, crop, settings.batch_size, settings.recipe.seed)
    }
}

fn source_options(settings: &TrainTokenizerSettings, url: &str, max_images: Option<u64>) -> SourceOptions {
    SourceOptions {
        layout: settings.layout,
        image_id: ImageIdRule::Position,
        max_images,
        reading: settings.reading.clone(),
        ..SourceOptions::new(url)
    }
}

impl Training for TokenizerTraining {
    type Position = Position;
    const PUBLISHED: &'static str = "tokenizer";
    const LOWER_IS_BETTER: bool = false;
    const WAITING_ADVICE: &'static str = "give more --decode-threads, or a source that is nearer";

    fn steps_done(&self) -> u64 {
        self.trainer.steps_done()
    }

    fn learning_rate(&self) -> f64 {
        self.trainer.learning_rate()
    }

    fn images_a_step(&self) -> u64 {
        (self.batch_size * self.accumulation) as u64
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn load(&mut self, cancel: &CancellationToken) -> Result<()> {
        if self.loaded {
            return Ok(());
        }
        // All of them or none: where one is missing, the position stays that of the last update, which may be saved yet.
        let batches = (0..self.accumulation).map(|_| self.images.next_unless(cancel)).collect::<Result<Vec<_>, _>>()?;
        if let Some(last) = batches.last() {
            (self.epoch, self.next) = (last.epoch, last.next);
        }
        self.batches = batches.into_iter().map(|batch| batch.pixels).collect();
        self.loaded = true;
        Ok(())
    }

    fn waited(&self) -> Duration {
        self.images.waited()
    }

    fn step(&mut self) -> Result<StepReport> {
        self.loaded = false;
        Ok(self.trainer.step(&self.batches)?)
    }

    fn validate(&mut self) -> Result<Vec<(String, f64)>> {
        self.validation.scores(&self.trainer)
    }

    fn sheet(&mut self) -> Result<Option<Sheet>> {
        self.validation.sheet(&self.trainer, &self.batches).map(Some)
    }

    fn position(&self) -> Position {
        Position { data: self.next, source_digest: self.images.source_digest().to_owned() }
    }

    fn save(&self, folder: &Path) -> Result<()> {
        Ok(self.trainer.save(folder)?)
    }

    fn final_scores(&self) -> Result<serde_json::Value> {
        self.validation.final_scores(&self.trainer.averaged(self.publish_precision)?)
    }

    fn rejected(&self) -> Option<u64> {
        Some(self.images.rejected().values().sum())
    }

    fn validated_on(&self) -> String {
        self.validation.name()
    }

    fn published_precision(&self) -> String {
        self.publish_precision.to_string()
    }

    fn publish(&self, folder: &Path) -> Result<()> {
        Ok(self.trainer.averaged(self.publish_precision)?.save(folder)?)
    }
}
