//! Generated sets that differ in their guidance, top-p and temperature alone, as `restok sweep` makes them.

use super::{pictures, scores};
use crate::{
    Album,
    album::{LeftOut, Picture},
};
use anyhow::Result;
use futures::TryStreamExt;
use pipeline::{Storage, TableReader};
use schemas::{CodebookStatistics, EvaluationRecord, Origin, PlanSettings, Sampling};
use std::pin::pin;

/// Pictures of each point.
const OF_A_POINT: usize = 8;

/// The sets, in the order of their settings.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// At least one.
    pub(crate) points: Vec<SweepPoint>,
    /// Pictures that were to be shown and are not.
    pub(crate) left_out: LeftOut,
}

/// One set.
#[derive(Debug)]
pub(crate) struct SweepPoint {
    /// Its folder.
    pub(crate) name: String,
    /// Its address, by which scores are matched to it.
    pub(crate) address: String,
    /// What decided it.
    pub(crate) settings: PlanSettings,
    /// Whether it is finished.
    pub(crate) finished: bool,
    /// Samples in it.
    pub(crate) samples: u64,
    /// Codes of the codebook that occur in it.
    pub(crate) codes_used: u64,
    /// Bits of the distribution of its codes.
    pub(crate) entropy_bits: f64,
    /// Its first pictures.
    pub(crate) pictures: Vec<Picture>,
}

impl SweepPoint {
    /// Scale of guidance, schedule, top-p and temperature.
    pub(crate) fn sampling(&self) -> (f64, &'static str, f64, f64) {
        // Only sets of samples are taken in.
        self.settings.origin.samples().map_or((1.0, "none", 1.0, 1.0), |samples| {
            let sampling = &samples.sampling;
            (sampling.guidance.scale, sampling.guidance.schedule.name(), sampling.top_p, sampling.temperature)
        })
    }
}

/// Whether outputs with these settings are a sweep: at least two sets, all alike but for their guidance, top-p and temperature.
pub(super) fn is_one(plans: &[&PlanSettings]) -> bool {
    let others = |settings: &PlanSettings| -> Option<PlanSettings> {
        let mut settings = settings.clone();
        match &mut settings.origin {
            Origin::Samples(samples) => {
                // What points are told apart by, as their table and charts do.
                let paper = Sampling::paper(0);
                let sampling = &mut samples.sampling;
                (sampling.temperature, sampling.top_p) = (paper.temperature, paper.top_p);
                (sampling.guidance.scale, sampling.guidance.schedule) = (paper.guidance.scale, paper.guidance.schedule);
            }
            Origin::Images(_) | Origin::Tokens(_) => return None,
        }
        Some(settings)
    };
    let [first, ..] = plans else { return false };
    let common = others(first);
    common.is_some() && plans.iter().any(|plan| plan != first) && plans.iter().all(|plan| others(plan) == common)
}

impl Sweep {
    /// Reads all sets, each a name, a place and its tables, and the scores that lie in them.
    ///
    /// # Errors
    /// When a file is damaged, or a store fails.
    pub(super) async fn read(
        sets: Vec<(String, Storage, TableReader)>,
        album: &mut Album,
    ) -> Result<(Self, Vec<EvaluationRecord>)> {
        let (mut points, mut records, mut left_out) = (Vec::new(), Vec::new(), LeftOut::default());
        for (name, storage, reader) in sets {
            let settings = reader.plan().settings().clone();
            let tokenizer = &settings.tokenizer;
            let mut statistics = CodebookStatistics::new(tokenizer.levels.clone(), tokenizer.codebook_size);
            let mut files = pin!(reader.token_files());
            while let Some(file) = files.try_next().await? {
                statistics.add(&file.rows.tokens);
            }
            let used = statistics.all();
            let first = pictures::first_pictures(&storage, &reader, OF_A_POINT, album).await?;
            let groups = first.map_or_else(Vec::new, |pictures| {
                left_out += pictures.left_out;
                pictures.groups
            });
            records.extend(scores::read(&storage).await?);
            points.push(SweepPoint {
                name,
                address: storage.display().to_owned(),
                finished: reader.is_finished(),
                samples: reader.row_counts().written,
                codes_used: used.distinct,
                entropy_bits: used.entropy_bits,
                pictures: groups.into_iter().flat_map(|group| group.pictures).collect(),
                settings,
            });
        }
        points.sort_by(|left, right| {
            let ((scale, schedule, top_p, temperature), other) = (left.sampling(), right.sampling());
            (schedule.cmp(other.1))
                .then(top_p.total_cmp(&other.2))
                .then(temperature.total_cmp(&other.3))
                .then(scale.total_cmp(&other.0))
                .then(left.name.cmp(&right.name))
        });
        Ok((Self { points, left_out }, records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::{GeneratorIdentity, SampleOrigin, TokenLevels, TokenizerIdentity};

    fn settings(scale: f64, change: impl FnOnce(&mut PlanSettings, &mut SampleOrigin)) -> PlanSettings {
        let mut samples = SampleOrigin {
            generator: GeneratorIdentity { name: "generator".to_owned(), sha256: "1".repeat(64) },
            sampling: Sampling::paper(7),
            count: 100,
            classes: vec![0, 1],
            pictures: None,
        };
        samples.sampling.guidance.scale = scale;
        let levels = TokenLevels::published(32).expect("levels");
        let mut settings = PlanSettings {
            source: "generator".to_owned(),
            split: "generated".to_owned(),
            tokenizer: TokenizerIdentity {
                name: "tokenizer".to_owned(),
                sha256: "2".repeat(64),
                codebook_size: 64,
                levels,
            },
            precision: "fp32".to_owned(),
            batch_size: 50,
            unit_size: 1_000,
            origin: Origin::Samples(samples.clone()),
        };
        change(&mut settings, &mut samples);
        settings.origin = Origin::Samples(samples);
        settings
    }

    #[test]
    fn a_sweep_is_of_at_least_two_sets_alike_but_for_the_settings_of_its_grid() {
        let plain = |scale: f64| settings(scale, |_, _| {});
        let (first, second) = (plain(1.0), plain(2.0));
        assert!(is_one(&[&first, &second]));
        assert!(is_one(&[&first, &second, &first]), "a copy of a set beside it");
        assert!(!is_one(&[]) && !is_one(&[&first]) && !is_one(&[&first, &first]));
        for other in [
            settings(2.0, |_, samples| samples.count = 7),
            settings(2.0, |_, samples| samples.generator.sha256 = "3".repeat(64)),
            settings(2.0, |_, samples| samples.sampling.seed = 8),
            settings(2.0, |_, samples| samples.sampling.top_k = 8),
            settings(2.0, |settings, _| settings.tokenizer.sha256 = "3".repeat(64)),
        ] {
            assert!(!is_one(&[&first, &other]), "{other:?}");
        }
    }
}
