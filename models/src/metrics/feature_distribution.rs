//! Mean and covariance of a set's features, as they are computed or as they come from a file.

use super::feature_rows;
use crate::ModelError;

/// Allowed difference between the two halves of a covariance, over the product of the deviations: what float32 makes of equal numbers.
const ASYMMETRY: f64 = 1e-6;

/// Mean and covariance of a set of feature vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureDistribution {
    mean: Vec<f64>,
    covariance: Vec<f64>,
    count: Option<u64>,
}

impl FeatureDistribution {
    /// Takes a mean, `[D]`, and a covariance, `[D, D]`, of `count` vectors where that is known.
    ///
    /// # Errors
    /// When they do not fit each other, a number is not finite, a variance is negative, or the covariance is not symmetric.
    pub fn try_new(mean: Vec<f64>, covariance: Vec<f64>, count: Option<u64>) -> Result<Self, ModelError> {
        let size = mean.len();
        let wrong = |what, found: String, expected: &str| Err(feature_rows::wrong(what, found, expected));
        if size == 0 || covariance.len() != size * size {
            let found = format!("{} numbers beside a mean of {size}", covariance.len());
            return wrong("covariance of features", found, "a square with a row for each feature");
        }
        if let Some(index) = mean.iter().position(|value| !value.is_finite()) {
            return wrong("mean of features", format!("{} at {index}", mean[index]), "finite numbers");
        }
        if let Some(index) = covariance.iter().position(|value| !value.is_finite()) {
            let found = format!("{} at row {}, column {}", covariance[index], index / size, index % size);
            return wrong("covariance of features", found, "finite numbers");
        }
        for row in 0..size {
            let variance = covariance[row * size + row];
            if variance < 0.0 {
                return wrong(
                    "covariance of features",
                    format!("{variance} at row {row}, column {row}"),
                    "no negative variance",
                );
            }
            for column in 0..row {
                let (below, above) = (covariance[row * size + column], covariance[column * size + row]);
                let scale = (variance * covariance[column * size + column]).max(0.0).sqrt();
                if (below - above).abs() > ASYMMETRY * scale {
                    let found = format!("{below} at row {row}, column {column} and {above} across the diagonal");
                    return wrong("covariance of features", found, "a symmetric matrix");
                }
            }
        }
        Ok(Self { mean, covariance, count })
    }

    /// Features of a vector.
    pub fn dimensions(&self) -> usize {
        self.mean.len()
    }

    /// The mean, `[D]`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The covariance, `[D, D]`, row-major.
    pub fn covariance(&self) -> &[f64] {
        &self.covariance
    }

    /// Vectors that it is of, where that is known.
    pub fn count(&self) -> Option<u64> {
        self.count
    }
}
