//! What training makes smaller: the terms of the published objective (modeling/modules/losses.py), each a function of images or
//! features that gradients flow through.
//!
//! | term | module | frozen network |
//! |---|---|---|
//! | reconstruction | [`reconstruction`] | |
//! | perceptual | [`perceptual`] | VGG16 and LPIPS' linear layers |
//! | adversarial | [`discriminator`] | DINO ViT-S/16, unless the discriminator looks at patches |
//! | alignment | [`alignment`] | DINOv3 or DINOv2 |
//!
//! The quantizer's own losses are beside it. [`nested_dropout`] draws how many latent tokens an image keeps.
//!
//! All terms compute in float32, whatever the tokenizer computes in, and take images between 0 and 1 as `[B, 3, H, W]`. No random
//! number is drawn by torch: whatever is random comes in as an argument, drawn from a [`schemas::RandomStream`].

mod alignment;
pub(crate) mod discriminator;
mod nested_dropout;
mod perceptual;
pub(crate) mod reconstruction;
pub use reconstruction::ReconstructionKind;

pub(crate) use self::{
    alignment::Alignment,
    nested_dropout::NestedDropout,
    perceptual::{PerceptualJitter, PerceptualLoss},
};

#[cfg(test)]
pub(crate) mod reference_values;

use crate::ModelError;
use tch::{Kind, Tensor};

/// Checks that `images` are `[B, 3, H, W]` and brings them to float32: batch, height, width and the images.
fn float_images(images: &Tensor) -> Result<([i64; 3], Tensor), ModelError> {
    match images.size()[..] {
        [batch, 3, height, width] => Ok(([batch, height, width], images.f_to_kind(Kind::Float)?)),
        ref other => Err(ModelError::setting("shape of images", format!("{other:?}"), "[batch, 3, height, width]")),
    }
}
