//! Tasks that end with whoever waits for them, and whose panics are raised there.

use crate::PipelineError;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use std::{future::pending, panic::resume_unwind};
use tokio::{sync::mpsc, task::JoinError};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// Starts a task that ends with its handle, in the span that asked for it.
#[expect(
    clippy::disallowed_methods,
    reason = "the handle ends the task with its owner, and `joined` hands on its panic"
)]
pub(crate) fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(task.in_current_span()))
}

/// The result of a task of ours. Its panic is ours; it is cancelled only when the runtime ends, and this future with it.
pub(crate) async fn joined<T>(result: Result<T, JoinError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => pending().await,
        },
    }
}

/// What a task sends, then the error that it ended with, if it did. Dropping the stream ends the task.
pub(crate) fn stream_of_task<T: Send + 'static>(
    task: AbortOnDropHandle<Result<(), PipelineError>>,
    receiver: mpsc::Receiver<T>,
) -> BoxStream<'static, Result<T, PipelineError>> {
    stream::unfold((receiver, Some(task)), |(mut receiver, task)| async move {
        if let Some(item) = receiver.recv().await {
            return Some((Ok(item), (receiver, task)));
        }
        match joined(task?.await).await {
            Ok(()) => None,
            Err(error) => Some((Err(error), (receiver, None))),
        }
    })
    .boxed()
}
