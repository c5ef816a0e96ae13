//! What each image of a set does to the set's Fréchet distance, for its interval.
//!
//! With Σ₂ of the reference, Σ₁ of the samples and A = Σ₂^½ (Σ₂^½ Σ₁ Σ₂^½)^-½ Σ₂^½ the distance changes with Σ₁ by I - A, and a
//! sample x has the influence 2 (µ₁ - µ₂)·(x - µ₁) + (x - µ₁)ᵀ (I - A) (x - µ₁), less the mean of this over the samples (Rippl,
//! Munk and Sturm, "Limit laws of the empirical Wasserstein distance: Gaussian distributions", 2016). With any roots Σ = R Rᵀ and
//! R₁ᵀ R₂ = U S Vᵀ, A is R₂ V S⁻¹ Vᵀ R₂ᵀ, so that the distance's own singular values are all it takes.
//!
//! To first order: of few images for their features, influences are larger than what the distance scatters by, at one image a feature by
//! three tenths (reference_values/interval_simulations.py).

use super::{
    FeatureDistribution,
    feature_rows::{FeatureRows, in_float64, wrong},
    frechet_distance::root,
};
use crate::{Device, ModelError};
use tch::{Kind, Tensor};

/// Vectors whose products are there at once: 64 MB each in float64 of 2,048 features.
const BLOCK_ROWS: usize = 4_096;
/// Singular values that are nothing but rounding, over the largest. No sample has a part along them.
const NOTHING: f64 = 1e-9;

/// The influence of each sample on the Fréchet distance of `samples`, whose statistics are `distribution`, to `reference`; their mean
/// is 0. Takes about as long as statistics and distance together.
///
/// # Errors
/// When dimensions differ, a covariance is none, or libtorch refuses.
pub fn frechet_influences(
    reference: &FeatureDistribution,
    distribution: &FeatureDistribution,
    samples: FeatureRows<'_>,
    device: Device,
) -> Result<Vec<f64>, ModelError> {
    for found in [distribution.dimensions(), samples.dimensions()] {
        if found != reference.dimensions() {
            return Err(wrong("dimensions of features", found, reference.dimensions()));
        }
    }
    samples.at_least(2, "for influences on a distance")?;
    let _no_grad = tch::no_grad_guard();
    let on_device = |numbers: &[f64]| -> Result<Tensor, ModelError> {
        Ok(Tensor::f_from_slice(numbers)?.f_to_device(device.torch())?)
    };
    let mean = on_device(distribution.mean())?;
    let apart = mean.f_sub(&on_device(reference.mean())?)?.f_mul_scalar(2.0)?;
    let directions = directions(reference, distribution, device)?;
    let mut influences = Vec::with_capacity(samples.rows());
    for block in samples.blocks(BLOCK_ROWS) {
        let deviations = in_float64(block, samples.dimensions(), device)?.f_sub(&mean)?;
        let squares = |of: &Tensor| of.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double);
        let along = squares(&deviations.f_matmul(&directions)?)?;
        let found = squares(&deviations)?.f_sub(&along)?.f_add(&deviations.f_mv(&apart)?)?;
        influences.extend(Vec::<f64>::try_from(found.f_to_device(tch::Device::Cpu)?)?);
    }
    let mean = influences.iter().sum::<f64>() / influences.len() as f64;
    influences.iter_mut().for_each(|influence| *influence -= mean);
    Ok(influences)
}

