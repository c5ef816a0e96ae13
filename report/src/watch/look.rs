//! How a job stands, as plain values.

use crate::run_log::{Heartbeat, Outcome, UnitInWork};
use schemas::{RowCounts, UnitReport};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

/// Times the median unit after which one in work counts as slow.
const SLOW: f64 = 3.0;

/// Units whose time must be known before one can be told as slow.
const UNITS_FOR_MEDIAN: usize = 3;

/// What is watched, as far as it never changes.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// The output's address, without credentials.
    pub(super) output: String,
    /// The plan's hash.
    pub(super) plan: String,
    /// Units of the plan.
    pub(super) units: u64,
    /// Images of the plan, where they are known before they are read.
    pub(super) images: Option<u64>,
}

/// A worker's newest heartbeat.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) heartbeat: Heartbeat,
    /// When it was written, by the store's clock.
    pub(super) written: SystemTime,
}

impl Heard {
    /// What another worker may take after it: rank, and number of processes. `None` where an engine hands out the units, for all of its
    /// workers have the same rank at once.
    fn place(&self) -> Option<(u32, u32)> {
        (!self.heartbeat.engine).then_some((self.heartbeat.rank, self.heartbeat.world_size))
    }
}

/// What the markers say that were read.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    row_counts: RowCounts,
    /// Seconds that each unit took.
    seconds: Vec<f64>,
}

impl Told {
    /// Adds a unit's marker.
    pub(super) fn add(&mut self, report: &UnitReport) {
        self.row_counts.add(&report.row_counts);
        self.seconds.push(report.seconds);
    }

    /// Seconds of the median unit.
    fn median(&self) -> Option<f64> {
        let mut seconds = self.seconds.clone();
        seconds.sort_unstable_by(f64::total_cmp);
        (seconds.len() >= UNITS_FOR_MEDIAN).then(|| seconds[seconds.len() / 2])
    }
}

/// A job at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Look {
    /// The output's address, without credentials.
    pub output: String,
    /// The plan's hash.
    pub plan: String,
    /// Whether the output is finished.
    pub finished: bool,
    /// Units of the plan.
    pub units_total: u64,
    /// Units that are complete.
    pub units_done: u64,
    /// Units that some worker works on which is not silent.
    pub units_in_work: u64,
    /// Units whose marker was read: all that are complete, unless so many were found at once that the next looks read the rest.
    pub units_counted: u64,
    /// Row counts of those.
    pub row_counts: RowCounts,
    /// Images of the plan, where they are known before they are read.
    pub images_total: Option<u64>,
    /// Images that all workers together read a second.
    pub images_a_second: f64,
    /// Seconds until all units are complete at that rate; absent where nothing moves.
    pub seconds_left: Option<f64>,
    /// Seconds of the median unit; absent before a few units are complete.
    pub median_unit_seconds: Option<f64>,
    /// Every worker that was heard, in the order in which they began, but those after which another one of their rank began.
    pub workers: Vec<WorkerLook>,
    /// Workers that stopped or fell silent before another one of their rank began.
    pub workers_replaced: u64,
    /// Units in work that were begun long ago, the oldest first.
    pub slow_units: Vec<SlowUnit>,
}

/// How a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// It was heard in time.
    Working,
    /// It was not heard in the time that it promised: dead, cut off from the store, or standing still.
    Silent,
    /// It finished the output.
    Finished,
    /// It did all that was to be done, and left the output open.
    Complete,
    /// It was asked to stop.
    Stopped,
    /// An error ended it.
    Failed,
}

impl WorkerState {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Silent => "silent",
            Self::Finished => "finished",
            Self::Complete => "complete",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl From<Outcome> for WorkerState {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Finished => Self::Finished,
            Outcome::Complete => Self::Complete,
            Outcome::Stopped => Self::Stopped,
            Outcome::Failed => Self::Failed,
        }
    }
}

