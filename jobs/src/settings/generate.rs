//! Options and settings of `restok generate`.

use super::{
    Devices, ModelReference, ReportFormat, SettingsError,
    sampling::{SamplingChoice, ScheduleOptions, sampling, schedule_parser},
    shared::{
        HOW, HeartbeatOptions, MetricsOptions, OUTPUT_USAGE, PLAN, ProcessOptions, WHAT, WorkerOptions, at_least_one,
        required,
    },
    tokenize::{partition_value, precision},
    values::precision_parser,
};
use models::Precision;
use schemas::{PictureFormat, Rounding, Sampling};
use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

const LOOK: &str = "Preview sheets (instead of an output)";

/// Options of `restok generate`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GenerateOptions {
    /// Generator to sample from: a local folder or hf://owner/name.
    ///
    /// The folder holds config.json and model.safetensors. Append @revision to hf://owner/name for a branch, tag or
    /// commit.
    #[arg(long, value_name = "PATH|hf://…", help_heading = WHAT)]
    pub(crate) generator: Option<String>,
    /// Tokenizer whose decoder makes the images: a local folder or hf://owner/name.
    ///
    /// The folder holds config.json and model.safetensors. Append @revision to hf://owner/name for a branch, tag or
    /// commit.
    #[arg(long, value_name = "PATH|hf://…", help_heading = WHAT)]
    pub(crate) tokenizer: Option<String>,
    /// Write tables and images to this path or URL: local, s3://, gs://, az:// or file://.
    ///
    /// A run of the same plan resumes there; another plan is refused.
    #[arg(long, value_name = "URL", help_heading = WHAT)]
    pub(crate) output: Option<String>,
    /// Decode the tokens of --tokens instead of sampling.
    ///
    /// Decodes the first view of each image.
    #[arg(long, help_heading = WHAT, default_value = "false")]
    pub(crate) decode_only: Option<bool>,
    /// Finished output whose tokens --decode-only decodes
    #[arg(long, value_name = "OUTPUT", help_heading = WHAT)]
    pub(crate) tokens: Option<String>,
    /// Name of the split: the value of the split= partition of the tables
    #[arg(long, value_name = "NAME", help_heading = WHAT, default_value = "generated")]
    pub(crate) split: Option<String>,

    /// Number of samples to generate.
    ///
    /// Required, except with --recipe, --grid or --reveal. Not allowed with --decode-only.
    #[arg(long, value_name = "SAMPLES", help_heading = PLAN)]
    pub(crate) count: Option<u64>,
    /// Classes to sample in turn: all, a list such as 0,7,10-19, or a file with one per line (default: all).
    ///
    /// Alternating classes keep the set balanced and any part of it mixed.
    #[arg(long, value_name = "all|LIST|FILE", help_heading = PLAN)]
    pub(crate) classes: Option<String>,
    /// Sample exactly as a published recipe; options that contradict it are refused.
    ///
    /// paper: 50,000 samples of all classes, guidance 3.75 from a quarter of the steps on, top-p 0.95, tf32, batches of
    /// 50, truncated pixels.
    #[arg(long, value_name = "NAME", value_parser = ["paper"], help_heading = PLAN)]
    pub(crate) recipe: Option<String>,
    /// Classifier-free guidance scale; 1 disables guidance (default: 3.75)
    #[arg(long, alias = "guidance", value_name = "SCALE", help_heading = PLAN)]
    pub(crate) guidance_scale: Option<f64>,
    /// How the guidance scale changes over the steps of a sample (default: step)
    #[arg(long, value_name = "NAME", value_parser = schedule_parser(), help_heading = PLAN)]
    pub(crate) schedule: Option<String>,
    /// Numbers of the schedule.
    #[command(flatten)]
    pub(crate) schedule_numbers: ScheduleOptions,
    /// Disable guidance in steps whose first token comes after TOKEN + 1, counted from 0 (the published cfg_interval)
    #[arg(long, value_name = "TOKEN", help_heading = PLAN)]
    pub(crate) guidance_interval: Option<usize>,
    /// Nucleus sampling: sample from the fewest most likely codes that reach this total probability (default: 0.95)
    #[arg(long, value_name = "PROBABILITY", help_heading = PLAN)]
    pub(crate) top_p: Option<f64>,
    /// Sample from the CODES most likely codes only, ties with the last included; 0 keeps all (default: 0)
    #[arg(long, value_name = "CODES", help_heading = PLAN)]
    pub(crate) top_k: Option<usize>,
    /// Sampling temperature: divides the logits (default: 1)
    #[arg(long, value_name = "NUMBER", help_heading = PLAN)]
    pub(crate) temperature: Option<f64>,
    /// Random seed; a sample depends only on the seed and its number
    #[arg(long, value_name = "NUMBER", help_heading = PLAN, default_value = "0")]
    pub(crate) seed: Option<u64>,
    /// Image formats to write, comma-separated: npz, parquet, webdataset, png or none.
    ///
    /// npz: the evaluation archive samples.npz, and parquet with it. parquet: PNG files in a column, as Hugging Face
    /// reads them. webdataset: tar shards. png: one file per image. none: only the tables.
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', help_heading = PLAN, default_value = "npz")]
    pub(crate) pictures: Option<Vec<String>>,
    /// How to convert decoded values to bytes: truncate or nearest (default: truncate).
    ///
    /// The published evaluation sets use truncate, the published reconstruction scores nearest.
    #[arg(long, value_name = "RULE", value_parser = ["truncate", "nearest"], help_heading = PLAN)]
    pub(crate) rounding: Option<String>,
    /// Floating-point precision of the generator (default: fp32)
    #[arg(long, value_name = "PRECISION", value_parser = precision_parser(), help_heading = PLAN)]
    pub(crate) precision: Option<String>,
    /// Floating-point precision of the tokenizer's decoder (default: that of --precision).
    ///
    /// Use fp32 for both or for neither.
    #[arg(long, value_name = "PRECISION", value_parser = precision_parser(), help_heading = PLAN)]
    pub(crate) decoder_precision: Option<String>,
    /// Samples per batch, not counting those that guidance adds (default: 50).
    ///
    /// The last batch of a unit is padded.
    #[arg(long, value_name = "SAMPLES", help_heading = PLAN)]
    pub(crate) batch_size: Option<usize>,
    /// Samples per unit of work, retry and output
    #[arg(long, value_name = "SAMPLES", help_heading = PLAN, default_value = "1000")]
    pub(crate) unit_size: Option<usize>,

    /// Draw a grid of samples into this PNG file, one row per class of --classes
    #[arg(long, value_name = "FILE", help_heading = LOOK)]
    pub(crate) grid: Option<PathBuf>,
    /// Number of samples per class in the grid
    #[arg(long, value_name = "COUNT", help_heading = LOOK, default_value = "10")]
    pub(crate) grid_columns: Option<usize>,
    /// Draw one sample per class, as it looks after each step, into this PNG file
    #[arg(long, value_name = "FILE", help_heading = LOOK)]
    pub(crate) reveal: Option<PathBuf>,
    /// Class names in label order, comma-separated (default: those that the generator was trained with).
    ///
    /// They label the sheets. An output records them if every class has one.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = LOOK)]
    pub(crate) class_names: Option<Vec<String>>,

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
    /// Accept a tokenizer other than the one the generator was trained with, if levels and codebook size match.
    ///
    /// With --decode-only: other than the one that made the tokens.
    #[arg(long, help_heading = HOW, default_value = "false")]
    pub(crate) allow_other_tokenizer: Option<bool>,
    /// Format of the report on standard output
    #[arg(long, value_name = "FORMAT", help_heading = HOW, default_value = "text")]
    pub(crate) format: Option<ReportFormat>,
}

