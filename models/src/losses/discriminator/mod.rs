//! The network that learns to tell reconstructed images from original ones, and what the tokenizer is told by it.
//!
//! Frozen parts are loaded once, as a [`DiscriminatorNetwork`]; a [`Discriminator`] is built from it and from the trained tensors.
//! What is random in how it looks at a batch is a [`View`], drawn beforehand.

pub(crate) mod adversarial;
pub(super) mod differentiable_augmentation;
pub(super) mod dino;
mod patch;
mod spectral_norm;

pub(crate) use self::dino::DinoTrunk;

use self::{
    differentiable_augmentation::Augmentation,
    dino::{Crop, DinoDiscriminator},
    patch::PatchDiscriminator,
};
use super::float_images;
use crate::{
    ModelError,
    parameters::{Init, Scope},
};
use schemas::RandomStream;
use tch::Tensor;

/// Which discriminator, with the frozen network that it looks through.
#[derive(Debug)]
pub(crate) enum DiscriminatorNetwork {
    /// Heads over the features of a frozen DINO ViT-S/16 (`dino_disc: true`).
    Dino(DinoTrunk),
    /// Convolutions over patches, all of them trained.
    Patch,
}

/// How one batch is looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    /// With the DINO discriminator only, as published.
    pub(crate) augmentation: Option<Augmentation>,
    pub(crate) crop: Option<Crop>,
}

impl DiscriminatorNetwork {
    /// Whether batches of `images` can be judged.
    ///
    /// # Errors
    /// When the DINO discriminator's batch norm cannot cut them into equal groups.
    pub(crate) fn check_batch_size(&self, images: i64) -> Result<(), ModelError> {
        match self {
            Self::Patch => Ok(()),
            Self::Dino(_) => dino::groups(images).map(drop),
        }
    }

    /// Draws how to look at a batch of `batch` images of `height` by `width` pixels. Each batch that is judged gets its own.
    pub(crate) fn draw_view(&self, stream: &mut RandomStream, [batch, height, width]: [i64; 3]) -> View {
        match self {
            Self::Patch => View::default(),
            Self::Dino(_) => View {
                augmentation: Some(Augmentation::draw(stream, [batch, height, width])),
                crop: Crop::draw(stream, [height, width]),
            },
        }
    }
}

/// A discriminator as a function of its trained tensors.
#[derive(Debug)]
pub(crate) enum Discriminator<'a> {
    Dino(DinoDiscriminator<'a>),
    Patch(PatchDiscriminator),
}

impl<'a> Discriminator<'a> {
    /// `scope` is the folder of its names; published as `discriminator`.
    pub(crate) fn new(scope: &Scope<'_>, network: &'a DiscriminatorNetwork) -> Result<Self, ModelError> {
        Ok(match network {
            DiscriminatorNetwork::Dino(trunk) => Self::Dino(DinoDiscriminator::new(scope, trunk)?),
            DiscriminatorNetwork::Patch => Self::Patch(PatchDiscriminator::new(scope)?),
        })
    }

    /// How real the images look: higher is more. Each call advances the estimates of spectral norm by an iteration, as a training
    /// forward of the published one does.
    ///
    /// # Shapes
    /// `images`: `[B, 3, H, W]` between 0 and 1; returns `[B, K]`, a number for each place that is judged.
    ///
    /// # Errors
    /// When the DINO discriminator's batch norm cannot cut the batch into equal groups.
    pub(crate) fn forward(&self, images: &Tensor, view: &View) -> Result<Tensor, ModelError> {
        let (_, mut images) = float_images(images)?;
        if let Some(augmentation) = &view.augmentation {
            images = augmentation.apply(&images)?;
        }
        match self {
            Self::Dino(discriminator) => discriminator.forward(&images, view.crop),
            Self::Patch(discriminator) => discriminator.forward(&images),
        }
    }
}

/// How weight and bias of torch's convolutions start when nobody says otherwise.
fn default_init(inputs_of_an_output: i64) -> Init {
    Init::Uniform(1.0 / (inputs_of_an_output as f64).sqrt())
}

/// 1 where positive, `slope` elsewhere, times the input. tch knows torch's leaky ReLU with its default slope only.
fn leaky_relu(input: &Tensor, slope: &Tensor) -> Result<Tensor, ModelError> {
    Ok(input.f_prelu(slope)?)
}

/// The slope of [`leaky_relu`], `[1]`.
fn slope(scope: &Scope<'_>, value: f64) -> Result<Tensor, ModelError> {
    let device = scope.device;
    scope.constant("slope", || Ok(Tensor::f_full([1], value, (tch::Kind::Float, device))?))
}
