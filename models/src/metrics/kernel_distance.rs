//! The kernel distance of two sets, KID where the features are Inception's (Bińkowski and others, "Demystifying MMD GANs", 2018): the
//! squared maximum mean discrepancy with the kernel (x·y / D + 1)³, without bias, over random subsets of both sets.
//!
//! As torch-fidelity and dgm-eval have it; they draw other subsets.

use super::{
    bootstrap::Resampling,
    feature_rows::{FeatureRows, in_float64, wrong},
};
use crate::{Device, ModelError};
use schemas::{ConfidenceInterval, RandomStream};
use tch::{Kind, Tensor};

/// Which subsets are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelDistanceOptions {
    /// Number of subsets.
    pub subsets: usize,
    /// Images of a subset, of each set.
    pub subset_size: usize,
    /// Decides which images they are of.
    pub seed: u64,
}

impl Default for KernelDistanceOptions {
    fn default() -> Self {
        Self { subsets: 100, subset_size: 1_000, seed: 0 }
    }
}

/// Distances of subsets.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelDistance {
    /// Mean over the subsets.
    pub mean: f64,
    /// Their standard deviation (with N): that of one subset, and no error of the mean.
    pub deviation: f64,
    /// The distance of each subset.
    pub subsets: Vec<f64>,
    /// Images of a subset over those of the smaller set.
    fraction: f64,
}

/// The kernel distance, in float64. Beside the features, memory is that of one subset: 32 MB of features and 8 MB for each of three kernels.
///
/// # Errors
/// When dimensions differ, a set has fewer images than a subset, there is no subset, or libtorch refuses.
pub fn kernel_distance(
    reference: FeatureRows<'_>,
    samples: FeatureRows<'_>,
    options: &KernelDistanceOptions,
    device: Device,
) -> Result<KernelDistance, ModelError> {
    let KernelDistanceOptions { subsets, subset_size, seed } = *options;
    reference.same_dimensions(&samples)?;
    if subsets == 0 {
        return Err(wrong("subsets for the kernel distance", 0, "at least 1"));
    }
    if subset_size < 2 {
        return Err(wrong("images of a subset for the kernel distance", subset_size, "at least 2"));
    }
    for rows in [&reference, &samples] {
        rows.at_least(subset_size, "the images of a subset for the kernel distance")?;
    }
    let _no_grad = tch::no_grad_guard();
    let chosen = |of: &FeatureRows<'_>, purpose, subset| {
        let places = RandomStream::new(seed, purpose, subset).choose(subset_size, of.rows());
        in_float64(&of.chosen(&places), of.dimensions(), device)
    };
    let distances = (0..subsets as u64).map(|subset| {
        let reference = chosen(&reference, "kernel distance, reference", subset)?;
        unbiased(&reference, &chosen(&samples, "kernel distance, samples", subset)?)
    });
    let distances = distances.collect::<Result<Vec<f64>, ModelError>>()?;
    let mean = distances.iter().sum::<f64>() / subsets as f64;
    let variance = distances.iter().map(|distance| (distance - mean).powi(2)).sum::<f64>() / subsets as f64;
    let fraction = subset_size as f64 / reference.rows().min(samples.rows()) as f64;
    Ok(KernelDistance { mean, deviation: variance.sqrt(), subsets: distances, fraction })
}

impl KernelDistance {
    /// What the distance of the two populations lies within, by resampling the subsets.
    ///
    /// Subsets share images: of the variance σ² of one, m of n images, the mean over S has σ² (1 / S + m / (n - m)). The first part is
    /// chance in drawing subsets, which resampling shows; the second is the images' own, and the deviations are stretched to it.
    ///
    /// # Errors
    /// When a subset is more than half of the smaller set: such subsets are too alike to tell anything.
    pub fn interval(&self, resampling: &Resampling) -> Result<ConfidenceInterval, ModelError> {
        if self.fraction > 0.5 {
            let found = format!("{:.0} % of the smaller set", 100.0 * self.fraction);
            return Err(wrong("images of a subset for the interval of the kernel distance", found, HALF));
        }
        let stretch = (1.0 + self.subsets.len() as f64 * self.fraction / (1.0 - self.fraction)).sqrt();
        let influences: Vec<f64> = self.subsets.iter().map(|distance| (distance - self.mean) * stretch).collect();
        resampling.of_mean("kernel distance", self.mean, &influences)
    }
}

const HALF: &str = "half at most: use smaller subsets, or more images";

/// The distance of two sets of as many vectors, `[m, D]`.
fn unbiased(reference: &Tensor, samples: &Tensor) -> Result<f64, ModelError> {
    let (rows, dimensions) = reference.size2()?;
    let kernel = |left: &Tensor, right: &Tensor| -> Result<Tensor, ModelError> {
        let products = left.f_matmul(&right.f_transpose(0, 1)?)?;
        Ok(products.f_div_scalar(dimensions as f64)?.f_add_scalar(1.0)?.f_pow_tensor_scalar(3.0)?)
    };
    // A vector and itself tell nothing of the distribution.
    let within = |of: &Tensor| -> Result<Tensor, ModelError> {
        let kernel = kernel(of, of)?;
        let others = kernel.f_sum(Kind::Double)?.f_sub(&kernel.f_diagonal(0, 0, 1)?.f_sum(Kind::Double)?)?;
        Ok(others.f_div_scalar((rows * (rows - 1)) as f64)?)
    };
    let between = kernel(reference, samples)?.f_mean(Kind::Double)?.f_mul_scalar(2.0)?;
    Ok(within(reference)?.f_add(&within(samples)?)?.f_sub(&between)?.f_double_value(&[])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{interval_coverage, test_features::rows};

    const DIMENSIONS: usize = 3;

    fn features(name: &str, images: usize, index: u64, shift: f64) -> Vec<f32> {
        let numbers = RandomStream::new(9, name, index).normals(images * DIMENSIONS);
        numbers.into_iter().map(|number| (number + shift) as f32).collect()
    }

    fn distance(index: u64, images: usize, options: &KernelDistanceOptions) -> KernelDistance {
        let (reference, samples) = (features("reference", images, index, 0.0), features("samples", images, index, 0.4));
        let [reference, samples] = [&reference, &samples].map(|values| rows(values, DIMENSIONS));
        kernel_distance(reference, samples, options, Device::Cpu).expect("computed")
    }

    #[test]
    fn intervals_of_95_percent_hold_the_truth_that_often() {
        let resampling = Resampling::try_new(0.95, 400, 0).expect("settings");
        let run = |index| {
            let options = KernelDistanceOptions { subsets: 20, subset_size: 40, seed: index };
            let found = distance(index, 400, &options);
            (found.mean, found.interval(&resampling).expect("bounds"))
        };
        let runs: Vec<_> = (0..300).map(run).collect();
        interval_coverage::check("kernel distance", &runs);
    }

    #[test]
    fn subsets_of_more_than_half_tell_no_interval() {
        let found = distance(0, 60, &KernelDistanceOptions { subsets: 2, subset_size: 31, seed: 0 });
        let error = found.interval(&Resampling::try_new(0.9, 100, 0).expect("settings")).expect_err("refused");
        assert!(error.to_string().contains("found 52 % of the smaller set"), "{error}");
    }
}
