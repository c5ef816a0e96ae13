//! Up to a thousand processes on one output, with deaths, in virtual time.

use crate::{
    Limits, PipelineError, ProcessRank, RankOrigin, Storage,
    device_worker::Devices,
    telemetry::Telemetry,
    testing::{FaultStore, Operation},
    units::{UnitContext, UnitCounts, UnitError, UnitQueue, UnitTask, UnitsToDo, run_units},
};
use bytes::Bytes;
use object_store::{memory::InMemory, path::Path};
use schemas::RandomStream;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

const NAME: &str = "plan";

/// What all processes together did.
#[derive(Debug, Default)]
struct Done {
    /// Stored units, for listings: to have the store name ten thousand objects thousands of times takes minutes.
    stored: Mutex<BTreeSet<u32>>,
    listings: AtomicU64,
    /// Units that were finished though another process had stored them.
    doubled: AtomicU64,
    /// Units that died with their process.
    lost: AtomicU64,
}

impl Done {
    fn stored(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Units that take their time and leave a marker.
struct SimulatedTask {
    output: Storage,
    done: Arc<Done>,
    seed: u64,
    /// How much slower than others this process is.
    slowness: f64,
}

/// Counts a unit as lost unless it is finished.
struct InWork<'a>(&'a Done, bool);

impl Drop for InWork<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.lost.fetch_add(1, Relaxed);
        }
    }
}

fn marker(unit: u32) -> String {
    format!("_state/{NAME}/{unit:05}.json")
}

impl UnitTask for SimulatedTask {
    /// Seconds that it took.
    type Output = f64;
    type Stored = f64;

    async fn is_stored(&self, unit: u32) -> Result<bool, PipelineError> {
        self.output.exists(&marker(unit)).await
    }

    async fn stored(&self) -> Result<BTreeSet<u32>, PipelineError> {
        self.done.listings.fetch_add(1, Relaxed);
        Ok(self.done.stored().clone())
    }

    async fn duration_of(&self, _: u32) -> Result<Option<Duration>, PipelineError> {
        Ok(None)
    }

    async fn make(&self, unit: u32) -> Result<f64, UnitError> {
        let mut work = InWork(&self.done, false);
        // Half a minute to a minute and a half.
        let seconds = 30.0 + 60.0 * RandomStream::new(self.seed, "unit", u64::from(unit)).uniform();
        let seconds = seconds * self.slowness;
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        work.1 = true;
        Ok(seconds)
    }

    async fn commit(&self, unit: u32, seconds: f64, _: std::time::Instant) -> Result<f64, UnitError> {
        match self.output.put_create(&marker(unit), Bytes::from(self.seed.to_string())).await? {
            crate::PutOutcome::Created => drop(self.done.stored().insert(unit)),
            _ => drop(self.done.doubled.fetch_add(1, Relaxed)),
        }
        Ok(seconds)
    }

    fn counts(seconds: &f64) -> UnitCounts {
        UnitCounts { seconds: *seconds, ..UnitCounts::default() }
    }
}

/// A device that is always there.
struct OneDevice;

impl Devices for OneDevice {
    fn count(&self) -> usize {
        1
    }
    fn try_failure(&self) -> Option<PipelineError> {
        None
    }
    async fn close(self, _: Duration) {}
}

/// What a simulation came to.
struct Outcome {
    done: Arc<Done>,
    requests: u64,
    lists: u64,
    stored: usize,
    /// From the start to the end of the last process.
    took: Duration,
}

/// How processes end early.
#[derive(Clone, Copy)]
enum End {
    /// Without a word.
    Death,
    /// On a signal.
    Drain,
}

