//! What a run tells while it runs: a line of progress, a table, event files, pictures and metrics.

use super::{metrics_table::MetricsTable, run_folder::RunFolder, sheet::Sheet, tensorboard::EventFile};
use crate::{
    metrics::Metrics,
    progress::{Progress, StepProgress},
};
use anyhow::{Context, Result, ensure};
use models::StepReport;
use report::text::{duration, percent};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Fraction of the time spent waiting for data above which a run says so.
const MUCH_WAITING: f64 = 0.1;

/// Checks in a row of steps that overflowed after which a run gives up: the scale of the loss is halved at every step between.
const MOST_OVERFLOWS: u32 = 20;

/// What to do when the numbers are gone.
const NEXT: &str = "The last checkpoint is from before. The same command with a lower --learning-rate or --max-grad-norm, or with \
                    --precision fp32 or bf16, and --allow-other-settings goes on from it";

/// A run as it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Updates made.
    pub(super) step: u64,
    /// The epoch that the last batch came from.
    pub(super) epoch: u64,
    /// Images of an update.
    pub(super) global_batch_size: u64,
    /// Time spent waiting for data, in all.
    pub(super) waited: Duration,
    /// Whose wait that is, of several processes: the longest.
    pub(super) waiting_rank: Option<usize>,
    /// Images that could not be used; `None` where none is ever passed over.
    pub(super) rejected: Option<u64>,
    /// What to do when the device waits for data.
    pub(super) waiting_advice: &'static str,
}

/// Everything that is told of a run.
#[derive(Debug)]
pub(crate) struct Watch {
    table: MetricsTable,
    events: EventFile,
    progress: StepProgress,
    metrics: Metrics,
    steps: u64,
    since: Since,
    waiting: Waiting,
}

/// Holds the scalars of a step to what training can go on with.
#[derive(Debug, Default)]
pub(crate) struct LossCheck {
    /// Checks in a row of steps that overflowed.
    overflows: u32,
}

impl LossCheck {
    /// Waits for the device and looks at the scalars of a step.
    ///
    /// # Errors
    /// When a loss is no number: every weight would soon be none either, and checkpoints with them.
    pub(crate) fn check(&mut self, step: u64, report: &StepReport) -> Result<Vec<(&'static str, f64)>> {
        let scalars = report.read()?;
        let overflowed = scalars.contains(&(StepReport::OVERFLOWED, 1.0));
        self.overflows = if overflowed { self.overflows + 1 } else { 0 };
        ensure!(
            self.overflows < MOST_OVERFLOWS,
            "step {step}: {MOST_OVERFLOWS} checks in a row found float16 overflowing. {NEXT}"
        );
        let broken: Vec<_> = scalars
            .iter()
            .filter(|(name, value)| is_loss(name) && !value.is_finite() && !overflowed)
            .map(|(name, _)| *name)
            .collect();
        ensure!(broken.is_empty(), "step {step}: no number any more: {}. {NEXT}", broken.join(", "));
        Ok(scalars)
    }
}

/// Where the clock and the counters stood at the last line.
#[derive(Debug)]
struct Since {
    clock: Instant,
    step: u64,
    waited: Duration,
    /// Time since then that was not spent on training.
    aside: Duration,
}

