//! From what was typed of a generator, and what its tokens are, to its configuration and the steps of its training.

use super::{super::training::RecipeNumbers, Length, SettingsError, TrainGeneratorSettings, numbers};
use models::{GeneratorConfig, GeneratorData, GeneratorRecipe, GeneratorSize};
use schemas::TokenizerIdentity;
use std::path::Path;

/// The generator, as typed.
#[derive(Clone, Debug)]
pub(super) struct GeneratorChoice {
    pub(super) size: GeneratorSize,
    /// Of a file, in place of the preset's.
    pub(super) config: Option<GeneratorConfig>,
    pub(super) token_by_token: bool,
    pub(super) classes: Option<usize>,
    pub(super) class_dropout: Option<f64>,
    pub(super) dropout: Option<f64>,
}

/// What the tables say of the generator that is to be trained on them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenFacts<'a> {
    /// Whose codes they are.
    pub(crate) tokenizer: &'a TokenizerIdentity,
    /// Images of an epoch.
    pub(crate) images: u64,
    /// Classes that are named; 0 where none are.
    pub(crate) named_classes: usize,
}

impl TrainGeneratorSettings {
    /// The generator and its recipe for these tokens.
    ///
    /// # Errors
    /// When the generator is one for other tokens, its classes are not known or too few, or the warm-up is longer than the training.
    pub(crate) fn fit(&self, facts: TokenFacts) -> Result<(GeneratorConfig, GeneratorRecipe), SettingsError> {
        let config = self.generator.config(facts)?;
        let steps = match self.length {
            Length::Steps(steps) => steps,
            // The last update of the last epoch may reach into one more.
            Length::Epochs(epochs) => facts.images.saturating_mul(epochs).div_ceil(self.global_batch_size()),
        };
        let RecipeNumbers { learning_rate, optimizer, max_grad_norm, ema_decay } =
            self.numbers.over(numbers(&self.preset), steps)?;
        Ok((config, GeneratorRecipe { learning_rate, optimizer, max_grad_norm, ema_decay, ..self.preset.clone() }))
    }

    /// Images of an update.
    pub(crate) fn global_batch_size(&self) -> u64 {
        self.batches.global_size()
    }
}

impl GeneratorChoice {
    /// Whether it will have learned what no class looks like. A file's generator says for itself.
    pub(super) fn is_guided(&self) -> bool {
        match (self.class_dropout, &self.config) {
            (Some(fraction), _) => fraction > 0.0,
            (None, Some(config)) => config.has_null_class(),
            (None, None) => true,
        }
    }

    fn config(&self, facts: TokenFacts) -> Result<GeneratorConfig, SettingsError> {
        let TokenFacts { tokenizer, named_classes, .. } = facts;
        let (levels, codebook_size) = (&tokenizer.levels, tokenizer.codebook_size);
        let classes = self.classes(named_classes)?;
        let wrong = |error: models::ModelError| {
            SettingsError::invalid(
                "the generator",
                error.to_string(),
                format!("one for the tokens of {}", tokenizer.name),
            )
        };
        let config = match &self.config {
            Some(config) => config.clone(),
            None => {
                let data = GeneratorData { codebook_size, classes, tokens_per_image: levels.tokens_per_image() };
                GeneratorConfig::of_size(self.size, data).map_err(wrong)?
            }
        };
        let config = self.laid_over(config, classes).map_err(wrong)?;
        if (config.levels(), config.codebook_size()) != (levels, codebook_size) {
            let describe = |levels: &[usize], codes: usize| format!("levels of {levels:?} tokens of {codes} codes");
            return Err(SettingsError::invalid(
                if self.config.is_some() { "--generator-config" } else { "the generator" },
                describe(config.levels().sizes(), config.codebook_size()),
                format!("{}, as {} gives them", describe(levels.sizes(), codebook_size), tokenizer.name),
            ));
        }
        Ok(config)
    }

    fn classes(&self, named: usize) -> Result<usize, SettingsError> {
        let found = self.classes.or_else(|| self.config.as_ref().map(GeneratorConfig::classes));
        match found {
            None if named == 0 => Err(SettingsError::invalid(
                "--classes",
                "none",
                "their number, 1000 for ImageNet: these tables name none",
            )),
            None => Ok(named),
            Some(classes) if classes < named => {
                let expected = format!("at least {named}, so many are named");
                Err(SettingsError::invalid("--classes", classes.to_string(), expected))
            }
            Some(classes) => Ok(classes),
        }
    }

