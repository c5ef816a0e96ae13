//! Options and settings of `restok tokenize`.

use super::{
    Devices, ModelReference, RejectRate, ReportFormat, SettingsError,
    shared::{
        HOW, HeartbeatOptions, ImageOptions, LabelOptions, MetricsOptions, OUTPUT_USAGE, PLAN, ProcessOptions, WHAT,
        WorkerOptions, at_least_one, at_least_one_if_given, required,
    },
    values::{BatchSize, crop_parser, image_id_parser, precision_parser},
};
use models::Precision;
use schemas::{Crop, ImageIdRule, SourceLayout, SourceReading};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Options of `restok tokenize`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TokenizeOptions {
    /// Read images from this path or URL: local, s3://, gs://, az://, https:// or file://.
    ///
    /// Patterns with {0000..1023}, {a,b}, * and ** match many files; quote them against the shell.
    #[arg(long, value_name = "URL", help_heading = WHAT)]
    pub(crate) source: Option<String>,
    /// Write the tables to this path or URL: local, s3://, gs://, az:// or file://.
    ///
    /// A run of the same plan resumes there; another plan is refused.
    #[arg(long, value_name = "URL", help_heading = WHAT)]
    pub(crate) output: Option<String>,
    /// Tokenizer to encode with: a local folder or hf://owner/name.
    ///
    /// The folder holds config.json and model.safetensors. Append @revision to hf://owner/name for a branch, tag or
    /// commit.
    #[arg(long, value_name = "PATH|hf://…", help_heading = WHAT)]
    pub(crate) tokenizer: Option<String>,
    /// How images are found.
    #[command(flatten)]
    pub(crate) images: ImageOptions,
    /// Name of the split: the value of the split= partition of the tables
    #[arg(long, value_name = "NAME", help_heading = WHAT, default_value = "train")]
    pub(crate) split: Option<String>,

    /// Crop of the images (default: adm-center-SIZE at the tokenizer's resolution).
    ///
    /// One of adm-center-SIZE, adm-center-SIZE-flip (2 views), adm-ten-crop-RESIZE-SIZE (10 views) and
    /// torchvision-center-SIZE, where SIZE is the tokenizer's resolution in pixels. EXIF orientation is ignored, as in
    /// the published preprocessing.
    #[arg(long, value_name = "NAME", value_parser = crop_parser, help_heading = PLAN)]
    pub(crate) crop: Option<Crop>,
    /// Floating-point precision of the tokenizer
    #[arg(long, value_name = "PRECISION", value_parser = precision_parser(), help_heading = PLAN, default_value = "fp32")]
    pub(crate) precision: Option<String>,
    /// Views per batch, or auto to fit the memory of the first device.
    ///
    /// auto measures memory before the plan is frozen and takes the largest power of two that fits, at most 256 on a
    /// GPU and 32 on a CPU; an output that already has a plan keeps its batch size. The last batch of a unit is padded,
    /// so that every batch runs the same kernels.
    #[arg(long, value_name = "VIEWS|auto", help_heading = PLAN, default_value = "32")]
    pub(crate) batch_size: Option<BatchSize>,
    /// Images per unit of work, retry and output; each unit writes one file of each table
    #[arg(long, value_name = "IMAGES", help_heading = PLAN, default_value = "16384")]
    pub(crate) unit_size: Option<usize>,
    /// How to derive the keys of images
    #[arg(long, value_name = "RULE", value_parser = image_id_parser(), help_heading = PLAN, default_value = "stem")]
    pub(crate) image_id: Option<ImageIdRule>,
    /// How labels are found.
    #[command(flatten)]
    pub(crate) labels: LabelOptions,
    /// File with the class names in label order: one per line, or a JSON list or object.
    ///
    /// Fixes the labels, so that a subset or an empty class does not renumber them. A JSON object maps labels to names.
    #[arg(long, value_name = "FILE", help_heading = PLAN)]
    pub(crate) classes: Option<PathBuf>,
    /// Parquet column with the keys of images, used as they are (default: keys made by --image-id)
    #[arg(long, value_name = "NAME", help_heading = PLAN)]
    pub(crate) id_column: Option<String>,
    /// Use only the first IMAGES images of the source, for a trial
    #[arg(long, value_name = "IMAGES", help_heading = PLAN)]
    pub(crate) max_images: Option<u64>,

    /// Devices.
    #[command(flatten)]
    pub(crate) workers: WorkerOptions,
    /// This process among those that share the output.
    #[command(flatten)]
    pub(crate) process: ProcessOptions,
    /// Stagger the starts of all ranks over this many seconds.
    ///
    /// Rank R of W waits R/W of it, so that an array of jobs does not hit the store at once.
    #[arg(long, value_name = "SECONDS", help_heading = HOW, default_value = "0")]
    pub(crate) start_jitter_seconds: Option<u64>,
    /// Fail if more than this fraction of images is rejected, such as 1% or 0.01
    #[arg(long, value_name = "FRACTION", help_heading = HOW, default_value = "1%")]
    pub(crate) max_reject_rate: Option<RejectRate>,
    /// Leave the output open when all units are done.
    ///
    /// Run `restok finalize` to check and close it.
    #[arg(long, help_heading = HOW, default_value = "false")]
    pub(crate) no_finalize: Option<bool>,
    /// What it says of itself while it works.
    #[command(flatten)]
    pub(crate) heartbeats: HeartbeatOptions,
    /// How it is seen from outside.
    #[command(flatten)]
    pub(crate) metrics: MetricsOptions,
    /// Print the plan and write nothing.
    ///
    /// Lists the source and reports inputs, bytes, units, the memory of a batch and the state of the output.
    #[arg(long, help_heading = HOW, default_value = "false")]
    pub(crate) dry_run: Option<bool>,
    /// Format of the report on standard output
    #[arg(long, value_name = "FORMAT", help_heading = HOW, default_value = "text")]
    pub(crate) format: Option<ReportFormat>,
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
    /// Rank and world size as given.
    pub(crate) process: ProcessOptions,
    /// Longest pause before the start.
    pub(crate) start_jitter: Duration,
    /// Fraction of rejected images above which the job fails.
    pub(crate) max_reject_rate: RejectRate,
    /// Whether to close the output when all units are done.
    pub(crate) finalize: bool,
    /// Time between two heartbeats at first; `None` for no heartbeats.
    pub(crate) heartbeats: Option<Duration>,
    /// Where metrics are served.
    pub(crate) metrics_listen: Option<SocketAddr>,
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
        let source = required(self.source, "source", "--source URL", SECTION)?;
        let output = required(self.output, "output", OUTPUT_USAGE, SECTION)?;
        let tokenizer =
            required(self.tokenizer, "tokenizer", "--tokenizer PATH or --tokenizer hf://owner/name", SECTION)?;
        let max_images = at_least_one_if_given("--max-images", self.max_images)?;
        let (devices, device_threads) = self.workers.resolve()?;
        Ok(TokenizeSettings {
            source,
            output,
            tokenizer: ModelReference::parse("tokenizer", &tokenizer)?,
            layout: self.images.layout,
            split: partition_value(self.split.unwrap_or_default())?,
            crop: self.crop,
            precision: precision(self.precision)?,
            batch_size: self.batch_size.unwrap_or_default(),
            unit_size: at_least_one("--unit-size", self.unit_size)?,
            image_id: self.image_id.unwrap_or_default(),
            classes: self.classes,
            reading: self.images.reading(Some(self.labels), self.id_column),
            max_images,
            devices,
            device_threads,
            process: self.process,
            start_jitter: Duration::from_secs(self.start_jitter_seconds.unwrap_or_default()),
            max_reject_rate: self.max_reject_rate.unwrap_or_default(),
            finalize: self.no_finalize != Some(true),
            heartbeats: self.heartbeats.period(),
            metrics_listen: self.metrics.metrics_listen,
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
    use super::{super::parsed, *};

    const COMPLETE: &str = "--source in --output out --tokenizer tokenizer";

    fn complete() -> TokenizeOptions {
        parsed(COMPLETE)
    }

    /// [`complete`] with more said.
    fn with(more: &str) -> TokenizeOptions {
        parsed(&format!("{COMPLETE} {more}"))
    }

    #[test]
    fn three_options_are_enough() {
        let settings = complete().resolve().expect("complete");
        assert_eq!(
            (settings.batch_size, settings.unit_size, settings.split.as_str()),
            (BatchSize::Rows(32), 16_384, "train")
        );
        assert_eq!((settings.max_reject_rate.fraction(), settings.finalize, settings.dry_run), (0.01, true, false));
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
            (with("--device-threads 0"), "--device-threads"),
            (TokenizeOptions { split: Some("a/b".to_owned()), ..complete() }, "--split"),
            (TokenizeOptions { precision: Some("fp8".to_owned()), ..complete() }, "precision"),
            (TokenizeOptions { tokenizer: Some("hf://x".to_owned()), ..complete() }, "tokenizer"),
        ] {
            let error = options.resolve().expect_err(flag).to_string();
            assert!(error.contains(flag), "{error}");
        }
    }
}
