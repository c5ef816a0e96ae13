//! Options and settings of `restok train-tokenizer`.

use super::{
    Options, RejectRate, SettingsError,
    table_commands::required,
    tokenize::precision,
    training::{RecipeChoice, RecipeNumbers, RunChoice, RunSettings, at_least_one, batch_size, not_negative},
    values::{layout_parser, training_precision_parser},
};
use crate::environment;
use models::{
    Adversary, CosineSchedule, DeviceChoice, FrozenFiles, Precision, ReconstructionKind, TokenizerConfig,
    TokenizerPreset, TokenizerRecipe,
};
use schemas::SourceLayout;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Options of `restok train-tokenizer`.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct TrainTokenizerOptions {
    /// Where the images to train on are, as for `restok tokenize`: s3://, gs://, az://, https://, file:// or a plain path; patterns name many
    #[arg(long, value_name = "URL", env = environment::SOURCE, help_heading = "What and where")]
    pub(crate) source: Option<String>,
    /// Where the images to validate on are; no validation when absent
    #[arg(long, value_name = "URL", env = environment::VALIDATION_SOURCE, help_heading = "What and where")]
    pub(crate) validation_source: Option<String>,
    /// Folder for checkpoints, metrics, contact sheets and the trained tokenizer. A run that is there already goes on from its last checkpoint
    #[arg(long, value_name = "FOLDER", env = environment::OUTPUT, help_heading = "What and where")]
    pub(crate) output: Option<PathBuf>,
    /// How the images lie in the sources; recognised from file names when absent
    #[arg(long, value_parser = layout_parser(), value_name = "LAYOUT", env = environment::LAYOUT, help_heading = "What and where")]
    pub(crate) layout: Option<SourceLayout>,
    /// Take only the first images of the source, for a trial
    #[arg(long, value_name = "IMAGES", env = environment::MAX_IMAGES, help_heading = "What and where")]
    pub(crate) max_images: Option<u64>,
    /// Share of broken images above which the job fails, such as 1% or 0.01
    #[arg(long, value_name = "SHARE", env = environment::MAX_REJECT_RATE, help_heading = "What and where")]
    pub(crate) max_reject_rate: Option<RejectRate>,
    /// Tokenizer and recipe: restok-l-128 (the published ones), restok-b-128, restok-s-128, or tiny (32 by 32 pixels)
    #[arg(long, value_name = "NAME", env = environment::PRESET, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) preset: Option<String>,
    /// A config.json that takes the place of the preset's tokenizer
    #[arg(long, value_name = "FILE", env = environment::TOKENIZER_CONFIG, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) tokenizer_config: Option<PathBuf>,
    /// Updates in all
    #[arg(long, value_name = "STEPS", env = environment::STEPS, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) steps: Option<u64>,
    /// Images that are in memory at once
    #[arg(long, value_name = "IMAGES", env = environment::BATCH_SIZE, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) batch_size: Option<usize>,
    /// Batches whose gradients make one update together
    #[arg(long, value_name = "BATCHES", env = environment::ACCUMULATION, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) accumulation: Option<usize>,
    /// Arithmetic of the transformers and the convolutional encoder; everything else is fp32
    #[arg(long, value_parser = training_precision_parser(), value_name = "PRECISION", env = environment::PRECISION, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) precision: Option<String>,
    /// Of the first weights and of everything that is drawn during the run
    #[arg(long, value_name = "NUMBER", env = environment::SEED, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) seed: Option<u64>,
    /// Rate after the warm-up, of tokenizer and discriminator
    #[arg(long, value_name = "RATE", env = environment::LEARNING_RATE, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) learning_rate: Option<f64>,
    /// Rate at the end of the cosine
    #[arg(long, value_name = "RATE", env = environment::END_LEARNING_RATE, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) end_learning_rate: Option<f64>,
    /// Updates of the warm-up
    #[arg(long, value_name = "STEPS", env = environment::WARMUP_STEPS, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) warmup_steps: Option<u64>,
    /// AdamW's decay of the mean of gradients
    #[arg(long, value_name = "DECAY", env = environment::BETA1, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) beta1: Option<f64>,
    /// AdamW's decay of the mean of their squares
    #[arg(long, value_name = "DECAY", env = environment::BETA2, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) beta2: Option<f64>,
    /// Weight decay; norms, biases, embeddings and tokens have none
    #[arg(long, value_name = "DECAY", env = environment::WEIGHT_DECAY, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) weight_decay: Option<f64>,
    /// Largest norm of all gradients together
    #[arg(long, value_name = "NORM", env = environment::GRADIENT_NORM, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) gradient_norm: Option<f64>,
    /// Decay of the weights' moving average, which is what is validated and published
    #[arg(long, value_name = "DECAY", env = environment::AVERAGE_DECAY, help_heading = "The recipe (defaults are the preset's)")]
    pub(crate) average_decay: Option<f64>,
    /// Distance of pixels: l1 or l2
    #[arg(long, value_parser = ["l1", "l2"], value_name = "LOSS", env = environment::RECONSTRUCTION, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) reconstruction: Option<String>,
    /// Weight of that distance
    #[arg(long, value_name = "WEIGHT", env = environment::RECONSTRUCTION_WEIGHT, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) reconstruction_weight: Option<f64>,
    /// Weight of commitment, codebook and entropy losses together
    #[arg(long, value_name = "WEIGHT", env = environment::QUANTIZER_WEIGHT, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) quantizer_weight: Option<f64>,
    /// Weight of LPIPS; needs --vgg16 and --lpips
    #[arg(long, value_name = "WEIGHT", env = environment::PERCEPTUAL_WEIGHT, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) perceptual_weight: Option<f64>,
    /// Weight of the alignment with a vision foundation model; needs --foundation-model, and use_vf in the tokenizer's configuration
    #[arg(long, value_name = "WEIGHT", env = environment::ALIGNMENT_WEIGHT, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) alignment_weight: Option<f64>,
    /// Cosine distance that alignment lets pass
    #[arg(long, value_name = "COSINE", env = environment::ALIGNMENT_MARGIN, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) alignment_margin: Option<f64>,
    /// Discriminator: dino (heads over a frozen network; needs --dino) or patch
    #[arg(long, value_parser = ["dino", "patch"], value_name = "NAME", env = environment::ADVERSARY, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) adversary: Option<String>,
    /// Weight of the discriminator's opinion
    #[arg(long, value_name = "WEIGHT", env = environment::ADVERSARIAL_WEIGHT, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) adversarial_weight: Option<f64>,
    /// First step with a discriminator
    #[arg(long, value_name = "STEP", env = environment::ADVERSARIAL_START, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) adversarial_start: Option<u64>,
    /// Weight of the discriminator's LeCam regularization
    #[arg(long, value_name = "WEIGHT", env = environment::LECAM_WEIGHT, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) lecam_weight: Option<f64>,
    /// VGG16's weights, safetensors; docs/frozen-networks.md says where to get each of these
    #[arg(long, value_name = "FILE", env = environment::VGG16, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) vgg16: Option<PathBuf>,
    /// LPIPS' linear layers, safetensors
    #[arg(long, value_name = "FILE", env = environment::LPIPS, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) lpips: Option<PathBuf>,
    /// DINO ViT-S/16's weights, safetensors
    #[arg(long, value_name = "FILE", env = environment::DINO, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) dino: Option<PathBuf>,
    /// Weights of the vision foundation model that the tokenizer's configuration names (use_vf), safetensors
    #[arg(long, value_name = "FILE", env = environment::FOUNDATION_MODEL, help_heading = "The objective (defaults are the preset's; a weight of 0 switches a term off)")]
    pub(crate) foundation_model: Option<PathBuf>,
    /// Smallest window of a random crop, as a share of the image's shorter side
    #[arg(long, value_name = "SHARE", env = environment::SMALLEST_SCALE, help_heading = "Data")]
    pub(crate) smallest_scale: Option<f64>,
    /// Largest window of a random crop
    #[arg(long, value_name = "SHARE", env = environment::LARGEST_SCALE, help_heading = "Data")]
    pub(crate) largest_scale: Option<f64>,
    /// Do not mirror every other image at random
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL", env = environment::NO_FLIP, help_heading = "Data")]
    pub(crate) no_flip: Option<bool>,
    /// Images that are shuffled among each other, besides the shuffling of shards
    #[arg(long, value_name = "IMAGES", env = environment::SHUFFLE_IMAGES, help_heading = "Data")]
    pub(crate) shuffle_images: Option<usize>,
    /// Device: auto, cpu or cuda:N
    #[arg(long, value_name = "DEVICE", env = environment::DEVICE, help_heading = "How it runs")]
    pub(crate) device: Option<String>,
    /// Threads that torch uses on the processor; all cores when absent. The last bits of sums depend on it: give a run the same number at every start
    #[arg(long, value_name = "COUNT", env = environment::DEVICE_THREADS, help_heading = "How it runs")]
    pub(crate) device_threads: Option<usize>,
    /// Steps between two lines of the metrics
    #[arg(long, value_name = "STEPS", env = environment::LOG_EVERY, help_heading = "How it runs")]
    pub(crate) log_every: Option<u64>,
    /// Steps between two checkpoints
    #[arg(long, value_name = "STEPS", env = environment::SAVE_EVERY, help_heading = "How it runs")]
    pub(crate) save_every: Option<u64>,
    /// Checkpoints that are kept, the newest ones
    #[arg(long, value_name = "COUNT", env = environment::KEEP_CHECKPOINTS, help_heading = "How it runs")]
    pub(crate) keep_checkpoints: Option<usize>,
    /// Steps between two validations
    #[arg(long, value_name = "STEPS", env = environment::VALIDATE_EVERY, help_heading = "How it runs")]
    pub(crate) validate_every: Option<u64>,
    /// Images of a validation, the first ones of the validation source
    #[arg(long, value_name = "IMAGES", env = environment::VALIDATION_IMAGES, help_heading = "How it runs")]
    pub(crate) validation_images: Option<u64>,
    /// Steps between two contact sheets
    #[arg(long, value_name = "STEPS", env = environment::SHEET_EVERY, help_heading = "How it runs")]
    pub(crate) sheet_every: Option<u64>,
    /// Numbers of the weights in tokenizer/ and best/: fp32, or fp16, half as large
    #[arg(long, value_parser = ["fp32", "fp16"], value_name = "PRECISION", env = environment::PUBLISH_PRECISION, help_heading = "How it runs")]
    pub(crate) publish_precision: Option<String>,
    /// Go on with a run that was begun with other settings; what changed, and at which step, is kept in its checkpoints
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL", env = environment::ALLOW_OTHER_SETTINGS, help_heading = "How it runs")]
    pub(crate) allow_other_settings: Option<bool>,
    /// Stop, with a checkpoint, when this many steps are done; the schedule goes on to be that of --steps
    #[arg(long, value_name = "STEPS", env = environment::STOP_AFTER, help_heading = "How it runs")]
    pub(crate) stop_after: Option<u64>,
}

