//! What each stage does, counted where it happens and read by whoever shows it.
//!
//! Counters are plain atomics: recording is two additions, and a snapshot taken in the middle of a run is at most a few events old.
//! Only the list of units in work has a lock, which is taken when a unit begins or ends and for each snapshot.
//!
//! | Stage | Item | Busy | Waiting |
//! |---|---|---|---|
//! | list | input | listing and planning | |
//! | fetch | image | a unit stood still for want of bytes | bytes were there, but the unit had no room to decode them |
//! | decode | image | a pool thread decoded, cropped or hashed | an image waited for a pool thread |
//! | queue | batch | | a full batch waited for room in front of the devices |
//! | encode | view | a device encoded or scored | a device had no batch |
//! | write | file | a file was encoded and put | |
//! | sample | sample | a device drew tokens | a device had no batch |
//! | render | picture | a device decoded tokens | a device had no batch |

use schemas::RejectReason;
use std::collections::BTreeMap;
use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A stage of the way of an image or of a sample, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The source is listed and divided into units.
    List,
    /// Encoded images come from storage.
    Fetch,
    /// Images are hashed, decoded and cropped.
    Decode,
    /// Batches wait in front of the devices.
    Queue,
    /// Devices turn batches into codes, or into features.
    Encode,
    /// Tables are written.
    Write,
    /// Devices draw tokens.
    Sample,
    /// Devices turn tokens into pictures.
    Render,
}

impl Stage {
    /// The stages of tokenizing, in order.
    pub const TOKENIZING: [Self; 6] = [Self::List, Self::Fetch, Self::Decode, Self::Queue, Self::Encode, Self::Write];

    /// The stages of scoring, in order: what [`Self::Encode`] counts is images that a device scored.
    pub const SCORING: [Self; 6] = Self::TOKENIZING;

    /// The stages of generating, in order.
    pub const GENERATING: [Self; 5] = [Self::List, Self::Queue, Self::Sample, Self::Render, Self::Write];

    const COUNT: usize = 8;

    /// The stage's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Fetch => "fetch",
            Self::Decode => "decode",
            Self::Queue => "queue",
            Self::Encode => "encode",
            Self::Write => "write",
            Self::Sample => "sample",
            Self::Render => "render",
        }
    }

    /// What the stage counts.
    pub fn item(self) -> &'static str {
        match self {
            Self::List => "inputs",
            Self::Fetch | Self::Decode => "images",
            Self::Queue => "batches",
            Self::Encode => "views",
            Self::Write => "files",
            Self::Sample => "samples",
            Self::Render => "pictures",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Counters of one stage.
#[derive(Debug, Default)]
struct StageCounters {
    items: AtomicU64,
    bytes: AtomicU64,
    busy_nanoseconds: AtomicU64,
    wait_nanoseconds: AtomicU64,
    depth: AtomicU64,
    depth_seen: AtomicU64,
    depth_samples: AtomicU64,
    capacity: AtomicU64,
    last_movement_milliseconds: AtomicU64,
}

/// Counters of a run; shared by everything that runs in it.
#[derive(Debug)]
pub struct Telemetry {
    started: Instant,
    shown: &'static [Stage],
    stages: [StageCounters; Stage::COUNT],
    units_total: AtomicU64,
    units_done: AtomicU64,
    images_total: AtomicU64,
    images_listed: AtomicU64,
    images_written: AtomicU64,
    images_rejected: [AtomicU64; RejectReason::ALL.len()],
    units_here: AtomicU64,
    /// Units in work, with when they were begun.
    in_work: Mutex<BTreeMap<u32, Instant>>,
}

/// One stage at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSnapshot {
    /// The stage.
    pub stage: Stage,
    /// Things that went through it, as [`Stage::item`] names them.
    pub items: u64,
    /// Bytes that went through it.
    pub bytes: u64,
    /// Time spent at work, summed over everything that works at once in this stage.
    pub busy: Duration,
    /// Time spent waiting, summed likewise.
    pub wait: Duration,
    /// Things in it now.
    pub depth: u64,
    /// Mean of the depths seen when things entered.
    pub mean_depth: f64,
    /// Things that can be at work in it at once (fetch: units; decode: threads; queue: batches; encode: devices).
    pub capacity: u64,
    /// Fraction of its capacity that was at work since the run began, 0 to 1.
    pub utilization: f64,
    /// Time since something last moved in it.
    pub idle: Duration,
}

