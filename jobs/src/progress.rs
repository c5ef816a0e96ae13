//! What a run shows while it runs: bars on a terminal, lines in a log, metrics.

use crate::{
    engine_protocol::Speaker,
    metrics::Metrics,
    settings::{LogFormat, ProgressStyle},
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle as BarStyle};
use pipeline::{Snapshot, Telemetry};
use report::{
    text::{count, duration, tenths},
    watch::{Look, WorkerState, look_text},
};
use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

/// Time between two looks at the counters while bars are shown.
const BAR_PERIOD: Duration = Duration::from_millis(200);

/// Time between two looks at a job of other processes, where they are redrawn: each asks the store.
const LOOK_PERIOD: Duration = Duration::from_secs(5);

/// How progress is shown.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    shape: Shape,
    bars: MultiProgress,
    /// Of a worker.
    engine: Option<Speaker>,
    metrics: Metrics,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Bars,
    Lines(Duration),
    /// For an engine.
    Events(Duration),
    None,
}

impl Progress {
    /// Decides between bars and lines. `bars` is the same that log lines are written around.
    pub(crate) fn new(style: ProgressStyle, seconds: u64, format: LogFormat, bars: MultiProgress) -> Self {
        let terminal = io::stderr().is_terminal() && format == LogFormat::Text;
        let shape = shape(style, Duration::from_secs(seconds.max(1)), terminal);
        Self { shape, bars, engine: None, metrics: Metrics::default() }
    }

    /// What is there to be fetched.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Looks at a job of other processes: redrawn in place, or lines.
    pub(crate) fn looks(&self) -> LookProgress {
        let drawn = (self.shape == Shape::Bars).then(|| {
            let drawn = self.bars.add(ProgressBar::no_length());
            drawn.set_style(
                BarStyle::with_template("{msg}\n{wide_bar} {pos}/{len} units")
                    .unwrap_or_else(|_| BarStyle::default_bar()),
            );
            drawn
        });
        let lines = match self.shape {
            Shape::Lines(period) => Some(period),
            Shape::Bars | Shape::Events(_) | Shape::None => None,
        };
        LookProgress { drawn, lines }
    }

    /// For an engine: an event every so many seconds.
    pub(crate) fn of_events(engine: Speaker, seconds: u64) -> Self {
        let shape = Shape::Events(Duration::from_secs(seconds.max(1)));
        Self { shape, bars: MultiProgress::new(), engine: Some(engine), metrics: Metrics::default() }
    }

    /// Progress of a training of `total` steps of which `done` are made.
    pub(crate) fn steps(&self, total: u64, done: u64) -> StepProgress {
        let bar = (self.shape == Shape::Bars).then(|| {
            let bar = self.bars.add(ProgressBar::new(total).with_position(done));
            let template = "{wide_bar} step {pos}/{len}\n{wide_msg}";
            bar.set_style(BarStyle::with_template(template).unwrap_or_else(|_| BarStyle::default_bar()));
            bar
        });
        let period = match self.shape {
            Shape::Lines(period) => Some(period),
            Shape::Bars | Shape::Events(_) | Shape::None => None,
        };
        StepProgress { bar, period, total, last: None }
    }

    /// Shows the counters until it is dropped, and takes the bars away then.
    pub(crate) async fn show(&self, telemetry: &Telemetry) {
        match self.shape {
            Shape::Bars => Bars::new(&self.bars).show(telemetry).await,
            Shape::Lines(period) => show_lines(telemetry, period).await,
            Shape::Events(period) => self.show_events(telemetry, period).await,
            Shape::None => std::future::pending().await,
        }
    }
}

impl Progress {
    async fn show_events(&self, telemetry: &Telemetry, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            if let Some(engine) = &self.engine {
                engine.progress(&telemetry.snapshot());
            }
        }
    }
}

fn shape(style: ProgressStyle, period: Duration, terminal: bool) -> Shape {
    match style {
        ProgressStyle::None => Shape::None,
        ProgressStyle::Auto | ProgressStyle::Bars if terminal => Shape::Bars,
        ProgressStyle::Auto | ProgressStyle::Lines => Shape::Lines(period),
        ProgressStyle::Bars => Shape::None,
    }
}

