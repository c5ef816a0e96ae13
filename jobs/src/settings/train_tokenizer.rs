//! Options and settings of `restok train-tokenizer`.

use super::{
    RejectRate, SettingsError,
    shared::{HOW, ImageOptions, WHAT, at_least_one, at_least_one_if_given, required},
    tokenize::precision,
    training::{RECIPE, RecipeNumbers, RecipeOptions, RunOptions, RunSettings, batch_size, not_negative},
    values::training_precision_parser,
};
use models::{
    Adversary, CosineSchedule, FrozenFiles, ReconstructionKind, TokenizerConfig, TokenizerPreset, TokenizerRecipe,
};
use schemas::{SourceLayout, SourceReading};
use std::path::PathBuf;

const OBJECTIVE: &str = "Training objective (defaults come from the preset; weight 0 disables a term)";
const DATA: &str = "Data augmentation and shuffling";

/// Options of `restok train-tokenizer`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TrainTokenizerOptions {
    /// Read training images from this path or URL: local, s3://, gs://, az://, https:// or file://.
    ///
    /// Patterns with {0000..1023}, {a,b}, * and ** match many files; quote them against the shell.
    #[arg(long, value_name = "URL", help_heading = WHAT)]
    pub(crate) source: Option<String>,
    /// Read validation images from this path or URL (default: no validation)
    #[arg(long, value_name = "URL", help_heading = WHAT)]
    pub(crate) validation_source: Option<String>,
    /// Local folder for checkpoints, metrics, contact sheets and the trained tokenizer.
    ///
    /// An existing run resumes from its last checkpoint.
    #[arg(long, value_name = "FOLDER", help_heading = WHAT)]
    pub(crate) output: Option<PathBuf>,
    /// How images are found.
    #[command(flatten)]
    pub(crate) images: ImageOptions,
    /// Use only the first IMAGES images of the source, for a trial
    #[arg(long, value_name = "IMAGES", help_heading = WHAT)]
    pub(crate) max_images: Option<u64>,
    /// Fail if more than this fraction of images is rejected, such as 1% or 0.01
    #[arg(long, value_name = "FRACTION", help_heading = WHAT, default_value = "1%")]
    pub(crate) max_reject_rate: Option<RejectRate>,
    /// Preset of tokenizer and recipe: restok-l-128, restok-b-128, restok-s-128 or tiny.
    ///
    /// restok-l-128 is the published one; tiny is for images of 32x32 pixels.
    #[arg(long, value_name = "NAME", help_heading = RECIPE, default_value = "restok-l-128")]
    pub(crate) preset: Option<String>,
    /// Train the tokenizer of this config.json instead of the preset's
    #[arg(long, value_name = "FILE", help_heading = RECIPE)]
    pub(crate) tokenizer_config: Option<PathBuf>,
    /// Number of training steps (optimizer updates)
    #[arg(long, value_name = "STEPS", help_heading = RECIPE)]
    pub(crate) steps: Option<u64>,
    /// Images per batch.
    ///
    /// An optimizer step takes --gradient-accumulation batches. Defaults to the preset's images per step divided by
    /// --gradient-accumulation.
    #[arg(long, value_name = "IMAGES", help_heading = RECIPE)]
    pub(crate) batch_size: Option<usize>,
    /// Gradient accumulation: batches per optimizer step
    #[arg(long, alias = "accumulation", value_name = "BATCHES", help_heading = RECIPE, default_value = "1")]
    pub(crate) gradient_accumulation: Option<usize>,
    /// Floating-point precision of the transformers and the convolutional encoder; the rest is fp32
    #[arg(long, value_parser = training_precision_parser(), value_name = "PRECISION", help_heading = RECIPE)]
    pub(crate) precision: Option<String>,
    /// Random seed of the initial weights and of everything drawn during training
    #[arg(long, value_name = "NUMBER", help_heading = RECIPE)]
    pub(crate) seed: Option<u64>,
    /// Rate, optimizer and average.
    #[command(flatten)]
    pub(crate) recipe: RecipeOptions,
    /// Pixel reconstruction loss: l1 or l2
    #[arg(long, value_parser = ["l1", "l2"], value_name = "LOSS", help_heading = OBJECTIVE)]
    pub(crate) reconstruction: Option<String>,
    /// Weight of the pixel reconstruction loss
    #[arg(long, value_name = "WEIGHT", help_heading = OBJECTIVE)]
    pub(crate) reconstruction_weight: Option<f64>,
    /// Weight of the quantizer loss: commitment, codebook and entropy terms together
    #[arg(long, value_name = "WEIGHT", help_heading = OBJECTIVE)]
    pub(crate) quantizer_weight: Option<f64>,
    /// Weight of the LPIPS perceptual loss; requires --vgg16 and --lpips
    #[arg(long, value_name = "WEIGHT", help_heading = OBJECTIVE)]
    pub(crate) perceptual_weight: Option<f64>,
    /// Weight of the alignment loss with a vision foundation model.
    ///
    /// Requires --foundation-model, and use_vf in the tokenizer's config.json.
    #[arg(long, value_name = "WEIGHT", help_heading = OBJECTIVE)]
    pub(crate) alignment_weight: Option<f64>,
    /// Margin of the alignment loss: the cosine distance up to which it is 0
    #[arg(long, value_name = "COSINE", help_heading = OBJECTIVE)]
    pub(crate) alignment_margin: Option<f64>,
    /// Discriminator: dino or patch.
    ///
    /// dino trains heads on a frozen DINO ViT and requires --dino; patch is a small convolutional network over pixel
    /// patches.
    #[arg(long, alias = "adversary", value_parser = ["dino", "patch"], value_name = "NAME", help_heading = OBJECTIVE)]
    pub(crate) discriminator: Option<String>,
    /// Weight of the adversarial loss on reconstructions
    #[arg(long, alias = "adversarial-weight", value_name = "WEIGHT", help_heading = OBJECTIVE)]
    pub(crate) discriminator_weight: Option<f64>,
    /// Step at which the discriminator and the adversarial loss start; less than --steps
    #[arg(long, alias = "adversarial-start", value_name = "STEP", help_heading = OBJECTIVE)]
    pub(crate) discriminator_start: Option<u64>,
    /// Weight of the discriminator's LeCam regularization
    #[arg(long, value_name = "WEIGHT", help_heading = OBJECTIVE)]
    pub(crate) lecam_weight: Option<f64>,
    /// VGG16 weights for the perceptual loss, as safetensors.
    ///
    /// docs/frozen-networks.md says where to get each frozen network.
    #[arg(long, value_name = "FILE", help_heading = OBJECTIVE)]
    pub(crate) vgg16: Option<PathBuf>,
    /// Linear layers of LPIPS over VGG16, as safetensors
    #[arg(long, value_name = "FILE", help_heading = OBJECTIVE)]
    pub(crate) lpips: Option<PathBuf>,
    /// DINO ViT-S/16 weights for the dino discriminator, as safetensors
    #[arg(long, value_name = "FILE", help_heading = OBJECTIVE)]
    pub(crate) dino: Option<PathBuf>,
    /// Weights of the vision foundation model that use_vf in the tokenizer's config.json names, as safetensors
    #[arg(long, value_name = "FILE", help_heading = OBJECTIVE)]
    pub(crate) foundation_model: Option<PathBuf>,
    /// Minimum side of the random crop, as a fraction of the image's shorter side
    #[arg(long, value_name = "FRACTION", help_heading = DATA, default_value = "0.8")]
    pub(crate) smallest_scale: Option<f64>,
    /// Maximum side of the random crop, as a fraction of the image's shorter side
    #[arg(long, value_name = "FRACTION", help_heading = DATA, default_value = "1.0")]
    pub(crate) largest_scale: Option<f64>,
    /// Disable random horizontal flips
    #[arg(long, help_heading = DATA, default_value = "false")]
    pub(crate) no_flip: Option<bool>,
    /// Size of the shuffle buffer in images, of at most 1 GiB encoded.
    ///
    /// Shards are shuffled as well. Images of a folder source are always shuffled as a whole.
    #[arg(long, value_name = "IMAGES", help_heading = DATA, default_value = "8192")]
    pub(crate) shuffle_images: Option<usize>,
    /// How the run goes.
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Validate on the first IMAGES images of the validation source.
    ///
    /// The final validation uses all of them.
    #[arg(long, value_name = "IMAGES", help_heading = HOW, default_value = "2048")]
    pub(crate) validation_images: Option<u64>,
    /// Draw a contact sheet of reconstructions every STEPS steps
    #[arg(long, value_name = "STEPS", help_heading = HOW, default_value = "5000")]
    pub(crate) sheet_every: Option<u64>,
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
    /// How images are found.
    pub(crate) reading: SourceReading,
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
        let source = required(self.source.clone(), "source", "--source URL", SECTION)?;
        let run = self.run.clone().resolve(SECTION, self.output.clone(), self.sheet_every, self.validation_images)?;
        let name = self.preset.clone().unwrap_or_default();
        let preset = TokenizerPreset::named(&name)
            .map_err(|_| SettingsError::invalid("--preset", format!("{name:?}"), TokenizerPreset::NAMES.join(", ")))?;
        let (config, global_batch_size) = (self.config(preset.config)?, preset.global_batch_size);
        let recipe = self.recipe(preset.recipe)?;
        let accumulation = at_least_one("--gradient-accumulation", self.gradient_accumulation)?;
        let (smallest, largest) = (self.smallest_scale.unwrap_or(0.8), self.largest_scale.unwrap_or(1.0));
        if !(smallest >= 0.01 && smallest <= largest && largest <= 1.0) {
            return Err(SettingsError::invalid(
                "--smallest-scale and --largest-scale",
                format!("{smallest} and {largest}"),
                "0.01 to 1, the smallest first",
            ));
        }
        Ok(TrainTokenizerSettings {
            source,
            validation_source: self.validation_source,
            layout: self.images.layout,
            reading: self.images.reading(None, None),
            max_images: at_least_one_if_given("--max-images", self.max_images)?,
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
            batch_size: batch_size(self.batch_size, accumulation, global_batch_size)?,
            accumulation,
            scales: (smallest, largest),
            flip: self.no_flip != Some(true),
            shuffle_images: at_least_one("--shuffle-images", self.shuffle_images)?,
            run,
        })
    }

    /// The preset's tokenizer, or that of a file.
    fn config(&self, preset: TokenizerConfig) -> Result<TokenizerConfig, SettingsError> {
        let Some(file) = &self.tokenizer_config else { return Ok(preset) };
        let wrong = |problem: String| SettingsError::File { path: file.clone(), problem };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        Ok(TokenizerConfig::from_json(&text, file)?)
    }

    /// The preset's recipe with what was asked for laid over it.
    fn recipe(&self, preset: TokenizerRecipe) -> Result<TokenizerRecipe, SettingsError> {
        let steps = self.steps.unwrap_or(preset.learning_rate.steps);
        let adversarial_start = self.discriminator_start.unwrap_or(preset.adversarial_start);
        let numbers = self.recipe.over(RecipeNumbers {
            learning_rate: CosineSchedule { steps, ..preset.learning_rate },
            optimizer: preset.optimizer,
            max_grad_norm: preset.max_grad_norm,
            ema_decay: preset.ema_decay,
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
            adversary: match self.discriminator.as_deref() {
                Some("dino") => Adversary::Dino,
                Some("patch") => Adversary::Patch,
                Some(other) => return Err(SettingsError::invalid("--discriminator", other, "dino or patch")),
                None => preset.adversary,
            },
            adversarial_weight: self.discriminator_weight.unwrap_or(preset.adversarial_weight),
            adversarial_start,
            lecam_weight: self.lecam_weight.unwrap_or(preset.lecam_weight),
            learning_rate: numbers.learning_rate,
            discriminator_learning_rate: self.recipe.schedule(CosineSchedule {
                steps: steps.saturating_sub(adversarial_start),
                ..preset.discriminator_learning_rate
            }),
            optimizer: numbers.optimizer,
            max_grad_norm: numbers.max_grad_norm,
            ema_decay: numbers.ema_decay,
        };
        numbers.check()?;
        not_negative(&[
            ("--reconstruction-weight", recipe.reconstruction_weight),
            ("--perceptual-weight", recipe.perceptual_weight),
            ("--quantizer-weight", recipe.quantizer_weight),
            ("--alignment-weight", recipe.alignment_weight),
            ("--discriminator-weight", recipe.adversarial_weight),
            ("--lecam-weight", recipe.lecam_weight),
            ("--alignment-margin", recipe.alignment_margin),
        ])?;
        if recipe.adversarial_weight > 0.0 && recipe.adversarial_start >= steps {
            return Err(SettingsError::invalid(
                "--discriminator-start",
                recipe.adversarial_start.to_string(),
                format!("less than --steps, {steps}, or --discriminator-weight 0"),
            ));
        }
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    const COMPLETE: &str = "--source in --output out";

    fn complete() -> TrainTokenizerOptions {
        parsed(COMPLETE)
    }

    /// [`complete`] with more said.
    fn with(more: &str) -> TrainTokenizerOptions {
        parsed(&format!("{COMPLETE} {more}"))
    }

    #[test]
    fn the_published_recipe_is_the_default() {
        let settings = complete().resolve().expect("complete");
        assert_eq!(settings.recipe, TokenizerRecipe::published());
        assert_eq!((settings.steps, settings.batch_size, settings.accumulation), (1_000_000, 256, 1));
    }

    #[test]
    fn images_are_found_as_for_tokenizing() {
        assert_eq!(complete().resolve().expect("complete").reading, SourceReading::default());
        let reading = with("--image-column photo --layout parquet").resolve().expect("complete").reading;
        assert_eq!(reading.columns.image.as_deref(), Some("photo"));
    }

    #[test]
    fn accumulation_divides_the_images_of_a_step() {
        let options = TrainTokenizerOptions { gradient_accumulation: Some(8), ..complete() };
        assert_eq!(options.resolve().expect("complete").batch_size, 32);
    }

    #[test]
    fn another_number_of_steps_moves_both_schedules() {
        let options = TrainTokenizerOptions { steps: Some(100_000), discriminator_start: Some(10_000), ..complete() };
        let recipe = options.resolve().expect("complete").recipe;
        assert_eq!((recipe.learning_rate.steps, recipe.discriminator_learning_rate.steps), (100_000, 90_000));
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_their_flag() {
        for (options, flag) in [
            (TrainTokenizerOptions { batch_size: Some(0), ..complete() }, "--batch-size"),
            (with("--save-every 0"), "--save-every"),
            (with("--max-images 0"), "--max-images"),
            (TrainTokenizerOptions { steps: Some(0), ..complete() }, "--steps"),
            (with("--learning-rate NaN"), "--learning-rate"),
            (TrainTokenizerOptions { gradient_accumulation: Some(3), ..complete() }, "--gradient-accumulation"),
            (TrainTokenizerOptions { steps: Some(10_000), ..complete() }, "--discriminator-start"),
            (with("--warmup-steps 2000000"), "--warmup-steps"),
            (with("--end-learning-rate 1"), "--end-learning-rate"),
            (with("--beta2 1"), "--beta2"),
            (TrainTokenizerOptions { smallest_scale: Some(1.1), ..complete() }, "--smallest-scale"),
            (TrainTokenizerOptions { preset: Some("restok-xl".to_owned()), ..complete() }, "--preset"),
            (TrainTokenizerOptions { output: Some("s3://bucket/run".into()), ..complete() }, "--output"),
        ] {
            let error = options.resolve().expect_err(flag).to_string();
            assert!(error.contains(flag), "{error}");
        }
    }
}
