//! Options and settings of `restok train-generator`.

mod generator;

pub(crate) use generator::TokenFacts;

use super::{
    ModelReference, SettingsError,
    shared::{HOW, WHAT, at_least_one, required},
    tokenize::precision,
    training::{
        BatchOptions, Batches, RECIPE, RecipeNumbers, RecipeOptions, RunOptions, RunSettings, fraction_below_one,
    },
    values::training_precision_parser,
};
use generator::GeneratorChoice;
use models::{GeneratorRecipe, GeneratorSize};
use schemas::{GuidanceSchedule, Sampling};
use std::path::PathBuf;

const GENERATOR: &str = "Generator";

/// Passes over the images where neither epochs nor steps are given: the published number.
const PUBLISHED_EPOCHS: u64 = 300;

/// Options of `restok train-generator`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TrainGeneratorOptions {
    /// Train on the tokens of these finished outputs of `restok tokenize`, all of one tokenizer.
    ///
    /// Separate several with commas or repeat the option.
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = WHAT)]
    pub(crate) source: Option<Vec<String>>,
    /// Validate on the tokens of these finished outputs, of the same tokenizer (default: no validation).
    ///
    /// Separate several with commas or repeat the option.
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = WHAT)]
    pub(crate) validation_source: Option<Vec<String>>,
    /// Local folder for checkpoints, metrics, sheets of samples and the trained generator.
    ///
    /// An existing run resumes from its last checkpoint.
    #[arg(long, value_name = "FOLDER", help_heading = WHAT)]
    pub(crate) output: Option<PathBuf>,
    /// Tokenizer that made the tokens, to draw sheets of samples: a local folder or hf://owner/name.
    ///
    /// The folder holds config.json and model.safetensors. Append @revision to hf://owner/name for a branch, tag or
    /// commit.
    #[arg(long, value_name = "PATH|hf://…", help_heading = WHAT)]
    pub(crate) tokenizer: Option<String>,

    /// Preset of generator and recipe: gpt-b, gpt-l, gpt-xl, gpt-xxl or tiny.
    ///
    /// gpt-l is the published one; tiny is for small images and a CPU.
    #[arg(long, value_name = "NAME", help_heading = GENERATOR, default_value = "gpt-l")]
    pub(crate) preset: Option<String>,
    /// Train the generator of this config.json instead of the preset's.
    ///
    /// --classes, --class-dropout, --dropout and --token-by-token override it.
    #[arg(long, value_name = "FILE", help_heading = GENERATOR)]
    pub(crate) generator_config: Option<PathBuf>,
    /// Predict one token per step at every level, as plain LlamaGen does, for comparison
    #[arg(long, help_heading = GENERATOR, default_value = "false")]
    pub(crate) token_by_token: Option<bool>,
    /// Number of classes, such as 1000 for ImageNet (default: as many as the tables name).
    ///
    /// Defaults to the number of --generator-config if that is given. Tables made from class folders name their
    /// classes; those from tar shards or Parquet do only if the Parquet files or `restok tokenize --classes` named
    /// them.
    #[arg(long, value_name = "COUNT", help_heading = GENERATOR)]
    pub(crate) classes: Option<usize>,
    /// Class names in label order, comma-separated (default: those that the tables name).
    ///
    /// They label the sheets and are recorded with the generator.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = GENERATOR)]
    pub(crate) class_names: Option<Vec<String>>,
    /// Class dropout probability, for classifier-free guidance (default: 0.1).
    ///
    /// Defaults to the value of --generator-config if that is given. 0 trains a generator that cannot be guided.
    #[arg(long, value_name = "PROBABILITY", help_heading = GENERATOR)]
    pub(crate) class_dropout: Option<f64>,
    /// Dropout probability of tokens, attention outputs and feed-forward layers (default: 0.1).
    ///
    /// Defaults to the values of --generator-config if that is given.
    #[arg(long, value_name = "PROBABILITY", help_heading = GENERATOR)]
    pub(crate) dropout: Option<f64>,

    /// Number of epochs (default: 300; the tiny preset trains for 10,000 steps).
    ///
    /// An epoch sees every image once, in one of its views.
    #[arg(long, value_name = "EPOCHS", help_heading = RECIPE)]
    pub(crate) epochs: Option<u64>,
    /// Number of training steps (optimizer updates), instead of --epochs
    #[arg(long, value_name = "STEPS", help_heading = RECIPE)]
    pub(crate) steps: Option<u64>,
    /// How the images of an update are divided.
    #[command(flatten)]
    pub(crate) batches: BatchOptions,
    /// Floating-point precision of the transformer's matrix products; norms, residual stream and loss are fp32
    #[arg(long, value_parser = training_precision_parser(), value_name = "PRECISION", help_heading = RECIPE)]
    pub(crate) precision: Option<String>,
    /// Random seed of the initial weights and of everything drawn during training
    #[arg(long, value_name = "NUMBER", help_heading = RECIPE)]
    pub(crate) seed: Option<u64>,
    /// Rate, optimizer and average.
    #[command(flatten)]
    pub(crate) recipe: RecipeOptions,

    /// Maximum bytes of tokens in memory.
    ///
    /// Larger tables are streamed file by file and shuffled in windows of half this size; their order then depends on
    /// it.
    #[arg(long, value_name = "BYTES", help_heading = HOW, default_value = "4294967296")]
    pub(crate) memory_bytes: Option<u64>,
    /// How the run goes.
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Validate on the first IMAGES images of the validation source.
    ///
    /// The final validation uses all of them.
    #[arg(long, value_name = "IMAGES", help_heading = HOW, default_value = "10000")]
    pub(crate) validation_images: Option<u64>,
    /// Draw a sheet of samples every STEPS steps; requires --tokenizer (default: 5000, or a fifth of the training if that is less)
    #[arg(long, value_name = "STEPS", help_heading = HOW)]
    pub(crate) sheet_every: Option<u64>,
    /// Classifier-free guidance scale of the sheets (default: 3.75, or 1 without class dropout).
    ///
    /// Guidance starts at a quarter of the steps of a sample; 1 disables it.
    #[arg(long, value_name = "SCALE", help_heading = HOW)]
    pub(crate) sheet_guidance: Option<f64>,
}