/// A worker at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerLook {
    /// Its name, which no other has.
    pub name: String,
    /// How it is.
    pub state: WorkerState,
    /// Which of several processes it is.
    pub rank: u32,
    /// How many they are.
    pub world_size: u32,
    /// Whether an engine hands out its units: its rank tells it from no other then.
    pub engine: bool,
    /// Name of its machine.
    pub host: String,
    /// Number of its process there.
    pub process_id: u32,
    /// Version of its program.
    pub restok: String,
    /// Seconds since it was last heard.
    pub heard_seconds_ago: f64,
    /// Seconds within which it promised to be heard again, when it was; absent once it has ended.
    pub next_within_seconds: Option<f64>,
    /// Images that it reads a second; 0 where it does not work.
    pub images_a_second: f64,
    /// Units that it stored.
    pub units_here: u64,
    /// Images that it read.
    pub images_read: u64,
    /// Images that it encoded, or samples that it made.
    pub images_written: u64,
    /// Images that it rejected.
    pub images_rejected: u64,
    /// Units that it works on, or did when it fell silent, and that nobody has completed.
    pub in_work: Vec<UnitInWork>,
    /// The stage that it waits for.
    pub limiting_stage: Option<String>,
}

/// A unit that was begun long ago.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlowUnit {
    /// The unit.
    pub unit: u32,
    /// Seconds since it was begun.
    pub seconds: f64,
    /// Rank of the worker that works on it.
    pub rank: u32,
    /// Whether an engine hands out that worker's units.
    pub engine: bool,
    /// Its machine.
    pub host: String,
}

impl Look {
    /// What was read of an output, put together: whether it is finished and which units are complete, what their markers say, the workers
    /// by their names, and what the store's clock shows.
    pub(super) fn of(
        watched: &Watched,
        (finished, done): (bool, &BTreeSet<u32>),
        told: &Told,
        (heard, now): (&BTreeMap<String, Heard>, SystemTime),
    ) -> Self {
        let all: Vec<WorkerLook> = heard.iter().map(|(name, heard)| WorkerLook::of(name, heard, done, now)).collect();
        // When the newest worker of each place began. By the store's clock, as all times here.
        let mut begun: BTreeMap<(u32, u32), SystemTime> = BTreeMap::new();
        for heard in heard.values() {
            let Some(place) = heard.place() else { continue };
            let age = Duration::try_from_secs_f64(heard.heartbeat.seconds).unwrap_or_default();
            let begin = heard.written.checked_sub(age).unwrap_or(heard.written);
            let newest = begun.entry(place).or_insert(begin);
            *newest = begin.max(*newest);
        }
        // Several workers may have one rank at a time: only who began after one was last heard takes its place.
        let stays = |worker: &WorkerLook| {
            let heard = &heard[&worker.name];
            worker.state == WorkerState::Working || heard.place().is_none_or(|place| begun[&place] <= heard.written)
        };
        let (workers, replaced): (Vec<_>, Vec<_>) = all.into_iter().partition(stays);
        let working = || workers.iter().filter(|worker| worker.state == WorkerState::Working);
        let in_work: BTreeSet<u32> = working().flat_map(|worker| &worker.in_work).map(|unit| unit.unit).collect();
        // The sum of nothing is -0, which is shown so.
        let images_a_second = working().map(|worker| worker.images_a_second).sum::<f64>() + 0.0;
        let median = told.median();
        let mut slow_units: Vec<SlowUnit> = working()
            .flat_map(|worker| worker.in_work.iter().map(move |unit| (worker, unit)))
            .filter(|(_, unit)| median.is_some_and(|median| unit.seconds > SLOW * median))
            .map(|(worker, unit)| SlowUnit {
                unit: unit.unit,
                seconds: unit.seconds,
                rank: worker.rank,
                engine: worker.engine,
                host: worker.host.clone(),
            })
            .collect();
        slow_units.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        let (units_total, units_done) = (watched.units, done.len() as u64);
        let units_counted = told.seconds.len() as u64;
        let images_of_a_unit = match (units_counted, watched.images) {
            (0, Some(images)) => images as f64 / units_total.max(1) as f64,
            (0, None) => 0.0,
            (units, _) => told.row_counts.listed as f64 / units as f64,
        };
        let images_left = images_of_a_unit * units_total.saturating_sub(units_done) as f64;
        Self {
            output: watched.output.clone(),
            plan: watched.plan.clone(),
            finished,
            units_total,
            units_done,
            units_in_work: in_work.len() as u64,
            units_counted,
            row_counts: told.row_counts.clone(),
            images_total: watched.images,
            images_a_second,
            seconds_left: (!finished && images_a_second > 0.0 && images_of_a_unit > 0.0)
                .then(|| images_left / images_a_second),
            median_unit_seconds: median,
            workers_replaced: replaced.len() as u64,
            workers,
            slow_units,
        }
    }

