//! LPIPS over VGG16: how different two images look (Zhang and others, "The Unreasonable Effectiveness of Deep Features as a
//! Perceptual Metric", 2018; published as modeling/modules/lpips.py and perceptual_loss.py).
//!
//! Both images go through VGG16; its features behind five layers are brought to unit length, and their squared differences are
//! weighted by a learned number a channel.

use super::float_images;
use crate::{
    ModelError,
    foundation::FrozenFile,
    layers::Convolution,
    parameters::{Scope, Start},
};
use schemas::RandomStream;
use std::path::Path;
use tch::{Device, Tensor};

/// Mean and deviation of colours between -1 and 1, as LPIPS' authors measured them.
const COLOUR_MEAN: [f64; 3] = [-0.030, -0.088, -0.188];
const COLOUR_DEVIATION: [f64; 3] = [0.458, 0.448, 0.450];

/// Convolutions of VGG16 by the index in `features` and their output channels, up to each layer whose features are compared.
const SLICES: [&[(usize, i64)]; 5] = [
    &[(0, 64), (2, 64)],
    &[(5, 128), (7, 128)],
    &[(10, 256), (12, 256), (14, 256)],
    &[(17, 512), (19, 512), (21, 512)],
    &[(24, 512), (26, 512), (28, 512)],
];

/// The classifier of VGG16, which nobody needs here.
const CLASSIFIER: [&str; 3] = ["pre_logits.", "head.", "classifier."];

/// Four poolings halve a side; below this many pixels nothing would be left of it.
const SMALLEST_SIDE: i64 = 16;

/// Pixels that images are widened by on each side before they are trimmed.
const PADDING: i64 = 15;

/// Added to the length of features before division, as published.
const LENGTH_EPSILON: f64 = 1e-10;

/// Below this a squared length counts as this: the root's gradient at 0 is infinite, and 0 features would give no number. Its
/// root is lost beside [`LENGTH_EPSILON`].
const SMALLEST_SQUARED_LENGTH: f64 = 1e-30;

/// Both images are widened, trimmed by these numbers of pixels, each from 0 to 15, and brought back to their size: so the grid of
/// the network's poolings falls elsewhere at every step, and no pattern of it gets into the rebuilt images.
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
pub(crate) struct PerceptualLoss {
    /// Colours between 0 and 1 to what VGG16 reads, `[1, 3, 1, 1]`.
    scale: Tensor,
    shift: Tensor,
    slices: Vec<Vec<Convolution>>,
    /// A weight for each channel of each slice, `[1, C, 1, 1]`.
    linear: Vec<Tensor>,
}

impl PerceptualLoss {
    /// Reads VGG16 under timm's or torchvision's names (`features.0.weight`) and LPIPS' linear layers under their own
    /// (`lin0.model.1.weight`).
    ///
    /// # Errors
    /// When a file is missing, damaged, or holds another network.
    pub(crate) fn load(vgg16: &Path, linear: &Path, device: Device) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let vgg16 = FrozenFile { term: "the perceptual loss", network: "VGG16", path: vgg16 };
        let may_be_there = |name: &str| CLASSIFIER.iter().any(|prefix| name.starts_with(prefix));
        let slices = vgg16.load(device, slices, may_be_there)?;
        let linear = FrozenFile { term: "the perceptual loss", network: "the linear layers of LPIPS", path: linear };
        let linear = linear.load(device, linear_layers, |_| false)?;
        let colours = |value: fn(usize) -> f64| -> Result<Tensor, ModelError> {
            let values: Vec<f32> = (0..3).map(|channel| value(channel) as f32).collect();
            Ok(Tensor::f_from_slice(&values)?.f_view([1, 3, 1, 1])?.f_to_device(device)?)
        };
        Ok(Self {
            scale: colours(|channel| 2.0 / COLOUR_DEVIATION[channel])?,
            shift: colours(|channel| (-1.0 - COLOUR_MEAN[channel]) / COLOUR_DEVIATION[channel])?,
            slices,
            linear,
        })
    }

    /// # Shapes
    /// `target` and `rebuilt`: `[B, 3, H, W]` between 0 and 1; returns a scalar, the mean over the batch. Gradients flow into
    /// `rebuilt` only.
    ///
    /// # Errors
    /// When a side is shorter than 16 pixels.
    pub(crate) fn forward(
        &self,
        target: &Tensor,
        rebuilt: &Tensor,
        jitter: Option<&PerceptualJitter>,
    ) -> Result<Tensor, ModelError> {
        let targets = tch::no_grad(|| self.features(target, jitter))?;
        let mut distance: Option<Tensor> = None;
        for ((target, rebuilt), weight) in targets.iter().zip(self.features(rebuilt, jitter)?).zip(&self.linear) {
            let differences = rebuilt.f_sub(target)?.f_square()?;
            let slice = differences.f_conv2d(weight, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1)?.f_mean_dim(
                [1_i64, 2, 3].as_slice(),
                false,
                None,
            )?; // [B]
            distance = Some(distance.map_or(Ok(slice.shallow_clone()), |sum| sum.f_add(&slice))?);
        }
        let distance = distance.ok_or_else(|| ModelError::torch("VGG16 has slices"))?;
        Ok(distance.f_mean(None)?)
    }

    /// Features of unit length behind each slice.
    fn features(&self, images: &Tensor, jitter: Option<&PerceptualJitter>) -> Result<Vec<Tensor>, ModelError> {
        let ([_, height, width], mut images) = float_images(images)?;
        if height.min(width) < SMALLEST_SIDE {
            let expected = format!("at least {SMALLEST_SIDE} by {SMALLEST_SIDE} pixels for the perceptual loss");
            return Err(ModelError::setting("size of images", format!("{height} by {width}"), expected));
        }
        if let Some(jitter) = jitter {
            images = jitter.apply(&images, [height, width])?;
        }
        let mut hidden = self.shift.f_addcmul(&images, &self.scale)?;
        let mut features = Vec::with_capacity(self.slices.len());
        for (index, slice) in self.slices.iter().enumerate() {
            if index > 0 {
                hidden = hidden.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)?;
            }
            for convolution in slice {
                hidden = convolution.forward(&hidden)?.f_relu_()?;
            }
            let squared_length = hidden.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), true, None)?;
            let length = squared_length.f_clamp_min(SMALLEST_SQUARED_LENGTH)?.f_sqrt()?;
            features.push(hidden.f_div(&length.f_add_scalar(LENGTH_EPSILON)?)?);
        }
        Ok(features)
    }
}

fn slices(scope: &Scope<'_>) -> Result<Vec<Vec<Convolution>>, ModelError> {
    let mut inputs = 3;
    let mut convolution = |&(index, outputs): &(usize, i64)| {
        let layer = Convolution::same(&scope.sub("features").sub(index), inputs, outputs, 3, true);
        inputs = outputs;
        layer
    };
    SLICES.iter().map(|slice| slice.iter().map(&mut convolution).collect()).collect()
}

fn linear_layers(scope: &Scope<'_>) -> Result<Vec<Tensor>, ModelError> {
    let layer = |(index, slice): (usize, &&[(usize, i64)])| {
        let channels = slice.last().map_or(0, |&(_, channels)| channels);
        scope.placed(&format!("lin{index}.model.1.weight"), &[1, channels, 1, 1], Start::Ones)
    };
    SLICES.iter().enumerate().map(layer).collect()
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