/// Settings of `restok train-generator`, as far as they are known before the tables are opened; [`Self::fit`] does the rest.
#[derive(Clone, Debug)]
pub(crate) struct TrainGeneratorSettings {
    /// Outputs to train on.
    pub(crate) source: Vec<String>,
    /// Outputs to validate on; none for no validation.
    pub(crate) validation_source: Vec<String>,
    /// The tokenizer for sheets.
    pub(crate) tokenizer: Option<ModelReference>,
    /// Names of the classes; `None` for those of the tables.
    pub(crate) class_names: Option<Vec<String>>,
    /// The generator.
    generator: GeneratorChoice,
    /// How it is trained, but for what follows from the number of steps.
    preset: GeneratorRecipe,
    /// What was typed of that.
    numbers: RecipeOptions,
    /// How long.
    length: Length,
    /// How the images of an update are divided.
    pub(crate) batches: Batches,
    /// Bytes of tokens in memory.
    pub(crate) memory_bytes: u64,
    /// How samples on sheets are drawn.
    pub(crate) sampling: Sampling,
    /// How the run goes.
    pub(crate) run: RunSettings,
}

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// Passes over the images.
    Epochs(u64),
    /// Updates.
    Steps(u64),
}

impl TrainGeneratorOptions {
    /// The settings, for one of so many processes that train together.
    ///
    /// # Errors
    /// When something needed is absent, or a value cannot be.
    pub(crate) fn resolve(self, processes: usize) -> Result<TrainGeneratorSettings, SettingsError> {
        const SECTION: &str = "train-generator";
        let source = required(self.source.clone(), "source", "--source URL", SECTION)?;
        let run = self.run.clone().resolve(SECTION, self.output.clone(), self.sheet_every, self.validation_images)?;
        let name = self.preset.clone().unwrap_or_default();
        let size = GeneratorSize::named(&name).map_err(|_| {
            SettingsError::invalid(
                "--preset",
                format!("{name:?}"),
                GeneratorSize::ALL.map(GeneratorSize::name).join(", "),
            )
        })?;
        let (preset, global_batch_size) = GeneratorRecipe::of_size(size);
        let length = self.length(size, &preset)?;
        let preset = self.named(preset)?;
        // The number of steps may follow from the tables: what does not depend on it is refused now.
        let steps = if let Length::Steps(steps) = length { steps } else { u64::MAX };
        self.recipe.over(numbers(&preset), steps)?;
        for (key, fraction) in [("--class-dropout", self.class_dropout), ("--dropout", self.dropout)] {
            fraction.map_or(Ok(()), |fraction| fraction_below_one(key, fraction))?;
        }
        let generator = GeneratorChoice {
            size,
            config: self.generator_config.as_deref().map(generator::read_config).transpose()?,
            token_by_token: self.token_by_token == Some(true),
            classes: self.classes.map(|classes| at_least_one("--classes", Some(classes))).transpose()?,
            class_dropout: self.class_dropout,
            dropout: self.dropout,
        };
        Ok(TrainGeneratorSettings {
            source,
            validation_source: self.validation_source.unwrap_or_default(),
            tokenizer: self.tokenizer.map(|tokenizer| ModelReference::parse("tokenizer", &tokenizer)).transpose()?,
            class_names: self.class_names,
            sampling: sampling(self.sheet_guidance, generator.is_guided(), preset.seed)?,
            generator,
            preset,
            numbers: self.recipe,
            length,
            batches: self.batches.resolve(global_batch_size, processes)?,
            memory_bytes: at_least_one("--memory-bytes", self.memory_bytes)?,
            run,
        })
    }

