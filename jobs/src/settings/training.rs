//! What both trainings are told alike: how a run goes, and the numbers of rate, optimizer and average.

use super::{
    SettingsError,
    shared::{HOW, at_least_one, at_least_one_if_given, required},
    tokenize::precision,
};
use models::{AdamWOptions, CosineSchedule, DeviceChoice, Precision};
use std::path::PathBuf;

/// Heading of what decides the weights.
pub(super) const RECIPE: &str = "Training recipe (defaults come from the preset)";

/// How a run goes, as typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunOptions {
    /// Device to train on: auto, cpu or cuda:N.
    ///
    /// auto uses the first CUDA device, or the CPU if there is none.
    #[arg(long, value_name = "DEVICE", help_heading = HOW, default_value = "auto")]
    pub(crate) device: Option<String>,
    /// Torch threads on the CPU (default: all cores).
    ///
    /// The last bits of floating-point sums depend on it: use the same number whenever a run resumes.
    #[arg(long, value_name = "COUNT", help_heading = HOW)]
    pub(crate) device_threads: Option<usize>,
    /// Log metrics every STEPS steps
    #[arg(long, value_name = "STEPS", help_heading = HOW, default_value = "50")]
    pub(crate) log_every: Option<u64>,
    /// Save a checkpoint every STEPS steps
    #[arg(long, value_name = "STEPS", help_heading = HOW, default_value = "5000")]
    pub(crate) save_every: Option<u64>,
    /// Keep only the newest COUNT checkpoints
    #[arg(long, value_name = "COUNT", help_heading = HOW, default_value = "3")]
    pub(crate) keep_checkpoints: Option<usize>,
    /// Validate every STEPS steps
    #[arg(long, value_name = "STEPS", help_heading = HOW, default_value = "5000")]
    pub(crate) validate_every: Option<u64>,
    /// Floating-point precision of the published weights, best and final: fp32, or fp16 at half the size
    #[arg(long, value_parser = ["fp32", "fp16"], value_name = "PRECISION", help_heading = HOW, default_value = "fp32")]
    pub(crate) publish_precision: Option<String>,
    /// Resume a run that was started with other settings.
    ///
    /// Its checkpoints record what changed and at which step.
    #[arg(long, help_heading = HOW, default_value = "false")]
    pub(crate) allow_other_settings: Option<bool>,
    /// Stop with a checkpoint after STEPS steps, counted from the start of the run.
    ///
    /// The learning rate schedule still spans the whole training.
    #[arg(long, value_name = "STEPS", help_heading = HOW)]
    pub(crate) stop_after: Option<u64>,
}

/// How a run goes.
#[derive(Clone, Debug)]
pub(crate) struct RunSettings {
    /// Folder of the run.
    pub(crate) output: PathBuf,
    /// The device.
    pub(crate) device: DeviceChoice,
    /// Threads of the processor; `None` for all cores.
    pub(crate) device_threads: Option<usize>,
    /// When what is done.
    pub(crate) periods: Periods,
    /// Checkpoints kept.
    pub(crate) keep_checkpoints: usize,
    /// Images of a validation.
    pub(crate) validation_images: u64,
    /// Numbers of the trained weights.
    pub(crate) publish_precision: Precision,
    /// Whether a run may go on with other settings.
    pub(crate) allow_other_settings: bool,
    /// Steps after which to stop early.
    pub(crate) stop_after: Option<u64>,
}

/// Steps between two of the same thing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Periods {
    /// Lines of metrics.
    pub(crate) log: u64,
    /// Checkpoints.
    pub(crate) save: u64,
    /// Validations.
    pub(crate) validate: u64,
    /// Sheets.
    pub(crate) sheet: u64,
}

impl RunOptions {
    /// The settings; `section` is the command's in the settings file. `sheet_every` is in steps, `validation_images` the images of a validation.
    ///
    /// # Errors
    /// When there is no output, or a value cannot be.
    pub(super) fn resolve(
        self,
        section: &'static str,
        output: Option<PathBuf>,
        sheet_every: Option<u64>,
        validation_images: Option<u64>,
    ) -> Result<RunSettings, SettingsError> {
        let output = required(output, "output", "--output FOLDER", section)?;
        if let Some(scheme) = output.to_str().and_then(|output| output.split_once("://")).map(|(scheme, _)| scheme) {
            return Err(SettingsError::invalid(
                "--output",
                format!("{scheme}://…"),
                "a folder of this machine or of a network file system: checkpoints are renamed into place",
            ));
        }
        let device = self.device.unwrap_or_default();
        let device_threads = at_least_one_if_given("--device-threads", self.device_threads)?;
        Ok(RunSettings {
            output,
            device: device
                .parse()
                .map_err(|_| SettingsError::invalid("--device", format!("{device:?}"), "auto, cpu or cuda:N"))?,
            device_threads,
            periods: Periods {
                log: at_least_one("--log-every", self.log_every)?,
                save: at_least_one("--save-every", self.save_every)?,
                validate: at_least_one("--validate-every", self.validate_every)?,
                sheet: at_least_one("--sheet-every", sheet_every)?,
            },
            keep_checkpoints: at_least_one("--keep-checkpoints", self.keep_checkpoints)?,
            validation_images: at_least_one("--validation-images", validation_images)?,
            publish_precision: precision(self.publish_precision)?,
            allow_other_settings: self.allow_other_settings == Some(true),
            stop_after: self.stop_after,
        })
    }
}

