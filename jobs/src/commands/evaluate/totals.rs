//! From what was committed of a set, unit by unit and in its order, to what scores are computed from.

use super::{
    SPLIT,
    extractors::Extractors,
    rules::{LOSSLESS, Neighbours},
};
use anyhow::Result;
use models::{FeatureDistribution, FeatureStatistics, InceptionScore, InceptionScores};
use pipeline::{ScoredTables, TableFile};
use schemas::{
    CodebookStatistics, ImageMeasures, KEY_DEVICE_KIND, SchemaError, ScoredImages, ScoredRow, ScoredUnit, Scores,
};
use std::collections::{BTreeMap, BTreeSet};

/// The set as far as it has been read.
#[derive(Debug)]
pub(super) struct SetTotals {
    pub(super) images: u64,
    /// Images that could not be read.
    pub(super) rejected: u64,
    /// Images that lie in lossy files.
    pub(super) lossy: u64,
    /// Kinds of the devices that looked at them.
    pub(super) device_kinds: BTreeSet<String>,
    pub(super) variants: Vec<VariantTotals>,
    pub(super) codebook: Option<CodebookStatistics>,
    /// Pool features of the first variant, where they are kept.
    pub(super) features: KeptFeatures,
    /// All its spatial features, where they are kept.
    pub(super) spatial: Option<Vec<f32>>,
    /// Tokens of each variant.
    kept_tokens: Vec<Option<u16>>,
    labels: LabelOrder,
}

/// One variant of the images: as they are, or reconstructed from some of their tokens.
#[derive(Debug, Default)]
pub(super) struct VariantTotals {
    pool: Option<FeatureStatistics>,
    spatial: Option<FeatureStatistics>,
    score: Option<InceptionScore>,
    measures: MeasureTotals,
}

/// What a variant comes to.
#[derive(Debug)]
pub(super) struct VariantResult {
    pub(super) pool: Option<FeatureDistribution>,
    pub(super) spatial: Option<FeatureDistribution>,
    pub(super) score: Option<InceptionScores>,
    measures: MeasureTotals,
}

/// Sums of what was measured of each image.
#[derive(Debug, Default)]
struct MeasureTotals {
    images: u64,
    psnr: f64,
    ssim: f64,
    /// Absent once an image has none.
    ms_ssim: Option<f64>,
    lpips: Option<f64>,
}

/// Which rows of features are kept beside their statistics.
#[derive(Debug)]
pub(super) enum KeptFeatures {
    /// None.
    None,
    /// All, for scores that compare images and for intervals.
    All(Vec<f32>),
    /// Some, spread evenly: every `stride`-th row, of which there are never more than twice `most` and one.
    Spread {
        /// Rows in the end, at most.
        most: usize,
        /// Distance between two rows that are kept.
        stride: usize,
        /// Rows so far.
        seen: usize,
        /// Those that are kept.
        rows: Vec<f32>,
    },
}

impl KeptFeatures {
    /// At most so many rows, spread over the whole set: the first ones of a set that is sorted would be of a few classes.
    pub(super) fn spread(most: usize) -> Self {
        Self::Spread { most, stride: 1, seen: 0, rows: Vec::new() }
    }

    fn add(&mut self, pool: &[f32]) {
        match self {
            Self::None => {}
            Self::All(rows) => rows.extend_from_slice(pool),
            Self::Spread { most, stride, seen, rows } => {
                for row in pool.chunks_exact(ScoredImages::POOL) {
                    if seen.is_multiple_of(*stride) {
                        rows.extend_from_slice(row);
                    }
                    *seen += 1;
                    if rows.len() / ScoredImages::POOL > 2 * *most {
                        *stride *= 2;
                        *rows = every(rows, |place| place.is_multiple_of(2));
                    }
                }
            }
        }
    }

    /// The rows that were kept.
    pub(super) fn finish(self) -> Vec<f32> {
        match self {
            Self::None => Vec::new(),
            Self::All(rows) => rows,
            Self::Spread { most, rows, .. } => {
                let there = rows.len() / ScoredImages::POOL;
                let kept = there.min(most);
                // The first of each of `kept` equal parts.
                every(&rows, |place| (place * kept) % there < kept)
            }
        }
    }
}

