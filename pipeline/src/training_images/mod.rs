//! Images to train on: any source that is tokenized, as endless shuffled batches that go on exactly where they were left.
//!
//! ```text
//!  list once ─▶ inputs, permuted ─▶ windows, shuffled ─▶ decode and crop (pool) ─▶ batches ─▶ next()
//!               by (seed, epoch)    shuffle_images       decode_threads            prefetch_batches
//!                                   shuffle_bytes        decode_ahead_images
//! ```
//! The batches follow from the frozen list of inputs, the options and the seed. Timing, threads and restarts have no part in them:
//! each batch tells the [`DataPosition`] behind it, and [`TrainingImages::open`] at that position gives the batches that would have
//! come. A crop follows from (seed, epoch, number of the image in the epoch) alone.
//!
//! One epoch follows another without a gap: a batch may hold the last images of one and the first of the next, so that every image
//! is seen once an epoch and every batch is full. Broken images are counted by reason and passed over, the same ones every time.
//!
//! # Memory
//! At most [`TrainingImagesOptions::shuffle_bytes`] of encoded images wait their turn, and [`Limits::fetch_buffer_bytes`] are on their
//! way; decoded are [`Limits::decode_ahead_images`] views and [`TrainingImagesOptions::prefetch_batches`] batches.

mod batches;
mod frozen_source;
mod position;
mod prefetched_batches;
mod validation;
mod windows;

pub use position::DataPosition;
pub use validation::{ValidationImages, ValidationImagesOptions};

use crate::{DecodeLimits, Limits, PipelineError, SourceOptions, Storage, crop::RandomCrop, prefetcher::OwnRuntime};
use batches::Recipe;
use frozen_source::FrozenSource;
use prefetched_batches::PrefetchedBatches;
use schemas::{Crop, PixelBatch, RejectReason};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use windows::{Order, Windows};

/// How an image becomes a square to train on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TrainingCrop {
    /// A window at random, another one in every epoch.
    Random(RandomCrop),
    /// A crop of one view, the same in every epoch.
    Center(Crop),
}

impl TrainingCrop {
    /// Side of the square in pixels.
    pub fn size(self) -> usize {
        match self {
            Self::Random(crop) => crop.size,
            Self::Center(crop) => crop.size(),
        }
    }
}

/// What to train on, and how.
#[derive(Clone, Debug)]
pub struct TrainingImagesOptions {
    /// The source.
    pub source: SourceOptions,
    /// What is cut from each image.
    pub crop: TrainingCrop,
    /// Images of a batch.
    pub batch_size: usize,
    /// What order and crops follow from.
    pub seed: u64,
    /// Images that are shuffled among each other; shards are shuffled besides. Files of a folder are always shuffled all together.
    pub shuffle_images: usize,
    /// Encoded bytes that may wait to be decoded. A window holds fewer images where they would be more than this, so that the order
    /// depends on it.
    pub shuffle_bytes: u64,
    /// Batches made ahead of the one in use.
    pub prefetch_batches: usize,
    /// Largest fraction of broken images, 0 to 1.
    pub max_reject_rate: f64,
    /// Limits on fetching and decoding.
    pub limits: Limits,
}

impl TrainingImagesOptions {
    /// With the defaults: windows of 8,192 images or 1 GiB, four batches ahead, at most 1 % broken.
    pub fn new(source: SourceOptions, crop: TrainingCrop, batch_size: usize, seed: u64) -> Self {
        Self {
            source,
            crop,
            batch_size,
            seed,
            shuffle_images: 8192,
            shuffle_bytes: 1 << 30,
            prefetch_batches: 4,
            max_reject_rate: 0.01,
            limits: Limits::default(),
        }
    }
}

/// A batch to train on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingBatch {
    /// `[batch_size, size, size, 3]`, all rows filled.
    pub pixels: PixelBatch,
    /// The key of each row's image.
    pub image_ids: Vec<String>,
    /// Epoch of its first image, from 0.
    pub epoch: u64,
    /// Where the batch after it starts: for the checkpoint that is written after this one was used.
    pub next: DataPosition,
}

/// Endless shuffled batches of a source, made ahead on background threads.
///
/// Dropping it ends all of its work.
#[derive(Debug)]
pub struct TrainingImages {
    batches: PrefetchedBatches,
    source_digest: String,
}

impl TrainingImages {
    /// Lists the source and begins to read at `from`; the default position is the beginning.
    ///
    /// # Errors
    /// When the options contradict themselves, or the source cannot be listed or is empty.
    pub fn open(options: &TrainingImagesOptions, from: DataPosition) -> Result<Self, PipelineError> {
        let runtime = OwnRuntime::start()?;
        let (source, limits) = (options.source.clone(), options.limits.clone());
        let source = runtime.wait(async move { FrozenSource::open(&source, &limits).await })?;
        Self::start(runtime, source, options, from)
    }