    fn length(&self, size: GeneratorSize, preset: &GeneratorRecipe) -> Result<Length, SettingsError> {
        match (self.epochs, self.steps) {
            (Some(_), Some(_)) => Err(SettingsError::invalid("--epochs and --steps", "both", "one of the two")),
            (Some(epochs), None) => Ok(Length::Epochs(at_least_one("--epochs", Some(epochs))?)),
            (None, Some(steps)) => Ok(Length::Steps(at_least_one("--steps", Some(steps))?)),
            (None, None) if size == GeneratorSize::Tiny => Ok(Length::Steps(preset.learning_rate.steps)),
            (None, None) => Ok(Length::Epochs(PUBLISHED_EPOCHS)),
        }
    }

    /// The preset's recipe with the seed and precision that were asked for.
    fn named(&self, preset: GeneratorRecipe) -> Result<GeneratorRecipe, SettingsError> {
        Ok(GeneratorRecipe {
            seed: self.seed.unwrap_or(preset.seed),
            precision: match &self.precision {
                Some(name) => precision(Some(name.clone()))?,
                None => preset.precision,
            },
            ..preset
        })
    }
}

fn numbers(recipe: &GeneratorRecipe) -> RecipeNumbers {
    RecipeNumbers {
        learning_rate: recipe.learning_rate,
        optimizer: recipe.optimizer,
        max_grad_norm: recipe.max_grad_norm,
        ema_decay: recipe.ema_decay,
    }
}

/// The published sampling, of another scale if that was asked for.
fn sampling(scale: Option<f64>, is_guided: bool, seed: u64) -> Result<Sampling, SettingsError> {
    let mut sampling = Sampling::paper(seed);
    sampling.guidance.scale = scale.unwrap_or(if is_guided { sampling.guidance.scale } else { 1.0 });
    if !is_guided {
        sampling.guidance.schedule = GuidanceSchedule::Constant {};
        if sampling.guidance.scale > 1.0 {
            let (found, expected) =
                (sampling.guidance.scale.to_string(), "1: without --class-dropout nothing is guided");
            return Err(SettingsError::invalid("--sheet-guidance", found, expected));
        }
    }
    match sampling.check() {
        Ok(()) => Ok(sampling),
        Err(error) => {
            Err(SettingsError::invalid("--sheet-guidance", sampling.guidance.scale.to_string(), error.to_string()))
        }
    }
}