/// What to generate from.
#[derive(Clone, Debug)]
pub(crate) enum Codes {
    /// A generator draws them.
    Draw {
        /// The generator.
        generator: ModelReference,
        /// How.
        sampling: Sampling,
        /// Which classes.
        classes: ClassChoice,
        /// How many; absent where only sheets are drawn.
        count: Option<u64>,
    },
    /// They stand in this output.
    Read(String),
}

/// Which classes to generate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClassChoice {
    /// All that the generator knows.
    All,
    /// These.
    Listed(Vec<i32>),
}

/// A sheet instead of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sheets {
    /// Many samples of each class.
    pub(crate) grid: Option<PathBuf>,
    /// Samples of each class on it.
    pub(crate) columns: usize,
    /// One sample of each class, step by step.
    pub(crate) reveal: Option<PathBuf>,
    /// Names of the classes, by number.
    pub(crate) class_names: Vec<String>,
}

/// Settings of `restok generate`.
#[derive(Clone, Debug)]
pub(crate) struct GenerateSettings {
    /// Where codes come from.
    pub(crate) codes: Codes,
    /// The tokenizer.
    pub(crate) tokenizer: ModelReference,
    /// Where tables and pictures go; absent where only sheets are drawn.
    pub(crate) output: Option<String>,
    /// Value of the partition.
    pub(crate) split: String,
    /// Forms of pictures; empty for the tables alone.
    pub(crate) formats: BTreeSet<PictureFormat>,
    /// From values to bytes.
    pub(crate) rounding: Rounding,
    /// Arithmetic of the generator.
    pub(crate) precision: Precision,
    /// Arithmetic of the decoder.
    pub(crate) decoder_precision: Precision,
    /// Samples of a batch.
    pub(crate) batch_size: usize,
    /// Samples of a unit.
    pub(crate) unit_size: usize,
    /// Sheets to draw.
    pub(crate) sheets: Sheets,
    /// Devices.
    pub(crate) devices: Devices,
    /// Threads of a CPU worker; `None` to divide the cores.
    pub(crate) device_threads: Option<usize>,
    /// Rank and world size as given.
    pub(crate) process: ProcessOptions,
    /// Longest pause before the start.
    pub(crate) start_jitter: Duration,
    /// Whether to close the output when all units are done.
    pub(crate) finalize: bool,
    /// Time between two heartbeats at first; `None` for no heartbeats.
    pub(crate) heartbeats: Option<Duration>,
    /// Where metrics are served.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Whether another tokenizer than the generator's will do.
    pub(crate) allow_other_tokenizer: bool,
    /// Shape of the report.
    pub(crate) format: ReportFormat,
}

