//! What a run that makes an output leaves of its own course: how much each stage did, and how busy it was, moment by moment.
//!
//! One small JSON file a run, `_log/<plan>/<start in UTC>-rank<rank>.json` below the output, written at its end, whatever the end; only
//! a process that is killed leaves none. It is no part of the output: it holds a clock, nothing reads it but `restok report`, and a
//! run that cannot write it is none the worse. The same holds of the heartbeats that a run leaves while it works ([`Heart`]), which
//! `restok watch` reads.

mod clock;
mod heartbeat;
mod recorder;

pub(crate) use clock::readable;
pub use heartbeat::{Heart, UnitInWork, Worker};
pub(crate) use heartbeat::{Heartbeat, parse_name};
pub use recorder::Recorder;

use bytes::Bytes;
use pipeline::{PipelineError, PutOutcome, Storage};
use schemas::{PlanHash, SchemaError, log_prefix};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// Version of the document.
const FORMAT: u32 = 1;

/// Names tried, should another run of the same rank have begun in the same millisecond.
const NAMES: u32 = 9;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The output is finished.
    Finished,
    /// All that was to be done is done, and the output was left open.
    Complete,
    /// It was asked to stop.
    Stopped,
    /// An error or a panic ended it.
    Failed,
}

impl Outcome {
    /// In a word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Complete => "complete",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// The course of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunLog {
    /// Version of the document.
    format: u32,
    /// The plan.
    pub(crate) plan: PlanHash,
    /// When it began, UTC, as `20260131T235959.123Z`.
    pub(crate) started: String,
    /// Which of several processes it was.
    pub(crate) rank: u32,
    /// How many they were.
    #[serde(rename = "world")]
    pub(crate) world_size: u32,
    /// Version of this program.
    restok: String,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What ended it, where that was an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// Units of the plan.
    pub(crate) units_total: u64,
    /// Images that were rejected.
    pub(crate) images_rejected: u64,
    /// The stage that the run waited for.
    pub(crate) limiting_stage: Option<String>,
    /// The moments, in seconds since the beginning, ascending; the last one is the end.
    pub(crate) seconds: Vec<f64>,
    /// Images read until then.
    pub(crate) images_read: Vec<u64>,
    /// Images encoded until then, or samples made.
    pub(crate) images_written: Vec<u64>,
    /// Units of the output that were complete then, those of other runs included.
    pub(crate) units: Vec<u64>,
    /// Every stage, in order.
    pub(crate) stages: Vec<StageLog>,
}

/// The course of one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StageLog {
    /// Its name.
    pub(crate) stage: String,
    /// What it counts.
    pub(crate) item: String,
    /// Things that can be at work in it at once.
    pub(crate) capacity: u64,
    /// Things that went through it until each moment.
    pub(crate) items: Vec<u64>,
    /// Seconds that it was at work until each moment, summed over everything that works at once in it. Work is counted when it is
    /// done: a utilization over less time than a piece of work takes says nothing.
    pub(crate) busy_seconds: Vec<f64>,
}

/// What a run knows of itself.
#[derive(Clone, Debug)]
pub struct RunEnd {
    /// When it began.
    pub started: SystemTime,
    /// Which of several processes it was.
    pub rank: u32,
    /// How many they were.
    pub world_size: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// What ended it, where that was an error.
    pub problem: Option<String>,
}

impl RunLog {
    /// Writes the log below the output that the run was about.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn put(&self, output: &Storage) -> Result<(), PipelineError> {
        let front = format!("{}{}-rank{}", log_prefix(&self.plan), self.started, self.rank);
        let bytes = serde_json::to_vec(self)
            .map_err(|error| SchemaError::Document { document: front.clone(), problem: error.to_string() })?;
        let bytes = Bytes::from(bytes);
        for number in 1..=NAMES {
            let path = if number == 1 { format!("{front}.json") } else { format!("{front}-{number}.json") };
            if !matches!(output.put_create(&path, bytes.clone()).await?, PutOutcome::Different(_)) {
                break;
            }
        }
        Ok(())
    }

    /// Seconds that the run took.
    pub(crate) fn duration(&self) -> f64 {
        self.seconds.last().copied().unwrap_or_default()
    }

    /// Whether every list has an element for each moment, as a reader relies on.
    pub(crate) fn is_sound(&self) -> bool {
        let moments = self.seconds.len();
        self.format == FORMAT
            && self.images_read.len() == moments
            && self.images_written.len() == moments
            && self.units.len() == moments
            && self.stages.iter().all(|stage| stage.items.len() == moments && stage.busy_seconds.len() == moments)
    }
}
