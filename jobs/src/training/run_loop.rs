//! The training loop, the same for everything that is trained.

use super::{
    driver::{Training, TrainingData, Validator},
    run_folder::RunFolder,
    watch::{LossCheck, Watch},
};
use crate::settings::Schedule;
use anyhow::{Context, Result};
use models::{StepReport, Trainer};
use pipeline::PipelineError;
use tokio_util::sync::CancellationToken;

/// Where a run is written and shown: with one process, or the first of several.
#[derive(Debug)]
pub(crate) struct Outputs<'a> {
    pub(crate) folder: &'a mut RunFolder,
    pub(crate) watch: &'a mut Watch,
}

impl Outputs<'_> {
    /// Does something beside training, whose time does not count, where there is anything to do it for.
    fn aside(outputs: &mut Option<Self>, work: impl FnOnce(&mut RunFolder) -> Result<()>) -> Result<()> {
        match outputs {
            Some(Outputs { folder, watch }) => watch.aside(|| work(folder)),
            None => Ok(()),
        }
    }
}

/// Trains until all updates are made, and publishes the result. Where it stops earlier, it leaves a checkpoint. Of several processes, all but
/// the first train, score their share of what is validated on, and write nothing.
///
/// # Errors
/// When the data, the device, the disk or another process fails, the loss is no number any more, or `cancel` asks to stop.
pub(crate) fn run<T: Trainer, D: TrainingData<Batch = T::Batch>, V: Validator<T>>(
    training: &mut Training<T, D, V>,
    mut outputs: Option<Outputs<'_>>,
    cancel: &CancellationToken,
) -> Result<()> {
    let (schedule, mut losses) = (training.schedule(), LossCheck::default());
    let last = schedule.stop_after.unwrap_or(schedule.steps).min(schedule.steps);
    let mut saved = training.steps_done();
    // Of the last step, where nobody has looked at it.
    let mut unseen = None;
    while training.steps_done() < last {
        let learning_rate = training.trainer.learning_rate();
        if let Some(error) = training.load_or_end(cancel)? {
            if saved < training.steps_done() {
                // Data that fails, or a stop while it stalls, does not cost the steps since the last checkpoint.
                let saved = save_unseen(training, unseen.as_ref(), &mut losses, &mut outputs);
                saved.with_context(|| format!("after {error:#}"))?;
            }
            return Err(error);
        }
        // A step that fails may have moved some of the weights: it is not saved.
        let report = training.step()?;
        let step = training.steps_done();
        // An early stop adds a checkpoint and nothing else: the run must be the one that was not stopped.
        let due = |period: u64| step.is_multiple_of(period) || step == schedule.steps;
        // Several processes agree on it before the next update.
        let cancelled = cancel.is_cancelled() && !training.is_shared();
        let tell = due(schedule.periods.log) || due(schedule.periods.validate);
        let save = due(schedule.periods.save) || step == last || cancelled;
        // The one wait for the device. Nothing is saved of a step whose losses nobody has looked at.
        let scalars = if tell || save { losses.check(step, &report)? } else { Vec::new() };
        if save {
            training.check_equal()?;
        }
        let shown = show(training, schedule, &mut outputs, (learning_rate, &scalars));
        if save || (shown.is_err() && !training.is_shared()) {
            // Also where telling of it failed: the steps since the last checkpoint are not lost for a picture.
            if !save {
                losses.check(step, &report)?;
            }
            if saved < step {
                Outputs::aside(&mut outputs, |folder| training.save(folder))?;
                saved = step;
            }
        }
        shown?;
        unseen = (!tell && !save).then_some(report);
        if cancelled && step < last {
            return Err(PipelineError::Drained.into());
        }
    }
    match last == schedule.steps {
        true => training.publish(outputs.as_ref().map(|outputs| &*outputs.folder)),
        false => Ok(()),
    }
}

/// Saves the last step, unless its losses are no numbers.
fn save_unseen<T: Trainer, D: TrainingData<Batch = T::Batch>, V: Validator<T>>(
    training: &Training<T, D, V>,
    unseen: Option<&StepReport>,
    losses: &mut LossCheck,
    outputs: &mut Option<Outputs<'_>>,
) -> Result<()> {
    if let Some(report) = unseen {
        losses.check(training.steps_done(), report)?;
    }
    Outputs::aside(outputs, |folder| training.save(folder))
}

