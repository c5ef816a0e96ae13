//! A run of training: what is trained, on what, and how it is scored, put together once for everything that is trained.

use super::{
    run_folder::RunFolder,
    sheet::Sheet,
    watch::{Moment, Watch},
};
use anyhow::{Result, ensure};
use models::{Precision, StepReport, Trainer};
use pipeline::{DataPosition, PipelineError};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use tokio_util::sync::CancellationToken;

/// Endless batches in an order that follows from a seed.
pub(crate) trait TrainingData {
    /// A batch.
    type Batch;
    /// What to do when the device waits for data.
    const WAITING_ADVICE: &'static str;
    /// What the digest is called in checkpoints.
    const DIGEST: &'static str;

    /// The next batch; an error when `cancel` comes first, after which the same batch is next.
    fn next(&mut self, cancel: &CancellationToken) -> Result<NextBatch<Self::Batch>, PipelineError>;
    /// Time that [`Self::next`] has waited in all.
    fn waited(&self) -> Duration;
    /// Of all that the order of batches follows from: a run goes on only on the same.
    fn digest(&self) -> &str;
    /// What to say where the digest is not `expected`.
    fn told_of_change(&self, expected: &str) -> String;
    /// Images that could not be used so far; `None` where none is ever passed over.
    fn rejected(&self) -> Option<u64>;
}

/// A batch, and where the data stands behind it.
#[derive(Debug)]
pub(crate) struct NextBatch<B> {
    pub(crate) batch: B,
    pub(crate) epoch: u64,
    pub(crate) next: DataPosition,
}

/// How good the average of the weights is.
pub(crate) trait Validator<T: Trainer> {
    /// Whether the first score is better the lower it is.
    const LOWER_IS_BETTER: bool;

    /// Scores; the first is the one by which the best is kept. Empty without validation.
    fn scores(&self, trainer: &T) -> Result<Vec<(String, f64)>>;
    /// A picture; `None` where there is nothing to draw it with. `batches` are those of the last update.
    fn sheet(&self, trainer: &T, batches: &[T::Batch]) -> Result<Option<Sheet>>;
    /// What the finished weights score on everything that there is to validate on; null without validation.
    fn final_scores(&self, trainer: &T, stored: Precision) -> Result<serde_json::Value>;
    /// What is validated on.
    fn validated_on(&self) -> String;
}

/// Where a run stands, and on which data.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Position {
    data: DataPosition,
    /// One, by the name that the data gives it.
    #[serde(flatten)]
    digests: BTreeMap<String, String>,
}

/// What is trained, its data and its scores, and where the run stands.
pub(crate) struct Training<T: Trainer, D, V> {
    pub(crate) trainer: T,
    pub(crate) data: D,
    validator: V,
    /// Batches of an update.
    accumulation: usize,
    /// Images of an update, a view of each.
    global_batch_size: u64,
    batches: Vec<T::Batch>,
    /// Whether the batches are of the step to come.
    loaded: bool,
    epoch: u64,
    next: DataPosition,
    publish_precision: Precision,
}

/// What a run of training goes by.
#[derive(Clone, Debug)]
pub(crate) struct TrainingOptions {
    /// Batches of an update.
    pub(crate) accumulation: usize,
    /// Images of an update.
    pub(crate) global_batch_size: u64,
    /// Numbers of the published weights.
    pub(crate) publish_precision: Precision,
    /// Whether a run may go on with other settings.
    pub(crate) allow_other_settings: bool,
    /// What the run is on, for the note in checkpoints.
    pub(crate) machine: String,
}

