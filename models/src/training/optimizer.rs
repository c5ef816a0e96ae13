//! AdamW with a state that can be saved and restored, which tch's own cannot.

use super::tensor_lists::{self, AdamWNumbers, Moved};
use crate::ModelError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Names that the published training leaves without weight decay when they occur in a parameter's (`create_optimizer` in
/// utils/train_utils.py). Parameters of fewer than two axes are left out too.
const WITHOUT_DECAY: [&str; 11] = [
    "ln",
    "bias",
    "latent_tokens",
    "mask_token",
    "embedding",
    "norm",
    "gamma",
    "embed",
    "mask_latent_token",
    "rope",
    "freqs_cis",
];

/// torch's default, which the published training keeps.
const EPSILON: f64 = 1e-8;

/// Whether a parameter decays.
pub(crate) fn decays(name: &str, axes: usize) -> bool {
    axes >= 2 && !WITHOUT_DECAY.iter().any(|part| name.contains(part))
}

/// Numbers of AdamW that stay the same during a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWOptions {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Fraction of a weight, times the rate, that every step takes away. Norms, biases, embeddings and tokens are left alone.
    pub weight_decay: f64,
}

/// The optimizer of a list of parameters.
#[derive(Debug)]
pub(super) struct AdamW {
    options: AdamWOptions,
    /// Updates made, a float32 scalar on the device: counted there, because an update that overflowed does not count.
    step: Tensor,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    decays: bool,
    parameter: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
}

impl AdamW {
    pub(super) fn new(parameters: &[(String, Tensor)], options: AdamWOptions) -> Result<Self, ModelError> {
        let device = parameters.first().map_or(tch::Device::Cpu, |(_, tensor)| tensor.device());
        let slots = parameters.iter().map(|(name, parameter)| -> Result<Slot, ModelError> {
            Ok(Slot {
                name: name.clone(),
                decays: decays(name, parameter.dim()),
                parameter: parameter.shallow_clone(),
                first_moment: parameter.detach().f_zeros_like()?,
                second_moment: parameter.detach().f_zeros_like()?,
            })
        });
        Ok(Self { options, step: Tensor::f_zeros([], (Kind::Float, device))?, slots: slots.collect::<Result<_, _>>()? })
    }

