//! The scale of the loss in float16, whose gradients would otherwise vanish (torch's `GradScaler`, with its defaults).

use super::tensor_lists;
use crate::ModelError;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// Names of its state begin so.
pub(super) const STATE_PREFIX: &str = "loss_scale.";
const FIRST_SCALE: f64 = 65_536.0;
/// Steps without an overflow after which the scale doubles.
const GROWTH_INTERVAL: i64 = 2_000;

/// All of it lives on the device: no step waits to learn whether it overflowed.
#[derive(Debug)]
pub(super) struct LossScale {
    scale: Tensor,
    steps_without_overflow: Tensor,
}

impl LossScale {
    pub(super) fn new(device: Device) -> Result<Self, ModelError> {
        Ok(Self {
            scale: Tensor::f_full([1], FIRST_SCALE, (Kind::Float, device))?,
            steps_without_overflow: Tensor::f_zeros([1], (Kind::Int, device))?,
        })
    }

    /// What to begin the backward pass from.
    pub(super) fn scaled(&self, loss: &Tensor) -> Result<Tensor, ModelError> {
        Ok(loss.f_mul(&self.scale)?.f_sum(Kind::Float)?)
    }

    /// Takes the scale off `gradients` and adapts it; 1 where the update must not be made, else 0. Where several `processes` train together,
    /// each has divided its loss by their number, and gradients are averaged before: what overflows in one of them is infinite or no number
    /// in all, and all leave the update out.
    pub(super) fn unscale(&self, gradients: &[Tensor], processes: usize) -> Result<Tensor, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let found_infinite = Tensor::f_zeros([1], (Kind::Float, self.scale.device()))?;
        let inverse = self.scale.f_reciprocal()?.f_mul_scalar(processes as f64)?;
        tensor_lists::unscale(gradients, &found_infinite, &inverse)?;
        tensor_lists::update_scale(&self.scale, &self.steps_without_overflow, &found_infinite, GROWTH_INTERVAL)?;
        Ok(found_infinite.f_squeeze()?)
    }

    /// Everything that the next step depends on.
    pub(super) fn state(&self) -> BTreeMap<String, Tensor> {
        BTreeMap::from([
            (format!("{STATE_PREFIX}scale"), self.scale.shallow_clone()),
            (format!("{STATE_PREFIX}steps_without_overflow"), self.steps_without_overflow.shallow_clone()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflow_is_told_and_halves_the_scale() {
        let scale = LossScale::new(Device::Cpu).expect("built");
        let gradient = Tensor::from_slice(&[65_536.0_f32, 131_072.0]);
        let found = scale.unscale(&[gradient.shallow_clone()], 1).expect("unscaled");
        assert_eq!(found.double_value(&[]), 0.0);
        assert_eq!(Vec::<f32>::try_from(gradient).expect("a vector"), [1.0, 2.0]);
        let averaged = Tensor::from_slice(&[65_536.0_f32, 131_072.0]);
        drop(scale.unscale(&[averaged.shallow_clone()], 3).expect("unscaled"));
        assert_eq!(Vec::<f32>::try_from(averaged).expect("a vector"), [3.0, 6.0]);
        let overflown = Tensor::from_slice(&[f32::INFINITY, 1.0]);
        assert_eq!(scale.unscale(&[overflown], 1).expect("unscaled").double_value(&[]), 1.0);
        assert_eq!(scale.scale.double_value(&[0]), FIRST_SCALE / 2.0);
        let loss = Tensor::from(3.0_f32);
        assert_eq!(scale.scaled(&loss).expect("scaled").double_value(&[]), 3.0 * FIRST_SCALE / 2.0);
    }
}