/// A run at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Time since the run began.
    pub elapsed: Duration,
    /// Every stage of the run, in order.
    pub stages: Vec<StageSnapshot>,
    /// Units of the plan.
    pub units_total: u64,
    /// Units whose marker is there.
    pub units_done: u64,
    /// Images of the whole plan, where it is known before they are read.
    pub images_total: Option<u64>,
    /// Images read so far in this run.
    pub images_listed: u64,
    /// Images encoded so far in this run.
    pub images_written: u64,
    /// Images rejected so far in this run.
    pub images_rejected: u64,
    /// The same by reason; reasons that did not occur are left out.
    pub rejected: BTreeMap<RejectReason, u64>,
    /// Units that this run stored.
    pub units_here: u64,
    /// Units that this run is working on, with the time since each was begun.
    pub in_work: Vec<(u32, Duration)>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// Counters of tokenizing at zero, and the clock started.
    pub fn new() -> Self {
        Self::of_stages(&Stage::TOKENIZING)
    }

    /// Counters of generating.
    pub fn of_generating() -> Self {
        Self::of_stages(&Stage::GENERATING)
    }

    /// Counters of scoring.
    pub fn of_scoring() -> Self {
        Self::of_stages(&Stage::SCORING)
    }

    fn of_stages(shown: &'static [Stage]) -> Self {
        Self {
            started: Instant::now(),
            shown,
            stages: Default::default(),
            units_total: AtomicU64::new(0),
            units_done: AtomicU64::new(0),
            images_total: AtomicU64::new(0),
            images_listed: AtomicU64::new(0),
            images_written: AtomicU64::new(0),
            images_rejected: Default::default(),
            units_here: AtomicU64::new(0),
            in_work: Mutex::default(),
        }
    }

    /// Counts `items` and `bytes` that went through a stage, and the time they took there.
    pub fn record(&self, stage: Stage, items: u64, bytes: u64, busy: Duration) {
        let counters = self.counters(stage);
        counters.items.fetch_add(items, Relaxed);
        counters.bytes.fetch_add(bytes, Relaxed);
        counters.busy_nanoseconds.fetch_add(nanoseconds(busy), Relaxed);
        self.moved(stage);
    }

    /// Counts time that a stage spent at work without anything having gone through yet.
    pub fn record_busy(&self, stage: Stage, busy: Duration) {
        self.counters(stage).busy_nanoseconds.fetch_add(nanoseconds(busy), Relaxed);
    }

    /// Counts time that a stage waited for another.
    pub fn record_wait(&self, stage: Stage, wait: Duration) {
        self.counters(stage).wait_nanoseconds.fetch_add(nanoseconds(wait), Relaxed);
    }

    /// Something entered a stage; it leaves when the guard is dropped.
    pub fn enter(self: &std::sync::Arc<Self>, stage: Stage) -> InStage {
        let counters = self.counters(stage);
        let depth = counters.depth.fetch_add(1, Relaxed) + 1;
        counters.depth_seen.fetch_add(depth, Relaxed);
        counters.depth_samples.fetch_add(1, Relaxed);
        InStage { telemetry: std::sync::Arc::clone(self), stage }
    }

    /// Says how many things can be at work in a stage at once.
    pub fn set_capacity(&self, stage: Stage, capacity: usize) {
        self.counters(stage).capacity.store(capacity as u64, Relaxed);
    }

    /// Says how many more things can be in a stage at once.
    pub(crate) fn add_capacity(&self, stage: Stage, capacity: usize) {
        self.counters(stage).capacity.fetch_add(capacity as u64, Relaxed);
    }

    /// Says how many units the plan has, how many are done, and how many images it has where that is known.
    pub fn set_totals(&self, units: u64, units_done: u64, images: Option<u64>) {
        self.units_total.store(units, Relaxed);
        self.units_done.store(units_done, Relaxed);
        self.images_total.store(images.map_or(0, |images| images + 1), Relaxed);
    }

    pub(crate) fn image_listed(&self) {
        self.images_listed.fetch_add(1, Relaxed);
    }

    pub(crate) fn images_written(&self, images: u64) {
        self.images_written.fetch_add(images, Relaxed);
    }

    pub(crate) fn image_rejected(&self, reason: RejectReason) {
        self.images_rejected[reason as usize].fetch_add(1, Relaxed);
    }

    /// Work on a unit begins.
    pub(crate) fn unit_begun(&self, unit: u32) {
        self.units_in_work().insert(unit, Instant::now());
    }

    /// A unit is stored: by this run, or else by another process that was first.
    pub(crate) fn unit_done(&self, unit: u32, here: bool) {
        self.units_in_work().remove(&unit);
        self.units_done.fetch_add(1, Relaxed);
        self.units_here.fetch_add(u64::from(here), Relaxed);
    }

    /// Work on a unit ended without it being stored.
    pub(crate) fn unit_dropped(&self, unit: u32) {
        self.units_in_work().remove(&unit);
    }

    fn units_in_work(&self) -> MutexGuard<'_, BTreeMap<u32, Instant>> {
        self.in_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a unit is worked on.
    pub(crate) fn is_at_work(&self) -> bool {
        !self.units_in_work().is_empty()
    }

    /// Everything, now.
    pub fn snapshot(&self) -> Snapshot {
        let elapsed = self.started.elapsed();
        let counted = RejectReason::ALL.map(|reason| (reason, self.images_rejected[reason as usize].load(Relaxed)));
        let rejected: BTreeMap<_, _> = counted.into_iter().filter(|(_, images)| *images > 0).collect();
        Snapshot {
            elapsed,
            stages: self.shown.iter().map(|&stage| self.stage_snapshot(stage, elapsed)).collect(),
            units_total: self.units_total.load(Relaxed),
            units_done: self.units_done.load(Relaxed),
            images_total: self.images_total.load(Relaxed).checked_sub(1),
            images_listed: self.images_listed.load(Relaxed),
            images_written: self.images_written.load(Relaxed),
            images_rejected: rejected.values().sum(),
            rejected,
            units_here: self.units_here.load(Relaxed),
            in_work: self.units_in_work().iter().map(|(&unit, begun)| (unit, begun.elapsed())).collect(),
        }
    }

    /// A number that changes whenever anything moves in any stage, and when a unit is stored, by whomever.
    pub(crate) fn movement(&self) -> u64 {
        self.stages.iter().fold(self.units_done.load(Relaxed), |sum, counters| {
            sum.wrapping_add(counters.items.load(Relaxed)).wrapping_add(counters.bytes.load(Relaxed))
        })
    }

    fn stage_snapshot(&self, stage: Stage, elapsed: Duration) -> StageSnapshot {
        let counters = self.counters(stage);
        let busy = Duration::from_nanos(counters.busy_nanoseconds.load(Relaxed));
        let capacity = counters.capacity.load(Relaxed);
        let available = elapsed.as_secs_f64() * capacity.max(1) as f64;
        let samples = counters.depth_samples.load(Relaxed);
        StageSnapshot {
            stage,
            items: counters.items.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            busy,
            wait: Duration::from_nanos(counters.wait_nanoseconds.load(Relaxed)),
            depth: counters.depth.load(Relaxed),
            mean_depth: if samples == 0 { 0.0 } else { counters.depth_seen.load(Relaxed) as f64 / samples as f64 },
            capacity,
            utilization: if available > 0.0 { (busy.as_secs_f64() / available).min(1.0) } else { 0.0 },
            idle: elapsed.saturating_sub(Duration::from_millis(counters.last_movement_milliseconds.load(Relaxed))),
        }
    }

    fn moved(&self, stage: Stage) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.counters(stage).last_movement_milliseconds.store(now, Relaxed);
    }

    fn counters(&self, stage: Stage) -> &StageCounters {
        &self.stages[stage as usize]
    }
}

