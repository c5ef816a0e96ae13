//! What a lease means to others, one case at a time, in a time that passes as fast as nothing happens in it.

use super::LeasedUnits;
use crate::{
    PipelineError, ProcessRank, RankOrigin, Storage,
    testing::{Fault, FaultRule, FaultStore, Operation},
    units::{UnitCounts, UnitError, UnitTask},
};
use bytes::Bytes;
use object_store::{memory::InMemory, path::Path};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

const NAME: &str = "plan";
const PATIENCE: Duration = Duration::from_secs(10);

/// Markers alone: nothing is made here. With how long a stored unit took, where that is on record.
struct Markers(Storage, Option<Duration>);

fn marker(unit: u32) -> String {
    format!("_state/{NAME}/{unit:05}.json")
}

impl UnitTask for Markers {
    type Output = ();
    type Stored = ();

    async fn is_stored(&self, unit: u32) -> Result<bool, PipelineError> {
        self.0.exists(&marker(unit)).await
    }
    async fn stored(&self) -> Result<BTreeSet<u32>, PipelineError> {
        let mut stored = BTreeSet::new();
        for unit in 0..16 {
            if self.is_stored(unit).await? {
                stored.insert(unit);
            }
        }
        Ok(stored)
    }
    async fn duration_of(&self, _: u32) -> Result<Option<Duration>, PipelineError> {
        Ok(self.1)
    }
    async fn make(&self, _: u32) -> Result<(), UnitError> {
        unreachable!("nothing is made")
    }
    async fn commit(&self, _: u32, (): (), _: std::time::Instant) -> Result<(), UnitError> {
        unreachable!("nothing is made")
    }
    fn counts((): &()) -> UnitCounts {
        UnitCounts::default()
    }
}

/// An output that processes share.
struct Shared {
    store: Arc<FaultStore>,
    task: Arc<Markers>,
}

impl Shared {
    fn new() -> Self {
        Self::recording(None)
    }

    fn recording(duration: Option<Duration>) -> Self {
        let store = FaultStore::dated(Arc::new(InMemory::new()), SystemTime::UNIX_EPOCH);
        let output = Storage::from_store(Arc::clone(&store) as _, Path::from("out"), "memory:///out");
        Self { store, task: Arc::new(Markers(output.with_clock(SystemTime::UNIX_EPOCH), duration)) }
    }

    /// A life of a process; `units` in all.
    fn start(&self, rank: u32, world_size: u32, units: u32) -> LeasedUnits {
        let process = ProcessRank { rank, world_size, origin: RankOrigin::Options };
        LeasedUnits::new(&self.task.0, NAME, units, process, (0..units).collect())
    }

    async fn next(&self, process: &mut LeasedUnits) -> Option<u32> {
        process.next(&self.task).await.expect("memory")
    }

    async fn store(&self, unit: u32) {
        self.task.0.put_create(&marker(unit), Bytes::new()).await.expect("memory");
    }
}

/// Seconds since `start`.
fn seconds(start: Instant) -> u64 {
    start.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn every_process_takes_its_own_units_first_and_then_those_of_others_each_in_another_order() {
    let mut stolen = Vec::new();
    for rank in [0, 1] {
        // Alone on an output of its own: nobody else takes a unit.
        let shared = Shared::new();
        let mut process = shared.start(rank, 3, 12);
        let mut order = Vec::new();
        for _ in 0..12 {
            order.extend(shared.next(&mut process).await);
        }
        let own: Vec<u32> = (0..12).filter(|unit| unit % 3 == rank).collect();
        assert_eq!(order[..4], own);
        stolen.push(order[4..].iter().copied().filter(|unit| unit % 3 == 2).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..12).collect::<Vec<_>>());
    }
    assert_ne!(stolen[0], stolen[1]);
}

