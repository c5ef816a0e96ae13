//! The Monge distance of two sets, MIND where the features are Inception's (Berthet and others, "MIND: Monge Inception Distance for
//! Generative Models Evaluation", 2026, arXiv 2605.06797): the sliced Wasserstein distance, times 3 D.
//!
//! Along a direction, the best transport of one set to another of as many images takes them in their order. No covariance is
//! estimated, so that a few thousand images are enough.

use super::feature_rows::{FeatureRows, wrong};
use crate::{Device, ModelError, layers::full_float32_product};
use schemas::RandomStream;
use std::borrow::Cow;
use tch::{Kind, Tensor};

/// Directions along which both sets are there at once: 50,000 images take 26 MB a set, and as much again twice while they are sorted.
const DIRECTIONS_AT_ONCE: usize = 128;

/// Along which directions sets are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MongeDistanceOptions {
    /// Number of directions.
    pub directions: usize,
    /// Decides which they are, and which images of the larger set are used.
    pub seed: u64,
}

impl Default for MongeDistanceOptions {
    fn default() -> Self {
        Self { directions: 10_000, seed: 0 }
    }
}

/// The Monge distance; of the larger set, as many images are used as the smaller has. Projections are float32, and their differences
/// are summed in float64. Memory is bounded whatever the number of directions: the features of both sets on the device, and 128
/// numbers an image.
///
/// # Errors
/// When dimensions differ, a set is empty, there is no direction, or libtorch refuses.
pub fn monge_distance(
    reference: FeatureRows<'_>,
    samples: FeatureRows<'_>,
    options: &MongeDistanceOptions,
    device: Device,
) -> Result<f64, ModelError> {
    let MongeDistanceOptions { directions, seed } = *options;
    reference.same_dimensions(&samples)?;
    if directions == 0 {
        return Err(wrong("directions for the Monge distance", 0, "at least 1"));
    }
    for rows in [&reference, &samples] {
        rows.at_least(1, "for the Monge distance")?;
    }
    let _no_grad = tch::no_grad_guard();
    let (rows, dimensions) = (reference.rows().min(samples.rows()), reference.dimensions());
    let on_device = |of: &FeatureRows<'_>| -> Result<Tensor, ModelError> {
        let values = match of.rows() == rows {
            true => Cow::Borrowed(of.values()),
            false => {
                Cow::Owned(of.chosen(&RandomStream::new(seed, "Monge distance, images", 0).choose(rows, of.rows())))
            }
        };
        Ok(Tensor::f_from_slice(&values)?.f_view([rows as i64, dimensions as i64])?.f_to_device(device.torch())?)
    };
    let (reference, samples) = (on_device(&reference)?, on_device(&samples)?);
    let mut sum = Tensor::f_zeros([], (Kind::Double, device.torch()))?;
    for first in (0..directions).step_by(DIRECTIONS_AT_ONCE) {
        let block: Vec<f32> = (first..directions.min(first + DIRECTIONS_AT_ONCE))
            .flat_map(|index| direction(seed, index, dimensions))
            .collect();
        let block = Tensor::f_from_slice(&block)?.f_view([-1, dimensions as i64])?.f_transpose(0, 1)?;
        let block = block.f_to_device(device.torch())?;
        let sorted = |features: &Tensor| -> Result<Tensor, ModelError> {
            Ok(full_float32_product(features, &block)?.f_sort(0, false)?.0)
        };
        let moved = sorted(&reference)?.f_sub(&sorted(&samples)?)?.f_to_kind(Kind::Double)?.f_square()?;
        sum = sum.f_add(&moved.f_sum(Kind::Double)?)?;
    }
    let mean = sum.f_double_value(&[])? / (rows * directions) as f64;
    Ok(3.0 * dimensions as f64 * mean)
}

/// A direction of length 1, any equally likely.
fn direction(seed: u64, index: usize, dimensions: usize) -> impl Iterator<Item = f32> {
    let numbers = RandomStream::new(seed, "Monge distance, direction", index as u64).normals(dimensions);
    let length = numbers.iter().map(|number| number * number).sum::<f64>().sqrt();
    numbers.into_iter().map(move |number| (number / length) as f32)
}
