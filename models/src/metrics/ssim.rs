//! Structural similarity (Wang et al. 2004), as pytorch_msssim computes it, which the published evaluation uses.

use crate::{ModelError, layers::full_float32_convolution};
use schemas::SchemaError;
use tch::{Device, Kind, Tensor};

/// Side of the Gaussian window, and its standard deviation, in pixels.
pub(super) const WINDOW: usize = 11;
const DEVIATION: f64 = 1.5;
/// (K1 L)² and (K2 L)², with the usual K1 and K2 and L = 1: channels lie between 0 and 1.
const MEAN_STABILITY: f64 = 0.01 * 0.01;
const VARIANCE_STABILITY: f64 = 0.03 * 0.03;

/// The measure on one device.
#[derive(Debug)]
pub(super) struct StructuralSimilarity {
    /// The window along one axis, `[11]`; the square one is its product with itself.
    window: Tensor,
}

impl StructuralSimilarity {
    pub(super) fn new(device: Device) -> Result<Self, ModelError> {
        let centre = (WINDOW / 2) as f64;
        let bell = |position: usize| (-(position as f64 - centre).powi(2) / (2.0 * DEVIATION.powi(2))).exp();
        let total: f64 = (0..WINDOW).map(bell).sum();
        let window: Vec<f32> = (0..WINDOW).map(|position| (bell(position) / total) as f32).collect();
        Ok(Self { window: Tensor::f_from_slice(&window)?.f_to_device(device)? })
    }

    /// The similarity of each image, at most 1: the mean over its channels and over all windows that lie within it.
    ///
    /// # Shapes
    /// Both: bytes `[B, 3, H, W]`, sides of at least 11; returns float64 `[B]`.
    pub(super) fn similarity(&self, original: &Tensor, reconstructed: &Tensor) -> Result<Tensor, ModelError> {
        let (images, channels, height, width) = original.size4()?;
        if height.min(width) < WINDOW as i64 {
            return Err(ModelError::Data(SchemaError::Shape {
                what: "images to compare",
                found: format!("{height} by {width} pixels"),
                expected: format!("at least {WINDOW} a side, the window of SSIM"),
            }));
        }
        let (x, y) = (unit_planes(original)?, unit_planes(reconstructed)?);
        let (similarity, _) = self.maps(&x, &y)?;
        Ok(similarity.f_view([images, channels, -1])?.f_mean_dim([1_i64, 2].as_slice(), false, Kind::Double)?)
    }

    /// The similarity of each channel, and the part of it that is contrast and structure without luminance.
    ///
    /// # Shapes
    /// Both: float32 `[B·3, 1, H, W]` between 0 and 1, sides of at least 11; returns float64 `[B·3]` twice.
    pub(super) fn channels(&self, x: &Tensor, y: &Tensor) -> Result<[Tensor; 2], ModelError> {
        let (similarity, structure) = self.maps(x, y)?;
        let mean = |map: &Tensor| map.f_mean_dim([1_i64, 2].as_slice(), false, Kind::Double);
        Ok([mean(&similarity)?, mean(&structure)?])
    }

    /// The same at every position of the window, `[B·3, H - 10, W - 10]`.
    fn maps(&self, x: &Tensor, y: &Tensor) -> Result<(Tensor, Tensor), ModelError> {
        let (planes, _, height, width) = x.size4()?;
        // One convolution for all five averages: [5, B·3, H - 10, W - 10].
        let averages = Tensor::f_cat(&[x, y, &x.f_square()?, &y.f_square()?, &x.f_mul(y)?], 0)?;
        let averages = self.blur(&averages)?.f_view([5, planes, height - 10, width - 10])?;
        let part = |index: i64| averages.f_select(0, index);
        let (mean_x, mean_y) = (part(0)?, part(1)?);
        let (square_x, square_y, product) = (mean_x.f_square()?, mean_y.f_square()?, mean_x.f_mul(&mean_y)?);
        let variances = part(2)?.f_sub(&square_x)?.f_add(&part(3)?.f_sub(&square_y)?)?;
        let covariance = part(4)?.f_sub(&product)?;
        let ratio = |twice: &Tensor, sum: &Tensor, stability: f64| {
            twice.f_mul_scalar(2.0)?.f_add_scalar(stability)?.f_div(&sum.f_add_scalar(stability)?)
        };
        let luminance = ratio(&product, &square_x.f_add(&square_y)?, MEAN_STABILITY)?;
        let structure = ratio(&covariance, &variances, VARIANCE_STABILITY)?;
        Ok((luminance.f_mul(&structure)?, structure))
    }

    /// `[N, 1, H, W]` to the weighted averages `[N, 1, H - 10, W - 10]`. A variance is a difference of two of them, which is lost in the 10
    /// bits of TensorFloat-32: the measure came out 0.01 to 0.14 too low with it.
    fn blur(&self, planes: &Tensor) -> Result<Tensor, ModelError> {
        let along = |planes: &Tensor, shape: [i64; 4]| {
            full_float32_convolution(planes, &self.window.f_view(shape)?, None, [1, 1], [0, 0])
        };
        along(&along(planes, [1, 1, WINDOW as i64, 1])?, [1, 1, 1, WINDOW as i64])
    }
}

/// Bytes `[B, 3, H, W]` to float32 `[B·3, 1, H, W]` between 0 and 1.
pub(super) fn unit_planes(pixels: &Tensor) -> Result<Tensor, ModelError> {
    let (images, channels, height, width) = pixels.size4()?;
    let unit = pixels.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
    Ok(unit.f_reshape([images * channels, 1, height, width])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::test_images::{pair, values};

    fn similarity(original: &Tensor, reconstructed: &Tensor) -> Result<Vec<f64>, ModelError> {
        Ok(values(&StructuralSimilarity::new(Device::Cpu)?.similarity(original, reconstructed)?))
    }

    // Expected values: pytorch_msssim 1.0.0, `ssim(y, x, data_range=1.0, size_average=False)` on these images over 255.
    #[test]
    fn each_image_has_the_similarity_that_the_published_library_gives_it() {
        for (size, expected) in
            [((3, 32, 32), &[0.958_039_2, 0.866_454_2, 0.787_808_4][..]), ((2, 24, 40), &[0.952_957_0, 0.871_493_6])]
        {
            let (original, reconstructed) = pair(size);
            let found = similarity(&original, &reconstructed).expect("computed");
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{found} against {expected}");
            }
        }
    }

    #[test]
    fn equal_images_are_wholly_similar_and_order_does_not_matter() {
        let (original, reconstructed) = pair((2, 11, 16));
        for found in similarity(&original, &original).expect("computed") {
            assert!((found - 1.0).abs() < 1e-6, "{found}");
        }
        let there = similarity(&original, &reconstructed).expect("computed");
        let back = similarity(&reconstructed, &original).expect("computed");
        for (there, back) in there.iter().zip(&back) {
            assert!((there - back).abs() < 1e-6 && *there < 1.0, "{there} and {back}");
        }
    }

    #[test]
    fn images_smaller_than_the_window_are_refused() {
        let (original, reconstructed) = pair((1, 10, 32));
        let error = similarity(&original, &reconstructed).expect_err("no window fits");
        assert!(error.to_string().contains("10 by 32"), "{error}");
    }
}