/// Everything that is shown of a step: scores, metrics, a sheet, the best.
fn show<T: Trainer, D: TrainingData<Batch = T::Batch>, V: Validator<T>>(
    training: &Training<T, D, V>,
    schedule: Schedule,
    outputs: &mut Option<Outputs<'_>>,
    (learning_rate, scalars): (f64, &[(&'static str, f64)]),
) -> Result<()> {
    let step = training.steps_done();
    let due = |period: u64| step.is_multiple_of(period) || step == schedule.steps;
    let tell = due(schedule.periods.log) || due(schedule.periods.validate);
    // Of all processes, not of the first alone.
    let moment = if tell { Some(training.moment()?) } else { None };
    let scores = match outputs {
        _ if !due(schedule.periods.validate) => Vec::new(),
        Some(Outputs { watch, .. }) => watch.aside(|| training.scores())?,
        None => training.scores()?,
    };
    let Some(Outputs { folder, watch }) = outputs else { return Ok(()) };
    if let Some(moment) = moment.filter(|_| due(schedule.periods.log) || !scores.is_empty()) {
        watch.log(&moment, scalars, learning_rate, &scores)?;
    }
    if due(schedule.periods.sheet) {
        let sheet = watch.aside(|| training.sheet())?;
        if let Some(sheet) = sheet {
            watch.sheet(step, &sheet, folder)?;
        }
    }
    match scores.first() {
        Some((_, score)) => watch.aside(|| training.keep_best(folder, *score)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        exit_code::{self, ExitCode},
        progress::Progress,
        settings::{LogFormat, Periods, ProgressStyle},
        training::{
            driver::{NextBatch, TrainingOptions},
            sheet::Sheet,
        },
    };
    use indicatif::MultiProgress;
    use models::{ModelError, Precision, ProcessGroup};
    use pipeline::DataPosition;
    use std::{path::Path, sync::Arc, time::Duration};

    /// What happens to the load after some steps.
    #[derive(Clone, Copy)]
    enum Load {
        Works,
        /// Storage fails after so many steps.
        FailsAfter(u64),
        /// After so many steps a signal comes before the images do.
        StoppedAfter(u64),
    }

    /// A training whose only weight is how many steps it has made.
    struct Fake {
        load: Load,
        /// Of each step, the first one first.
        losses: Vec<f64>,
        scores: Vec<f64>,
    }

    impl Fake {
        fn new(losses: &[f64], scores: &[f64]) -> Self {
            Self { load: Load::Works, losses: losses.to_vec(), scores: scores.to_vec() }
        }
    }

    struct FakeTrainer {
        steps_done: u64,
        losses: Vec<f64>,
    }

    impl Trainer for FakeTrainer {
        type Batch = ();
        const KIND: &'static str = "tokenizer";

        fn steps_done(&self) -> u64 {
            self.steps_done
        }
        fn learning_rate(&self) -> f64 {
            0.5
        }
        fn scalars(&self) -> Vec<&'static str> {
            vec!["total_loss"]
        }
        fn step(&mut self, _: &[()]) -> Result<StepReport, ModelError> {
            self.steps_done += 1;
            Ok(StepReport::of(&[("total_loss", self.losses[self.steps_done as usize - 1])]))
        }
        fn save(&self, folder: &Path) -> Result<(), ModelError> {
            self.publish(Precision::Fp32, folder)
        }
        fn restore(&mut self, _: &Path, _: u64) -> Result<(), ModelError> {
            unreachable!("every run is a new one")
        }
        fn is_same_everywhere(&self) -> Result<bool, ModelError> {
            Ok(true)
        }
        fn distribute(&mut self, _: &Arc<ProcessGroup>, _: u64) -> Result<(), ModelError> {
            unreachable!("every run is of one process")
        }
        fn publish(&self, _: Precision, folder: &Path) -> Result<(), ModelError> {
            std::fs::write(folder.join("weight"), self.steps_done.to_string()).expect("written");
            Ok(())
        }
    }

    struct FakeData {
        load: Load,
        given: u64,
    }

    impl TrainingData for FakeData {
        type Batch = ();
        const WAITING_ADVICE: &'static str = "wait";
        const DIGEST: &'static str = "digest";

        fn next(&mut self, cancel: &CancellationToken) -> Result<NextBatch<()>, PipelineError> {
            match self.load {
                Load::FailsAfter(steps) if steps == self.given => {
                    Err(PipelineError::Stalled { seconds: 9, stages: String::new() })
                }
                Load::StoppedAfter(steps) if steps == self.given => {
                    cancel.cancel();
                    Err(PipelineError::Drained)
                }
                _ => {
                    self.given += 1;
                    Ok(NextBatch { batch: (), epoch: 0, next: DataPosition::default() })
                }
            }
        }
        fn waited(&self) -> Duration {
            Duration::ZERO
        }
        fn digest(&self) -> &str {
            "of nothing"
        }
        fn told_of_change(&self, _: &str) -> String {
            unreachable!("every run is a new one")
        }
        fn rejected(&self) -> Option<u64> {
            None
        }
    }

    struct FakeValidator {
        scores: Vec<f64>,
    }

    impl Validator<FakeTrainer> for FakeValidator {
        const LOWER_IS_BETTER: bool = false;

        fn scores(&self, trainer: &FakeTrainer, _: Option<&ProcessGroup>) -> Result<Vec<(String, f64)>> {
            let score = self.scores.get(trainer.steps_done as usize - 1);
            Ok(score.map(|score| ("score".to_owned(), *score)).into_iter().collect())
        }
        fn sheet(&self, _: &FakeTrainer, _: &[()]) -> Result<Option<Sheet>> {
            Ok(Some(Sheet { png: vec![1], width: 1, height: 1 }))
        }
        fn final_scores(&self, _: &FakeTrainer, _: Precision, _: Option<&ProcessGroup>) -> Result<serde_json::Value> {
            Ok(serde_json::Value::Null)
        }
        fn validated_on(&self) -> String {
            "images".to_owned()
        }
        fn digest(&self) -> String {
            unreachable!("every run is of one process")
        }
    }

    /// Runs `training` over all of its losses, with metrics and a checkpoint every `every` steps of which two are kept.
    fn run_in(root: &Path, fake: Fake, every: u64, cancel: &CancellationToken) -> Result<()> {
        let Fake { load, losses, scores } = fake;
        let steps = losses.len() as u64;
        // A validation checks the losses, too.
        let validate = if scores.is_empty() { steps } else { 1 };
        let periods = Periods { log: every, save: every, validate, sheet: steps };
        let mut folder = RunFolder::open(root, 2, serde_json::Value::Null).expect("a folder");
        let progress = Progress::new(ProgressStyle::None, 1, LogFormat::Text, MultiProgress::new());
        let columns = ["total_loss", "score"].map(str::to_owned);
        let options = TrainingOptions {
            group: None,
            settings: serde_json::Value::Null,
            schedule: Schedule { steps, stop_after: None, periods },
            accumulation: 1,
            global_batch_size: 1,
            publish_precision: Precision::Fp32,
            allow_other_settings: false,
            machine: String::new(),
        };
        let trainer = FakeTrainer { steps_done: 0, losses };
        let data = FakeData { load, given: 0 };
        let mut training =
            Training::begin(trainer, |_| Ok(data), FakeValidator { scores }, Some(&mut folder), options)?;
        let mut watch = training.watch(&folder, &columns, steps, &progress).expect("files");
        run(&mut training, Some(Outputs { folder: &mut folder, watch: &mut watch }), cancel)
    }

    /// What is below `root` with `prefix`, in order.
    fn found(root: &Path, prefix: &str) -> Vec<String> {
        let entries = std::fs::read_dir(root).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| name.starts_with(prefix));
        names.sort();
        names
    }

    #[test]
    fn the_best_of_all_validations_and_the_last_checkpoints_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let training = Fake::new(&[0.5; 4], &[1.0, 3.0, 2.0, f64::NAN]);
        run_in(root, training, 1, &CancellationToken::new()).expect("it ends");
        assert_eq!(found(root, "best"), ["best", "best-step-00000002"]);
        assert_eq!(std::fs::read_link(root.join("best")).expect("a link"), Path::new("best-step-00000002"));
        let weight = |folder: &str| std::fs::read_to_string(root.join(folder).join("weight")).expect("a file");
        assert_eq!((weight("best"), weight("tokenizer")), ("2".to_owned(), "4".to_owned()));
        assert_eq!(found(&root.join("checkpoints"), ""), ["step-00000003", "step-00000004"]);
        assert_eq!(found(root, ".partial"), [""; 0]);
    }

    #[test]
    fn steps_before_a_failure_of_the_storage_are_saved() {
        let folder = tempfile::tempdir().expect("a folder");
        let training = Fake { load: Load::FailsAfter(5), ..Fake::new(&[0.5; 9], &[]) };
        let ended = run_in(folder.path(), training, 4, &CancellationToken::new());
        assert_eq!(exit_code::of(&ended.expect_err("storage failed")), ExitCode::Temporary);
        let checkpoints = folder.path().join("checkpoints");
        assert_eq!(found(&checkpoints, ""), ["step-00000004", "step-00000005"]);
        assert_eq!(std::fs::read_to_string(checkpoints.join("step-00000005/weight")).expect("a file"), "5");
        assert!(!folder.path().join("tokenizer").exists(), "nothing is published before the end");
    }

    #[test]
    fn steps_before_a_failure_are_not_saved_when_a_loss_is_no_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let losses = [0.5, 0.5, 0.5, 0.5, f64::NAN, 0.5];
        let training = Fake { load: Load::FailsAfter(5), ..Fake::new(&losses, &[]) };
        let ended = run_in(folder.path(), training, 4, &CancellationToken::new());
        let error = ended.expect_err("storage failed");
        let text = format!("{error:#}");
        assert!(text.contains("total_loss") && text.contains("after"), "both are told: {text}");
        assert_eq!(found(&folder.path().join("checkpoints"), ""), ["step-00000004"]);
    }

    #[test]
    fn a_stop_while_the_images_stall_saves_and_leaves() {
        let folder = tempfile::tempdir().expect("a folder");
        let training = Fake { load: Load::StoppedAfter(2), ..Fake::new(&[0.5; 9], &[]) };
        let ended = run_in(folder.path(), training, 4, &CancellationToken::new());
        assert_eq!(exit_code::of(&ended.expect_err("it was stopped")), ExitCode::Drained);
        assert_eq!(found(&folder.path().join("checkpoints"), ""), ["step-00000002"]);
    }
}