impl Options for TrainTokenizerOptions {
    fn defaults() -> Self {
        Self {
            preset: Some("restok-l-128".to_owned()),
            accumulation: Some(1),
            max_reject_rate: Some(RejectRate::default()),
            smallest_scale: Some(0.8),
            largest_scale: Some(1.0),
            no_flip: Some(false),
            shuffle_images: Some(8_192),
            device: Some(DeviceChoice::Auto.to_string()),
            log_every: Some(50),
            save_every: Some(5_000),
            keep_checkpoints: Some(3),
            validate_every: Some(5_000),
            validation_images: Some(2_048),
            sheet_every: Some(5_000),
            publish_precision: Some(Precision::Fp32.to_string()),
            allow_other_settings: Some(false),
            ..Self::default()
        }
    }
}

/// Settings of `restok train-tokenizer`: nothing that is needed is absent.
#[derive(Clone, Debug)]
pub(crate) struct TrainTokenizerSettings {
    /// Images to train on.
    pub(crate) source: String,
    /// Images to validate on.
    pub(crate) validation_source: Option<String>,
    /// How the images lie; `None` to recognise it.
    pub(crate) layout: Option<SourceLayout>,
    /// Only the first images.
    pub(crate) max_images: Option<u64>,
    /// Share of broken images above which the job fails.
    pub(crate) max_reject_rate: RejectRate,
    /// The tokenizer.
    pub(crate) config: TokenizerConfig,
    /// How it is trained.
    pub(crate) recipe: TokenizerRecipe,
    /// Frozen networks.
    pub(crate) frozen: FrozenFiles,
    /// Updates in all.
    pub(crate) steps: u64,
    /// Images in memory at once.
    pub(crate) batch_size: usize,
    /// Batches of an update.
    pub(crate) accumulation: usize,
    /// Smallest and largest window of a random crop.
    pub(crate) scales: (f64, f64),
    /// Mirror every other image.
    pub(crate) flip: bool,
    /// Images shuffled among each other.
    pub(crate) shuffle_images: usize,
    /// How the run goes.
    pub(crate) run: RunSettings,
}

