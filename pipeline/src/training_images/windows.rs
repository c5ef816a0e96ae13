//! The order of training images: inputs by a permutation of the epoch, then a permutation inside each window of images.
//!
//! ```text
//!  epoch 3:  inputs 5 0 4 1 …                       by (seed, epoch)
//!            ├─── window ───┼─── window ───┼─ …     as many images as `images`, fewer where they are large, or the epoch ends
//!             shuffled       shuffled               by (seed, epoch, first image of the window)
//! ```
//! Windows and not a buffer that slides: where a window starts, and how much of it is taken, is all that a checkpoint must know, and
//! going on re-reads one window and no more. Files of a folder need no windows, for their permutation is already one of images.
//!
//! # Memory, and why nothing deadlocks
//! Encoded images that wait here hold a share of [`Windows::bytes`], until they are decoded. A window is closed *before* the image
//! that would not fit beside the others of its window, and a closed window is only ever waiting to be decoded. So when the
//! first image of a window waits for room, everything in front of it is on its way out.

use super::{
    DataPosition,
    frozen_source::{FrozenSource, PlacedImage},
};
use crate::{FetchPermit, PipelineError, SourceImage};
use futures::TryStreamExt;
use schemas::{RandomStream, SourceLayout};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes are counted in units of this size, at least one for each image, because a semaphore hands out 32-bit counts and an image
/// costs more than its bytes.
const UNIT_BYTES: u64 = 1 << 10;

/// Files of a folder are handed on in groups of this many; it moves no image.
const FOLDER_WINDOW: usize = 32;

/// How images are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As the source lists them, once.
    AsListed,
    /// Shuffled anew in every epoch, without end.
    Shuffled {
        /// What the order follows from.
        seed: u64,
        /// Images of a window.
        images: usize,
    },
}

/// What fills windows.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    pub(super) source: Arc<FrozenSource>,
    pub(super) order: Order,
    /// Encoded bytes that may wait to be decoded; also the most that a window holds.
    pub(super) bytes: u64,
}

/// An image whose turn has come.
#[derive(Debug)]
pub(super) struct NextImage {
    pub(super) image: SourceImage,
    pub(super) epoch: u64,
    /// Its number in the epoch, before windows are shuffled: what its crop follows from.
    pub(super) number: u64,
    /// Images of the epoch that have had their turn, this one included.
    pub(super) images_taken: u64,
    pub(super) ends_epoch: bool,
    /// Where the image after it stands. Rejected images are counted where they are found.
    pub(super) next: DataPosition,
    _share: OwnedSemaphorePermit,
}

/// The room for all images that wait, of this window and those before it.
#[derive(Debug)]
struct Room {
    shares: Arc<Semaphore>,
    budget: u32,
}

/// An image in a window: its number in the epoch, itself, its share of the bytes.
type Held = (u64, SourceImage, OwnedSemaphorePermit);

impl Windows {
    /// Sends the images from `from` on, a window at a time, until nobody receives them or, in listed order, to the end.
    ///
    /// # Errors
    /// When the source cannot be read or holds no image, or `from` is no position in it.
    pub(super) async fn fill(
        self,
        from: DataPosition,
        sender: mpsc::Sender<Vec<NextImage>>,
    ) -> Result<(), PipelineError> {
        let budget = u32::try_from(self.bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        let room = Room { shares: Arc::new(Semaphore::new(budget as usize)), budget };
        let mut position = from;
        while self.fill_epoch(position, &room, &sender).await? && self.order != Order::AsListed {
            position = position.next_epoch();
        }
        Ok(())
    }

    /// Sends the rest of an epoch; `false` when nobody receives it.
    async fn fill_epoch(
        &self,
        from: DataPosition,
        room: &Room,
        sender: &mpsc::Sender<Vec<NextImage>>,
    ) -> Result<bool, PipelineError> {
        let most_images = self.window_images();
        let mut images = self.source.read(self.input_order(from.epoch), from.input, from.row);
        let (mut start, mut window, mut held) = (from, Vec::<Held>::new(), 0_u32);
        while let Some(placed) = images.try_next().await? {
            let PlacedImage { input, row, mut image } = placed;
            let here = DataPosition {
                input,
                row,
                window_start: start.window_start + window.len() as u64,
                taken: 0,
                rejected: 0,
                ..start
            };
            if window.is_empty() && (input, row) != (start.input, start.row) && start.window_start > 0 {
                return Err(self.source.wrong_position(from));
            }
            let size = image.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
            let share = u32::try_from(size.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, room.budget);
            if window.len() >= most_images || (share > room.budget - held && !window.is_empty()) {
                if !self.send(start, std::mem::take(&mut window), here, sender).await? {
                    return Ok(false);
                }
                (start, held) = (here, 0);
            }
            let permit = Arc::clone(&room.shares).acquire_many_owned(share).await;
            // From here on it counts as held by its window, and the fetcher may go on.
            image.permit = FetchPermit::none();
            window.push((here.window_start, image, permit.unwrap_or_else(|_| unreachable!("it is never closed"))));
            held += share;
        }
        if window.is_empty() && start.window_start == 0 {
            let problem = format!("{} inputs, but not one image in them", self.source.inputs());
            return Err(PipelineError::Source { uri: self.source.name.clone(), problem });
        }
        self.send(start, window, from.next_epoch(), sender).await
    }

    /// Shuffles a window and sends what is not yet taken of it; `false` when nobody receives it.
    async fn send(
        &self,
        start: DataPosition,
        mut window: Vec<Held>,
        next_window: DataPosition,
        sender: &mpsc::Sender<Vec<NextImage>>,
    ) -> Result<bool, PipelineError> {
        let length = window.len() as u64;
        if start.taken >= length {
            return Err(self.source.wrong_position(start));
        }
        if let (Order::Shuffled { seed, .. }, false) = (self.order, self.source.layout == SourceLayout::Folder) {
            let purpose = format!("order of a window in epoch {}", start.epoch);
            RandomStream::new(seed, &purpose, start.window_start).shuffle(&mut window);
        }
        let next_image = |(place, (number, image, share)): (u64, Held)| {
            let taken = place + 1;
            let last = taken == length;
            NextImage {
                image,
                epoch: start.epoch,
                number,
                images_taken: start.window_start + taken,
                ends_epoch: last && next_window.epoch != start.epoch,
                next: if last { next_window } else { DataPosition { taken, ..start } },
                _share: share,
            }
        };
        // What is taken already is dropped here, and never decoded.
        let images = (0_u64..).zip(window).skip(usize::try_from(start.taken).unwrap_or(usize::MAX));
        Ok(sender.send(images.map(next_image).collect()).await.is_ok())
    }

    fn window_images(&self) -> usize {
        match self.order {
            Order::Shuffled { images, .. } if self.source.layout != SourceLayout::Folder => images.max(1),
            _ => FOLDER_WINDOW,
        }
    }

    fn input_order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.source.inputs()).collect();
        if let Order::Shuffled { seed, .. } = self.order {
            RandomStream::new(seed, "order of inputs", epoch).shuffle(&mut order);
        }
        order
    }
}
