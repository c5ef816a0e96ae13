//! Images to validate on: one pass in the order of the source.

use super::{
    DataPosition, TrainingCrop,
    batches::Recipe,
    check_common,
    frozen_source::FrozenSource,
    prefetched_batches::PrefetchedBatches,
    windows::{Order, Windows},
};
use crate::{DecodeLimits, Limits, PipelineError, SourceOptions, Storage, prefetcher::OwnRuntime};
use schemas::{Crop, PixelBatch, RejectReason};
use std::{collections::BTreeMap, sync::Arc};
use tokio_util::sync::CancellationToken;

/// What to evaluate on.
#[derive(Clone, Debug)]
pub struct ValidationImagesOptions {
    /// The source; its `max_images` takes only the first ones.
    pub source: SourceOptions,
    /// A crop of one view.
    pub crop: Crop,
    /// Images of a batch.
    pub batch_size: usize,
    /// Batches made ahead of the one in use.
    pub prefetch_batches: usize,
    /// Largest fraction of broken images, 0 to 1.
    pub max_reject_rate: f64,
    /// Limits on fetching and decoding.
    pub limits: Limits,
}

impl ValidationImagesOptions {
    /// With the defaults: two batches ahead, at most 1 % broken.
    pub fn new(source: SourceOptions, crop: Crop, batch_size: usize) -> Self {
        let (prefetch_batches, max_reject_rate, limits) = (2, 0.01, Limits::default());
        Self { source, crop, batch_size, prefetch_batches, max_reject_rate, limits }
    }
}

/// Batches of a source, once, in its own order, whatever the number of threads. Broken images are counted and passed over.
#[derive(Debug)]
pub struct ValidationImages {
    batches: PrefetchedBatches,
    source_digest: String,
}

impl ValidationImages {
    /// Lists the source and begins to read.
    ///
    /// # Errors
    /// When the options contradict themselves, or the source cannot be listed or is empty.
    pub fn open(options: &ValidationImagesOptions) -> Result<Self, PipelineError> {
        let runtime = OwnRuntime::start()?;
        let (source, limits) = (options.source.clone(), options.limits.clone());
        let source = runtime.wait(async move { FrozenSource::open(&source, &limits).await })?;
        Self::start(runtime, source, options)
    }

    /// The same over a storage that is already open; the source's `url` is not read.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_storage(storage: Storage, options: &ValidationImagesOptions) -> Result<Self, PipelineError> {
        let runtime = OwnRuntime::start()?;
        let (source, limits) = (options.source.clone(), options.limits.clone());
        let source = runtime.wait(async move { FrozenSource::list(storage, "", &source, &limits).await })?;
        Self::start(runtime, source, options)
    }

    fn start(
        runtime: OwnRuntime,
        source: FrozenSource,
        options: &ValidationImagesOptions,
    ) -> Result<Self, PipelineError> {
        let ValidationImagesOptions { crop, batch_size, prefetch_batches, max_reject_rate, ref limits, .. } = *options;
        let crop = TrainingCrop::Center(crop);
        check_common(crop, batch_size, max_reject_rate)?;
        let source_digest = source.digest.clone();
        let recipe = Recipe {
            source: source.name.clone(),
            crop,
            seed: 0,
            batch_size,
            decode_limits: DecodeLimits { max_bytes: limits.max_image_bytes, max_pixels: limits.max_image_pixels },
            decode_ahead_images: limits.decode_ahead_images,
            max_reject_rate,
            images: source.images,
        };
        let windows = Windows { source: Arc::new(source), order: Order::AsListed, bytes: limits.fetch_buffer_bytes };
        let from = DataPosition::default();
        let batches = PrefetchedBatches::start(runtime, windows, recipe, from, prefetch_batches, limits)?;
        Ok(Self { batches, source_digest })
    }

    /// The next batch, shape `[batch_size, size, size, 3]`, the last one padded with zeros; `None` at the end.
    ///
    /// # Errors
    /// When the source cannot be read, or more of it is broken than allowed.
    #[expect(clippy::should_implement_trait, reason = "an iterator would let `?` be forgotten, and is not needed")]
    pub fn next(&mut self) -> Result<Option<PixelBatch>, PipelineError> {
        Ok(self.batches.next(&CancellationToken::new())?.map(|batch| batch.pixels))
    }

    /// Broken images so far, by reason.
    pub fn rejected(&self) -> &BTreeMap<RejectReason, u64> {
        self.batches.rejected()
    }

    /// SHA-256 of the frozen list of inputs (addresses, sizes, versions) and of the limits that decide which images are rejected, as that of
    /// [`super::TrainingImages`].
    pub fn source_digest(&self) -> &str {
        &self.source_digest
    }
}
