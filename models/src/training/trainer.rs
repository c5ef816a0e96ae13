//! What every network that is trained has in common, an update at a time.

use super::StepReport;
use crate::{ModelError, Precision, ProcessGroup};
use std::{path::Path, sync::Arc};

/// A network in training: its parameters, the optimizer that moves them, and their moving average.
pub trait Trainer {
    /// One of the batches of an update.
    type Batch;
    /// What is trained, in a word: `tokenizer` or `generator`.
    const KIND: &'static str;

    /// Updates made so far.
    fn steps_done(&self) -> u64;

    /// The learning rate of the next update.
    fn learning_rate(&self) -> f64;

    /// Names of the scalars that updates report, in the order in which a table would show them.
    fn scalars(&self) -> Vec<&'static str>;

    /// One update from the gradients of all `batches` together, each of which is held in memory alone: forward, backward, clip, step, average.
    ///
    /// # Errors
    /// When the batches do not fit the network, or libtorch refuses.
    fn step(&mut self, batches: &[Self::Batch]) -> Result<StepReport, ModelError>;

    /// Writes everything that the next update depends on into `folder`, which exists: `config.json`, `model.safetensors`,
    /// `ema.safetensors`, `optimizer.safetensors` and, with a discriminator, `discriminator.safetensors`.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn save(&self, folder: &Path) -> Result<(), ModelError>;

    /// Goes on from what [`Self::save`] wrote after `steps_done` updates.
    ///
    /// # Errors
    /// When a file is missing, damaged or of another network.
    fn restore(&mut self, folder: &Path, steps_done: u64) -> Result<(), ModelError>;

    /// From now on trains together with the other processes of `group`, from the weights and the state of rank 0 after `steps_done` updates. All
    /// of them call this, with trainers of the same configuration and recipe; each makes updates of as many batches of its own.
    ///
    /// # Errors
    /// When networks differ, or a process is lost or silent.
    fn distribute(&mut self, group: &Arc<ProcessGroup>, steps_done: u64) -> Result<(), ModelError>;

    /// Whether all processes that train together have the same weights; each of them calls this after the same update.
    ///
    /// # Errors
    /// When libtorch refuses, or a process is lost or silent.
    fn is_same_everywhere(&self) -> Result<bool, ModelError>;

    /// Writes the average of the weights into `folder` as others load it, its numbers as `stored` has them.
    ///
    /// # Errors
    /// When libtorch refuses, or a file cannot be written.
    fn publish(&self, stored: Precision, folder: &Path) -> Result<(), ModelError>;
}
