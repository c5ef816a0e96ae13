//! The threads behind an iterator of batches: whoever trains asks for the next one and knows nothing of runtimes.

use crate::PipelineError;
use async_channel::{Receiver, Sender};
use futures::FutureExt;
use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{Arc, mpsc as blocking},
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Runtime};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Threads that wait for storage and hand data on. Decoding has its own pool, and local files their own threads.
const ASYNC_THREADS: usize = 2;

/// A runtime of its own, which may be started and dropped anywhere, also inside another one.
#[derive(Debug)]
pub(crate) struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    /// # Errors
    /// When the system gives no threads.
    pub(crate) fn start() -> Result<Self, PipelineError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(ASYNC_THREADS)
            .thread_name("training-data")
            .enable_all()
            .build()
            .map_err(|error| PipelineError::Settings { problem: format!("cannot start threads: {error}") })?;
        Ok(Self(Some(runtime)))
    }

    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
        let runtime = self.0.as_ref().unwrap_or_else(|| unreachable!("it is there until it is dropped"));
        AbortOnDropHandle::new(runtime.spawn(task))
    }

    /// Waits for `task`, in any thread: unlike a runtime's own `block_on`, also in one of another runtime.
    pub(crate) fn wait<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = blocking::sync_channel(1);
        let _task = self.spawn(async move { drop(sender.send(AssertUnwindSafe(task).catch_unwind().await)) });
        match receiver.recv() {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => unreachable!("the task sends before it ends, and the runtime lives"),
        }
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        // Tasks end where they wait next; threads that are inside a read are left to finish it.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What comes from the threads.
enum Message<T> {
    Item(T),
    End,
    Failed(PipelineError),
    Panicked(Box<dyn Any + Send>),
}

/// Where work puts what it has made.
pub(crate) struct ItemSender<T>(Sender<Message<T>>);

impl<T> ItemSender<T> {
    /// Hands `item` on, waiting for room; `false` when nobody takes it any more.
    pub(crate) async fn send(&self, item: T) -> bool {
        self.0.send(Message::Item(item)).await.is_ok()
    }
}

/// Items made ahead of whoever takes them. Dropping it ends the work.
pub(crate) struct Prefetcher<T> {
    messages: Receiver<Message<T>>,
    state: State,
    waited: Duration,
    _work: AbortOnDropHandle<()>,
    runtime: Arc<OwnRuntime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Ended,
    Failed,
}

impl<T: Send + 'static> Prefetcher<T> {
    /// Starts `work`, which may be `items` ahead, at least one.
    pub(crate) fn start<F>(runtime: Arc<OwnRuntime>, items: usize, work: impl FnOnce(Arc<ItemSender<T>>) -> F) -> Self
    where
        F: Future<Output = Result<(), PipelineError>> + Send + 'static,
    {
        let (sender, messages) = async_channel::bounded(items.max(1));
        let work = work(Arc::new(ItemSender(sender.clone())));
        let work = runtime.spawn(async move {
            let last = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(Ok(())) => Message::End,
                Ok(Err(error)) => Message::Failed(error),
                Err(panic) => Message::Panicked(panic),
            };
            // Nobody waits any more when the items were dropped meanwhile.
            drop(sender.send(last).await);
        });
        Self { messages, state: State::Running, waited: Duration::ZERO, _work: work, runtime }
    }

    /// The next item, waiting for it; `None` at the end.
    ///
    /// # Errors
    /// What ended the work; said once in full, then only that it was said.
    ///
    /// # Panics
    /// With the panic of a background thread.
    pub(crate) fn next(&mut self) -> Result<Option<T>, PipelineError> {
        self.next_unless(&CancellationToken::new())
    }

    /// The next item, waiting for it until `cancel` comes; `None` at the end. An item that is ready is handed out also then.
    ///
    /// # Errors
    /// [`PipelineError::Drained`] when `cancel` came first: nothing is lost, and items may be asked for again. Otherwise as
    /// [`Self::next`].
    ///
    /// # Panics
    /// With the panic of a background thread.
    pub(crate) fn next_unless(&mut self, cancel: &CancellationToken) -> Result<Option<T>, PipelineError> {
        match self.state {
            State::Running => {}
            State::Ended => return Ok(None),
            State::Failed => {
                let problem = "nothing more, after the error before".to_owned();
                return Err(PipelineError::Settings { problem });
            }
        }
        let started = Instant::now();
        let (messages, cancel) = (self.messages.clone(), cancel.clone());
        let message = self.runtime.wait(async move {
            tokio::select! {
                biased;
                message = messages.recv() => Some(message),
                () = cancel.cancelled() => None,
            }
        });
        self.waited += started.elapsed();
        match message.ok_or(PipelineError::Drained)? {
            Ok(Message::Item(item)) => Ok(Some(item)),
            Ok(Message::End) => {
                self.state = State::Ended;
                Ok(None)
            }
            Ok(Message::Failed(error)) => {
                self.state = State::Failed;
                Err(error)
            }
            Ok(Message::Panicked(panic)) => resume_unwind(panic),
            Err(_) => unreachable!("the last message says that it is the last, and the runtime lives"),
        }
    }

    /// Time that [`Self::next`] waited in all.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }
}

