//! A one-dimensional convolution whose weight is divided by its largest singular value, estimated by power iteration (Miyato and
//! others, "Spectral Normalization for Generative Adversarial Networks", 2018; torch's `spectral_norm` hook in training).

use super::default_init;
use crate::{
    ModelError,
    parameters::{Init, Scope},
};
use tch::Tensor;

/// Below this a length counts as this.
const LENGTH_EPSILON: f64 = 1e-12;

/// The length of the sequence stays: it goes on at its other end (circular padding).
#[derive(Debug)]
pub(super) struct SpectralConvolution {
    /// `[out, in, kernel]`, before the division.
    weight: Tensor,
    bias: Tensor,
    /// Estimates of the singular vectors, `[out]` and `[in * kernel]`; better at every step, saved with the parameters.
    left: Tensor,
    right: Tensor,
    padding: i64,
}

impl SpectralConvolution {
    /// `kernel` is odd.
    pub(super) fn new(scope: &Scope<'_>, inputs: i64, outputs: i64, kernel: i64) -> Result<Self, ModelError> {
        let init = default_init(inputs * kernel);
        Ok(Self {
            weight: scope.placed("weight_orig", &[outputs, inputs, kernel], init)?,
            bias: scope.placed("bias", &[outputs], init)?,
            // Only their directions matter, so they need no unit length to start from.
            left: scope.buffer("weight_u", &[outputs], Init::Normal(1.0))?,
            right: scope.buffer("weight_v", &[inputs * kernel], Init::Normal(1.0))?,
            padding: kernel / 2,
        })
    }

    /// # Shapes
    /// `input`: float32 `[B, in, N]`; returns `[B, out, N]`.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, ModelError> {
        let weight = self.normalised()?;
        let padded = match self.padding {
            0 => input.shallow_clone(),
            padding => input.f_pad([padding, padding], "circular", None)?,
        };
        Ok(padded.f_conv1d(&weight, Some(&self.bias), [1], [0], [1], 1)?)
    }

    /// One power iteration, and the weight over the singular value that it finds. Gradients take the vectors as given.
    fn normalised(&self) -> Result<Tensor, ModelError> {
        let matrix = self.weight.f_flatten(1, 2)?; // [out, in * kernel]
        let (left, right) = tch::no_grad(|| -> Result<_, ModelError> {
            let right = unit(&matrix.f_transpose(0, 1)?.f_mv(&self.left)?)?;
            let left = unit(&matrix.f_mv(&right)?)?;
            self.left.shallow_clone().f_copy_(&left)?;
            self.right.shallow_clone().f_copy_(&right)?;
            Ok((left, right))
        })?;
        let largest = left.f_dot(&matrix.f_mv(&right)?)?;
        Ok(self.weight.f_div(&largest)?)
    }
}

fn unit(vector: &Tensor) -> Result<Tensor, ModelError> {
    Ok(vector.f_div(&vector.f_norm()?.f_clamp_min(LENGTH_EPSILON)?)?)
}