/// The rows at these places.
fn every(rows: &[f32], at: impl Fn(usize) -> bool) -> Vec<f32> {
    let rows = rows.chunks_exact(ScoredImages::POOL).enumerate();
    rows.filter(|(place, _)| at(*place)).flat_map(|(_, row)| row).copied().collect()
}

fn shape(what: &'static str, found: String, expected: String) -> anyhow::Error {
    SchemaError::Shape { what, found, expected }.into()
}

/// How often neighbours are of one class, how many images each class has, and how many classes each split.
#[derive(Debug, Default)]
struct LabelOrder {
    images: u64,
    last: Option<i32>,
    repeats: u64,
    classes: BTreeMap<i32, u64>,
    in_split: BTreeSet<i32>,
    full_splits: Vec<u64>,
    unlabelled: bool,
}

impl SetTotals {
    /// Nothing read yet.
    pub(super) fn new(
        variants: Vec<(Option<u16>, VariantTotals)>,
        codebook: Option<CodebookStatistics>,
        features: KeptFeatures,
    ) -> Self {
        let (kept_tokens, variants) = variants.into_iter().unzip();
        Self {
            images: 0,
            rejected: 0,
            lossy: 0,
            device_kinds: BTreeSet::new(),
            variants,
            codebook,
            features,
            spatial: None,
            kept_tokens,
            labels: LabelOrder::default(),
        }
    }

    /// Keeps spatial features too.
    pub(super) fn keeping_spatial(self, keep: bool) -> Self {
        Self { spatial: keep.then(Vec::new), ..self }
    }

    /// Reads all units in their order.
    ///
    /// # Errors
    /// When a file is damaged, or the device fails.
    pub(super) async fn read(mut self, tables: &ScoredTables) -> Result<Self> {
        for unit in 0..tables.units() {
            let TableFile { metadata, rows: unit, .. } = tables.file(unit).await?;
            self.device_kinds.extend(metadata.get(KEY_DEVICE_KIND).cloned());
            // Products over thousands of rows: not for a thread that others wait for.
            self = tokio::task::spawn_blocking(move || self.with(unit)).await??;
        }
        Ok(self)
    }

    fn with(mut self, unit: ScoredUnit) -> Result<Self> {
        self.images += unit.rows.len() as u64;
        self.rejected += unit.rejected;
        for row in &unit.rows {
            self.lossy += u64::from(!LOSSLESS.contains(&row.format.as_str()));
            self.labels.add(row);
        }
        if let (Some(codebook), Some(tokens)) = (&mut self.codebook, &unit.tokens) {
            codebook.add(tokens);
        }
        if unit.rows.is_empty() {
            return Ok(self);
        }
        let found: Vec<_> = unit.variants.iter().map(|variant| variant.kept_tokens).collect();
        if found != self.kept_tokens {
            return Err(shape(
                "forms of the images of a unit",
                format!("{found:?}"),
                format!("{:?}", self.kept_tokens),
            ));
        }
        if let Some(first) = unit.variants.first() {
            self.features.add(&first.pool);
            if let Some(spatial) = &mut self.spatial {
                spatial.extend_from_slice(&first.spatial);
            }
        }
        for (totals, variant) in self.variants.iter_mut().zip(&unit.variants) {
            totals.add(variant, unit.rows.len())?;
        }
        Ok(self)
    }

    /// The order of the classes: the set's own labels where every image has one, else what the network took the images for.
    pub(super) fn neighbours(&self, score: &InceptionScores) -> Neighbours {
        let pairs = self.images.saturating_sub(1).max(1) as f64;
        match self.labels.unlabelled || self.images == 0 {
            true => Neighbours {
                images: self.images,
                repeats: score.repeats,
                chance: score.chance,
                labelled: false,
                poorest_split: None,
            },
            false => Neighbours {
                images: self.images,
                repeats: self.labels.repeats as f64 / pairs,
                chance: self.labels.chance(self.images),
                labelled: true,
                poorest_split: self.labels.poorest_split(),
            },
        }
    }
}

impl LabelOrder {
    fn add(&mut self, row: &ScoredRow) {
        // What writes no label writes -1.
        let Some(label) = row.label.filter(|label| *label >= 0) else {
            self.unlabelled = true;
            return;
        };
        self.repeats += u64::from(self.last == Some(label));
        self.last = Some(label);
        *self.classes.entry(label).or_default() += 1;
        self.in_split.insert(label);
        self.images += 1;
        if self.images.is_multiple_of(SPLIT) {
            self.full_splits.push(std::mem::take(&mut self.in_split).len() as u64);
        }
    }

