//! Reconstructions of a tokenizer, as the published evaluation scores them, from any number of their tokens.

use super::{
    extractors::Extractors,
    generated::check_rejects,
    record, rules,
    scoring::{FeatureKey, MadeWith, Scoring},
    totals::{KeptFeatures, SetTotals, VariantTotals},
};
use crate::{
    model_folder::{ModelFolder, tokenizer_identity},
    networks,
    settings::{ReconstructionTask, SettingsError},
    workers::Workers,
};
use anyhow::Result;
use models::{
    Device, ExtractorPrecision, ImageComparison, Inception, LpipsFiles, ModelError, Precision, ReconstructionScorer,
    frechet_distance,
};
use pipeline::{ImageSet, ScoredTables, ScorerFactory, SourceOptions};
use schemas::{CodebookStatistics, Crop, Deviation, DeviationKind, EvaluationRecord, Scores, TokenizerIdentity};
use std::{path::PathBuf, sync::Arc};

/// What every worker needs to build its scorer.
#[derive(Clone, Debug)]
struct Recipe {
    folder: ModelFolder,
    precision: Precision,
    keep: Vec<usize>,
    inception: Option<PathBuf>,
    lpips: Option<LpipsFiles>,
}

/// A set, and how its images are reconstructed; all that can be known before a network looks at them keeps the rules.
#[derive(Debug)]
pub(super) struct Reconstructions {
    set: Arc<ImageSet>,
    crop: Crop,
    max_images: Option<u64>,
    identity: TokenizerIdentity,
    extractors: Option<Extractors>,
    lpips_digests: Vec<String>,
    recipe: Recipe,
    deviations: Vec<Deviation>,
}

impl Reconstructions {
    /// Opens the set and finds the networks.
    ///
    /// # Errors
    /// When one of them cannot be read, or a rule of the protocol is broken and not allowed.
    pub(super) async fn open(
        source: SourceOptions,
        crop: Option<Crop>,
        task: &ReconstructionTask,
        scoring: &Scoring,
        workers: &Workers,
    ) -> Result<Self> {
        let device = workers.first()?;
        let extractors = match &task.inception {
            Some(inception) => Some(Extractors::load(inception, workers, ExtractorPrecision::Float64).await?),
            None => None,
        };
        let lpips = task.lpips.clone().map(|(alexnet, linear)| LpipsFiles { alexnet, linear });
        let (reference, precision, files) = (task.tokenizer.clone(), task.precision, lpips.clone());
        let loading = tokio::task::spawn_blocking(move || -> Result<_> {
            let folder = ModelFolder::find(&reference)?;
            let tokenizer = folder.load_tokenizer(device, precision)?;
            let digests = files.as_ref().map(LpipsFiles::digests).transpose()?.unwrap_or_default();
            Ok((folder, tokenizer, digests))
        });
        let (folder, tokenizer, lpips_digests) = loading.await??;
        let (identity, resolution) = (tokenizer_identity(&tokenizer), tokenizer.resolution());
        // Each worker loads its own.
        drop(tokenizer);
        let keep = choose_keep(task.keep.as_deref(), identity.levels.tokens_per_image())?;
        let crop = crop.unwrap_or(Crop::TorchvisionCenter { size: resolution });
        if crop.size() != resolution {
            let expected = format!("views of {resolution} by {resolution} pixels, the tokenizer's resolution");
            return Err(SettingsError::invalid("--crop", crop.to_string(), expected).into());
        }
        let max_images = source.max_images;
        let set = scoring.open(source, Some(crop)).await?;
        let mut deviations: Vec<Deviation> =
            rules::of_size(scoring.protocol, set.shape(), Some(crop)).into_iter().collect();
        deviations.extend(of_precision(task.precision));
        let early: Vec<_> =
            set.images().and_then(|images| rules::of_count(scoring.protocol, images)).into_iter().collect();
        rules::refuse(scoring.protocol, &[deviations.as_slice(), &early].concat(), &scoring.allow)?;
        let recipe = Recipe { folder, precision, keep, inception: task.inception.clone(), lpips };
        Ok(Self { set, crop, max_images, identity, extractors, lpips_digests, recipe, deviations })
    }

    /// Features and measures of every unit.
    ///
    /// # Errors
    /// Whatever ended the run.
    pub(super) async fn features(&self, scoring: &Scoring, workers: &Workers) -> Result<ScoredTables> {
        let key = FeatureKey {
            set: self.set.digest(),
            extractor: self.extractors.as_ref().map(Extractors::sha256),
            extractor_precision: self.extractors.as_ref().map(|extractors| extractors.precision().name()),
            tokenizer: Some(&self.identity.sha256),
            tokenizer_precision: Some(self.recipe.precision.name()),
            keep: &self.recipe.keep,
            lpips: &self.lpips_digests,
            batch_size: scoring.work.batch_size,
            unit_size: scoring.work.unit_size,
            made_with: MadeWith::here(),
        };
        let first = self.extractors.as_ref().and_then(Extractors::take_first);
        scoring.features(&self.set, &key, scorers(workers, first, &self.recipe)).await
    }

