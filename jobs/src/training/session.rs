//! What every command that trains does around the loop: it tells of the device, opens the watch, and reports the end.

use super::{
    driver::{Training, TrainingData, Validator},
    run_folder::RunFolder,
    run_loop::{self, Outputs},
};
use crate::{
    metrics::Exporting,
    progress::Progress,
    settings::{Batches, RunSettings, SettingsError},
};
use anyhow::Result;
use models::{Device, Precision, ProcessGroup, Trainer};
use report::text::counted;
use tokio_util::sync::CancellationToken;

/// Says where training runs and on how many images a step, and warns where its precision has no instructions there.
pub(crate) fn tell_device(device: Device, precision: Precision, batches: Batches) {
    tracing::info!(device = %models::machine(device), precision = %precision, "training");
    if batches.processes > 1 {
        let (processes, images) = (batches.processes, counted(batches.global_size(), "image"));
        tracing::info!("{processes} processes train together, {images} a step");
    }
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
    let open = || RunFolder::open(&settings.output, settings.keep_checkpoints, fixed.clone());
    is_first(group).then(open).transpose()
}

/// Whether this process is alone, or the first of several: the one that writes, draws and speaks.
pub(crate) fn is_first(group: Option<&ProcessGroup>) -> bool {
    group.is_none_or(|group| group.rank() == 0)
}

/// Whether this process scores the batch of this number, counted from 0, of what is validated on: several processes take them in turn.
pub(crate) fn is_own_batch(group: Option<&ProcessGroup>, number: usize) -> bool {
    group.is_none_or(|group| number % group.world_size() == group.rank())
}

/// Tells the numbers of a run to a monitoring system where that was asked for; of several processes the first does, which alone knows
/// those of all.
///
/// # Errors
/// As [`crate::metrics::Metrics::export`].
pub(crate) fn export_metrics(
    group: Option<&ProcessGroup>,
    settings: &RunSettings,
    progress: &Progress,
) -> Result<Option<Exporting>, SettingsError> {
    is_first(group).then(|| progress.metrics().export(settings.metrics_listen)).transpose()
}

/// Notes in what must stay the same that several processes train together. One alone says nothing, as it did when there were no others.
pub(crate) fn add_processes(fixed: &mut serde_json::Value, processes: usize) {
    if processes > 1 {
        fixed["processes"] = processes.into();
    }
}

/// Trains `steps` updates in all, watched, or until a signal or an early stop. `columns` names all scalars and scores. Only the first
/// of several processes has a folder.
///
/// # Errors
/// As [`run_loop::run`].
pub(crate) fn carry_out<T: Trainer, D: TrainingData<Batch = T::Batch>, V: Validator<T>>(
    training: &mut Training<T, D, V>,
    columns: &[String],
    steps: u64,
    folder: Option<&mut RunFolder>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    // The first batch waits for a whole window of data, which says nothing of the batches after it. Several processes wait for it together.
    if training.steps_done() < steps && !training.is_shared() {
        training.load(cancel)?;
    }
    match folder {
        Some(folder) => {
            let mut watch = training.watch(folder, columns, steps, progress)?;
            run_loop::run(training, Some(Outputs { folder, watch: &mut watch }), cancel)
        }
        None => run_loop::run(training, None, cancel),
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
