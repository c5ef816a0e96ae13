//! Options and settings of `restok train-generator`.

mod generator;

pub(crate) use generator::TokenFacts;

use super::{
    ModelReference, Options, SettingsError,
    table_commands::required,
    tokenize::precision,
    training::{RecipeChoice, RecipeNumbers, RunChoice, RunSettings, at_least_one, batch_size, share_below_one},
    values::training_precision_parser,
};
use crate::environment;
use generator::GeneratorChoice;
use models::{DeviceChoice, GeneratorRecipe, GeneratorSize, Precision};
use schemas::{GuidanceSchedule, Sampling};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

const WHAT: &str = "What and where";
const GENERATOR: &str = "The generator";
const RECIPE: &str = "The recipe (defaults are the preset's)";
const HOW: &str = "How it runs";

/// Passes over the images where neither epochs nor steps are given: the published number.
const PUBLISHED_EPOCHS: u64 = 300;

/// Options of `restok train-generator`.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct TrainGeneratorOptions {
    /// Finished outputs of `restok tokenize` whose tokens to train on, with commas or the flag several times; all of one tokenizer
    #[arg(long, value_name = "URL", env = environment::SOURCE, value_delimiter = ',', help_heading = WHAT)]
    pub(crate) source: Option<Vec<String>>,
    /// Finished outputs whose tokens to validate on, of the same tokenizer; no validation when absent
    #[arg(long, value_name = "URL", env = environment::VALIDATION_SOURCE, value_delimiter = ',', help_heading = WHAT)]
    pub(crate) validation_source: Option<Vec<String>>,
    /// Folder for checkpoints, metrics, sheets of samples and the trained generator. A run that is there already goes on from its last checkpoint
    #[arg(long, value_name = "FOLDER", env = environment::OUTPUT, help_heading = WHAT)]
    pub(crate) output: Option<PathBuf>,
    /// The tokenizer of the tokens, a folder or hf://owner/name or hf://owner/name@revision: a sheet of samples is then drawn now and then
    #[arg(long, value_name = "PATH|hf://…", env = environment::TOKENIZER, help_heading = WHAT)]
    pub(crate) tokenizer: Option<String>,

    /// Generator and recipe: gpt-b, gpt-l (the published ones), gpt-xl, gpt-xxl, or tiny, for small images and a processor
    #[arg(long, value_name = "NAME", env = environment::PRESET, help_heading = GENERATOR)]
    pub(crate) preset: Option<String>,
    /// A config.json that takes the place of the preset's generator; the flags of this section are laid over it
    #[arg(long, value_name = "FILE", env = environment::GENERATOR_CONFIG, help_heading = GENERATOR)]
    pub(crate) generator_config: Option<PathBuf>,
    /// Predict one token a step at every level, as plain LlamaGen does, for comparison: the same tables, the same job
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL", env = environment::TOKEN_BY_TOKEN, help_heading = GENERATOR)]
    pub(crate) token_by_token: Option<bool>,
    /// Number of classes, 1000 for ImageNet; as many as the tables name when absent (those of folders do, tar and Parquet name none)
    #[arg(long, value_name = "COUNT", env = environment::CLASSES, help_heading = GENERATOR)]
    pub(crate) classes: Option<usize>,
    /// Names of the classes by number, with commas, for sheets; those that the tables name when absent
    #[arg(long, value_name = "NAMES", env = environment::CLASS_NAMES, value_delimiter = ',', help_heading = GENERATOR)]
    pub(crate) class_names: Option<Vec<String>>,
    /// How often an image's class is left out, for classifier-free guidance; 0 for a generator that cannot be guided; 0.1 when absent
    #[arg(long, value_name = "SHARE", env = environment::CLASS_DROPOUT, help_heading = GENERATOR)]
    pub(crate) class_dropout: Option<f64>,
    /// Dropout of tokens, of attention's output and of hidden layers; 0.1 when absent
    #[arg(long, value_name = "SHARE", env = environment::DROPOUT, help_heading = GENERATOR)]
    pub(crate) dropout: Option<f64>,

    /// Passes over the images, each seen in one of its views in a pass; 300 when absent, but for tiny, which has 10,000 steps
    #[arg(long, value_name = "EPOCHS", env = environment::EPOCHS, help_heading = RECIPE)]
    pub(crate) epochs: Option<u64>,
    /// Updates in all, in place of --epochs
    #[arg(long, value_name = "STEPS", env = environment::STEPS, help_heading = RECIPE)]
    pub(crate) steps: Option<u64>,
    /// Images that are in memory at once
    #[arg(long, value_name = "IMAGES", env = environment::BATCH_SIZE, help_heading = RECIPE)]
    pub(crate) batch_size: Option<usize>,
    /// Batches whose gradients make one update together
    #[arg(long, value_name = "BATCHES", env = environment::ACCUMULATION, help_heading = RECIPE)]
    pub(crate) accumulation: Option<usize>,
    /// Arithmetic of the transformer's products; norms, the residual stream and the loss are fp32
    #[arg(long, value_parser = training_precision_parser(), value_name = "PRECISION", env = environment::PRECISION, help_heading = RECIPE)]
    pub(crate) precision: Option<String>,
    /// Of the first weights and of everything that is drawn during the run
    #[arg(long, value_name = "NUMBER", env = environment::SEED, help_heading = RECIPE)]
    pub(crate) seed: Option<u64>,
    /// Rate after the warm-up
    #[arg(long, value_name = "RATE", env = environment::LEARNING_RATE, help_heading = RECIPE)]
    pub(crate) learning_rate: Option<f64>,
    /// Rate at the end of the cosine
    #[arg(long, value_name = "RATE", env = environment::END_LEARNING_RATE, help_heading = RECIPE)]
    pub(crate) end_learning_rate: Option<f64>,
    /// Updates of the warm-up
    #[arg(long, value_name = "STEPS", env = environment::WARMUP_STEPS, help_heading = RECIPE)]
    pub(crate) warmup_steps: Option<u64>,
    /// AdamW's decay of the mean of gradients
    #[arg(long, value_name = "DECAY", env = environment::BETA1, help_heading = RECIPE)]
    pub(crate) beta1: Option<f64>,
    /// AdamW's decay of the mean of their squares
    #[arg(long, value_name = "DECAY", env = environment::BETA2, help_heading = RECIPE)]
    pub(crate) beta2: Option<f64>,
    /// Weight decay; norms and embeddings have none
    #[arg(long, value_name = "DECAY", env = environment::WEIGHT_DECAY, help_heading = RECIPE)]
    pub(crate) weight_decay: Option<f64>,
    /// Largest norm of all gradients together
    #[arg(long, value_name = "NORM", env = environment::GRADIENT_NORM, help_heading = RECIPE)]
    pub(crate) gradient_norm: Option<f64>,
    /// Decay of the weights' moving average, which is what is validated and published
    #[arg(long, value_name = "DECAY", env = environment::AVERAGE_DECAY, help_heading = RECIPE)]
    pub(crate) average_decay: Option<f64>,

    /// Bytes of tokens in memory; larger tables stream file by file, and are then shuffled in windows of half of it
    #[arg(long, value_name = "BYTES", env = environment::MEMORY_BYTES, help_heading = HOW)]
    pub(crate) memory_bytes: Option<u64>,
    /// Device: auto, cpu or cuda:N
    #[arg(long, value_name = "DEVICE", env = environment::DEVICE, help_heading = HOW)]
    pub(crate) device: Option<String>,
    /// Threads that torch uses on the processor; all cores when absent. The last bits of sums depend on it: give a run the same number at every start
    #[arg(long, value_name = "COUNT", env = environment::DEVICE_THREADS, help_heading = HOW)]
    pub(crate) device_threads: Option<usize>,
    /// Steps between two lines of the metrics
    #[arg(long, value_name = "STEPS", env = environment::LOG_EVERY, help_heading = HOW)]
    pub(crate) log_every: Option<u64>,
    /// Steps between two checkpoints
    #[arg(long, value_name = "STEPS", env = environment::SAVE_EVERY, help_heading = HOW)]
    pub(crate) save_every: Option<u64>,
    /// Checkpoints that are kept, the newest ones
    #[arg(long, value_name = "COUNT", env = environment::KEEP_CHECKPOINTS, help_heading = HOW)]
    pub(crate) keep_checkpoints: Option<usize>,
    /// Steps between two validations
    #[arg(long, value_name = "STEPS", env = environment::VALIDATE_EVERY, help_heading = HOW)]
    pub(crate) validate_every: Option<u64>,
    /// Images of a validation, the first ones of the validation source
    #[arg(long, value_name = "IMAGES", env = environment::VALIDATION_IMAGES, help_heading = HOW)]
    pub(crate) validation_images: Option<u64>,
    /// Steps between two sheets of samples; needs --tokenizer
    #[arg(long, value_name = "STEPS", env = environment::SHEET_EVERY, help_heading = HOW)]
    pub(crate) sheet_every: Option<u64>,
    /// Guidance of the samples on sheets, from a quarter of their steps on; 3.75 when absent, and 1, which is none, with --class-dropout 0
    #[arg(long, value_name = "SCALE", env = environment::SHEET_GUIDANCE, help_heading = HOW)]
    pub(crate) sheet_guidance: Option<f64>,
    /// Numbers of the trained generator's weights: fp32, or fp16, half as large
    #[arg(long, value_parser = ["fp32", "fp16"], value_name = "PRECISION", env = environment::PUBLISH_PRECISION, help_heading = HOW)]
    pub(crate) publish_precision: Option<String>,
    /// Go on with a run that was begun with other settings; what changed, and at which step, is kept in its checkpoints
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL", env = environment::ALLOW_OTHER_SETTINGS, help_heading = HOW)]
    pub(crate) allow_other_settings: Option<bool>,
    /// Stop, with a checkpoint, when this many steps are done; the schedule goes on to be that of --epochs or --steps
    #[arg(long, value_name = "STEPS", env = environment::STOP_AFTER, help_heading = HOW)]
    pub(crate) stop_after: Option<u64>,
}

