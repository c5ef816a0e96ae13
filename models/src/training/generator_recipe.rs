//! Everything that decides how a generator is trained, apart from its own configuration and the data; and recipes by name.

use super::{AdamWOptions, CosineSchedule};
use crate::{GeneratorConfig, GeneratorData, GeneratorSize, ModelError, Precision};
use serde::{Deserialize, Serialize};

/// The recipe of a run. Dropouts, that of the class among them, are part of the generator's configuration, as published.
///
/// Rates follow the number of the step. The published training does not count steps that overflowed in float16; here they count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorRecipe {
    /// Of the first weights and of everything that is drawn during the run.
    pub seed: u64,
    /// Precision of the blocks and the output layer; norms, the residual stream and the loss stay in float32.
    pub precision: Precision,
    /// Rate.
    pub learning_rate: CosineSchedule,
    /// Numbers of the optimizer.
    pub optimizer: AdamWOptions,
    /// Largest norm of all gradients together.
    #[serde(rename = "largest_gradient_norm")]
    pub max_grad_norm: f64,
    /// Decay of the weights' moving average.
    #[serde(rename = "average_decay")]
    pub ema_decay: f64,
}

impl GeneratorRecipe {
    /// configs/training/generator/llamagen_l_c2i_restok_l_128.yaml.
    pub fn published() -> Self {
        Self {
            seed: 10_086,
            precision: Precision::Bf16,
            learning_rate: CosineSchedule { peak: 1e-4, end: 1e-5, warmup_steps: 5_000, steps: 1_500_000 },
            optimizer: AdamWOptions { beta1: 0.9, beta2: 0.95, weight_decay: 0.05 },
            max_grad_norm: 1.0,
            ema_decay: 0.9999,
        }
    }

    /// The recipe of a preset, and the images of its updates; neither depends on the data.
    pub fn of_size(size: GeneratorSize) -> (Self, usize) {
        match size {
            GeneratorSize::Tiny => (tiny(), 64),
            _ => (Self::published(), 256),
        }
    }
}

/// A recipe with everything that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorPreset {
    /// The generator.
    pub config: GeneratorConfig,
    /// How it is trained.
    pub recipe: GeneratorRecipe,
    /// Images of an update.
    pub global_batch_size: usize,
}

impl GeneratorPreset {
    /// The preset of `size`: the published recipe, but for [`GeneratorSize::Tiny`], which is for small images and two cores.
    ///
    /// # Errors
    /// When `data` cannot be, see [`GeneratorConfig::of_size`].
    pub fn of_size(size: GeneratorSize, data: GeneratorData) -> Result<Self, ModelError> {
        let config = GeneratorConfig::of_size(size, data)?;
        let (recipe, global_batch_size) = GeneratorRecipe::of_size(size);
        Ok(Self { config, recipe, global_batch_size })
    }
}

fn tiny() -> GeneratorRecipe {
    GeneratorRecipe {
        precision: Precision::Fp32,
        learning_rate: CosineSchedule { peak: 1e-3, end: 1e-5, warmup_steps: 200, steps: 10_000 },
        ema_decay: 0.999,
        ..GeneratorRecipe::published()
    }
}
