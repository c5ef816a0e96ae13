//! Which units other processes are in the middle of, so that those who share an output rarely make a unit twice.
//!
//! A lease is an object that is put create-only before a unit is worked on. Its name holds the unit and how often it was taken, its
//! date is the store's. It is never trusted for more than the order of work: a unit is stored by its files and its marker, and two processes
//! that make the same one find the same bytes there.
//!
//! A process takes its own units first, then those that nobody works on. What is left then is in work elsewhere: of a few of these units it
//! watches the leases, and takes over one that is older than a unit may take. That is so where a process died, is silent, or is slow.

use super::{ProcessRank, UnitTask};
use crate::{
    PipelineError, PutOutcome, Storage,
    background_task::{joined, spawn},
    telemetry::nanoseconds,
};
use futures::future::join_all;
use schemas::{RandomStream, SchemaError, lease_path, lease_prefix, parse_lease_path};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// Units in work elsewhere whose leases a process watches at a time, so that a thousand idle ones do not ask for everything.
const WATCHED: usize = 4;

/// Looks at the watched units after which the whole output is looked through again.
const LOOKS: u32 = 8;

/// A unit may take this many times as long as the longest one seen before its lease is taken over; twice as long each time that it was taken
/// over before, a few times.
const PATIENCE: u32 = 3;
const DOUBLINGS: u32 = 3;

/// Shortest age at which a lease is taken over, and the one where no unit was seen yet.
const LEAST_PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_UNSEEN: Duration = Duration::from_secs(600);

/// Shortest and longest pause between two looks at what is in work elsewhere.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What a lease says of who took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    rank: u32,
    world_size: u32,
    /// Tells this life of a process from the one before: in a container each has the same number.
    life: u64,
    /// How often the unit was taken from another process.
    takeovers: u32,
    /// Whether it says that the process does not make the unit after all.
    #[serde(default)]
    is_given_back: bool,
}

impl Holder {
    /// Whether a process may take the unit as if nobody worked on it: it was given back, or taken by the same place among the processes, that
    /// is, by an earlier life of this process.
    fn is_free_for(&self, process: ProcessRank) -> bool {
        self.is_given_back || (self.rank, self.world_size) == (process.rank, process.world_size)
    }
}

/// The leases of one process, and what it knows of units; clones share that.
#[derive(Clone, Debug)]
struct Leases {
    output: Storage,
    /// Of the plan, or of the features.
    name: String,
    process: ProcessRank,
    life: u64,
    /// Those of units that are not stored yet, from before they are put: who stops must not leave one that it has just begun to put.
    held: Arc<Mutex<BTreeMap<u32, Taken>>>,
    /// The longest that a unit took, in nanoseconds; 0 where none was seen.
    longest: Arc<AtomicU64>,
}

/// A lease that this process took.
#[derive(Clone, Copy, Debug)]
struct Taken {
    unit: u32,
    /// How often the unit was taken, this time included.
    takes: u32,
    /// How often it was taken from another process.
    takeovers: u32,
}

/// The units of one of several processes that share an output.
#[derive(Debug)]
pub(crate) struct LeasedUnits {
    leases: Leases,
    /// Absent while `pending` has it.
    search: Option<Search>,
    /// The search for the next unit. It goes on while the caller looks at something else: a put or a listing is not begun again.
    pending: Option<AbortOnDropHandle<Searched>>,
}

/// The search, and what it came to.
type Searched = (Search, Result<Option<Taken>, PipelineError>);

/// What the search for the next unit knows.
#[derive(Debug)]
struct Search {
    leases: Leases,
    units: u32,
    /// Those that are this process's own and not yet taken.
    own: VecDeque<u32>,
    /// What others are in the middle of, as far as it is watched.
    watched: Vec<Watched>,
    /// Looks at them since the last look through the output.
    looks: u32,
    /// Looks through the output.
    rounds: u32,
}

/// A unit in work elsewhere.
#[derive(Clone, Debug)]
struct Watched {
    unit: u32,
    /// How often it was taken, at least.
    takes: u32,
    /// The lease of the last time, once it was read.
    lease: Option<Lease>,
}

