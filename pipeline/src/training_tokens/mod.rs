//! Tokens to train a generator on: the tables of finished outputs, as endless shuffled batches that go on exactly where they were left.
//!
//! ```text
//!  manifests ─▶ files, permuted ─▶ windows of files, shuffled ─▶ a view an image ─▶ batches ─▶ next()
//!               by (seed, epoch)   memory_bytes                  by (seed, epoch,   prefetch_batches
//!                                                                image)
//! ```
//! An epoch takes every image once, with one of its views, drawn anew in each epoch, as the published training does
//! (`dataset/imagenet.py` picks one of ten crops). Outputs may have different numbers of views; an image that is in
//! two outputs is two images here.
//!
//! The batches follow from the frozen list of files, the seed, the rows of a batch and how much memory there is. Timing, threads and
//! restarts have no part in them: each batch tells the [`DataPosition`] behind it, and [`TrainingTokens::start`] at that position
//! gives the batches that would have come. One epoch follows another without a gap, and a batch may span two.
//!
//! # Memory
//! Codes stay 16 bits wide: ImageNet in ten crops takes 3.3 GB. Where all files fit [`TrainingTokensOptions::memory_bytes`], each is
//! read once and stays; where they do not, half of it is for the window in use and half for the one that is read meanwhile. A window
//! holds one file at the least. Besides, four files may be on their way, encoded, and a window's order takes eight bytes an image.
//!
//! # The first batch
//! waits for one file: opening reads manifests alone, and in the first epoch windows grow from one file to two, four and so on.
//! Units of a source that lists class by class hold few classes, so the first of these windows do too; from the second epoch on a
//! window is all files, or as many as fit.

mod batches;
mod file;
mod tables;
mod validation;
mod windows;

pub use tables::{TokenTable, TokenTables};
pub use validation::{TokenEvaluationBatch, ValidationTokens, ValidationTokensOptions};

use crate::{DataPosition, PipelineError, prefetcher::Prefetcher};
use batches::{Recipe, make_batches};
use schemas::{TokenBatch, sha256_hex};
use std::{sync::Arc, time::Duration};
use tables::settings_error;
use tokio_util::sync::CancellationToken;
use windows::Windows;

/// How to train on token tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingTokensOptions {
    /// What order and views follow from.
    pub seed: u64,
    /// Rows of a batch.
    pub batch_rows: usize,
    /// Classes: every label must be below this.
    pub classes: usize,
    /// Bytes of codes and labels in memory. The order depends on it where not all files fit.
    pub memory_bytes: u64,
    /// Batches made ahead of the one in use.
    pub prefetch_batches: usize,
}

impl TrainingTokensOptions {
    /// With the defaults: 4 GiB, in which ImageNet in ten crops fits, and four batches ahead.
    pub fn new(batch_rows: usize, classes: usize, seed: u64) -> Self {
        Self { seed, batch_rows, classes, memory_bytes: 4 << 30, prefetch_batches: 4 }
    }
}

/// A batch to train on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTrainingBatch {
    /// `[batch_rows, tokens_per_image]`.
    pub tokens: TokenBatch,
    /// The class of each row.
    pub labels: Vec<i32>,
    /// Epoch of its first image, from 0.
    pub epoch: u64,
    /// Where the batch after it starts: for the checkpoint that is written after this one was used.
    pub next: DataPosition,
}

/// Endless shuffled batches of token tables, made ahead on background threads.
///
/// Dropping it ends all of its work.
#[derive(Debug)]
pub struct TrainingTokens {
    batches: Prefetcher<TokenTrainingBatch>,
    images: u64,
    in_memory: bool,
    order_digest: String,
}

impl TrainingTokens {
    /// Begins to read at `from`; the default position is the beginning.
    ///
    /// # Errors
    /// When the options contradict themselves, or there is no such position in these tables.
    pub fn start(
        tables: &TokenTables,
        options: &TrainingTokensOptions,
        from: DataPosition,
    ) -> Result<Self, PipelineError> {
        let TrainingTokensOptions { seed, batch_rows, classes, memory_bytes, prefetch_batches } = *options;
        check_common(batch_rows, classes)?;
        let list = Arc::clone(&tables.files);
        let windows = Windows::new(seed, list.sizes().collect(), memory_bytes);
        let in_memory = windows.window_bytes.is_none();
        let order_digest = sha256_hex(format!("{} {:?}\n", tables.digest(), windows.window_bytes).as_bytes());
        let windows = windows.from(from).ok_or_else(|| {
            settings_error(format!(
                "{} has no {from:?}: the position is of other tables, or of another seed or setting of memory",
                tables.tables().iter().map(|table| table.url.as_str()).collect::<Vec<_>>().join(", ")
            ))
        })?;
        let recipe = Recipe { seed, batch_rows, classes, keep: in_memory };
        let batches = Prefetcher::start(Arc::clone(&tables.runtime), prefetch_batches, |sender| async move {
            make_batches(list, windows, from.taken, recipe, &sender).await
        });
        Ok(Self { batches, images: tables.images(), in_memory, order_digest })
    }

    /// The next batch, waiting for it if need be.
    ///
    /// # Errors
    /// When a file cannot be read or is not what its manifest says, an image has no label or one outside the classes, or a code lies
    /// outside the codebook. There are no batches after an error.
    ///
    /// # Panics
    /// With the panic of a background thread.
    #[expect(clippy::should_implement_trait, reason = "an iterator would let `?` be forgotten, and is not needed")]
    pub fn next(&mut self) -> Result<TokenTrainingBatch, PipelineError> {
        self.next_unless(&CancellationToken::new())
    }

    /// The next batch, waiting for it until `cancel` comes; one that is ready is handed out also then.
    ///
    /// # Errors
    /// [`PipelineError::Drained`] when `cancel` came first; batches may be asked for again after it. Otherwise as [`Self::next`].
    ///
    /// # Panics
    /// With the panic of a background thread.
    pub fn next_unless(&mut self, cancel: &CancellationToken) -> Result<TokenTrainingBatch, PipelineError> {
        let batch = self.batches.next_unless(cancel)?;
        Ok(batch.unwrap_or_else(|| unreachable!("epochs follow one another without end")))
    }

    /// Images of an epoch, each with one of its views.
    pub fn images_an_epoch(&self) -> u64 {
        self.images
    }

    /// Whether all files fit in memory, so that each is read once.
    pub fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// Time that [`Self::next`] waited in all. Much of it means that training waits for its tokens.
    pub fn waited(&self) -> Duration {
        self.batches.waited()
    }

    /// SHA-256 of [`TokenTables::digest`] and of how memory divides the files into windows: with the seed and the rows of a batch, all
    /// that the order follows from. A run may go on at a position only where this is what it was.
    pub fn order_digest(&self) -> &str {
        &self.order_digest
    }
}

/// What training and evaluation ask of their options alike.
fn check_common(batch_rows: usize, classes: usize) -> Result<(), PipelineError> {
    if batch_rows == 0 {
        return Err(settings_error("a batch of 0 rows, expected at least 1".to_owned()));
    }
    if classes == 0 {
        return Err(settings_error("0 classes, expected at least 1".to_owned()));
    }
    Ok(())
}
