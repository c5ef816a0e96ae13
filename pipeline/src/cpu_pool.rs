//! The one way of CPU work off the async threads.

use crate::PipelineError;
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};
use tokio::sync::oneshot;

/// A pool of threads for decoding, cropping, hashing and the making of Parquet bytes.
///
/// A job never waits for another job, for a channel or for storage, so that the pool always empties.
#[derive(Clone, Debug)]
pub(crate) struct CpuPool {
    pool: Arc<rayon::ThreadPool>,
}

impl CpuPool {
    /// Starts `threads` threads; 0 means one a core.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(crate) fn try_new(threads: usize) -> Result<Self, PipelineError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("decode-{index}"))
            .build()
            .map_err(|error| PipelineError::Settings {
                problem: format!("cannot start {threads} decode threads: {error}"),
            })?;
        Ok(Self { pool: Arc::new(pool) })
    }

    /// Threads of the pool.
    pub(crate) fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on the pool, in the caller's tracing span. The work starts at once, whether or not the future is polled;
    /// first come, first served.
    ///
    /// # Panics
    /// The future panics with the panic of `work`.
    pub(crate) fn spawn_cpu<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        let (sender, receiver) = oneshot::channel();
        let span = tracing::Span::current();
        self.pool.spawn_fifo(move || {
            let result = span.in_scope(|| catch_unwind(AssertUnwindSafe(work)));
            // Nobody waits any more when the run has ended meanwhile.
            drop(sender.send(result));
        });
        async move {
            match receiver.await {
                Ok(Ok(value)) => value,
                Ok(Err(panic)) => resume_unwind(panic),
                Err(_) => panic!("a pool thread ended without an answer"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn work_runs_on_the_pool_and_its_value_comes_back() {
        let pool = CpuPool::try_new(1).expect("a thread");
        assert_eq!(pool.threads(), 1);
        let name = pool.spawn_cpu(|| std::thread::current().name().map(str::to_owned)).await;
        assert_eq!(name.as_deref(), Some("decode-0"));
    }

    #[tokio::test]
    async fn a_panic_on_the_pool_is_raised_in_the_caller_and_the_pool_lives_on() {
        let pool = CpuPool::try_new(1).expect("a thread");
        let work = pool.spawn_cpu(|| -> u32 { panic!("planted") });
        let panic = AssertUnwindSafe(work).catch_unwind().await.expect_err("the panic arrives");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"planted"));
        assert_eq!(pool.spawn_cpu(|| 7).await, 7);
    }
}