    /// Scores the reconstructions; a record for each number of tokens.
    ///
    /// # Errors
    /// When a rule of the protocol is broken and not allowed, and whatever else ended it.
    pub(super) async fn score(self, scoring: &Scoring, workers: &Workers) -> Result<Vec<EvaluationRecord>> {
        let device = workers.first()?;
        let tables = self.features(scoring, workers).await?;
        let Self { set, crop, max_images, identity, extractors, lpips_digests, recipe, mut deviations } = self;
        let keep = &recipe.keep;
        // The first variant is the images as they are.
        let variants = std::iter::once(None).chain(keep.iter().map(|&tokens| u16::try_from(tokens).ok()));
        let variants = variants.map(|variant| match &extractors {
            Some(extractors) => Ok((variant, VariantTotals::with_features(extractors, None, false)?)),
            None => Ok((variant, VariantTotals::default())),
        });
        let codebook = CodebookStatistics::new(identity.levels.clone(), identity.codebook_size);
        let totals = SetTotals::new(variants.collect::<Result<_>>()?, Some(codebook), KeptFeatures::None);
        let totals = totals.read(&tables).await?;
        check_rejects(&totals, scoring)?;
        deviations.extend(rules::of_count(scoring.protocol, totals.images));
        deviations.extend(rules::of_rejects(totals.rejected));
        rules::refuse(scoring.protocol, &deviations, &scoring.allow)?;

        let mut common = record::begin(scoring, &set, max_images, Some(crop), &totals, extractors.as_ref());
        describe(&mut common, &identity, recipe.precision);
        common.lpips_sha256 = (!lpips_digests.is_empty()).then(|| lpips_digests.join("+"));
        record::note(&mut common, &deviations);
        let scores = tokio::task::block_in_place(|| scores(totals, device))?;
        let mut records: Vec<_> = keep
            .iter()
            .zip(scores)
            .map(|(&tokens, scores)| EvaluationRecord {
                kept_tokens: u16::try_from(tokens).ok(),
                scores,
                ..common.clone()
            })
            .collect();
        record::name(&mut records)?;
        Ok(records)
    }
}

/// A factory for each worker. The first takes the extractor that is loaded already.
fn scorers(workers: &Workers, mut first: Option<Inception>, recipe: &Recipe) -> Vec<(String, ScorerFactory)> {
    workers
        .named()
        .map(|(name, device)| {
            let (recipe, inception) = (recipe.clone(), first.take());
            (name, networks::reconstruction_scorer(move || recipe.build(inception, device)))
        })
        .collect()
}

impl Recipe {
    fn build(self, inception: Option<Inception>, device: Device) -> Result<ReconstructionScorer, ModelError> {
        let load = |file: &PathBuf| Inception::load(file, device, ExtractorPrecision::Float64);
        let inception = match inception {
            Some(inception) => Some(inception),
            None => self.inception.as_ref().map(load).transpose()?,
        };
        let comparison = ImageComparison::new(device, self.lpips.as_ref())?;
        let tokenizer = self.folder.load_tokenizer(device, self.precision)?;
        ReconstructionScorer::new(tokenizer, inception, comparison, self.keep)
    }
}

fn of_precision(precision: Precision) -> Option<Deviation> {
    (precision != Precision::Fp32).then(|| Deviation {
        kind: DeviationKind::Precision,
        found: format!("the tokenizer in {precision}"),
        expected: Precision::Fp32.to_string(),
    })
}

/// Prefix lengths: those that were asked for, or all tokens.
fn choose_keep(asked: Option<&[usize]>, tokens_per_image: usize) -> Result<Vec<usize>, SettingsError> {
    let Some(asked) = asked else { return Ok(vec![tokens_per_image]) };
    match asked.iter().find(|&&tokens| tokens > tokens_per_image) {
        None => Ok(asked.to_vec()),
        Some(tokens) => {
            let expected = format!("1 to {tokens_per_image}, the tokens an image");
            Err(SettingsError::invalid("--keep", tokens.to_string(), expected))
        }
    }
}

fn describe(record: &mut EvaluationRecord, tokenizer: &TokenizerIdentity, precision: Precision) {
    record.tokenizer = Some(tokenizer.name.clone());
    record.tokenizer_sha256 = Some(tokenizer.sha256.clone());
    record.codebook_size = Some(tokenizer.codebook_size as u64);
    record.network_precision = Some(precision.to_string());
    record.reference = Some("the originals".to_owned());
    record.reference_sha256 = Some(record.source_digest.clone());
    record.reference_images = Some(record.images);
}

/// The scores of each reconstructed variant, against the first variant.
fn scores(totals: SetTotals, device: Device) -> Result<Vec<Scores>> {
    let codebook = totals.codebook;
    let mut variants = totals.variants.into_iter();
    let originals = variants.next().unwrap_or_default().finish()?;
    variants
        .map(|variant| {
            let reconstructed = variant.finish()?;
            let fid = match (&originals.pool, &reconstructed.pool) {
                (Some(originals), Some(reconstructed)) => Some(frechet_distance(originals, reconstructed, device)?),
                _ => None,
            };
            let all = codebook.as_ref().map(CodebookStatistics::all);
            let levels = codebook.as_ref().map(CodebookStatistics::levels).unwrap_or_default();
            Ok(Scores {
                fid,
                codes_used: all.as_ref().map(|all| all.distinct),
                entropy_bits: all.as_ref().map(|all| all.entropy_bits),
                codes_used_by_level: levels.iter().map(|level| level.distinct).collect(),
                entropy_bits_by_level: levels.iter().map(|level| level.entropy_bits).collect(),
                ..reconstructed.measured()
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tokens_are_kept_unless_told_otherwise() {
        assert_eq!(choose_keep(None, 128).expect("all"), [128]);
        assert_eq!(choose_keep(Some(&[1, 16]), 128).expect("two"), [1, 16]);
        let error = choose_keep(Some(&[1, 129]), 128).expect_err("too many").to_string();
        assert!(error.contains("129") && error.contains("1 to 128"), "{error}");
    }
}
