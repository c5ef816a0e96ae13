//! What both trainings are told alike: how a run goes, and the numbers of rate, optimizer and average.

use super::{
    SettingsError,
    shared::{HOW, MetricsOptions, at_least_one, at_least_one_if_given, required},
    tokenize::precision,
};
use models::{AdamWOptions, CosineSchedule, DeviceChoice, Precision};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Heading of what decides the weights.
pub(super) const RECIPE: &str = "Training recipe (defaults come from the preset)";

/// How a run goes, as typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunOptions {
    /// Device to train on: auto, cpu or cuda:N.
    ///
    /// auto uses the first CUDA device, or the CPU if there is none. Of several processes on a machine, each uses another
    /// device.
    #[arg(long, value_name = "DEVICE", help_heading = HOW, default_value = "auto")]
    pub(crate) device: Option<String>,
    /// Torch threads on the CPU (default: all cores, divided among the processes of a machine).
    ///
    /// The last bits of floating-point sums depend on it: use the same number whenever a run resumes.
    #[arg(long, value_name = "COUNT", help_heading = HOW)]
    pub(crate) device_threads: Option<usize>,
    /// Log metrics every STEPS steps (default: 50, or a fifth of the training if that is less)
    #[arg(long, value_name = "STEPS", help_heading = HOW)]
    pub(crate) log_every: Option<u64>,
    /// Save a checkpoint every STEPS steps (default: 5000, or a fifth of the training if that is less)
    #[arg(long, value_name = "STEPS", help_heading = HOW)]
    pub(crate) save_every: Option<u64>,
    /// Keep only the newest COUNT checkpoints
    #[arg(long, value_name = "COUNT", help_heading = HOW, default_value = "3")]
    pub(crate) keep_checkpoints: Option<usize>,
    /// Validate every STEPS steps (default: 5000, or a fifth of the training if that is less)
    #[arg(long, value_name = "STEPS", help_heading = HOW)]
    pub(crate) validate_every: Option<u64>,
    /// Floating-point precision of the published weights, best and final: fp32, or fp16 at half the size
    #[arg(long, value_parser = ["fp32", "fp16"], value_name = "PRECISION", help_heading = HOW, default_value = "fp32")]
    pub(crate) publish_precision: Option<String>,
    /// Resume a run that was started with other settings.
    ///
    /// Its checkpoints record what changed and at which step.
    #[arg(long, help_heading = HOW, default_value = "false")]
    pub(crate) allow_other_settings: Option<bool>,
    /// Of several processes that train together, wait this long for one that does not appear or answer.
    ///
    /// The others wait while the first process draws and saves.
    #[arg(long, value_name = "SECONDS", help_heading = HOW, default_value = "1800")]
    pub(crate) group_timeout: Option<u64>,
    /// How it is seen from outside.
    #[command(flatten)]
    pub(crate) metrics: MetricsOptions,
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
    /// When what is done, as far as it was typed.
    periods: Periods<Option<u64>>,
    /// Checkpoints kept.
    pub(crate) keep_checkpoints: usize,
    /// Images of a validation.
    pub(crate) validation_images: u64,
    /// Numbers of the trained weights.
    pub(crate) publish_precision: Precision,
    /// Whether a run may go on with other settings.
    pub(crate) allow_other_settings: bool,
    /// Longest wait for another process.
    pub(crate) group_timeout: Duration,
    /// Where the first process serves metrics.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Steps after which to stop early.
    pub(crate) stop_after: Option<u64>,
}

/// When a training does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Schedule {
    /// Updates in all.
    pub(crate) steps: u64,
    /// Updates after which to stop early.
    pub(crate) stop_after: Option<u64>,
    /// When what is done.
    pub(crate) periods: Periods,
}

/// Steps between two of the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Periods<Steps = u64> {
    /// Lines of metrics.
    pub(crate) log: Steps,
    /// Checkpoints.
    pub(crate) save: Steps,
    /// Validations.
    pub(crate) validate: Steps,
    /// Sheets.
    pub(crate) sheet: Steps,
}

