//! A whole run of scoring: score the units that have no file, whoever else may be at it.

use super::{
    PictureSet, ScoredTables,
    scored_file::{FileIdentity, encode},
    unit::Units,
};
use crate::{
    Limits, PipelineError, PutOutcome, ScorerFactory, Shard, Snapshot, Storage,
    cpu_pool::CpuPool,
    device_worker::{AnswerShape, DevicePool},
    run::{DEVICE_PATIENCE, UnitError, side_by_side, unit_order},
    telemetry::{Stage, Telemetry},
    watchdog,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Everything that scoring needs.
pub struct ScoreRun {
    /// The set.
    pub set: Arc<PictureSet>,
    /// Below which its features are kept.
    pub output: Storage,
    /// Names the features; it must follow from everything that decides their numbers: the set's
    /// [`PictureSet::digest`], the size of its units and of a batch, and the networks. Letters, digits, `-`, `_` and `.`.
    pub key: String,
    /// Images of a batch: one shape for all, the last batch of a unit padded.
    pub batch_size: usize,
    /// A name and a factory for each device. Built on their own threads, and only when there is work left.
    pub scorers: Vec<(String, ScorerFactory)>,
    /// Version of libtorch, for the files' metadata.
    pub libtorch: String,
    /// Which of several processes this one is.
    pub shard: Shard,
    /// All limits.
    pub limits: Limits,
    /// Counters, for whoever shows progress.
    pub telemetry: Arc<Telemetry>,
    /// Stops the run: units that are not yet being written are dropped.
    pub cancel: CancellationToken,
}

impl std::fmt::Debug for ScoreRun {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let devices: Vec<&str> = self.scorers.iter().map(|(device, _)| device.as_str()).collect();
        formatter
            .debug_struct("ScoreRun")
            .field("set", &self.set.display())
            .field("output", &self.output)
            .field("key", &self.key)
            .field("devices", &devices)
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct ScoreRunReport {
    /// Units of the set.
    pub units: u32,
    /// Units that this run scored.
    pub units_here: u32,
    /// Units that were there before this run.
    pub units_already_done: u32,
    /// Units that other processes scored meanwhile.
    pub units_elsewhere: u32,
    /// Units that nobody scored yet; 0 unless somebody took a file away.
    pub units_left: u32,
    /// Units of this run for which another attempt's file was there first.
    pub adopted: u32,
    /// Images that this run scored.
    pub images_here: u64,
    /// Images that this run could not read.
    pub rejected_here: u64,
    /// Kinds of all devices of this run; absent when nothing was left to do.
    pub device_kind: Option<String>,
    /// Every stage at the end.
    pub snapshot: Snapshot,
}

/// What became of one unit.
#[derive(Clone, Copy, Debug)]
enum Done {
    /// This run scored it.
    Here { images: u64, rejected: u64, adopted: bool },
    /// Another process did.
    Elsewhere,
}

/// Scores every unit of a set that has no file yet.
///
/// # Errors
/// [`PipelineError::Encoder`] when a device fails or says what is no number, [`PipelineError::Stalled`], storage and source errors;
/// [`PipelineError::Output`] when a file in the place of ours is not of this evaluation; [`PipelineError::Drained`] when it was asked
/// to stop. Whatever the error, starting again goes on with the units that are missing.
///
/// # Panics
/// With the panic of a decode or device thread, should one panic.
pub async fn score(run: ScoreRun) -> Result<ScoreRunReport, PipelineError> {
    let units = run.set.units();
    if run.batch_size == 0 {
        return Err(PipelineError::Settings { problem: "a batch size of 0, expected at least 1".to_owned() });
    }
    let tables = ScoredTables::open(run.output.clone(), &run.key, units)?;
    let missing = tables.missing().await?;
    let done_before = units - missing.len() as u32;
    run.telemetry.set_totals(u64::from(units), u64::from(done_before), run.set.images());
    let mut todo = unit_order(units, run.shard);
    todo.retain(|unit| missing.binary_search(unit).is_ok());
    tracing::info!(
        set = run.set.display(),
        key = run.key,
        units,
        done = done_before,
        shard = %run.shard,
        output = run.output.display(),
        "scoring"
    );
    let mut report = ScoreRunReport {
        units,
        units_here: 0,
        units_already_done: done_before,
        units_elsewhere: 0,
        units_left: 0,
        adopted: 0,
        images_here: 0,
        rejected_here: 0,
        device_kind: None,
        snapshot: run.telemetry.snapshot(),
    };
    let telemetry = Arc::clone(&run.telemetry);
    if !todo.is_empty() {
        let (done, device_kind) = score_units(run, &tables, todo).await?;
        report.device_kind = Some(device_kind);
        for done in done {
            if let Done::Here { images, rejected, adopted } = done {
                report.units_here += 1;
                report.adopted += u32::from(adopted);
                report.images_here += images;
                report.rejected_here += rejected;
            }
        }
    }
    report.units_left = tables.missing().await?.len() as u32;
    report.units_elsewhere = (units - report.units_left).saturating_sub(done_before + report.units_here);
    report.snapshot = telemetry.snapshot();
    Ok(report)
}

/// Starts the devices and works through `todo`, skipping what other processes finish meanwhile.
async fn score_units(
    run: ScoreRun,
    tables: &ScoredTables,
    todo: Vec<u32>,
) -> Result<(Vec<Done>, String), PipelineError> {
    let ScoreRun { set, key, batch_size, scorers, libtorch, limits, telemetry, cancel, .. } = run;
    cancel.run_until_cancelled(set.check()).await.ok_or(PipelineError::Drained)??;
    let cpu = CpuPool::try_new(limits.decode_threads)?;
    telemetry.set_capacity(Stage::Decode, cpu.threads());
    let units_in_flight = match limits.units_in_flight {
        0 => scorers.len() + 1,
        units => units,
    };
    telemetry.set_capacity(Stage::Fetch, units_in_flight.min(todo.len()));
    let shape = AnswerShape { tokens_per_image: 0, codebook_size: 0, side: 0 };
    let check = (shape, AnswerShape::check_scores as _);
    let starting = DevicePool::start(scorers, Stage::Encode, limits.queued_batches_per_device, check, &telemetry);
    let devices = cancel.run_until_cancelled(starting).await.ok_or(PipelineError::Drained)??;
    let device_kind = devices.device_kind();
    let workers = UnitWorkers {
        identity: Arc::new(FileIdentity { key, units: set.units(), device_kind: device_kind.clone(), libtorch }),
        units: Units {
            set,
            batch_size,
            devices: devices.queue(),
            cpu,
            telemetry: Arc::clone(&telemetry),
            decode_ahead_images: limits.decode_ahead_images,
        },
        tables: tables.clone(),
        stop: cancel.child_token(),
    };
    let stall = Duration::from_secs(limits.stall_seconds);
    let result = tokio::select! {
        result = workers.run_all(todo, units_in_flight) => result,
        // Dropping the units aborts them: what stands still cannot be asked to stop.
        stalled = watchdog::watch(&telemetry, stall) => return Err(stalled),
    };
    let result = match result {
        // The device that failed says why, or raises its panic here.
        Err(UnitError::DevicesGone) => Err(devices.failure()),
        Err(UnitError::Pipeline(error)) => Err(error),
        Ok(done) => Ok((done, device_kind)),
    };
    drop(workers);
    devices.close(DEVICE_PATIENCE).await;
    result
}

/// What turns unit numbers into files.
#[derive(Clone)]
struct UnitWorkers {
    identity: Arc<FileIdentity>,
    units: Units,
    tables: ScoredTables,
    stop: CancellationToken,
}

impl UnitWorkers {
    /// Runs all units, some at once. The first failure stops the others; files that are being written are brought to their end.
    async fn run_all(&self, todo: Vec<u32>, units_in_flight: usize) -> Result<Vec<Done>, UnitError> {
        let work = |unit| {
            let worker = self.clone();
            async move { worker.run_one(unit).await }
        };
        side_by_side(todo, units_in_flight, &self.stop, work).await
    }

    async fn run_one(&self, unit: u32) -> Result<Done, UnitError> {
        let telemetry = &self.units.telemetry;
        if self.tables.is_there(unit).await? {
            tracing::info!("another process scored this unit");
            telemetry.unit_done();
            return Ok(Done::Elsewhere);
        }
        let started = Instant::now();
        let scored = self.stop.run_until_cancelled(self.units.score(unit)).await.ok_or(PipelineError::Drained)??;
        // From here on nothing asks whether to stop: a file that is being written is brought to its end.
        let (images, rejected) = (scored.rows.len() as u64, scored.rejected);
        let (identity, uri) = (Arc::clone(&self.identity), self.tables.uri(unit));
        let writing = Instant::now();
        let (rows, bytes) = self
            .units
            .cpu
            .spawn_cpu(move || {
                let bytes = encode(&scored, unit, &identity, &uri)?;
                Ok::<_, PipelineError>((scored.rows, bytes))
            })
            .await?;
        let size = bytes.len() as u64;
        let adopted = match self.tables.put(unit, bytes).await? {
            PutOutcome::Created | PutOutcome::Same => false,
            PutOutcome::Different(found) => {
                // Of another kind of device, whose last bits differ. The first writer wins.
                self.tables.decode(unit, found)?.check_same(&rows, rejected, &self.tables.uri(unit))?;
                true
            }
        };
        telemetry.record(Stage::Write, 1, size, writing.elapsed());
        telemetry.unit_done();
        tracing::info!(
            images,
            rejected,
            bytes = size,
            seconds = format!("{:.1}", started.elapsed().as_secs_f64()),
            "unit complete"
        );
        Ok(Done::Here { images, rejected, adopted })
    }
}