impl TrainTokenizerOptions {
    /// The settings.
    ///
    /// # Errors
    /// When something needed is absent, or a value cannot be.
    pub(crate) fn resolve(self) -> Result<TrainTokenizerSettings, SettingsError> {
        const SECTION: &str = "train-tokenizer";
        let source = required(self.source.clone(), "source", "--source URL", environment::SOURCE, SECTION)?;
        let run = self.run().resolve(SECTION)?;
        let name = self.preset.clone().unwrap_or_default();
        let preset = TokenizerPreset::named(&name)
            .map_err(|_| SettingsError::invalid("--preset", format!("{name:?}"), TokenizerPreset::NAMES.join(", ")))?;
        let (config, images_a_step) = (self.config(preset.config)?, preset.images_a_step);
        let recipe = self.recipe(preset.recipe)?;
        let accumulation = at_least_one("--accumulation", self.accumulation)?;
        let (smallest, largest) = (self.smallest_scale.unwrap_or(0.8), self.largest_scale.unwrap_or(1.0));
        if !(smallest > 0.0 && smallest <= largest && largest <= 1.0) {
            return Err(SettingsError::invalid(
                "--smallest-scale and --largest-scale",
                format!("{smallest} and {largest}"),
                "more than 0, at most 1, the smallest first",
            ));
        }
        Ok(TrainTokenizerSettings {
            source,
            validation_source: self.validation_source,
            layout: self.layout,
            max_images: self.max_images,
            max_reject_rate: self.max_reject_rate.unwrap_or_default(),
            config,
            frozen: FrozenFiles {
                vgg16: self.vgg16,
                lpips: self.lpips,
                dino: self.dino,
                foundation_model: self.foundation_model,
            },
            steps: at_least_one("--steps", Some(recipe.learning_rate.steps))?,
            recipe,
            batch_size: batch_size(self.batch_size, accumulation, images_a_step)?,
            accumulation,
            scales: (smallest, largest),
            flip: self.no_flip != Some(true),
            shuffle_images: at_least_one("--shuffle-images", self.shuffle_images)?,
            run,
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

    /// The preset's tokenizer, or that of a file.
    fn config(&self, preset: TokenizerConfig) -> Result<TokenizerConfig, SettingsError> {
        let Some(file) = &self.tokenizer_config else { return Ok(preset) };
        let wrong = |problem: String| SettingsError::File { path: file.clone(), problem };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        TokenizerConfig::from_json(&text, file).map_err(|error| wrong(error.to_string()))
    }

    /// The preset's recipe with what was asked for laid over it.
    fn recipe(&self, preset: TokenizerRecipe) -> Result<TokenizerRecipe, SettingsError> {
        let steps = self.steps.unwrap_or(preset.learning_rate.steps);
        let adversarial_start = self.adversarial_start.unwrap_or(preset.adversarial_start);
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
        let numbers = choice.over(RecipeNumbers {
            learning_rate: CosineSchedule { steps, ..preset.learning_rate },
            optimizer: preset.optimizer,
            largest_gradient_norm: preset.largest_gradient_norm,
            average_decay: preset.average_decay,
        });
        let recipe = TokenizerRecipe {
            seed: self.seed.unwrap_or(preset.seed),
            precision: match &self.precision {
                Some(name) => precision(Some(name.clone()))?,
                None => preset.precision,
            },
            reconstruction: match self.reconstruction.as_deref() {
                Some("l1") => ReconstructionKind::L1,
                Some("l2") => ReconstructionKind::L2,
                Some(other) => return Err(SettingsError::invalid("--reconstruction", other, "l1 or l2")),
                None => preset.reconstruction,
            },
            reconstruction_weight: self.reconstruction_weight.unwrap_or(preset.reconstruction_weight),
            perceptual_weight: self.perceptual_weight.unwrap_or(preset.perceptual_weight),
            quantizer_weight: self.quantizer_weight.unwrap_or(preset.quantizer_weight),
            alignment_weight: self.alignment_weight.unwrap_or(preset.alignment_weight),
            alignment_margin: self.alignment_margin.unwrap_or(preset.alignment_margin),
            adversary: match self.adversary.as_deref() {
                Some("dino") => Adversary::Dino,
                Some("patch") => Adversary::Patch,
                Some(other) => return Err(SettingsError::invalid("--adversary", other, "dino or patch")),
                None => preset.adversary,
            },
            adversarial_weight: self.adversarial_weight.unwrap_or(preset.adversarial_weight),
            adversarial_start,
            lecam_weight: self.lecam_weight.unwrap_or(preset.lecam_weight),
            learning_rate: numbers.learning_rate,
            discriminator_learning_rate: choice.schedule(CosineSchedule {
                steps: steps.saturating_sub(adversarial_start),
                ..preset.discriminator_learning_rate
            }),
            optimizer: numbers.optimizer,
            largest_gradient_norm: numbers.largest_gradient_norm,
            average_decay: numbers.average_decay,
        };
        numbers.check()?;
        not_negative(&[
            ("--reconstruction-weight", recipe.reconstruction_weight),
            ("--perceptual-weight", recipe.perceptual_weight),
            ("--quantizer-weight", recipe.quantizer_weight),
            ("--alignment-weight", recipe.alignment_weight),
            ("--adversarial-weight", recipe.adversarial_weight),
            ("--lecam-weight", recipe.lecam_weight),
            ("--alignment-margin", recipe.alignment_margin),
        ])?;
        if recipe.adversarial_weight > 0.0 && recipe.adversarial_start >= steps {
            return Err(SettingsError::invalid(
                "--adversarial-start",
                recipe.adversarial_start.to_string(),
                format!("less than --steps, {steps}, or --adversarial-weight 0"),
            ));
        }
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> TrainTokenizerOptions {
        TrainTokenizerOptions {
            source: Some("in".to_owned()),
            output: Some("out".into()),
            ..TrainTokenizerOptions::defaults()
        }
    }

    #[test]
    fn the_published_recipe_is_the_default() {
        let settings = complete().resolve().expect("complete");
        assert_eq!(settings.recipe, TokenizerRecipe::published());
        assert_eq!((settings.steps, settings.batch_size, settings.accumulation), (1_000_000, 256, 1));
    }

    #[test]
    fn accumulation_divides_the_images_of_a_step() {
        let options = TrainTokenizerOptions { accumulation: Some(8), ..complete() };
        assert_eq!(options.resolve().expect("complete").batch_size, 32);
    }

    #[test]
    fn another_number_of_steps_moves_both_schedules() {
        let options = TrainTokenizerOptions { steps: Some(100_000), adversarial_start: Some(10_000), ..complete() };
        let recipe = options.resolve().expect("complete").recipe;
        assert_eq!((recipe.learning_rate.steps, recipe.discriminator_learning_rate.steps), (100_000, 90_000));
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_their_flag() {
        for (options, flag) in [
            (TrainTokenizerOptions { batch_size: Some(0), ..complete() }, "--batch-size"),
            (TrainTokenizerOptions { save_every: Some(0), ..complete() }, "--save-every"),
            (TrainTokenizerOptions { steps: Some(0), ..complete() }, "--steps"),
            (TrainTokenizerOptions { learning_rate: Some(f64::NAN), ..complete() }, "--learning-rate"),
            (TrainTokenizerOptions { accumulation: Some(3), ..complete() }, "--accumulation"),
            (TrainTokenizerOptions { steps: Some(10_000), ..complete() }, "--adversarial-start"),
            (TrainTokenizerOptions { warmup_steps: Some(2_000_000), ..complete() }, "--warmup-steps"),
            (TrainTokenizerOptions { end_learning_rate: Some(1.0), ..complete() }, "--end-learning-rate"),
            (TrainTokenizerOptions { beta2: Some(1.0), ..complete() }, "--beta2"),
            (TrainTokenizerOptions { smallest_scale: Some(1.1), ..complete() }, "--smallest-scale"),
            (TrainTokenizerOptions { preset: Some("restok-xl".to_owned()), ..complete() }, "--preset"),
            (TrainTokenizerOptions { output: Some("s3://bucket/run".into()), ..complete() }, "--output"),
        ] {
            let error = options.resolve().expect_err(flag).to_string();
            assert!(error.contains(flag), "{error}");
        }
    }
}
