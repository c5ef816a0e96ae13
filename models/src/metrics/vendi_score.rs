//! The Vendi score (Friedman and Dieng, "The Vendi Score: A Diversity Evaluation Metric for Machine Learning", 2023): the effective
//! number of distinct images in a set. It is the exponential of the entropy of the eigenvalues of the cosines between all images, over
//! their number, and needs no reference.

use super::feature_rows::{FeatureRows, in_float64, wrong};
use crate::{Device, ModelError};
use tch::{Kind, Tensor};

/// Vectors whose products are added at once: 64 MB in float64 of 2,048 features.
const BLOCK_ROWS: usize = 4_096;

/// The Vendi score, between 1 and the number of images. The eigenvalues are those of D by D products where there are more images than
/// features: 32 MB for 2,048, whatever the number of images.
///
/// # Errors
/// When there is no image, one has no feature above or below 0, or libtorch refuses.
pub fn vendi_score(samples: FeatureRows<'_>, device: Device) -> Result<f64, ModelError> {
    samples.at_least(1, "for the Vendi score")?;
    let zero = |row: &usize| samples.row(*row).iter().all(|value| *value == 0.0);
    if let Some(row) = (0..samples.rows()).find(zero) {
        let found = format!("nothing but 0 in row {row}");
        return Err(wrong(samples.what(), found, "a direction, for the Vendi score"));
    }
    let _no_grad = tch::no_grad_guard();
    let (images, dimensions) = (samples.rows(), samples.dimensions());
    let directions = |block: &[f32]| -> Result<Tensor, ModelError> {
        let rows = in_float64(block, dimensions, device)?;
        let lengths = rows.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), true, Kind::Double)?.f_sqrt()?;
        Ok(rows.f_div(&lengths)?)
    };
    // X Xᵀ and Xᵀ X have the same eigenvalues but for zeros, which are nothing to the entropy.
    let products = match images < dimensions {
        true => {
            let all = directions(samples.values())?;
            all.f_matmul(&all.f_transpose(0, 1)?)?
        }
        false => {
            let size = dimensions as i64;
            let mut sum = Tensor::f_zeros([size, size], (Kind::Double, device.torch()))?;
            for block in samples.blocks(BLOCK_ROWS) {
                let block = directions(block)?;
                sum = sum.f_addmm_(&block.f_transpose(0, 1)?, &block)?;
            }
            sum
        }
    };
    let products = products.f_div_scalar(images as f64)?.f_to_device(tch::Device::Cpu)?;
    let eigenvalues = Vec::<f64>::try_from(products.f_linalg_eigvalsh("L")?)?;
    let entropy: f64 = eigenvalues.into_iter().filter(|value| *value > 0.0).map(|value| -value * value.ln()).sum();
    Ok(entropy.exp())
}
