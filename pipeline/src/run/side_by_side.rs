//! Units side by side, each a task of its own.

use super::UnitError;
use crate::PipelineError;
use std::panic::resume_unwind;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Works through `todo`, `units_in_flight` units at once, in that order. The first failure stops the others, through `stop`; units that
/// are past listening to it are brought to their end.
///
/// # Errors
/// The first failure, or [`PipelineError::Drained`] when `stop` came from outside.
///
/// # Panics
/// With the panic of a unit.
pub(crate) async fn side_by_side<T: Send + 'static, F>(
    todo: Vec<u32>,
    units_in_flight: usize,
    stop: &CancellationToken,
    work: impl Fn(u32) -> F,
) -> Result<Vec<T>, UnitError>
where
    F: Future<Output = Result<T, UnitError>> + Send + 'static,
{
    let mut waiting = todo.into_iter();
    // Aborts its tasks when dropped.
    let mut running = JoinSet::new();
    let mut done = Vec::new();
    let mut failure = None;
    loop {
        while running.len() < units_in_flight.max(1) && !stop.is_cancelled() {
            let Some(unit) = waiting.next() else { break };
            running.spawn(work(unit).instrument(tracing::info_span!("unit", unit)));
        }
        match running.join_next().await {
            None => break,
            Some(Ok(Ok(unit))) => done.push(unit),
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
        None => Ok(done),
    }
}