    /// Whether nothing is left to do but to close the output.
    pub fn is_complete(&self) -> bool {
        self.units_done == self.units_total
    }

    /// Workers in a state.
    pub fn in_state(&self, state: WorkerState) -> impl Iterator<Item = &WorkerLook> {
        self.workers.iter().filter(move |worker| worker.state == state)
    }
}

impl WorkerLook {
    fn of(name: &str, heard: &Heard, done: &BTreeSet<u32>, now: SystemTime) -> Self {
        let heartbeat = &heard.heartbeat;
        // A clock that stands or goes back a little makes nobody silent.
        let age = now.duration_since(heard.written).unwrap_or(Duration::ZERO).as_secs_f64();
        let state = match (heartbeat.outcome, heartbeat.next_within_seconds) {
            (Some(outcome), _) => outcome.into(),
            (None, Some(next)) if age > next => WorkerState::Silent,
            (None, _) => WorkerState::Working,
        };
        let works = state == WorkerState::Working;
        let left = |unit: &&UnitInWork| !done.contains(&unit.unit);
        let still = |unit: &UnitInWork| UnitInWork { seconds: unit.seconds + age, ..*unit };
        // What has ended works on nothing.
        let in_work = if heartbeat.outcome.is_none() { heartbeat.in_work.as_slice() } else { &[] };
        Self {
            name: name.to_owned(),
            state,
            rank: heartbeat.rank,
            world_size: heartbeat.world_size,
            engine: heartbeat.engine,
            host: heartbeat.host.clone(),
            process_id: heartbeat.process_id,
            restok: heartbeat.restok.clone(),
            heard_seconds_ago: age,
            next_within_seconds: heartbeat.next_within_seconds,
            images_a_second: if works { heartbeat.images_a_second } else { 0.0 },
            units_here: heartbeat.units_here,
            images_read: heartbeat.images_read,
            images_written: heartbeat.images_written,
            images_rejected: heartbeat.rejected.values().sum(),
            in_work: in_work.iter().filter(left).map(still).collect(),
            limiting_stage: heartbeat.limiting_stage.clone(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use schemas::RejectReason;

    const NOW: u64 = 10_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A worker that was last heard some seconds ago, and promised another heartbeat within 60.
    fn heard(rank: u32, seconds_ago: u64, in_work: &[(u32, f64)], outcome: Option<&str>) -> Heard {
        let in_work: Vec<_> =
            in_work.iter().map(|(unit, seconds)| serde_json::json!({ "unit": unit, "seconds": seconds })).collect();
        let mut heartbeat = serde_json::json!({
            "format": 1, "plan": "0".repeat(64), "rank": rank, "world_size": 4, "host": format!("node-{rank}"),
            "process_id": 100 + rank, "restok": "0.1.0", "seconds": 500.0, "units_here": 2, "in_work": in_work,
            "images_read": 250, "images_written": 240, "images_a_second": 10.0, "rejected": { "truncated": 1 },
            "limiting_stage": "encode",
        });
        match outcome {
            Some(outcome) => heartbeat["outcome"] = outcome.into(),
            None => heartbeat["next_within_seconds"] = 60.0.into(),
        }
        let heartbeat = Heartbeat::parse("a.json", heartbeat.to_string().as_bytes()).expect("a heartbeat");
        Heard { heartbeat, written: at(NOW - seconds_ago) }
    }

    /// Ten units of a hundred images, of which four are complete, and four workers: one works, one works slowly, one fell silent and one
    /// failed and began again.
    pub(in super::super) fn look() -> Look {
        let watched =
            Watched { output: "s3://bucket/tokens".to_owned(), plan: "0".repeat(64), units: 10, images: Some(1_000) };
        let rejected = [(RejectReason::Truncated, 3), (RejectReason::Corrupt, 1)].into();
        let row_counts = RowCounts { listed: 400, written: 396, rejected, token_rows: 396, ..RowCounts::default() };
        let told = Told { row_counts, seconds: vec![10.0, 12.0, 30.0, 9.0] };
        let workers = BTreeMap::from([
            ("20260101T000000.000Z-rank0-a".to_owned(), heard(0, 5, &[(3, 9.0), (4, 2.0)], None)),
            ("20260101T000000.000Z-rank1-b".to_owned(), heard(1, 20, &[(5, 40.0)], None)),
            ("20260101T000000.000Z-rank2-c".to_owned(), heard(2, 61, &[(6, 1.0)], None)),
            ("20260101T000000.000Z-rank3-d".to_owned(), heard(3, 900, &[(7, 1.0)], Some("failed"))),
            ("20260101T010000.000Z-rank3-e".to_owned(), heard(3, 59, &[], None)),
        ]);
        Look::of(&watched, (false, &BTreeSet::from([0, 1, 2, 3])), &told, (&workers, at(NOW)))
    }

    #[test]
    fn a_worker_is_silent_when_it_breaks_its_promise_and_gone_when_another_one_took_its_rank() {
        let look = look();
        let states: Vec<_> = look.workers.iter().map(|worker| (worker.rank, worker.state)).collect();
        let working = WorkerState::Working;
        assert_eq!(states, [(0, working), (1, working), (2, WorkerState::Silent), (3, working)]);
        assert_eq!(look.workers_replaced, 1);
        assert_eq!(look.images_a_second, 30.0, "of those that work");
    }

    /// A job of one unit over these workers, of which nothing is complete.
    fn look_at<const WORKERS: usize>(workers: [Heard; WORKERS], now: u64) -> Look {
        let watched = Watched { output: String::new(), plan: String::new(), units: 1, images: None };
        let workers = ["a", "b"].map(str::to_owned).into_iter().zip(workers).collect();
        Look::of(&watched, (false, &BTreeSet::new()), &Told::default(), (&workers, at(now)))
    }

    #[test]
    fn of_workers_that_have_one_rank_at_a_time_none_takes_the_place_of_another() {
        let look = look_at([heard(0, 400, &[], None), heard(0, 5, &[], None)], NOW);
        let states: Vec<_> = look.workers.iter().map(|worker| worker.state).collect();
        assert_eq!((states, look.workers_replaced), (vec![WorkerState::Silent, WorkerState::Working], 0));
    }

    #[test]
    fn a_later_worker_of_an_engine_takes_the_place_of_none() {
        // The second began after the first was last heard.
        let workers = || [heard(0, 900, &[(0, 1.0)], None), heard(0, 5, &[], None)];
        assert_eq!(look_at(workers(), NOW).workers_replaced, 1);
        let of_engine = workers().map(|mut heard| {
            heard.heartbeat.engine = true;
            heard
        });
        let look = look_at(of_engine, NOW);
        let states: Vec<_> = look.workers.iter().map(|worker| worker.state).collect();
        assert_eq!((states, look.workers_replaced), (vec![WorkerState::Silent, WorkerState::Working], 0));
        assert_eq!(look.workers[0].in_work, [UnitInWork { unit: 0, seconds: 901.0 }]);
    }

    #[test]
    fn units_in_work_are_those_that_nobody_has_completed_and_grow_older_since_they_were_told() {
        let look = look();
        assert_eq!(look.workers[0].in_work, [UnitInWork { unit: 4, seconds: 7.0 }]);
        assert_eq!((look.units_done, look.units_in_work), (4, 2));
        let slow: Vec<_> = look.slow_units.iter().map(|slow| (slow.unit, slow.seconds, slow.rank)).collect();
        assert_eq!((look.median_unit_seconds, slow), (Some(12.0), vec![(5, 60.0, 1)]));
    }

    #[test]
    fn the_time_left_is_that_of_the_units_that_are_left_at_the_rate_of_all() {
        assert_eq!(look().seconds_left, Some(600.0 / 30.0));
        let watched = Watched { output: String::new(), plan: String::new(), units: 10, images: None };
        let nobody = Look::of(&watched, (false, &BTreeSet::new()), &Told::default(), (&BTreeMap::new(), at(NOW)));
        assert_eq!((nobody.seconds_left, nobody.median_unit_seconds), (None, None));
    }

    #[test]
    fn a_store_whose_clock_is_behind_makes_nobody_silent() {
        let look = look_at([heard(0, 0, &[], None)], NOW - 500);
        assert_eq!((look.workers[0].state, look.workers[0].heard_seconds_ago), (WorkerState::Working, 0.0));
    }
}
