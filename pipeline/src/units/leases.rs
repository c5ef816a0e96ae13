//! Which units other processes are in the middle of, so that those who share an output rarely make a unit twice.
//!
//! A lease is an object that is put create-only before a unit is worked on. Its name holds the unit and how often it was taken over, its
//! date is the store's. It is never trusted for more than the order of work: a unit is stored by its files and its marker, and two processes
//! that make the same one find the same bytes there.
//!
//! A process takes its own units first, then those that nobody works on. What is left then is in work elsewhere: of a few of these units it
//! watches the leases, and takes over one that is older than a unit may take. That is so where a process died, is silent, or is slow.

use super::{ProcessRank, UnitTask};
use crate::{PipelineError, PutOutcome, Storage};
use schemas::{lease_path, lease_prefix, parse_lease_path, sha256_hex};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, SystemTime},
};

/// Units in work elsewhere whose leases a process watches at a time, so that a thousand idle ones do not ask for everything.
const WATCHED: usize = 8;

/// A unit may take this many times as long as the longest one seen before its lease is taken over; each time that happens, twice as long.
const PATIENCE: u32 = 3;

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
    process_id: u32,
}

impl Holder {
    /// Whether it is the same place among the processes: this process, or an earlier life of it.
    fn is_rank_of(&self, process: ProcessRank) -> bool {
        (self.rank, self.world_size) == (process.rank, process.world_size)
    }
}

/// The units of one of several processes that share an output.
#[derive(Debug)]
pub(crate) struct LeasedUnits {
    output: Storage,
    /// Of the plan, or of the features.
    name: String,
    units: u32,
    process: ProcessRank,
    /// Those that are this process's own and not yet taken.
    own: VecDeque<u32>,
    /// What this process took.
    taken: BTreeSet<u32>,
    /// What others are in the middle of, as far as it is watched.
    watched: Vec<Watched>,
    /// The longest that a unit took, here or where one was watched.
    longest: Option<Duration>,
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
#[derive(Clone, Copy, Debug)]
struct Lease {
    written: SystemTime,
    is_of_this_rank: bool,
}

impl LeasedUnits {
    /// `todo` are the units that were not stored at the start, this process's own first and in its order.
    pub(crate) fn new(output: &Storage, name: &str, units: u32, process: ProcessRank, todo: Vec<u32>) -> Self {
        let own = todo.into_iter().filter(|unit| unit % process.world_size == process.rank).collect();
        Self {
            output: output.clone(),
            name: name.to_owned(),
            units,
            process,
            own,
            taken: BTreeSet::new(),
            watched: Vec::new(),
            longest: None,
        }
    }

    /// A unit took so long.
    pub(crate) fn seen(&mut self, duration: Duration) {
        self.longest = self.longest.max(Some(duration));
    }

    /// The next unit that this process should make; `None` when all that are not its own to finish are stored. May be dropped while it waits:
    /// nothing is taken then that would not be taken again.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn next<T: UnitTask>(&mut self, task: &T) -> Result<Option<u32>, PipelineError> {
        while let Some(&unit) = self.own.front() {
            let taken = self.take(unit, 1).await?;
            self.own.pop_front();
            if taken {
                return Ok(Some(self.keep(unit)));
            }
        }
        loop {
            if self.watched.is_empty() {
                match self.look_around(task).await? {
                    Around::Taken(unit) => return Ok(Some(self.keep(unit))),
                    Around::AllStored => return Ok(None),
                    Around::InWork => {}
                }
            }
            match self.look_at_watched(task).await? {
                Some(unit) => return Ok(Some(self.keep(unit))),
                None if self.watched.is_empty() => {}
                None => tokio::time::sleep(self.pause()).await,
            }
        }
    }

    fn keep(&mut self, unit: u32) -> u32 {
        self.taken.insert(unit);
        self.watched.retain(|watched| watched.unit != unit);
        unit
    }

