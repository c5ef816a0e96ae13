//! The Fréchet distance extrapolated to infinitely many images (Chong and Forsyth, "Effectively Unbiased FID and Inception Score and
//! Where to Find Them", 2020). The distance of N images is too large by about a constant over N: it is taken for several N, and the line
//! through them is followed to 1 / N = 0.
//!
//! The sizes are dgm-eval's. What the reference's own number of images adds stays in it.

use super::{
    FeatureDistribution, FeatureStatistics,
    feature_rows::{FeatureRows, wrong},
    frechet_distance,
};
use crate::{Device, ModelError};
use schemas::RandomStream;

/// The smallest size, where there are ten times as many images.
const SMALLEST: usize = 5_000;
/// Vectors that are copied at once.
const BLOCK_ROWS: usize = 4_096;

/// At how many sizes the distance is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrechetInfinityOptions {
    /// Number of sizes.
    pub sizes: usize,
    /// Decides which images each is of.
    pub seed: u64,
}

impl Default for FrechetInfinityOptions {
    fn default() -> Self {
        Self { sizes: 15, seed: 0 }
    }
}

/// The line through the distances.
#[derive(Clone, Debug, PartialEq)]
pub struct FrechetInfinity {
    /// Where it ends; below 0 where what is left is smaller than its error.
    pub distance: f64,
    /// Images and their distance, from the fewest on.
    pub points: Vec<(u64, f64)>,
}

/// The Fréchet distance of `samples` to the reference, extrapolated. A covariance and a distance for each size, one after another: each
/// takes the time and memory of one.
///
/// # Errors
/// When dimensions differ, there are fewer than two sizes, too few images to be of different sizes, or libtorch refuses.
pub fn frechet_infinity(
    reference: &FeatureDistribution,
    samples: FeatureRows<'_>,
    options: &FrechetInfinityOptions,
    device: Device,
) -> Result<FrechetInfinity, ModelError> {
    let FrechetInfinityOptions { sizes, seed } = *options;
    if sizes < 2 {
        return Err(wrong("sizes for the extrapolated Fréchet distance", sizes, "at least 2"));
    }
    samples.at_least(sizes + 2, "for sets of so many different sizes")?;
    let (images, least) = (samples.rows(), SMALLEST.min(samples.rows() / 10).max(2));
    let points = (0..sizes).map(|index| {
        let size = least + (images - least) * index / (sizes - 1);
        let places = RandomStream::new(seed, "extrapolated Fréchet distance", index as u64).choose(size, images);
        let mut statistics = FeatureStatistics::new(samples.dimensions(), device)?;
        for block in places.chunks(BLOCK_ROWS) {
            statistics.add(&samples.chosen(block))?;
        }
        Ok((size as u64, frechet_distance(reference, &statistics.finish()?, device)?))
    });
    let points = points.collect::<Result<Vec<_>, ModelError>>()?;
    Ok(FrechetInfinity { distance: at_infinity(&points), points })
}

/// Where the line through distances over 1 / N, by least squares, meets 0.
fn at_infinity(points: &[(u64, f64)]) -> f64 {
    let count = points.len() as f64;
    let inverse = |size: u64| 1.0 / size as f64;
    let across = points.iter().map(|(size, _)| inverse(*size)).sum::<f64>() / count;
    let up = points.iter().map(|(_, distance)| distance).sum::<f64>() / count;
    let products = points.iter().map(|(size, distance)| (inverse(*size) - across) * (distance - up)).sum::<f64>();
    let squares = points.iter().map(|(size, _)| (inverse(*size) - across).powi(2)).sum::<f64>();
    up - across * products / squares
}