/// R₂ V S^-½, `[D, r]`: its product with itself is A.
fn directions(
    reference: &FeatureDistribution,
    samples: &FeatureDistribution,
    device: Device,
) -> Result<Tensor, ModelError> {
    let (samples, reference) =
        (root(samples)?.f_to_device(device.torch())?, root(reference)?.f_to_device(device.torch())?);
    let product = samples.f_transpose(0, 1)?.f_matmul(&reference)?.f_to_device(tch::Device::Cpu)?;
    if product.numel() == 0 {
        return Ok(Tensor::f_zeros([reference.size2()?.0, 0], (Kind::Double, device.torch()))?);
    }
    let (_, values, vectors) = product.f_svd(true, true)?;
    // Descending.
    let all = Vec::<f64>::try_from(&values)?;
    let nothing = NOTHING * all.first().copied().unwrap_or(0.0);
    let rank = all.partition_point(|&value| value > nothing) as i64;
    let scaled = vectors.f_narrow(1, 0, rank)?.f_div(&values.f_narrow(0, 0, rank)?.f_sqrt()?)?;
    Ok(reference.f_matmul(&scaled.f_to_device(device.torch())?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Resampling, frechet_distance,
        metrics::{
            interval_coverage,
            test_features::{distribution, rows, standard},
        },
    };
    use schemas::RandomStream;

    fn samples(dimensions: usize, images: usize, index: u64) -> Vec<f32> {
        let numbers = RandomStream::new(9, "samples", index).normals(images * dimensions);
        // Of features that differ in scale and depend on one another.
        let mut features: Vec<f32> = numbers
            .into_iter()
            .enumerate()
            .map(|(place, number)| (0.4 + number * (1.0 + (place % dimensions) as f64 / 4.0)) as f32)
            .collect();
        for row in features.chunks_mut(dimensions) {
            row[1] += 0.7 * row[0];
        }
        features
    }

    #[test]
    fn an_influence_is_what_the_distance_loses_without_the_image() {
        const DIMENSIONS: usize = 4;
        const IMAGES: usize = 3_000;
        let (reference, samples) = (standard(DIMENSIONS), samples(DIMENSIONS, IMAGES, 0));
        let of = |values: &[f32]| {
            frechet_distance(&reference, &distribution(values, DIMENSIONS), Device::Cpu).expect("computed")
        };
        let found = frechet_influences(
            &reference,
            &distribution(&samples, DIMENSIONS),
            rows(&samples, DIMENSIONS),
            Device::Cpu,
        )
        .expect("computed");
        assert!(found.iter().sum::<f64>().abs() < 1e-8);
        let largest = found.iter().fold(0.0, |largest: f64, influence| largest.max(influence.abs()));
        let whole = of(&samples);
        for image in (0..IMAGES).step_by(300) {
            let (before, after) = samples.split_at(image * DIMENSIONS);
            let lost = whole - of(&[before, &after[DIMENSIONS..]].concat());
            let expected = lost * (IMAGES - 1) as f64;
            // What is left is of second order, one part in the number of images.
            assert!((found[image] - expected).abs() < 0.01 * largest, "{image}: {} and {expected}", found[image]);
        }
    }

    #[test]
    fn few_images_have_influences_along_what_they_vary_in() {
        const DIMENSIONS: usize = 30;
        let (reference, samples) = (standard(DIMENSIONS), samples(DIMENSIONS, 12, 0));
        let found = frechet_influences(
            &reference,
            &distribution(&samples, DIMENSIONS),
            rows(&samples, DIMENSIONS),
            Device::Cpu,
        );
        assert!(found.expect("computed").iter().all(|influence| influence.is_finite()));
        // Equal images have none.
        let equal = [1.5; 4 * DIMENSIONS];
        let found =
            frechet_influences(&reference, &distribution(&equal, DIMENSIONS), rows(&equal, DIMENSIONS), Device::Cpu);
        assert_eq!(found.expect("computed"), [0.0; 4]);
        let error = frechet_influences(&reference, &reference, rows(&[0.0; 6], 3), Device::Cpu).expect_err("refused");
        assert!(error.to_string().contains("dimensions of features: found 3, expected 30"), "{error}");
    }

    #[test]
    fn intervals_of_95_percent_hold_the_truth_that_often() {
        const DIMENSIONS: usize = 3;
        let reference = standard(DIMENSIONS);
        let resampling = Resampling::try_new(0.95, 400, 0).expect("settings");
        let run = |index| {
            let samples = samples(DIMENSIONS, 400, index);
            let distribution = distribution(&samples, DIMENSIONS);
            let score = frechet_distance(&reference, &distribution, Device::Cpu).expect("computed");
            let influences = frechet_influences(&reference, &distribution, rows(&samples, DIMENSIONS), Device::Cpu);
            let interval = resampling.of_mean("FID", score, &influences.expect("computed")).expect("bounds");
            (score, interval)
        };
        let runs: Vec<_> = (0..400).map(run).collect();
        interval_coverage::check("Fréchet distance", &runs);
    }
}
