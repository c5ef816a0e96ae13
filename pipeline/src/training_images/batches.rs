//! Images to batches: decoded and cropped on the pool, some ahead, gathered in the order in which they came.

use super::{
    DataPosition, TrainingBatch, TrainingCrop,
    prefetched_batches::{Message, Rejects},
    windows::NextImage,
};
use crate::{
    DecodeLimits, PipelineError, cpu_pool::CpuPool, crop_views, decode_image, prefetcher::ItemSender,
    telemetry::describe_rejects, view_batcher::ViewBatcher,
};
use futures::{
    FutureExt, StreamExt,
    future::{Either, ready},
    stream::{self, BoxStream},
};
use schemas::{RandomStream, RejectReason};
use std::sync::Arc;

/// Images after which the fraction of rejects is judged where nobody knows how many there are.
const TRIAL_IMAGES: u64 = 10_000;

/// What becomes of every image.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    /// The source's address, for messages.
    pub(super) source: String,
    pub(super) crop: TrainingCrop,
    /// What random crops follow from.
    pub(super) seed: u64,
    pub(super) batch_size: usize,
    pub(super) decode_limits: DecodeLimits,
    pub(super) decode_ahead_images: usize,
    pub(super) max_reject_rate: f64,
    /// Images of an epoch, where known.
    pub(super) images: Option<u64>,
}

/// An image that was decoded and cropped, or was not.
struct Prepared {
    turn: Turn,
    image_id: String,
    /// `[size, size, 3]`.
    view: Result<Vec<u8>, RejectReason>,
}

/// What stays of a [`NextImage`] when the image is gone.
struct Turn {
    epoch: u64,
    images_taken: u64,
    ends_epoch: bool,
    next: DataPosition,
}

