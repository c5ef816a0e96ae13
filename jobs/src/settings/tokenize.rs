//! Options and settings of `restok tokenize`.

use super::{
    Devices, ModelReference, Options, RejectRate, ReportFormat, SettingsError,
    table_commands::{OUTPUT_USAGE, required},
    values::{
        BatchSize, crop_parser, extensions_parser, image_id_parser, labels_parser, layout_parser, precision_parser,
    },
};
use crate::environment;
use models::Precision;
use schemas::{ColumnNames, Crop, ImageExtensions, ImageIdRule, LabelSource, SourceLayout, SourceReading};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// Options of `restok tokenize`.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct TokenizeOptions {
    /// Where the images are: s3://, gs://, az://, https://, file:// or a plain path; patterns with {0000..1023}, {a,b}, * and ** name
    /// many; quote them against the shell
    #[arg(long, value_name = "URL", env = environment::SOURCE, help_heading = "What and where")]
    pub(crate) source: Option<String>,
    /// Where the tables go: s3://, gs://, az://, file:// or a plain path
    #[arg(long, value_name = "URL", env = environment::OUTPUT, help_heading = "What and where")]
    pub(crate) output: Option<String>,
    /// The tokenizer: a folder with config.json and model.safetensors, or hf://owner/name or hf://owner/name@revision
    #[arg(long, value_name = "PATH|hf://…", env = environment::TOKENIZER, help_heading = "What and where")]
    pub(crate) tokenizer: Option<String>,
    /// How the images lie in the source; recognised from its file names when absent
    #[arg(long, value_name = "LAYOUT", env = environment::LAYOUT, value_parser = layout_parser(), help_heading = "What and where")]
    pub(crate) layout: Option<SourceLayout>,
    /// Value of the tables' split= partition
    #[arg(long, value_name = "NAME", env = environment::SPLIT, help_heading = "What and where")]
    pub(crate) split: Option<String>,

    /// Crop, by name: adm-center-SIZE, adm-center-SIZE-flip (2 views), adm-ten-crop-RESIZE-SIZE (10 views) or
    /// torchvision-center-SIZE; adm-center- with the tokenizer's own resolution when absent. EXIF orientation is ignored, as
    /// in the published pre-processing
    #[arg(long, value_name = "NAME", env = environment::CROP, value_parser = crop_parser, help_heading = "What the plan fixes (another value needs another output)")]
    pub(crate) crop: Option<Crop>,
    /// Arithmetic of the networks
    #[arg(long, value_name = "PRECISION", env = environment::PRECISION, value_parser = precision_parser(), help_heading = "What the plan fixes (another value needs another output)")]
    pub(crate) precision: Option<String>,
    /// Views of a batch, or auto: as many as the first device has memory for, measured before the plan is frozen, at most 256 on a GPU and
    /// 32 on a processor; the last batch of a unit is padded, so that every batch runs the same kernels
    #[arg(long, value_name = "VIEWS|auto", env = environment::BATCH_SIZE, help_heading = "What the plan fixes (another value needs another output)")]
    pub(crate) batch_size: Option<BatchSize>,
    /// Images of a unit of work, of retry and of output: each makes one file of each table
    #[arg(long, value_name = "IMAGES", env = environment::UNIT_SIZE, help_heading = "What the plan fixes (another value needs another output)")]
    pub(crate) unit_size: Option<usize>,
    /// How an image's key is made
    #[arg(long, value_name = "RULE", env = environment::IMAGE_ID, value_parser = image_id_parser(), help_heading = "What the plan fixes (another value needs another output)")]
    pub(crate) image_id: Option<ImageIdRule>,
    /// Where labels come from
    #[arg(long, value_name = "SOURCE", env = environment::LABELS, value_parser = labels_parser(), help_heading = "What the plan fixes (another value needs another output)")]
    pub(crate) labels: Option<LabelSource>,
    /// The names of the classes in the order of their labels, so that a subset or an empty class does not renumber them: a file with one
    /// name a line, or a JSON list
    #[arg(long, value_name = "FILE", env = environment::CLASSES, help_heading = "What the plan fixes (another value needs another output)")]
    pub(crate) classes: Option<PathBuf>,
    /// Which files and members of tar shards are images: usual (the extensions that image files have), any (all, told by their first
    /// bytes), or extensions with commas such as jpg,jpeg
    #[arg(long, value_name = "LIST", env = environment::IMAGE_EXTENSIONS, value_parser = extensions_parser, help_heading = "What the plan fixes (another value needs another output)")]
    pub(crate) image_extensions: Option<ImageExtensions>,
    /// Column of a Parquet source with the encoded images, binary or struct<bytes, path>; image, or the only one there is, when absent.
    /// Parts of nested columns are joined by dots
    #[arg(long, value_name = "NAME", env = environment::IMAGE_COLUMN, help_heading = "What the plan fixes (another value needs another output)")]
    pub(crate) image_column: Option<String>,
    /// Column of a Parquet source with the labels, as numbers or names of classes; label when absent
    #[arg(long, value_name = "NAME", env = environment::LABEL_COLUMN, help_heading = "What the plan fixes (another value needs another output)")]
    pub(crate) label_column: Option<String>,
    /// Column of a Parquet source with the images' keys, taken as they are; made by --image-id when absent
    #[arg(long, value_name = "NAME", env = environment::ID_COLUMN, help_heading = "What the plan fixes (another value needs another output)")]
    pub(crate) id_column: Option<String>,
    /// Take only the first images of the source, for a trial
    #[arg(long, value_name = "IMAGES", env = environment::MAX_IMAGES, help_heading = "What the plan fixes (another value needs another output)")]
    pub(crate) max_images: Option<u64>,

    /// Devices that encode: auto (all CUDA devices, else the processor), cpu, cuda (all), cuda:N, a list with commas, or cpu*N
    /// for N workers
    #[arg(long, value_name = "DEVICES", env = environment::DEVICES, help_heading = "How it runs")]
    pub(crate) devices: Option<Devices>,
    /// Threads that torch uses for one CPU worker; the cores divided by the workers when absent
    #[arg(long, value_name = "COUNT", env = environment::DEVICE_THREADS, help_heading = "How it runs")]
    pub(crate) device_threads: Option<usize>,
    /// Number of this process among those that share the output, from 0; else JOB_COMPLETION_INDEX, SLURM_ARRAY_TASK_ID,
    /// SLURM_PROCID or RANK
    #[arg(long, value_name = "NUMBER", env = environment::RANK, help_heading = "How it runs")]
    pub(crate) rank: Option<u32>,
    /// Processes that share the output; else SLURM_ARRAY_TASK_COUNT, SLURM_NTASKS or WORLD_SIZE (Kubernetes gives none)
    #[arg(long, value_name = "COUNT", env = environment::WORLD, help_heading = "How it runs")]
    pub(crate) world: Option<u32>,
    /// Longest pause before the start, shared out over the ranks, so that an array of jobs does not storm the store
    #[arg(long, value_name = "SECONDS", env = environment::START_JITTER_SECONDS, help_heading = "How it runs")]
    pub(crate) start_jitter_seconds: Option<u64>,
    /// Share of rejected images above which the job fails, such as 1% or 0.01
    #[arg(long, value_name = "SHARE", env = environment::MAX_REJECT_RATE, help_heading = "How it runs")]
    pub(crate) max_reject_rate: Option<RejectRate>,
    /// Leave the output unfinished when all units are done; `restok finalize` then checks and closes it
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL", env = environment::NO_FINALIZE, help_heading = "How it runs")]
    pub(crate) no_finalize: Option<bool>,
    /// List the source, print units, inputs and bytes, and stop; nothing is written
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL", env = environment::DRY_RUN, help_heading = "How it runs")]
    pub(crate) dry_run: Option<bool>,
    /// Shape of the report on standard output
    #[arg(long, value_name = "FORMAT", env = environment::FORMAT, help_heading = "How it runs")]
    pub(crate) format: Option<ReportFormat>,
}

