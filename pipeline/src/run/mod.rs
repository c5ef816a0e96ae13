//! A whole run: claim the output, make the units that have no marker, finalize.
//!
//! What a unit's rows are made of is the affair of a [`UnitSource`]: images that are encoded (see [`mod@tokenize`] and
//! [`mod@unit`]), or samples that are drawn and tokens that are decoded (see [`mod@generate`]). Everything else is here, once:
//! `units_in_flight` units at once, each an ordered pipeline of its own, sharing the pool of CPU threads and the devices. A unit
//! whose rows are there is committed at once (see [`crate::commit`]); one that is stopped before that leaves nothing behind that
//! anybody trusts.

mod batcher;
mod decoder_versions;
mod duplicates;
mod generate;
mod order;
mod sample_units;
mod shard;
mod side_by_side;
mod tokenize;
mod unit;

pub(crate) use batcher::ViewBatcher;
pub use decoder_versions::decoder_versions;
use duplicates::EarlyDuplicates;
pub(crate) use duplicates::duplicate_id;
pub use generate::{CodeSource, GenerateRun, generate};
pub(crate) use order::{describe_units, unit_order};
use sample_units::CodeQueue;
pub use shard::{Shard, ShardOrigin};
pub(crate) use side_by_side::side_by_side;
pub use tokenize::{TokenizeRun, tokenize};
pub(crate) use unit::{WaitClock, books_of};

use crate::{
    Limits, PipelineError, Storage,
    commit::{
        Committed, UnitCommit, claim_output, done_units, finalize_units, put_left_out, read_left_out, read_markers,
    },
    cpu_pool::CpuPool,
    device_worker::DevicesGone,
    telemetry::{Snapshot, Telemetry, describe_rejects},
    watchdog,
};
use bytes::Bytes;
use schemas::{Books, ImageRow, Maker, Plan, SourceAccount, TokenRows, UnitReport, marker_path};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Longest wait, at the end, for a device that is in the middle of a batch nobody needs. Ending the process under a thread
/// that runs C++ code may crash it, but schedulers give a drained process little time.
pub(crate) const DEVICE_PATIENCE: Duration = Duration::from_secs(10);

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
    pub shard: Shard,
    /// Largest share of rejected images, 0 to 1, over the whole output; above it the output is not finalized.
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
}

impl std::fmt::Debug for Run {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Run")
            .field("plan", self.plan.hash())
            .field("output", &self.output)
            .field("limits", &self.limits)
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// Books of the units that this run committed.
    pub books_here: Books,
    /// Books of every complete unit of the output.
    pub books_output: Books,
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

/// A unit's part of both tables, in plan order, its pictures and its books.
#[derive(Debug)]
pub(crate) struct UnitRows {
    pub(crate) tokens: TokenRows,
    pub(crate) images: Vec<ImageRow>,
    pub(crate) pictures: Vec<PictureFile>,
    pub(crate) books: Books,
}

/// A file of pictures in memory.
#[derive(Debug)]
pub(crate) struct PictureFile {
    /// Path below the output.
    pub(crate) path: String,
    pub(crate) bytes: Bytes,
    /// Pictures in it.
    pub(crate) rows: u64,
}

/// Why a unit ended early.
#[derive(Debug)]
pub(crate) enum UnitError {
    /// On its own account.
    Pipeline(PipelineError),
    /// Because the devices failed.
    DevicesGone,
}

impl From<PipelineError> for UnitError {
    fn from(error: PipelineError) -> Self {
        Self::Pipeline(error)
    }
}

impl From<schemas::SchemaError> for UnitError {
    fn from(error: schemas::SchemaError) -> Self {
        Self::Pipeline(error.into())
    }
}

impl From<DevicesGone> for UnitError {
    fn from(_: DevicesGone) -> Self {
        Self::DevicesGone
    }
}

/// What gives the rows of a unit.
trait UnitSource: Clone + Send + Sync + 'static {
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

/// What a run has ready when its networks are loaded: the source of rows, and how to let go of the devices.
trait Engine: Send {
    type Source: UnitSource;