    /// Classes of the poorest full split, and those that a split would have in a mixed order.
    fn poorest_split(&self) -> Option<(u64, f64)> {
        let images = self.images as f64;
        let missed = |count: &u64| (1.0 - *count as f64 / images).powf(SPLIT as f64);
        let mixed: f64 = self.classes.values().map(|count| 1.0 - missed(count)).sum();
        self.full_splits.iter().min().map(|&fewest| (fewest, mixed))
    }

    fn chance(&self, images: u64) -> f64 {
        self.classes.values().map(|&count| (count as f64 / images.max(1) as f64).powi(2)).sum()
    }
}

impl VariantTotals {
    /// For a variant of which features are read. `split`: images of a split of the inception score; `None` for one over all.
    ///
    /// # Errors
    /// When the network's file cannot be read any more, or the device refuses.
    pub(super) fn with_features(extractors: &Extractors, split: Option<u64>, spatial: bool) -> Result<Self> {
        let device = extractors.device()?;
        Ok(Self {
            pool: Some(FeatureStatistics::new(ScoredImages::POOL, device)?),
            spatial: spatial.then(|| FeatureStatistics::new(ScoredImages::SPATIAL, device)).transpose()?,
            score: Some(InceptionScore::new(extractors.head()?, split)?),
            measures: MeasureTotals::default(),
        })
    }

    fn add(&mut self, variant: &ScoredImages, images: usize) -> Result<()> {
        // What should be there and is not must not be passed over: the numbers would be of fewer images than they say.
        let all = |what, found: &[f32], each: usize| match found.len() == images * each {
            true => Ok(()),
            false => Err(shape(what, found.len().to_string(), format!("{} of {images} images", images * each))),
        };
        if self.pool.is_some() {
            all("pool features of a unit", &variant.pool, ScoredImages::POOL)?;
        }
        if self.spatial.is_some() {
            all("spatial features of a unit", &variant.spatial, ScoredImages::SPATIAL)?;
        }
        if let Some(pool) = &mut self.pool {
            pool.add(&variant.pool)?;
        }
        if let Some(spatial) = &mut self.spatial {
            spatial.add(&variant.spatial)?;
        }
        if let Some(score) = &mut self.score {
            score.add(&variant.pool)?;
        }
        variant.measures.iter().for_each(|measures| self.measures.add(measures));
        Ok(())
    }

    /// What it comes to. Waits for the device.
    ///
    /// # Errors
    /// When there are fewer than two images, or the device fails.
    pub(super) fn finish(self) -> Result<VariantResult> {
        Ok(VariantResult {
            pool: self.pool.map(FeatureStatistics::finish).transpose()?,
            spatial: self.spatial.map(FeatureStatistics::finish).transpose()?,
            score: self.score.map(InceptionScore::finish).transpose()?,
            measures: self.measures,
        })
    }
}

impl VariantResult {
    /// Means of what was measured of each image.
    pub(super) fn measured(&self) -> Scores {
        let MeasureTotals { images, psnr, ssim, ms_ssim, lpips } = self.measures;
        // An image that is reconstructed without any error has no finite ratio, nor has the mean with it.
        let mean = |sum: f64| (images > 0 && sum.is_finite()).then(|| sum / images as f64);
        Scores {
            psnr: mean(psnr),
            ssim: mean(ssim),
            ms_ssim: ms_ssim.and_then(mean),
            lpips: lpips.and_then(mean),
            inception_score: self.score.as_ref().map(|score| score.score),
            ..Scores::default()
        }
    }
}