/// Makes batches of `images` until they end or nobody takes the batches.
///
/// # Errors
/// As `images`; and when more images are rejected than the recipe allows.
pub(super) async fn make_batches(
    images: BoxStream<'static, Result<Vec<NextImage>, PipelineError>>,
    recipe: Recipe,
    cpu: CpuPool,
    from: DataPosition,
    sender: &ItemSender<Message>,
) -> Result<(), PipelineError> {
    let recipe = Arc::new(recipe);
    let one_by_one = images.flat_map(|window| {
        let (images, error) = match window {
            Ok(images) => (images, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        stream::iter(images.into_iter().map(Ok).chain(error))
    });
    let prepare = |image: Result<NextImage, PipelineError>| match image {
        Ok(image) => {
            let recipe = Arc::clone(&recipe);
            Either::Left(cpu.spawn_cpu(move || prepare(image, &recipe)).map(Ok))
        }
        Err(error) => Either::Right(ready(Err(error))),
    };
    let mut prepared = one_by_one.map(prepare).buffered(recipe.decode_ahead_images.max(1));
    let mut gathering = Gathering::new(&recipe, from);
    while let Some(image) = prepared.next().await {
        if let Some(message) = gathering.add(image?)?
            && !sender.send(message).await
        {
            return Ok(());
        }
    }
    for message in gathering.finish()? {
        if !sender.send(message).await {
            break;
        }
    }
    Ok(())
}

/// Decodes and crops one image. The same bytes, number and epoch give the same pixels, or the same reject, everywhere.
fn prepare(image: NextImage, recipe: &Recipe) -> Prepared {
    let NextImage { image, epoch, number, images_taken, ends_epoch, next, .. } = image;
    let decoded = match &image.bytes {
        Ok(bytes) => decode_image(bytes, &recipe.decode_limits).map_err(|failure| (failure.reason, failure.message)),
        Err(rejected) => Err(rejected.clone()),
    };
    let view = decoded.map(|decoded| {
        let mut view = Vec::new();
        match recipe.crop {
            TrainingCrop::Random(crop) => {
                let mut random = RandomStream::new(recipe.seed, &format!("crop in epoch {epoch}"), number);
                crop.crop(&decoded, &mut random, &mut view);
            }
            TrainingCrop::Center(crop) => crop_views(&decoded, crop, &mut view),
        }
        view
    });
    let view = view.map_err(|(reason, error)| {
        tracing::debug!(image_id = %image.image_id, source = %image.source, %reason, error, "image rejected");
        reason
    });
    Prepared { turn: Turn { epoch, images_taken, ends_epoch, next }, image_id: image.image_id, view }
}

/// The batch that is being filled, and the rejects of the epoch.
struct Gathering<'a> {
    recipe: &'a Recipe,
    views: ViewBatcher,
    image_ids: Vec<String>,
    /// Epoch of the first image in the batch.
    epoch: u64,
    next: DataPosition,
    rejected_in_epoch: u64,
    /// Since the last message.
    rejects: Rejects,
    /// Since the start, for messages.
    all_rejects: Rejects,
    images_an_epoch: Option<u64>,
}

impl<'a> Gathering<'a> {
    fn new(recipe: &'a Recipe, from: DataPosition) -> Self {
        Self {
            recipe,
            views: ViewBatcher::new(recipe.batch_size, recipe.crop.size(), recipe.crop.size()),
            image_ids: Vec::new(),
            epoch: from.epoch,
            next: from,
            rejected_in_epoch: from.rejected,
            rejects: Rejects::default(),
            all_rejects: Rejects::default(),
            images_an_epoch: recipe.images,
        }
    }

    /// Adds an image; gives a batch when it is full.
    fn add(&mut self, image: Prepared) -> Result<Option<Message>, PipelineError> {
        let Prepared { turn, image_id, view } = image;
        if let Err(reason) = view {
            self.rejected_in_epoch += 1;
            *self.rejects.entry(reason).or_default() += 1;
            *self.all_rejects.entry(reason).or_default() += 1;
        }
        // Before the batch is handed out: no checkpoint may stand behind an epoch that failed.
        self.check_reject_rate(&turn)?;
        if turn.ends_epoch {
            self.rejected_in_epoch = 0;
            self.images_an_epoch = Some(turn.images_taken);
        }
        self.next = DataPosition { rejected: self.rejected_in_epoch, ..turn.next };
        let Ok(view) = view else { return Ok(None) };
        if self.image_ids.is_empty() {
            self.epoch = turn.epoch;
        }
        self.image_ids.push(image_id);
        Ok(self.views.push(&view)?.map(|pixels| self.message(pixels)))
    }

    /// The last batch, padded, if images are left over; then the rejects since the last full one.
    fn finish(mut self) -> Result<Vec<Message>, PipelineError> {
        let size = self.recipe.crop.size();
        let views = std::mem::replace(&mut self.views, ViewBatcher::new(self.recipe.batch_size, size, size));
        let last = views.finish()?.map(|pixels| self.message(pixels));
        let end = Message { batch: None, rejects: self.rejects, images_an_epoch: self.images_an_epoch };
        Ok(last.into_iter().chain([end]).collect())
    }

    fn message(&mut self, pixels: schemas::PixelBatch) -> Message {
        let image_ids = std::mem::take(&mut self.image_ids);
        let batch = Some(TrainingBatch { pixels, image_ids, epoch: self.epoch, next: self.next });
        Message { batch, rejects: std::mem::take(&mut self.rejects), images_an_epoch: self.images_an_epoch }
    }

    /// Fails as soon as it is certain that more images of the epoch are rejected than may be; where nobody knows how many images
    /// there are, as soon as it would be certain for [`TRIAL_IMAGES`], or for those that were read.
    fn check_reject_rate(&self, turn: &Turn) -> Result<(), PipelineError> {
        let known = if turn.ends_epoch { Some(turn.images_taken) } else { self.images_an_epoch };
        let images = known.unwrap_or(turn.images_taken.max(TRIAL_IMAGES));
        let reasons = || describe_rejects(&self.all_rejects);
        if self.rejected_in_epoch as f64 > self.recipe.max_reject_rate * images as f64 {
            return Err(PipelineError::RejectRate {
                rejected: self.rejected_in_epoch,
                listed: known.unwrap_or(turn.images_taken),
                limit_percent: self.recipe.max_reject_rate * 100.0,
                reasons: reasons(),
            });
        }
        if turn.ends_epoch && self.rejected_in_epoch == turn.images_taken {
            let problem = format!("not one of its {images} images could be read: {}", reasons());
            return Err(PipelineError::Source { uri: self.recipe.source.clone(), problem });
        }
        Ok(())
    }
}
