//! What every command that trains does around the loop: it tells of the device, opens the watch, and reports the end.

use super::{
    driver::{Training, TrainingData, Validator},
    run_folder::RunFolder,
    run_loop::{self, Schedule, Told},
};
use crate::{progress::Progress, settings::RunSettings};
use anyhow::Result;
use models::{Device, Precision, ProcessGroup, Trainer};
use tokio_util::sync::CancellationToken;

/// Says where training runs, and warns where its precision has no instructions there.
pub(crate) fn tell_device(device: Device, precision: Precision) {
    tracing::info!(device = %models::machine(device), precision = %precision, "training");
    if !precision.is_native(device) {
        tracing::warn!("{device} has no instructions for {precision}: --precision fp32 will be faster");
    }
}

/// The folder of a run, which only the first of several processes has. `fixed` is what every checkpoint of the run must agree on.
///
/// # Errors
/// As [`RunFolder::open`].
pub(crate) fn run_folder(
    group: Option<&ProcessGroup>,
    settings: &RunSettings,
    fixed: &serde_json::Value,
) -> Result<Option<RunFolder>> {
    let is_first = group.is_none_or(|group| group.rank() == 0);
    let open = || RunFolder::open(&settings.output, settings.keep_checkpoints, fixed.clone());
    is_first.then(open).transpose()
}

/// Notes in what must stay the same that several processes train together. One alone says nothing, as it did when there were no others.
pub(crate) fn add_processes(fixed: &mut serde_json::Value, processes: usize) {
    if processes > 1 {
        fixed["processes"] = processes.into();
    }
}

/// Trains `steps` updates in all, watched, or until a signal or `settings.stop_after`. `columns` names all scalars and scores. Only the first
/// of several processes has a folder.
///
/// # Errors
/// As [`run_loop::run`].
pub(crate) fn carry_out<T: Trainer, D: TrainingData<Batch = T::Batch>, V: Validator<T>>(
    training: &mut Training<T, D, V>,
    columns: &[String],
    steps: u64,
    settings: &RunSettings,
    folder: Option<&mut RunFolder>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    // The first batch waits for a whole window of data, which says nothing of the batches after it.
    if training.steps_done() < steps {
        training.load(cancel)?;
    }
    let schedule = Schedule { steps, stop_after: settings.stop_after, periods: settings.periods(steps) };
    match folder {
        Some(folder) => {
            let mut watch = training.watch(folder, columns, steps, progress)?;
            run_loop::run(training, schedule, Some(Told { folder, watch: &mut watch }), cancel)
        }
        None => run_loop::run(training, schedule, None, cancel),
    }
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
