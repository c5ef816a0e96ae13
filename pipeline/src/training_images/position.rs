//! Where a run over training images stands.

use serde::{Deserialize, Serialize};

/// The place in the endless sequence of training images, or of their tokens, at which the next batch starts. The default is its
/// beginning.
///
/// Plain data for a checkpoint: together with the same list of inputs, options and seed it is all that is needed to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPosition {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The input (shard, file of a folder or of a tokens table) in which the current window starts: its place in the order of this
    /// epoch, from 0.
    pub input: u64,
    /// Images of that input in front of the window.
    pub row: u64,
    /// Images of this epoch in front of the window.
    pub window_start: u64,
    /// Images taken from the window, in its shuffled order.
    pub taken: u64,
    /// Images rejected in this epoch so far.
    pub rejected: u64,
}

impl DataPosition {
    /// Images of this epoch that were taken before this place, rejected ones included.
    pub fn images_taken(&self) -> u64 {
        self.window_start + self.taken
    }

    /// The beginning of the epoch after this one.
    pub(crate) fn next_epoch(self) -> Self {
        Self { epoch: self.epoch + 1, ..Self::default() }
    }
}