    /// The same over a storage that is already open; the source's `url` is not read.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_storage(
        storage: Storage,
        options: &TrainingImagesOptions,
        from: DataPosition,
    ) -> Result<Self, PipelineError> {
        let runtime = OwnRuntime::start()?;
        let (source, limits) = (options.source.clone(), options.limits.clone());
        let source = runtime.wait(async move { FrozenSource::list(storage, "", &source, &limits).await })?;
        Self::start(runtime, source, options, from)
    }

    fn start(
        runtime: OwnRuntime,
        source: FrozenSource,
        options: &TrainingImagesOptions,
        from: DataPosition,
    ) -> Result<Self, PipelineError> {
        check_common(options.crop, options.batch_size, options.max_reject_rate)?;
        if options.shuffle_images == 0 {
            return Err(settings_error("a shuffle of 0 images holds none: 1 leaves shards as they are".to_owned()));
        }
        if from.input >= source.inputs() as u64 {
            return Err(source.wrong_position(from));
        }
        let limits = &options.limits;
        let recipe = Recipe {
            source: source.name.clone(),
            crop: options.crop,
            seed: options.seed,
            batch_size: options.batch_size,
            decode_limits: DecodeLimits { max_bytes: limits.max_image_bytes, max_pixels: limits.max_image_pixels },
            decode_ahead_images: limits.decode_ahead_images,
            max_reject_rate: options.max_reject_rate,
            images: source.images,
        };
        let source_digest = source.digest.clone();
        let order = Order::Shuffled { seed: options.seed, images: options.shuffle_images };
        let windows = Windows { source: Arc::new(source), order, bytes: options.shuffle_bytes };
        let batches = PrefetchedBatches::start(runtime, windows, recipe, from, options.prefetch_batches, limits)?;
        Ok(Self { batches, source_digest })
    }

    /// The next batch, waiting for it if need be.
    ///
    /// # Errors
    /// When the source cannot be read or has changed, or more of it is broken than allowed. There are no batches after an error.
    ///
    /// # Panics
    /// With the panic of a background thread.
    #[expect(clippy::should_implement_trait, reason = "an iterator would let `?` be forgotten, and is not needed")]
    pub fn next(&mut self) -> Result<TrainingBatch, PipelineError> {
        self.next_unless(&CancellationToken::new())
    }

    /// The next batch, waiting for it until `cancel` comes; one that is ready is handed out also then.
    ///
    /// # Errors
    /// [`PipelineError::Drained`] when `cancel` came first; batches may be asked for again after it. Otherwise as [`Self::next`].
    ///
    /// # Panics
    /// With the panic of a background thread.
    pub fn next_unless(&mut self, cancel: &CancellationToken) -> Result<TrainingBatch, PipelineError> {
        Ok(self.batches.next(cancel)?.unwrap_or_else(|| unreachable!("epochs follow one another without end")))
    }

    /// Images of an epoch, broken ones included, where that is known: from the listing, or after the first epoch has ended.
    pub fn images_an_epoch(&self) -> Option<u64> {
        self.batches.images_an_epoch()
    }

    /// Time that [`Self::next`] waited in all. Much of it means that training waits for its images.
    pub fn waited(&self) -> Duration {
        self.batches.waited()
    }

    /// Broken images passed over since this was opened, by reason, each counted once an epoch.
    pub fn rejected(&self) -> &BTreeMap<RejectReason, u64> {
        self.batches.rejected()
    }

    /// SHA-256 of the frozen list of inputs (addresses, sizes, versions) and of the limits that decide which images are rejected. A
    /// run may go on at a position only where this is what it was.
    pub fn source_digest(&self) -> &str {
        &self.source_digest
    }
}

/// What training and evaluation ask of their options alike.
fn check_common(crop: TrainingCrop, batch_size: usize, max_reject_rate: f64) -> Result<(), PipelineError> {
    match crop {
        TrainingCrop::Random(crop) => crop.check()?,
        TrainingCrop::Center(crop) if crop.views() != 1 => {
            return Err(settings_error(format!("{crop} gives {} views an image, expected one", crop.views())));
        }
        TrainingCrop::Center(_) => {}
    }
    if batch_size == 0 {
        return Err(settings_error("a batch size of 0, expected at least 1".to_owned()));
    }
    if !(0.0..=1.0).contains(&max_reject_rate) {
        return Err(settings_error(format!("a reject rate of {max_reject_rate}, expected 0 to 1")));
    }
    Ok(())
}

fn settings_error(problem: String) -> PipelineError {
    PipelineError::Settings { problem }
}
