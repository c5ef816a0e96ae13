//! A discriminator of convolutions that judges 16 by 16 places of an image (modeling/modules/discriminator.py,
//! `NLayerDiscriminator` with its defaults).

use super::{default_init, leaky_relu, slope};
use crate::{
    ModelError,
    layers::{Convolution, NORM_GROUPS},
    parameters::{Init, Scope},
};
use tch::Tensor;

/// Channels before the first stage and behind each.
const CHANNELS: [i64; 4] = [128, 128, 256, 512];
const SLOPE: f64 = 0.1;
const NORM_EPSILON: f64 = 1e-5;
/// Places that are judged, along a side.
const PLACES: i64 = 16;
/// The blur is this line times itself.
const BLUR: [f32; 4] = [1.0, 3.0, 3.0, 1.0];

#[derive(Debug)]
struct Stage {
    convolution: Convolution,
    norm_weight: Tensor,
    norm_bias: Tensor,
    channels: i64,
}

#[derive(Debug)]
pub(crate) struct PatchDiscriminator {
    first: Convolution,
    stages: Vec<Stage>,
    mix: Convolution,
    logits: Convolution,
    /// `[1, 1, 4, 4]`.
    blur: Tensor,
    slope: Tensor,
}

impl PatchDiscriminator {
    pub(super) fn new(scope: &Scope<'_>) -> Result<Self, ModelError> {
        let scope = scope.in_kind(tch::Kind::Float);
        let device = scope.device;
        let blur = scope.constant("blur", || {
            let line = Tensor::f_from_slice(&BLUR)?;
            let square = line.f_outer(&line)?;
            let sum: f32 = BLUR.iter().sum();
            Ok(square.f_div_scalar(f64::from(sum * sum))?.f_view([1, 1, 4, 4])?.f_to_device(device)?)
        })?;
        let stage = |(index, channels): (usize, &[i64])| {
            let scope = scope.sub("blocks").sub(index);
            let (inputs, outputs) = (channels[0], channels[1]);
            Ok(Stage {
                convolution: convolution(&scope.sub(0), inputs, outputs, 3)?,
                norm_weight: scope.sub(2).placed("weight", &[outputs], Init::Ones)?,
                norm_bias: scope.sub(2).placed("bias", &[outputs], Init::Zeros)?,
                channels: outputs,
            })
        };
        let logits = scope.sub("to_logits");
        let last = CHANNELS[CHANNELS.len() - 1];
        Ok(Self {
            first: convolution(&scope.sub("block_in").sub(0), 3, CHANNELS[0], 5)?,
            stages: CHANNELS.windows(2).enumerate().map(stage).collect::<Result<_, ModelError>>()?,
            mix: convolution(&logits.sub(0), last, last, 1)?,
            logits: convolution(&logits.sub(2), last, 1, 5)?,
            blur,
            slope: slope(&scope, SLOPE)?,
        })
    }

    /// # Shapes
    /// `images`: float32 `[B, 3, H, W]`; returns `[B, 256]`.
    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor, ModelError> {
        let mut hidden = leaky_relu(&self.first.forward(images)?, &self.slope)?;
        for stage in &self.stages {
            let blurred = self.halve(&stage.convolution.forward(&hidden)?, stage.channels)?;
            let (weight, bias) = (Some(&stage.norm_weight), Some(&stage.norm_bias));
            let normal = blurred.f_group_norm(NORM_GROUPS, weight, bias, NORM_EPSILON, true)?;
            hidden = leaky_relu(&normal, &self.slope)?;
        }
        let (pooled, _) = hidden.f_adaptive_max_pool2d([PLACES, PLACES])?;
        let mixed = leaky_relu(&self.mix.forward(&pooled)?, &self.slope)?;
        Ok(self.logits.forward(&mixed)?.f_flatten(1, 3)?)
    }

    /// Blurs and takes every second pixel; an odd side is rounded up.
    fn halve(&self, input: &Tensor, channels: i64) -> Result<Tensor, ModelError> {
        let (_, _, height, width) = input.size4()?;
        let padded = input.f_constant_pad_nd([1, 1 + width % 2, 1, 1 + height % 2])?;
        let weight = self.blur.f_expand([channels, 1, 4, 4], false)?;
        Ok(padded.f_conv2d(&weight, None::<Tensor>, [2, 2], [0, 0], [1, 1], channels)?)
    }
}

fn convolution(scope: &Scope<'_>, inputs: i64, outputs: i64, kernel: i64) -> Result<Convolution, ModelError> {
    let init = default_init(inputs * kernel * kernel);
    let weight = scope.tensor("weight", &[outputs, inputs, kernel, kernel], init)?;
    let bias = scope.tensor("bias", &[outputs], init)?;
    Convolution::same_from_tensors(scope, &weight, Some(&bias))
}
