//! LPIPS: how different two images look (Zhang and others, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
//! 2018; the package `lpips` 0.1).
//!
//! Both images go through a frozen network; its features behind five layers are brought to unit length, and their squared differences
//! are weighted by a learned number a channel.

use super::FrozenFile;
use crate::{
    ModelError,
    layers::{Convolution, full_float32_convolution},
    parameters::{Init, Scope},
};
use std::path::Path;
use tch::{Device, Tensor};

/// Mean and deviation of colours between -1 and 1, as LPIPS' authors measured them.
const COLOUR_MEAN: [f64; 3] = [-0.030, -0.088, -0.188];
const COLOUR_DEVIATION: [f64; 3] = [0.458, 0.448, 0.450];

/// The classifier of either network, which nobody needs here.
const CLASSIFIER: [&str; 3] = ["pre_logits.", "head.", "classifier."];

/// Added to the length of features before division, as published.
const LENGTH_EPSILON: f64 = 1e-10;

/// Below this a squared length counts as this: the root's gradient at 0 is infinite, and 0 features would give no number. Its
/// root is lost beside [`LENGTH_EPSILON`].
const SMALLEST_SQUARED_LENGTH: f64 = 1e-30;

/// A convolution by its index in `features`, its output channels, kernel, stride and padding.
type Shape = (usize, i64, i64, i64, i64);

/// A network whose features are compared.
#[derive(Debug)]
pub(crate) struct Trunk {
    network: &'static str,
    linear_network: &'static str,
    /// Up to each layer whose features are compared.
    slices: [&'static [Shape]; 5],
    /// Side of the pooling, of stride 2, in front of each slice but the first.
    poolings: [Option<i64>; 5],
    /// Of smaller images the poolings leave nothing.
    smallest_side: i64,
    /// Whether its distances are scores, which are float32 whatever the process allows on CUDA.
    scores: bool,
}

impl Trunk {
    /// The training's.
    pub(crate) const VGG16: Self = Self {
        network: "VGG16",
        linear_network: "the linear layers of LPIPS",
        slices: [
            &[(0, 64, 3, 1, 1), (2, 64, 3, 1, 1)],
            &[(5, 128, 3, 1, 1), (7, 128, 3, 1, 1)],
            &[(10, 256, 3, 1, 1), (12, 256, 3, 1, 1), (14, 256, 3, 1, 1)],
            &[(17, 512, 3, 1, 1), (19, 512, 3, 1, 1), (21, 512, 3, 1, 1)],
            &[(24, 512, 3, 1, 1), (26, 512, 3, 1, 1), (28, 512, 3, 1, 1)],
        ],
        poolings: [None, Some(2), Some(2), Some(2), Some(2)],
        smallest_side: 16,
        scores: false,
    };

    /// The evaluation's: torchvision's AlexNet.
    pub(crate) const ALEXNET: Self = Self {
        network: "AlexNet",
        linear_network: "the linear layers of LPIPS over AlexNet",
        slices: [
            &[(0, 64, 11, 4, 2)],
            &[(3, 192, 5, 1, 2)],
            &[(6, 384, 3, 1, 1)],
            &[(8, 256, 3, 1, 1)],
            &[(10, 256, 3, 1, 1)],
        ],
        poolings: [None, Some(3), Some(3), None, None],
        smallest_side: 31,
        scores: true,
    };
}

#[derive(Debug)]
struct Slice {
    pooling: Option<i64>,
    convolutions: Vec<Convolution>,
    /// A weight for each channel, `[1, C, 1, 1]`.
    linear: Tensor,
}

/// A frozen network with its linear layers, on a device.
#[derive(Debug)]
pub(crate) struct PerceptualNetwork {
    /// Colours between 0 and 1 to what the network reads, `[1, 3, 1, 1]`.
    scale: Tensor,
    shift: Tensor,
    slices: Vec<Slice>,
    smallest_side: i64,
    scores: bool,
}

impl PerceptualNetwork {
    /// Reads the network under timm's or torchvision's names (`features.0.weight`) and LPIPS' linear layers under their own
    /// (`lin0.model.1.weight`), for `term`.
    ///
    /// # Errors
    /// When a file is missing, damaged, or holds another network.
    pub(crate) fn load(
        trunk: &Trunk,
        term: &'static str,
        network: &Path,
        linear: &Path,
        device: Device,
    ) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let network = FrozenFile { term, network: trunk.network, path: network };
        let may_be_there = |name: &str| CLASSIFIER.iter().any(|prefix| name.starts_with(prefix));
        let slices = network.load(device, |scope| slices(scope, trunk), may_be_there)?;
        let linear = FrozenFile { term, network: trunk.linear_network, path: linear };
        let linear = linear.load(device, |scope| linear_layers(scope, trunk), |_| false)?;
        let slices = slices.into_iter().zip(linear).zip(trunk.poolings);
        let colours = |value: fn(usize) -> f64| -> Result<Tensor, ModelError> {
            let values: Vec<f32> = (0..3).map(|channel| value(channel) as f32).collect();
            Ok(Tensor::f_from_slice(&values)?.f_view([1, 3, 1, 1])?.f_to_device(device)?)
        };
        Ok(Self {
            scale: colours(|channel| 2.0 / COLOUR_DEVIATION[channel])?,
            shift: colours(|channel| (-1.0 - COLOUR_MEAN[channel]) / COLOUR_DEVIATION[channel])?,
            slices: slices.map(|((convolutions, linear), pooling)| Slice { pooling, convolutions, linear }).collect(),
            smallest_side: trunk.smallest_side,
            scores: trunk.scores,
        })
    }