/// A lease, as it was read.
#[derive(Clone, Debug)]
struct Lease {
    /// Its age then, by the store's clock.
    age: Duration,
    read: Instant,
    /// Absent where it cannot be read: it is somebody else's then.
    holder: Option<Holder>,
}

impl Lease {
    /// Its age now. A store's clock that is behind makes it younger for a while, not for ever.
    fn age(&self) -> Duration {
        self.age + self.read.elapsed()
    }
}

impl LeasedUnits {
    /// `missing` are the units that were not stored at the start, ascending; of them, each process has its own
    /// (`unit % world_size == rank`).
    pub(crate) fn new(output: &Storage, name: &str, units: u32, process: ProcessRank, missing: Vec<u32>) -> Self {
        let leases = Leases {
            output: output.clone(),
            name: name.to_owned(),
            process,
            life: RandomState::new().build_hasher().finish(),
            held: Arc::default(),
            longest: Arc::default(),
        };
        let search = Search {
            leases: leases.clone(),
            units,
            own: missing.into_iter().filter(|unit| unit % process.world_size == process.rank).collect(),
            watched: Vec::new(),
            looks: 0,
            rounds: 0,
        };
        Self { leases, search: Some(search), pending: None }
    }

    /// A unit that this process took is stored, and took so long where this process made it.
    pub(crate) fn stored(&self, unit: u32, duration: Option<Duration>) {
        self.leases.held().remove(&unit);
        self.leases.saw(duration.unwrap_or_default());
    }

    /// The next unit that this process should make; `None` when all that it has not taken are stored. May be dropped while it waits.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn next<T: UnitTask>(&mut self, task: &Arc<T>) -> Result<Option<u32>, PipelineError> {
        if let Some(mut search) = self.search.take() {
            let task = Arc::clone(task);
            self.pending = Some(spawn(async move {
                let next = search.next(&*task).await;
                (search, next)
            }));
        }
        let Some(pending) = &mut self.pending else { return Ok(None) };
        let (search, next) = joined(pending.await).await;
        (self.search, self.pending) = (Some(search), None);
        Ok(next?.map(|taken| taken.unit))
    }

    /// Says of the units that this process took and that are not stored that nobody works on them: others need not wait. For `patience` at
    /// most.
    pub(crate) async fn give_back(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        if let Some(pending) = self.pending.take() {
            // Until it has ended it may take another one.
            pending.abort();
            drop(timeout_at(deadline, pending).await);
        }
        let held = std::mem::take(&mut *self.leases.held());
        let leases = &self.leases;
        let giving = held.into_values().map(|taken| async move {
            let problem = match timeout_at(deadline, leases.give_back(taken)).await {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the store does not answer".to_owned(),
            };
            Some((taken.unit, problem))
        });
        let failed: Vec<_> = join_all(giving).await.into_iter().flatten().collect();
        if let Some((_, problem)) = failed.first() {
            let units: Vec<u32> = failed.iter().map(|(unit, _)| *unit).collect();
            tracing::warn!(?units, problem, "not given back: other processes wait for them until they are overdue");
        }
    }
}

impl Search {
    async fn next<T: UnitTask>(&mut self, task: &T) -> Result<Option<Taken>, PipelineError> {
        while let Some(unit) = self.own.pop_front() {
            if let Some(taken) = self.leases.take(unit, 1, 0).await? {
                return Ok(Some(taken));
            }
        }
        loop {
            if self.watched.is_empty() || self.looks >= LOOKS {
                match self.look_around(task).await? {
                    Around::Taken(taken) => return Ok(Some(taken)),
                    Around::AllStored => return Ok(None),
                    Around::InWork => {}
                }
            }
            if let Some(taken) = self.look_at_watched(task).await? {
                return Ok(Some(taken));
            }
            if !self.watched.is_empty() {
                tokio::time::sleep(self.pause()).await;
            }
        }
    }

