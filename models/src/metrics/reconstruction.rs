//! Scores of a set of reconstructed images, summed up on the device and read once.

use super::{codebook_use::CodebookCounter, psnr::psnr, ssim::StructuralSimilarity};
use crate::{Device, ModelError, ProcessGroup, device, visual_tokenizer::upload};
use schemas::{CodebookUse, PixelBatch, SchemaError, TokenBatch, TokenLevels};
use tch::{Kind, Tensor};

/// What a set of images scores.
#[derive(Clone, Debug, PartialEq)]
pub struct ReconstructionScores {
    /// Images that were compared.
    pub images: u64,
    /// Mean over images of the peak signal-to-noise ratio, in decibels; infinite when any image is reconstructed without an error.
    pub psnr: f64,
    /// Mean over images of the structural similarity, at most 1.
    pub ssim: f64,
    /// Use of the codebook by all levels together.
    pub codebook: CodebookUse,
    /// Use of the codebook by each level, coarsest first.
    pub codebook_by_level: Vec<CodebookUse>,
}

/// Compares originals with what was reconstructed, batch by batch. Updates wait for no device; only [`Self::finish`] does.
///
/// PSNR and SSIM are those of the published evaluation (`VQGANEvaluator` in evaluator/evaluator.py): of images rounded to 8
/// bits, for each image and then averaged.
#[derive(Debug)]
pub struct ReconstructionMeter {
    device: Device,
    ssim: StructuralSimilarity,
    codes: CodebookCounter,
    images: u64,
    /// Sums over images of PSNR and SSIM, float64 `[2]`.
    sums: Tensor,
}

impl ReconstructionMeter {
    /// Nothing compared yet.
    ///
    /// # Errors
    /// When libtorch refuses, for want of memory for example.
    pub fn new(device: Device, levels: TokenLevels, codebook_size: usize) -> Result<Self, ModelError> {
        Ok(Self {
            device,
            ssim: StructuralSimilarity::new(device.torch())?,
            codes: CodebookCounter::new(device.torch(), levels, codebook_size)?,
            images: 0,
            sums: Tensor::f_zeros([2], (Kind::Double, device.torch()))?,
        })
    }

    /// Compares the `filled` rows of `original` with as many of `reconstructed`, made from the rows of `tokens`.
    ///
    /// # Errors
    /// When images or rows do not match, images are smaller than SSIM's window of 11 pixels, or libtorch refuses.
    pub fn update(
        &mut self,
        original: &PixelBatch,
        reconstructed: &PixelBatch,
        tokens: &TokenBatch,
    ) -> Result<(), ModelError> {
        let filled = original.filled();
        if (reconstructed.filled(), tokens.rows()) != (filled, filled) {
            return Err(mismatch(
                format!("{} images and {} rows of tokens", reconstructed.filled(), tokens.rows()),
                format!("{filled} of each"),
            ));
        }
        let codes: Vec<i64> = tokens.codes().iter().map(|&code| i64::from(code)).collect();
        let shape = [filled as i64, tokens.tokens_per_image() as i64];
        self.update_tensors(
            &upload(original, self.device)?.f_narrow(0, 0, filled as i64)?,
            &upload(reconstructed, self.device)?.f_narrow(0, 0, filled as i64)?,
            &device::upload(&codes, &shape, self.device.torch())?,
        )
    }

