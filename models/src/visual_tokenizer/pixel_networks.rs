//! The convolutional networks around the transformers: MaskGIT-VQGAN's encoder and decoder
//! (modeling/modules/maskgit_vqgan.py), in channels-last order throughout.

use super::config::PixelNetworkSize;
use crate::{
    ModelError,
    layers::{Convolution, ResidualBlock, SiluNorm},
    parameters::Scope,
};
use tch::Tensor;

const RGB: i64 = 3;

/// Pixels to features, halving the image once for each level but the last.
#[derive(Debug)]
pub(super) struct PixelEncoder {
    conv_in: Convolution,
    down: Vec<Vec<ResidualBlock>>,
    mid: Vec<ResidualBlock>,
    norm_out: SiluNorm,
    conv_out: Convolution,
}

impl PixelEncoder {
    pub(super) fn new(scope: &Scope<'_>, size: &PixelNetworkSize) -> Result<Self, ModelError> {
        let mut channels = size.hidden;
        let conv_in = Convolution::same(&scope.sub("conv_in"), RGB, channels, 3, false)?;
        let mut down = Vec::new();
        for (level, multiplier) in size.multipliers.iter().enumerate() {
            let scope = scope.sub("down").sub(level).sub("block");
            down.push(residual_blocks(&scope, channels, size.hidden * multiplier, size.residual_blocks)?);
            channels = size.hidden * multiplier;
        }
        Ok(Self {
            conv_in,
            down,
            mid: residual_blocks(&scope.sub("mid"), channels, channels, size.residual_blocks)?,
            norm_out: SiluNorm::new(&scope.sub("norm_out"), channels)?,
            conv_out: Convolution::same(&scope.sub("conv_out"), channels, size.z, 1, true)?,
        })
    }

    /// # Shapes
    /// `pixels`: normalised `[B, 3, height, width]`; returns `[B, z, height / reduction, width / reduction]`.
    pub(super) fn forward(&self, pixels: &Tensor) -> Result<Tensor, ModelError> {
        let mut hidden = self.conv_in.forward(pixels)?;
        for (level, blocks) in self.down.iter().enumerate() {
            hidden = run(blocks, hidden)?;
            if level + 1 < self.down.len() {
                hidden = hidden.f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)?;
            }
        }
        self.conv_out.forward(&self.norm_out.forward(&run(&self.mid, hidden)?)?)
    }
}

/// Features to pixels. Always built and run in float32, as published.
#[derive(Debug)]
pub(super) struct PixelDecoder {
    conv_in: Convolution,
    mid: Vec<ResidualBlock>,
    /// Finest level first, as the names are numbered; run in reverse.
    up: Vec<(Vec<ResidualBlock>, Option<Convolution>)>,
    norm_out: SiluNorm,
    conv_out: Convolution,
}

impl PixelDecoder {
    pub(super) fn new(scope: &Scope<'_>, size: &PixelNetworkSize) -> Result<Self, ModelError> {
        let channels = |level: usize| size.hidden * size.multipliers[level];
        let coarsest = size.multipliers.len() - 1;
        let mut up = Vec::new();
        for level in 0..size.multipliers.len() {
            let scope = scope.sub("up").sub(level);
            let (inputs, outputs) = (channels((level + 1).min(coarsest)), channels(level));
            let blocks = residual_blocks(&scope.sub("block"), inputs, outputs, size.residual_blocks)?;
            let upsample = (level > 0)
                .then(|| Convolution::same(&scope.sub("upsample_conv"), outputs, outputs, 3, true))
                .transpose()?;
            up.push((blocks, upsample));
        }
        Ok(Self {
            conv_in: Convolution::same(&scope.sub("conv_in"), size.z, channels(coarsest), 3, true)?,
            mid: residual_blocks(&scope.sub("mid"), channels(coarsest), channels(coarsest), size.residual_blocks)?,
            up,
            norm_out: SiluNorm::new(&scope.sub("norm_out"), channels(0))?,
            conv_out: Convolution::same(&scope.sub("conv_out"), channels(0), RGB, 3, true)?,
        })
    }

    /// # Shapes
    /// `features`: `[B, z, h, w]`; returns pixels around 0 to 1, `[B, 3, h * reduction, w * reduction]`.
    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor, ModelError> {
        let mut hidden = run(&self.mid, self.conv_in.forward(features)?)?;
        for (blocks, upsample) in self.up.iter().rev() {
            hidden = run(blocks, hidden)?;
            if let Some(upsample) = upsample {
                let (_, _, height, width) = hidden.size4()?;
                hidden = upsample.forward(&hidden.f_upsample_nearest2d([2 * height, 2 * width], None, None)?)?;
            }
        }
        self.conv_out.forward(&self.norm_out.forward(&hidden)?)
    }
}

fn residual_blocks(
    scope: &Scope<'_>,
    inputs: i64,
    outputs: i64,
    count: usize,
) -> Result<Vec<ResidualBlock>, ModelError> {
    (0..count)
        .map(|block| ResidualBlock::new(&scope.sub(block), if block == 0 { inputs } else { outputs }, outputs))
        .collect()
}

fn run(blocks: &[ResidualBlock], input: Tensor) -> Result<Tensor, ModelError> {
    blocks.iter().try_fold(input, |hidden, block| block.forward(&hidden))
}
