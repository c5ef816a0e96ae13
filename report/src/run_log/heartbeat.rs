//! What a run says of itself while it works, so that others see from afar that it lives and what it does.
//!
//! A small JSON file every so often, `_log/heartbeats/<plan>/<worker>-<number>.json` below the output, `<worker>` being
//! `<start in UTC>-rank<rank>-<random>`: names of one worker sort by time, and nothing is ever written twice. The time between two is
//! the one that was asked for, and never less than a twentieth of the time that the run has taken, so that they stay few: some sixty in
//! an hour, 120 in a day and 200 in a month at thirty seconds. Each says how soon the next one comes, which the last one does not.
//!
//! All times are durations. When a heartbeat was written, its store says, and no clock of a worker is compared with another's.

use super::{Outcome, clock::stamp};
use bytes::Bytes;
use pipeline::{PipelineError, Snapshot, Stage, Storage, Telemetry};
use schemas::{PlanHash, RejectReason, SchemaError, heartbeat_prefix};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, SystemTime},
};

/// Version of the document.
const FORMAT: u32 = 1;

/// Fraction of the time of a run that passes between two heartbeats, at least.
const FRACTION: u32 = 20;

/// Times the period within which the next heartbeat comes: one may be late, for its store was slow, and no worse.
const LATENESS: u32 = 2;

/// Units in work that a heartbeat names.
const UNITS_NAMED: usize = 64;

/// Longest wait for the store: the next heartbeat says more than one that comes late.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two looks at whether there is anything to do.
const WAITING_FOR_WORK: Duration = Duration::from_millis(200);

/// What a run says of itself at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    /// Version of the document.
    format: u32,
    /// The plan.
    pub(crate) plan: PlanHash,
    /// Which of several processes it is.
    pub(crate) rank: u32,
    /// How many they are.
    pub(crate) world_size: u32,
    /// Whether an engine hands out its units: all workers of one are rank 0 of 1. Absent in older ones.
    #[serde(default)]
    pub(crate) engine: bool,
    /// Name of its machine.
    pub(crate) host: String,
    /// Number of its process there.
    pub(crate) process_id: u32,
    /// Version of its program.
    pub(crate) restok: String,
    /// Seconds since it began.
    pub(crate) seconds: f64,
    /// Seconds within which the next heartbeat is written; absent in the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_within_seconds: Option<f64>,
    /// How it ended, in the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
    /// Units that it stored.
    pub(crate) units_here: u64,
    /// Units that it works on.
    pub(crate) in_work: Vec<UnitInWork>,
    /// Images that it read.
    pub(crate) images_read: u64,
    /// Images that it encoded, or samples that it made.
    pub(crate) images_written: u64,
    /// Images that it read a second since its heartbeat before, or since it began.
    pub(crate) images_a_second: f64,
    /// Images that it rejected, by reason.
    pub(crate) rejected: BTreeMap<RejectReason, u64>,
    /// The stage that it waits for.
    pub(crate) limiting_stage: Option<String>,
}

/// A unit that a run works on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitInWork {
    /// The unit.
    pub unit: u32,
    /// Seconds since it was begun.
    pub seconds: f64,
}

impl Heartbeat {
    /// Reads one.
    ///
    /// # Errors
    /// When it is no heartbeat, or of a later version.
    pub(crate) fn parse(uri: &str, bytes: &[u8]) -> Result<Self, SchemaError> {
        let problem = |problem: String| SchemaError::Document { document: uri.to_owned(), problem };
        let heartbeat: Self = serde_json::from_slice(bytes).map_err(|error| problem(error.to_string()))?;
        match heartbeat.format {
            FORMAT => Ok(heartbeat),
            other => Err(problem(format!("format {other}, this program reads {FORMAT}: use a newer restok"))),
        }
    }
}

/// The worker and the number of a heartbeat, by its path below [`heartbeat_prefix`]; `None` for anything else that may lie there.
pub(crate) fn parse_name(name: &str) -> Option<(&str, u32)> {
    let (worker, number) = name.strip_suffix(".json")?.rsplit_once('-')?;
    Some((worker, number.parse().ok()?))
}

/// A process that says that it lives.
#[derive(Clone, Debug)]
pub struct Worker {
    /// When it began.
    pub started: SystemTime,
    /// Which of several processes it is.
    pub rank: u32,
    /// How many they are.
    pub world_size: u32,
    /// Whether an engine hands out its units.
    pub engine: bool,
    /// Name of its machine.
    pub host: String,
    /// Number of its process there.
    pub process_id: u32,
}

