//! The scores of a generated set, from features that are kept: those that were asked for, with their intervals.

use super::{ComparedWith, SPLIT, extractors::Extractors, totals::VariantResult};
use crate::settings::{ScoreSelection, SettingsError};
use anyhow::Result;
use models::{
    FeatureDistribution, FeatureRows, FrechetInfinityOptions, ManifoldIntervals, ManifoldNeighbours,
    MongeDistanceOptions, Resampling, authenticity_percent, density_coverage, frechet_distance, frechet_infinity,
    frechet_influences, inception_score_influences, kernel_distance, manifold_intervals, monge_distance,
    precision_recall, vendi_score,
};
use schemas::{ConfidenceInterval, ScoreIntervals, ScoreKind, ScoredImages, Scores};
use serde::Serialize;

/// Neighbours that make the balls: three for precision and recall as in the ADM evaluator, five for density and coverage as in their paper.
const NEIGHBOURS: ManifoldNeighbours = ManifoldNeighbours { precision_recall: 3, density_coverage: 5 };

/// Scores that compare images with images; statistics do not do.
const OF_IMAGES: [ScoreKind; 7] = [
    ScoreKind::Precision,
    ScoreKind::Recall,
    ScoreKind::Kid,
    ScoreKind::Mind,
    ScoreKind::Density,
    ScoreKind::Coverage,
    ScoreKind::Authpct,
];

impl ScoreSelection {
    fn wants(&self, kind: ScoreKind) -> bool {
        self.asked.as_ref().map_or(ScoreKind::OF_ADM.contains(&kind), |asked| asked.contains(&kind))
    }

    fn wants_any(&self, kinds: &[ScoreKind]) -> bool {
        kinds.iter().any(|kind| self.wants(*kind))
    }

    /// Refuses scores that were asked for by name and cannot be computed against what the set is compared with.
    ///
    /// # Errors
    /// Names the scores, and what they need.
    pub(super) fn check(&self, compared: &ComparedWith) -> Result<(), SettingsError> {
        let Some(asked) = &self.asked else { return Ok(()) };
        let refuse = |kinds: &[ScoreKind], found: &str, expected: &str| {
            let lacking: Vec<&str> = asked.iter().filter(|kind| kinds.contains(kind)).map(|kind| kind.name()).collect();
            match lacking.is_empty() {
                true => Ok(()),
                false => Err(SettingsError::invalid("--scores", format!("{} {found}", lacking.join(", ")), expected)),
            }
        };
        if compared.pool.is_none() {
            refuse(&[ScoreKind::Fid, ScoreKind::FidInfinity], "without statistics to compare with", "--reference URL")?;
        }
        if compared.spatial.is_none() {
            let expected = "--reference with an archive that has mu_s and sigma_s, such as one of --make-reference";
            refuse(&[ScoreKind::Sfid], "without statistics of spatial features", expected)?;
        }
        if compared.features.is_none() {
            let expected = "--reference with an archive that has images or their features, such as one of --make-reference: mu and \
                            sigma alone do not say where images lie";
            refuse(&OF_IMAGES, "without features of the reference's images", expected)?;
        }
        Ok(())
    }

    /// Refuses subsets of the kernel distance that are too large for a set of so many images, where that is known.
    ///
    /// # Errors
    /// Names the flag, and how large they may be.
    pub(super) fn check_subsets(&self, compared: &ComparedWith, images: Option<u64>) -> Result<(), SettingsError> {
        let Some(reference) = compared.features.as_ref().filter(|_| self.wants(ScoreKind::Kid)) else { return Ok(()) };
        let of_reference = reference.len() / ScoredImages::POOL;
        let images = images.map_or(of_reference, |images| of_reference.min(images as usize));
        let size = self.kernel.subset_size;
        let (most, reason) = match self.intervals {
            // Larger subsets share so many images that their spread tells nothing.
            Some(_) => (images / 2, "half of the smaller set's images, for an interval"),
            None => (images, "the images of the smaller set"),
        };
        match size > most {
            false => Ok(()),
            true => {
                Err(SettingsError::invalid("--kid-subset-size", size.to_string(), format!("at most {most}, {reason}")))
            }
        }
    }