/// What the published recipe says beyond how tokens are drawn (README and autoregressive/sample/sample_c2i_ddp_cfg_search.py).
const PAPER_COUNT: u64 = 50_000;
const PAPER_BATCH: usize = 50;
const PAPER_PRECISION: Precision = Precision::Tf32;

impl GenerateSettings {
    /// Samples that are drawn; absent where none are, or only for sheets.
    pub(crate) fn count(&self) -> Option<u64> {
        match &self.codes {
            Codes::Draw { count, .. } => *count,
            Codes::Read(_) => None,
        }
    }
}

impl GenerateOptions {
    /// The settings.
    ///
    /// # Errors
    /// When something needed is absent, contradicts the recipe or something else, or a value cannot be.
    pub(crate) fn resolve(mut self) -> Result<GenerateSettings, SettingsError> {
        const SECTION: &str = "generate";
        if self.recipe.is_some() {
            self.take_paper()?;
        }
        let sheets = Sheets {
            grid: self.grid.take(),
            columns: at_least_one("--grid-columns", self.grid_columns)?,
            reveal: self.reveal.take(),
            class_names: self.class_names.take().unwrap_or_default(),
        };
        let draws_sheets = sheets.grid.is_some() || sheets.reveal.is_some();
        let output = match draws_sheets {
            true if self.output.is_some() => {
                let expected = "no output: --grid and --reveal only draw sheets";
                return Err(SettingsError::invalid("--output", "together with --grid or --reveal", expected));
            }
            true => None,
            false => Some(required(self.output.take(), "output", OUTPUT_USAGE, SECTION)?),
        };
        let tokenizer = self.tokenizer.take();
        let tokenizer = required(tokenizer, "tokenizer", "--tokenizer PATH or hf://owner/name", SECTION)?;
        let formats = picture_formats(self.pictures.take().unwrap_or_default())?;
        let codes = self.codes(draws_sheets, SECTION)?;
        if matches!(codes, Codes::Read(_)) && formats.is_empty() {
            return Err(SettingsError::invalid(
                "--pictures",
                "none",
                "a format: --decode-only makes nothing but pictures",
            ));
        }
        let generator_precision = match self.precision {
            Some(name) => precision(Some(name))?,
            None => Precision::Fp32,
        };
        let decoder_precision = match self.decoder_precision {
            Some(name) => precision(Some(name))?,
            None => generator_precision,
        };
        // `models` refuses it on CUDA, where TensorFloat-32 is one switch of the process; refused here before anything is loaded.
        if !models::can_share_a_device(generator_precision, decoder_precision) {
            return Err(SettingsError::invalid(
                "--decoder-precision",
                format!("{decoder_precision} beside --precision {generator_precision}"),
                "fp32 for both or for neither (tf32 is the nearest to it)",
            ));
        }
        let (devices, device_threads) = self.workers.resolve()?;
        Ok(GenerateSettings {
            codes,
            tokenizer: ModelReference::parse("tokenizer", &tokenizer)?,
            output,
            split: partition_value(self.split.unwrap_or_default())?,
            formats,
            rounding: if self.rounding.as_deref() == Some("nearest") { Rounding::Nearest } else { Rounding::Truncate },
            precision: generator_precision,
            decoder_precision,
            batch_size: at_least_one("--batch-size", self.batch_size.or(Some(PAPER_BATCH)))?,
            unit_size: at_least_one("--unit-size", self.unit_size)?,
            sheets,
            devices,
            device_threads,
            process: self.process,
            start_jitter: Duration::from_secs(self.start_jitter_seconds.unwrap_or_default()),
            finalize: self.no_finalize != Some(true),
            heartbeats: self.heartbeats.period(),
            metrics_listen: self.metrics.metrics_listen,
            allow_other_tokenizer: self.allow_other_tokenizer == Some(true),
            format: self.format.unwrap_or_default(),
        })
    }