    /// Where rows come from.
    fn source(&self) -> Self::Source;
    /// Kinds of all devices that have a hand in the codes.
    fn device_kind(&self) -> String;
    /// Why no device answers any more.
    ///
    /// # Panics
    /// With the panic of the device thread that failed first.
    fn failure(&self) -> PipelineError;
    /// Lets go of the devices, waiting for those in the middle of a batch at most `patience`.
    fn close(self, patience: Duration) -> impl Future<Output = ()> + Send;
}

/// Makes every unit of the plan that has no marker yet, with the engine that `start` gives if there are any, and finalizes the
/// output when all are there.
async fn work_through<E: Engine>(
    run: Run,
    verb: &'static str,
    units_in_flight: usize,
    start: impl AsyncFnOnce(&CpuPool) -> Result<E, PipelineError>,
) -> Result<RunReport, PipelineError> {
    let cancel = run.cancel.clone();
    let stopped = || PipelineError::Drained;
    let pause = start_pause(run.start_jitter, run.shard);
    cancel.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or_else(stopped)?;
    claim_output(&run.output, &run.plan).await?;
    put_left_out(&run.output, run.plan.hash(), &run.left_out).await?;
    let done_before = done_units(&run.output, &run.plan).await?;
    run.telemetry.set_totals(u64::from(run.plan.units()), done_before.len() as u64, planned_images(&run.plan));
    let todo: Vec<u32> =
        unit_order(run.plan.units(), run.shard).into_iter().filter(|unit| !done_before.contains(unit)).collect();
    tracing::info!(
        plan = run.plan.hash().short(),
        units = run.plan.units(),
        done = done_before.len(),
        shard = %run.shard,
        output = run.output.display(),
        "{verb}"
    );
    let here = if todo.is_empty() { Vec::new() } else { run_units(&run, todo, units_in_flight, start).await? };
    if cancel.is_cancelled() {
        return Err(stopped());
    }
    let done_after = done_units(&run.output, &run.plan).await?;
    let reports = read_markers(&run.output, &run.plan, done_after.iter().copied()).await?;
    let mut report = run_report(&run.plan, &here, &reports, &done_before);
    report.books_output.left_out.add(&read_left_out(&run.output, run.plan.hash()).await?);
    if report.units_left == 0 {
        check_books(&run.plan, &report.books_output, run.max_reject_rate)?;
        if run.finalize {
            let finalizing = finalize_units(&run.output, &run.plan, &reports);
            cancel.run_until_cancelled(finalizing).await.ok_or_else(stopped)??;
            report.finalized = true;
        }
    }
    report.snapshot = run.telemetry.snapshot();
    Ok(report)
}

/// Makes and commits `todo`, skipping what other processes finish meanwhile.
async fn run_units<E: Engine>(
    run: &Run,
    todo: Vec<u32>,
    units_in_flight: usize,
    start: impl AsyncFnOnce(&CpuPool) -> Result<E, PipelineError>,
) -> Result<Vec<UnitReport>, PipelineError> {
    let cpu = CpuPool::try_new(run.limits.decode_threads)?;
    let engine = run.cancel.run_until_cancelled(start(&cpu)).await.ok_or(PipelineError::Drained)??;
    let units_in_flight = match run.limits.units_in_flight {
        0 => units_in_flight,
        units => units,
    };
    let workers = UnitWorkers {
        source: engine.source(),
        plan: Arc::clone(&run.plan),
        output: run.output.clone(),
        maker: maker(run.libtorch.clone(), engine.device_kind()),
        cpu,
        telemetry: Arc::clone(&run.telemetry),
        stop: run.cancel.child_token(),
    };
    let stall = Duration::from_secs(run.limits.stall_seconds);
    let result = tokio::select! {
        result = workers.run_all(todo, units_in_flight) => result,
        // Dropping the units aborts them: what stands still cannot be asked to stop.
        stalled = watchdog::watch(&run.telemetry, stall) => return Err(stalled),
    };
    let reports = match result {
        // The device that failed says why, or raises its panic here.
        Err(UnitError::DevicesGone) => Err(engine.failure()),
        Err(UnitError::Pipeline(error)) => Err(error),
        Ok(reports) => Ok(reports),
    };
    drop(workers);
    engine.close(DEVICE_PATIENCE).await;
    reports
}

/// What turns unit numbers into markers.
#[derive(Clone)]
struct UnitWorkers<S> {
    source: S,
    plan: Arc<Plan>,
    output: Storage,
    maker: Maker,
    cpu: CpuPool,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
}

impl<S: UnitSource> UnitWorkers<S> {
    /// Runs all units, some at once. The first failure stops the others; commits in progress are brought to their end.
    async fn run_all(&self, todo: Vec<u32>, units_in_flight: usize) -> Result<Vec<UnitReport>, UnitError> {
        let work = |unit| {
            let worker = self.clone();
            async move { worker.run_one(unit).await }
        };
        Ok(side_by_side(todo, units_in_flight, &self.stop, work).await?.into_iter().flatten().collect())
    }

