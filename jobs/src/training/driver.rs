//! A run of training: what is trained, on what, and how it is scored, put together once for everything that is trained.

use super::{
    run_folder::{self, RunFolder},
    sheet::Sheet,
    watch::{Moment, Watch},
};
use crate::settings::Schedule;
use anyhow::{Result, ensure};
use models::{Precision, ProcessGroup, StepReport, Trainer};
use pipeline::{DataPosition, PipelineError};
use serde::{Deserialize, Serialize};
use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};
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

/// Whether a process can make the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// Its batches are there.
    Ready = 0,
    /// A signal has come.
    Stopped = 1,
    /// Its data fails.
    Failed = 2,
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

    /// Scores; the first is the one by which the best is kept. Empty without validation. The processes of `group` all call this, score a share
    /// each, and get the scores of all.
    fn scores(&self, trainer: &T, group: Option<&ProcessGroup>) -> Result<Vec<(String, f64)>>;
    /// A picture; `None` where there is nothing to draw it with. `batches` are those of the last update.
    fn sheet(&self, trainer: &T, batches: &[T::Batch]) -> Result<Option<Sheet>>;
    /// What the finished weights score on everything that there is to validate on, of all processes as [`Self::scores`]; null without
    /// validation.
    fn final_scores(&self, trainer: &T, stored: Precision, group: Option<&ProcessGroup>) -> Result<serde_json::Value>;
    /// What is validated on.
    fn validated_on(&self) -> String;
    /// Of all images that are validated on and their order, which must be the same in all processes. Empty without validation.
    fn digest(&self) -> String;
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
    /// The processes that train together, if there are several.
    group: Option<Arc<ProcessGroup>>,
    /// Batches of an update in each process.
    accumulation: usize,
    /// Images of an update, a view of each.
    global_batch_size: u64,
    batches: Vec<T::Batch>,
    /// Whether the batches are of the step to come.
    loaded: bool,
    epoch: u64,
    next: DataPosition,
    /// Epoch of the last batch that is loaded, and where the data stands behind it.
    behind: Option<(u64, DataPosition)>,
    publish_precision: Precision,
    schedule: Schedule,
    /// Time that each process had waited for data at the last moment, and the longest between two moments in all.
    waits: RefCell<(Vec<f64>, f64)>,
}

/// What the first process goes on from, and all do.
#[derive(Debug, Serialize, Deserialize)]
struct Start {
    settings: serde_json::Value,
    /// When what is done, and when it ends: what all do together at some steps follows from it.
    schedule: Schedule,
    steps_done: u64,
    position: Option<Position>,
}

