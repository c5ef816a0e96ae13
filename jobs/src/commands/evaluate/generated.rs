//! Generated sets, as the ADM evaluator scores them.

use super::{
    ComparedWith, SPLIT,
    extractors::Extractors,
    made_by::MadeBy,
    record, rules,
    scoring::{FeatureKey, MadeWith, Scoring},
    set_scores::SetScores,
    totals::{KeptFeatures, SetTotals, VariantTotals},
};
use crate::settings::ScoreSelection;
use anyhow::Result;
use pipeline::{ImageSet, PipelineError, ScoredTables, SourceOptions};
use schemas::{Crop, EvaluationRecord};
use std::{slice, sync::Arc};

/// A set that is opened and keeps the rules that can be known before its images are looked at, or was allowed not to.
#[derive(Debug)]
pub(crate) struct GeneratedSet {
    made_by: MadeBy,
    set: Arc<ImageSet>,
    crop: Option<Crop>,
}

impl GeneratedSet {
    /// Opens a set.
    ///
    /// # Errors
    /// When it cannot be read, or a rule is broken and not allowed.
    pub(crate) async fn open(source: SourceOptions, crop: Option<Crop>, scoring: &Scoring) -> Result<Self> {
        let made_by = MadeBy::find(source, &scoring.limits).await?;
        let set = scoring.open(made_by.source.clone(), crop).await?;
        let deviations: Vec<_> = rules::of_size(scoring.protocol, set.shape(), crop)
            .into_iter()
            .chain(set.images().and_then(|images| rules::of_count(scoring.protocol, images)))
            .collect();
        rules::refuse(scoring.protocol, &deviations, &scoring.allow)?;
        Ok(Self { made_by, set, crop })
    }

    /// The features of every unit.
    ///
    /// # Errors
    /// Whatever ended the run.
    pub(super) async fn features(&self, scoring: &Scoring, extractors: &Extractors) -> Result<ScoredTables> {
        features(&self.set, scoring, extractors).await
    }

    /// Scores it; of the scores, those that were selected.
    ///
    /// # Errors
    /// When a rule of the protocol is broken and not allowed, and whatever else ended it.
    pub(crate) async fn score(
        self,
        compared: &ComparedWith,
        selection: &ScoreSelection,
        scoring: &Scoring,
        extractors: &Extractors,
    ) -> Result<EvaluationRecord> {
        let mut deviations: Vec<_> = compared.deviations_for(self.set.shape());
        deviations.extend(rules::of_size(scoring.protocol, self.set.shape(), self.crop));
        rules::refuse(scoring.protocol, &deviations, &scoring.allow)?;
        selection.check_subsets(compared, self.set.images())?;

        let tables = self.features(scoring, extractors).await?;
        let Self { made_by, set, crop } = self;
        let variants = vec![(None, VariantTotals::with_features(extractors, Some(SPLIT), true)?)];
        let features = if selection.needs_pool(compared) { KeptFeatures::All(Vec::new()) } else { KeptFeatures::None };
        let totals = SetTotals::new(variants, None, features).keeping_spatial(selection.needs_spatial(compared));
        let mut totals = totals.read(&tables).await?;
        check_rejects(&totals, scoring)?;
        let variant = totals.variants.pop().unwrap_or_default();
        let result = tokio::task::spawn_blocking(move || variant.finish()).await??;
        deviations.extend(rules::of_count(scoring.protocol, totals.images));
        deviations.extend(rules::of_rejects(totals.rejected));
        deviations.extend(rules::of_files(scoring.protocol, totals.images, totals.lossy));
        let order = |score| rules::of_order(scoring.protocol, &totals.neighbours(score));
        deviations.extend(result.score.as_ref().and_then(order));
        rules::refuse(scoring.protocol, &deviations, &scoring.allow)?;

        let max_images = made_by.source.max_images;
        let mut record = record::begin(scoring, &set, max_images, crop, &totals, Some(extractors));
        made_by.describe(&mut record)?;
        record.reference.clone_from(&compared.name);
        record.reference_sha256.clone_from(&compared.sha256);
        record.reference_images = compared.images;
        record::note(&mut record, &deviations);
        record.score_settings = selection.as_json()?;
        let (pool, spatial) = (totals.features.finish(), totals.spatial.unwrap_or_default());
        let scores = SetScores { selection, compared, found: &result, pool: &pool, spatial: &spatial, extractors };
        // Minutes of arithmetic: the runtime's other threads go on.
        record.scores = tokio::task::block_in_place(|| scores.compute())?;
        record::name(slice::from_mut(&mut record))?;
        Ok(record)
    }
}

/// The features of every unit of a set.
///
/// # Errors
/// Whatever ended the run.
pub(super) async fn features(set: &Arc<ImageSet>, scoring: &Scoring, extractors: &Extractors) -> Result<ScoredTables> {
    let key = FeatureKey {
        set: set.digest(),
        extractor: Some(extractors.sha256()),
        extractor_precision: Some(extractors.precision().name()),
        tokenizer: None,
        tokenizer_precision: None,
        keep: &[],
        lpips: &[],
        batch_size: scoring.work.batch_size,
        unit_size: scoring.work.unit_size,
        made_with: MadeWith::here(),
    };
    scoring.features(set, &key, extractors.scorers()).await
}

/// A set of which too much is broken is not scored.
///
/// # Errors
/// [`PipelineError::RejectRate`].
pub(super) fn check_rejects(totals: &SetTotals, scoring: &Scoring) -> Result<(), PipelineError> {
    let listed = totals.images + totals.rejected;
    match totals.rejected as f64 > scoring.max_reject_rate * listed as f64 {
        false => Ok(()),
        true => Err(PipelineError::RejectRate {
            rejected: totals.rejected,
            listed,
            limit_percent: scoring.max_reject_rate * 100.0,
            reasons: "unreadable images of the set".to_owned(),
        }),
    }
}