    /// Where codes come from.
    fn codes(&mut self, draws_sheets: bool, section: &'static str) -> Result<Codes, SettingsError> {
        if self.decode_only == Some(true) {
            let tokens = required(self.tokens.take(), "tokens", "--tokens OUTPUT", section)?;
            return match (draws_sheets, self.generator.is_some() || self.count.is_some()) {
                (false, false) => Ok(Codes::Read(tokens)),
                _ => Err(SettingsError::invalid(
                    "--decode-only",
                    "together with --generator, --count, --grid or --reveal",
                    "none of them: nothing is drawn",
                )),
            };
        }
        if self.tokens.is_some() {
            return Err(SettingsError::invalid("--tokens", "without --decode-only", "both, or neither"));
        }
        let generator = required(self.generator.take(), "generator", "--generator PATH or hf://owner/name", section)?;
        let count = match (self.count, draws_sheets) {
            (Some(0), _) => return Err(SettingsError::invalid("--count", "0", "at least 1")),
            (None, true) => None,
            (count, _) => Some(required(count, "count", "--count SAMPLES", section)?),
        };
        let choice = SamplingChoice {
            seed: self.seed.unwrap_or_default(),
            guidance: self.guidance_scale,
            schedule: self.schedule.take(),
            numbers: self.schedule_numbers,
            interval: self.guidance_interval,
            top_p: self.top_p,
            top_k: self.top_k,
            temperature: self.temperature,
        };
        Ok(Codes::Draw {
            generator: ModelReference::parse("generator", &generator)?,
            sampling: sampling(choice)?,
            classes: class_choice(self.classes.as_deref().unwrap_or("all"))?,
            count,
        })
    }