impl RunSettings {
    /// When a training of `steps` updates does what.
    pub(crate) fn schedule(&self, steps: u64) -> Schedule {
        Schedule { steps, stop_after: self.stop_after, periods: self.periods(steps) }
    }

    /// The periods of a training of `steps` updates. Where nothing was typed, a short one is not without any.
    pub(crate) fn periods(&self, steps: u64) -> Periods {
        let at_most = |typed: Option<u64>, default: u64| typed.unwrap_or(default.min(steps / 5).max(1));
        let Periods { log, save, validate, sheet } = self.periods;
        Periods {
            log: at_most(log, 50),
            save: at_most(save, 5000),
            validate: at_most(validate, 5000),
            sheet: at_most(sheet, 5000),
        }
    }
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
                log: at_least_one_if_given("--log-every", self.log_every)?,
                save: at_least_one_if_given("--save-every", self.save_every)?,
                validate: at_least_one_if_given("--validate-every", self.validate_every)?,
                sheet: at_least_one_if_given("--sheet-every", sheet_every)?,
            },
            keep_checkpoints: at_least_one("--keep-checkpoints", self.keep_checkpoints)?,
            validation_images: at_least_one("--validation-images", validation_images)?,
            publish_precision: precision(self.publish_precision)?,
            allow_other_settings: self.allow_other_settings == Some(true),
            group_timeout: Duration::from_secs(at_least_one("--group-timeout", self.group_timeout)?),
            metrics_listen: self.metrics.metrics_listen,
            stop_after: self.stop_after,
        })
    }
}

/// How the images of an update are divided, as typed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct BatchOptions {
    /// Images per optimizer step, over all processes.
    ///
    /// Defaults to the preset's, or to what --batch-size, --gradient-accumulation and the number of processes make of it.
    #[arg(long, value_name = "IMAGES", help_heading = RECIPE)]
    pub(crate) global_batch_size: Option<usize>,
    /// Images per batch, in memory at once in each process.
    ///
    /// In an optimizer step, each process takes --gradient-accumulation batches. Defaults to the images per step divided
    /// by --gradient-accumulation and the number of processes.
    #[arg(long, value_name = "IMAGES", help_heading = RECIPE)]
    pub(crate) batch_size: Option<usize>,
    /// Gradient accumulation: batches per optimizer step in each process (default: 1, or what --global-batch-size and
    /// --batch-size make of it)
    #[arg(long, alias = "accumulation", value_name = "BATCHES", help_heading = RECIPE)]
    pub(crate) gradient_accumulation: Option<usize>,
}

/// How the images of an update are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batches {
    /// Images in memory at once in each process.
    pub(crate) size: usize,
    /// Batches of an update in each process.
    pub(crate) accumulation: usize,
    /// Processes that train together.
    pub(crate) processes: usize,
}

impl Batches {
    /// Images of an update, over all processes.
    pub(crate) fn global_size(self) -> u64 {
        (self.size * self.accumulation * self.processes) as u64
    }
}

impl BatchOptions {
    /// The division among `processes`; `preset` images an update where nothing was typed.
    ///
    /// # Errors
    /// When a number is 0, or they do not divide each other: what is nearest is named.
    pub(super) fn resolve(self, preset: usize, processes: usize) -> Result<Batches, SettingsError> {
        let typed = at_least_one_if_given("--global-batch-size", self.global_batch_size)?;
        let size = at_least_one_if_given("--batch-size", self.batch_size)?;
        let accumulation = at_least_one_if_given("--gradient-accumulation", self.gradient_accumulation)?;
        let (size, accumulation) = match (size, accumulation, typed) {
            (Some(size), accumulation, None) => (size, accumulation.unwrap_or(1)),
            (Some(size), None, Some(global)) => (size, divided(global, size * processes, true, processes)?),
            (None, accumulation, global) => {
                let accumulation = accumulation.unwrap_or(1);
                let parts = accumulation * processes;
                (divided(global.unwrap_or(preset), parts, typed.is_some(), processes)?, accumulation)
            }
            (Some(size), Some(accumulation), Some(global)) => {
                let product = size * accumulation * processes;
                if product != global {
                    let among =
                        if processes > 1 { format!(" in each of {processes} processes") } else { String::new() };
                    let expected = format!(
                        "{product}, which --batch-size and --gradient-accumulation{among} make, or only two of the three"
                    );
                    return Err(SettingsError::invalid("--global-batch-size", global.to_string(), expected));
                }
                (size, accumulation)
            }
        };
        Ok(Batches { size, accumulation, processes })
    }
}

