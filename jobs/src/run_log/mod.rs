//! What a run that makes an output leaves of its own course: how much each stage did, and how busy it was, moment by moment.
//!
//! One small JSON file a run, `_log/<plan>/<start in UTC>-rank<rank>.json` below the output, written at its end, whatever the end; only
//! a process that is killed leaves none. It is no part of the output: it holds a clock, nothing reads it but `restok report`, and a
//! run that cannot write it is none the worse.

mod clock;
mod recorder;

pub(crate) use clock::readable;

use crate::progress::Progress;
use bytes::Bytes;
use futures::FutureExt;
use pipeline::{PipelineError, ProcessRank, PutOutcome, RunReport, Storage, Telemetry};
use recorder::Recorder;
use schemas::{Plan, PlanHash, SchemaError, log_prefix};
use serde::{Deserialize, Serialize};
use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Version of the document.
const FORMAT: u32 = 1;

/// Longest wait for the store: nobody should wait for what nobody needs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Names tried, should another run of the same rank have begun in the same millisecond.
const NAMES: u32 = 9;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
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
pub(crate) struct RunLog {
    /// Version of the document.
    format: u32,
    /// The plan.
    pub(crate) plan: PlanHash,
    /// When it began, UTC, as `20260131T235959.123Z`.
    pub(crate) started: String,
    /// Which of several processes it was.
    pub(crate) rank: u32,
    /// How many they were.
    pub(crate) world: u32,
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
    /// done: a share of less time than a piece of work takes says nothing.
    pub(crate) busy_seconds: Vec<f64>,
}

/// The run that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    plan: Arc<Plan>,
    output: Storage,
    process: ProcessRank,
    telemetry: Arc<Telemetry>,
}

impl Watched {
    /// A run of `plan` into `output`.
    pub(crate) fn new(plan: &Arc<Plan>, output: &Storage, process: ProcessRank, telemetry: &Arc<Telemetry>) -> Self {
        Self { plan: Arc::clone(plan), output: output.clone(), process, telemetry: Arc::clone(telemetry) }
    }

    /// Carries a run to its end, with its progress shown, and leaves its log.
    ///
    /// # Errors
    /// Those of the run.
    ///
    /// # Panics
    /// With the run's own panic.
    pub(crate) async fn run(
        self,
        run: impl Future<Output = Result<RunReport, PipelineError>>,
        progress: &Progress,
    ) -> Result<RunReport, PipelineError> {
        let started =
            SystemTime::now().checked_sub(self.telemetry.snapshot().elapsed).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut recorder = Recorder::default();
        // A panic is passed on below; what it may have left half done is not looked at again.
        let result = tokio::select! {
            result = AssertUnwindSafe(run).catch_unwind() => result,
            () = progress.show(&self.telemetry) => unreachable!("progress is shown for ever"),
            () = recorder.record(&self.telemetry) => unreachable!("moments are recorded for ever"),
        };
        recorder.take(self.telemetry.snapshot());
        let (outcome, problem) = match &result {
            Ok(Ok(report)) if report.finalized => (Outcome::Finished, None),
            Ok(Ok(_)) => (Outcome::Complete, None),
            Ok(Err(error)) if error.is_drained() => (Outcome::Stopped, None),
            Ok(Err(error)) => (Outcome::Failed, Some(error.to_string())),
            Err(_) => (Outcome::Failed, Some("a panic, which is a fault of the program".to_owned())),
        };
        if recorder.is_worth_keeping(outcome) {
            let log = RunLog {
                format: FORMAT,
                plan: self.plan.hash().clone(),
                started: clock::stamp(started),
                rank: self.process.rank,
                world: self.process.world,
                restok: env!("CARGO_PKG_VERSION").to_owned(),
                outcome,
                problem,
                ..recorder.into_log(self.plan.hash())
            };
            match tokio::time::timeout(PATIENCE, log.put(&self.output)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the log of this run could not be written; the output is not touched by that")
                }
                Err(_) => tracing::warn!("the log of this run was given up: the store did not answer in time"),
            }
        }
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl RunLog {
    async fn put(&self, output: &Storage) -> Result<(), PipelineError> {
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
