//! A run with its progress shown, that tells of itself while it works and leaves its log.

use crate::{environment, progress::Progress};
use futures::FutureExt;
use pipeline::{PipelineError, ProcessRank, RankOrigin, RunReport, Storage, Telemetry};
use report::run_log::{Heart, Outcome, Recorder, RunEnd, Worker};
use schemas::Plan;
use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Longest wait for the store: nobody should wait for what nobody needs.
const PATIENCE: Duration = Duration::from_secs(10);

/// The run that is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    plan: Arc<Plan>,
    output: Storage,
    process: ProcessRank,
    telemetry: Arc<Telemetry>,
    /// Time between two heartbeats at first; `None` for no heartbeats.
    heartbeats: Option<Duration>,
}

impl Watched {
    /// A run of `plan` into `output`.
    pub(crate) fn new(
        plan: &Arc<Plan>,
        output: &Storage,
        process: ProcessRank,
        telemetry: &Arc<Telemetry>,
        heartbeats: Option<Duration>,
    ) -> Self {
        Self { plan: Arc::clone(plan), output: output.clone(), process, telemetry: Arc::clone(telemetry), heartbeats }
    }

    /// Carries a run to its end, with its progress shown, its counters served and its heartbeats written, and leaves its log.
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
        let ProcessRank { rank, world_size, origin } = self.process;
        progress.metrics().show_run(&self.telemetry, rank, self.plan.hash().short());
        let worker = Worker {
            started,
            rank,
            world_size,
            engine: origin == RankOrigin::Engine,
            host: environment::host_name(),
            process_id: std::process::id(),
        };
        let mut heart = self.heartbeats.map(|period| Heart::new(worker, self.plan.hash(), &self.output, period));
        let mut recorder = Recorder::default();
        // A panic is passed on below; what it may have left half done is not looked at again.
        let result = tokio::select! {
            result = AssertUnwindSafe(run).catch_unwind() => result,
            () = progress.show(&self.telemetry) => unreachable!("progress is shown for ever"),
            () = recorder.record(&self.telemetry) => unreachable!("moments are recorded for ever"),
            () = beat(heart.as_mut(), &self.telemetry) => unreachable!("a heart beats for ever"),
        };
        recorder.take(self.telemetry.snapshot());
        let (outcome, problem) = match &result {
            Ok(Ok(report)) if report.finalized => (Outcome::Finished, None),
            Ok(Ok(_)) => (Outcome::Complete, None),
            Ok(Err(error)) if error.is_drained() => (Outcome::Stopped, None),
            Ok(Err(error)) => (Outcome::Failed, Some(error.to_string())),
            Err(_) => (Outcome::Failed, Some("a panic, which is a fault of the program".to_owned())),
        };
        let last = self.telemetry.snapshot();
        let stop = async {
            if let Some(heart) = &mut heart {
                heart.stop(&last, outcome).await;
            }
        };
        let log = recorder
            .is_worth_keeping(outcome)
            .then(|| recorder.into_log(self.plan.hash(), RunEnd { started, rank, world_size, outcome, problem }));
        let leave_log = async {
            let Some(log) = log else { return };
            match tokio::time::timeout(PATIENCE, log.put(&self.output)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the log of this run could not be written; the output is not touched by that")
                }
                Err(_) => tracing::warn!("the log of this run was given up: the store did not answer in time"),
            }
        };
        tokio::join!(stop, leave_log);
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Beats for ever, with or without a heart.
async fn beat(heart: Option<&mut Heart>, telemetry: &Telemetry) {
    match heart {
        Some(heart) => heart.beat(telemetry).await,
        None => std::future::pending().await,
    }
}
