//! Confidence intervals by resampling (Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979), where computing a score anew for
//! each of a thousand resampled sets would take hours.
//!
//! A smooth score changes with its images like a mean: each image has an influence on it, what the score would change by if there were a
//! little more of that image, and the score of resampled images is, to first order, the score plus the mean of their influences. Influences
//! cost about as much as the score itself, once, and resampling them next to nothing. Bias is no part of an interval: it is around what
//! sets of this size score on average.

use super::feature_rows::wrong;
use crate::ModelError;
use schemas::{ConfidenceInterval, RandomStream};

/// How intervals are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resampling {
    confidence: f64,
    resamples: usize,
    seed: u64,
}

impl Resampling {
    /// Intervals that hold what a score estimates with `confidence`, between 0 and 1, from so many resampled sets.
    ///
    /// # Errors
    /// When the confidence is not between 0 and 1, or so few resamples have no bounds of it.
    pub fn try_new(confidence: f64, resamples: usize, seed: u64) -> Result<Self, ModelError> {
        if !(confidence > 0.0 && confidence < 1.0) {
            return Err(wrong("confidence", confidence, "more than 0 and less than 1"));
        }
        let least = Self::least(confidence);
        if resamples < least {
            let expected = format!("at least {least} for a confidence of {confidence}");
            return Err(wrong("resamples", resamples, expected));
        }
        Ok(Self { confidence, resamples, seed })
    }

    /// The fewest resampled sets that have bounds of a confidence: one beyond each, or they are the extremes whatever the confidence.
    pub fn least(confidence: f64) -> usize {
        // Rounded first: 1 - 0.95 is a little more than a twentieth.
        (2.0 / (1.0 - confidence) - 1e-6).ceil() as usize
    }

    /// Number of resampled sets.
    pub(super) fn resamples(&self) -> usize {
        self.resamples
    }

    /// The random numbers of a resampled set.
    pub(super) fn stream(&self, purpose: &str, resample: usize) -> RandomStream {
        RandomStream::new(self.seed, purpose, resample as u64)
    }

    /// The interval of a score from the influences of its images; `purpose` decides, with the seed, which are drawn.
    ///
    /// # Errors
    /// When there is no influence, or one that is no number.
    pub fn of_mean(&self, purpose: &str, score: f64, influences: &[f64]) -> Result<ConfidenceInterval, ModelError> {
        let images = influences.len() as u64;
        if images == 0 {
            return Err(wrong("images of an interval", images, "at least 1"));
        }
        let mean = influences.iter().sum::<f64>() / images as f64;
        let deviations = (0..self.resamples).map(|resample| {
            let mut stream = self.stream(purpose, resample);
            let sum: f64 = (0..images).map(|_| influences[stream.below(images) as usize]).sum();
            sum / images as f64 - mean
        });
        self.around(score, deviations.collect())
    }

    /// The interval around a score within which that part of its deviations lies.
    pub(super) fn around(&self, score: f64, mut deviations: Vec<f64>) -> Result<ConfidenceInterval, ModelError> {
        deviations.sort_by(f64::total_cmp);
        let beyond = (1.0 - self.confidence) / 2.0;
        let (lower, upper) = (quantile(&deviations, beyond), quantile(&deviations, 1.0 - beyond));
        Ok(ConfidenceInterval::try_new(score + lower, score + upper)?)
    }
}

/// The value below which a fraction of sorted ones lies, between two of them in proportion.
fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = fraction * last as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let (left, right) = (sorted[below.min(last)], sorted[(below + 1).min(last)]);
    left + part * (right - left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_values_in_proportion() {
        let sorted = [0.0, 1.0, 2.0, 4.0];
        assert_eq!([0.0, 0.5, 1.0].map(|fraction| quantile(&sorted, fraction)), [0.0, 1.5, 4.0]);
        assert!((quantile(&sorted, 0.9) - 3.4).abs() < 1e-12);
    }

    #[test]
    fn an_interval_follows_from_its_seed_and_grows_with_its_confidence() {
        let influences: Vec<f64> = RandomStream::new(3, "influences", 0).normals(400);
        let interval = |confidence, seed| {
            let resampling = Resampling::try_new(confidence, 1_000, seed).expect("settings");
            resampling.of_mean("test", 7.0, &influences).expect("numbers")
        };
        let found = interval(0.95, 1);
        assert_eq!(found, interval(0.95, 1));
        assert_ne!(found, interval(0.95, 2));
        // The mean of 400 normal numbers has a deviation of a twentieth.
        for (bound, expected) in [(found.lower, 7.0 - 0.098), (found.upper, 7.0 + 0.098)] {
            assert!((bound - expected).abs() < 0.015, "{found:?}");
        }
        let narrower = interval(0.5, 1);
        assert!(narrower.lower > found.lower && narrower.upper < found.upper);
    }

    #[test]
    fn settings_without_bounds_are_refused() {
        for confidence in [0.0, 1.0, 95.0, f64::NAN] {
            let error = Resampling::try_new(confidence, 1_000, 0).expect_err("refused").to_string();
            assert!(error.contains("confidence"), "{error}");
        }
        let error = Resampling::try_new(0.95, 39, 0).expect_err("refused").to_string();
        assert!(error.contains("resamples: found 39, expected at least 40"), "{error}");
        let resampling = Resampling::try_new(0.95, 100, 0).expect("settings");
        assert!(resampling.of_mean("test", 1.0, &[f64::NAN, 1.0]).is_err());
        assert!(resampling.of_mean("test", 1.0, &[]).is_err());
    }
}