    /// One unit; `None` when another process finished it meanwhile.
    async fn run_one(&self, unit: u32) -> Result<Option<UnitReport>, UnitError> {
        if self.output.exists(&marker_path(unit, self.plan.hash())).await? {
            tracing::info!("another process finished this unit");
            self.telemetry.unit_done();
            return Ok(None);
        }
        let started = Instant::now();
        let made = self.stop.run_until_cancelled(self.source.unit_rows(unit)).await;
        let mut rows = made.ok_or(PipelineError::Drained)??;
        // From here on nothing asks whether to stop: a commit that began is brought to its end.
        let commit = UnitCommit {
            output: self.output.clone(),
            plan: Arc::clone(&self.plan),
            unit,
            maker: self.maker.clone(),
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
        self.telemetry.unit_done();
        tracing::info!(
            images = report.books.listed,
            rejected = report.books.rejected_total(),
            reasons = %describe_rejects(&report.books),
            rows = report.books.token_rows,
            bytes = report.files().map(|file| file.bytes).sum::<u64>(),
            seconds = format!("{:.1}", started.elapsed().as_secs_f64()),
            "unit complete"
        );
        Ok(Some(report))
    }
}

/// What made the files of a run.
fn maker(libtorch: String, device_kind: String) -> Maker {
    let (decoder, version) = (decoder_versions().to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Maker { device_kind, libtorch, decoder, version }
}

fn run_report(plan: &Plan, here: &[UnitReport], all: &[UnitReport], done_before: &BTreeSet<u32>) -> RunReport {
    let sum = |reports: &[UnitReport]| {
        let mut books = Books::default();
        reports.iter().for_each(|report| books.add(&report.books));
        books
    };
    let (units_here, units_already_done) = (here.len() as u32, done_before.len() as u32);
    RunReport {
        books_here: sum(here),
        books_output: sum(all),
        units_here,
        units_already_done,
        units_elsewhere: (all.len() as u32).saturating_sub(units_here + units_already_done),
        units_left: plan.units().saturating_sub(all.len() as u32),
        adopted: here.iter().filter(|report| report.adopted).count() as u32,
        finalized: false,
        snapshot: Telemetry::new().snapshot(),
    }
}

/// What must be true of the books of a whole output before it is called finished.
pub(crate) fn check_books(plan: &Plan, books: &Books, max_reject_rate: f64) -> Result<(), PipelineError> {
    if books.listed == 0 {
        return Err(PipelineError::Source {
            uri: plan.settings().source.clone(),
            problem: format!("{} inputs, but not one image in them", plan.inputs().len()),
        });
    }
    if books.reject_rate() > max_reject_rate {
        return Err(PipelineError::RejectRate {
            rejected: books.rejected_total(),
            listed: books.listed,
            limit_percent: max_reject_rate * 100.0,
            reasons: describe_rejects(books),
        });
    }
    Ok(())
}

/// Images of the plan, where the layout tells without reading: a file is an image, a row is an image, a tar is unknown.
fn planned_images(plan: &Plan) -> Option<u64> {
    if plan.settings().origin.images().is_some_and(|images| images.layout == schemas::SourceLayout::Folder) {
        return Some(plan.inputs().len() as u64);
    }
    plan.inputs().iter().map(|input| input.rows.map(|rows| rows.end - rows.start)).sum()
}

/// A process's share of the start jitter: the same for the same rank, spread evenly over all ranks.
fn start_pause(jitter: Duration, shard: Shard) -> Duration {
    jitter.mul_f64(f64::from(shard.rank) / f64::from(shard.world.max(1)))
}
