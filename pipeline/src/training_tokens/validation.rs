//! Tokens to validate on: the first images of the tables, in their own order, one view each.

use super::tables::{TokenFiles, TokenTables, settings_error};
use crate::{
    PipelineError, background_task,
    prefetcher::{ItemSender, Prefetcher},
};
use schemas::TokenBatch;
use std::{mem::take, sync::Arc};

/// What to evaluate on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationTokensOptions {
    /// Images, from the first one on; fewer where there are no more.
    pub images: u64,
    /// Rows of a batch.
    pub batch_rows: usize,
    /// Classes: every label must be below this.
    pub classes: usize,
    /// Batches made ahead of the one in use.
    pub prefetch_batches: usize,
}

impl ValidationTokensOptions {
    /// With the default: two batches ahead.
    pub fn new(images: u64, batch_rows: usize, classes: usize) -> Self {
        Self { images, batch_rows, classes, prefetch_batches: 2 }
    }
}

/// A batch to validate on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEvaluationBatch {
    /// `[batch_rows, tokens_per_image]`, fewer rows in the last one.
    pub tokens: TokenBatch,
    /// The class of each row.
    pub labels: Vec<i32>,
}

/// The first images of token tables, once, in the order of the tables, view 0 of each: the same rows every time.
///
/// Reads only the files that these images are in, one ahead. Dropping it ends its work.
#[derive(Debug)]
pub struct ValidationTokens {
    batches: Prefetcher<TokenEvaluationBatch>,
}

impl ValidationTokens {
    /// Begins to read.
    ///
    /// # Errors
    /// When the options contradict themselves.
    pub fn start(tables: &TokenTables, options: &ValidationTokensOptions) -> Result<Self, PipelineError> {
        let ValidationTokensOptions { images, batch_rows, classes, prefetch_batches } = *options;
        super::check_common(batch_rows, classes)?;
        if images == 0 {
            return Err(settings_error("validation on 0 images, expected at least 1".to_owned()));
        }
        let list = Arc::clone(&tables.files);
        let batches = Prefetcher::start(Arc::clone(&tables.runtime), prefetch_batches, |sender| async move {
            make_batches(list, images, batch_rows, classes, &sender).await
        });
        Ok(Self { batches })
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// When a file cannot be read or is not what its manifest says, or a label or code is none.
    ///
    /// # Panics
    /// With the panic of a background thread.
    #[expect(clippy::should_implement_trait, reason = "an iterator would let `?` be forgotten, and is not needed")]
    pub fn next(&mut self) -> Result<Option<TokenEvaluationBatch>, PipelineError> {
        self.batches.next()
    }
}

async fn make_batches(
    list: Arc<TokenFiles>,
    images: u64,
    batch_rows: usize,
    classes: usize,
    sender: &ItemSender<TokenEvaluationBatch>,
) -> Result<(), PipelineError> {
    let tokens_per_image = list.tokenizer.levels.tokens_per_image();
    let needed = list.files.partition_point(|file| file.first_image < images);
    let read = |place: usize| {
        let list = Arc::clone(&list);
        (place < needed).then(|| background_task::spawn(async move { list.read(vec![place], classes).await }))
    };
    let (mut codes, mut labels) = (Vec::new(), Vec::new());
    let batch = |codes: &mut Vec<i16>, labels: &mut Vec<i32>| -> Result<_, PipelineError> {
        let tokens = TokenBatch::try_new(take(codes), tokens_per_image)?;
        Ok(TokenEvaluationBatch { tokens, labels: take(labels) })
    };
    let mut reading = read(0);
    for place in 0..needed {
        let Some(handle) = reading.take() else { break };
        let tokens = background_task::joined(handle.await).await?;
        reading = read(place + 1);
        let file = &list.files[place];
        let wanted = file.images.min(images - file.first_image);
        for image in 0..usize::try_from(wanted).unwrap_or(usize::MAX) {
            codes.extend_from_slice(tokens[0].codes(image, 0));
            labels.push(tokens[0].label(image));
            if labels.len() == batch_rows && !sender.send(batch(&mut codes, &mut labels)?).await {
                return Ok(());
            }
        }
    }
    if !labels.is_empty() {
        // The end comes next, and finds out as well when nobody listens.
        sender.send(batch(&mut codes, &mut labels)?).await;
    }
    Ok(())
}
