//! The images of a set that are nearest to each sample: what a sample may be a copy of.

use super::{
    feature_rows::FeatureRows,
    neighbours::{BLOCK_ROWS, Nearest, Vectors},
};
use crate::{Device, ModelError};

/// Candidates beyond those that are asked for: float32 may put near ones in another order, and theirs is float64's.
const SPARE: usize = 8;

/// An image near a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NearImage {
    /// Its place in its set.
    pub place: usize,
    /// How far its features are.
    pub distance: f64,
}

/// For each of `samples` the `count` nearest images of `training`, nearest first. Distances are float64, between candidates that were
/// found in float32. Memory beside the features and a copy of them on the device is bounded.
///
/// # Errors
/// When dimensions differ, `training` has fewer than `count` images, either is empty, or libtorch refuses.
pub fn nearest_images(
    training: FeatureRows<'_>,
    samples: FeatureRows<'_>,
    count: usize,
    device: Device,
) -> Result<Vec<Vec<NearImage>>, ModelError> {
    training.same_dimensions(&samples)?;
    training.at_least(count.max(1), "the nearest images that are asked for")?;
    samples.at_least(1, "to find images near to")?;
    let _no_grad = tch::no_grad_guard();
    let among = Vectors::new(training, device, BLOCK_ROWS)?;
    let candidates = (count + SPARE).min(training.rows());
    let found = Vectors::new(samples, device, BLOCK_ROWS)?.nearest(&among, candidates as i64)?;
    ordered(&found, samples, training, count)
}

/// For each image the nearest other one of the same set.
pub(super) fn nearest_others(of: FeatureRows<'_>, device: Device) -> Result<Vec<Vec<NearImage>>, ModelError> {
    let _no_grad = tch::no_grad_guard();
    let candidates = (1 + SPARE).min(of.rows() - 1);
    let found = Vectors::new(of, device, BLOCK_ROWS)?.nearest_others(candidates as i64)?;
    ordered(&found, of, of, 1)
}

fn ordered(
    found: &Nearest,
    of: FeatureRows<'_>,
    among: FeatureRows<'_>,
    count: usize,
) -> Result<Vec<Vec<NearImage>>, ModelError> {
    let (_, candidates) = found.places.size2()?;
    let places = Vec::<i64>::try_from(found.places.f_reshape([-1])?.f_to_device(tch::Device::Cpu)?)?;
    let nearest = places.chunks(candidates as usize).enumerate().map(|(row, candidates)| {
        let near = |&place: &i64| {
            let place = place as usize;
            NearImage { place, distance: distance(of.row(row), among.row(place)) }
        };
        let mut nearest: Vec<NearImage> = candidates.iter().map(near).collect();
        nearest.sort_by(|one, other| one.distance.total_cmp(&other.distance).then(one.place.cmp(&other.place)));
        nearest.truncate(count);
        nearest
    });
    Ok(nearest.collect())
}

fn distance(left: &[f32], right: &[f32]) -> f64 {
    let squares = left.iter().zip(right).map(|(left, right)| (f64::from(*left) - f64::from(*right)).powi(2));
    squares.sum::<f64>().sqrt()
}
