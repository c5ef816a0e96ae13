//! Peak signal-to-noise ratio.

use crate::ModelError;
use tch::{Kind, Tensor};

/// The largest value of a channel.
const PEAK: f64 = 255.0;

/// The ratio of each image in decibels, from the mean squared error over its pixels and channels; infinite for images that are
/// equal. As the published evaluation, which rounds reconstructed images to 8 bits first; sums of squares are exact here.
///
/// # Shapes
/// Both: bytes `[B, 3, H, W]`; returns float64 `[B]`.
pub(super) fn psnr(original: &Tensor, reconstructed: &Tensor) -> Result<Tensor, ModelError> {
    let difference = original.f_to_kind(Kind::Float)?.f_sub(&reconstructed.f_to_kind(Kind::Float)?)?;
    let mean_square = difference.f_square()?.f_mean_dim([1_i64, 2, 3].as_slice(), false, Kind::Double)?;
    Ok(mean_square.f_div_scalar(PEAK * PEAK)?.f_log10()?.f_mul_scalar(-10.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::test_images::{pair, values};

    // Expected values: `-10 log10(mse)` of the published evaluator on these images over 255, PyTorch 2.13.
    #[test]
    fn each_image_has_the_ratio_that_the_published_evaluation_gives_it() {
        for (size, expected) in [
            ((3, 32, 32), &[32.693_397_5, 26.721_574_8, 23.247_913_4][..]),
            ((2, 24, 40), &[32.691_158_3, 26.732_635_5]),
        ] {
            let (original, reconstructed) = pair(size);
            let found = values(&psnr(&original, &reconstructed).expect("computed"));
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{found} against {expected}");
            }
        }
    }

    #[test]
    fn equal_images_have_an_infinite_ratio_and_opposite_ones_zero() {
        let (original, _) = pair((2, 16, 16));
        assert_eq!(values(&psnr(&original, &original).expect("computed")), [f64::INFINITY; 2]);
        let black = Tensor::zeros([1, 3, 16, 16], (Kind::Uint8, tch::Device::Cpu));
        let white = black.ones_like() * 255;
        assert_eq!(values(&psnr(&black, &white).expect("computed")), [0.0]);
    }
}
