//! The exponential moving average of the weights, which is what is validated and published (modeling/modules/ema_model.py).

use super::tensor_lists;
use crate::ModelError;
use std::collections::BTreeMap;
use tch::Tensor;

/// Fraction of the average that update `number`, counted from 1, keeps: rises to `decay` as (1 + t) / (10 + t), and is 0 for the
/// first, which takes the weights as they are.
pub(crate) fn decay_at(number: u64, decay: f64) -> f64 {
    let step = number.saturating_sub(1) as f64;
    if step <= 0.0 { 0.0 } else { ((1.0 + step) / (10.0 + step)).min(decay) }
}

/// Averages of parameters, by their names.
#[derive(Debug)]
pub(super) struct Ema {
    names: Vec<String>,
    averages: Vec<Tensor>,
    values: Vec<Tensor>,
    decay: f64,
}

impl Ema {
    pub(super) fn new(parameters: &[(String, Tensor)], decay: f64) -> Result<Self, ModelError> {
        let values: Vec<_> = parameters.iter().map(|(_, tensor)| tensor.detach()).collect();
        let averages = values.iter().map(Tensor::f_detach_copy).collect::<Result<_, _>>()?;
        Ok(Self { names: parameters.iter().map(|(name, _)| name.clone()).collect(), averages, values, decay })
    }

    /// Follows the weights after update `number`, counted from 1.
    pub(super) fn update(&self, number: u64) -> Result<(), ModelError> {
        tch::no_grad(|| tensor_lists::lerp(&self.averages, &self.values, 1.0 - decay_at(number, self.decay)))
    }

    /// The averages under the names of their parameters.
    pub(super) fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.names.iter().cloned().zip(self.averages.iter().map(Tensor::shallow_clone)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decays_of_the_published_average_at_given_steps() {
        // EMAModel.get_decay with decay 0.9999.
        for (number, expected) in
            [(1, 0.0), (2, 2.0 / 11.0), (11, 11.0 / 20.0), (1_000, 1_000.0 / 1_009.0), (1_000_000, 0.9999)]
        {
            assert!((decay_at(number, 0.9999) - expected).abs() < 1e-15, "update {number}");
        }
    }

    #[test]
    fn the_average_follows_its_formula() {
        let parameter = Tensor::from_slice(&[1.0_f32, -2.0]);
        let average = Ema::new(&[("weight".to_owned(), parameter.shallow_clone())], 0.5).expect("built");
        let mut expected = [0.0_f64; 2];
        for number in 1..=6 {
            let value = [number as f64, -0.5 * number as f64];
            parameter.shallow_clone().copy_(&Tensor::from_slice(&value));
            average.update(number).expect("updated");
            let keep = decay_at(number, 0.5);
            for (expected, value) in expected.iter_mut().zip(value) {
                *expected = keep * *expected + (1.0 - keep) * value;
            }
        }
        let found: Vec<f32> = (&average.tensors()["weight"]).try_into().expect("a vector");
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}
