//! A run over a plan: claim the output, make the units that have no marker, finalize.
//!
//! What a unit's rows are made of is decided by a [`UnitSource`]: images that are encoded (see [`mod@tokenize`]), or samples that
//! are drawn and tokens that are decoded (see [`mod@generate`]). Everything else is here, once: units run side by side (see
//! [`crate::units`]), each an ordered pipeline of its own, sharing the pool of CPU threads and the devices. A unit whose rows are
//! there is committed at once (see [`crate::commit`]); one that is stopped before that leaves nothing behind that anybody trusts.

mod decoder_versions;
mod duplicates;
mod generate;
mod image_units;
mod sample_units;
mod tokenize;

pub use decoder_versions::decoder_versions;
use duplicates::EarlyDuplicates;
pub use generate::{CodeSource, GenerateRun, generate};
pub use tokenize::{TokenizeRun, tokenize};

use crate::{
    Limits, PipelineError, ProcessRank, Storage,
    commit::{
        Committed, UnitCommit, UnitRows, check_row_counts, claim_output, done_units, finalize_units, put_left_out,
        read_left_out, read_markers,
    },
    cpu_pool::CpuPool,
    device_worker::Devices,
    telemetry::{Snapshot, Telemetry, describe_rejects},
    units::{EngineEvent, EngineLink, UnitContext, UnitCounts, UnitError, UnitQueue, UnitTask, UnitsToDo, run_units},
};
use schemas::{Plan, RowCounts, SourceAccount, TokenRows, UnitReport, WriterInfo, marker_path};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// What every run needs, whatever its rows are made of.
pub struct Run {
    /// The plan, frozen.
    pub plan: Arc<Plan>,
    /// Where the tables go.
    pub output: Storage,
    /// Version of libtorch, for the tables' metadata.
    pub libtorch: String,
    /// All limits.
    pub limits: Limits,
    /// Which of several processes this one is.
    pub process: ProcessRank,
    /// Largest fraction of rejected images, 0 to 1, over the whole output; above it the output is not finalized.
    pub max_reject_rate: f64,
    /// Longest pause before anything is read, so that a thousand processes do not start in the same second. How long this one
    /// waits follows from its rank.
    pub start_jitter: Duration,
    /// Whether to finalize when every unit is there.
    pub finalize: bool,
    /// Stops the run: units that are not yet being committed are dropped.
    pub cancel: CancellationToken,
    /// Counters, for whoever shows progress.
    pub telemetry: Arc<Telemetry>,
    /// What the listing of the source left out; kept beside the plan.
    pub left_out: SourceAccount,
    /// The engine that hands out units, where they do not follow from the rank.
    pub engine: Option<EngineLink>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Run")
            .field("plan", self.plan.hash())
            .field("output", &self.output)
            .field("limits", &self.limits)
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// Row counts of the units that this run committed.
    pub row_counts_here: RowCounts,
    /// Row counts of every complete unit of the output.
    pub row_counts_output: RowCounts,
    /// Units that this run committed.
    pub units_here: u32,
    /// Units that were complete before this run.
    pub units_already_done: u32,
    /// Units that other processes completed meanwhile.
    pub units_elsewhere: u32,
    /// Units that nobody completed yet; 0 unless another process took its marker away.
    pub units_left: u32,
    /// Units of this run for which another attempt's files were there first.
    pub adopted: u32,
    /// Whether the output is finished.
    pub finalized: bool,
    /// Every stage at the end; its `limiting_stage` says what the run waited for.
    pub snapshot: Snapshot,
}

/// What gives the rows of a unit.
trait UnitSource: Send + Sync + 'static {
    /// All rows of `unit`.
    fn unit_rows(&self, unit: u32) -> impl Future<Output = Result<UnitRows, UnitError>> + Send;

    /// The rows of `unit` when another attempt has committed other codes than `rows` has: what is made of codes must follow from
    /// those that stand in the table.
    fn follow(
        &self,
        unit: u32,
        rows: UnitRows,
        tokens: TokenRows,
    ) -> impl Future<Output = Result<UnitRows, UnitError>> + Send;
}

