//! What all of `evaluate` shares: where features go, and the run over the units of a set.

use crate::{progress::Progress, settings::ScoringWork};
use anyhow::Result;
use pipeline::{
    EngineLink, ImageSet, ImageSetOptions, Limits, ProcessRank, ScoreRun, ScoredTables, ScorerFactory, SourceOptions,
    Storage, Telemetry,
};
use schemas::{Crop, DeviationKind, Protocol, sha256_hex};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// Counts up whenever the same images would get other features or measures.
const SCORING_VERSION: u32 = 1;

/// Digits of a digest that name a folder of features.
const KEY_DIGITS: usize = 12;

/// Where and how sets are scored.
#[derive(Debug)]
pub(crate) struct Scoring {
    pub(crate) output: Storage,
    pub(crate) protocol: Protocol,
    /// Rules that may be broken.
    pub(crate) allow: BTreeSet<DeviationKind>,
    pub(crate) work: ScoringWork,
    /// Fraction of broken images above which nothing is scored.
    pub(crate) max_reject_rate: f64,
    pub(crate) process: ProcessRank,
    pub(crate) limits: Limits,
    pub(crate) progress: Progress,
    pub(crate) cancel: CancellationToken,
    /// The engine that hands out the units of the set, until they are handed out.
    pub(crate) engine: Mutex<Option<EngineLink>>,
}

/// Everything that features depend on besides the images; its digest names their folder.
#[derive(Debug, Serialize)]
pub(super) struct FeatureKey<'a> {
    pub(super) set: &'a str,
    pub(super) extractor: Option<&'a str>,
    pub(super) extractor_precision: Option<&'static str>,
    pub(super) tokenizer: Option<&'a str>,
    pub(super) tokenizer_precision: Option<&'static str>,
    pub(super) keep: &'a [usize],
    pub(super) lpips: &'a [String],
    pub(super) batch_size: usize,
    pub(super) unit_size: usize,
    pub(super) made_with: MadeWith,
}

/// What features depend on besides: another version of it may decode or compute otherwise.
#[derive(Debug, Serialize)]
pub(super) struct MadeWith {
    scoring: u32,
    libtorch: String,
    decoders: &'static str,
}

impl MadeWith {
    /// This program.
    pub(super) fn here() -> Self {
        Self { scoring: SCORING_VERSION, libtorch: models::libtorch_version(), decoders: pipeline::decoder_versions() }
    }
}

impl FeatureKey<'_> {
    fn name(&self) -> Result<String> {
        let mut digest = sha256_hex(&serde_json::to_vec(self)?);
        digest.truncate(KEY_DIGITS);
        Ok(digest)
    }
}

impl Scoring {
    /// Opens a set.
    ///
    /// # Errors
    /// As [`ImageSet::open`]; [`pipeline::PipelineError::Drained`] when the run is to stop.
    pub(super) async fn open(&self, source: SourceOptions, crop: Option<Crop>) -> Result<Arc<ImageSet>> {
        let options = ImageSetOptions { source, crop, unit_size: self.work.unit_size };
        let opening = ImageSet::open(&options, &self.limits);
        let set = self.cancel.run_until_cancelled(opening).await.ok_or(pipeline::PipelineError::Drained)??;
        let (height, width) = set.shape();
        tracing::info!(set = set.display(), images = set.images(), units = set.units(), height, width, "opened");
        Ok(Arc::new(set))
    }

    /// Lets the scorers say what they have to of every unit that nothing is said of yet, and opens what is there then. Of processes that
    /// share the work, each gets to the end when all units are there.
    ///
    /// # Errors
    /// Whatever ended the run.
    pub(super) async fn features(
        &self,
        set: &Arc<ImageSet>,
        key: &FeatureKey<'_>,
        scorers: Vec<(String, ScorerFactory)>,
    ) -> Result<ScoredTables> {
        let key = key.name()?;
        let telemetry = Arc::new(Telemetry::of_scoring());
        self.progress.metrics().show_run(&telemetry, self.process.rank, &key);
        let run = ScoreRun {
            set: Arc::clone(set),
            output: self.output.clone(),
            key: key.clone(),
            batch_size: self.work.batch_size,
            scorers,
            libtorch: models::libtorch_version(),
            process: self.process,
            limits: self.limits.clone(),
            telemetry: Arc::clone(&telemetry),
            cancel: self.cancel.clone(),
            engine: self.engine.lock().unwrap_or_else(PoisonError::into_inner).take(),
        };
        let report = tokio::select! {
            report = pipeline::score(run) => report?,
            () = self.progress.show(&telemetry) => unreachable!("progress is shown for ever"),
        };
        tracing::info!(
            set = set.display(),
            units = report.units,
            units_here = report.units_here,
            units_already_done = report.units_already_done,
            units_elsewhere = report.units_elsewhere,
            images_a_second = report::text::tenths(telemetry.snapshot().images_a_second()),
            "features are there"
        );
        Ok(ScoredTables::open(self.output.clone(), &key, set.units())?)
    }
}
