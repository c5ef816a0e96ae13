//! Runs units: skips those that are stored already, makes the others concurrently, and ends every run the same way.

use super::{EngineEvent, UnitCounts, UnitQueue};
use crate::{
    Limits, PipelineError,
    device_worker::{Devices, DevicesGone},
    telemetry::{Stage, Telemetry},
    watchdog,
};
use std::{
    collections::BTreeSet,
    panic::resume_unwind,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Longest wait, at the end, for a device that is in the middle of a batch nobody needs, and for a store that takes leases back. Ending the
/// process under a thread that runs C++ code may crash it, but schedulers give a drained process little time.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the units of a job are made and stored.
pub(crate) trait UnitTask: Send + Sync + 'static {
    /// A unit that is made and not yet stored.
    type Output: Send;
    /// What a stored unit reports.
    type Stored: Send + 'static;

    /// Whether `unit` is stored already: another process may have been first.
    fn is_stored(&self, unit: u32) -> impl Future<Output = Result<bool, PipelineError>> + Send;

    /// All units that are stored.
    fn stored(&self) -> impl Future<Output = Result<BTreeSet<u32>, PipelineError>> + Send;

    /// How long a stored unit took to make, where that is on record.
    fn duration_of(&self, unit: u32) -> impl Future<Output = Result<Option<Duration>, PipelineError>> + Send;

    /// Makes `unit`. Dropped where it waits when the run is asked to stop.
    fn make(&self, unit: u32) -> impl Future<Output = Result<Self::Output, UnitError>> + Send;

    /// Stores `unit`, begun at `started`. Nothing asks it to stop: a commit that began is brought to its end.
    fn commit(
        &self,
        unit: u32,
        output: Self::Output,
        started: Instant,
    ) -> impl Future<Output = Result<Self::Stored, UnitError>> + Send;

    /// What an engine is told of a stored unit.
    fn counts(stored: &Self::Stored) -> UnitCounts;
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

/// Limits, counters and cancellation of a run.
#[derive(Debug)]
pub(crate) struct UnitContext<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) telemetry: &'a Telemetry,
    /// Stops the run: units that are not yet being committed are dropped.
    pub(crate) cancel: &'a CancellationToken,
}

/// Makes and stores the units of `queue`, several at once, then closes the devices. Units that other processes store meanwhile are skipped and
/// not reported.
///
/// # Errors
/// The first failure of a unit; why the devices failed; [`PipelineError::Stalled`] when nothing moves; [`PipelineError::Drained`] when
/// the run was asked to stop.
///
/// # Panics
/// With the panic of a unit or of a device thread.
pub(crate) async fn run_units<T: UnitTask>(
    mut queue: UnitQueue,
    context: UnitContext<'_>,
    task: T,
    devices: impl Devices,
) -> Result<Vec<T::Stored>, PipelineError> {
    let task = Arc::new(task);
    let units_in_flight = context.limits.units_in_flight_for(devices.count());
    context.telemetry.set_capacity(Stage::Fetch, queue.at_once(units_in_flight));
    queue.open(units_in_flight);
    let mut units = Units { in_work: BTreeSet::new(), queue };
    let stall = Duration::from_secs(context.limits.stall_seconds);
    let result = tokio::select! {
        result = units.run(units_in_flight, &context, &task) => result,
        // Dropping the units aborts them: what stands still cannot be asked to stop.
        stalled = watchdog::watch(context.telemetry, stall) => Err(UnitError::Pipeline(stalled)),
    };
    let stalled = matches!(result, Err(UnitError::Pipeline(PipelineError::Stalled { .. })));
    let stored = match result {
        // The device that failed says why, or raises its panic here.
        Err(UnitError::DevicesGone) => Err(devices.failure()),
        Err(UnitError::Pipeline(error)) => Err(error),
        Ok(stored) => Ok(stored),
    };
    if stored.is_err() {
        units.queue.close(units.in_work, PATIENCE).await;
    }
    if stalled {
        return stored;
    }
    drop(task);
    devices.close(PATIENCE).await;
    stored
}

/// Units that wait, and those that are worked on.
struct Units {
    queue: UnitQueue,
    in_work: BTreeSet<u32>,
}

impl Units {
    /// Works through the queue in its order, each unit a task of its own. The first failure stops the others; commits in progress are
    /// brought to their end.
    async fn run<T: UnitTask>(
        &mut self,
        units_in_flight: usize,
        context: &UnitContext<'_>,
        task: &Arc<T>,
    ) -> Result<Vec<T::Stored>, UnitError> {
        let stop = context.cancel.child_token();
        // Aborts its tasks when dropped.
        let mut running = JoinSet::new();
        let mut stored = Vec::new();
        let (mut failure, mut more) = (None, true);
        loop {
            let has_room = more && running.len() < units_in_flight && !stop.is_cancelled();
            tokio::select! {
                biased;
                next = self.queue.next(task), if has_room => match next {
                    Err(error) => {
                        stop.cancel();
                        failure.get_or_insert(error.into());
                    }
                    Ok(None) => more = false,
                    // Who asks for it twice is answered once.
                    Ok(Some(unit)) if self.in_work.contains(&unit) => {}
                    Ok(Some(unit)) => {
                        self.in_work.insert(unit);
                        self.queue.tell(EngineEvent::Begun { unit });
                        context.telemetry.unit_begun(unit);
                        let (task, stop) = (Arc::clone(task), stop.clone());
                        let work = async move { (unit, run_one(unit, &*task, &stop).await) };
                        running.spawn(work.instrument(tracing::info_span!("unit", unit)));
                    }
                },
                Some(joined) = running.join_next() => {
                    match joined {
                        Ok((unit, Ok(outcome))) => {
                            self.in_work.remove(&unit);
                            context.telemetry.unit_done(unit, outcome.is_some());
                            self.queue.stored(unit, outcome.as_ref().map(T::counts));
                            stored.extend(outcome);
                        }
                        Ok((unit, Err(error))) => {
                            context.telemetry.unit_dropped(unit);
                            stop.cancel();
                            // A unit that was told to stop is no reason to stop.
                            if failure.is_none() && !matches!(error, UnitError::Pipeline(PipelineError::Drained)) {
                                failure = Some(error);
                            }
                        }
                        Err(joined) => match joined.try_into_panic() {
                            Ok(panic) => resume_unwind(panic),
                            Err(_) => stop.cancel(),
                        },
                    }
                }
                // Nothing is at work, and the engine may be silent.
                () = stop.cancelled(), if has_room => {}
                else => break,
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None if stop.is_cancelled() => Err(PipelineError::Drained.into()),
            None => Ok(stored),
        }
    }
}

/// One unit; `None` when another process stored it meanwhile.
async fn run_one<T: UnitTask>(unit: u32, task: &T, stop: &CancellationToken) -> Result<Option<T::Stored>, UnitError> {
    if task.is_stored(unit).await? {
        tracing::info!("another process finished this unit");
        return Ok(None);
    }
    let started = Instant::now();
    let output = stop.run_until_cancelled(task.make(unit)).await.ok_or(PipelineError::Drained)??;
    task.commit(unit, output, started).await.map(Some)
}