/// What a run of training goes by.
#[derive(Clone, Debug)]
pub(crate) struct TrainingOptions {
    /// The processes that train together, if there are several.
    pub(crate) group: Option<Arc<ProcessGroup>>,
    /// What must stay the same from the first start of a run to its last.
    pub(crate) settings: serde_json::Value,
    /// When what is done.
    pub(crate) schedule: Schedule,
    /// Batches of an update in each process.
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
    /// Begins a run, or goes on from the newest checkpoint of `folder`, which only the first of several processes has. `open` opens the data
    /// at a position.
    ///
    /// # Errors
    /// When the checkpoint does not read or is of other settings or data, the data cannot be opened, or another process has other settings.
    pub(crate) fn begin(
        mut trainer: T,
        open: impl FnOnce(DataPosition) -> Result<D, PipelineError>,
        validator: V,
        folder: Option<&mut RunFolder>,
        options: TrainingOptions,
    ) -> Result<Self> {
        let newest = match folder {
            Some(folder) => folder.newest::<Position>(options.allow_other_settings, &options.machine)?,
            None => None,
        };
        let (checkpoint, state) = newest.unzip();
        let own = Start {
            settings: options.settings,
            schedule: options.schedule,
            steps_done: state.as_ref().map_or(0, |state| state.steps_done),
            position: state.map(|state| state.position),
        };
        let start = match &options.group {
            Some(group) => agreed_start(group, own)?,
            None => own,
        };
        let from = start.position.as_ref().map_or_else(DataPosition::default, |position| position.data);
        let data = open(from)?;
        if let Some(position) = &start.position {
            let expected = position.digests.get(D::DIGEST).map_or("", String::as_str);
            ensure!(data.digest() == expected, data.told_of_change(expected));
        }
        if let Some(group) = &options.group {
            let digest = group.text_of_first("data", data.digest())?;
            ensure!(
                digest == data.digest(),
                "rank {} reads other data than rank 0: {}",
                group.rank(),
                data.told_of_change(&digest)
            );
            // All score together: one that does not would be waited for.
            let own = validator.digest();
            ensure!(
                group.text_of_first("validation", &own)? == own,
                "rank {} validates on other images than rank 0: on {}",
                group.rank(),
                if own.is_empty() { "none".to_owned() } else { validator.validated_on() },
            );
        }
        if let Some(checkpoint) = &checkpoint {
            trainer.restore(checkpoint, start.steps_done)?;
            tracing::info!(step = start.steps_done, checkpoint = %checkpoint.display(), "going on");
        }
        if let Some(group) = &options.group {
            trainer.distribute(group, start.steps_done)?;
        }
        Ok(Self {
            trainer,
            data,
            validator,
            group: options.group,
            accumulation: options.accumulation,
            global_batch_size: options.global_batch_size,
            batches: Vec::new(),
            loaded: false,
            epoch: from.epoch,
            next: from,
            behind: None,
            publish_precision: options.publish_precision,
            schedule: options.schedule,
            waits: RefCell::default(),
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
        let (rank, world_size) = self.group.as_ref().map_or((0, 1), |group| (group.rank(), group.world_size()));
        // All of them or none: where one is missing, the position stays that of the last update, which may be saved yet. Each process goes
        // over the batches of all, and keeps its own: so the order, and where it stands, are those of one process.
        let batches = (0..self.accumulation * world_size).map(|_| self.data.next(cancel));
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        self.behind = batches.last().map(|last| (last.epoch, last.next));
        let own = batches.into_iter().skip(rank * self.accumulation).take(self.accumulation);
        self.batches = own.map(|next| next.batch).collect();
        self.loaded = true;
        Ok(())
    }

    /// When what is done.
    pub(super) fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// Makes an update of the batches that were loaded.
    pub(super) fn step(&mut self) -> Result<StepReport> {
        self.loaded = false;
        let report = self.trainer.step(&self.batches)?;
        // Not before: batches that were loaded and not used are still to come.
        if let Some(behind) = self.behind {
            (self.epoch, self.next) = behind;
        }
        Ok(report)
    }

    /// Scores of the weights as they are, of all processes together.
    pub(super) fn scores(&self) -> Result<Vec<(String, f64)>> {
        self.validator.scores(&self.trainer, self.group.as_deref())
    }

    pub(super) fn sheet(&self) -> Result<Option<Sheet>> {
        self.validator.sheet(&self.trainer, &self.batches)
    }

    /// Loads the batches of the next update; what ends the run here, where they fail or `cancel` comes. Several processes end after the same
    /// update, whichever of them it is that cannot go on.
    pub(super) fn load_or_end(&mut self, cancel: &CancellationToken) -> Result<Option<anyhow::Error>> {
        let loaded = self.load(cancel);
        let Some(group) = self.group.clone() else { return Ok(loaded.err()) };
        let own = match &loaded {
            _ if cancel.is_cancelled() => Readiness::Stopped,
            Ok(()) => Readiness::Ready,
            Err(_) => Readiness::Failed,
        };
        let worst = group.max(own as i64)?;
        if worst == Readiness::Ready as i64 && self.waits.borrow().0.is_empty() {
            // The first batch waits for a whole window of data, which says nothing of the batches after it.
            self.moment()?;
            self.waits.borrow_mut().1 = 0.0;
        }
        Ok(match loaded {
            Err(error) => Some(error),
            Ok(()) if worst == Readiness::Ready as i64 => None,
            Ok(()) if worst == Readiness::Stopped as i64 => Some(PipelineError::Drained.into()),
            Ok(()) => Some(group.error("the data of another process fails: it says why").into()),
        })
    }

    /// Whether several processes train together.
    pub(super) fn is_shared(&self) -> bool {
        self.group.is_some()
    }

    /// Compares the weights of all processes.
    pub(super) fn check_equal(&self) -> Result<()> {
        let steps = self.steps_done();
        ensure!(self.trainer.is_same_everywhere()?, "after {steps} steps the weights of the processes differ");
        Ok(())
    }

    /// What is told of the run as it stands, of all processes, which ask at the same steps.
    pub(super) fn moment(&self) -> Result<Moment> {
        let mut moment = self.own_moment();
        if let Some(group) = &self.group {
            let mut waits = vec![0.0; group.world_size()];
            waits[group.rank()] = moment.waited.as_secs_f64();
            let waits = group.sum(&waits)?;
            let (before, longest) = &mut *self.waits.borrow_mut();
            before.resize(waits.len(), 0.0);
            let since = waits.iter().zip(&*before).map(|(now, before)| now - before);
            let (rank, most) = since.enumerate().max_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or((0, 0.0));
            *longest += most;
            *before = waits;
            (moment.waited, moment.waiting_rank) = (Duration::from_secs_f64(longest.max(0.0)), Some(rank));
        }
        Ok(moment)
    }

    /// The same of this process alone.
    fn own_moment(&self) -> Moment {
        Moment {
            step: self.steps_done(),
            epoch: self.epoch,
            global_batch_size: self.global_batch_size,
            waited: self.data.waited(),
            waiting_rank: None,
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

    /// Scores the finished weights, unless they are published already, and writes them into `folder`, which only the first process has.
    pub(super) fn publish(&self, folder: Option<&RunFolder>) -> Result<()> {
        let finished = (T::KIND, self.steps_done(), self.publish_precision);
        let is_due = folder.is_some_and(|folder| !folder.has_published(finished));
        let is_due = match &self.group {
            Some(group) => group.max(is_due.into())? > 0,
            None => is_due,
        };
        if !is_due {
            return Ok(());
        }
        let scores = self.validator.final_scores(&self.trainer, self.publish_precision, self.group.as_deref())?;
        let Some(folder) = folder else { return Ok(()) };
        folder.publish(finished, scores, |published| Ok(self.trainer.publish(self.publish_precision, published)?))
    }

    /// Opens the watch over `steps` updates in all. `columns` names all scalars and scores that there can be.
    pub(super) fn watch(
        &self,
        folder: &RunFolder,
        columns: &[String],
        steps: u64,
        progress: &crate::progress::Progress,
    ) -> Result<Watch> {
        Watch::new(&self.own_moment(), folder, columns, steps, progress)
    }
}

/// What the first process says of the start of the run; the settings of the others must be its own.
fn agreed_start(group: &ProcessGroup, own: Start) -> Result<Start> {
    let start: Start = serde_json::from_str(&group.text_of_first("start", &serde_json::to_string(&own)?)?)?;
    let differences = run_folder::differences(&start.settings, &own.settings);
    ensure!(
        differences.is_empty(),
        "other settings than those of rank 0 (then) in this process of rank {} (now):\n{}",
        group.rank(),
        differences.join("\n")
    );
    ensure!(
        start.schedule == own.schedule,
        "rank {} logs, saves, validates or stops at other steps than rank 0: {:?}, expected {:?}",
        group.rank(),
        own.schedule,
        start.schedule
    );
    Ok(start)
}
