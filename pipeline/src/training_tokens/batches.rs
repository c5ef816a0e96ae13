//! Windows to batches: while one is used up, the next is read and shuffled.

use super::{TokenTrainingBatch, file::FileTokens, tables::TokenFiles, windows::Window};
use crate::{DataPosition, PipelineError, background_task, prefetcher::ItemSender};
use schemas::{RandomStream, TokenBatch};
use std::{collections::BTreeMap, sync::Arc};
use tokio_util::task::AbortOnDropHandle;

/// What becomes of every window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recipe {
    /// What the order of a window and the views follow from.
    pub(super) seed: u64,
    pub(super) batch_rows: usize,
    pub(super) classes: usize,
    /// Whether files stay in memory once they are read.
    pub(super) keep: bool,
}

/// A window in memory.
struct Shuffled {
    window: Window,
    /// In the window's order.
    files: Vec<Arc<FileTokens>>,
    /// Images by (place of the file in the window, place in the file), shuffled: eight bytes each.
    images: Vec<(u32, u32)>,
}

/// Reads windows, with what is kept of those before.
struct Reader {
    list: Arc<TokenFiles>,
    recipe: Recipe,
    kept: BTreeMap<usize, Arc<FileTokens>>,
}

/// Makes batches of `windows` until nobody takes them; of the first window, `taken` images are passed over.
///
/// # Errors
/// When a file cannot be read or is not what its manifest says.
pub(super) async fn make_batches(
    list: Arc<TokenFiles>,
    mut windows: impl Iterator<Item = Window> + Send,
    taken: u64,
    recipe: Recipe,
    sender: &ItemSender<TokenTrainingBatch>,
) -> Result<(), PipelineError> {
    let mut gathering = Gathering::new(recipe, list.tokenizer.levels.tokens_per_image());
    let reader = Reader { list: Arc::clone(&list), recipe, kept: BTreeMap::new() };
    let mut start = usize::try_from(taken).unwrap_or(usize::MAX);
    let mut reading = windows.next().map(|window| reader.start(window));
    while let Some(read) = reading.take() {
        let (reader, shuffled) = background_task::joined(read.await).await?;
        // The window before is gone by now, so that there are never more than two.
        reading = windows.next().map(|window| reader.start(window));
        for taken in start..shuffled.images.len() {
            if let Some(batch) = gathering.add(&list, &shuffled, taken)?
                && !sender.send(batch).await
            {
                return Ok(());
            }
        }
        start = 0;
    }
    Ok(())
}

impl Reader {
    /// Begins to read and shuffle a window.
    fn start(self, window: Window) -> AbortOnDropHandle<Result<(Self, Shuffled), PipelineError>> {
        background_task::spawn(self.read(window))
    }

    async fn read(mut self, window: Window) -> Result<(Self, Shuffled), PipelineError> {
        let missing: Vec<usize> = window.files.iter().copied().filter(|file| !self.kept.contains_key(file)).collect();
        let read = self.list.read(missing.clone(), self.recipe.classes).await?;
        self.kept.extend(missing.into_iter().zip(read));
        let files: Vec<_> = window.files.iter().map(|file| Arc::clone(&self.kept[file])).collect();
        if !self.recipe.keep {
            self.kept.clear();
        }
        let (list, seed) = (Arc::clone(&self.list), self.recipe.seed);
        let shuffled = self.list.cpu.spawn_cpu(move || shuffle(&list, window, files, seed)).await;
        Ok((self, shuffled))
    }
}

fn shuffle(list: &TokenFiles, window: Window, files: Vec<Arc<FileTokens>>, seed: u64) -> Shuffled {
    let mut images = Vec::with_capacity(usize::try_from(window.images).unwrap_or(0));
    for (place, &file) in (0_u32..).zip(&window.files) {
        // More than 32 bits of images in one file are hundreds of gigabytes, which no put writes whole.
        let count = u32::try_from(list.files[file].images).unwrap_or(u32::MAX);
        images.extend((0..count).map(|image| (place, image)));
    }
    let purpose = format!("order of a token window in epoch {}", window.start.epoch);
    RandomStream::new(seed, &purpose, window.start.window_start).shuffle(&mut images);
    Shuffled { window, files, images }
}

/// The batch that is being filled.
struct Gathering {
    recipe: Recipe,
    tokens_per_image: usize,
    codes: Vec<i16>,
    labels: Vec<i32>,
    /// Epoch of the first image in the batch.
    epoch: u64,
    /// What views are drawn for, and its epoch.
    purpose: (u64, String),
}

impl Gathering {
    fn new(recipe: Recipe, tokens_per_image: usize) -> Self {
        let (codes, labels) = (Vec::new(), Vec::new());
        Self { recipe, tokens_per_image, codes, labels, epoch: 0, purpose: (0, view_purpose(0)) }
    }

    /// Adds the image that comes after `taken` others of its window; gives a batch when it is full.
    fn add(
        &mut self,
        list: &TokenFiles,
        shuffled: &Shuffled,
        taken: usize,
    ) -> Result<Option<TokenTrainingBatch>, PipelineError> {
        let Shuffled { window, files, images } = shuffled;
        let start = window.start;
        if self.purpose.0 != start.epoch {
            self.purpose = (start.epoch, view_purpose(start.epoch));
        }
        if self.labels.is_empty() {
            self.epoch = start.epoch;
            self.codes.reserve_exact(self.recipe.batch_rows * self.tokens_per_image);
            self.labels.reserve_exact(self.recipe.batch_rows);
        }
        let (place, image) = images[taken];
        let file = &files[place as usize];
        // The number of the image in the list, wherever the shuffle put it.
        let number = list.files[window.files[place as usize]].first_image + u64::from(image);
        let view = RandomStream::new(self.recipe.seed, &self.purpose.1, number).below(file.views() as u64);
        self.codes.extend_from_slice(file.codes(image as usize, view as usize));
        self.labels.push(file.label(image as usize));
        if self.labels.len() < self.recipe.batch_rows {
            return Ok(None);
        }
        let tokens = TokenBatch::try_new(std::mem::take(&mut self.codes), self.tokens_per_image)?;
        let taken = taken as u64 + 1;
        let next = if taken == window.images { window.next } else { DataPosition { taken, ..start } };
        Ok(Some(TokenTrainingBatch { tokens, labels: std::mem::take(&mut self.labels), epoch: self.epoch, next }))
    }
}

fn view_purpose(epoch: u64) -> String {
    format!("view in epoch {epoch}")
}