#[tokio::test(start_paused = true)]
async fn what_a_process_gives_back_is_taken_at_once() {
    let shared = Shared::new();
    let (mut first, mut second) = (shared.start(0, 2, 2), shared.start(1, 2, 2));
    assert_eq!(shared.next(&mut second).await, Some(1));
    second.give_back(PATIENCE).await;
    assert_eq!(shared.next(&mut first).await, Some(0));
    let start = Instant::now();
    assert_eq!(shared.next(&mut first).await, Some(1));
    assert_eq!(seconds(start), 0);
    // Who comes back finds it taken.
    let waiting = tokio::time::timeout(Duration::from_secs(3), shared.next(&mut shared.start(1, 2, 2))).await;
    assert!(waiting.is_err(), "{waiting:?}");
}

#[tokio::test(start_paused = true)]
async fn who_watches_a_unit_sees_that_it_was_given_back_and_however_often_others_wait_no_longer() {
    let shared = Shared::new();
    let mut first = shared.start(0, 3, 2);
    assert_eq!(shared.next(&mut first).await, Some(0));
    shared.store(0).await;
    first.stored(0, Some(Duration::from_secs(10)));
    for _ in 0..6 {
        let mut second = shared.start(1, 3, 2);
        assert_eq!(shared.next(&mut second).await, Some(1));
        let watching = tokio::time::timeout(Duration::from_secs(8), shared.next(&mut first)).await;
        assert!(watching.is_err(), "{watching:?}");
        second.give_back(PATIENCE).await;
        let start = Instant::now();
        assert_eq!(shared.next(&mut first).await, Some(1));
        assert!(seconds(start) <= 10, "after {} s", seconds(start));
        first.give_back(PATIENCE).await;
    }
    assert_eq!(shared.next(&mut shared.start(1, 3, 2)).await, Some(1));
    let start = Instant::now();
    assert_eq!(shared.next(&mut first).await, Some(1));
    assert!((20..45).contains(&seconds(start)), "after {} s", seconds(start));
}

#[tokio::test(start_paused = true)]
async fn what_a_process_only_began_to_take_is_given_back_too() {
    let shared = Shared::new();
    // On its way, and nobody knows whether it arrives.
    shared.store.inject(FaultRule::new(Operation::Put, Fault::Stall));
    let mut second = shared.start(1, 2, 2);
    let taking = tokio::time::timeout(Duration::from_millis(1), shared.next(&mut second)).await;
    assert!(taking.is_err(), "{taking:?}");
    second.give_back(PATIENCE).await;
    let mut first = shared.start(0, 2, 2);
    let start = Instant::now();
    assert_eq!([shared.next(&mut first).await, shared.next(&mut first).await], [Some(0), Some(1)]);
    assert_eq!(seconds(start), 0);
}

#[tokio::test(start_paused = true)]
async fn what_another_process_took_first_is_not_given_back() {
    let shared = Shared::new();
    shared.store.inject(FaultRule::new(Operation::Put, Fault::Stall));
    let mut second = shared.start(1, 2, 2);
    let taking = tokio::time::timeout(Duration::from_millis(1), shared.next(&mut second)).await;
    assert!(taking.is_err(), "{taking:?}");
    let mut first = shared.start(0, 2, 2);
    assert_eq!([shared.next(&mut first).await, shared.next(&mut first).await], [Some(0), Some(1)]);
    second.give_back(PATIENCE).await;
    let waiting = tokio::time::timeout(Duration::from_secs(60), shared.next(&mut shared.start(1, 2, 2))).await;
    assert!(waiting.is_err(), "{waiting:?}");
}

#[tokio::test(start_paused = true)]
async fn a_unit_of_a_process_that_died_is_taken_over_after_three_times_the_longest() {
    let shared = Shared::new();
    let start = Instant::now();
    let (mut first, mut second) = (shared.start(0, 2, 2), shared.start(1, 2, 2));
    assert_eq!(shared.next(&mut second).await, Some(1));
    drop(second);
    assert_eq!(shared.next(&mut first).await, Some(0));
    shared.store(0).await;
    first.stored(0, Some(Duration::from_secs(10)));
    assert_eq!(shared.next(&mut first).await, Some(1));
    assert!((30..45).contains(&seconds(start)), "after {} s", seconds(start));
}