impl Snapshot {
    /// The stage that the run waited for: of those that do work, the one with the greatest fraction of its capacity at work.
    /// `None` before anything was at work.
    pub fn limiting_stage(&self) -> Option<Stage> {
        self.stages
            .iter()
            .filter(|stage| stage.utilization > 0.0)
            .max_by(|left, right| left.utilization.total_cmp(&right.utilization))
            .map(|stage| stage.stage)
    }

    /// Images read a second since the run began.
    pub fn images_a_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.images_listed as f64 / seconds } else { 0.0 }
    }

    /// Time until all images are read at the rate so far; `None` where their number is not known, or nothing was read.
    pub fn remaining(&self, images_done_before: u64) -> Option<Duration> {
        let left = self.images_total?.checked_sub(images_done_before + self.images_listed)?;
        let rate = self.images_a_second();
        (rate > 0.0).then(|| Duration::from_secs_f64(left as f64 / rate))
    }

    /// Where every stage stands, in one line.
    pub fn describe_stages(&self) -> String {
        let stages: Vec<String> = self
            .stages
            .iter()
            .map(|stage| {
                format!(
                    "{}: {} {}, {} in it, last moved {:.0} s ago",
                    stage.stage,
                    stage.items,
                    stage.stage.item(),
                    stage.depth,
                    stage.idle.as_secs_f64()
                )
            })
            .collect();
        stages.join("; ")
    }
}

