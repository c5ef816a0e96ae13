//! The training loop, the same for everything that is trained.

use super::{run_folder::RunFolder, sheet::Sheet, watch::Watch};
use anyhow::Result;
use models::StepReport;
use pipeline::PipelineError;
use serde::{Serialize, de::DeserializeOwned};
use std::{path::Path, time::Duration};
use tokio_util::sync::CancellationToken;

/// What is trained, and on what.
pub(crate) trait Training {
    /// Where the data stands: together with the tensors, all that the next step depends on.
    type Position: Serialize + DeserializeOwned;

    /// Updates made so far.
    fn steps_done(&self) -> u64;
    /// The rate of the next update.
    fn learning_rate(&self) -> f64;
    /// Images (or rows) of an update.
    fn images_a_step(&self) -> u64;
    /// The epoch that the last batch came from.
    fn epoch(&self) -> u64;
    /// Waits for the batches of the next update.
    fn load(&mut self) -> Result<()>;
    /// Time that [`Self::load`] has waited in all.
    fn waited(&self) -> Duration;
    /// Forward, backward, clip, step, average.
    fn step(&mut self) -> Result<StepReport>;
    /// Scores of the average of the weights; the first is the one by which the best is kept. Empty without validation.
    fn validate(&mut self) -> Result<Vec<(String, f64)>>;
    /// A picture of what the average of the weights does.
    fn sheet(&mut self) -> Result<Sheet>;
    /// Where the data stands after the last update.
    fn position(&self) -> Self::Position;
    /// Writes every tensor that the next step depends on into `folder`.
    fn save(&self, folder: &Path) -> Result<()>;
    /// Images (or rows) that could not be used so far.
    fn rejected(&self) -> u64;
    /// What [`Self::validate`] scores on.
    fn validated_on(&self) -> String;
    /// What the finished weights score on everything that there is to validate on; null without validation.
    fn final_scores(&self) -> Result<serde_json::Value>;
    /// The numbers of the published weights, by name.
    fn published_precision(&self) -> String;
    /// Writes the average of the weights into `folder` as others load it.
    fn publish(&self, folder: &Path) -> Result<()>;
}

/// When the loop does what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Updates in all.
    pub(crate) steps: u64,
    /// Updates after which to stop early.
    pub(crate) stop_after: Option<u64>,
    /// Updates between two lines of metrics.
    pub(crate) log: u64,
    /// Updates between two checkpoints.
    pub(crate) save: u64,
    /// Updates between two validations.
    pub(crate) validate: u64,
    /// Updates between two sheets.
    pub(crate) sheet: u64,
}

/// Trains until all updates are made, and publishes the result. Where it stops earlier, it leaves a checkpoint.
///
/// # Errors
/// When the data, the device or the disk fails, the loss is no number any more, or `cancel` asks to stop.
pub(crate) fn run<T: Training>(
    training: &mut T,
    schedule: Schedule,
    folder: &mut RunFolder,
    watch: &mut Watch,
    cancel: &CancellationToken,
) -> Result<()> {
    let last = schedule.stop_after.unwrap_or(schedule.steps).min(schedule.steps);
    let mut saved = training.steps_done();
    while training.steps_done() < last {
        let learning_rate = training.learning_rate();
        training.load()?;
        let report = training.step()?;
        let step = training.steps_done();
        // An early stop adds a checkpoint and nothing else: the run must be the one that was not stopped.
        let due = |period: u64| step.is_multiple_of(period) || step == schedule.steps;
        let cancelled = cancel.is_cancelled();
        let tell = due(schedule.log) || due(schedule.validate);
        let save = due(schedule.save) || step == last || cancelled;
        // The one wait for the device. Nothing is saved of a step whose losses nobody has looked at.
        let scalars = if tell || save { watch.look(step, &report)? } else { Vec::new() };
        let shown = show(training, schedule, folder, watch, (learning_rate, &scalars));
        if save || shown.is_err() {
            // Also where telling of it failed: the steps since the last checkpoint are not lost for a picture.
            if !save {
                watch.look(step, &report)?;
            }
            if saved < step {
                watch.aside(|| folder.save(training))?;
                saved = step;
            }
        }
        shown?;
        if cancelled && step < last {
            return Err(PipelineError::Drained.into());
        }
    }
    if last == schedule.steps {
        folder.publish(training)?;
    }
    Ok(())
}

/// Everything that is told of a step: scores, metrics, a sheet, the best.
fn show<T: Training>(
    training: &mut T,
    schedule: Schedule,
    folder: &mut RunFolder,
    watch: &mut Watch,
    (learning_rate, scalars): (f64, &[(&'static str, f64)]),
) -> Result<()> {
    let step = training.steps_done();
    let due = |period: u64| step.is_multiple_of(period) || step == schedule.steps;
    let scores = if due(schedule.validate) { watch.aside(|| training.validate())? } else { Vec::new() };
    if due(schedule.log) || !scores.is_empty() {
        watch.log(training, scalars, learning_rate, &scores)?;
    }
    if due(schedule.sheet) {
        let sheet = watch.aside(|| training.sheet())?;
        watch.sheet(step, &sheet, folder)?;
    }
    match scores.first() {
        Some((_, score)) => watch.aside(|| folder.keep_best(training, *score)),
        None => Ok(()),
    }
}