#[tokio::test(start_paused = true)]
async fn a_unit_in_work_elsewhere_is_waited_for() {
    let shared = Shared::new();
    let (mut first, mut second) = (shared.start(0, 2, 2), shared.start(1, 2, 2));
    assert_eq!(shared.next(&mut second).await, Some(1));
    assert_eq!(shared.next(&mut first).await, Some(0));
    shared.store(0).await;
    first.stored(0, Some(Duration::from_secs(10)));
    let waiting = tokio::time::timeout(Duration::from_secs(20), shared.next(&mut first)).await;
    assert!(waiting.is_err(), "{waiting:?}");
    shared.store(1).await;
    assert_eq!(shared.next(&mut first).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_again_takes_its_units_at_once_and_however_often_others_wait_no_longer() {
    let shared = Shared::new();
    let mut first = shared.start(0, 2, 2);
    assert_eq!(shared.next(&mut first).await, Some(0));
    shared.store(0).await;
    first.stored(0, Some(Duration::from_secs(10)));
    for _ in 0..12 {
        let start = Instant::now();
        assert_eq!(shared.next(&mut shared.start(1, 2, 2)).await, Some(1));
        assert_eq!(seconds(start), 0);
        tokio::time::sleep(Duration::from_secs(7)).await;
    }
    let start = Instant::now();
    assert_eq!(shared.next(&mut first).await, Some(1));
    assert!(seconds(start) < 45, "after {} s", seconds(start));
}

#[tokio::test(start_paused = true)]
async fn a_second_takeover_takes_twice_the_patience() {
    let shared = Shared::new();
    let (mut first, mut third) = (shared.start(0, 3, 2), shared.start(2, 3, 2));
    assert_eq!(shared.next(&mut shared.start(1, 3, 2)).await, Some(1));
    assert_eq!(shared.next(&mut first).await, Some(0));
    shared.store(0).await;
    first.stored(0, Some(Duration::from_secs(10)));
    assert_eq!(shared.next(&mut first).await, Some(1));
    let start = Instant::now();
    third.stored(0, Some(Duration::from_secs(10)));
    assert_eq!(shared.next(&mut third).await, Some(1));
    assert!((60..80).contains(&seconds(start)), "after {} s", seconds(start));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_has_made_nothing_goes_by_what_units_took_that_are_stored() {
    let shared = Shared::recording(Some(Duration::from_secs(4)));
    let mut second = shared.start(1, 2, 2);
    assert_eq!(shared.next(&mut second).await, Some(1));
    drop(second);
    shared.store(0).await;
    let start = Instant::now();
    let process = ProcessRank { rank: 0, world_size: 2, origin: RankOrigin::Options };
    let mut first = LeasedUnits::new(&shared.task.0, NAME, 2, process, vec![1]);
    assert_eq!(shared.next(&mut first).await, Some(1));
    assert!((12..30).contains(&seconds(start)), "after {} s", seconds(start));
}

#[tokio::test(start_paused = true)]
async fn leases_of_another_number_of_processes_are_soon_taken_over() {
    let shared = Shared::new();
    let mut earlier = shared.start(1, 3, 4);
    assert_eq!(shared.next(&mut earlier).await, Some(1));
    drop(earlier);
    let start = Instant::now();
    let mut now = shared.start(0, 2, 4);
    let mut taken = BTreeSet::new();
    for _ in 0..4 {
        taken.extend(shared.next(&mut now).await);
    }
    assert_eq!(taken, (0..4).collect());
    assert!(seconds(start) < 60, "after {} s", seconds(start));
}

#[tokio::test(start_paused = true)]
async fn a_search_that_is_let_go_of_and_taken_up_again_begins_nothing_twice() {
    let shared = Shared::new();
    shared.store.inject(FaultRule::new(Operation::Put, Fault::Stall));
    let mut process = shared.start(0, 2, 2);
    for _ in 0..5 {
        // Looked at once and dropped, as beside a unit that has just ended.
        tokio::select! {
            biased;
            next = process.next(&shared.task) => panic!("{next:?} in spite of a put that stands still"),
            () = std::future::ready(()) => {}
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(shared.store.requests(Operation::Put), 1);
}