/// Something that is in a stage, as long as this lives.
#[derive(Debug)]
pub struct InStage {
    telemetry: std::sync::Arc<Telemetry>,
    stage: Stage,
}

impl Drop for InStage {
    fn drop(&mut self) {
        self.telemetry.counters(self.stage).depth.fetch_sub(1, Relaxed);
    }
}

/// Counts by reason, as errors and logs show them: `corrupt 2, truncated 1`.
pub(crate) fn describe_rejects(rejected: &BTreeMap<RejectReason, u64>) -> String {
    let reasons: Vec<String> =
        rejected.iter().filter(|(_, count)| **count > 0).map(|(reason, count)| format!("{reason} {count}")).collect();
    reasons.join(", ")
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_stage_with_most_of_its_capacity_at_work_is_the_limit() {
        let telemetry = Arc::new(Telemetry::new());
        telemetry.set_capacity(Stage::Decode, 4);
        telemetry.set_capacity(Stage::Encode, 1);
        assert_eq!(telemetry.snapshot().limiting_stage(), None);
        telemetry.record(Stage::Decode, 10, 100, Duration::from_nanos(4));
        telemetry.record(Stage::Encode, 5, 0, Duration::from_nanos(3));
        assert_eq!(telemetry.snapshot().limiting_stage(), Some(Stage::Encode));
    }

    #[test]
    fn depth_falls_when_things_leave_and_the_mean_stays() {
        let telemetry = Arc::new(Telemetry::new());
        let first = telemetry.enter(Stage::Queue);
        let second = telemetry.enter(Stage::Queue);
        drop(first);
        let snapshot = telemetry.snapshot();
        let queue = &snapshot.stages[Stage::Queue as usize];
        assert_eq!((queue.depth, queue.mean_depth), (1, 1.5));
        drop(second);
        assert_eq!(telemetry.snapshot().stages[Stage::Queue as usize].depth, 0);
        assert!(snapshot.describe_stages().contains("queue: 0 batches, 1 in it"));
    }

    #[test]
    fn movement_changes_with_items_only() {
        let telemetry = Telemetry::new();
        let before = telemetry.movement();
        telemetry.record_wait(Stage::Queue, Duration::from_secs(1));
        assert_eq!(telemetry.movement(), before);
        telemetry.record(Stage::Fetch, 1, 0, Duration::ZERO);
        assert_ne!(telemetry.movement(), before);
    }

    #[test]
    fn a_unit_is_in_work_until_it_is_stored_or_given_up_and_rejects_keep_their_reasons() {
        let telemetry = Telemetry::new();
        for unit in [3, 1, 2] {
            telemetry.unit_begun(unit);
        }
        telemetry.unit_done(3, true);
        telemetry.unit_done(1, false);
        for reason in [RejectReason::Unreadable, RejectReason::Empty, RejectReason::Unreadable] {
            telemetry.image_rejected(reason);
        }
        let snapshot = telemetry.snapshot();
        assert_eq!((snapshot.units_done, snapshot.units_here), (2, 1));
        assert_eq!(snapshot.in_work.iter().map(|(unit, _)| *unit).collect::<Vec<_>>(), [2]);
        assert_eq!(snapshot.rejected, [(RejectReason::Empty, 1), (RejectReason::Unreadable, 2)].into());
        assert_eq!(snapshot.images_rejected, 3);
        telemetry.unit_dropped(2);
        assert!(telemetry.snapshot().in_work.is_empty());
    }

    #[test]
    fn an_unknown_number_of_images_is_not_zero() {
        let telemetry = Telemetry::new();
        telemetry.set_totals(3, 1, None);
        assert_eq!(telemetry.snapshot().images_total, None);
        telemetry.set_totals(3, 1, Some(0));
        assert_eq!(telemetry.snapshot().images_total, Some(0));
    }
}
