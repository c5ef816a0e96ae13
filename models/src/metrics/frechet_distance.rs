//! The Fréchet distance between two sets' features, each taken for a normal distribution (Heusel and others, "GANs Trained by a Two
//! Time-Scale Update Rule", 2017): |µ₁ - µ₂|² + tr Σ₁ + tr Σ₂ - 2 tr (Σ₁ Σ₂)^½.
//!
//! With Σ = R Rᵀ on either side the eigenvalues of Σ₁ Σ₂ are the squares of the singular values of R₁ᵀ R₂: the last trace is their sum,
//! and no root of a matrix and no complex number occurs. R is Cholesky's factor, where vectors are few or features depend on one another
//! that of Cholesky's method with pivots, which ends at the rank, and V L^½ of Σ = V L Vᵀ where the rank is neither full nor small. Roots are not taken of eigenvalues of a product, symmetric or not, because what is small
//! in it is lost in rounding before the root: for 3,000 vectors of 2,048 features whose variances span six decades, a set's distance
//! to itself came out as 3e-8 of the trace that way, and as 2e-13 this way.

use super::{FeatureDistribution, feature_rows::wrong};
use crate::{Device, ModelError};
use tch::{Kind, Tensor};

/// What rounding may make of a distance of 0, over the sum of the traces.
const ROUNDING: f64 = 1e-9;
/// What a covariance that was stored in float32 may have for an eigenvalue of 0, over the largest.
const NEGATIVE_EIGENVALUE: f64 = 1e-6;

/// The distance, at least 0.
///
/// `device` multiplies. Factors, eigenvalues and singular values are the processor's: LAPACK has them in float64 wherever libtorch is,
/// they are wanted once a set, and a set's distance then hardly depends on the card.
///
/// # Errors
/// When the dimensions differ, a covariance is none (it has a negative eigenvalue), or libtorch refuses.
pub fn frechet_distance(
    left: &FeatureDistribution,
    right: &FeatureDistribution,
    device: Device,
) -> Result<f64, ModelError> {
    if left.dimensions() != right.dimensions() {
        return Err(wrong("dimensions of features", right.dimensions(), left.dimensions()));
    }
    let _no_grad = tch::no_grad_guard();
    let means: f64 = left.mean().iter().zip(right.mean()).map(|(left, right)| (left - right).powi(2)).sum();
    let traces = trace(left) + trace(right);
    let (left, right) = (root(left)?.f_to_device(device.torch())?, root(right)?.f_to_device(device.torch())?);
    let product = left.f_transpose(0, 1)?.f_matmul(&right)?.f_to_device(tch::Device::Cpu)?;
    // Where a set's images are all equal, nothing varies.
    let shared = match product.numel() {
        0 => 0.0,
        _ => product.f_svd(true, false)?.1.f_sum(Kind::Double)?.f_double_value(&[])?,
    };
    let distance = means + traces - 2.0 * shared;
    match distance {
        distance if distance >= 0.0 => Ok(distance),
        distance if distance >= -ROUNDING * traces => Ok(0.0),
        distance => Err(wrong("Fréchet distance", distance, "at least 0")),
    }
}

fn trace(of: &FeatureDistribution) -> f64 {
    of.covariance().iter().step_by(of.dimensions() + 1).sum()
}

/// R of Σ = R Rᵀ, `[D, r]`. A class of a few images has a rank far below D, and eigenvalues of D by D numbers would take most of the time.
pub(super) fn root(of: &FeatureDistribution) -> Result<Tensor, ModelError> {
    let size = of.dimensions() as i64;
    let covariance = Tensor::f_from_slice(of.covariance())?.f_view([size, size])?;
    let largest =
        of.covariance().iter().step_by(of.dimensions() + 1).fold(0.0, |largest, &variance| variance.max(largest));
    let (factor, failed) = covariance.f_linalg_cholesky_ex(false, false)?;
    let least = factor.f_diagonal(0, 0, 1)?.f_square()?.f_min()?.f_double_value(&[])?;
    if failed.f_int64_value(&[])? == 0 && least > rounding(size, largest) {
        return Ok(factor);
    }
    match root_of_low_rank(of.covariance(), of.dimensions(), rounding(size, largest))? {
        Some(root) => Ok(root),
        None => root_by_eigenvalues(&covariance),
    }
}

/// Cholesky's factor of a covariance (`size` by `size`) by pivots on the largest variance that is left, up to those that are nothing but
/// rounding; `None` where that takes more than an eighth of all, or what is left is no covariance.
fn root_of_low_rank(covariance: &[f64], size: usize, rounding: f64) -> Result<Option<Tensor>, ModelError> {
    let mut left: Vec<f64> = covariance.iter().step_by(size + 1).copied().collect();
    let mut columns: Vec<Vec<f64>> = Vec::new();
    loop {
        let (pivot, &most) = left.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1)).unwrap_or((0, &0.0));
        if most <= rounding {
            break;
        }
        if columns.len() == size / 8 {
            return Ok(None);
        }
        let mut column = covariance[pivot * size..][..size].to_vec();
        for earlier in &columns {
            let factor = earlier[pivot];
            column.iter_mut().zip(earlier).for_each(|(value, earlier)| *value -= factor * earlier);
        }
        let scale = most.sqrt().recip();
        for (value, left) in column.iter_mut().zip(&mut left) {
            *value *= scale;
            *left -= *value * *value;
        }
        left[pivot] = 0.0;
        columns.push(column);
    }
    let (rank, size) = (columns.len() as i64, size as i64);
    let root = Tensor::f_from_slice(&columns.concat())?.f_view([rank, size])?.f_transpose(0, 1)?;
    // A matrix with negative eigenvalues may have no variance left and other numbers that are.
    let covariance = Tensor::f_from_slice(covariance)?.f_view([size, size])?;
    let rest = covariance.f_sub(&root.f_matmul(&root.f_transpose(0, 1)?)?)?.f_abs()?.f_max()?.f_double_value(&[])?;
    Ok((rest <= 4.0 * rounding).then_some(root))
}