impl<T> fmt::Debug for Prefetcher<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, state, waited, _work, runtime: _ } = self;
        formatter
            .debug_struct("Prefetcher")
            .field("state", state)
            .field("ready", &messages.len())
            .field("waited", waited)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::returns;
    use std::panic::catch_unwind;

    fn next(prefetcher: &mut Prefetcher<i32>) -> Result<Option<i32>, PipelineError> {
        returns("the next item", || prefetcher.next())
    }

    #[tokio::test]
    async fn a_runtime_of_ones_own_works_and_is_dropped_inside_another_one() {
        let runtime = OwnRuntime::start().expect("threads");
        assert_eq!(runtime.wait(async { 7 }), 7);
        drop(runtime);
    }

    #[test]
    fn a_panic_behind_the_batches_is_raised_in_whoever_asks_for_one() {
        let runtime = OwnRuntime::start().expect("threads");
        let wait = AssertUnwindSafe(|| runtime.wait(async { panic!("planted") }));
        let panic = catch_unwind(wait).expect_err("the panic arrives");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"planted"));

        let mut prefetcher = Prefetcher::start(Arc::new(runtime), 1, |sender| async move {
            sender.send(7).await;
            panic!("planted")
        });
        assert_eq!(next(&mut prefetcher).expect("an item"), Some(7));
        let panic = catch_unwind(AssertUnwindSafe(|| next(&mut prefetcher))).expect_err("the panic arrives");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"planted"));
    }

    #[test]
    fn whoever_waits_is_told_of_a_stop_and_loses_nothing_that_comes_later() {
        let (go_on, held) = tokio::sync::oneshot::channel();
        let runtime = Arc::new(OwnRuntime::start().expect("threads"));
        let mut prefetcher = Prefetcher::start(runtime, 1, |sender| async move {
            drop(held.await);
            sender.send(7).await;
            Ok(())
        });
        let cancel = CancellationToken::new();
        let waiting = std::thread::spawn({
            let cancel = cancel.clone();
            move || (prefetcher.next_unless(&cancel).expect_err("nothing has come"), prefetcher)
        });
        cancel.cancel();
        let (error, mut prefetcher) = returns("the end of the waiting", || waiting.join()).expect("no panic");
        assert!(error.is_drained(), "{error}");
        go_on.send(()).expect("the work waits");
        assert_eq!(next(&mut prefetcher).expect("an item"), Some(7));
        assert_eq!(next(&mut prefetcher).expect("the end"), None);
        assert_eq!(prefetcher.next_unless(&cancel).expect("the end, stopped or not"), None);
    }
}