impl Watch {
    /// Begins or goes on at `moment`. `columns` names all scalars and scores that there can be.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn new(
        moment: &Moment,
        folder: &RunFolder,
        columns: &[String],
        steps: u64,
        progress: &Progress,
    ) -> Result<Self> {
        let step = moment.step;
        let rejected = moment.rejected.map(|_| "images_rejected");
        let common = ["epoch", "images_seen"].into_iter().chain(rejected);
        let common = common.chain(["learning_rate", "images_per_second", "data_wait_share"]);
        let columns: Vec<String> = common.map(str::to_owned).chain(columns.iter().cloned()).collect();
        Ok(Self {
            table: MetricsTable::open(&folder.root().join("metrics.csv"), &columns, step)?,
            events: EventFile::create(&folder.root().join("tensorboard"), step as i64)?,
            progress: progress.steps(steps, step),
            metrics: progress.metrics().clone(),
            steps,
            since: Since { clock: Instant::now(), step, waited: moment.waited, aside: Duration::ZERO },
            waiting: Waiting::default(),
        })
    }

    /// Does something beside training, whose time does not count.
    pub(crate) fn aside<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = work();
        self.since.aside += started.elapsed();
        result
    }

    /// Tells of a step.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn log(
        &mut self,
        moment: &Moment,
        scalars: &[(&'static str, f64)],
        learning_rate: f64,
        scores: &[(String, f64)],
    ) -> Result<()> {
        let step = moment.step;
        let seconds = self.since.clock.elapsed().saturating_sub(self.since.aside).as_secs_f64().max(1e-9);
        let steps = step - self.since.step;
        let images_a_second = (steps * moment.global_batch_size) as f64 / seconds;
        let wait_fraction = moment.waited.saturating_sub(self.since.waited).as_secs_f64() / seconds;
        let mut values = vec![
            ("epoch", moment.epoch as f64),
            ("images_seen", (step * moment.global_batch_size) as f64),
            ("learning_rate", learning_rate),
            ("images_per_second", images_a_second),
            ("data_wait_share", wait_fraction),
        ];
        values.extend(moment.rejected.map(|images| ("images_rejected", images as f64)));
        values.extend(scalars.iter().copied());
        values.extend(scores.iter().map(|(name, value)| (name.as_str(), *value)));
        self.table.append(step, &values)?;
        self.events.scalars(step as i64, wall_time(), &values);
        self.events.flush()?;
        self.metrics.show_step(step, self.steps, &values);
        if self.waiting.is_news(wait_fraction) {
            let who = moment.waiting_rank.map_or_else(|| "the device".to_owned(), |rank| format!("rank {rank}"));
            tracing::warn!("{who} waits for data {} of the time: {}", percent(wait_fraction), moment.waiting_advice);
        }
        let left = seconds / steps.max(1) as f64 * self.steps.saturating_sub(step) as f64;
        let losses: Vec<String> = scalars
            .iter()
            .filter(|(name, _)| is_loss(name))
            .map(|(name, value)| format!("{} {value:.4}", name.trim_end_matches("_loss").replace('_', " ")))
            .collect();
        self.progress.show(
            step,
            &format!(
                "{}, rate {learning_rate:.2e}, {images_a_second:.1} images/s, waiting for data {}, {} left",
                losses.join(", "),
                percent(wait_fraction),
                duration(left)
            ),
        );
        if !scores.is_empty() {
            let scores: Vec<String> = scores.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            tracing::info!(step, "{}", scores.join(", "));
        }
        self.since = Since { clock: Instant::now(), step, waited: moment.waited, aside: Duration::ZERO };
        Ok(())
    }

    /// Keeps a sheet as a file and shows it in the event file.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn sheet(&mut self, step: u64, sheet: &Sheet, folder: &RunFolder) -> Result<()> {
        let sheets = folder.root().join("sheets");
        std::fs::create_dir_all(&sheets).with_context(|| format!("{} cannot be made", sheets.display()))?;
        sheet.write(&sheets.join(format!("step-{step:08}.png")))?;
        self.events.image(step as i64, wall_time(), "sheet", &sheet.png, sheet.width, sheet.height);
        self.events.flush()
    }
}

/// Whether it has been said that the device waits for its data.
#[derive(Debug, Default)]
struct Waiting {
    told: bool,
}

impl Waiting {
    /// Whether to say that the device waits `fraction` of its time: once, and again when it does after it did not. A fraction that goes up
    /// and down around the threshold is not said at every turn.
    fn is_news(&mut self, fraction: f64) -> bool {
        let news = fraction > MUCH_WAITING && !self.told;
        self.told = fraction > MUCH_WAITING || (self.told && fraction > MUCH_WAITING / 2.0);
        news
    }
}

/// Whether a scalar is a loss of the whole, or a term of it. Parts of it, such as `loss_level_0`, are no numbers only where it is none.
fn is_loss(name: &str) -> bool {
    name == "loss" || name.ends_with("_loss")
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_told_once_and_again_after_it_was_over() {
        let mut waiting = Waiting::default();
        let told = [0.05, 0.2, 0.2, 0.07, 0.2, 0.01, 0.07, 0.2, 0.2].map(|fraction| waiting.is_news(fraction));
        assert_eq!(told, [false, true, false, false, false, false, false, true, false]);
    }
}