/// Images that are in memory at once: as typed, or those of an update divided by `accumulation`.
pub(super) fn batch_size(
    typed: Option<usize>,
    accumulation: usize,
    global_batch_size: usize,
) -> Result<usize, SettingsError> {
    match typed {
        None if !global_batch_size.is_multiple_of(accumulation) => Err(SettingsError::invalid(
            "--gradient-accumulation",
            accumulation.to_string(),
            format!("a divisor of the preset's {global_batch_size} images a step, or --batch-size as well"),
        )),
        None => Ok(global_batch_size / accumulation),
        given => at_least_one("--batch-size", given),
    }
}

/// Numbers of a recipe that both trainings have, as typed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct RecipeOptions {
    /// Peak learning rate, reached after warm-up
    #[arg(long, value_name = "RATE", help_heading = RECIPE)]
    pub(crate) learning_rate: Option<f64>,
    /// Final learning rate of the cosine decay
    #[arg(long, value_name = "RATE", help_heading = RECIPE)]
    pub(crate) end_learning_rate: Option<f64>,
    /// Steps of linear learning rate warm-up
    #[arg(long, value_name = "STEPS", help_heading = RECIPE)]
    pub(crate) warmup_steps: Option<u64>,
    /// AdamW beta1, the decay rate of the first moment
    #[arg(long, value_name = "DECAY", help_heading = RECIPE)]
    pub(crate) beta1: Option<f64>,
    /// AdamW beta2, the decay rate of the second moment
    #[arg(long, value_name = "DECAY", help_heading = RECIPE)]
    pub(crate) beta2: Option<f64>,
    /// AdamW weight decay; not applied to norms, biases, embeddings and learned tokens
    #[arg(long, value_name = "DECAY", help_heading = RECIPE)]
    pub(crate) weight_decay: Option<f64>,
    /// Gradient clipping: maximum gradient norm
    #[arg(long, alias = "gradient-norm", value_name = "NORM", help_heading = RECIPE)]
    pub(crate) max_grad_norm: Option<f64>,
    /// Decay of the exponential moving average (EMA) of the weights.
    ///
    /// The EMA weights are the ones that are validated and published.
    #[arg(long, alias = "average-decay", value_name = "DECAY", help_heading = RECIPE)]
    pub(crate) ema_decay: Option<f64>,
}

/// The same, with what the preset says where nothing was typed.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecipeNumbers {
    pub(super) learning_rate: CosineSchedule,
    pub(super) optimizer: AdamWOptions,
    pub(super) max_grad_norm: f64,
    pub(super) ema_decay: f64,
}

impl RecipeOptions {
    /// What was typed laid over the preset; `preset.learning_rate.steps` stays.
    pub(super) fn over(self, preset: RecipeNumbers) -> RecipeNumbers {
        RecipeNumbers {
            learning_rate: self.schedule(preset.learning_rate),
            optimizer: AdamWOptions {
                beta1: self.beta1.unwrap_or(preset.optimizer.beta1),
                beta2: self.beta2.unwrap_or(preset.optimizer.beta2),
                weight_decay: self.weight_decay.unwrap_or(preset.optimizer.weight_decay),
            },
            max_grad_norm: self.max_grad_norm.unwrap_or(preset.max_grad_norm),
            ema_decay: self.ema_decay.unwrap_or(preset.ema_decay),
        }
    }

    /// The rate alone, of as many steps as the preset has.
    pub(super) fn schedule(self, preset: CosineSchedule) -> CosineSchedule {
        CosineSchedule {
            peak: self.learning_rate.unwrap_or(preset.peak),
            end: self.end_learning_rate.unwrap_or(preset.end),
            warmup_steps: self.warmup_steps.unwrap_or(preset.warmup_steps),
            steps: preset.steps,
        }
    }
}

impl RecipeNumbers {
    /// Holds every number to its range.
    ///
    /// # Errors
    /// With the flag of the first that lies outside.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let rate = self.learning_rate;
        not_negative(&[
            ("--learning-rate", rate.peak),
            ("--end-learning-rate", rate.end),
            ("--weight-decay", self.optimizer.weight_decay),
        ])?;
        if rate.warmup_steps > rate.steps {
            let expected = format!("at most --steps, {}", rate.steps);
            return Err(SettingsError::invalid("--warmup-steps", rate.warmup_steps.to_string(), expected));
        }
        if rate.end > rate.peak {
            let expected = format!("at most --learning-rate, {}", rate.peak);
            return Err(SettingsError::invalid("--end-learning-rate", rate.end.to_string(), expected));
        }
        if self.max_grad_norm.is_nan() || self.max_grad_norm <= 0.0 {
            let found = self.max_grad_norm.to_string();
            return Err(SettingsError::invalid("--max-grad-norm", found, "more than 0"));
        }
        for (key, value) in
            [("--beta1", self.optimizer.beta1), ("--beta2", self.optimizer.beta2), ("--ema-decay", self.ema_decay)]
        {
            share_below_one(key, value)?;
        }
        Ok(())
    }
}

/// Numbers of at least 0.
pub(super) fn not_negative(numbers: &[(&'static str, f64)]) -> Result<(), SettingsError> {
    match numbers.iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
        Some((key, value)) => Err(SettingsError::invalid(key, value.to_string(), "a number of at least 0")),
        None => Ok(()),
    }
}

/// A share that is not all.
pub(super) fn share_below_one(key: &'static str, value: f64) -> Result<(), SettingsError> {
    match (0.0..1.0).contains(&value) {
        true => Ok(()),
        false => Err(SettingsError::invalid(key, value.to_string(), "at least 0 and less than 1")),
    }
}
