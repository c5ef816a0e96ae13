//! Batches made ahead on background threads, and the count of what was passed over.

use super::{
    DataPosition, TrainingBatch,
    batches::{Recipe, make_batches},
    windows::Windows,
};
use crate::{
    Limits, PipelineError, background_task,
    cpu_pool::CpuPool,
    prefetcher::{OwnRuntime, Prefetcher},
};
use schemas::RejectReason;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Counts of rejected images by reason.
pub(super) type Rejects = BTreeMap<RejectReason, u64>;

/// What comes from the threads.
pub(super) struct Message {
    /// `None` at the end, which may still tell of rejects.
    pub(super) batch: Option<TrainingBatch>,
    /// Since the message before.
    pub(super) rejects: Rejects,
    pub(super) images_an_epoch: Option<u64>,
}

/// Batches made ahead.
#[derive(Debug)]
pub(super) struct PrefetchedBatches {
    messages: Prefetcher<Message>,
    rejected: Rejects,
    images_an_epoch: Option<u64>,
}

impl PrefetchedBatches {
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
        let messages = Prefetcher::start(Arc::new(runtime), prefetch_batches, |sender| async move {
            // One window waits while the next is filled and the one before is decoded.
            let (window_sender, window_receiver) = mpsc::channel(1);
            let filling = background_task::spawn(windows.fill(from, window_sender));
            let images = background_task::stream_of_task(filling, window_receiver);
            make_batches(images, recipe, cpu, from, &sender).await
        });
        Ok(Self { messages, rejected: Rejects::default(), images_an_epoch })
    }

    /// The next batch, waiting for it until `cancel` comes; `None` at the end.
    ///
    /// # Errors
    /// As [`Prefetcher::next_unless`].
    ///
    /// # Panics
    /// With the panic of a background thread.
    pub(super) fn next(&mut self, cancel: &CancellationToken) -> Result<Option<TrainingBatch>, PipelineError> {
        let Some(Message { batch, rejects, images_an_epoch }) = self.messages.next_unless(cancel)? else {
            return Ok(None);
        };
        for (reason, count) in rejects {
            *self.rejected.entry(reason).or_default() += count;
        }
        self.images_an_epoch = images_an_epoch;
        Ok(batch)
    }

    pub(super) fn waited(&self) -> Duration {
        self.messages.waited()
    }

    pub(super) fn rejected(&self) -> &Rejects {
        &self.rejected
    }

    pub(super) fn images_an_epoch(&self) -> Option<u64> {
        self.images_an_epoch
    }
}
