//! Options and settings of `restok train-generator`.

mod generator;

pub(crate) use generator::TokenFacts;

use super::{
    ModelReference, SettingsError,
    shared::{HOW, WHAT, at_least_one, required},
    tokenize::precision,
    training::{RECIPE, RecipeNumbers, RecipeOptions, RunOptions, RunSettings, batch_size, share_below_one},
    values::training_precision_parser,
};
use generator::GeneratorChoice;
use models::{GeneratorRecipe, GeneratorSize};
use schemas::{GuidanceSchedule, Sampling};
use std::path::PathBuf;

const GENERATOR: &str = "The generator";

/// Passes over the images where neither epochs nor steps are given: the published number.
const PUBLISHED_EPOCHS: u64 = 300;

/// Options of `restok train-generator`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TrainGeneratorOptions {
    /// Finished outputs of `restok tokenize` whose tokens to train on, with commas or the flag several times; all of one tokenizer
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = WHAT)]
    pub(crate) source: Option<Vec<String>>,
    /// Finished outputs whose tokens to validate on, of the same tokenizer; no validation when absent
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = WHAT)]
    pub(crate) validation_source: Option<Vec<String>>,
    /// Folder for checkpoints, metrics, sheets of samples and the trained generator. A run that is there already goes on from its last checkpoint
    #[arg(long, value_name = "FOLDER", help_heading = WHAT)]
    pub(crate) output: Option<PathBuf>,
    /// The tokenizer of the tokens, a folder or hf://owner/name or hf://owner/name@revision: a sheet of samples is then drawn now and then
    #[arg(long, value_name = "PATH|hf://…", help_heading = WHAT)]
    pub(crate) tokenizer: Option<String>,

    /// Generator and recipe: gpt-b, gpt-l (the published ones), gpt-xl, gpt-xxl, or tiny, for small images and a processor
    #[arg(long, value_name = "NAME", help_heading = GENERATOR, default_value = "gpt-l")]
    pub(crate) preset: Option<String>,
    /// A config.json that takes the place of the preset's generator; the flags of this section are laid over it
    #[arg(long, value_name = "FILE", help_heading = GENERATOR)]
    pub(crate) generator_config: Option<PathBuf>,
    /// Predict one token a step at every level, as plain LlamaGen does, for comparison: the same tables, the same job
    #[arg(long, help_heading = GENERATOR, default_value = "false")]
    pub(crate) token_by_token: Option<bool>,
    /// Number of classes, 1000 for ImageNet; as many as the tables name when absent (those of folders do, tar and Parquet name none)
    #[arg(long, value_name = "COUNT", help_heading = GENERATOR)]
    pub(crate) classes: Option<usize>,
    /// Names of the classes by number, with commas, for sheets; those that the tables name when absent
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = GENERATOR)]
    pub(crate) class_names: Option<Vec<String>>,
    /// How often an image's class is left out, for classifier-free guidance; 0 for a generator that cannot be guided; 0.1 when absent
    #[arg(long, value_name = "SHARE", help_heading = GENERATOR)]
    pub(crate) class_dropout: Option<f64>,
    /// Dropout of tokens, of attention's output and of hidden layers; 0.1 when absent
    #[arg(long, value_name = "SHARE", help_heading = GENERATOR)]
    pub(crate) dropout: Option<f64>,

    /// Passes over the images, each seen in one of its views in a pass; 300 when absent, but for tiny, which has 10,000 steps
    #[arg(long, value_name = "EPOCHS", help_heading = RECIPE)]
    pub(crate) epochs: Option<u64>,
    /// Updates in all, in place of --epochs
    #[arg(long, value_name = "STEPS", help_heading = RECIPE)]
    pub(crate) steps: Option<u64>,
    /// Images that are in memory at once
    #[arg(long, value_name = "IMAGES", help_heading = RECIPE)]
    pub(crate) batch_size: Option<usize>,
    /// Batches whose gradients make one update together
    #[arg(long, alias = "accumulation", value_name = "BATCHES", help_heading = RECIPE, default_value = "1")]
    pub(crate) gradient_accumulation: Option<usize>,
    /// Arithmetic of the transformer's products; norms, the residual stream and the loss are fp32
    #[arg(long, value_parser = training_precision_parser(), value_name = "PRECISION", help_heading = RECIPE)]
    pub(crate) precision: Option<String>,
    /// Of the first weights and of everything that is drawn during the run
    #[arg(long, value_name = "NUMBER", help_heading = RECIPE)]
    pub(crate) seed: Option<u64>,
    /// Rate, optimizer and average.
    #[command(flatten)]
    pub(crate) recipe: RecipeOptions,

    /// Bytes of tokens in memory; larger tables stream file by file, and are then shuffled in windows of half of it
    #[arg(long, value_name = "BYTES", help_heading = HOW, default_value = "4294967296")]
    pub(crate) memory_bytes: Option<u64>,
    /// How the run goes.
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Images of a validation, the first ones of the validation source
    #[arg(long, value_name = "IMAGES", help_heading = HOW, default_value = "10000")]
    pub(crate) validation_images: Option<u64>,
    /// Steps between two sheets of samples; needs --tokenizer
    #[arg(long, value_name = "STEPS", help_heading = HOW, default_value = "5000")]
    pub(crate) sheet_every: Option<u64>,
    /// Guidance of the samples on sheets, from a quarter of their steps on; 3.75 when absent, and 1, which is none, with --class-dropout 0
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
    /// How it is trained, but for the number of steps.
    recipe: GeneratorRecipe,
    /// How long.
    length: Length,
    /// Images in memory at once.
    pub(crate) batch_size: usize,
    /// Batches of an update.
    pub(crate) accumulation: usize,
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
    /// The settings.
    ///
    /// # Errors
    /// When something needed is absent, or a value cannot be.
    pub(crate) fn resolve(self) -> Result<TrainGeneratorSettings, SettingsError> {
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
        let recipe = self.recipe(preset)?;
        for (key, share) in [("--class-dropout", self.class_dropout), ("--dropout", self.dropout)] {
            share.map_or(Ok(()), |share| share_below_one(key, share))?;
        }
        let generator = GeneratorChoice {
            size,
            config: self.generator_config.as_deref().map(generator::read_config).transpose()?,
            token_by_token: self.token_by_token == Some(true),
            classes: self.classes.map(|classes| at_least_one("--classes", Some(classes))).transpose()?,
            class_dropout: self.class_dropout,
            dropout: self.dropout,
        };
        let accumulation = at_least_one("--gradient-accumulation", self.gradient_accumulation)?;
        Ok(TrainGeneratorSettings {
            source,
            validation_source: self.validation_source.unwrap_or_default(),
            tokenizer: self.tokenizer.map(|tokenizer| ModelReference::parse("tokenizer", &tokenizer)).transpose()?,
            class_names: self.class_names,
            sampling: sampling(self.sheet_guidance, generator.is_guided(), recipe.seed)?,
            generator,
            recipe,
            length,
            batch_size: batch_size(self.batch_size, accumulation, global_batch_size)?,
            accumulation,
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

    /// The preset's recipe with what was asked for laid over it, and as many steps as nobody could want: their number is not known yet.
    fn recipe(&self, mut preset: GeneratorRecipe) -> Result<GeneratorRecipe, SettingsError> {
        preset.learning_rate.steps = u64::MAX;
        let numbers = self.recipe.over(numbers(&preset));
        numbers.check()?;
        Ok(GeneratorRecipe {
            seed: self.seed.unwrap_or(preset.seed),
            precision: match &self.precision {
                Some(name) => precision(Some(name.clone()))?,
                None => preset.precision,
            },
            learning_rate: numbers.learning_rate,
            optimizer: numbers.optimizer,
            max_grad_norm: numbers.max_grad_norm,
            ema_decay: numbers.ema_decay,
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