impl Options for TrainGeneratorOptions {
    fn defaults() -> Self {
        Self {
            preset: Some(GeneratorSize::GptL.name().to_owned()),
            token_by_token: Some(false),
            accumulation: Some(1),
            // In which ImageNet in ten crops fits.
            memory_bytes: Some(4 << 30),
            device: Some(DeviceChoice::Auto.to_string()),
            log_every: Some(50),
            save_every: Some(5_000),
            keep_checkpoints: Some(3),
            validate_every: Some(5_000),
            validation_images: Some(10_000),
            sheet_every: Some(5_000),
            publish_precision: Some(Precision::Fp32.to_string()),
            allow_other_settings: Some(false),
            ..Self::default()
        }
    }
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
        let source = required(self.source.clone(), "source", "--source URL", environment::SOURCE, SECTION)?;
        let run = self.run().resolve(SECTION)?;
        let name = self.preset.clone().unwrap_or_default();
        let size = GeneratorSize::named(&name).map_err(|_| {
            SettingsError::invalid(
                "--preset",
                format!("{name:?}"),
                GeneratorSize::ALL.map(GeneratorSize::name).join(", "),
            )
        })?;
        let (preset, images_a_step) = GeneratorRecipe::of_size(size);
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
        let accumulation = at_least_one("--accumulation", self.accumulation)?;
        Ok(TrainGeneratorSettings {
            source,
            validation_source: self.validation_source.unwrap_or_default(),
            tokenizer: self.tokenizer.map(|tokenizer| ModelReference::parse("tokenizer", &tokenizer)).transpose()?,
            class_names: self.class_names,
            sampling: sampling(self.sheet_guidance, generator.is_guided(), recipe.seed)?,
            generator,
            recipe,
            length,
            batch_size: batch_size(self.batch_size, accumulation, images_a_step)?,
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
        let choice = RecipeChoice {
            learning_rate: self.learning_rate,
            end_learning_rate: self.end_learning_rate,
            warmup_steps: self.warmup_steps,
            beta1: self.beta1,
            beta2: self.beta2,
            weight_decay: self.weight_decay,
            gradient_norm: self.gradient_norm,
            average_decay: self.average_decay,
        };
        let numbers = choice.over(numbers(&preset));
        numbers.check()?;
        Ok(GeneratorRecipe {
            seed: self.seed.unwrap_or(preset.seed),
            precision: match &self.precision {
                Some(name) => precision(Some(name.clone()))?,
                None => preset.precision,
            },
            learning_rate: numbers.learning_rate,
            optimizer: numbers.optimizer,
            largest_gradient_norm: numbers.largest_gradient_norm,
            average_decay: numbers.average_decay,
        })
    }

    /// What is said of the run.
    fn run(&self) -> RunChoice {
        RunChoice {
            output: self.output.clone(),
            device: self.device.clone(),
            device_threads: self.device_threads,
            log_every: self.log_every,
            save_every: self.save_every,
            keep_checkpoints: self.keep_checkpoints,
            validate_every: self.validate_every,
            validation_images: self.validation_images,
            sheet_every: self.sheet_every,
            publish_precision: self.publish_precision.clone(),
            allow_other_settings: self.allow_other_settings,
            stop_after: self.stop_after,
        }
    }
}

fn numbers(recipe: &GeneratorRecipe) -> RecipeNumbers {
    RecipeNumbers {
        learning_rate: recipe.learning_rate,
        optimizer: recipe.optimizer,
        largest_gradient_norm: recipe.largest_gradient_norm,
        average_decay: recipe.average_decay,
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