    /// The configuration with what was typed in place of what it says.
    fn laid_over(&self, config: GeneratorConfig, classes: usize) -> Result<GeneratorConfig, models::ModelError> {
        let mut config = config.with_classes(classes)?;
        if let Some(fraction) = self.class_dropout {
            config = config.with_class_dropout(fraction)?;
        }
        if let Some(fraction) = self.dropout {
            config = config.with_dropout(fraction)?;
        }
        Ok(if self.token_by_token { config.token_by_token() } else { config })
    }
}

/// Reads the configuration of a generator.
pub(super) fn read_config(file: &Path) -> Result<GeneratorConfig, SettingsError> {
    let wrong = |problem: String| SettingsError::File { path: file.to_owned(), problem };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    Ok(GeneratorConfig::from_json(&text, file)?)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{super::parsed, TrainGeneratorOptions},
        *,
    };
    use schemas::TokenLevels;

    fn complete() -> TrainGeneratorOptions {
        with("")
    }

    /// The options of a training, with more said.
    fn with(more: &str) -> TrainGeneratorOptions {
        parsed(&format!("--source tokens --output out {more}"))
    }

    fn tiny() -> TrainGeneratorOptions {
        with("--preset tiny")
    }

    fn tokenizer(tokens: usize, codebook_size: usize) -> TokenizerIdentity {
        let levels = TokenLevels::published(tokens).expect("a power of two");
        TokenizerIdentity { name: "tokenizer".to_owned(), sha256: "0".repeat(64), codebook_size, levels }
    }

    fn imagenet(tokenizer: &TokenizerIdentity) -> TokenFacts<'_> {
        TokenFacts { tokenizer, images: 1_281_167, named_classes: 1000 }
    }

    #[test]
    fn the_published_recipe_is_the_default() {
        let settings = complete().resolve(1).expect("complete");
        let (config, recipe) = settings.fit(imagenet(&tokenizer(128, 8192))).expect("fits");
        let data = GeneratorData { codebook_size: 8192, classes: 1000, tokens_per_image: 128 };
        assert_eq!(config, GeneratorConfig::of_size(GeneratorSize::GptL, data).expect("a preset"));
        let mut published = GeneratorRecipe::published();
        // 300 times 1,281,167 images in steps of 256; the published number is of 5,000 steps an epoch.
        assert_eq!((published.learning_rate.steps, recipe.learning_rate.steps), (1_500_000, 1_501_368));
        published.learning_rate.steps = recipe.learning_rate.steps;
        assert_eq!(recipe, published);
        assert_eq!((settings.batches.size, settings.batches.accumulation), (256, 1));
        assert_eq!(settings.sampling, schemas::Sampling::paper(recipe.seed));
    }

    #[test]
    fn an_epoch_is_every_image_once_whatever_the_batch() {
        let tokenizer = tokenizer(32, 64);
        let facts = TokenFacts { tokenizer: &tokenizer, images: 100, named_classes: 3 };
        let steps = |options: TrainGeneratorOptions| {
            options.resolve(1).expect("complete").fit(facts).expect("fits").1.learning_rate.steps
        };
        let epochs = |epochs, batch_size, accumulation| {
            with(&format!(
                "--warmup-steps 0 --epochs {epochs} --batch-size {batch_size} --gradient-accumulation {accumulation}"
            ))
        };
        assert_eq!(steps(epochs(2, 10, 2)), 10);
        assert_eq!(steps(epochs(2, 32, 1)), 7, "the last step reaches into the third epoch");
        assert_eq!(steps(with("--warmup-steps 0 --steps 7")), 7);
        assert_eq!(steps(tiny()), 10_000);
    }

    #[test]
    fn what_is_typed_is_laid_over_preset_and_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.json");
        let data = GeneratorData { codebook_size: 64, classes: 7, tokens_per_image: 32 };
        let of_file = GeneratorConfig::of_size(GeneratorSize::Tiny, data).expect("a preset");
        std::fs::write(&file, of_file.to_json()).expect("written");
        let tokenizer = tokenizer(32, 64);
        let facts = TokenFacts { tokenizer: &tokenizer, images: 100, named_classes: 0 };
        let from_file = TrainGeneratorOptions { generator_config: Some(file.clone()), ..tiny() };
        let fit = |options: TrainGeneratorOptions| options.resolve(1).expect("complete").fit(facts).expect("fits").0;
        assert_eq!(fit(from_file.clone()), of_file);

        let config = fit(TrainGeneratorOptions {
            classes: Some(9),
            class_dropout: Some(0.0),
            dropout: Some(0.0),
            token_by_token: Some(true),
            ..from_file
        });
        assert_eq!((config.classes(), config.has_null_class(), config.step_count()), (9, false, 32));
        assert_eq!(config.clone().without_dropout(), config);
    }

    #[test]
    fn what_does_not_fit_the_tokens_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config.json");
        let data = GeneratorData { codebook_size: 64, classes: 7, tokens_per_image: 64 };
        std::fs::write(&file, GeneratorConfig::of_size(GeneratorSize::Tiny, data).expect("a preset").to_json())
            .expect("written");
        let tokenizer = tokenizer(32, 64);
        for (options, named_classes, expected) in [
            (tiny(), 0, "--classes"),
            (TrainGeneratorOptions { classes: Some(2), ..tiny() }, 3, "at least 3"),
            (TrainGeneratorOptions { generator_config: Some(file), ..tiny() }, 0, "--generator-config"),
            (with("--preset tiny --epochs 10 --warmup-steps 100"), 3, "--warmup-steps"),
        ] {
            let facts = TokenFacts { tokenizer: &tokenizer, images: 100, named_classes };
            let error = options.resolve(1).expect("complete").fit(facts).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_default_warm_up_is_at_most_a_tenth_of_the_training() {
        let tokenizer = tokenizer(32, 64);
        for (length, images, warmup_steps) in
            [("--steps 30", 100, 3), ("--steps 1", 100, 0), ("--epochs 10", 640, 10), ("--epochs 1000", 6400, 200)]
        {
            let facts = TokenFacts { tokenizer: &tokenizer, images, named_classes: 3 };
            let settings = with(&format!("--preset tiny {length}")).resolve(1).expect(length);
            let (_, recipe) = settings.fit(facts).expect(length);
            assert_eq!(recipe.learning_rate.warmup_steps, warmup_steps, "{length}");
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_their_flag() {
        for (options, flag) in [
            (with("--steps 100 --warmup-steps 101"), "--warmup-steps"),
            (TrainGeneratorOptions { epochs: Some(1), steps: Some(1), ..complete() }, "--epochs and --steps"),
            (TrainGeneratorOptions { epochs: Some(0), ..complete() }, "--epochs"),
            (TrainGeneratorOptions { steps: Some(0), ..complete() }, "--steps"),
            (with("--batch-size 0"), "--batch-size"),
            (with("--gradient-accumulation 3"), "--gradient-accumulation"),
            (with("--beta2 1"), "--beta2"),
            (with("--end-learning-rate 1"), "--end-learning-rate"),
            (TrainGeneratorOptions { class_dropout: Some(1.0), ..complete() }, "--class-dropout"),
            (TrainGeneratorOptions { dropout: Some(-0.1), ..complete() }, "--dropout"),
            (TrainGeneratorOptions { classes: Some(0), ..complete() }, "--classes"),
            (TrainGeneratorOptions { memory_bytes: Some(0), ..complete() }, "--memory-bytes"),
            (TrainGeneratorOptions { preset: Some("gpt-m".to_owned()), ..complete() }, "--preset"),
            (TrainGeneratorOptions { sheet_guidance: Some(0.5), ..complete() }, "--sheet-guidance"),
            (
                TrainGeneratorOptions { sheet_guidance: Some(2.0), class_dropout: Some(0.0), ..complete() },
                "--sheet-guidance",
            ),
            (TrainGeneratorOptions { output: Some("s3://bucket/run".into()), ..complete() }, "--output"),
            (TrainGeneratorOptions { source: None, ..complete() }, "--source"),
        ] {
            let error = options.resolve(1).expect_err(flag).to_string();
            assert!(error.contains(flag), "{error}");
        }
    }
}