    /// Looks through the whole output: takes a unit that nobody works on, or chooses some to watch.
    async fn look_around<T: UnitTask>(&mut self, task: &T) -> Result<Around, PipelineError> {
        // Before what is stored: a unit that ends meanwhile is one or the other.
        let held: BTreeSet<u32> = self.leases.held().keys().copied().collect();
        let stored = task.stored().await?;
        let takes = self.leases.takes().await?;
        let mut missing: Vec<u32> =
            (0..self.units).filter(|unit| !stored.contains(unit) && !held.contains(unit)).collect();
        if missing.is_empty() {
            return Ok(Around::AllStored);
        }
        // Each process in another order, and in another one at each look, so that they rarely reach for the same one and miss none.
        let process = u64::from(self.leases.process.rank);
        RandomStream::new(process, "units of other processes", u64::from(self.rounds)).shuffle(&mut missing);
        for &unit in missing.iter().filter(|unit| !takes.contains_key(unit)) {
            if let Some(taken) = self.leases.take(unit, 1, 0).await? {
                return Ok(Around::Taken(taken));
            }
        }
        if self.leases.longest().is_none() {
            // A few say enough of what is usual.
            for unit in [stored.first(), stored.last()].into_iter().flatten() {
                self.leases.saw(task.duration_of(*unit).await?.unwrap_or_default());
            }
        }
        if self.rounds == 0 {
            tracing::info!(
                units = missing.len(),
                "what is left is in work elsewhere: waiting for it, or for leases that are too old"
            );
        }
        let known = std::mem::take(&mut self.watched);
        self.watched = missing
            .iter()
            .map(|unit| {
                let takes = takes.get(unit).copied().unwrap_or(1);
                let known = known.iter().find(|known| known.unit == *unit && known.takes >= takes).cloned();
                known.unwrap_or(Watched { unit: *unit, takes, lease: None })
            })
            .take(WATCHED)
            .collect();
        (self.looks, self.rounds) = (0, self.rounds + 1);
        Ok(Around::InWork)
    }

    /// Takes over a watched unit whose lease is too old, and forgets those that are stored.
    async fn look_at_watched<T: UnitTask>(&mut self, task: &T) -> Result<Option<Taken>, PipelineError> {
        self.looks += 1;
        let mut number = 0;
        while let Some(Watched { unit, mut takes, mut lease }) = self.watched.get(number).cloned() {
            if task.is_stored(unit).await? {
                self.watched.remove(number);
                // Of a unit that went to another process, the lease says nothing of how long it took.
                if let Some(lease) = lease.filter(|_| takes == 1) {
                    self.leases.saw(lease.age());
                }
                continue;
            }
            if lease.is_none() {
                lease = self.leases.read(unit, takes).await?;
            }
            // Whether it was given back since the last look, or somebody else was faster.
            while let Some(next) = self.leases.read(unit, takes + 1).await? {
                (takes, lease) = (takes + 1, Some(next));
            }
            let (is_over, takeovers) = match &lease {
                // Somebody took it away: nobody works on it.
                None => (true, 0),
                Some(lease) => {
                    let holder = lease.holder.as_ref();
                    let is_free = holder.is_some_and(|holder| holder.is_free_for(self.leases.process));
                    let takeovers = holder.map_or(0, |holder| holder.takeovers) + u32::from(!is_free);
                    (lease.age() >= self.patience(holder), takeovers)
                }
            };
            self.watched[number] = Watched { unit, takes, lease };
            if is_over && let Some(taken) = self.leases.take(unit, takes + 1, takeovers).await? {
                tracing::info!(unit, takeovers, "taken over");
                self.watched.remove(number);
                return Ok(Some(taken));
            }
            number += 1;
        }
        Ok(None)
    }

    /// How old the lease of `holder` may get.
    fn patience(&self, holder: Option<&Holder>) -> Duration {
        let takeovers = match holder {
            // Given back, or of an earlier life of this process: nobody works on it.
            Some(holder) if holder.is_free_for(self.leases.process) => return Duration::ZERO,
            // Of a run with another number of processes, most likely an earlier one.
            Some(holder) if holder.world_size != self.leases.process.world_size => return LEAST_PATIENCE,
            holder => holder.map_or(0, |holder| holder.takeovers),
        };
        let longest = self.leases.longest();
        let patience = longest.map_or(PATIENCE_UNSEEN, |longest| (longest * PATIENCE).max(LEAST_PATIENCE));
        patience.saturating_mul(1 << takeovers.min(DOUBLINGS))
    }