/// What a run has ready when its networks are loaded.
struct Started<S, D> {
    source: S,
    devices: D,
    /// What made the files: of the devices, those that have a hand in the codes.
    writer_info: WriterInfo,
}

/// Makes every unit of the plan that has no marker yet, with what `start` gives if there are any, and finalizes the output when
/// all are there.
async fn work_through<S: UnitSource, D: Devices>(
    mut run: Run,
    verb: &'static str,
    start: impl AsyncFnOnce(&Run, &CpuPool) -> Result<Started<S, D>, PipelineError>,
) -> Result<RunReport, PipelineError> {
    let engine = run.engine.take();
    let events = engine.as_ref().map(|engine| engine.events.clone());
    let cancel = &run.cancel;
    let stopped = || PipelineError::Drained;
    let pause = start_pause(run.start_jitter, run.process);
    cancel.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or_else(stopped)?;
    claim_output(&run.output, &run.plan).await?;
    put_left_out(&run.output, run.plan.hash(), &run.left_out).await?;
    let done_before = done_units(&run.output, &run.plan).await?;
    run.telemetry.set_totals(u64::from(run.plan.units()), done_before.len() as u64, planned_images(&run.plan));
    let missing = (0..run.plan.units()).filter(|unit| !done_before.contains(unit)).collect();
    tracing::info!(
        plan = run.plan.hash().short(),
        units = run.plan.units(),
        done = done_before.len(),
        process = %run.process,
        output = run.output.display(),
        "{verb}"
    );
    let todo = UnitsToDo {
        output: &run.output,
        name: run.plan.hash().short(),
        units: run.plan.units(),
        missing,
        process: run.process,
    };
    let queue = UnitQueue::new(engine, &run.plan.hash().to_string(), todo);
    let here = if queue.is_empty() { Vec::new() } else { make_units(&run, queue, start).await? };
    if cancel.is_cancelled() {
        return Err(stopped());
    }
    let done_after = done_units(&run.output, &run.plan).await?;
    let reports = read_markers(&run.output, &run.plan, done_after).await?;
    let mut row_counts_output: RowCounts = reports.iter().map(|report| &report.row_counts).sum();
    row_counts_output.left_out.add(&read_left_out(&run.output, run.plan.hash()).await?);
    let units_left = run.plan.units().saturating_sub(reports.len() as u32);
    if units_left == 0 {
        check_row_counts(&run.plan, &row_counts_output, run.max_reject_rate)?;
        if run.finalize {
            let finalizing = finalize_units(&run.output, &run.plan, &reports);
            cancel.run_until_cancelled(finalizing).await.ok_or_else(stopped)??;
        }
    }
    let (units_here, units_already_done) = (here.len() as u32, done_before.len() as u32);
    let finalized = units_left == 0 && run.finalize;
    if let Some(events) = events {
        events.tell(EngineEvent::Ended { units_here, units_left, finalized });
    }
    Ok(RunReport {
        row_counts_here: here.iter().map(|report| &report.row_counts).sum(),
        row_counts_output,
        units_here,
        units_already_done,
        units_elsewhere: (reports.len() as u32).saturating_sub(units_here + units_already_done),
        units_left,
        adopted: here.iter().filter(|report| report.adopted).count() as u32,
        finalized,
        snapshot: run.telemetry.snapshot(),
    })
}