    /// Whether pool features of all images of the set are needed.
    pub(super) fn needs_pool(&self, compared: &ComparedWith) -> bool {
        let of_images = compared.features.is_some() && self.wants_any(&OF_IMAGES);
        of_images || self.wants_any(&[ScoreKind::FidInfinity, ScoreKind::Vendi]) || self.intervals.is_some()
    }

    /// Whether spatial features of all images are.
    pub(super) fn needs_spatial(&self, compared: &ComparedWith) -> bool {
        compared.spatial.is_some() && self.intervals.is_some() && self.wants(ScoreKind::Sfid)
    }

    /// What was asked for by name, what is drawn and how many, as JSON; none where nothing beyond the protocol's own is.
    ///
    /// # Errors
    /// When it does not serialize, which its type does not give it reason to.
    pub(super) fn as_json(&self) -> Result<Option<String>> {
        #[derive(Serialize)]
        struct Settings {
            #[serde(skip_serializing_if = "Option::is_none")]
            scores: Option<Vec<&'static str>>,
            seed: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            kid_subsets: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            kid_subset_size: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            mind_directions: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            fid_infinity_sizes: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            density_coverage_neighbours: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            resamples: Option<usize>,
        }
        if self.asked.is_none() && self.intervals.is_none() {
            return Ok(None);
        }
        let of = |kinds: &[ScoreKind], value| self.wants_any(kinds).then_some(value);
        let asked = self.asked.as_ref();
        let settings = Settings {
            scores: asked.map(|asked| asked.iter().map(|kind| kind.name()).collect()),
            seed: self.seed,
            kid_subsets: of(&[ScoreKind::Kid], self.kernel.subsets),
            kid_subset_size: of(&[ScoreKind::Kid], self.kernel.subset_size),
            mind_directions: of(&[ScoreKind::Mind], self.monge().directions),
            fid_infinity_sizes: of(&[ScoreKind::FidInfinity], self.infinity().sizes),
            density_coverage_neighbours: of(&[ScoreKind::Density, ScoreKind::Coverage], NEIGHBOURS.density_coverage),
            resamples: self.intervals.map(|intervals| intervals.resamples),
        };
        Ok(Some(serde_json::to_string(&settings)?))
    }

    fn monge(&self) -> MongeDistanceOptions {
        MongeDistanceOptions { seed: self.seed, ..MongeDistanceOptions::default() }
    }

    fn infinity(&self) -> FrechetInfinityOptions {
        FrechetInfinityOptions { seed: self.seed, ..FrechetInfinityOptions::default() }
    }

    fn resampling(&self) -> Result<Option<(f64, Resampling)>> {
        let Some(intervals) = self.intervals else { return Ok(None) };
        let resampling = Resampling::try_new(intervals.confidence / 100.0, intervals.resamples, self.seed)?;
        Ok(Some((intervals.confidence, resampling)))
    }
}

/// A set as far as it was looked at, beside what it is compared with.
#[derive(Debug)]
pub(super) struct SetScores<'a> {
    pub(super) selection: &'a ScoreSelection,
    pub(super) compared: &'a ComparedWith,
    pub(super) found: &'a VariantResult,
    /// Pool features of all images, where they are needed.
    pub(super) pool: &'a [f32],
    /// Spatial features of all images, likewise.
    pub(super) spatial: &'a [f32],
    pub(super) extractors: &'a Extractors,
}

