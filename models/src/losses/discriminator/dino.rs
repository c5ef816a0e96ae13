//! A discriminator that looks through a frozen DINO ViT-S/16: a small trained head on the tokens after the embedding and after
//! four of the blocks (modeling/modules/discriminator_dino.py; Sauer and others, "StyleGAN-T", 2023).

use super::{leaky_relu, slope, spectral_norm::SpectralConvolution};
use crate::{
    ModelError,
    foundation::{ColourNorm, FrozenFile, VisionArchitecture, VisionTransformer},
    parameters::{Init, Scope},
};
use schemas::RandomStream;
use std::path::Path;
use tch::{Device, Tensor};

/// Side of the images that the trunk sees, in pixels.
const SIDE: i64 = 224;
/// Blocks whose output a head reads.
const READ_BLOCKS: [usize; 4] = [2, 5, 8, 11];
/// How likely an image larger than [`SIDE`] is cropped and not made smaller.
const CROP_PROBABILITY: f64 = 0.5;

const KERNEL: i64 = 9;
const SLOPE: f64 = 0.2;
/// Largest group of images that are normalised together (`virtual_bs`).
const NORM_GROUP: i64 = 8;
const NORM_EPSILON: f64 = 1e-6;

/// First row and column of the square of 224 pixels that is looked at; the same in all images of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crop {
    pub(crate) top: i64,
    pub(crate) left: i64,
}

impl Crop {
    /// None where the whole image is looked at: always, unless both sides are larger than 224.
    pub(super) fn draw(stream: &mut RandomStream, [height, width]: [i64; 2]) -> Option<Self> {
        if height <= SIDE || width <= SIDE || stream.uniform() >= CROP_PROBABILITY {
            return None;
        }
        let mut first = |side: i64| stream.below((side - SIDE + 1) as u64) as i64;
        Some(Self { top: first(height), left: first(width) })
    }
}

/// The frozen transformer.
#[derive(Debug)]
pub(crate) struct DinoTrunk {
    colours: ColourNorm,
    transformer: VisionTransformer,
}

impl DinoTrunk {
    /// Reads `dino_deitsmall16_pretrain`, converted to safetensors.
    ///
    /// # Errors
    /// When the file is missing, damaged, or holds another network.
    pub(crate) fn load(file: &Path, device: Device) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let architecture = VisionArchitecture::DINO_SMALL;
        let grid = [SIDE / architecture.patch; 2];
        let file = FrozenFile { term: "the DINO discriminator", network: "DINO ViT-S/16", path: file };
        let build = |scope: &Scope<'_>| VisionTransformer::new(scope, &architecture, grid, true);
        Ok(Self { colours: ColourNorm::imagenet(device)?, transformer: file.load(device, build, |_| false)? })
    }

    /// What the heads read, `[B, C, N]` each.
    fn readouts(&self, images: &Tensor, crop: Option<Crop>) -> Result<Vec<Tensor>, ModelError> {
        let (_, _, height, width) = images.size4()?;
        let images = self.colours.forward(images)?;
        let images = match crop {
            Some(Crop { top, left }) => images.f_narrow(2, top, SIDE)?.f_narrow(3, left, SIDE)?,
            None if (height, width) == (SIDE, SIDE) => images,
            None if height > SIDE => images.f_adaptive_avg_pool2d([SIDE, SIDE])?,
            None => images.f_upsample_bicubic2d([SIDE, SIDE], false, None, None)?,
        };
        // What the class token says is added to every patch.
        let readout = |stream: &Tensor| -> Result<Tensor, ModelError> {
            let (_, tokens, _) = stream.size3()?;
            let sum = stream.f_narrow(1, 1, tokens - 1)?.f_add(&stream.f_narrow(1, 0, 1)?)?;
            Ok(sum.f_transpose(1, 2)?)
        };
        let mut stream = self.transformer.embed(&images)?;
        let mut readouts = vec![readout(&stream)?];
        for (index, block) in self.transformer.blocks().iter().enumerate() {
            stream = block.forward(&stream)?;
            if READ_BLOCKS.contains(&index) {
                readouts.push(readout(&stream)?);
            }
        }
        Ok(readouts)
    }
}