/// `processes` work on `units`; of a hundred, `deaths` end early at a random moment, and half of those start again.
async fn simulate(processes: u32, units: u32, (deaths, end): (u64, End), seed: u64) -> Outcome {
    let store = FaultStore::dated(Arc::new(InMemory::new()), SystemTime::UNIX_EPOCH);
    let output = Storage::from_store(Arc::clone(&store) as _, Path::from("out"), "memory:///out")
        .with_clock(SystemTime::UNIX_EPOCH);
    let done = Arc::new(Done::default());
    let started = Instant::now();
    let work_seconds = 60.0 * f64::from(units) / f64::from(processes);
    let mut running = JoinSet::new();
    for rank in 0..processes {
        let (output, done) = (output.clone(), Arc::clone(&done));
        let draw = move |number: u64| RandomStream::new(seed, "process", u64::from(rank) * 8 + number).uniform();
        running.spawn(async move {
            let dies = draw(0) * 100.0 < deaths as f64;
            // One of fifty is slow; all start within a minute.
            let slowness = if draw(1) < 0.02 { 4.0 } else { 1.0 };
            tokio::time::sleep(Duration::from_secs_f64(60.0 * draw(2))).await;
            let life = |cancel| run((rank, processes), units, &output, &done, (seed, slowness), cancel);
            if dies {
                let until = tokio::time::sleep(Duration::from_secs_f64(work_seconds * draw(3)));
                let cancel = CancellationToken::new();
                let ended = match end {
                    End::Death => tokio::select! {
                        stored = life(cancel) => stored,
                        () = until => false,
                    },
                    End::Drain => {
                        let signal = async {
                            until.await;
                            cancel.cancel();
                        };
                        tokio::join!(life(cancel.clone()), signal).0
                    }
                };
                if !ended && draw(4) < 0.5 {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    life(CancellationToken::new()).await;
                }
            } else {
                life(CancellationToken::new()).await;
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no process panics");
    }
    let task = SimulatedTask { output, done: Arc::clone(&done), seed, slowness: 1.0 };
    let stored = task.output.list(&format!("_state/{NAME}/")).await.expect("a list");
    let stored = stored.iter().filter(|object| object.path.ends_with(".json")).count();
    let requests =
        [Operation::Get, Operation::Head, Operation::Put, Operation::List].map(|kind| store.requests(kind) as u64);
    let listings = done.listings.load(Relaxed);
    let (requests, lists) = (requests.iter().sum::<u64>() + listings, requests[3] + listings);
    Outcome { done, requests, lists, stored, took: started.elapsed() }
}

/// The life of a process; whether it ended because everything is stored, and not because it was cancelled.
async fn run(
    (rank, world_size): (u32, u32),
    units: u32,
    output: &Storage,
    done: &Arc<Done>,
    (seed, slowness): (u64, f64),
    cancel: CancellationToken,
) -> bool {
    let process = ProcessRank { rank, world_size, origin: RankOrigin::Options };
    let task = SimulatedTask { output: output.clone(), done: Arc::clone(done), seed, slowness };
    let stored = task.stored().await.expect("a list");
    let missing = (0..units).filter(|unit| !stored.contains(unit)).collect();
    let todo = UnitsToDo { output, name: NAME, units, missing, process };
    let queue = UnitQueue::new(None, NAME, todo);
    let limits = Limits { units_in_flight: 3, stall_seconds: 0, ..Limits::default() };
    let telemetry = Telemetry::new();
    let context = UnitContext { limits: &limits, telemetry: &telemetry, cancel: &cancel };
    match run_units(queue, context, task, OneDevice).await {
        Ok(_) => true,
        Err(PipelineError::Drained) => false,
        Err(error) => panic!("units do not fail: {error}"),
    }
}

fn check(name: &str, (processes, units): (u32, u32), outcome: &Outcome) {
    let Outcome { done, requests, lists, stored, took } = outcome;
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    let (doubled, lost) = (count(&done.doubled), count(&done.lost));
    let share = doubled as f64 / f64::from(units);
    // A process asks a few times while it waits for the last units of others, however few units there are.
    let per_unit = *requests as f64 / f64::from(units + processes);
    println!(
        "{name}: {units} units in {:.0} virtual minutes, {lost} died with their process, {doubled} made twice ({:.2} %), \
         {per_unit:.1} requests a unit and process, {lists} listings",
        took.as_secs_f64() / 60.0,
        share * 100.0
    );
    assert_eq!(*stored, units as usize, "no unit is lost");
    assert_eq!(done.stored().len(), units as usize);
    assert!(share < 0.03, "{doubled} of {units} units were made twice");
    assert!(per_unit < 32.0, "{per_unit} requests a unit and process");
}

#[tokio::test(start_paused = true)]
async fn processes_that_share_an_output_rarely_make_a_unit_twice() {
    check("nobody dies", (60, 600), &simulate(60, 600, (0, End::Death), 1).await);
    check("one of ten dies", (60, 600), &simulate(60, 600, (10, End::Death), 2).await);
    check("half of them die", (60, 600), &simulate(60, 600, (50, End::Death), 3).await);
    check("half of them drain", (60, 600), &simulate(60, 600, (50, End::Drain), 3).await);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_drains_leaves_nothing_to_wait_for() {
    let store = FaultStore::dated(Arc::new(InMemory::new()), SystemTime::UNIX_EPOCH);
    let output = Storage::from_store(store as _, Path::from("out"), "memory:///out").with_clock(SystemTime::UNIX_EPOCH);
    let (done, cancel, started) = (Arc::new(Done::default()), CancellationToken::new(), Instant::now());
    let life = |rank, cancel| run((rank, 2), 4, &output, &done, (1, 1.0), cancel);
    let signal = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        cancel.cancel();
    };
    let (one, other, ()) = tokio::join!(life(0, CancellationToken::new()), life(1, cancel.clone()), signal);
    assert_eq!((one, other), (true, false));
    assert_eq!((done.stored().len(), done.lost.load(Relaxed)), (4, 2));
    // A unit takes a minute and a half at most, and one of those that drained may begin when an own one is done.
    let took = started.elapsed().as_secs();
    assert!(took <= 2 * 90, "took {took} s");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_processes_make_ten_thousand_units_and_rarely_one_twice() {
    check("one of ten dies", (1_000, 10_000), &simulate(1_000, 10_000, (10, End::Death), 4).await);
}

#[tokio::test(start_paused = true)]
async fn more_processes_than_units_rarely_make_one_twice() {
    check("nobody dies", (100, 40), &simulate(100, 40, (0, End::Death), 5).await);
}
