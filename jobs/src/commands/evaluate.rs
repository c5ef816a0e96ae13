//! `restok evaluate`: the scores of a set under a named protocol.
//!
//! ```text
//! source ─▶ ImageSet ─▶ features of every unit, committed ─▶ totals, in order ─▶ record ─▶ scores table
//!                                                  reference ─┘
//! ```

mod extractors;
mod generated;
mod made_by;
mod reconstructed;
mod record;
mod reference;
mod rules;
mod scoring;
mod set_scores;
mod text;
mod totals;

pub(crate) use extractors::Extractors;
pub(crate) use generated::GeneratedSet;
pub(crate) use reference::ComparedWith;
pub(crate) use rules::check_before;
pub(crate) use scoring::Scoring;

use crate::{
    progress::Progress,
    settings::{EvaluateSettings, EvaluationTask, ReportFormat},
    workers::Workers,
};
use anyhow::Result;
use models::ExtractorPrecision;
use pipeline::{EngineLink, Limits, SourceOptions, Storage};
use reconstructed::Reconstructions;
use schemas::{EvaluationRecord, ImageIdRule};
use std::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Images of a split of the inception score under `gfid-adm`.
const SPLIT: u64 = 5_000;

/// Scores, or makes a reference, and prints what came of it. Where an engine hands out the units, only their features are made.
///
/// # Errors
/// Whatever ended it; [`crate::exit_code::of`] tells what the scheduler should do.
pub(crate) async fn run(
    settings: EvaluateSettings,
    limits: Limits,
    workers: Workers,
    progress: Progress,
    engine: Option<EngineLink>,
    cancel: CancellationToken,
) -> Result<()> {
    let is_worker = engine.is_some();
    let process = settings.work.process.detect(is_worker)?;
    let _exporting = progress.metrics().export(settings.metrics_listen)?;
    let scoring = Scoring {
        output: Storage::open_output(&settings.output, &limits)?,
        protocol: settings.protocol,
        allow: settings.allow.clone(),
        work: settings.work,
        max_reject_rate: settings.max_reject_rate.fraction(),
        process,
        limits,
        progress,
        cancel,
        engine: Mutex::new(engine),
    };
    let source = SourceOptions {
        layout: settings.layout,
        max_images: settings.max_images,
        // Keys are only said again: sets whose stems repeat are scored like any other.
        image_id: ImageIdRule::Position,
        reading: settings.reading.clone(),
        ..SourceOptions::new(settings.source.clone())
    };
    let records = match &settings.task {
        EvaluationTask::Score { reference, inception } => {
            let extractors = Extractors::load(inception, &workers, ExtractorPrecision::Float32).await?;
            // What can be known of the set is said before a reference is looked at, and both before hours of work.
            let set = GeneratedSet::open(source, settings.crop, &scoring).await?;
            if is_worker {
                return set.features(&scoring, &extractors).await.map(drop);
            }
            let compared = match reference {
                Some(reference) => ComparedWith::read(reference, &scoring, &extractors).await?,
                None => ComparedWith::nothing(),
            };
            settings.scores.check(&compared)?;
            vec![set.score(&compared, &settings.scores, &scoring, &extractors).await?]
        }
        EvaluationTask::MakeReference { archive, inception } => {
            let extractors = Extractors::load(inception, &workers, ExtractorPrecision::Float32).await?;
            if is_worker {
                return reference::features(source, settings.crop, &scoring, &extractors).await.map(drop);
            }
            let text = reference::make(archive, source, settings.crop, &scoring, &extractors).await?;
            return Ok(crate::output::print(&text)?);
        }
        EvaluationTask::Reconstruct(task) => {
            let reconstructions = Reconstructions::open(source, settings.crop, task, &scoring, &workers).await?;
            if is_worker {
                return reconstructions.features(&scoring, &workers).await.map(drop);
            }
            reconstructions.score(&scoring, &workers).await?
        }
    };
    // First: what others have left in the output does not hide the result.
    print(&records, settings.format)?;
    let written = pipeline::write_scores(&scoring.output, &records).await?;
    tracing::info!(
        scores = scoring.output.uri(&written.parquet_path),
        table = scoring.output.uri(&written.csv_path),
        "scores are written"
    );
    Ok(())
}

fn print(records: &[EvaluationRecord], format: ReportFormat) -> Result<()> {
    match format {
        ReportFormat::Json => Ok(crate::output::print_json(&records)?),
        ReportFormat::Text => Ok(crate::output::print(&text::text(records))?),
    }
}