impl<T: Trainer, D: TrainingData<Batch = T::Batch>, V: Validator<T>> Training<T, D, V> {
    /// Begins a run, or goes on from the newest checkpoint of `folder`. `open` opens the data at a position.
    ///
    /// # Errors
    /// When the checkpoint does not read or is of other settings or data, or the data cannot be opened.
    pub(crate) fn begin(
        mut trainer: T,
        open: impl FnOnce(DataPosition) -> Result<D, PipelineError>,
        validator: V,
        folder: &mut RunFolder,
        options: TrainingOptions,
    ) -> Result<Self> {
        let newest = folder.newest::<Position>(options.allow_other_settings, &options.machine)?;
        let from = newest.as_ref().map_or_else(DataPosition::default, |(_, state)| state.position.data);
        let data = open(from)?;
        if let Some((checkpoint, state)) = &newest {
            let expected = state.position.digests.get(D::DIGEST).map_or("", String::as_str);
            ensure!(data.digest() == expected, data.told_of_change(expected));
            trainer.restore(checkpoint, state.steps_done)?;
            tracing::info!(step = state.steps_done, checkpoint = %checkpoint.display(), "going on");
        }
        Ok(Self {
            trainer,
            data,
            validator,
            accumulation: options.accumulation,
            global_batch_size: options.global_batch_size,
            batches: Vec::new(),
            loaded: false,
            epoch: from.epoch,
            next: from,
            publish_precision: options.publish_precision,
        })
    }

    /// Updates made so far.
    pub(crate) fn steps_done(&self) -> u64 {
        self.trainer.steps_done()
    }

    /// Waits for the batches of the next update, until `cancel` comes. Where it fails, a checkpoint is still that of the last update.
    pub(super) fn load(&mut self, cancel: &CancellationToken) -> Result<()> {
        if self.loaded {
            return Ok(());
        }
        // All of them or none: where one is missing, the position stays that of the last update, which may be saved yet.
        let batches = (0..self.accumulation).map(|_| self.data.next(cancel)).collect::<Result<Vec<_>, _>>()?;
        if let Some(last) = batches.last() {
            (self.epoch, self.next) = (last.epoch, last.next);
        }
        self.batches = batches.into_iter().map(|next| next.batch).collect();
        self.loaded = true;
        Ok(())
    }

    /// Makes an update of the batches that were loaded.
    pub(super) fn step(&mut self) -> Result<StepReport> {
        self.loaded = false;
        Ok(self.trainer.step(&self.batches)?)
    }

    pub(super) fn scores(&self) -> Result<Vec<(String, f64)>> {
        self.validator.scores(&self.trainer)
    }

    pub(super) fn sheet(&self) -> Result<Option<Sheet>> {
        self.validator.sheet(&self.trainer, &self.batches)
    }

    /// What is told of the run as it stands.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            step: self.steps_done(),
            epoch: self.epoch,
            global_batch_size: self.global_batch_size,
            waited: self.data.waited(),
            rejected: self.data.rejected(),
            waiting_advice: D::WAITING_ADVICE,
        }
    }

    /// Writes a checkpoint.
    pub(super) fn save(&self, folder: &mut RunFolder) -> Result<()> {
        let digests = BTreeMap::from([(D::DIGEST.to_owned(), self.data.digest().to_owned())]);
        let position = Position { data: self.next, digests };
        folder.save(self.steps_done(), position, |checkpoint| Ok(self.trainer.save(checkpoint)?))
    }

    /// Keeps the average of the weights if `score` is the best of the run so far.
    pub(super) fn keep_best(&self, folder: &mut RunFolder, score: f64) -> Result<()> {
        let validated_on = self.validator.validated_on();
        folder.keep_best(self.steps_done(), (score, V::LOWER_IS_BETTER), validated_on, |best| {
            Ok(self.trainer.publish(self.publish_precision, best)?)
        })
    }

    /// Writes the finished weights.
    pub(super) fn publish(&self, folder: &RunFolder) -> Result<()> {
        folder.publish(
            (T::KIND, self.steps_done(), self.publish_precision),
            || self.validator.final_scores(&self.trainer, self.publish_precision),
            |published| Ok(self.trainer.publish(self.publish_precision, published)?),
        )
    }

    /// Opens the watch over `steps` updates in all. `columns` names all scalars and scores that there can be.
    pub(super) fn watch(
        &self,
        folder: &RunFolder,
        columns: &[String],
        steps: u64,
        progress: &crate::progress::Progress,
    ) -> Result<Watch> {
        Watch::new(&self.moment(), folder, columns, steps, progress)
    }
}