/// Starts the devices, and makes and commits the units of `queue`.
async fn make_units<S: UnitSource, D: Devices>(
    run: &Run,
    queue: UnitQueue,
    start: impl AsyncFnOnce(&Run, &CpuPool) -> Result<Started<S, D>, PipelineError>,
) -> Result<Vec<UnitReport>, PipelineError> {
    let Run { limits, telemetry, cancel, .. } = run;
    let cpu = CpuPool::try_new(limits.decode_threads)?;
    let starting = start(run, &cpu);
    let Started { source, devices, writer_info } =
        cancel.run_until_cancelled(starting).await.ok_or(PipelineError::Drained)??;
    let task = PlanTask {
        source,
        plan: Arc::clone(&run.plan),
        output: run.output.clone(),
        writer_info,
        cpu,
        telemetry: Arc::clone(telemetry),
    };
    run_units(queue, UnitContext { limits, telemetry, cancel }, task, devices).await
}

/// Units of a plan: rows from a source to tables and a marker.
struct PlanTask<S> {
    source: S,
    plan: Arc<Plan>,
    output: Storage,
    writer_info: WriterInfo,
    cpu: CpuPool,
    telemetry: Arc<Telemetry>,
}

impl<S: UnitSource> UnitTask for PlanTask<S> {
    type Output = UnitRows;
    type Stored = UnitReport;

    async fn is_stored(&self, unit: u32) -> Result<bool, PipelineError> {
        self.output.exists(&marker_path(unit, self.plan.hash())).await
    }

    async fn stored(&self) -> Result<BTreeSet<u32>, PipelineError> {
        done_units(&self.output, &self.plan).await
    }

    async fn duration_of(&self, unit: u32) -> Result<Option<Duration>, PipelineError> {
        let markers = read_markers(&self.output, &self.plan, [unit]).await?;
        Ok(markers.first().and_then(|marker| Duration::try_from_secs_f64(marker.seconds).ok()))
    }

    async fn make(&self, unit: u32) -> Result<UnitRows, UnitError> {
        self.source.unit_rows(unit).await
    }

    async fn commit(&self, unit: u32, mut rows: UnitRows, started: Instant) -> Result<UnitReport, UnitError> {
        let commit = UnitCommit {
            output: self.output.clone(),
            plan: Arc::clone(&self.plan),
            unit,
            writer_info: self.writer_info.clone(),
            cpu: self.cpu.clone(),
            telemetry: Arc::clone(&self.telemetry),
            started,
        };
        let report = loop {
            match commit.commit(rows).await? {
                Committed::Whole(report) => break report,
                Committed::Overtaken { ours, tokens } => rows = self.source.follow(unit, ours, tokens).await?,
            }
        };
        tracing::info!(
            images = report.row_counts.listed,
            rejected = report.row_counts.rejected_total(),
            reasons = %describe_rejects(&report.row_counts.rejected),
            rows = report.row_counts.token_rows,
            bytes = report.files().map(|file| file.bytes).sum::<u64>(),
            seconds = format!("{:.1}", started.elapsed().as_secs_f64()),
            "unit complete"
        );
        Ok(report)
    }

    fn counts(stored: &UnitReport) -> UnitCounts {
        let counts = &stored.row_counts;
        UnitCounts {
            images: counts.listed,
            rejected: counts.rejected.clone(),
            rows: counts.token_rows,
            seconds: stored.seconds,
        }
    }
}

/// What writes the files of a run.
fn writer_info(run: &Run, device_kind: String) -> WriterInfo {
    let (decoder, version) = (decoder_versions().to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    WriterInfo { device_kind, libtorch: run.libtorch.clone(), decoder, version }
}

/// Images of the plan, where the layout tells without reading: a file is an image, a row is an image, a tar is unknown.
pub fn planned_images(plan: &Plan) -> Option<u64> {
    if plan.settings().origin.images().is_some_and(|images| images.layout == schemas::SourceLayout::Folder) {
        return Some(plan.inputs().len() as u64);
    }
    plan.inputs().iter().map(|input| input.rows.map(|rows| rows.end - rows.start)).sum()
}

/// A process's share of the start jitter: the same for the same rank, spread evenly over all ranks.
fn start_pause(jitter: Duration, process: ProcessRank) -> Duration {
    jitter.mul_f64(f64::from(process.rank) / f64::from(process.world_size.max(1)))
}