impl MeasureTotals {
    fn add(&mut self, image: &ImageMeasures) {
        let added = |sum: Option<f64>, value: Option<f64>| match self.images {
            0 => value,
            _ => Some(sum? + value?),
        };
        self.ms_ssim = added(self.ms_ssim, image.ms_ssim);
        self.lpips = added(self.lpips, image.lpips);
        self.psnr += image.psnr;
        self.ssim += image.ssim;
        self.images += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(labels: &[Option<i32>]) -> SetTotals {
        let rows = labels.iter().enumerate().map(|(number, &label)| ScoredRow {
            image_id: number.to_string(),
            label,
            format: if number == 0 { "jpeg".to_owned() } else { "png".to_owned() },
        });
        let unit = ScoredUnit { rows: rows.collect(), variants: Vec::new(), tokens: None, rejected: 2 };
        // No variant was asked for, as of a unit with nothing but rows.
        SetTotals::new(Vec::new(), None, KeptFeatures::None).with(unit).expect("nothing to compute")
    }

    fn guessed() -> InceptionScores {
        InceptionScores { score: 1.0, splits: vec![1.0], repeats: 0.7, chance: 0.2 }
    }

    #[test]
    fn labels_of_neighbours_are_counted_where_all_are_known() {
        let sorted = totals(&[Some(0), Some(0), Some(1), Some(1)]);
        assert_eq!((sorted.images, sorted.lossy, sorted.rejected), (4, 1, 2));
        let neighbours = sorted.neighbours(&guessed());
        assert_eq!((neighbours.repeats, neighbours.chance, neighbours.labelled), (2.0 / 3.0, 0.5, true));
        for unknown in [None, Some(-1)] {
            let neighbours = totals(&[Some(0), unknown, Some(1)]).neighbours(&guessed());
            assert_eq!((neighbours.repeats, neighbours.chance, neighbours.labelled), (0.7, 0.2, false));
        }
    }

    #[test]
    fn a_split_of_few_classes_is_found() {
        let mut order = LabelOrder::default();
        let row = |label| ScoredRow { image_id: String::new(), label: Some(label), format: "png".to_owned() };
        // Ten classes in turn, then the tenth alone.
        (0..SPLIT as i32).for_each(|number| order.add(&row(number % 10)));
        (0..SPLIT).for_each(|_| order.add(&row(9)));
        let (fewest, mixed) = order.poorest_split().expect("two splits");
        assert_eq!(fewest, 1);
        assert!((mixed - 10.0).abs() < 1e-6, "{mixed}");
    }

    #[test]
    fn rows_are_spread_over_the_whole_set_without_holding_it() {
        let kept = |rows: usize, most| {
            let mut features = KeptFeatures::spread(most);
            (0..rows).for_each(|row| features.add(&vec![row as f32; ScoredImages::POOL]));
            if let KeptFeatures::Spread { rows, .. } = &features {
                assert!(rows.len() <= 2 * most * ScoredImages::POOL);
            }
            features.finish().chunks_exact(ScoredImages::POOL).map(|row| row[0]).collect::<Vec<_>>()
        };
        assert_eq!(kept(7, 3), [0.0, 4.0, 6.0]);
        assert_eq!(kept(6, 3), [0.0, 2.0, 4.0]);
        assert_eq!(kept(3, 10), [0.0, 1.0, 2.0]);
        assert_eq!(kept(64, 4), [0.0, 16.0, 32.0, 48.0]);
        assert!(kept(0, 3).is_empty());
    }

    #[test]
    fn a_unit_in_other_forms_than_asked_for_is_refused() {
        let unit = ScoredUnit {
            rows: vec![ScoredRow { image_id: "0".to_owned(), label: None, format: "png".to_owned() }],
            variants: vec![ScoredImages { kept_tokens: Some(4), ..ScoredImages::default() }],
            tokens: None,
            rejected: 0,
        };
        let variants = vec![(Some(8), VariantTotals::default())];
        let error =
            SetTotals::new(variants, None, KeptFeatures::None).with(unit).expect_err("other tokens").to_string();
        assert!(error.contains("Some(4)") && error.contains("Some(8)"), "{error}");
    }

    #[test]
    fn a_mean_is_absent_where_an_image_has_no_measure() {
        let image = |ms_ssim, lpips| ImageMeasures { psnr: 20.0, ssim: 0.5, ms_ssim, lpips };
        let mut measures = MeasureTotals::default();
        measures.add(&image(None, Some(0.2)));
        measures.add(&image(Some(1.0), Some(0.4)));
        let scores = VariantResult { pool: None, spatial: None, score: None, measures }.measured();
        assert_eq!((scores.psnr, scores.ssim, scores.ms_ssim), (Some(20.0), Some(0.5), None));
        assert!((scores.lpips.expect("a mean") - 0.3).abs() < 1e-12);
        let nothing = VariantTotals::default().finish().expect("nothing to compute").measured();
        assert_eq!(nothing, Scores::default());
    }
}
