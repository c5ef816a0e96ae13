//! LPIPS over VGG16 as a loss (published as modeling/modules/lpips.py and perceptual_loss.py): how different two images look to a
//! network that was trained to tell objects apart. The network itself is [`PerceptualNetwork`].

use super::float_images;
use crate::{
    ModelError,
    foundation::{PerceptualNetwork, Trunk},
};
use schemas::RandomStream;
use std::path::Path;
use tch::{Device, Tensor};

/// Pixels that images are widened by on each side before they are trimmed.
const PADDING: i64 = 15;

/// Both images are widened, trimmed by these numbers of pixels, each from 0 to 15, and brought back to their size: so the grid of
/// the network's poolings falls elsewhere at every step, and no pattern of it gets into the reconstructed images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PerceptualJitter {
    pub(crate) top: i64,
    pub(crate) bottom: i64,
    pub(crate) left: i64,
    pub(crate) right: i64,
}

impl PerceptualJitter {
    /// One for a whole batch, as published.
    pub(crate) fn draw(stream: &mut RandomStream) -> Self {
        let mut trim = || stream.below(PADDING as u64 + 1) as i64;
        Self { top: trim(), bottom: trim(), left: trim(), right: trim() }
    }

    fn apply(&self, images: &Tensor, [height, width]: [i64; 2]) -> Result<Tensor, ModelError> {
        let trimmed = images
            .f_replication_pad2d([PADDING; 4])?
            .f_narrow(2, self.top, height + 2 * PADDING - self.top - self.bottom)?
            .f_narrow(3, self.left, width + 2 * PADDING - self.left - self.right)?;
        Ok(trimmed.f_upsample_bicubic2d([height, width], false, None, None)?)
    }
}

/// The frozen networks of LPIPS.
#[derive(Debug)]
pub(crate) struct PerceptualLoss(PerceptualNetwork);

impl PerceptualLoss {
    /// Reads VGG16 and LPIPS' linear layers.
    ///
    /// # Errors
    /// When a file is missing, damaged, or holds another network.
    pub(crate) fn load(vgg16: &Path, linear: &Path, device: Device) -> Result<Self, ModelError> {
        Ok(Self(PerceptualNetwork::load(&Trunk::VGG16, "the perceptual loss", vgg16, linear, device)?))
    }

    /// # Shapes
    /// `target` and `reconstructed`: `[B, 3, H, W]` between 0 and 1; returns a scalar, the mean over the batch. Gradients flow into
    /// `reconstructed` only.
    ///
    /// # Errors
    /// When a side is shorter than 16 pixels.
    pub(crate) fn forward(
        &self,
        target: &Tensor,
        reconstructed: &Tensor,
        jitter: Option<&PerceptualJitter>,
    ) -> Result<Tensor, ModelError> {
        let targets = tch::no_grad(|| self.features(target, jitter))?;
        Ok(self.0.distances(&targets, &self.features(reconstructed, jitter)?)?.f_mean(None)?)
    }

    fn features(&self, images: &Tensor, jitter: Option<&PerceptualJitter>) -> Result<Vec<Tensor>, ModelError> {
        let ([_, height, width], mut images) = float_images(images)?;
        let smallest = self.0.smallest_side();
        if height.min(width) < smallest {
            let expected = format!("at least {smallest} by {smallest} pixels for the perceptual loss");
            return Err(ModelError::setting("size of images", format!("{height} by {width}"), expected));
        }
        if let Some(jitter) = jitter {
            images = jitter.apply(&images, [height, width])?;
        }
        self.0.features(&images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims_are_drawn_from_0_to_15() {
        let draws: Vec<_> =
            (0..500).map(|step| PerceptualJitter::draw(&mut RandomStream::new(1, "jitter", step))).collect();
        let trims = |of: fn(&PerceptualJitter) -> i64| draws.iter().map(of).collect::<std::collections::BTreeSet<_>>();
        let all: std::collections::BTreeSet<_> = (0..=15).collect();
        for found in [
            trims(|jitter| jitter.top),
            trims(|jitter| jitter.bottom),
            trims(|jitter| jitter.left),
            trims(|jitter| jitter.right),
        ] {
            assert_eq!(found, all);
        }
    }
}
