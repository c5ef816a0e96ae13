//! Reads what is new below an output.

use super::look::{Heard, Look, Told, Watched};
use crate::run_log::{Heartbeat, parse_name};
use futures::{StreamExt, TryStreamExt, stream};
use pipeline::{PipelineError, Storage, done_units, nothing_there, planned_images, read_markers, read_plan};
use schemas::{Plan, SUCCESS_PATH, heartbeat_prefix};
use std::collections::{BTreeMap, BTreeSet};

/// Markers that are read in one look, at most. Of an output with more units that are complete, the next looks read the rest.
const MARKERS_A_LOOK: usize = 1_024;

/// Workers that are looked at, the newest: one that is started again and again may have left any number of them.
const WORKERS: usize = 1_024;

/// Heartbeats read at once: they are small, latency is all they cost.
const HEARTBEATS_AT_ONCE: usize = 32;

/// Watches an output.
///
/// A look asks the store for one object, for a listing of the markers and one of the heartbeats (a request for each thousand), and reads
/// what is new: a heartbeat for each worker that has written one since, and the markers that were written since. It remembers what
/// it read.
#[derive(Debug)]
pub struct Watcher {
    output: Storage,
    plan: Plan,
    watched: Watched,
    told: Told,
    /// Units whose marker was read.
    units_read: BTreeSet<u32>,
    workers: BTreeMap<String, Heard>,
    /// Number of the newest heartbeat of each worker that was read, whether it was one or not.
    heartbeats_read: BTreeMap<String, u32>,
}

impl Watcher {
    /// Reads the plan of an output; nothing else yet.
    ///
    /// # Errors
    /// When nothing was ever written there, or the plan is damaged; storage errors.
    pub async fn open(output: Storage) -> Result<Self, PipelineError> {
        let plan = read_plan(&output).await?.ok_or_else(|| nothing_there(&output))?;
        let watched = Watched {
            output: output.display().to_owned(),
            plan: plan.hash().to_string(),
            units: u64::from(plan.units()),
            images: planned_images(&plan),
        };
        Ok(Self {
            output,
            plan,
            watched,
            told: Told::default(),
            units_read: BTreeSet::new(),
            workers: BTreeMap::new(),
            heartbeats_read: BTreeMap::new(),
        })
    }

    /// How the job stands now.
    ///
    /// # Errors
    /// When a marker is damaged; storage errors, after which the next look goes on.
    pub async fn look(&mut self) -> Result<Look, PipelineError> {
        // Before the markers: what is finished has them all.
        let finished = self.output.exists(SUCCESS_PATH).await?;
        // Before the markers too: a unit that a heartbeat names may be complete by now, and is not in work then.
        self.hear().await?;
        let done = done_units(&self.output, &self.plan).await?;
        let unread: Vec<u32> = done.difference(&self.units_read).copied().take(MARKERS_A_LOOK).collect();
        for report in read_markers(&self.output, &self.plan, unread).await? {
            self.units_read.insert(report.unit);
            self.told.add(&report);
        }
        Ok(Look::of(&self.watched, (finished, &done), &self.told, (&self.workers, self.output.clock())))
    }

    /// Reads the newest heartbeat of each worker, where it is not the one that was read last. One that does not read is passed over.
    async fn hear(&mut self) -> Result<(), PipelineError> {
        let prefix = heartbeat_prefix(self.plan.hash());
        let listed = self.output.list(&prefix).await?;
        let mut newest: BTreeMap<&str, (u32, &str)> = BTreeMap::new();
        for object in &listed {
            if let Some((worker, number)) = object.path.strip_prefix(&prefix).and_then(parse_name) {
                let found = (number, object.path.as_str());
                let known = newest.entry(worker).or_insert(found);
                *known = found.max(*known);
            }
        }
        let older = newest.len().saturating_sub(WORKERS);
        let is_new = |worker: &str, number: u32| self.heartbeats_read.get(worker).is_none_or(|read| *read < number);
        let unheard: Vec<(&str, u32, &str)> = newest
            .into_iter()
            .skip(older)
            .map(|(worker, (number, path))| (worker, number, path))
            .filter(|(worker, number, _)| is_new(worker, *number))
            .collect();
        let output = &self.output;
        let heard: Vec<(&str, u32, Option<Heard>)> = stream::iter(unheard)
            .map(|(worker, number, path)| async move {
                Ok::<_, PipelineError>((worker, number, hear_one(output, path).await?))
            })
            .buffer_unordered(HEARTBEATS_AT_ONCE)
            .try_collect()
            .await?;
        for (worker, number, heard) in heard {
            self.heartbeats_read.insert(worker.to_owned(), number);
            if let Some(heard) = heard {
                self.workers.insert(worker.to_owned(), heard);
            }
        }
        Ok(())
    }
}

/// One heartbeat; `None` for what is none.
async fn hear_one(output: &Storage, path: &str) -> Result<Option<Heard>, PipelineError> {
    let (bytes, written) = output.get_dated(path).await?;
    Ok(match Heartbeat::parse(&output.uri(path), &bytes) {
        Ok(heartbeat) => Some(Heard { heartbeat, written }),
        Err(error) => {
            tracing::warn!(%error, "this heartbeat is passed over");
            None
        }
    })
}
