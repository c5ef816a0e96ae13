//! The resize of TensorFlow 1 (`ResizeBilinear` without aligned corners): pixel i of n is read at i · in / out, which is no sampling
//! at centres, and nothing is averaged where images shrink. Scores of any other resize do not compare.

use crate::ModelError;
use tch::{Kind, Tensor};

/// Side of the images that the network reads.
pub(super) const SIDE: i64 = 299;
/// Bytes are brought to between -1 and 1 by this.
const MIDDLE: f64 = 128.0;

/// Bytes `[B, 3, H, W]` to what the network reads: `[B, 3, 299, 299]` in `kind`, around 0, channels-last.
pub(super) fn resized(pixels: &Tensor, kind: Kind) -> Result<Tensor, ModelError> {
    // Pixels come in channels-last order; the two axes are the inner ones then, and the result has that order without a copy.
    let mut images = pixels.f_permute([0, 2, 3, 1])?.f_to_kind(kind)?;
    for axis in [2, 1] {
        images = along(&images, axis)?;
    }
    Ok(images.f_sub_scalar(MIDDLE)?.f_div_scalar(MIDDLE)?.f_permute([0, 3, 1, 2])?)
}

/// One axis of `[B, H, W, 3]` to 299.
fn along(images: &Tensor, axis: i64) -> Result<Tensor, ModelError> {
    let size = images.size()[axis as usize];
    // A float32 whatever the images are in, as TensorFlow has it.
    let scale = (size as f64 / SIDE as f64) as f32;
    let positions = Tensor::f_arange(SIDE, (images.kind(), images.device()))?.f_mul_scalar(f64::from(scale))?;
    let lower = positions.f_floor()?;
    let mut shape = [1; 4];
    shape[axis as usize] = SIDE;
    let fraction = positions.f_sub(&lower)?.f_view(shape)?;
    let lower = lower.f_to_kind(Kind::Int64)?;
    let upper = lower.f_add_scalar(1)?.f_clamp_max(size - 1)?;
    let (lower, upper) = (images.f_index_select(axis, &lower)?, images.f_index_select(axis, &upper)?);
    Ok(lower.f_add(&upper.f_sub(&lower)?.f_mul(&fraction)?)?)
}
