//! `restok generate`: samples of a generator as tables and pictures, and the tokens of a table as pictures.

mod loaded;
mod plan;
mod sheets;

pub(crate) use loaded::Loaded;

use super::run_report;
use crate::{
    progress::Progress,
    settings::{Codes, GenerateSettings, SettingsError},
    watched::Watched,
    workers::Workers,
};
use anyhow::Result;
use pipeline::{
    CodeSource, EngineLink, GenerateRun, Limits, PipelineError, Run, RunReport, Storage, TableReader, Telemetry,
};
use schemas::{Plan, SourceAccount};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs the job and prints its report; where an engine hands out the units, it is told instead.
///
/// # Errors
/// Whatever ended it; [`crate::exit_code::of`] tells what the scheduler should do.
pub(crate) async fn run(
    settings: GenerateSettings,
    limits: Limits,
    workers: Workers,
    progress: Progress,
    engine: Option<EngineLink>,
    cancel: CancellationToken,
) -> Result<()> {
    let is_worker = engine.is_some();
    if is_worker && settings.output.is_none() {
        return Err(SettingsError::invalid("--output", "none", "an output, whose units an engine hands out").into());
    }
    let _exporting = progress.metrics().export(settings.metrics_listen)?;
    let loading = Loaded::load(&settings, &workers);
    let loaded = cancel.run_until_cancelled(loading).await.ok_or(PipelineError::Drained)??;
    let Some(shown) = settings.output.clone() else {
        return sheets::draw(settings, loaded).await;
    };
    let made = generate_set(&settings, &shown, &limits, &loaded, &progress, engine, &cancel).await?;
    if is_worker {
        return Ok(());
    }
    run_report::print(settings.format, &shown, &made.plan, &made.output, &made.report)
}

/// A set that was made.
#[derive(Debug)]
pub(crate) struct MadeSet {
    pub(crate) plan: Arc<Plan>,
    pub(crate) output: Storage,
    pub(crate) report: RunReport,
}

/// Makes the set, or goes on with it.
///
/// # Errors
/// As [`run`].
pub(crate) async fn generate_set(
    settings: &GenerateSettings,
    output: &str,
    limits: &Limits,
    loaded: &Loaded,
    progress: &Progress,
    engine: Option<EngineLink>,
    cancel: &CancellationToken,
) -> Result<MadeSet> {
    let process = settings.process.detect(engine.is_some())?;
    // Everything that can be wrong is found before the output is touched.
    let output = Storage::open_output(output, limits)?;
    let (plan, codes) = match &settings.codes {
        Codes::Draw { sampling, classes, count, .. } => {
            let samplers = loaded.samplers(settings, sampling);
            if samplers.is_empty() {
                return Err(SettingsError::invalid("--generator", "none", "one to draw with").into());
            }
            let plan = plan::of_samples(settings, loaded, sampling, classes, count.unwrap_or_default())?;
            (plan, CodeSource::Samplers(samplers))
        }
        Codes::Read(tokens) => {
            let tables = TableReader::open(&Storage::open(tokens, limits)?).await?;
            (plan::of_tokens(settings, loaded, tokens, &tables)?, CodeSource::Tables(tables))
        }
    };
    let plan = Arc::new(plan);
    let telemetry = Arc::new(Telemetry::of_generating());
    let watched = Watched::new(&plan, &output, process, &telemetry, settings.heartbeats);
    let run = GenerateRun {
        codes,
        decoders: if settings.formats.is_empty() { Vec::new() } else { loaded.decoders(settings) },
        common: Run {
            plan: Arc::clone(&plan),
            output: output.clone(),
            libtorch: models::libtorch_version(),
            limits: limits.clone(),
            process,
            // No sample is ever rejected.
            max_reject_rate: 0.0,
            start_jitter: settings.start_jitter,
            finalize: settings.finalize,
            cancel: cancel.clone(),
            telemetry,
            left_out: SourceAccount::default(),
            engine,
        },
    };
    let report = watched.run(pipeline::generate(run), progress).await?;
    Ok(MadeSet { plan, output, report })
}