    /// Until the next look: a part of what a unit takes, other for each process, so that they do not all look at once.
    fn pause(&self) -> Duration {
        let part = 0.5 + f64::from(self.leases.process.rank % 16) / 16.0;
        let (least, most) = PAUSES;
        self.leases.longest().map_or(most, |longest| longest.mul_f64(part)).clamp(least, most)
    }
}

impl Leases {
    /// The `takes`-th lease of a unit; `None` where it is not there.
    async fn read(&self, unit: u32, takes: u32) -> Result<Option<Lease>, PipelineError> {
        let found = self.output.get_dated_if_exists(&lease_path(&self.name, unit, takes)).await?;
        Ok(found.map(|(bytes, written): (_, SystemTime)| Lease {
            age: self.output.clock().duration_since(written).unwrap_or_default(),
            read: Instant::now(),
            holder: serde_json::from_slice(&bytes).ok(),
        }))
    }

    /// How often each unit was taken.
    async fn takes(&self) -> Result<BTreeMap<u32, u32>, PipelineError> {
        let mut found = BTreeMap::new();
        for object in self.output.list(&lease_prefix(&self.name)).await? {
            if let Some((unit, takes)) = parse_lease_path(&self.name, &object.path) {
                let most: &mut u32 = found.entry(unit).or_default();
                *most = takes.max(*most);
            }
        }
        Ok(found)
    }

    /// Takes a unit for the `takes`-th time, unless somebody else did. What was given back is taken anew, and the lease of an earlier life of this
    /// process renewed.
    async fn take(&self, unit: u32, mut takes: u32, mut takeovers: u32) -> Result<Option<Taken>, PipelineError> {
        loop {
            let taken = Taken { unit, takes, takeovers };
            self.held().insert(unit, taken);
            match self.put(taken, false).await? {
                PutOutcome::Created | PutOutcome::Same => return Ok(Some(taken)),
                PutOutcome::Different(found) => match serde_json::from_slice::<Holder>(&found) {
                    Ok(holder) if holder.is_free_for(self.process) => {
                        (takes, takeovers) = (takes + 1, holder.takeovers)
                    }
                    _ => {
                        self.held().remove(&unit);
                        return Ok(None);
                    }
                },
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<u32, Taken>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A unit took so long.
    fn saw(&self, duration: Duration) {
        self.longest.fetch_max(nanoseconds(duration), Relaxed);
    }

    /// The longest that a unit took, where one was seen.
    fn longest(&self) -> Option<Duration> {
        let nanoseconds = self.longest.load(Relaxed);
        (nanoseconds > 0).then_some(Duration::from_nanos(nanoseconds))
    }

    /// Says that nobody works on a unit that this process took.
    async fn give_back(&self, taken: Taken) -> Result<(), PipelineError> {
        // Nobody may know whether the lease arrived: another process may have been first.
        match self.put(taken, false).await? {
            // Where somebody has taken it over meanwhile, that stays.
            PutOutcome::Created | PutOutcome::Same => {
                self.put(Taken { takes: taken.takes + 1, ..taken }, true).await.map(drop)
            }
            PutOutcome::Different(_) => Ok(()),
        }
    }

    async fn put(&self, taken: Taken, is_given_back: bool) -> Result<PutOutcome, PipelineError> {
        let ProcessRank { rank, world_size, .. } = self.process;
        let holder = Holder { rank, world_size, life: self.life, takeovers: taken.takeovers, is_given_back };
        let bytes = serde_json::to_vec(&holder)
            .map_err(|error| SchemaError::Document { document: "lease".to_owned(), problem: error.to_string() })?;
        self.output.put_create(&lease_path(&self.name, taken.unit, taken.takes), bytes.into()).await
    }
}

/// What a look through the output found.
enum Around {
    Taken(Taken),
    AllStored,
    InWork,
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
