//! Recipes by name: which tokenizer, how it is trained, and on how many images at once.

use super::{AdamWOptions, CosineSchedule, DiscriminatorKind, ReconstructionKind, TokenizerRecipe};
use crate::{
    ModelError, Precision, TokenizerConfig,
    sizes::{TOKENIZER_PRESETS, TokenizerSize},
};
use schemas::SchemaError;

/// A recipe with everything that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizerPreset {
    /// The tokenizer.
    pub config: TokenizerConfig,
    /// How it is trained.
    pub recipe: TokenizerRecipe,
    /// Images of an update.
    pub global_batch_size: usize,
}

impl TokenizerPreset {
    /// Names of all presets.
    pub const NAMES: [&str; 4] = {
        let [(large, _), (base, _), (small, _), (tiny, _)] = TOKENIZER_PRESETS;
        [large, base, small, tiny]
    };

    /// The preset `name`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn named(name: &str) -> Result<Self, ModelError> {
        let published = |size| Self {
            config: TokenizerConfig::preset(size),
            recipe: TokenizerRecipe::published(),
            global_batch_size: 256,
        };
        match name {
            "restok-l-128" => Ok(published(TokenizerSize::Large)),
            "restok-b-128" => Ok(published(TokenizerSize::Base)),
            "restok-s-128" => Ok(published(TokenizerSize::Small)),
            "tiny" => Ok(tiny()),
            _ => Err(ModelError::Data(SchemaError::UnknownName {
                what: "preset",
                found: name.to_owned(),
                expected: Self::NAMES.join(", "),
            })),
        }
    }
}

/// [`TokenizerConfig::tiny`] without any frozen network: what two cores train in hours.
fn tiny() -> TokenizerPreset {
    let steps = 17_000;
    let learning_rate = CosineSchedule { peak: 1.5e-3, end: 5e-5, warmup_steps: 100, steps };
    let recipe = TokenizerRecipe {
        precision: Precision::Fp32,
        reconstruction: ReconstructionKind::L2,
        reconstruction_weight: 20.0,
        perceptual_weight: 0.0,
        alignment_weight: 0.0,
        discriminator: DiscriminatorKind::Patch,
        adversarial_weight: 0.0,
        learning_rate,
        discriminator_learning_rate: learning_rate,
        optimizer: AdamWOptions { beta1: 0.9, beta2: 0.95, weight_decay: 1e-4 },
        max_grad_norm: 1.0,
        ema_decay: 0.999,
        ..TokenizerRecipe::published()
    };
    TokenizerPreset { config: TokenizerConfig::tiny(), recipe, global_batch_size: 16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_preset_and_others_are_refused_with_all_names() {
        for name in TokenizerPreset::NAMES {
            let preset = TokenizerPreset::named(name).expect(name);
            let size = TOKENIZER_PRESETS.into_iter().find(|&(known, _)| known == name).expect("known by name").1;
            assert_eq!((preset.config.encoder(), preset.config.decoder()), (size, size), "{name}");
        }
        let error = TokenizerPreset::named("restok-xl").expect_err("there is none").to_string();
        assert!(TokenizerPreset::NAMES.iter().all(|name| error.contains(name)), "{error}");
    }

    #[test]
    fn the_tiny_tokenizer_has_the_levels_of_its_32_tokens_on_a_grid_of_8() {
        let preset = TokenizerPreset::named("tiny").expect("a preset");
        assert_eq!(preset.config.levels().sizes(), [1, 1, 2, 4, 8, 16]);
        assert_eq!((preset.config.resolution(), preset.config.decoder_grid), (32, 8));
    }
}