impl SetScores<'_> {
    /// The scores. Takes minutes of arithmetic.
    ///
    /// # Errors
    /// When a set has too few images for a score, or the device fails.
    pub(super) fn compute(&self) -> Result<Scores> {
        let device = self.extractors.device()?;
        let wants = |kind| self.selection.wants(kind);
        let samples = FeatureRows::try_new("features of samples", self.pool, ScoredImages::POOL)?;
        let reference = self.compared.features.as_deref();
        let reference =
            reference.map(|features| FeatureRows::try_new("features of the reference", features, ScoredImages::POOL));
        let reference = reference.transpose()?;
        let pair = reference.map(|reference| (reference, samples));
        // Images that could not be read are known by now.
        self.selection.check_subsets(self.compared, Some(samples.rows() as u64))?;

        let distance = |kind, reference: &Option<_>, found: &Option<_>| match (reference, found) {
            (Some(reference), Some(found)) if wants(kind) => frechet_distance(reference, found, device).map(Some),
            _ => Ok(None),
        };
        let mut scores = Scores {
            fid: distance(ScoreKind::Fid, &self.compared.pool, &self.found.pool)?,
            sfid: distance(ScoreKind::Sfid, &self.compared.spatial, &self.found.spatial)?,
            ..self.found.measured()
        };
        scores.inception_score = scores.inception_score.filter(|_| wants(ScoreKind::Is));
        let mut kernel = None;
        if let Some((reference, samples)) = pair {
            if self.selection.wants_any(&[ScoreKind::Precision, ScoreKind::Recall]) {
                let features = self.compared.features.as_deref().unwrap_or_default();
                let neighbours = NEIGHBOURS.precision_recall;
                let found = precision_recall(features, self.pool, ScoredImages::POOL, neighbours, device)?;
                scores.precision = wants(ScoreKind::Precision).then_some(found.precision);
                scores.recall = wants(ScoreKind::Recall).then_some(found.recall);
            }
            if self.selection.wants_any(&[ScoreKind::Density, ScoreKind::Coverage]) {
                let found = density_coverage(reference, samples, NEIGHBOURS.density_coverage, device)?;
                scores.density = wants(ScoreKind::Density).then_some(found.density);
                scores.coverage = wants(ScoreKind::Coverage).then_some(found.coverage);
            }
            if wants(ScoreKind::Kid) {
                let found = kernel_distance(reference, samples, &self.selection.kernel, device)?;
                (scores.kid, scores.kid_deviation) = (Some(found.mean), Some(found.deviation));
                kernel = Some(found);
            }
            if wants(ScoreKind::Mind) {
                scores.mind = Some(monge_distance(reference, samples, &self.selection.monge(), device)?);
            }
            if wants(ScoreKind::Authpct) {
                scores.authpct = Some(authenticity_percent(reference, samples, device)?);
            }
        }
        if let Some(reference) = self.compared.pool.as_ref().filter(|_| wants(ScoreKind::FidInfinity)) {
            let found = frechet_infinity(reference, samples, &self.selection.infinity(), device)?;
            scores.fid_infinity = Some(found.distance);
        }
        if wants(ScoreKind::Vendi) {
            scores.vendi_score = Some(vendi_score(samples, device)?);
        }
        if let Some((confidence, resampling)) = self.selection.resampling()? {
            let mut intervals = ScoreIntervals { confidence, ..ScoreIntervals::default() };
            let pool = (&self.compared.pool, &self.found.pool);
            intervals.fid = self.of_distance("FID", scores.fid, pool, samples, &resampling)?;
            if scores.sfid.is_some() {
                let samples = FeatureRows::try_new("spatial features", self.spatial, ScoredImages::SPATIAL)?;
                let spatial = (&self.compared.spatial, &self.found.spatial);
                intervals.sfid = self.of_distance("sFID", scores.sfid, spatial, samples, &resampling)?;
            }
            if let Some(score) = scores.inception_score {
                let influences = inception_score_influences(&self.extractors.head()?, samples, Some(SPLIT))?;
                intervals.inception_score = Some(resampling.of_mean("inception score", score, &influences)?);
            }
            intervals.kid = kernel.map(|found| found.interval(&resampling)).transpose()?;
            let counted = [scores.precision, scores.recall, scores.density, scores.coverage];
            if let Some((reference, samples)) = pair.filter(|_| counted.iter().any(Option::is_some)) {
                let found = manifold_intervals(reference, samples, NEIGHBOURS, &resampling, device)?;
                let ManifoldIntervals { precision, recall, density, coverage } = found;
                intervals.precision = scores.precision.map(|_| precision);
                intervals.recall = scores.recall.map(|_| recall);
                intervals.density = scores.density.map(|_| density);
                intervals.coverage = scores.coverage.map(|_| coverage);
            }
            scores.intervals = Some(intervals);
        }
        Ok(scores)
    }

    /// The interval of a Fréchet distance.
    fn of_distance(
        &self,
        name: &str,
        score: Option<f64>,
        (reference, found): (&Option<FeatureDistribution>, &Option<FeatureDistribution>),
        samples: FeatureRows<'_>,
        resampling: &Resampling,
    ) -> Result<Option<ConfidenceInterval>> {
        let (Some(score), Some(reference), Some(found)) = (score, reference, found) else { return Ok(None) };
        let influences = frechet_influences(reference, found, samples, self.extractors.device()?)?;
        Ok(Some(resampling.of_mean(name, score, &influences)?))
    }
}
