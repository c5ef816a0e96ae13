//! The layers that the networks are made of. Each is built from a scope of names and then only computes.

mod attention;
mod block;
mod convolution;
mod full_float32;
mod linear;
mod normalization;
mod rotary;

pub(crate) use attention::{Segment, Stage};
pub(crate) use block::{Block, Merge};
pub(crate) use convolution::{Convolution, NORM_GROUPS, ResidualBlock, SiluNorm, full_float32_convolution};
pub(crate) use full_float32::full_float32_product;
pub(crate) use linear::{Activation, Linear};
pub(crate) use normalization::{LayerNorm, RmsNorm};
pub(crate) use rotary::{rotary_line, rotary_table, rotate};

use crate::ModelError;
use tch::Tensor;

/// `sum + addend`, in the memory of `sum` unless a gradient will ask for what stands there.
pub(crate) fn add_into(mut sum: Tensor, addend: &Tensor) -> Result<Tensor, ModelError> {
    if sum.requires_grad() || addend.requires_grad() { Ok(sum.f_add(addend)?) } else { Ok(sum.f_add_(addend)?) }
}