    /// Fills in what the published recipe says; whatever was given must say the same.
    fn take_paper(&mut self) -> Result<(), SettingsError> {
        fn fixed<T: PartialEq + std::fmt::Debug>(
            flag: &'static str,
            option: &mut Option<T>,
            paper: T,
        ) -> Result<(), SettingsError> {
            match option {
                Some(found) if *found != paper => Err(SettingsError::invalid(
                    flag,
                    format!("{found:?}"),
                    format!("{paper:?}, which --recipe paper fixes; leave the recipe out to change it"),
                )),
                _ => {
                    *option = Some(paper);
                    Ok(())
                }
            }
        }
        let absent = |flag: &'static str, given: bool| match given {
            true => Err(SettingsError::invalid(flag, "a value", "none: --recipe paper has no such thing")),
            false => Ok(()),
        };
        fixed("--count", &mut self.count, PAPER_COUNT)?;
        fixed("--classes", &mut self.classes, "all".to_owned())?;
        fixed("--guidance-scale", &mut self.guidance_scale, 3.75)?;
        fixed("--schedule", &mut self.schedule, "step".to_owned())?;
        fixed("--schedule-start", &mut self.schedule_numbers.schedule_start, 0.25)?;
        fixed("--schedule-floor", &mut self.schedule_numbers.schedule_floor, 1.0)?;
        fixed("--top-p", &mut self.top_p, 0.95)?;
        fixed("--top-k", &mut self.top_k, 0)?;
        fixed("--temperature", &mut self.temperature, 1.0)?;
        fixed("--rounding", &mut self.rounding, "truncate".to_owned())?;
        fixed("--precision", &mut self.precision, PAPER_PRECISION.name().to_owned())?;
        fixed("--decoder-precision", &mut self.decoder_precision, PAPER_PRECISION.name().to_owned())?;
        fixed("--batch-size", &mut self.batch_size, PAPER_BATCH)?;
        absent("--schedule-end", self.schedule_numbers.schedule_end.is_some())?;
        absent("--schedule-peak", self.schedule_numbers.schedule_peak.is_some())?;
        absent("--guidance-interval", self.guidance_interval.is_some())
    }
}

/// Forms of pictures by name.
pub(super) fn picture_formats(names: Vec<String>) -> Result<BTreeSet<PictureFormat>, SettingsError> {
    if matches!(&names[..], [only] if only == "none") {
        return Ok(BTreeSet::new());
    }
    let format = |name: &String| {
        PictureFormat::ALL.into_iter().find(|format| format.name() == name.trim()).ok_or_else(|| {
            let expected = "npz, parquet, webdataset, png, with commas, or none alone";
            SettingsError::invalid("--pictures", format!("{name:?}"), expected)
        })
    };
    names.iter().map(format).collect()
}