/// Writes the heartbeats of one run.
#[derive(Debug)]
pub struct Heart {
    worker: Worker,
    plan: PlanHash,
    output: Storage,
    /// Of all names before the number.
    front: String,
    period: Duration,
    written: u32,
    /// Time and images read at the heartbeat before.
    before: (Duration, u64),
    warned: bool,
}

impl Heart {
    /// The heart of a run of `plan` into `output`; `period` lies between two beats at first.
    pub fn new(worker: Worker, plan: &PlanHash, output: &Storage, period: Duration) -> Self {
        // Two processes may have one rank and begin in the same millisecond.
        let random = RandomState::new().build_hasher().finish() as u32;
        let name = format!("{}-rank{}-{random:08x}", stamp(worker.started), worker.rank);
        Self {
            front: format!("{}{name}", heartbeat_prefix(plan)),
            worker,
            plan: plan.clone(),
            output: output.clone(),
            period,
            written: 0,
            before: (Duration::ZERO, 0),
            warned: false,
        }
    }

    /// Beats until it is dropped, from when there is work to do in an output that is this plan's own.
    pub async fn beat(&mut self, telemetry: &Telemetry) {
        loop {
            let snapshot = telemetry.snapshot();
            if snapshot.units_done < snapshot.units_total {
                break;
            }
            tokio::time::sleep(WAITING_FOR_WORK).await;
        }
        loop {
            let snapshot = telemetry.snapshot();
            let period = self.period_after(snapshot.elapsed);
            self.write(&snapshot, Some(period * LATENESS), None).await;
            tokio::time::sleep(period).await;
        }
    }

    /// The last beat: says how the run ended. None where there was none before.
    pub async fn stop(&mut self, snapshot: &Snapshot, outcome: Outcome) {
        if self.written > 0 {
            self.write(snapshot, None, Some(outcome)).await;
        }
    }

    fn period_after(&self, elapsed: Duration) -> Duration {
        self.period.max(elapsed / FRACTION)
    }

    async fn write(&mut self, snapshot: &Snapshot, next: Option<Duration>, outcome: Option<Outcome>) {
        let heartbeat = self.heartbeat(snapshot, next, outcome);
        self.before = (snapshot.elapsed, snapshot.images_listed);
        // Before it is put: an attempt that is given up may have succeeded, and its name is taken then.
        self.written += 1;
        let path = format!("{}-{:05}.json", self.front, self.written);
        let problem = match tokio::time::timeout(PATIENCE, put(&self.output, &path, &heartbeat)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the store did not answer within {} seconds", PATIENCE.as_secs()),
        };
        if !self.warned {
            self.warned = true;
            tracing::warn!(
                problem,
                "a heartbeat could not be written: `restok watch` may take this process for silent; the output is not touched by that"
            );
        }
    }

    fn heartbeat(&self, snapshot: &Snapshot, next: Option<Duration>, outcome: Option<Outcome>) -> Heartbeat {
        let (before, images_before) = self.before;
        let seconds = snapshot.elapsed.saturating_sub(before).as_secs_f64();
        let images = snapshot.images_listed.saturating_sub(images_before) as f64;
        let in_work = snapshot.in_work.iter().take(UNITS_NAMED);
        Heartbeat {
            format: FORMAT,
            plan: self.plan.clone(),
            rank: self.worker.rank,
            world_size: self.worker.world_size,
            engine: self.worker.engine,
            host: self.worker.host.clone(),
            process_id: self.worker.process_id,
            restok: env!("CARGO_PKG_VERSION").to_owned(),
            seconds: snapshot.elapsed.as_secs_f64(),
            next_within_seconds: next.map(|next| next.as_secs_f64()),
            outcome,
            units_here: snapshot.units_here,
            in_work: in_work.map(|&(unit, time)| UnitInWork { unit, seconds: time.as_secs_f64() }).collect(),
            images_read: snapshot.images_listed,
            images_written: snapshot.images_written,
            images_a_second: if seconds > 0.0 { images / seconds } else { 0.0 },
            rejected: snapshot.rejected.clone(),
            limiting_stage: snapshot.limiting_stage().map(Stage::name).map(str::to_owned),
        }
    }
}