impl Options for TokenizeOptions {
    fn defaults() -> Self {
        Self {
            split: Some("train".to_owned()),
            precision: Some(Precision::Fp32.name().to_owned()),
            batch_size: Some(BatchSize::default()),
            unit_size: Some(16_384),
            image_id: Some(ImageIdRule::Stem),
            labels: Some(LabelSource::Auto),
            image_extensions: Some(ImageExtensions::Usual),
            devices: Some(Devices::default()),
            start_jitter_seconds: Some(0),
            max_reject_rate: Some(RejectRate::default()),
            no_finalize: Some(false),
            dry_run: Some(false),
            format: Some(ReportFormat::Text),
            ..Self::default()
        }
    }
}

/// Settings of `restok tokenize`: nothing that is needed is absent.
#[derive(Clone, Debug)]
pub(crate) struct TokenizeSettings {
    /// Where the images are.
    pub(crate) source: String,
    /// Where the tables go.
    pub(crate) output: String,
    /// Where the tokenizer is.
    pub(crate) tokenizer: ModelReference,
    /// How the images lie; `None` to recognise it.
    pub(crate) layout: Option<SourceLayout>,
    /// Value of the partition.
    pub(crate) split: String,
    /// The crop; `None` for the one that fits the tokenizer.
    pub(crate) crop: Option<Crop>,
    /// Arithmetic.
    pub(crate) precision: Precision,
    /// Views of a batch.
    pub(crate) batch_size: BatchSize,
    /// Images of a unit.
    pub(crate) unit_size: usize,
    /// How keys are made.
    pub(crate) image_id: ImageIdRule,
    /// File with the names of the classes.
    pub(crate) classes: Option<PathBuf>,
    /// How images, labels and keys are found.
    pub(crate) reading: SourceReading,
    /// Only the first images.
    pub(crate) max_images: Option<u64>,
    /// Devices.
    pub(crate) devices: Devices,
    /// Threads of a CPU worker; `None` to divide the cores.
    pub(crate) device_threads: Option<usize>,
    /// Rank as given.
    pub(crate) rank: Option<u32>,
    /// World as given.
    pub(crate) world: Option<u32>,
    /// Longest pause before the start.
    pub(crate) start_jitter: Duration,
    /// Share of rejected images above which the job fails.
    pub(crate) max_reject_rate: RejectRate,
    /// Whether to close the output when all units are done.
    pub(crate) finalize: bool,
    /// Plan only.
    pub(crate) dry_run: bool,
    /// Shape of the report.
    pub(crate) format: ReportFormat,
}