/// Progress of a training: a bar, or a line every so often. The bar is taken away when this is dropped.
#[derive(Debug)]
pub(crate) struct StepProgress {
    bar: Option<ProgressBar>,
    period: Option<Duration>,
    total: u64,
    last: Option<Instant>,
}

impl StepProgress {
    /// Shows that `step` steps are made, and what is to be said of the last one.
    pub(crate) fn show(&mut self, step: u64, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(line.to_owned());
        }
        let due = |period: Duration| self.last.is_none_or(|last| last.elapsed() >= period) || step == self.total;
        if self.period.is_some_and(due) {
            self.last = Some(Instant::now());
            tracing::info!("step {}/{}: {line}", count(step), count(self.total));
        }
    }
}

impl Drop for StepProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Looks at a job. What is drawn is taken away when this is dropped.
#[derive(Debug)]
pub(crate) struct LookProgress {
    drawn: Option<ProgressBar>,
    lines: Option<Duration>,
}

impl LookProgress {
    /// Time between two looks.
    pub(crate) fn period(&self) -> Duration {
        self.lines.unwrap_or(LOOK_PERIOD)
    }

    /// Shows a look.
    pub(crate) fn show(&self, look: &Look) {
        if let Some(drawn) = &self.drawn {
            drawn.set_length(look.units_total.max(1));
            drawn.set_position(look.units_done);
            drawn.set_message(look_text(look));
        }
        if self.lines.is_some() {
            tracing::info!(
                units_done = look.units_done,
                units_total = look.units_total,
                units_in_work = look.units_in_work,
                images = look.row_counts.listed,
                rejected = look.row_counts.rejected_total(),
                images_a_second = tenths(look.images_a_second),
                seconds_left = look.seconds_left.map(tenths),
                workers = look.in_state(WorkerState::Working).count(),
                silent = look.in_state(WorkerState::Silent).count(),
                slow_units = look.slow_units.len(),
                "watching"
            );
        }
    }
}

impl Drop for LookProgress {
    fn drop(&mut self) {
        if let Some(drawn) = &self.drawn {
            drawn.finish_and_clear();
        }
    }
}

/// Bars that are taken away when this is dropped, however the run ended.
struct Bars {
    units: ProgressBar,
    images: ProgressBar,
}

impl Bars {
    fn new(bars: &MultiProgress) -> Self {
        let styled = |template: &str| {
            let bar = bars.add(ProgressBar::no_length());
            bar.set_style(BarStyle::with_template(template).unwrap_or_else(|_| BarStyle::default_bar()));
            bar
        };
        Self { units: styled("units   {wide_bar} {pos}/{len}"), images: styled("images  {wide_bar} {msg}") }
    }

    async fn show(&self, telemetry: &Telemetry) {
        let mut watch = Watch::default();
        loop {
            let snapshot = telemetry.snapshot();
            let moment = watch.look(&snapshot);
            // A bar of length 0 is drawn full: until the output has been read, nothing is known to be done.
            let units_total = snapshot.units_total.max(1);
            self.units.set_length(units_total);
            self.units.set_position(snapshot.units_done);
            if let Some(total) = snapshot.images_total {
                self.images.set_length(total);
                self.images.set_position(moment.images_done);
            } else {
                // A tar's images are unknown until it is read; units tell how far it is.
                self.images.set_length(units_total);
                self.images.set_position(snapshot.units_done);
            }
            self.images.set_message(moment.line(&snapshot));
            tokio::time::sleep(BAR_PERIOD).await;
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.images.finish_and_clear();
        self.units.finish_and_clear();
    }
}

async fn show_lines(telemetry: &Telemetry, period: Duration) {
    let mut watch = Watch::default();
    loop {
        tokio::time::sleep(period).await;
        let snapshot = telemetry.snapshot();
        let moment = watch.look(&snapshot);
        tracing::info!(
            units_done = snapshot.units_done,
            units_total = snapshot.units_total,
            images = snapshot.images_listed,
            rejected = snapshot.images_rejected,
            images_a_second = tenths(moment.rate),
            seconds_left = moment.remaining.map(|time| tenths(time.as_secs_f64())),
            limit = snapshot.limiting_stage().map_or("none yet", pipeline::Stage::name),
            "progress"
        );
    }
}

/// What must be remembered between two looks at the counters.
#[derive(Debug, Default)]
struct Watch {
    units_done_before: Option<u64>,
    looks: std::collections::VecDeque<(Duration, u64)>,
}

/// What one look shows beyond the counters.
#[derive(Debug, PartialEq)]
struct Moment {
    /// Images done, those of earlier runs included, as far as known.
    images_done: u64,
    /// Images a second lately.
    rate: f64,
    /// Time until all is done at the rate of the whole run.
    remaining: Option<Duration>,
}

impl Watch {
    /// Looks over which the rate is taken: short enough to follow a change, long enough not to flicker between batches.
    const LOOKS: usize = 50;

