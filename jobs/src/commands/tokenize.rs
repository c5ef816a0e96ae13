//! `restok tokenize`: images to tables of tokens.

mod batch_size;
mod dry_run;

use super::{class_list, run_report};
use crate::{
    model_folder::{ModelFolder, tokenizer_identity},
    networks,
    progress::Progress,
    settings::{SettingsError, TokenizeSettings},
    watched::Watched,
    workers::Workers,
};
use anyhow::Result;
use models::VisualTokenizer;
use pipeline::{
    EncoderFactory, EngineLink, Limits, PipelineError, Run, SourceOptions, SourceReader, Stage, Storage, Telemetry,
    TokenizeRun,
};
use report::text::tenths;
use schemas::{Crop, ImageOrigin, Origin, Plan, PlanSettings, SourceAccount, TokenizerIdentity};
use std::{sync::Arc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Runs the job and prints its report; where an engine hands out the units, it is told instead.
///
/// # Errors
/// Whatever ended it; [`crate::exit_code::of`] tells what the scheduler should do.
pub(crate) async fn run(
    settings: TokenizeSettings,
    limits: Limits,
    workers: Workers,
    progress: Progress,
    engine: Option<EngineLink>,
    cancel: CancellationToken,
) -> Result<()> {
    let is_worker = engine.is_some();
    let process = settings.process.detect(is_worker)?;
    if is_worker && settings.dry_run {
        return Err(SettingsError::invalid("--dry-run", "true", "false for a worker, which an engine waits for").into());
    }
    // Everything that can be wrong is found before the output is touched.
    let _exporting = (!settings.dry_run).then(|| progress.metrics().export(settings.metrics_listen)).transpose()?;
    let output = Storage::open_output(&settings.output, &limits)?;
    let loading = load_first(&settings, &workers);
    let (folder, tokenizer) = cancel.run_until_cancelled(loading).await.ok_or(PipelineError::Drained)??;
    let crop = choose_crop(settings.crop, tokenizer.resolution())?;
    let telemetry = Arc::new(Telemetry::new());
    // The dry run says what batches take; a run measures only where nobody chose.
    let choosing = batch_size::choose(&settings, &output, &workers, tokenizer);
    let (batch_size, tokenizer) = cancel.run_until_cancelled(choosing).await.ok_or(PipelineError::Drained)??;
    let planning = plan(&settings, batch_size.rows, &limits, tokenizer_identity(&tokenizer), crop, &telemetry);
    let (plan, left_out) = cancel.run_until_cancelled(planning).await.ok_or(PipelineError::Drained)??;
    let plan = Arc::new(plan);
    if settings.dry_run {
        return dry_run::print(&settings, &plan, &output, &left_out, batch_size.memory).await;
    }
    let watched = Watched::new(&plan, &output, process, &telemetry, settings.heartbeats);
    let run = TokenizeRun {
        // The URL as it was given: a signed one carries what no plan may hold.
        source: SourceReader::open_at(Arc::clone(&plan), &settings.source, &limits)?,
        encoders: encoders(&workers, tokenizer, &folder),
        common: Run {
            plan: Arc::clone(&plan),
            output: output.clone(),
            libtorch: models::libtorch_version(),
            limits,
            process,
            max_reject_rate: settings.max_reject_rate.fraction(),
            start_jitter: settings.start_jitter,
            finalize: settings.finalize,
            cancel,
            telemetry,
            left_out,
            engine,
        },
    };
    let report = watched.run(pipeline::tokenize(run), &progress).await?;
    if is_worker {
        return Ok(());
    }
    run_report::print(settings.format, &settings.output, &plan, &output, &report)
}

/// A name and a factory for each worker. The first takes the tokenizer that is loaded already.
fn encoders(workers: &Workers, first: VisualTokenizer, folder: &ModelFolder) -> Vec<(String, EncoderFactory)> {
    let precision = first.precision();
    let mut first = Some(first);
    workers
        .named()
        .map(|(name, device)| {
            let factory = match first.take() {
                Some(tokenizer) => networks::encoder(tokenizer),
                None => networks::loading_encoder(folder.clone(), device, precision),
            };
            (name, factory)
        })
        .collect()
}

/// The tokenizer on the first device: its identity is part of the plan, and a broken checkpoint ends the job before anything
/// is listed.
async fn load_first(settings: &TokenizeSettings, workers: &Workers) -> Result<(ModelFolder, VisualTokenizer)> {
    let (reference, precision) = (settings.tokenizer.clone(), settings.precision);
    let device = workers.first()?;
    let started = Instant::now();
    let loading = tokio::task::spawn_blocking(move || -> Result<_> {
        let folder = ModelFolder::find(&reference)?;
        let tokenizer = folder.load_tokenizer(device, precision)?;
        Ok((folder, tokenizer))
    });
    let (folder, tokenizer) = loading.await??;
    let devices: Vec<String> = workers.named().map(|(name, _)| name).collect();
    tracing::info!(
        tokenizer = tokenizer.name(),
        weights_sha256 = tokenizer.weights_sha256(),
        devices = devices.join(","),
        device_kind = device.kind(),
        precision = %precision,
        seconds = tenths(started.elapsed().as_secs_f64()),
        "tokenizer loaded"
    );
    if !precision.is_native(device) {
        tracing::warn!("{device} has no instructions for {precision}: --precision fp32 will be faster");
    }
    Ok((folder, tokenizer))
}

/// The crop that was asked for, if it fits the tokenizer, or the published one at its resolution.
fn choose_crop(asked: Option<Crop>, resolution: usize) -> Result<Crop, SettingsError> {
    match asked {
        None => Ok(Crop::AdmCenter { size: resolution }),
        Some(crop) if crop.size() == resolution => Ok(crop),
        Some(crop) => Err(SettingsError::invalid(
            "--crop",
            format!("{crop}, whose views are {0} by {0} pixels", crop.size()),
            format!(
                "views of {resolution} by {resolution}, the tokenizer's resolution, such as adm-center-{resolution}"
            ),
        )),
    }
}

/// Lists the source and freezes the plan; gives what the listing left out as well.
async fn plan(
    settings: &TokenizeSettings,
    batch_size: usize,
    limits: &Limits,
    tokenizer: TokenizerIdentity,
    crop: Crop,
    telemetry: &Telemetry,
) -> Result<(Plan, SourceAccount)> {
    let started = Instant::now();
    let options = SourceOptions {
        url: settings.source.clone(),
        layout: settings.layout,
        image_id: settings.image_id,
        max_images: settings.max_images,
        classes: settings.classes.as_deref().map(class_list::read).transpose()?,
        reading: settings.reading.clone(),
        output: Some(settings.output.clone()),
    };
    let listing = pipeline::list_source(&options, limits).await?;
    let plan_settings = PlanSettings {
        source: listing.source.clone(),
        split: settings.split.clone(),
        tokenizer,
        precision: settings.precision.to_string(),
        batch_size,
        unit_size: settings.unit_size,
        origin: Origin::Images(ImageOrigin {
            layout: listing.layout,
            image_id: settings.image_id,
            crop,
            max_image_bytes: limits.max_image_bytes,
            max_image_pixels: limits.max_image_pixels,
            reading: settings.reading.clone(),
        }),
    };
    let left_out = listing.left_out.clone();
    let plan = pipeline::plan_units(plan_settings, listing)?;
    telemetry.record(Stage::List, plan.inputs().len() as u64, 0, started.elapsed());
    tracing::info!(
        inputs = plan.inputs().len(),
        units = plan.units(),
        plan = plan.hash().short(),
        seconds = tenths(started.elapsed().as_secs_f64()),
        "planned"
    );
    Ok((plan, left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crop_of_another_size_than_the_tokenizer_is_refused_with_both() {
        assert_eq!(choose_crop(None, 32).expect("the default fits"), Crop::AdmCenter { size: 32 });
        let asked = Crop::AdmTenCrop { resize: 281, size: 256 };
        assert_eq!(choose_crop(Some(asked), 256).expect("it fits"), asked);
        let error = choose_crop(Some(asked), 32).expect_err("256 is not 32").to_string();
        assert!(error.contains("adm-ten-crop-281-256") && error.contains("adm-center-32"), "{error}");
    }
}
