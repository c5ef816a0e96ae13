//! Features of sets for tests.

use super::{FeatureDistribution, FeatureRows, FeatureStatistics};
use crate::Device;

/// Vectors of `dimensions` features.
pub(super) fn rows(values: &[f32], dimensions: usize) -> FeatureRows<'_> {
    FeatureRows::try_new("features", values, dimensions).expect("finite numbers in whole rows")
}

/// Mean and covariance of vectors of `dimensions` features.
pub(super) fn distribution(values: &[f32], dimensions: usize) -> FeatureDistribution {
    let mut statistics = FeatureStatistics::new(dimensions, Device::Cpu).expect("begun");
    statistics.add(values).expect("added");
    statistics.finish().expect("finished")
}

/// The standard normal distribution.
pub(super) fn standard(dimensions: usize) -> FeatureDistribution {
    let identity = (0..dimensions * dimensions).map(|index| f64::from(index % (dimensions + 1) == 0));
    FeatureDistribution::try_new(vec![0.0; dimensions], identity.collect(), None).expect("a distribution")
}
