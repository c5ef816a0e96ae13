//! How far reconstructed images are from their originals, by every measure of the published evaluation.

use super::{ms_ssim, psnr::psnr, ssim::StructuralSimilarity};
use crate::{
    Device, ModelError,
    foundation::{PerceptualNetwork, Trunk},
    weight_file::sha256,
};
use schemas::{ImageMeasures, SchemaError};
use std::path::PathBuf;
use tch::{Kind, Tensor};

/// Files of LPIPS over AlexNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LpipsFiles {
    /// torchvision's AlexNet (`features.0.weight`, …).
    pub alexnet: PathBuf,
    /// The linear layers of the package `lpips` 0.1 for it (`lin0.model.1.weight`, …).
    pub linear: PathBuf,
}

impl LpipsFiles {
    /// SHA-256 of both files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn digests(&self) -> Result<Vec<String>, ModelError> {
        [&self.alexnet, &self.linear].into_iter().map(|file| sha256(file)).collect()
    }
}

/// The measures on a device: PSNR, SSIM, MS-SSIM for images of more than 160 pixels a side, and LPIPS where its files are given.
#[derive(Debug)]
pub struct ImageComparison {
    ssim: StructuralSimilarity,
    lpips: Option<PerceptualNetwork>,
}

impl ImageComparison {
    /// # Errors
    /// When a file of `lpips` is missing, damaged, a pickle or of another network, or libtorch refuses.
    pub fn new(device: Device, lpips: Option<&LpipsFiles>) -> Result<Self, ModelError> {
        let lpips = lpips.map(|files| {
            PerceptualNetwork::load(&Trunk::ALEXNET, "scoring", &files.alexnet, &files.linear, device.torch())
        });
        Ok(Self { ssim: StructuralSimilarity::new(device.torch())?, lpips: lpips.transpose()? })
    }

    /// What LPIPS compares images by, of bytes `[B, 3, H, W]`; nothing without it, or where its network leaves nothing of the images.
    /// An original that is compared with several images goes through the network once.
    pub(super) fn look(&self, pixels: &Tensor) -> Result<Look, ModelError> {
        let (_, _, height, width) = pixels.size4()?;
        let network = self.lpips.as_ref().filter(|network| height.min(width) >= network.smallest_side());
        let features = network.map(|network| network.features(&pixels.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?));
        Ok(Look(features.transpose()?))
    }

    /// Compares images on the device; nothing is waited for.
    ///
    /// # Shapes
    /// Both: bytes `[B, 3, H, W]`; `original_look`: [`Self::look`] of the originals.
    ///
    /// # Errors
    /// When images are of different shapes or smaller than SSIM's window of 11 pixels, or libtorch refuses.
    pub(super) fn compare(
        &self,
        original: &Tensor,
        original_look: &Look,
        reconstructed: &Tensor,
    ) -> Result<ComparedImages, ModelError> {
        if original.size() != reconstructed.size() {
            return Err(ModelError::Data(SchemaError::Shape {
                what: "reconstructed images",
                found: format!("{:?}", reconstructed.size()),
                expected: format!("{:?}", original.size()),
            }));
        }
        let (_, _, height, width) = original.size4()?;
        let multi_scale = ms_ssim::fits(height, width).then(|| ms_ssim::ms_ssim(&self.ssim, original, reconstructed));
        let lpips = match (&self.lpips, original_look) {
            (Some(network), Look(Some(targets))) => {
                let Look(features) = self.look(reconstructed)?;
                features.map(|features| network.distances(targets, &features)).transpose()?
            }
            _ => None,
        };
        Ok(ComparedImages {
            psnr: psnr(original, reconstructed)?,
            ssim: self.ssim.similarity(original, reconstructed)?,
            ms_ssim: multi_scale.transpose()?,
            lpips,
        })
    }
}

/// Features of LPIPS, if there are any.
#[derive(Debug)]
pub(super) struct Look(Option<Vec<Tensor>>);

/// Measures of some images on the device, `[B]` each.
#[derive(Debug)]
pub(super) struct ComparedImages {
    psnr: Tensor,
    ssim: Tensor,
    ms_ssim: Option<Tensor>,
    lpips: Option<Tensor>,
}

impl ComparedImages {
    /// Those of the first `filled` images. Waits for the device.
    pub(super) fn read(&self, filled: usize) -> Result<Vec<ImageMeasures>, ModelError> {
        let read = |values: &Tensor| -> Result<Vec<f64>, ModelError> {
            let values = values.f_narrow(0, 0, filled as i64)?.f_to_kind(Kind::Double)?;
            Ok(Vec::try_from(values.f_to_device(tch::Device::Cpu)?.f_contiguous()?)?)
        };
        let optional = |values: &Option<Tensor>| values.as_ref().map(read).transpose();
        let (psnr, ssim) = (read(&self.psnr)?, read(&self.ssim)?);
        let (ms_ssim, lpips) = (optional(&self.ms_ssim)?, optional(&self.lpips)?);
        let at = |values: &Option<Vec<f64>>, image: usize| values.as_ref().map(|values| values[image]);
        let measures = (0..filled).map(|image| ImageMeasures {
            psnr: psnr[image],
            ssim: ssim[image],
            ms_ssim: at(&ms_ssim, image),
            lpips: at(&lpips, image),
        });
        Ok(measures.collect())
    }
}
