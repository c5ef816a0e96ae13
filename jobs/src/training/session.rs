//! What every command that trains does around the loop: it tells of the device, opens the watch, and reports the end.

use super::{
    driver::{Training, TrainingData, Validator},
    run_folder::RunFolder,
    run_loop::{self, Schedule},
};
use crate::{progress::Progress, settings::RunSettings};
use anyhow::Result;
use models::{Device, Precision, Trainer};
use tokio_util::sync::CancellationToken;

/// Says where training runs, and warns where its precision has no instructions there.
pub(crate) fn tell_device(device: Device, precision: Precision) {
    tracing::info!(device = %models::machine(device), precision = %precision, "training");
    if !precision.is_native(device) {
        tracing::warn!("{device} has no instructions for {precision}: --precision fp32 will be faster");
    }
}

/// Trains `steps` updates in all, watched, or until a signal or `settings.stop_after`. `columns` names all scalars and scores.
///
/// # Errors
/// As [`run_loop::run`].
pub(crate) fn carry_out<T: Trainer, D: TrainingData<Batch = T::Batch>, V: Validator<T>>(
    training: &mut Training<T, D, V>,
    columns: &[String],
    steps: u64,
    settings: &RunSettings,
    folder: &mut RunFolder,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    // The first batch waits for a whole window of data, which says nothing of the batches after it.
    if training.steps_done() < steps {
        training.load(cancel)?;
    }
    let mut watch = training.watch(folder, columns, steps, progress)?;
    let periods = settings.periods;
    let schedule = Schedule {
        steps,
        stop_after: settings.stop_after,
        log: periods.log,
        save: periods.save,
        validate: periods.validate,
        sheet: periods.sheet,
    };
    run_loop::run(training, schedule, folder, &mut watch, cancel)
}

/// What a run has come to, for standard output.
pub(crate) fn report<T: Trainer, D: TrainingData<Batch = T::Batch>, V: Validator<T>>(
    training: &Training<T, D, V>,
    steps: u64,
    settings: &RunSettings,
) -> String {
    let (done, output) = (training.steps_done(), settings.output.display());
    match done == steps {
        true => format!("trained {steps} steps: {output}/{}\n", T::KIND),
        false => format!("stopped after {done} of {steps} steps; the same command without --stop-after goes on\n"),
    }
}
