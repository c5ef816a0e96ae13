//! Structural similarity over five scales (Wang and others, "Multiscale Structural Similarity for Image Quality Assessment", 2003), as
//! pytorch_msssim computes it, which the published evaluation uses.

use super::ssim::{StructuralSimilarity, WINDOW, unit_planes};
use crate::ModelError;
use tch::{Kind, Tensor};

/// Exponents from the finest scale to the coarsest.
const WEIGHTS: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

/// Whether the window fits into images of this size at every scale, by the library's rule: more than 160 pixels a side.
pub(super) fn fits(height: i64, width: i64) -> bool {
    height.min(width) > (WINDOW as i64 - 1) << (WEIGHTS.len() - 1)
}

/// The similarity of each image, between 0 and 1: the mean over its channels of the product over scales. Below 0 nothing is similar.
///
/// # Shapes
/// Both: bytes `[B, 3, H, W]` for which [`fits`]; returns float64 `[B]`.
pub(super) fn ms_ssim(
    single: &StructuralSimilarity,
    original: &Tensor,
    reconstructed: &Tensor,
) -> Result<Tensor, ModelError> {
    let (images, channels, ..) = original.size4()?;
    let (mut x, mut y) = (unit_planes(original)?, unit_planes(reconstructed)?);
    let mut product: Option<Tensor> = None;
    for (scale, weight) in WEIGHTS.into_iter().enumerate() {
        let [similarity, structure] = single.channels(&x, &y)?;
        let coarsest = scale + 1 == WEIGHTS.len();
        let factor = if coarsest { similarity } else { structure };
        let factor = factor.f_clamp_min(0.0)?.f_pow_tensor_scalar(weight)?;
        product = Some(product.map_or(Ok(factor.shallow_clone()), |product| product.f_mul(&factor))?);
        if !coarsest {
            (x, y) = (halved(&x)?, halved(&y)?);
        }
    }
    let product = product.ok_or_else(|| ModelError::torch("there are scales"))?;
    Ok(product.f_view([images, channels])?.f_mean_dim([1_i64].as_slice(), false, Kind::Double)?)
}

/// Means of 2 by 2 pixels. An odd side gets zeros around it, which count, as the library has it.
fn halved(planes: &Tensor) -> Result<Tensor, ModelError> {
    let (_, _, height, width) = planes.size4()?;
    Ok(planes.f_avg_pool2d([2, 2], [2, 2], [height % 2, width % 2], false, true, None)?)
}
