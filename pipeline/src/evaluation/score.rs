//! A whole run of scoring: score the units that have no file, whoever else may be at it.

use super::{
    ScoredTables,
    score_units::{ScoreTask, UnitScored},
    scored_file::FileIdentity,
};
use crate::{
    ImageSet, Limits, PipelineError, ProcessRank, ScorerFactory, Snapshot, Storage,
    cpu_pool::CpuPool,
    device_worker::{DevicePool, scores_check},
    telemetry::{Stage, Telemetry},
    units::{EngineEvent, EngineLink, ImageStages, UnitContext, UnitQueue, UnitsToDo, run_units},
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Everything that scoring needs.
pub struct ScoreRun {
    /// The set.
    pub set: Arc<ImageSet>,
    /// Below which its features are kept.
    pub output: Storage,
    /// Names the features; it must follow from everything that decides their numbers: the set's
    /// [`ImageSet::digest`], the size of its units and of a batch, and the networks. Letters, digits, `-`, `_` and `.`.
    pub key: String,
    /// Images of a batch: one shape for all, the last batch of a unit padded.
    pub batch_size: usize,
    /// A name and a factory for each device. Built on their own threads, and only when there is work left.
    pub scorers: Vec<(String, ScorerFactory)>,
    /// Version of libtorch, for the files' metadata.
    pub libtorch: String,
    /// Which of several processes this one is.
    pub process: ProcessRank,
    /// All limits.
    pub limits: Limits,
    /// Counters, for whoever shows progress.
    pub telemetry: Arc<Telemetry>,
    /// Stops the run: units that are not yet being written are dropped.
    pub cancel: CancellationToken,
    /// The engine that hands out units, where they do not follow from the rank.
    pub engine: Option<EngineLink>,
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
            .field("process", &self.process)
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

/// Scores every unit of a set that has no file yet.
///
/// # Errors
/// [`PipelineError::Encoder`] when a device fails or says what is no number, [`PipelineError::Stalled`], storage and source errors;
/// [`PipelineError::Output`] when a file in the place of ours is not of this evaluation; [`PipelineError::Drained`] when it was asked
/// to stop. Whatever the error, starting again goes on with the units that are missing.
///
/// # Panics
/// With the panic of a decode or device thread, should one panic.
pub async fn score(mut run: ScoreRun) -> Result<ScoreRunReport, PipelineError> {
    let units = run.set.units();
    if run.batch_size == 0 {
        return Err(PipelineError::Settings { problem: "a batch size of 0, expected at least 1".to_owned() });
    }
    let tables = ScoredTables::open(run.output.clone(), &run.key, units)?;
    let missing = tables.missing().await?;
    let done_before = units - missing.len() as u32;
    run.telemetry.set_totals(u64::from(units), u64::from(done_before), run.set.images());
    tracing::info!(
        set = run.set.display(),
        key = run.key,
        units,
        done = done_before,
        process = %run.process,
        output = run.output.display(),
        "scoring"
    );
    let telemetry = Arc::clone(&run.telemetry);
    let engine = run.engine.take();
    let events = engine.as_ref().map(|engine| engine.events.clone());
    let todo = UnitsToDo { output: &run.output, name: &run.key, units, missing, process: run.process };
    let queue = UnitQueue::new(engine, &run.key, todo);
    let (here, device_kind) = match queue.is_empty() {
        true => (Vec::new(), None),
        false => {
            let (here, device_kind) = score_units(run, &tables, queue).await?;
            (here, Some(device_kind))
        }
    };
    let units_here = here.len() as u32;
    let units_left = tables.missing().await?.len() as u32;
    if let Some(events) = events {
        events.tell(EngineEvent::Ended { units_here, units_left, finalized: false });
    }
    Ok(ScoreRunReport {
        units,
        units_here,
        units_already_done: done_before,
        units_elsewhere: (units - units_left).saturating_sub(done_before + units_here),
        units_left,
        adopted: here.iter().filter(|unit| unit.adopted).count() as u32,
        images_here: here.iter().map(|unit| unit.images).sum(),
        rejected_here: here.iter().flat_map(|unit| unit.rejected.values()).sum(),
        device_kind,
        snapshot: telemetry.snapshot(),
    })
}

/// Starts the devices and scores the units of `queue`; says of what kind they are.
async fn score_units(
    run: ScoreRun,
    tables: &ScoredTables,
    queue: UnitQueue,
) -> Result<(Vec<UnitScored>, String), PipelineError> {
    let ScoreRun { set, key, batch_size, scorers, libtorch, limits, telemetry, cancel, .. } = run;
    cancel.run_until_cancelled(set.check()).await.ok_or(PipelineError::Drained)??;
    let cpu = CpuPool::try_new(limits.decode_threads)?;
    let starting =
        DevicePool::start(scorers, Stage::Encode, limits.queued_batches_per_device, scores_check(), &telemetry);
    let devices = cancel.run_until_cancelled(starting).await.ok_or(PipelineError::Drained)??;
    let device_kind = devices.device_kind();
    let (height, width) = set.shape();
    let shape = [batch_size, height, width];
    let task = ScoreTask {
        stages: ImageStages::new(devices.queue(), shape, &cpu, &telemetry, &limits),
        identity: Arc::new(FileIdentity { key, units: set.units(), device_kind: device_kind.clone(), libtorch }),
        set,
        tables: tables.clone(),
        cpu,
        telemetry: Arc::clone(&telemetry),
    };
    let context = UnitContext { limits: &limits, telemetry: &telemetry, cancel: &cancel };
    Ok((run_units(queue, context, task, devices).await?, device_kind))
}