impl TokenizeOptions {
    /// The settings.
    ///
    /// # Errors
    /// When something needed is absent, or a value cannot be.
    pub(crate) fn resolve(self) -> Result<TokenizeSettings, SettingsError> {
        const SECTION: &str = "tokenize";
        let source = required(self.source, "source", "--source URL", environment::SOURCE, SECTION)?;
        let output = required(self.output, "output", OUTPUT_USAGE, environment::OUTPUT, SECTION)?;
        let tokenizer = required(
            self.tokenizer,
            "tokenizer",
            "--tokenizer PATH or --tokenizer hf://owner/name",
            environment::TOKENIZER,
            SECTION,
        )?;
        let at_least_one = |key: &'static str, value: Option<usize>| match value {
            Some(0) | None => Err(SettingsError::invalid(key, "0", "at least 1")),
            Some(value) => Ok(value),
        };
        if self.max_images == Some(0) {
            return Err(SettingsError::invalid("--max-images", "0", "at least 1"));
        }
        if self.device_threads == Some(0) {
            return Err(SettingsError::invalid("--device-threads", "0", "at least 1"));
        }
        Ok(TokenizeSettings {
            source,
            output,
            tokenizer: ModelReference::parse("tokenizer", &tokenizer)?,
            layout: self.layout,
            split: partition_value(self.split.unwrap_or_default())?,
            crop: self.crop,
            precision: precision(self.precision)?,
            batch_size: self.batch_size.unwrap_or_default(),
            unit_size: at_least_one("--unit-size", self.unit_size)?,
            image_id: self.image_id.unwrap_or_default(),
            classes: self.classes,
            reading: SourceReading {
                labels: self.labels.unwrap_or_default(),
                image_extensions: self.image_extensions.unwrap_or_default(),
                columns: ColumnNames { image: self.image_column, label: self.label_column, id: self.id_column },
            },
            max_images: self.max_images,
            devices: self.devices.unwrap_or_default(),
            device_threads: self.device_threads,
            rank: self.rank,
            world: self.world,
            start_jitter: Duration::from_secs(self.start_jitter_seconds.unwrap_or_default()),
            max_reject_rate: self.max_reject_rate.unwrap_or_default(),
            finalize: self.no_finalize != Some(true),
            dry_run: self.dry_run == Some(true),
            format: self.format.unwrap_or_default(),
        })
    }
}

/// A precision by its name.
pub(super) fn precision(name: Option<String>) -> Result<Precision, SettingsError> {
    let name = name.unwrap_or_default();
    name.parse().map_err(|_| {
        SettingsError::invalid("precision", format!("{name:?}"), Precision::ALL.map(Precision::name).join(", "))
    })
}

/// A split that can stand in a path as `split=…` without quoting.
pub(super) fn partition_value(split: String) -> Result<String, SettingsError> {
    let fits = !split.is_empty()
        && !split.starts_with('.')
        && split.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    match fits {
        true => Ok(split),
        false => Err(SettingsError::invalid(
            "--split",
            format!("{split:?}"),
            "letters, digits, '-', '_' and '.', for it becomes a folder's name",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> TokenizeOptions {
        TokenizeOptions {
            source: Some("in".to_owned()),
            output: Some("out".to_owned()),
            tokenizer: Some("tokenizer".to_owned()),
            ..TokenizeOptions::defaults()
        }
    }

    #[test]
    fn three_options_are_enough() {
        let settings = complete().resolve().expect("complete");
        assert_eq!(
            (settings.batch_size, settings.unit_size, settings.split.as_str()),
            (BatchSize::Rows(32), 16_384, "train")
        );
        assert_eq!((settings.max_reject_rate.share(), settings.finalize, settings.dry_run), (0.01, true, false));
        assert_eq!(settings.devices.to_string(), "auto");
    }

    #[test]
    fn a_missing_option_is_named_with_every_way_to_give_it() {
        let error = TokenizeOptions { source: None, ..complete() }.resolve().expect_err("no source").to_string();
        for word in ["--source URL", "RESTOK_SOURCE", "[tokenize]"] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_their_flag() {
        for (options, flag) in [
            (TokenizeOptions { unit_size: Some(0), ..complete() }, "--unit-size"),
            (TokenizeOptions { max_images: Some(0), ..complete() }, "--max-images"),
            (TokenizeOptions { device_threads: Some(0), ..complete() }, "--device-threads"),
            (TokenizeOptions { split: Some("a/b".to_owned()), ..complete() }, "--split"),
            (TokenizeOptions { precision: Some("fp8".to_owned()), ..complete() }, "precision"),
            (TokenizeOptions { tokenizer: Some("hf://x".to_owned()), ..complete() }, "tokenizer"),
        ] {
            let error = options.resolve().expect_err(flag).to_string();
            assert!(error.contains(flag), "{error}");
        }
    }
}
