//! Where a run takes its next unit from.

use super::{
    EngineEvent, EngineLink, ProcessRank, UnitCounts, UnitTask, leases::LeasedUnits, unit_ranges::unit_ranges,
};
use crate::{PipelineError, Storage};
use std::{sync::Arc, time::Duration, vec};

/// What a run knows of its units before it makes them.
#[derive(Debug)]
pub(crate) struct UnitsToDo<'a> {
    /// Where they are stored.
    pub(crate) output: &'a Storage,
    /// What they are units of: the short hash of a plan, or a key of features.
    pub(crate) name: &'a str,
    /// How many there are.
    pub(crate) units: u32,
    /// Those that are not stored yet, ascending.
    pub(crate) missing: Vec<u32>,
    /// This process among those that share the output.
    pub(crate) process: ProcessRank,
}

/// Where a run takes its next unit from.
#[derive(Debug)]
pub(crate) enum UnitQueue {
    /// All of them are known, and nobody else is known to work on them.
    Listed(vec::IntoIter<u32>),
    /// Several processes share them.
    Shared(Box<LeasedUnits>),
    /// They come one at a time.
    Engine {
        link: EngineLink,
        /// Of [`EngineEvent::Ready`].
        plan: String,
        units: u32,
        missing: Vec<[u32; 2]>,
    },
}

impl UnitQueue {
    /// Of an engine where there is one, whom `plan` is told; else of `todo`.
    pub(crate) fn new(engine: Option<EngineLink>, plan: &str, todo: UnitsToDo<'_>) -> Self {
        let UnitsToDo { output, name, units, missing, process } = todo;
        match engine {
            Some(link) => Self::Engine { link, plan: plan.to_owned(), units, missing: unit_ranges(&missing) },
            None if process.world_size > 1 && !missing.is_empty() => {
                Self::Shared(Box::new(LeasedUnits::new(output, name, units, process, missing)))
            }
            None => Self::Listed(missing.into_iter()),
        }
    }

    /// Whether it is known that nothing comes.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Listed(units) if units.len() == 0)
    }

    /// How many units can be at work when `units_in_flight` are allowed.
    pub(crate) fn at_once(&self, units_in_flight: usize) -> usize {
        match self {
            Self::Listed(units) => units_in_flight.min(units.len()),
            Self::Shared(_) | Self::Engine { .. } => units_in_flight,
        }
    }

    /// Says that units are taken from now on, `at_once` at the same time.
    pub(crate) fn open(&mut self, at_once: usize) {
        if let Self::Engine { plan, units, missing, .. } = self {
            let ready = EngineEvent::Ready {
                plan: std::mem::take(plan),
                units: *units,
                missing: std::mem::take(missing),
                at_once,
            };
            self.tell(ready);
        }
    }

    /// The next unit; `None` when no more come. May be dropped while it waits.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn next<T: UnitTask>(&mut self, task: &Arc<T>) -> Result<Option<u32>, PipelineError> {
        match self {
            Self::Listed(units) => Ok(units.next()),
            Self::Shared(units) => units.next(task).await,
            Self::Engine { link, units, .. } => loop {
                match link.requests.recv().await.transpose() {
                    Ok(Some(unit)) if unit >= *units => link.events.tell(EngineEvent::Unknown { unit, units: *units }),
                    Ok(next) => return Ok(next),
                    Err(source) => return Err(PipelineError::Engine { source }),
                }
            },
        }
    }

    /// A unit that was taken is stored: here, with what it came to, or elsewhere.
    pub(crate) fn stored(&mut self, unit: u32, here: Option<UnitCounts>) {
        match (&mut *self, &here) {
            (Self::Shared(units), here) => {
                let duration = here.as_ref().map(|here| Duration::try_from_secs_f64(here.seconds).unwrap_or_default());
                units.stored(unit, duration);
            }
            _ => self.tell(EngineEvent::Stored { unit, here }),
        }
    }

    /// Tells the engine, if there is one.
    pub(crate) fn tell(&self, event: EngineEvent) {
        if let Self::Engine { link, .. } = self {
            link.events.tell(event);
        }
    }

    /// Says that nobody makes the units of `in_work` any more: to the engine, with those that still wait, or to the processes that share them,
    /// for which the store has `patience`.
    pub(crate) async fn close(&mut self, in_work: impl IntoIterator<Item = u32>, patience: Duration) {
        match self {
            Self::Listed(_) => {}
            Self::Shared(units) => units.give_back(patience).await,
            Self::Engine { link, .. } => {
                link.requests.close();
                let mut units: Vec<u32> = in_work.into_iter().collect();
                while let Ok(request) = link.requests.try_recv() {
                    units.extend(request.ok());
                }
                units.sort_unstable();
                units.dedup();
                link.events.tell(EngineEvent::Dropped { units });
            }
        }
    }
}