    /// The same with what is on the device already.
    ///
    /// # Shapes
    /// `original`, `reconstructed`: bytes `[B, 3, H, W]`; `codes`: int64 `[B, L]`.
    pub(crate) fn update_tensors(
        &mut self,
        original: &Tensor,
        reconstructed: &Tensor,
        codes: &Tensor,
    ) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        if original.size() != reconstructed.size() {
            return Err(mismatch(format!("{:?}", reconstructed.size()), format!("{:?}", original.size())));
        }
        let scores = [psnr(original, reconstructed)?, self.ssim.similarity(original, reconstructed)?];
        let sums = Tensor::f_stack(&scores, 0)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?;
        self.sums = self.sums.f_add(&sums)?;
        self.codes.add(codes)?;
        let (images, ..) = original.size4()?;
        self.images += images.unsigned_abs();
        Ok(())
    }

    /// Adds what the other processes of `group` have compared; all of them call this, also one that has compared nothing.
    ///
    /// # Errors
    /// When libtorch refuses, or a process is lost or silent.
    pub fn sum_over(&mut self, group: &ProcessGroup) -> Result<(), ModelError> {
        let mut images = Tensor::f_from_slice(&[self.images as i64])?;
        group.add_up(&mut [&mut images, &mut self.sums, self.codes.counts()])?;
        self.images = images.f_int64_value(&[0])?.unsigned_abs();
        Ok(())
    }

    /// The scores. Waits for the device.
    ///
    /// # Errors
    /// When nothing was compared, or libtorch refuses.
    pub fn finish(self) -> Result<ReconstructionScores, ModelError> {
        if self.images == 0 {
            return Err(ModelError::Data(SchemaError::Shape {
                what: "images to score",
                found: "0".to_owned(),
                expected: "at least 1".to_owned(),
            }));
        }
        let codes = self.codes.finish()?;
        let sums = Vec::<f64>::try_from(self.sums.f_to_device(tch::Device::Cpu)?)?;
        Ok(ReconstructionScores {
            images: self.images,
            psnr: sums[0] / self.images as f64,
            ssim: sums[1] / self.images as f64,
            codebook: codes.all(),
            codebook_by_level: codes.levels(),
        })
    }
}

fn mismatch(found: String, expected: String) -> ModelError {
    ModelError::Data(SchemaError::Shape { what: "reconstructed images", found, expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::test_images::{batch, pair};

    fn meter() -> ReconstructionMeter {
        let levels = TokenLevels::published(4).expect("1, 1, 2");
        ReconstructionMeter::new(Device::Cpu, levels, 16).expect("a meter")
    }

    fn tokens(codes: &[i16]) -> TokenBatch {
        TokenBatch::try_new(codes.to_vec(), 4).expect("rows of four")
    }

    // Expected means: the published evaluator's, with pytorch_msssim 1.0.0, on the same images.
    #[test]
    fn scores_are_means_over_images_however_they_are_batched() {
        let (original, reconstructed) = pair((3, 32, 32));
        let codes = [0, 1, 2, 3, 0, 1, 2, 4, 0, 2, 2, 5];
        let part = |images: &Tensor, start, length, padding| batch(&images.narrow(0, start, length), padding);
        let mut whole = meter();
        whole.update(&batch(&original, 0), &batch(&reconstructed, 0), &tokens(&codes)).expect("compared");
        let whole = whole.finish().expect("scores");
        assert_eq!(whole.images, 3);
        assert!((whole.psnr - 27.554_295_2).abs() < 1e-5, "{}", whole.psnr);
        assert!((whole.ssim - 0.870_767_3).abs() < 1e-5, "{}", whole.ssim);
        assert_eq!((whole.codebook.distinct, whole.codebook.fraction), (6, 6.0 / 16.0));
        assert_eq!(whole.codebook_by_level.iter().map(|level| level.distinct).collect::<Vec<_>>(), [1, 2, 4]);

        let mut parts = meter();
        for (start, length, padding) in [(0, 2, 0), (2, 1, 1)] {
            let codes = tokens(&codes[start as usize * 4..(start + length) as usize * 4]);
            // A decoder gives no padding back.
            parts
                .update(&part(&original, start, length, padding), &part(&reconstructed, start, length, 0), &codes)
                .expect("compared");
        }
        let parts = parts.finish().expect("scores");
        assert!((parts.psnr - whole.psnr).abs() < 1e-9 && (parts.ssim - whole.ssim).abs() < 1e-7);
        assert_eq!((parts.codebook, parts.codebook_by_level), (whole.codebook, whole.codebook_by_level));
    }

    #[test]
    fn what_does_not_match_is_refused() {
        let (original, reconstructed) = pair((2, 16, 16));
        let (original, reconstructed) = (batch(&original, 0), batch(&reconstructed, 0));
        let error =
            meter().update(&original, &reconstructed, &tokens(&[0; 4])).expect_err("a row of tokens is missing");
        assert!(error.to_string().contains("1 rows of tokens"), "{error}");
        let (wide, _) = pair((2, 16, 20));
        assert!(meter().update(&original, &batch(&wide, 0), &tokens(&[0; 8])).is_err());
        assert!(meter().finish().is_err(), "nothing was compared");
    }
}