/// `all`, a list of numbers and ranges, or a file with one on each line.
pub(super) fn class_choice(text: &str) -> Result<ClassChoice, SettingsError> {
    if text == "all" {
        return Ok(ClassChoice::All);
    }
    if let Some(classes) = class_list(text.split(',')) {
        return Ok(ClassChoice::Listed(classes));
    }
    let expected = "all, numbers and ranges such as 0,7,10-19, or a file with one on each line";
    let lines = std::fs::read_to_string(text)
        .map_err(|error| SettingsError::invalid("--classes", format!("{text:?} ({error})"), expected))?;
    let classes = class_list(lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')));
    classes
        .filter(|classes| !classes.is_empty())
        .map(ClassChoice::Listed)
        .ok_or_else(|| SettingsError::invalid("--classes", format!("{text:?}, a file with other lines"), expected))
}

fn class_list<'a>(words: impl Iterator<Item = &'a str>) -> Option<Vec<i32>> {
    let mut classes = Vec::new();
    for word in words {
        let (first, last) = word.trim().split_once('-').unwrap_or((word.trim(), word.trim()));
        let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
        if first < 0 || last < first {
            return None;
        }
        classes.extend(first..=last);
    }
    Some(classes)
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};
    use schemas::GuidanceSchedule;

    const COMPLETE: &str = "--generator generator --tokenizer tokenizer --output out --count 10";

    fn complete() -> GenerateOptions {
        parsed(COMPLETE)
    }

    /// [`complete`] with more said.
    fn with(more: &str) -> GenerateOptions {
        parsed(&format!("{COMPLETE} {more}"))
    }

    fn drawn(options: GenerateOptions) -> (Sampling, ClassChoice, Option<u64>) {
        match options.resolve().expect("complete").codes {
            Codes::Draw { sampling, classes, count, .. } => (sampling, classes, count),
            Codes::Read(tokens) => panic!("nothing is drawn from {tokens}"),
        }
    }

    #[test]
    fn the_recipe_of_the_paper_is_the_published_one_to_the_letter() {
        let options = GenerateOptions { recipe: Some("paper".to_owned()), count: None, ..complete() };
        let settings = options.clone().resolve().expect("complete");
        assert_eq!(drawn(options), (Sampling::paper(0), ClassChoice::All, Some(50_000)));
        assert_eq!((settings.precision, settings.decoder_precision), (Precision::Tf32, Precision::Tf32));
        assert_eq!((settings.batch_size, settings.rounding), (50, Rounding::Truncate));
        assert!(settings.formats.contains(&PictureFormat::Npz));
    }

    #[test]
    fn a_flag_that_contradicts_the_recipe_is_refused_by_name() {
        let paper = || GenerateOptions { recipe: Some("paper".to_owned()), count: None, ..complete() };
        for (options, flag) in [
            (GenerateOptions { guidance_scale: Some(4.0), ..paper() }, "--guidance-scale"),
            (GenerateOptions { count: Some(10), ..paper() }, "--count"),
            (GenerateOptions { rounding: Some("nearest".to_owned()), ..paper() }, "--rounding"),
            (GenerateOptions { guidance_interval: Some(3), ..paper() }, "--guidance-interval"),
        ] {
            let error = options.resolve().expect_err(flag).to_string();
            assert!(error.contains(flag) && error.contains("--recipe paper"), "{error}");
        }
        let same = GenerateOptions { guidance_scale: Some(3.75), ..paper() };
        assert_eq!(drawn(same).0, Sampling::paper(0));
    }

    #[test]
    fn without_a_recipe_everything_can_be_changed() {
        let options = with("--guidance-scale 2 --schedule triangular --schedule-peak 0.25 --top-k 100 --classes 0,3-5");
        let (sampling, classes, count) = drawn(options);
        assert_eq!(sampling.guidance.schedule, GuidanceSchedule::Triangular { peak: 0.25 });
        assert_eq!((sampling.guidance.scale, sampling.top_k, sampling.top_p), (2.0, 100, 0.95));
        assert_eq!((classes, count), (ClassChoice::Listed(vec![0, 3, 4, 5]), Some(10)));
    }

    #[test]
    fn classes_may_stand_in_a_file() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "# birds\n7\n\n9-10\n").expect("it can be written");
        let name = file.path().to_string_lossy().into_owned();
        assert_eq!(class_choice(&name).expect("a file"), ClassChoice::Listed(vec![7, 9, 10]));
        std::fs::write(file.path(), "seven\n").expect("it can be written");
        let error = class_choice(&name).expect_err("no number").to_string();
        assert!(error.contains(&name), "{error}");
        assert!(class_choice("/nowhere/classes").expect_err("none").to_string().contains("/nowhere/classes"));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let read = || GenerateOptions {
            generator: None,
            count: None,
            decode_only: Some(true),
            tokens: Some("tables".to_owned()),
            ..complete()
        };
        assert!(matches!(read().resolve().expect("complete").codes, Codes::Read(tokens) if tokens == "tables"));
        for (options, word) in [
            (GenerateOptions { generator: Some("g".to_owned()), ..read() }, "--decode-only"),
            (GenerateOptions { pictures: Some(vec!["none".to_owned()]), ..read() }, "--pictures"),
            (GenerateOptions { decode_only: Some(false), ..read() }, "--tokens"),
            (GenerateOptions { tokens: None, ..read() }, "--tokens"),
            (GenerateOptions { count: None, ..complete() }, "--count"),
            (GenerateOptions { pictures: Some(vec!["jpeg".to_owned()]), ..complete() }, "--pictures"),
            (with("--schedule-peak 0.5"), "--schedule-peak"),
            (GenerateOptions { top_p: Some(0.0), ..complete() }, "top-p"),
            (
                GenerateOptions {
                    precision: Some("bf16".to_owned()),
                    decoder_precision: Some("fp32".to_owned()),
                    ..complete()
                },
                "--decoder-precision",
            ),
            (GenerateOptions { grid: Some("sheet.png".into()), ..complete() }, "--output"),
        ] {
            let error = options.resolve().expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_sheet_needs_no_output_and_no_count() {
        let options = GenerateOptions { output: None, count: None, grid: Some("sheet.png".into()), ..complete() };
        let settings = options.resolve().expect("complete");
        assert_eq!((settings.output, settings.sheets.columns), (None, 10));
    }
}
