//! Layer and root-mean-square normalisation over the last axis, always in float32.

use crate::{
    ModelError, kernels,
    parameters::{Init, Scope},
};
use tch::{Kind, Tensor};

/// Added to the variance. torch's default, and DINOv3's, whose blocks the published ones follow.
pub(crate) const LAYER_NORM_EPSILON: f64 = 1e-5;

/// A layer norm with weight and bias.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    pub(crate) fn new(scope: &Scope<'_>, channels: i64) -> Result<Self, ModelError> {
        Self::with_epsilon(scope, channels, LAYER_NORM_EPSILON)
    }

    /// With another number added to the variance.
    pub(crate) fn with_epsilon(scope: &Scope<'_>, channels: i64, epsilon: f64) -> Result<Self, ModelError> {
        let weight = scope.placed("weight", &[channels], Init::Ones)?;
        let bias = scope.placed("bias", &[channels], Init::Zeros)?;
        Ok(Self { weight, bias, epsilon })
    }

    /// # Shapes
    /// `input`: `[…, channels]`; returns the same shape in float32.
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor, ModelError> {
        self.forward_as(input, Kind::Float)
    }

    /// As what follows reads it. Where gradients flow it stays float32, so that those of several readers add up in it.
    ///
    /// # Shapes
    /// `input`: `[…, channels]`; returns the same shape, rounded to `kind` at the end.
    pub(crate) fn forward_as(&self, input: &Tensor, kind: Kind) -> Result<Tensor, ModelError> {
        if let Some(output) = kernels::layer_norm(input, &self.weight, &self.bias, self.epsilon, kind)? {
            return Ok(output);
        }
        let input = input.f_to_kind(Kind::Float)?;
        let shape = self.weight.size();
        let normal = input.f_layer_norm(shape, Some(&self.weight), Some(&self.bias), self.epsilon, true)?;
        if normal.requires_grad() { Ok(normal) } else { Ok(normal.f_to_kind(kind)?) }
    }
}

/// A root-mean-square norm: `x / sqrt(mean(x²) + ε)`, times a weight (`RMSNorm` in autoregressive/models/gpt_har.py).
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    epsilon: f64,
}

impl RmsNorm {
    pub(crate) fn new(scope: &Scope<'_>, channels: i64, epsilon: f64) -> Result<Self, ModelError> {
        Ok(Self { weight: scope.placed("weight", &[channels], Init::Ones)?, epsilon })
    }

    /// As what follows reads it. Where gradients flow it stays float32, so that those of several readers add up in it.
    ///
    /// # Shapes
    /// `input`: `[…, channels]`; returns the same shape, rounded to `kind` at the end.
    pub(crate) fn forward(&self, input: &Tensor, kind: Kind) -> Result<Tensor, ModelError> {
        if let Some(output) = kernels::rms_norm(input, &self.weight, self.epsilon, kind)? {
            return Ok(output);
        }
        let input = input.f_to_kind(Kind::Float)?;
        let mean = input.f_square()?.f_mean_dim([-1_i64].as_slice(), true, Kind::Float)?;
        let scale = mean.f_add_scalar(self.epsilon)?.f_rsqrt()?;
        let mut normal = input.f_mul(&scale)?;
        let normal = if normal.requires_grad() { normal.f_mul(&self.weight)? } else { normal.f_mul_(&self.weight)? };
        if normal.requires_grad() { Ok(normal) } else { Ok(normal.f_to_kind(kind)?) }
    }
}
