//! Takes a look at the counters every so often, and keeps few of them, evenly spread, however long the run.

use super::{FORMAT, Outcome, RunEnd, RunLog, StageLog, clock::stamp};
use pipeline::{Snapshot, StageSnapshot, Telemetry};
use schemas::PlanHash;
use std::time::Duration;

/// Looks that are kept, at most, besides the last.
const MOMENTS: usize = 200;

/// Time between two looks at first; it doubles whenever there are too many of them.
const FIRST_PERIOD: Duration = Duration::from_millis(100);

/// The looks so far.
#[derive(Debug)]
pub struct Recorder {
    period: Duration,
    moments: Vec<Snapshot>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { period: FIRST_PERIOD, moments: Vec::new() }
    }
}

impl Recorder {
    /// Looks at the counters until it is dropped.
    pub async fn record(&mut self, telemetry: &Telemetry) {
        loop {
            tokio::time::sleep(self.period).await;
            self.take(telemetry.snapshot());
            self.thin();
        }
    }

    /// Keeps a look.
    pub fn take(&mut self, snapshot: Snapshot) {
        self.moments.push(snapshot);
    }

    /// Drops every second look when there are too many, and the last is one that stays: so they stay evenly spread.
    fn thin(&mut self) {
        if self.moments.len() >= MOMENTS {
            let mut number = 0;
            self.moments.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            self.period *= 2;
        }
    }

    /// Whether the run has anything to tell: it owns its output (or its units would not be counted), and read an image or failed.
    pub fn is_worth_keeping(&self, outcome: Outcome) -> bool {
        self.moments
            .last()
            .is_some_and(|last| last.units_total > 0 && (last.images_listed > 0 || outcome == Outcome::Failed))
    }

    /// The log of a run of `plan` that has ended.
    pub fn into_log(self, plan: &PlanHash, end: RunEnd) -> RunLog {
        let RunEnd { started, rank, world_size, outcome, problem } = end;
        let moments = &self.moments;
        let last = moments.last();
        RunLog {
            format: FORMAT,
            plan: plan.clone(),
            started: stamp(started),
            rank,
            world_size,
            restok: env!("CARGO_PKG_VERSION").to_owned(),
            outcome,
            problem,
            units_total: last.map_or(0, |last| last.units_total),
            images_rejected: last.map_or(0, |last| last.images_rejected),
            limiting_stage: last.and_then(Snapshot::limiting_stage).map(|stage| stage.name().to_owned()),
            seconds: moments.iter().map(|moment| thousandths(moment.elapsed.as_secs_f64())).collect(),
            images_read: moments.iter().map(|moment| moment.images_listed).collect(),
            images_written: moments.iter().map(|moment| moment.images_written).collect(),
            units: moments.iter().map(|moment| moment.units_done).collect(),
            stages: last.map_or_else(Vec::new, |last| {
                last.stages.iter().enumerate().map(|(index, stage)| stage_log(moments, index, stage)).collect()
            }),
        }
    }
}

/// The course of the stage that is the `index`-th of every look.
fn stage_log(moments: &[Snapshot], index: usize, last: &StageSnapshot) -> StageLog {
    let looks = || moments.iter().map(|moment| &moment.stages[index]);
    StageLog {
        stage: last.stage.name().to_owned(),
        item: last.stage.item().to_owned(),
        capacity: last.capacity.max(1),
        items: looks().map(|look| look.items).collect(),
        busy_seconds: looks().map(|look| thousandths(look.busy.as_secs_f64())).collect(),
    }
}

fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::Stage;

    fn moment(seconds: u64, images: u64) -> Snapshot {
        Snapshot {
            elapsed: Duration::from_secs(seconds),
            units_total: 4,
            images_listed: images,
            ..Telemetry::new().snapshot()
        }
    }

    #[test]
    fn looks_stay_few_and_evenly_spread() {
        let mut recorder = Recorder::default();
        let mut seconds = 0;
        for _ in 0..1_000 {
            seconds += recorder.period.as_millis() as u64 / 100;
            recorder.take(moment(seconds, seconds));
            recorder.thin();
        }
        let kept: Vec<u64> = recorder.moments.iter().map(|moment| moment.elapsed.as_secs()).collect();
        assert!((MOMENTS / 2..=MOMENTS).contains(&kept.len()), "{}", kept.len());
        let steps: std::collections::BTreeSet<u64> = kept.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(steps, [kept[0]].into());
    }

    #[test]
    fn a_stage_is_told_with_its_work_until_each_look() {
        let telemetry = std::sync::Arc::new(Telemetry::new());
        telemetry.set_capacity(Stage::Encode, 2);
        let mut recorder = Recorder::default();
        for (seconds, busy) in [(10, 5), (20, 20)] {
            telemetry.record(Stage::Encode, 3, 0, Duration::from_secs(busy));
            recorder.take(Snapshot { stages: telemetry.snapshot().stages, ..moment(seconds, seconds) });
        }
        let plan: PlanHash = serde_json::from_value("0".repeat(64).into()).expect("a hash");
        let end = RunEnd {
            started: std::time::SystemTime::UNIX_EPOCH,
            rank: 0,
            world_size: 1,
            outcome: Outcome::Finished,
            problem: None,
        };
        let log = recorder.into_log(&plan, end);
        assert_eq!((log.started.as_str(), log.is_sound()), ("19700101T000000.000Z", true));
        let encode = log.stages.iter().find(|stage| stage.stage == "encode").expect("a stage");
        assert_eq!(
            (encode.busy_seconds.as_slice(), encode.items.as_slice()),
            ([5.0, 25.0].as_slice(), [3, 6].as_slice())
        );
        assert_eq!((log.limiting_stage.as_deref(), log.images_read), (Some("encode"), vec![10, 20]));
    }

    #[test]
    fn a_run_that_did_nothing_or_was_refused_leaves_nothing() {
        let mut recorder = Recorder::default();
        assert!(!recorder.is_worth_keeping(Outcome::Failed));
        recorder.take(Snapshot { units_total: 0, ..moment(1, 0) });
        assert!(!recorder.is_worth_keeping(Outcome::Failed), "the output belongs to another plan");
        recorder.take(moment(2, 0));
        assert!(recorder.is_worth_keeping(Outcome::Failed) && !recorder.is_worth_keeping(Outcome::Finished));
        recorder.take(moment(3, 8));
        assert!(recorder.is_worth_keeping(Outcome::Finished));
    }
}
