//! The threads behind an iterator of batches: whoever trains asks for the next one and knows nothing of runtimes.

use super::{
    DataPosition, TrainingBatch,
    batches::{Recipe, make_batches},
    settings_error,
    windows::Windows,
};
use crate::{Limits, PipelineError, cpu_pool::CpuPool, source};
use futures::FutureExt;
use schemas::RejectReason;
use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::mpsc as blocking,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::JoinHandle,
};

/// Threads that wait for storage and hand images on. Decoding has its own pool, and local files their own threads.
const ASYNC_THREADS: usize = 2;

/// Counts of rejected images by reason.
pub(super) type Rejects = BTreeMap<RejectReason, u64>;

/// What comes from the threads.
pub(super) enum Delivery {
    Batch { batch: TrainingBatch, rejects: Rejects, images_an_epoch: Option<u64> },
    End { rejects: Rejects },
    Failed(PipelineError),
    Panicked(Box<dyn Any + Send>),
}

/// A runtime of its own, which may be started and dropped anywhere, also inside another one.
#[derive(Debug)]
pub(super) struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    /// # Errors
    /// When the system gives no threads.
    pub(super) fn start() -> Result<Self, PipelineError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(ASYNC_THREADS)
            .thread_name("training-images")
            .enable_all()
            .build()
            .map_err(|error| settings_error(format!("cannot start threads: {error}")))?;
        Ok(Self(Some(runtime)))
    }

    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.as_ref().unwrap_or_else(|| unreachable!("it is there until it is dropped")).spawn(task)
    }

    /// Waits for `task`, in any thread: unlike a runtime's own `block_on`, also in one of another runtime.
    pub(super) fn wait<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = blocking::sync_channel(1);
        self.spawn(async move { drop(sender.send(AssertUnwindSafe(task).catch_unwind().await)) });
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

/// Batches made ahead.
pub(super) struct Background {
    deliveries: async_channel::Receiver<Delivery>,
    state: State,
    waited: Duration,
    rejected: Rejects,
    images_an_epoch: Option<u64>,
    /// Ends all work when dropped.
    _runtime: OwnRuntime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Ended,
    Failed,
}

impl Background {
    /// Starts making batches of what `windows` holds from `from` on, at most `prefetch_batches` ahead.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(super) fn start(
        runtime: OwnRuntime,
        windows: Windows,
        recipe: Recipe,
        from: DataPosition,
        prefetch_batches: usize,
        limits: &Limits,
    ) -> Result<Self, PipelineError> {
        let cpu = CpuPool::try_new(limits.decode_threads)?;
        let images_an_epoch = recipe.images;
        let (sender, deliveries) = async_channel::bounded(prefetch_batches.max(1));
        runtime.spawn(async move {
            let work = async {
                // One window waits while the next is filled and the one before is decoded.
                let (window_sender, window_receiver) = mpsc::channel(1);
                let filling = source::spawn(windows.fill(from, window_sender));
                let images = source::stream_of_task(filling, window_receiver);
                make_batches(images, recipe, cpu, from, &sender).await
            };
            let last = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(Ok(rejects)) => Delivery::End { rejects },
                Ok(Err(error)) => Delivery::Failed(error),
                Err(panic) => Delivery::Panicked(panic),
            };
            // Nobody waits any more when the batches were dropped meanwhile.
            drop(sender.send(last).await);
        });
        Ok(Self {
            deliveries,
            state: State::Running,
            waited: Duration::ZERO,
            rejected: Rejects::default(),
            images_an_epoch,
            _runtime: runtime,
        })
    }

    /// The next batch, waiting for it; `None` at the end.
    ///
    /// # Errors
    /// What ended the work; said once in full, then only that it was said.
    ///
    /// # Panics
    /// With the panic of a background thread.
    pub(super) fn next(&mut self) -> Result<Option<TrainingBatch>, PipelineError> {
        match self.state {
            State::Running => {}
            State::Ended => return Ok(None),
            State::Failed => return Err(settings_error("no more images, after the error before".to_owned())),
        }
        let started = Instant::now();
        let delivery = self.deliveries.recv_blocking();
        self.waited += started.elapsed();
        match delivery {
            Ok(Delivery::Batch { batch, rejects, images_an_epoch }) => {
                self.count(rejects);
                self.images_an_epoch = images_an_epoch;
                Ok(Some(batch))
            }
            Ok(Delivery::End { rejects }) => {
                self.count(rejects);
                self.state = State::Ended;
                Ok(None)
            }
            Ok(Delivery::Failed(error)) => {
                self.state = State::Failed;
                Err(error)
            }
            Ok(Delivery::Panicked(panic)) => resume_unwind(panic),
            Err(_) => unreachable!("the last delivery says that it is the last, and the runtime lives"),
        }
    }

    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    pub(super) fn rejected(&self) -> &Rejects {
        &self.rejected
    }

    pub(super) fn images_an_epoch(&self) -> Option<u64> {
        self.images_an_epoch
    }

    fn count(&mut self, rejects: Rejects) {
        for (reason, count) in rejects {
            *self.rejected.entry(reason).or_default() += count;
        }
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deliveries, state, waited, rejected, images_an_epoch, _runtime } = self;
        formatter
            .debug_struct("Background")
            .field("state", state)
            .field("ready", &deliveries.len())
            .field("waited", waited)
            .field("rejected", rejected)
            .field("images_an_epoch", images_an_epoch)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

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

        let (sender, deliveries) = async_channel::bounded(1);
        sender.try_send(Delivery::Panicked(Box::new("planted"))).expect("room for one");
        let mut background = Background {
            deliveries,
            state: State::Running,
            waited: Duration::ZERO,
            rejected: Rejects::default(),
            images_an_epoch: None,
            _runtime: runtime,
        };
        let panic = catch_unwind(AssertUnwindSafe(|| background.next())).expect_err("the panic arrives");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"planted"));
    }
}