/// What rounding may make of an eigenvalue of 0 beside the largest.
fn rounding(size: i64, largest: f64) -> f64 {
    size as f64 * f64::EPSILON * largest
}

/// V L^½ of Σ = V L Vᵀ, without the columns whose eigenvalue is nothing but rounding.
fn root_by_eigenvalues(covariance: &Tensor) -> Result<Tensor, ModelError> {
    let (size, _) = covariance.size2()?;
    let (values, vectors) = covariance.f_linalg_eigh("L")?;
    // Ascending.
    let all = Vec::<f64>::try_from(&values)?;
    let largest = all.last().map_or(0.0, |largest| largest.abs());
    let smallest = all.first().copied().unwrap_or(0.0);
    if smallest < -NEGATIVE_EIGENVALUE * largest {
        let expected = format!("none below 0, beside {largest} the largest");
        return Err(wrong("eigenvalue of a covariance of features", smallest, expected));
    }
    let nothing = rounding(size, largest);
    let empty = all.partition_point(|&value| value <= nothing) as i64;
    let (values, vectors) = (values.f_narrow(0, empty, size - empty)?, vectors.f_narrow(1, empty, size - empty)?);
    Ok(vectors.f_mul(&values.f_sqrt()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FeatureStatistics;
    use schemas::RandomStream;

    #[test]
    fn a_root_of_low_rank_is_one_and_gives_the_same_distance() {
        const DIMENSIONS: usize = 96;
        let distribution = |name: &str, rows: usize| {
            let mut statistics = FeatureStatistics::new(DIMENSIONS, Device::Cpu).expect("begun");
            statistics.add(&RandomStream::new(5, name, 0).uniforms(rows * DIMENSIONS)).expect("added");
            statistics.finish().expect("finished")
        };
        let size = DIMENSIONS as i64;
        let covariance = |of: &FeatureDistribution| Tensor::from_slice(of.covariance()).view([size, size]);
        let shared = |left: &Tensor, right: &Tensor| {
            left.tr().matmul(right).svd(true, false).1.sum(Kind::Double).double_value(&[])
        };
        let [few, others] = [distribution("few", 9), distribution("others", 12)];
        let roots = [&few, &others].map(|of| root(of).expect("of low rank"));
        assert_eq!(roots.each_ref().map(|root| root.size2().expect("a matrix")), [(size, 8), (size, 11)]);
        for (root, of) in roots.iter().zip([&few, &others]) {
            let rest = root.matmul(&root.tr()) - covariance(of);
            assert!(rest.abs().max().double_value(&[]) < 1e-15);
        }
        let by_eigenvalues = [&few, &others].map(|of| root_by_eigenvalues(&covariance(of)).expect("computed"));
        let [found, expected] = [&roots, &by_eigenvalues].map(|[left, right]| shared(left, right));
        assert!((found - expected).abs() < 1e-12 * expected, "{found} {expected}");
        // Half of the rank is not small.
        let half = distribution("half", DIMENSIONS / 2);
        assert!(root_of_low_rank(half.covariance(), DIMENSIONS, 1e-15).expect("computed").is_none());
        // No variance at all, and yet something else: no covariance.
        let mut none = [0.0; 64];
        (none[1], none[8]) = (1.0, 1.0);
        assert!(root_of_low_rank(&none, 8, 1e-15).expect("computed").is_none());
    }

    #[test]
    fn both_roots_give_one_distance() {
        const DIMENSIONS: usize = 40;
        let distribution = |name: &str, spread: f32| {
            let mut stream = RandomStream::new(3, name, 0);
            let features: Vec<f32> = stream.uniforms(90 * DIMENSIONS).into_iter().map(|value| value * spread).collect();
            let mut statistics = FeatureStatistics::new(DIMENSIONS, Device::Cpu).expect("begun");
            statistics.add(&features).expect("added");
            statistics.finish().expect("finished")
        };
        let sets = [distribution("left", 1.0), distribution("right", 2.0)];
        let covariance =
            |of: &FeatureDistribution| Tensor::from_slice(of.covariance()).view([DIMENSIONS as i64, DIMENSIONS as i64]);
        let shared =
            |roots: [Tensor; 2]| roots[0].tr().matmul(&roots[1]).svd(true, false).1.sum(Kind::Double).double_value(&[]);
        let [left, right] = &sets;
        let by_cholesky = [root(left).expect("full rank"), root(right).expect("full rank")];
        for (root, of) in by_cholesky.iter().zip(&sets) {
            assert_eq!(root.triu(1).abs().max().double_value(&[]), 0.0, "Cholesky's is lower triangular");
            let again = root.matmul(&root.tr());
            assert!((again - covariance(of)).abs().max().double_value(&[]) < 1e-14);
        }
        let by_eigenvalues = [left, right].map(|of| root_by_eigenvalues(&covariance(of)).expect("computed"));
        let (by_cholesky, by_eigenvalues) = (shared(by_cholesky), shared(by_eigenvalues));
        assert!((by_cholesky - by_eigenvalues).abs() < 1e-12 * by_cholesky, "{by_cholesky} {by_eigenvalues}");
    }
}
