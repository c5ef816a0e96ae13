//! A whole run: claim the output, encode the units that have no marker, finalize.
//!
//! `units_in_flight` units run at once, each an ordered pipeline of its own (see [`mod@unit`]), sharing the pool of decode threads,
//! the limits on fetching and the devices. A unit that is encoded is committed at once (see [`crate::commit`]); one that is
//! stopped before that leaves nothing behind that anybody trusts.

mod batcher;
mod decoder_versions;
mod duplicates;
mod order;
mod shard;
mod unit;

pub(crate) use batcher::ViewBatcher;
pub use decoder_versions::decoder_versions;
use duplicates::EarlyDuplicates;
pub(crate) use duplicates::duplicate_id;
pub(crate) use order::describe_units;
pub use shard::{Shard, ShardOrigin};
use unit::{UnitEngine, UnitError};
pub(crate) use unit::{UnitRows, books_of};

use crate::{
    EncoderFactory, Limits, PipelineError, SourceReader, Storage,
    commit::{UnitCommit, claim_output, done_units, finalize_units, read_markers},
    cpu_pool::CpuPool,
    device_worker::{CodeShape, DevicePool},
    telemetry::{Snapshot, Stage, Telemetry, describe_rejects},
    watchdog,
};
use schemas::{Books, Maker, Plan, UnitReport, marker_path};
use std::{
    collections::BTreeSet,
    panic::resume_unwind,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Longest wait, at the end, for a device that is in the middle of a batch nobody needs. Ending the process under a thread
/// that runs C++ code may crash it, but schedulers give a drained process little time.
const DEVICE_PATIENCE: Duration = Duration::from_secs(10);

/// Everything that tokenizing needs.
pub struct TokenizeRun {
    /// The plan, frozen.
    pub plan: Arc<Plan>,
    /// Reads the plan's inputs.
    pub source: SourceReader,
    /// Where the tables go.
    pub output: Storage,
    /// A name and a factory for each device. Built on their own threads, and only when there is work left.
    pub encoders: Vec<(String, EncoderFactory)>,
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
}

impl std::fmt::Debug for TokenizeRun {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let devices: Vec<&str> = self.encoders.iter().map(|(device, _)| device.as_str()).collect();
        formatter
            .debug_struct("TokenizeRun")
            .field("plan", self.plan.hash())
            .field("output", &self.output)
            .field("devices", &devices)
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

/// Tokenizes every unit of the plan that has no marker yet, and finalizes the output when all are there.
///
/// # Errors
/// [`PipelineError::PlanConflict`] when the output belongs to another plan; [`PipelineError::RejectRate`] when too many images
/// were rejected; [`PipelineError::Encoder`], [`PipelineError::Stalled`], storage and source errors end the run;
/// [`PipelineError::Drained`] when it was asked to stop. Whatever the error, starting again goes on with the units that are
/// missing.
///
/// # Panics
/// With the panic of a decode or device thread, should one panic.
pub async fn tokenize(run: TokenizeRun) -> Result<RunReport, PipelineError> {
    let cancel = run.cancel.clone();
    let stopped = || PipelineError::Drained;
    let pause = start_pause(run.start_jitter, run.shard);
    cancel.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or_else(stopped)?;
    claim_output(&run.output, &run.plan).await?;
    let done_before = done_units(&run.output, &run.plan).await?;
    run.telemetry.set_totals(u64::from(run.plan.units()), done_before.len() as u64, planned_images(&run.plan));
    let todo: Vec<u32> =
        order::unit_order(run.plan.units(), run.shard).into_iter().filter(|unit| !done_before.contains(unit)).collect();
    tracing::info!(
        plan = run.plan.hash().short(),
        units = run.plan.units(),
        done = done_before.len(),
        shard = %run.shard,
        output = run.output.display(),
        "tokenizing"
    );
    let (output, plan, telemetry) = (run.output.clone(), Arc::clone(&run.plan), Arc::clone(&run.telemetry));
    let (max_reject_rate, finalize) = (run.max_reject_rate, run.finalize);
    let here = if todo.is_empty() { Vec::new() } else { run_units(run, todo).await? };
    if cancel.is_cancelled() {
        return Err(stopped());
    }
    let done_after = done_units(&output, &plan).await?;
    let reports = read_markers(&output, &plan, done_after.iter().copied()).await?;
    let mut report = run_report(&plan, &here, &reports, &done_before);
    if report.units_left == 0 {
        check_books(&plan, &report.books_output, max_reject_rate)?;
        if finalize {
            finalize_units(&output, &plan, &reports).await?;
            report.finalized = true;
        }
    }
    report.snapshot = telemetry.snapshot();
    Ok(report)
}

/// Encodes and commits `todo`, skipping what other processes finish meanwhile.
async fn run_units(run: TokenizeRun, todo: Vec<u32>) -> Result<Vec<UnitReport>, PipelineError> {
    let settings = run.plan.settings();
    let shape = CodeShape {
        tokens_per_image: settings.tokenizer.levels.tokens_per_image(),
        codebook_size: settings.tokenizer.codebook_size,
    };
    let devices_count = run.encoders.len();
    let cpu = CpuPool::try_new(run.limits.decode_threads)?;
    run.telemetry.set_capacity(Stage::Decode, cpu.threads());
    let starting = DevicePool::start(run.encoders, run.limits.queued_batches_per_device, shape, &run.telemetry);
    let devices = run.cancel.run_until_cancelled(starting).await.ok_or(PipelineError::Drained)??;
    let units_in_flight = match run.limits.units_in_flight {
        0 => devices_count + 1,
        units => units,
    };
    run.telemetry.set_capacity(Stage::Fetch, units_in_flight.min(todo.len()));
    let workers = UnitWorkers {
        engine: UnitEngine {
            plan: Arc::clone(&run.plan),
            source: run.source,
            devices: devices.queue(),
            cpu: cpu.clone(),
            telemetry: Arc::clone(&run.telemetry),
            decode_ahead_images: run.limits.decode_ahead_images,
            duplicates: Arc::default(),
        },
        output: run.output,
        maker: Maker {
            device_kind: devices.device_kind(),
            libtorch: run.libtorch,
            decoder: decoder_versions().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
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
        Err(UnitError::DevicesGone) => Err(devices.failure()),
        Err(UnitError::Pipeline(error)) => Err(error),
        Ok(reports) => Ok(reports),
    };
    devices.close(DEVICE_PATIENCE).await;
    reports
}

/// What turns unit numbers into markers.
#[derive(Clone)]
struct UnitWorkers {
    engine: UnitEngine,
    output: Storage,
    maker: Maker,
    stop: CancellationToken,
}

impl UnitWorkers {
    /// Runs all units, some at once. The first failure stops the others; commits in progress are brought to their end.
    async fn run_all(&self, todo: Vec<u32>, units_in_flight: usize) -> Result<Vec<UnitReport>, UnitError> {
        let mut waiting = todo.into_iter();
        // Aborts its tasks when dropped.
        let mut running = JoinSet::new();
        let mut reports = Vec::new();
        let mut failure = None;
        loop {
            while running.len() < units_in_flight.max(1) && !self.stop.is_cancelled() {
                let Some(unit) = waiting.next() else { break };
                let worker = self.clone();
                let span = tracing::info_span!("unit", unit);
                running.spawn(async move { worker.run_one(unit).await }.instrument(span));
            }
            match running.join_next().await {
                None => break,
                Some(Ok(Ok(report))) => reports.extend(report),
                Some(Ok(Err(error))) => {
                    self.stop.cancel();
                    // A unit that was told to stop is no reason to stop.
                    if failure.is_none() && !matches!(error, UnitError::Pipeline(PipelineError::Drained)) {
                        failure = Some(error);
                    }
                }
                Some(Err(joined)) => match joined.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    Err(_) => self.stop.cancel(),
                },
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None if self.stop.is_cancelled() => Err(PipelineError::Drained.into()),
            None => Ok(reports),
        }
    }

    /// One unit; `None` when another process finished it meanwhile.
    async fn run_one(&self, unit: u32) -> Result<Option<UnitReport>, UnitError> {
        let (plan, telemetry) = (&self.engine.plan, &self.engine.telemetry);
        if self.output.exists(&marker_path(unit, plan.hash())).await? {
            tracing::info!("another process finished this unit");
            telemetry.unit_done();
            return Ok(None);
        }
        let started = Instant::now();
        let encoded = self.stop.run_until_cancelled(self.engine.encode_unit(unit)).await;
        let rows = encoded.ok_or(PipelineError::Drained)??;
        // From here on nothing asks whether to stop: a commit that began is brought to its end.
        let commit = UnitCommit {
            output: self.output.clone(),
            plan: Arc::clone(plan),
            unit,
            maker: self.maker.clone(),
            cpu: self.engine.cpu.clone(),
            telemetry: Arc::clone(telemetry),
            started,
        };
        let report = commit.commit(rows).await?;
        telemetry.unit_done();
        tracing::info!(
            images = report.books.listed,
            rejected = report.books.rejected_total(),
            reasons = %describe_rejects(&report.books),
            rows = report.books.token_rows,
            bytes = report.tokens.bytes + report.images.bytes,
            seconds = format!("{:.1}", started.elapsed().as_secs_f64()),
            "unit complete"
        );
        Ok(Some(report))
    }
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
    let images = |input: &schemas::PlannedInput| match (plan.settings().layout, &input.rows) {
        (schemas::SourceLayout::Folder, _) => Some(1),
        (_, Some(rows)) => Some(rows.end - rows.start),
        (_, None) => None,
    };
    plan.inputs().iter().map(images).sum()
}

/// A process's share of the start jitter: the same for the same rank, spread evenly over all ranks.
fn start_pause(jitter: Duration, shard: Shard) -> Duration {
    jitter.mul_f64(f64::from(shard.rank) / f64::from(shard.world.max(1)))
}