    fn look(&mut self, snapshot: &Snapshot) -> Moment {
        if self.units_done_before.is_none() && snapshot.units_total > 0 {
            self.units_done_before = Some(snapshot.units_done);
        }
        let before = self.units_done_before.unwrap_or(0);
        // Units are nearly equal, so their fraction is that of the images that earlier runs did.
        let images_before = snapshot.images_total.map_or(0, |total| total * before / snapshot.units_total.max(1));
        self.looks.push_back((snapshot.elapsed, snapshot.images_listed));
        if self.looks.len() > Self::LOOKS {
            self.looks.pop_front();
        }
        let (since, images) = self.looks[0];
        let seconds = snapshot.elapsed.saturating_sub(since).as_secs_f64();
        let rate = match seconds > 0.0 {
            true => (snapshot.images_listed - images) as f64 / seconds,
            false => snapshot.images_a_second(),
        };
        let by_units = || {
            let here = snapshot.units_done.checked_sub(before).filter(|here| *here > 0)?;
            let left = snapshot.units_total.saturating_sub(snapshot.units_done);
            Some(snapshot.elapsed.mul_f64(left as f64 / here as f64))
        };
        Moment {
            images_done: images_before + snapshot.images_listed,
            rate,
            remaining: snapshot.remaining(images_before).or_else(by_units),
        }
    }
}

impl Moment {
    fn line(&self, snapshot: &Snapshot) -> String {
        let images = match snapshot.images_total {
            Some(total) => format!("{}/{}", count(self.images_done), count(total)),
            None => count(self.images_done),
        };
        let remaining = self.remaining.map_or(String::new(), |time| format!(", {} left", duration(time.as_secs_f64())));
        let limit = snapshot.limiting_stage().map_or(String::new(), |stage| format!(", limit: {stage}"));
        format!("{images}, {:.1}/s{remaining}, {} rejected{limit}", self.rate, count(snapshot.images_rejected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(seconds: u64, units: (u64, u64), images: (u64, Option<u64>)) -> Snapshot {
        Snapshot {
            elapsed: Duration::from_secs(seconds),
            units_done: units.0,
            units_total: units.1,
            images_listed: images.0,
            images_total: images.1,
            images_rejected: 1,
            ..Telemetry::new().snapshot()
        }
    }

    #[test]
    fn bars_are_for_terminals_only() {
        let period = Duration::from_secs(3);
        assert_eq!(shape(ProgressStyle::Auto, period, true), Shape::Bars);
        assert_eq!(shape(ProgressStyle::Auto, period, false), Shape::Lines(period));
        assert_eq!(shape(ProgressStyle::Bars, period, false), Shape::None);
        assert_eq!(shape(ProgressStyle::Lines, period, true), Shape::Lines(period));
        assert_eq!(shape(ProgressStyle::None, period, true), Shape::None);
    }

    #[test]
    fn a_run_that_goes_on_counts_what_was_done_before() {
        let mut watch = Watch::default();
        watch.look(&snapshot(0, (5, 10), (0, Some(1000))));
        let moment = watch.look(&snapshot(10, (6, 10), (100, Some(1000))));
        assert_eq!((moment.images_done, moment.rate), (600, 10.0));
        assert_eq!(moment.remaining, Some(Duration::from_secs(40)));
    }

    #[test]
    fn units_tell_the_time_where_images_are_not_known() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(&snapshot(0, (2, 10), (0, None))).remaining, None);
        let now = snapshot(30, (4, 10), (200, None));
        let moment = watch.look(&now);
        assert_eq!(moment.remaining, Some(Duration::from_secs(90)));
        assert_eq!(moment.line(&now), "200, 6.7/s, 1 min 30 s left, 1 rejected");
    }
}