async fn put(output: &Storage, path: &str, heartbeat: &Heartbeat) -> Result<(), PipelineError> {
    let bytes = serde_json::to_vec(heartbeat)
        .map_err(|error| SchemaError::Document { document: path.to_owned(), problem: error.to_string() })?;
    output.put_create(path, Bytes::from(bytes)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::Limits;

    fn heart(output: &Storage) -> Heart {
        let plan = "0".repeat(64).try_into().expect("a hash");
        let worker = Worker {
            started: SystemTime::UNIX_EPOCH,
            rank: 3,
            world_size: 8,
            engine: true,
            host: "node-1".to_owned(),
            process_id: 42,
        };
        Heart::new(worker, &plan, output, Duration::from_secs(30))
    }

    fn snapshot(seconds: u64, images: u64) -> Snapshot {
        Snapshot {
            elapsed: Duration::from_secs(seconds),
            units_total: 4,
            images_listed: images,
            in_work: vec![(7, Duration::from_secs(5))],
            ..Telemetry::new().snapshot()
        }
    }

    async fn all(output: &Storage) -> Vec<(String, Heartbeat)> {
        let mut found = Vec::new();
        for object in output.list("_log").await.expect("a listing") {
            let bytes = output.get(&object.path).await.expect("an object");
            found.push((object.path.clone(), Heartbeat::parse(&object.path, &bytes).expect("a heartbeat")));
        }
        found
    }

    #[test]
    fn heartbeats_stay_few_however_long_the_run() {
        let storage = Storage::open("memory:///few", &Limits::default()).expect("a store");
        let heart = heart(&storage);
        let written_after = |end: u64| {
            let (mut elapsed, mut count) = (Duration::ZERO, 0);
            while elapsed <= Duration::from_secs(end) {
                elapsed += heart.period_after(elapsed);
                count += 1;
            }
            count
        };
        assert_eq!(written_after(60), 3);
        let [hour, day, month] = [3_600, 86_400, 30 * 86_400].map(written_after);
        assert!(hour <= 60 && day <= 125 && month <= 200, "{hour} {day} {month}");
    }

    #[tokio::test]
    async fn a_heartbeat_says_what_came_since_the_one_before_and_the_last_one_how_it_ended() {
        let storage = Storage::open("memory:///heartbeat", &Limits::default()).expect("a store");
        let mut heart = heart(&storage);
        heart.stop(&snapshot(1, 0), Outcome::Finished).await;
        assert!(all(&storage).await.is_empty(), "there was nothing to do, and nothing to tell");
        heart.write(&snapshot(10, 100), Some(Duration::from_secs(60)), None).await;
        heart.write(&snapshot(20, 300), Some(Duration::from_secs(60)), None).await;
        heart.stop(&snapshot(30, 300), Outcome::Stopped).await;
        let found = all(&storage).await;
        let rates: Vec<f64> = found.iter().map(|(_, heartbeat)| heartbeat.images_a_second).collect();
        assert_eq!(rates, [10.0, 20.0, 0.0]);
        let nexts: Vec<_> = found.iter().map(|(_, heartbeat)| heartbeat.next_within_seconds).collect();
        assert_eq!(nexts, [Some(60.0), Some(60.0), None]);
        let (path, last) = &found[2];
        assert_eq!((last.outcome, last.rank, last.in_work[0].unit), (Some(Outcome::Stopped), 3, 7));
        assert!(last.engine);
        let name = path.strip_prefix(&heartbeat_prefix(&last.plan)).expect("a heartbeat");
        let (worker, number) = parse_name(name).expect("a name");
        assert!(worker.starts_with("19700101T000000.000Z-rank3-") && number == 3, "{name}");
    }

    #[test]
    fn only_names_of_heartbeats_are_taken() {
        assert_eq!(
            parse_name("20260131T235959.123Z-rank0-0a1b2c3d-00012.json"),
            Some(("20260131T235959.123Z-rank0-0a1b2c3d", 12))
        );
        for other in ["notes.txt", "a.json", "a-b.json"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_later_format_is_named() {
        let storage = Storage::open("memory:///later", &Limits::default()).expect("a store");
        let mut heartbeat = serde_json::to_value(heart(&storage).heartbeat(&snapshot(1, 1), None, None)).expect("JSON");
        heartbeat["format"] = 2.into();
        let error = Heartbeat::parse("a.json", heartbeat.to_string().as_bytes()).expect_err("a later one").to_string();
        assert!(error.contains("a.json") && error.contains("format 2"), "{error}");
    }
}
