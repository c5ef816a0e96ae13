//! `restok train-tokenizer`: a tokenizer from images.

mod validation;

use crate::{
    progress::Progress,
    settings::TrainTokenizerSettings,
    training::{
        driver::{NextBatch, Training, TrainingData, TrainingOptions},
        session,
    },
};
use anyhow::Result;
use models::{Device, ProcessGroup, TokenizerTrainer, Trainer};
use pipeline::{Limits, PipelineError, RandomCrop, SourceOptions, TrainingCrop, TrainingImages, TrainingImagesOptions};
use schemas::{ImageIdRule, PixelBatch};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use validation::Validation;

/// Trains until all is done or a signal comes, with the other processes of `group` if there are any.
///
/// # Errors
/// Whatever ended it; [`crate::exit_code::of`] tells what the scheduler should do.
pub(crate) fn run(
    settings: &TrainTokenizerSettings,
    limits: &Limits,
    (group, device): (Option<Arc<ProcessGroup>>, Device),
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    let _exporting = session::export_metrics(group.as_deref(), &settings.run, progress)?;
    let fixed = fixed(settings)?;
    let mut folder = session::run_folder(group.as_deref(), &settings.run, &fixed)?;
    let trainer = TokenizerTrainer::new(settings.config.clone(), settings.recipe.clone(), &settings.frozen, device)?;
    trainer.check_batch_size(settings.batches.size)?;
    session::tell_device(device, settings.recipe.precision, settings.batches);
    let validation = Validation::new(settings, limits, device)?;
    let options = TrainingOptions {
        group,
        settings: fixed,
        schedule: settings.run.schedule(settings.steps),
        accumulation: settings.batches.accumulation,
        global_batch_size: settings.batches.global_size(),
        publish_precision: settings.run.publish_precision,
        allow_other_settings: settings.run.allow_other_settings,
        machine: models::machine(device),
    };
    let mut columns: Vec<String> = trainer.scalars().into_iter().map(str::to_owned).collect();
    columns.extend(validation.columns(&settings.config));
    let open = |from| {
        let images = TrainingImages::open(&image_options(settings, limits), from)?;
        Ok(ShuffledImages { images, source: pipeline::without_secrets(&settings.source) })
    };
    let mut training = Training::begin(trainer, open, validation, folder.as_mut(), options)?;
    let result = session::carry_out(&mut training, &columns, settings.steps, folder.as_mut(), progress, cancel);
    let Some(_) = folder else { return result };
    tell_rejected(&training.data.images);
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
    let mut fixed = serde_json::json!({
        "tokenizer": serde_json::from_str::<serde_json::Value>(&settings.config.to_json())?,
        "recipe": settings.recipe,
        "frozen_networks": settings.frozen.digests(&settings.recipe, &settings.config)?,
        "batch_size": settings.batches.size,
        "accumulation": settings.batches.accumulation,
        "smallest_scale": settings.scales.0,
        "largest_scale": settings.scales.1,
        "flip": settings.flip,
        "shuffle_images": settings.shuffle_images,
    });
    session::add_processes(&mut fixed, settings.batches.processes);
    Ok(fixed)
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
        max_reject_rate: settings.max_reject_rate.fraction(),
        limits: limits.clone(),
        ..TrainingImagesOptions::new(source, crop, settings.batches.size, settings.recipe.seed)
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

/// Images with the address that errors name.
struct ShuffledImages {
    images: TrainingImages,
    source: String,
}

impl TrainingData for ShuffledImages {
    type Batch = PixelBatch;
    const WAITING_ADVICE: &'static str = "give more --decode-threads, or a source that is nearer";
    const DIGEST: &'static str = "source_digest";

    fn next(&mut self, cancel: &CancellationToken) -> Result<NextBatch<PixelBatch>, PipelineError> {
        let batch = self.images.next_unless(cancel)?;
        Ok(NextBatch { batch: batch.pixels, epoch: batch.epoch, next: batch.next })
    }

    fn waited(&self) -> Duration {
        self.images.waited()
    }

    fn digest(&self) -> &str {
        self.images.source_digest()
    }

    fn told_of_change(&self, expected: &str) -> String {
        format!(
            "{}: the images have changed since this run was begun (found {}, expected {expected}). Train on the same ones, or into \
             another --output",
            self.source,
            self.digest(),
        )
    }

    fn rejected(&self) -> Option<u64> {
        Some(self.images.rejected().values().sum())
    }
}