    /// Gradients of the parameters that have one.
    pub(super) fn gradients(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.parameter.grad()).filter(Tensor::defined).collect()
    }

    /// Moves every parameter that has a gradient. Nothing moves, and no step is counted, where `found_infinite` is 1.
    pub(super) fn step(&mut self, learning_rate: f64, found_infinite: Option<&Tensor>) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        drop(self.step.f_add_scalar_(1.0)?);
        if let Some(found_infinite) = found_infinite {
            drop(self.step.f_sub_(found_infinite)?);
        }
        for decaying in [false, true] {
            let moved: Vec<Moved> = self
                .slots
                .iter()
                .filter(|slot| slot.decays == decaying)
                .map(|slot| Moved {
                    gradient: slot.parameter.grad(),
                    parameter: slot.parameter.shallow_clone(),
                    first_moment: slot.first_moment.shallow_clone(),
                    second_moment: slot.second_moment.shallow_clone(),
                })
                .filter(|moved| moved.gradient.defined())
                .collect();
            if moved.is_empty() {
                continue;
            }
            let AdamWOptions { beta1, beta2, weight_decay } = self.options;
            let weight_decay = if decaying { weight_decay } else { 0.0 };
            let numbers = AdamWNumbers { learning_rate, beta1, beta2, weight_decay, epsilon: EPSILON };
            tensor_lists::adamw(&moved, &self.step, numbers, found_infinite)?;
        }
        Ok(())
    }

    /// Sets all gradients to zero, in their memory.
    pub(super) fn clear_gradients(&mut self) {
        for slot in &mut self.slots {
            slot.parameter.zero_grad();
        }
    }

    /// Everything that the next step depends on, by names that start with `prefix`.
    pub(super) fn state(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::from([(format!("{prefix}step"), self.step.shallow_clone())]);
        for slot in &self.slots {
            state.insert(format!("{prefix}first_moment.{}", slot.name), slot.first_moment.shallow_clone());
            state.insert(format!("{prefix}second_moment.{}", slot.name), slot.second_moment.shallow_clone());
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AdamW as its paper (arXiv 1711.05101, algorithm 2) and torch.optim.AdamW have it, in float64.
    fn reference(value: f64, gradients: &[f64], rate: f64, options: AdamWOptions, decays: bool) -> f64 {
        let (mut value, mut first, mut second) = (value, 0.0, 0.0);
        for (done, gradient) in gradients.iter().enumerate() {
            let step = (done + 1) as i32;
            if decays {
                value -= rate * options.weight_decay * value;
            }
            first = options.beta1 * first + (1.0 - options.beta1) * gradient;
            second = options.beta2 * second + (1.0 - options.beta2) * gradient * gradient;
            let corrected = first / (1.0 - options.beta1.powi(step));
            let deviation = (second / (1.0 - options.beta2.powi(step))).sqrt();
            value -= rate * corrected / (deviation + EPSILON);
        }
        value
    }

    #[test]
    fn steps_follow_the_formula_with_and_without_decay() {
        let options = AdamWOptions { beta1: 0.9, beta2: 0.95, weight_decay: 0.3 };
        let leaf = |name: &str| (name.to_owned(), Tensor::from_slice(&[0.7_f32]).view([1, 1]).set_requires_grad(true));
        let parameters = [leaf("proj.weight"), leaf("norm.weight")];
        let mut optimizer = AdamW::new(&parameters, options).expect("built");
        let gradients = [0.5, -0.25, 1.5, 0.01];
        for gradient in gradients {
            for (_, parameter) in &parameters {
                (parameter * gradient).sum(Kind::Float).backward();
            }
            optimizer.step(0.01, None).expect("moved");
            optimizer.clear_gradients();
        }
        for (index, decays) in [true, false].into_iter().enumerate() {
            let expected = reference(f64::from(0.7_f32), &gradients, 0.01, options, decays);
            let found = parameters[index].1.double_value(&[0, 0]);
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn an_overflow_moves_nothing_and_is_not_counted() {
        let parameter = Tensor::from_slice(&[1.0_f32, 2.0]).set_requires_grad(true);
        let options = AdamWOptions { beta1: 0.9, beta2: 0.999, weight_decay: 0.1 };
        let mut optimizer = AdamW::new(&[("weight".to_owned(), parameter.shallow_clone())], options).expect("built");
        parameter.sum(Kind::Float).backward();
        optimizer.step(0.1, Some(&Tensor::from(1.0_f32))).expect("refused on the device");
        assert_eq!(Vec::<f32>::try_from(parameter.detach()).expect("a vector"), [1.0, 2.0]);
        assert_eq!(optimizer.step.double_value(&[]), 0.0);
        optimizer.step(0.1, Some(&Tensor::from(0.0_f32))).expect("moved");
        assert!(
            (parameter.detach().double_value(&[0]) - 0.9).abs() < 1e-5,
            "the first step of Adam is the rate itself"
        );
    }

    #[test]
    fn decay_leaves_out_what_the_published_training_leaves_out() {
        for (name, axes, expected) in [
            ("encoder.blocks.0.attn.qkv.weight", 2, true),
            ("encoder.blocks.0.mlp.fc1.bias", 1, false),
            ("encoder.ln_pre.weight", 1, false),
            ("encoder.patch_embed.weight", 4, false),
            ("encoder.latent_token_level_embedding.3", 2, false),
            ("decoder.mask_token", 3, false),
            ("quantize.embedding.weight", 2, false),
            ("pixel_encoder.down.1.block.0.conv1.weight", 4, true),
            ("pixel_encoder.down.1.block.0.norm1.weight", 1, false),
            ("encoder.conv_out.0.weight", 4, true),
        ] {
            assert_eq!(decays(name, axes), expected, "{name}");
        }
    }
}