/// `global` images divided by `part`; what is nearest where that leaves a rest.
fn divided(global: usize, part: usize, typed: bool, processes: usize) -> Result<usize, SettingsError> {
    if global.is_multiple_of(part) {
        return Ok(global / part);
    }
    let below = global / part * part;
    let nearest =
        [below, below + part].into_iter().filter(|&number| number > 0).min_by_key(|number| number.abs_diff(global));
    let nearest = nearest.unwrap_or(part);
    let among = if processes > 1 { format!(" over {processes} processes") } else { String::new() };
    Err(match typed {
        true => SettingsError::invalid(
            "--global-batch-size",
            global.to_string(),
            format!("a multiple of {part}{among}; the nearest is {nearest}"),
        ),
        false => SettingsError::invalid(
            "--gradient-accumulation",
            format!("{part} parts{among}"),
            format!(
                "a divisor of the preset's {global} images a step; --global-batch-size {nearest} is the nearest that divides"
            ),
        ),
    })
}

/// Numbers of a recipe that both trainings have, as typed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct RecipeOptions {
    /// Peak learning rate, reached after warm-up
    #[arg(long, value_name = "RATE", help_heading = RECIPE)]
    pub(crate) learning_rate: Option<f64>,
    /// Final learning rate of the cosine decay.
    ///
    /// If the preset's is above --learning-rate, the default is in the preset's ratio to it.
    #[arg(long, value_name = "RATE", help_heading = RECIPE)]
    pub(crate) end_learning_rate: Option<f64>,
    /// Steps of linear learning rate warm-up.
    ///
    /// Defaults to the preset's, or a tenth of the training if that is less.
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
    /// What was typed laid over the preset, for a training of `steps` updates.
    ///
    /// # Errors
    /// With the flag of the first number that lies outside its range.
    pub(super) fn over(self, preset: RecipeNumbers, steps: u64) -> Result<RecipeNumbers, SettingsError> {
        let numbers = RecipeNumbers {
            learning_rate: self.schedule(preset.learning_rate, steps),
            optimizer: AdamWOptions {
                beta1: self.beta1.unwrap_or(preset.optimizer.beta1),
                beta2: self.beta2.unwrap_or(preset.optimizer.beta2),
                weight_decay: self.weight_decay.unwrap_or(preset.optimizer.weight_decay),
            },
            max_grad_norm: self.max_grad_norm.unwrap_or(preset.max_grad_norm),
            ema_decay: self.ema_decay.unwrap_or(preset.ema_decay),
        };
        numbers.check()?;
        Ok(numbers)
    }

    /// The rate alone. What was not typed gives way to what was: neither a warm-up nor an end of the preset's contradicts it.
    pub(super) fn schedule(self, preset: CosineSchedule, steps: u64) -> CosineSchedule {
        let peak = self.learning_rate.unwrap_or(preset.peak);
        let end = if preset.end <= peak { preset.end } else { peak * (preset.end / preset.peak) };
        CosineSchedule {
            peak,
            end: self.end_learning_rate.unwrap_or(end),
            warmup_steps: self.warmup_steps.unwrap_or(preset.warmup_steps.min(steps / 10)),
            steps,
        }
    }
}

impl RecipeNumbers {
    /// Holds every number to its range.
    ///
    /// # Errors
    /// With the flag of the first that lies outside.
    fn check(&self) -> Result<(), SettingsError> {
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
            fraction_below_one(key, value)?;
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

/// A fraction below one.
pub(super) fn fraction_below_one(key: &'static str, value: f64) -> Result<(), SettingsError> {
    match (0.0..1.0).contains(&value) {
        true => Ok(()),
        false => Err(SettingsError::invalid(key, value.to_string(), "at least 0 and less than 1")),
    }
}
