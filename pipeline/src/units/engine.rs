//! The link to an engine that hands out units one at a time.

use schemas::RejectReason;
use std::{collections::BTreeMap, fmt, io, sync::Arc};
use tokio::sync::mpsc::UnboundedReceiver;

/// Unit numbers from an engine, and what it is told of them.
#[derive(Debug)]
pub struct EngineLink {
    /// Numbers of units, until no more come; why they cannot be read.
    pub requests: UnboundedReceiver<io::Result<u32>>,
    /// What becomes of them.
    pub events: EngineEvents,
}

/// Takes what an engine is told. It must not wait.
#[derive(Clone)]
pub struct EngineEvents(Arc<dyn Fn(EngineEvent) + Send + Sync>);

impl EngineEvents {
    /// Hands each event to `take`.
    pub fn new(take: impl Fn(EngineEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    pub(crate) fn tell(&self, event: EngineEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for EngineEvents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EngineEvents")
    }
}

/// What an engine is told.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// Networks are loaded and the output is claimed; units are taken from now on.
    Ready {
        /// Hash of the plan; of scores, the key of the features.
        plan: String,
        /// Units of the plan.
        units: u32,
        /// Those that are not stored yet, as ascending ranges, both ends in them.
        missing: Vec<[u32; 2]>,
        /// Units that are worked on at the same time.
        at_once: usize,
    },
    /// A unit was taken.
    Begun {
        /// The unit.
        unit: u32,
    },
    /// A unit is stored.
    Stored {
        /// The unit.
        unit: u32,
        /// What it came to; absent where another process was first.
        here: Option<UnitCounts>,
    },
    /// The plan has no such unit.
    Unknown {
        /// The number.
        unit: u32,
        /// Units of the plan.
        units: u32,
    },
    /// The run was asked to stop, or failed, before these units were stored.
    Dropped {
        /// Their numbers, ascending.
        units: Vec<u32>,
    },
    /// Every unit that was taken is stored, and no more come.
    Ended {
        /// Units that this run stored.
        units_here: u32,
        /// Units that nobody stored yet.
        units_left: u32,
        /// Whether the output is finished.
        finalized: bool,
    },
}

/// What a unit came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnitCounts {
    /// Images listed.
    pub images: u64,
    /// Images rejected, by reason.
    pub rejected: BTreeMap<RejectReason, u64>,
    /// Rows of the tokens table, or of scores.
    pub rows: u64,
    /// Wall time in seconds.
    pub seconds: f64,
}
