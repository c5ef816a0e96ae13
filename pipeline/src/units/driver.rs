//! Runs units: skips those that are stored already, makes the others concurrently, and ends every run the same way.

use crate::{
    Limits, PipelineError,
    device_worker::{Devices, DevicesGone},
    telemetry::{Stage, Telemetry},
    watchdog,
};
use std::{
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

/// How the units of a job are made and stored.
pub(crate) trait UnitTask: Send + Sync + 'static {
    /// A unit that is made and not yet stored.
    type Output: Send;
    /// What a stored unit reports.
    type Stored: Send + 'static;

    /// Whether `unit` is stored already: another process may have been first.
    fn is_stored(&self, unit: u32) -> impl Future<Output = Result<bool, PipelineError>> + Send;

    /// Makes `unit`. Dropped where it waits when the run is asked to stop.
    fn make(&self, unit: u32) -> impl Future<Output = Result<Self::Output, UnitError>> + Send;

    /// Stores `unit`, begun at `started`. Nothing asks it to stop: a commit that began is brought to its end.
    fn commit(
        &self,
        unit: u32,
        output: Self::Output,
        started: Instant,
    ) -> impl Future<Output = Result<Self::Stored, UnitError>> + Send;
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

/// Makes and stores the units of `todo`, several at once, then closes the devices. Units that other processes store meanwhile are skipped and
/// not reported.
///
/// # Errors
/// The first failure of a unit; why the devices failed; [`PipelineError::Stalled`] when nothing moves; [`PipelineError::Drained`] when
/// the run was asked to stop.
///
/// # Panics
/// With the panic of a unit or of a device thread.
pub(crate) async fn run_units<T: UnitTask>(
    todo: Vec<u32>,
    context: UnitContext<'_>,
    task: T,
    devices: impl Devices,
) -> Result<Vec<T::Stored>, PipelineError> {
    let task = Arc::new(task);
    let units_in_flight = context.limits.units_in_flight_for(devices.count());
    context.telemetry.set_capacity(Stage::Fetch, units_in_flight.min(todo.len()));
    let stall = Duration::from_secs(context.limits.stall_seconds);
    let result = tokio::select! {
        result = run_concurrently(todo, units_in_flight, &context, &task) => result,
        // Dropping the units aborts them: what stands still cannot be asked to stop.
        stalled = watchdog::watch(context.telemetry, stall) => return Err(stalled),
    };
    let stored = match result {
        // The device that failed says why, or raises its panic here.
        Err(UnitError::DevicesGone) => Err(devices.failure()),
        Err(UnitError::Pipeline(error)) => Err(error),
        Ok(stored) => Ok(stored),
    };
    drop(task);
    devices.close(DEVICE_PATIENCE).await;
    stored
}

/// Works through `todo` in that order, each unit a task of its own. The first failure stops the others; commits in progress are
/// brought to their end.
async fn run_concurrently<T: UnitTask>(
    todo: Vec<u32>,
    units_in_flight: usize,
    context: &UnitContext<'_>,
    task: &Arc<T>,
) -> Result<Vec<T::Stored>, UnitError> {
    let stop = context.cancel.child_token();
    let mut waiting = todo.into_iter();
    // Aborts its tasks when dropped.
    let mut running = JoinSet::new();
    let mut stored = Vec::new();
    let mut failure = None;
    loop {
        while running.len() < units_in_flight && !stop.is_cancelled() {
            let Some(unit) = waiting.next() else { break };
            let (task, stop) = (Arc::clone(task), stop.clone());
            let work = async move { run_one(unit, &*task, &stop).await };
            running.spawn(work.instrument(tracing::info_span!("unit", unit)));
        }
        match running.join_next().await {
            None => break,
            Some(Ok(Ok(unit))) => {
                context.telemetry.unit_done();
                stored.extend(unit);
            }
            Some(Ok(Err(error))) => {
                stop.cancel();
                // A unit that was told to stop is no reason to stop.
                if failure.is_none() && !matches!(error, UnitError::Pipeline(PipelineError::Drained)) {
                    failure = Some(error);
                }
            }
            Some(Err(joined)) => match joined.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => stop.cancel(),
            },
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None if stop.is_cancelled() => Err(PipelineError::Drained.into()),
        None => Ok(stored),
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