    /// Looks through the whole output: takes a unit that nobody works on, or chooses some to watch.
    async fn look_around<T: UnitTask>(&mut self, task: &T) -> Result<Around, PipelineError> {
        let stored = task.stored().await?;
        let takes = self.takes().await?;
        let mut missing: Vec<u32> =
            (0..self.units).filter(|unit| !stored.contains(unit) && !self.taken.contains(unit)).collect();
        if missing.is_empty() {
            return Ok(Around::AllStored);
        }
        // Each process in another order, so that they rarely reach for the same one.
        missing.sort_by_cached_key(|unit| sha256_hex(format!("{}/{unit}", self.process.rank).as_bytes()));
        for &unit in missing.iter().filter(|unit| !takes.contains_key(unit)) {
            if self.take(unit, 1).await? {
                return Ok(Around::Taken(unit));
            }
        }
        let watched = missing.iter().map(|unit| Watched {
            unit: *unit,
            takes: takes.get(unit).copied().unwrap_or(1),
            lease: None,
        });
        self.watched = watched.take(WATCHED).collect();
        Ok(Around::InWork)
    }

    /// Takes over a watched unit whose lease is too old, and forgets those that are stored.
    async fn look_at_watched<T: UnitTask>(&mut self, task: &T) -> Result<Option<u32>, PipelineError> {
        let mut number = 0;
        while let Some(Watched { unit, takes, lease }) = self.watched.get(number).cloned() {
            let is_stored = task.is_stored(unit).await?;
            let lease = match lease {
                None if !is_stored => self.read_lease(unit, takes).await?,
                known => known,
            };
            let age = lease.map(|lease| self.output.clock().duration_since(lease.written).unwrap_or_default());
            if is_stored {
                self.watched.remove(number);
                if let Some(age) = age {
                    self.seen(age);
                }
                continue;
            }
            self.watched[number].lease = lease;
            let is_over = match (lease, age) {
                (Some(lease), Some(age)) => lease.is_of_this_rank || age >= self.patience(takes),
                // Somebody took it away: nobody works on it.
                _ => true,
            };
            if is_over {
                if self.take(unit, takes + 1).await? {
                    tracing::info!(unit, "taken over: its process is silent or slow");
                    return Ok(Some(unit));
                }
                self.watched[number] = Watched { unit, takes: takes + 1, lease: None };
            }
            number += 1;
        }
        Ok(None)
    }

    /// The `takes`-th lease of a unit; `None` where it is not there.
    async fn read_lease(&self, unit: u32, takes: u32) -> Result<Option<Lease>, PipelineError> {
        let found = self.output.get_dated_if_exists(&lease_path(&self.name, unit, takes)).await?;
        Ok(found.map(|(bytes, written)| {
            // What cannot be read is somebody else's.
            let holder: Option<Holder> = serde_json::from_slice(&bytes).ok();
            Lease { written, is_of_this_rank: holder.is_some_and(|holder| holder.is_rank_of(self.process)) }
        }))
    }

    /// How old the `takes`-th lease of a unit may get.
    fn patience(&self, takes: u32) -> Duration {
        let patience = self.longest.map_or(PATIENCE_UNSEEN, |longest| (longest * PATIENCE).max(LEAST_PATIENCE));
        patience.saturating_mul(1 << (takes - 1).min(16))
    }

    /// Until the next look: a part of what a unit takes, other for each process, so that they do not all look at once.
    fn pause(&self) -> Duration {
        let part = 0.5 + f64::from(self.process.rank % 16) / 16.0;
        let (least, most) = PAUSES;
        self.longest.map_or(most, |longest| longest.mul_f64(part)).clamp(least, most)
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

    /// Takes a unit for the `takes`-th time, unless somebody else did. The lease of an earlier life of this process is renewed.
    async fn take(&self, unit: u32, mut takes: u32) -> Result<bool, PipelineError> {
        let ProcessRank { rank, world_size, .. } = self.process;
        let holder = Holder { rank, world_size, process_id: std::process::id() };
        let bytes = bytes::Bytes::from(serde_json::to_vec(&holder).map_err(|error| {
            schemas::SchemaError::Document { document: "lease".to_owned(), problem: error.to_string() }
        })?);
        loop {
            match self.output.put_create(&lease_path(&self.name, unit, takes), bytes.clone()).await? {
                PutOutcome::Created | PutOutcome::Same => return Ok(true),
                PutOutcome::Different(found) => {
                    let found: Option<Holder> = serde_json::from_slice(&found).ok();
                    if !found.is_some_and(|holder| holder.is_rank_of(self.process)) {
                        return Ok(false);
                    }
                    takes += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod simulation;

/// What a look through the output found.
enum Around {
    Taken(u32),
    AllStored,
    InWork,
}
