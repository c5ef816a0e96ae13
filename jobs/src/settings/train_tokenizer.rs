//! Options and settings of `restok train-tokenizer`.

use super::{
    RejectRate, SettingsError,
    shared::{HOW, ImageOptions, WHAT, at_least_one, at_least_one_if_given, required},
    tokenize::precision,
    training::{BatchOptions, Batches, RECIPE, RecipeNumbers, RecipeOptions, RunOptions, RunSettings, not_negative},
    values::training_precision_parser,
};
use models::{DiscriminatorKind, FrozenFiles, ReconstructionKind, TokenizerConfig, TokenizerPreset, TokenizerRecipe};
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
    /// How the images of an update are divided.
    #[command(flatten)]
    pub(crate) batches: BatchOptions,
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
    /// Step at which the discriminator and the adversarial loss start.
    ///
    /// Less than --steps. Defaults to the preset's, or half of the training if the preset's would never come.
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
    /// Minimum side of the random crop, as a fraction of the image's shorter side (default: 0.8, or --max-scale if that is less)
    #[arg(long, alias = "smallest-scale", value_name = "FRACTION", help_heading = DATA)]
    pub(crate) min_scale: Option<f64>,
    /// Maximum side of the random crop, as a fraction of the image's shorter side
    #[arg(long, alias = "largest-scale", value_name = "FRACTION", help_heading = DATA, default_value = "1.0")]
    pub(crate) max_scale: Option<f64>,
    /// Disable random horizontal flips
    #[arg(long, help_heading = DATA, default_value = "false")]
    pub(crate) no_flip: Option<bool>,
    /// Size of the shuffle buffer in images, of at most 1 GiB encoded.
    ///
    /// Shards are shuffled as well. Images of a folder source are always shuffled as a whole.
    #[arg(long, alias = "shuffle-images", value_name = "IMAGES", help_heading = DATA, default_value = "8192")]
    pub(crate) shuffle_buffer: Option<usize>,
    /// How the run goes.
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Validate on the first IMAGES images of the validation source.
    ///
    /// The final validation uses all of them.
    #[arg(long, value_name = "IMAGES", help_heading = HOW, default_value = "2048")]
    pub(crate) validation_images: Option<u64>,
    /// Draw a contact sheet of reconstructions every STEPS steps (default: 5000, or a fifth of the training if that is less)
    #[arg(long, value_name = "STEPS", help_heading = HOW)]
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
    /// Fraction of broken images above which the job fails.
    pub(crate) max_reject_rate: RejectRate,
    /// The tokenizer.
    pub(crate) config: TokenizerConfig,
    /// How it is trained.
    pub(crate) recipe: TokenizerRecipe,
    /// Frozen networks.
    pub(crate) frozen: FrozenFiles,
    /// Updates in all.
    pub(crate) steps: u64,
    /// How the images of an update are divided.
    pub(crate) batches: Batches,
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
    /// The settings, for one of so many processes that train together.
    ///
    /// # Errors
    /// When something needed is absent, or a value cannot be.
    pub(crate) fn resolve(self, processes: usize) -> Result<TrainTokenizerSettings, SettingsError> {
        const SECTION: &str = "train-tokenizer";
        let source = required(self.source.clone(), "source", "--source URL", SECTION)?;
        let run = self.run.clone().resolve(SECTION, self.output.clone(), self.sheet_every, self.validation_images)?;
        let name = self.preset.clone().unwrap_or_default();
        let preset = TokenizerPreset::named(&name)
            .map_err(|_| SettingsError::invalid("--preset", format!("{name:?}"), TokenizerPreset::NAMES.join(", ")))?;
        let (config, global_batch_size) = (self.config(preset.config)?, preset.global_batch_size);
        let recipe = self.recipe(preset.recipe)?;
        let largest = self.max_scale.unwrap_or(1.0);
        let smallest = self.min_scale.unwrap_or(largest.min(0.8));
        if !(smallest >= 0.01 && smallest <= largest && largest <= 1.0) {
            return Err(SettingsError::invalid(
                "--min-scale and --max-scale",
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
            batches: self.batches.resolve(global_batch_size, processes)?,
            scales: (smallest, largest),
            flip: self.no_flip != Some(true),
            shuffle_images: at_least_one("--shuffle-buffer", self.shuffle_buffer)?,
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
        let adversarial_weight = self.discriminator_weight.unwrap_or(preset.adversarial_weight);
        // Where the preset's would never come.
        let comes = adversarial_weight == 0.0 || preset.adversarial_start < steps;
        let adversarial_start =
            self.discriminator_start.unwrap_or(if comes { preset.adversarial_start } else { steps / 2 });
        let preset_numbers = RecipeNumbers {
            learning_rate: preset.learning_rate,
            optimizer: preset.optimizer,
            max_grad_norm: preset.max_grad_norm,
            ema_decay: preset.ema_decay,
        };
        let numbers = self.recipe.over(preset_numbers, steps)?;
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
            discriminator: match self.discriminator.as_deref() {
                Some("dino") => DiscriminatorKind::Dino,
                Some("patch") => DiscriminatorKind::Patch,
                Some(other) => return Err(SettingsError::invalid("--discriminator", other, "dino or patch")),
                None => preset.discriminator,
            },
            adversarial_weight,
            adversarial_start,
            lecam_weight: self.lecam_weight.unwrap_or(preset.lecam_weight),
            learning_rate: numbers.learning_rate,
            discriminator_learning_rate: self
                .recipe
                .schedule(preset.discriminator_learning_rate, steps.saturating_sub(adversarial_start)),
            optimizer: numbers.optimizer,
            max_grad_norm: numbers.max_grad_norm,
            ema_decay: numbers.ema_decay,
        };
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
        let settings = complete().resolve(1).expect("complete");
        assert_eq!(settings.recipe, TokenizerRecipe::published());
        assert_eq!((settings.steps, settings.batches.size, settings.batches.accumulation), (1_000_000, 256, 1));
    }

    #[test]
    fn images_are_found_as_for_tokenizing() {
        assert_eq!(complete().resolve(1).expect("complete").reading, SourceReading::default());
        let reading = with("--image-column photo --layout parquet").resolve(1).expect("complete").reading;
        assert_eq!(reading.columns.image.as_deref(), Some("photo"));
    }

    #[test]
    fn accumulation_divides_the_images_of_a_step() {
        let of = |line: &str, processes| {
            let Batches { size, accumulation, .. } = with(line).resolve(processes).expect(line).batches;
            (size, accumulation)
        };
        assert_eq!(of("--gradient-accumulation 8", 1), (32, 8));
        assert_eq!((of("", 4), of("--gradient-accumulation 2", 4)), ((64, 1), (32, 2)));
        assert_eq!(of("--global-batch-size 96", 2), (48, 1));
        assert_eq!(of("--global-batch-size 96 --batch-size 8", 3), (8, 4));
        assert_eq!(of("--batch-size 8 --gradient-accumulation 3", 5), (8, 3));
        for (line, processes, expected) in [
            ("", 3, "255"),
            ("--global-batch-size 100", 8, "the nearest is 96"),
            ("--global-batch-size 64 --batch-size 7", 1, "the nearest is 63"),
            ("--global-batch-size 64 --batch-size 8 --gradient-accumulation 2", 2, "expected 32"),
            ("--global-batch-size 2", 4, "the nearest is 4"),
        ] {
            let error = with(line).resolve(processes).expect_err(line).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn another_number_of_steps_moves_both_schedules() {
        let options = TrainTokenizerOptions { steps: Some(100_000), discriminator_start: Some(10_000), ..complete() };
        let recipe = options.resolve(1).expect("complete").recipe;
        assert_eq!((recipe.learning_rate.steps, recipe.discriminator_learning_rate.steps), (100_000, 90_000));
    }

    #[test]
    fn defaults_give_way_to_what_was_said() {
        let of = |line: &str| with(line).resolve(1).expect(line);
        for preset in TokenizerPreset::NAMES {
            for steps in [1, 2, 9, 30, 1_000, 100_000_000] {
                let settings = of(&format!("--preset {preset} --steps {steps}"));
                let (rate, start) = (settings.recipe.learning_rate, settings.recipe.adversarial_start);
                assert!(rate.warmup_steps <= steps / 10, "{preset}, {steps} steps: {rate:?}");
                assert!(start < steps || settings.recipe.adversarial_weight == 0.0, "{preset}, {steps} steps: {start}");
                let periods = settings.run.periods(steps);
                assert!([periods.log, periods.save, periods.validate, periods.sheet].iter().all(|&period| period > 0));
                assert!(steps < 5 || periods.validate <= steps / 5, "{steps} steps: {periods:?}");
            }
        }
        let settings = of("--preset tiny --steps 30 --warmup-steps 30 --save-every 7000");
        assert_eq!((settings.recipe.learning_rate.warmup_steps, settings.run.periods(30).save), (30, 7000));
        let rate = of("--learning-rate 1e-6").recipe.learning_rate;
        assert!((rate.end / rate.peak - 0.1).abs() < 1e-12, "{rate:?}");
        assert_eq!(of("--learning-rate 2e-3").recipe.learning_rate.end, 1e-5);
        assert_eq!(of("--max-scale 0.5").scales, (0.5, 0.5));
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_their_flag() {
        for (options, flag) in [
            (with("--batch-size 0"), "--batch-size"),
            (with("--save-every 0"), "--save-every"),
            (with("--max-images 0"), "--max-images"),
            (TrainTokenizerOptions { steps: Some(0), ..complete() }, "--steps"),
            (with("--learning-rate NaN"), "--learning-rate"),
            (with("--gradient-accumulation 3"), "--gradient-accumulation"),
            (with("--steps 10000 --discriminator-start 10000"), "--discriminator-start"),
            (with("--warmup-steps 2000000"), "--warmup-steps"),
            (with("--end-learning-rate 1"), "--end-learning-rate"),
            (with("--beta2 1"), "--beta2"),
            (TrainTokenizerOptions { min_scale: Some(1.1), ..complete() }, "--min-scale"),
            (TrainTokenizerOptions { preset: Some("restok-xl".to_owned()), ..complete() }, "--preset"),
            (TrainTokenizerOptions { output: Some("s3://bucket/run".into()), ..complete() }, "--output"),
        ] {
            let error = options.resolve(1).expect_err(flag).to_string();
            assert!(error.contains(flag), "{error}");
        }
    }
}