/// Norm of each channel over groups of at most [`NORM_GROUP`] images and all their tokens.
#[derive(Debug)]
struct LocalBatchNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LocalBatchNorm {
    fn new(scope: &Scope<'_>, channels: i64) -> Result<Self, ModelError> {
        // Given their axes here, where they are still small.
        let placed = |name: &str, init| -> Result<Tensor, ModelError> {
            Ok(scope.placed(name, &[channels], init)?.f_view([1, 1, channels, 1])?)
        };
        Ok(Self { weight: placed("weight", Init::Ones)?, bias: placed("bias", Init::Zeros)? })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor, ModelError> {
        let (batch, channels, tokens) = input.size3()?;
        let groups = groups(batch)?;
        let grouped = input.f_reshape([groups, batch / groups, channels, tokens])?;
        let axes: &[i64] = &[1, 3];
        let mean = grouped.f_mean_dim(axes, true, None)?;
        let centred = grouped.f_sub(&mean)?;
        let deviation = centred.f_square()?.f_mean_dim(axes, true, None)?.f_add_scalar(NORM_EPSILON)?.f_sqrt()?;
        let normal = self.bias.f_addcmul(&centred.f_div(&deviation)?, &self.weight)?;
        Ok(normal.f_view([batch, channels, tokens])?)
    }
}

/// Number of groups of a batch.
pub(super) fn groups(batch: i64) -> Result<i64, ModelError> {
    let groups = (batch + NORM_GROUP - 1) / NORM_GROUP;
    if groups == 0 || batch % groups != 0 {
        let expected = format!(
            "one that the DINO discriminator's batch norm can cut into equal groups of at most {NORM_GROUP} images: up to \
             {NORM_GROUP}, or a multiple of it"
        );
        return Err(ModelError::setting("batch size", batch, expected));
    }
    Ok(groups)
}

/// Convolution, norm, activation.
#[derive(Debug)]
struct Layer {
    convolution: SpectralConvolution,
    norm: LocalBatchNorm,
}

impl Layer {
    fn new(scope: &Scope<'_>, channels: i64, kernel: i64) -> Result<Self, ModelError> {
        Ok(Self {
            convolution: SpectralConvolution::new(&scope.sub(0), channels, channels, kernel)?,
            norm: LocalBatchNorm::new(&scope.sub(1), channels)?,
        })
    }

    fn forward(&self, input: &Tensor, slope: &Tensor) -> Result<Tensor, ModelError> {
        leaky_relu(&self.norm.forward(&self.convolution.forward(input)?)?, slope)
    }
}

#[derive(Debug)]
struct Head {
    first: Layer,
    residual: Layer,
    logits: SpectralConvolution,
}

impl Head {
    fn new(scope: &Scope<'_>, channels: i64) -> Result<Self, ModelError> {
        Ok(Self {
            first: Layer::new(&scope.sub(0), channels, 1)?,
            residual: Layer::new(&scope.sub(1).sub("fn"), channels, KERNEL)?,
            logits: SpectralConvolution::new(&scope.sub(2), channels, 1, 1)?,
        })
    }

    /// `[B, C, N]` to `[B, N]`.
    fn forward(&self, input: &Tensor, slope: &Tensor) -> Result<Tensor, ModelError> {
        let hidden = self.first.forward(input, slope)?;
        let added = self.residual.forward(&hidden, slope)?.f_add(&hidden)?;
        let hidden = added.f_mul_scalar(std::f64::consts::FRAC_1_SQRT_2)?;
        Ok(self.logits.forward(&hidden)?.f_squeeze_dim(1)?)
    }
}

/// The trunk and its heads.
#[derive(Debug)]
pub(crate) struct DinoDiscriminator<'a> {
    trunk: &'a DinoTrunk,
    heads: Vec<Head>,
    slope: Tensor,
}

impl<'a> DinoDiscriminator<'a> {
    pub(super) fn new(scope: &Scope<'_>, trunk: &'a DinoTrunk) -> Result<Self, ModelError> {
        let channels = trunk.transformer.width();
        let heads = (0..=READ_BLOCKS.len())
            .map(|head| Head::new(&scope.sub("heads").sub(head), channels))
            .collect::<Result<_, _>>();
        Ok(Self { trunk, heads: heads?, slope: slope(scope, SLOPE)? })
    }

    /// # Shapes
    /// `images`: float32 `[B, 3, H, W]` between 0 and 1; returns `[B, 5 * 196]`.
    pub(super) fn forward(&self, images: &Tensor, crop: Option<Crop>) -> Result<Tensor, ModelError> {
        let (batch, _, _, _) = images.size4()?;
        groups(batch)?; // refused before the trunk has worked for nothing
        let readouts = self.trunk.readouts(images, crop)?;
        let logits = self.heads.iter().zip(&readouts).map(|(head, readout)| head.forward(readout, &self.slope));
        Ok(Tensor::f_cat(&logits.collect::<Result<Vec<_>, _>>()?, 1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_that_cannot_be_cut_into_equal_groups_are_refused() {
        for (batch, expected) in [(1, 1), (7, 1), (8, 1), (10, 2), (16, 2), (32, 4), (256, 32)] {
            assert_eq!(groups(batch).expect("equal groups"), expected, "{batch}");
        }
        for batch in [0, 9, 17, 25] {
            let error = groups(batch).expect_err("unequal groups").to_string();
            assert!(
                error.contains(&format!("batch size is {batch}")) && error.contains("groups of at most 8"),
                "{error}"
            );
        }
    }

    #[test]
    fn half_of_the_large_images_are_cropped_and_no_small_one() {
        let draw = |step, size| Crop::draw(&mut RandomStream::new(2, "crop", step), size);
        let crops: Vec<_> = (0..2000).filter_map(|step| draw(step, [256, 230])).collect();
        assert!(crops.len().abs_diff(1000) < 112, "five standard deviations: {}", crops.len());
        assert!(crops.iter().all(|crop| (0..=32).contains(&crop.top) && (0..=6).contains(&crop.left)));
        assert!(crops.iter().any(|crop| crop.top == 32) && crops.iter().any(|crop| crop.left == 6));
        assert!((0..100).all(|step| draw(step, [224, 300]).is_none() && draw(step, [300, 32]).is_none()));
    }
}