    /// Pixels that both sides of an image must have.
    pub(crate) fn smallest_side(&self) -> i64 {
        self.smallest_side
    }

    /// Features of unit length behind each slice.
    ///
    /// # Shapes
    /// `images`: float32 `[B, 3, H, W]` between 0 and 1, no side shorter than [`Self::smallest_side`].
    pub(crate) fn features(&self, images: &Tensor) -> Result<Vec<Tensor>, ModelError> {
        let mut hidden = self.shift.f_addcmul(images, &self.scale)?;
        let mut features = Vec::with_capacity(self.slices.len());
        for slice in &self.slices {
            if let Some(side) = slice.pooling {
                hidden = hidden.f_max_pool2d([side; 2], [2, 2], [0, 0], [1, 1], false)?;
            }
            for convolution in &slice.convolutions {
                hidden = convolution.forward(&hidden)?.f_relu_()?;
            }
            let squared_length = hidden.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), true, None)?;
            let length = squared_length.f_clamp_min(SMALLEST_SQUARED_LENGTH)?.f_sqrt()?;
            features.push(hidden.f_div(&length.f_add_scalar(LENGTH_EPSILON)?)?);
        }
        Ok(features)
    }

    /// The distance of each image from its target by the [`Self::features`] of both, `[B]`.
    pub(crate) fn distances(&self, targets: &[Tensor], reconstructed: &[Tensor]) -> Result<Tensor, ModelError> {
        let mut distance: Option<Tensor> = None;
        for ((target, reconstructed), slice) in targets.iter().zip(reconstructed).zip(&self.slices) {
            let differences = reconstructed.f_sub(target)?.f_square()?;
            let weighted = match self.scores {
                true => full_float32_convolution(&differences, &slice.linear, None, [1, 1], [0, 0])?,
                false => differences.f_conv2d(&slice.linear, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1)?,
            };
            let slice = weighted.f_mean_dim([1_i64, 2, 3].as_slice(), false, None)?; // [B]
            distance = Some(distance.map_or(Ok(slice.shallow_clone()), |sum| sum.f_add(&slice))?);
        }
        distance.ok_or_else(|| ModelError::torch("a perceptual network has slices"))
    }
}

fn slices(scope: &Scope<'_>, trunk: &Trunk) -> Result<Vec<Vec<Convolution>>, ModelError> {
    let mut inputs = 3;
    let mut convolution = |&(index, outputs, kernel, stride, padding): &Shape| {
        let scope = scope.sub("features").sub(index);
        let layer = Convolution::square(&scope, [inputs, outputs], kernel, (stride, padding), true)?;
        inputs = outputs;
        Ok(if trunk.scores { layer.in_full_float32() } else { layer })
    };
    trunk.slices.iter().map(|slice| slice.iter().map(&mut convolution).collect()).collect()
}

fn linear_layers(scope: &Scope<'_>, trunk: &Trunk) -> Result<Vec<Tensor>, ModelError> {
    let layer = |(index, slice): (usize, &&[Shape])| {
        let channels = slice.last().map_or(0, |&(_, channels, ..)| channels);
        scope.placed(&format!("lin{index}.model.1.weight"), &[1, channels, 1, 1], Init::Ones)
    };
    trunk.slices.iter().enumerate().map(layer).collect()
}
