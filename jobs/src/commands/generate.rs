//! `restok generate`: samples of a generator as tables and pictures, and the tokens of a table as pictures.

mod loaded;
mod plan;
mod sheets;

pub(crate) use loaded::Loaded;

use super::run_report;
use crate::{
    environment,
    progress::Progress,
    settings::{Codes, GenerateSettings, SettingsError},
    watched::Watched,
    workers::Workers,
};
use anyhow::Result;
use pipeline::{
    CodeSource, GenerateRun, Limits, PipelineError, ProcessRank, Run, RunReport, Storage, TableReader, Telemetry,
};
use schemas::{Plan, SourceAccount};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs the job and prints its report.
///
/// # Errors
/// Whatever ended it; [`crate::exit_code::of`] tells what the scheduler should do.
pub(crate) async fn run(
    settings: GenerateSettings,
    limits: Limits,
    workers: Workers,
    progress: Progress,
    cancel: CancellationToken,
) -> Result<()> {
    let loading = Loaded::load(&settings, &workers);
    let loaded = cancel.run_until_cancelled(loading).await.ok_or(PipelineError::Drained)??;
    let Some(shown) = settings.output.clone() else {
        return sheets::draw(settings, loaded).await;
    };
    let made = generate_set(&settings, &shown, &limits, &loaded, &progress, &cancel).await?;
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
    cancel: &CancellationToken,
) -> Result<MadeSet> {
    let process = ProcessRank::detect(settings.process.rank, settings.process.world_size, environment::lookup)?;
    tracing::info!("{process}");
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
    let watched = Watched::new(&plan, &output, process, &telemetry);
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
        },
    };
    let report = watched.run(pipeline::generate(run), progress).await?;
    Ok(MadeSet { plan, output, report })
}
