//! Options and settings of `restok sweep`: one [`GenerateSettings`] for each point of a grid.

use super::{
    Devices, GenerateOptions, GenerateSettings, ReportFormat, SettingsError,
    evaluate::allowed,
    sampling::{ScheduleOptions, schedule_parser},
    shared::{HOW, HeartbeatOptions, MetricsOptions, OUTPUT_USAGE, ProcessOptions, WHAT, WorkerOptions, required},
    values::precision_parser,
};
use schemas::DeviationKind;
use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

const GRID: &str = "Grid (all combinations)";
const ALL: &str = "Shared by all points";
const SCORES: &str = "Scoring of every point (protocol gfid-adm)";

/// Options of `restok sweep`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SweepOptions {
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
    /// Write the sets to this path or URL, one folder per point: local, s3://, gs://, az:// or file://.
    ///
    /// Finished points are kept, so that the same command resumes.
    #[arg(long, value_name = "URL", help_heading = WHAT)]
    pub(crate) output: Option<String>,

    /// Classifier-free guidance scales, comma-separated; 1 disables guidance
    #[arg(long, alias = "guidance", value_name = "SCALES", value_delimiter = ',', help_heading = GRID, default_value = "1,1.5,2,3,3.75,5")]
    pub(crate) guidance_scale: Option<Vec<f64>>,
    /// Guidance schedules, comma-separated
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = schedule_parser(), help_heading = GRID, default_value = "step")]
    pub(crate) schedule: Option<Vec<String>>,
    /// Top-p (nucleus sampling) values, comma-separated
    #[arg(long, value_name = "PROBABILITIES", value_delimiter = ',', help_heading = GRID, default_value = "0.95")]
    pub(crate) top_p: Option<Vec<f64>>,
    /// Sampling temperatures, comma-separated
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', help_heading = GRID, default_value = "1")]
    pub(crate) temperature: Option<Vec<f64>>,

    /// Numbers of the schedule.
    #[command(flatten)]
    pub(crate) schedule_numbers: ScheduleOptions,
    /// Number of samples per point
    #[arg(long, value_name = "SAMPLES", help_heading = ALL, default_value = "1000")]
    pub(crate) count: Option<u64>,
    /// Classes to sample in turn: all, a list such as 0,7,10-19, or a file with one per line (default: all)
    #[arg(long, value_name = "all|LIST|FILE", help_heading = ALL)]
    pub(crate) classes: Option<String>,
    /// Sample from the CODES most likely codes only, ties with the last included; 0 keeps all (default: 0)
    #[arg(long, value_name = "CODES", help_heading = ALL)]
    pub(crate) top_k: Option<usize>,
    /// Random seed, shared by all points so that sets differ by the grid alone
    #[arg(long, value_name = "NUMBER", help_heading = ALL, default_value = "0")]
    pub(crate) seed: Option<u64>,
    /// Image formats to write, comma-separated: npz, parquet, webdataset, png or none.
    ///
    /// Scoring requires a format other than none.
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', help_heading = ALL, default_value = "npz")]
    pub(crate) pictures: Option<Vec<String>>,
    /// Floating-point precision of the generator and the decoder (default: fp32)
    #[arg(long, value_name = "PRECISION", value_parser = precision_parser(), help_heading = ALL)]
    pub(crate) precision: Option<String>,
    /// Samples per batch, not counting those that guidance adds (default: 50)
    #[arg(long, value_name = "SAMPLES", help_heading = ALL)]
    pub(crate) batch_size: Option<usize>,

    /// Score every set with this Inception network, as in `restok evaluate` (default: no scores)
    #[arg(long, value_name = "FILE", help_heading = SCORES)]
    pub(crate) inception: Option<PathBuf>,
    /// Compare every set with this reference, as in `restok evaluate`; requires --inception.
    ///
    /// Without it, only the inception score is computed.
    #[arg(long, value_name = "URL", help_heading = SCORES)]
    pub(crate) reference: Option<String>,
    /// Protocol rules that may be broken, comma-separated, as in `restok evaluate`.
    ///
    /// Small sets break count.
    #[arg(long, value_name = "RULES", value_delimiter = ',', help_heading = SCORES, default_value = "count")]
    pub(crate) allow: Option<Vec<String>>,

    /// Devices.
    #[command(flatten)]
    pub(crate) workers: WorkerOptions,
    /// What it says of itself while it works.
    #[command(flatten)]
    pub(crate) heartbeats: HeartbeatOptions,
    /// How it is seen from outside.
    #[command(flatten)]
    pub(crate) metrics: MetricsOptions,
    /// Accept a tokenizer other than the one the generator was trained with, if levels and codebook size match
    #[arg(long, help_heading = HOW, default_value = "false")]
    pub(crate) allow_other_tokenizer: Option<bool>,
    /// Format of the table on standard output
    #[arg(long, value_name = "FORMAT", help_heading = HOW, default_value = "text")]
    pub(crate) format: Option<ReportFormat>,
}

/// A point of the grid.
#[derive(Clone, Debug)]
pub(crate) struct SweepPoint {
    /// Its folder below the output.
    pub(crate) name: String,
    /// Where its set goes.
    pub(crate) output: String,
    /// How it is made.
    pub(crate) settings: GenerateSettings,
}

/// How points are scored.
#[derive(Clone, Debug)]
pub(crate) struct SweepScoring {
    /// The Inception network.
    pub(crate) inception: PathBuf,
    /// What sets are compared with.
    pub(crate) reference: Option<String>,
    /// Rules that may be broken.
    pub(crate) allow: BTreeSet<DeviationKind>,
}

/// Settings of `restok sweep`.
#[derive(Clone, Debug)]
pub(crate) struct SweepSettings {
    /// Every point, in the order of the grid; at least one.
    pub(crate) points: Vec<SweepPoint>,
    /// Where scores go, beside the points.
    pub(crate) output: String,
    /// How points are scored; `None` for not at all.
    pub(crate) scoring: Option<SweepScoring>,
    /// Devices.
    pub(crate) devices: Devices,
    /// Threads of a CPU worker.
    pub(crate) device_threads: Option<usize>,
    /// Where metrics are served.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Shape of the table.
    pub(crate) format: ReportFormat,
}

impl SweepOptions {
    /// The settings.
    ///
    /// # Errors
    /// When something needed is absent, or a value cannot be.
    pub(crate) fn resolve(self) -> Result<SweepSettings, SettingsError> {
        let output = required(self.output.clone(), "output", OUTPUT_USAGE, "sweep")?;
        let output = output.trim_end_matches('/');
        let mut points: Vec<SweepPoint> = Vec::new();
        let (guidance, schedules) =
            (axis("--guidance-scale", &self.guidance_scale)?, axis("--schedule", &self.schedule)?);
        let (fractions, temperatures) = (axis("--top-p", &self.top_p)?, axis("--temperature", &self.temperature)?);
        for &scale in guidance {
            for schedule in schedules {
                for &top_p in fractions {
                    for &temperature in temperatures {
                        let name = format!("guidance-{scale}-{schedule}-top-p-{top_p}-temperature-{temperature}");
                        let output = format!("{output}/{name}");
                        let options = self.point_options(&output, scale, schedule, top_p, temperature);
                        let settings = options.resolve()?;
                        // A value that is named twice is one point.
                        if points.iter().all(|point| point.name != name) {
                            points.push(SweepPoint { name, output, settings });
                        }
                    }
                }
            }
        }
        let scoring = self.scoring()?;
        let (devices, device_threads) = self.workers.resolve()?;
        Ok(SweepSettings {
            points,
            output: output.to_owned(),
            scoring,
            devices,
            device_threads,
            metrics_listen: self.metrics.metrics_listen,
            format: self.format.unwrap_or_default(),
        })
    }

    fn scoring(&self) -> Result<Option<SweepScoring>, SettingsError> {
        let Some(inception) = self.inception.clone() else {
            return match &self.reference {
                None => Ok(None),
                Some(reference) => {
                    let found = format!("{:?} without --inception", pipeline::without_secrets(reference));
                    Err(SettingsError::invalid("--reference", found, "the network that compares, too"))
                }
            };
        };
        if self.pictures.as_ref().is_some_and(|forms| forms.iter().all(|form| form == "none")) {
            let expected = "a form of pictures, for points are scored by them";
            return Err(SettingsError::invalid("--pictures", "none beside --inception", expected));
        }
        let allow = allowed(self.allow.as_deref().unwrap_or_default())?;
        Ok(Some(SweepScoring { inception, reference: self.reference.clone(), allow }))
    }

    /// What `restok generate` would be told for a point; of the numbers of schedules, those that this one takes.
    fn point_options(
        &self,
        output: &str,
        guidance: f64,
        schedule: &str,
        top_p: f64,
        temperature: f64,
    ) -> GenerateOptions {
        let begins = matches!(schedule, "step" | "rectangular");
        let peaks = matches!(schedule, "linear_constant" | "triangular");
        let ScheduleOptions { schedule_start, schedule_end, schedule_peak, schedule_floor } = self.schedule_numbers;
        GenerateOptions {
            generator: self.generator.clone(),
            tokenizer: self.tokenizer.clone(),
            output: Some(output.to_owned()),
            decode_only: None,
            tokens: None,
            split: Some("generated".to_owned()),
            count: self.count,
            classes: self.classes.clone(),
            recipe: None,
            guidance_scale: Some(guidance),
            schedule: Some(schedule.to_owned()),
            schedule_numbers: ScheduleOptions {
                schedule_start: schedule_start.filter(|_| begins),
                schedule_end: schedule_end.filter(|_| schedule == "rectangular"),
                schedule_peak: schedule_peak.filter(|_| peaks),
                schedule_floor: schedule_floor.filter(|_| begins),
            },
            guidance_interval: None,
            top_p: Some(top_p),
            top_k: self.top_k,
            temperature: Some(temperature),
            seed: self.seed,
            pictures: self.pictures.clone(),
            rounding: None,
            precision: self.precision.clone(),
            decoder_precision: None,
            batch_size: self.batch_size,
            unit_size: Some(1_000),
            grid: None,
            grid_columns: Some(1),
            reveal: None,
            class_names: None,
            workers: self.workers.clone(),
            process: ProcessOptions { rank: None, world_size: None },
            start_jitter_seconds: None,
            no_finalize: None,
            heartbeats: self.heartbeats,
            // One port for all points.
            metrics: MetricsOptions { metrics_listen: None },
            allow_other_tokenizer: self.allow_other_tokenizer,
            format: None,
        }
    }
}

fn axis<'a, T>(flag: &'static str, values: &'a Option<Vec<T>>) -> Result<&'a [T], SettingsError> {
    match values.as_deref() {
        Some(values) if !values.is_empty() => Ok(values),
        _ => Err(SettingsError::invalid(flag, "nothing", "at least one value")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    const COMPLETE: &str = "--generator generator --tokenizer tokenizer --output s3://bucket/sweep/";

    fn complete() -> SweepOptions {
        parsed(COMPLETE)
    }

    /// [`complete`] with more said.
    fn with(more: &str) -> SweepOptions {
        parsed(&format!("{COMPLETE} {more}"))
    }

    #[test]
    fn every_value_meets_every_other_once() {
        let options = SweepOptions {
            guidance_scale: Some(vec![1.0, 2.0, 2.0]),
            schedule: Some(vec!["step".to_owned(), "cosine".to_owned()]),
            top_p: Some(vec![0.9, 1.0]),
            ..complete()
        };
        let points = options.resolve().expect("complete").points;
        assert_eq!(points.len(), 8);
        assert_eq!(points[0].output, "s3://bucket/sweep/guidance-1-step-top-p-0.9-temperature-1");
        let mut names: Vec<_> = points.iter().map(|point| point.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 8);
    }

    #[test]
    fn points_are_scored_where_there_are_a_network_and_pictures_in_any_precision() {
        assert!(complete().resolve().expect("complete").scoring.is_none());
        let scored = SweepOptions { inception: Some("inception.safetensors".into()), ..complete() };
        let scoring = scored.clone().resolve().expect("complete").scoring.expect("a network");
        assert_eq!(scoring.allow, [DeviationKind::Count].into());
        let halves = SweepOptions { precision: Some("bf16".to_owned()), ..scored.clone() };
        assert!(halves.resolve().expect("the extractor computes in its own").scoring.is_some());
        for (options, flag) in [
            (SweepOptions { reference: Some("r.npz".to_owned()), ..complete() }, "--reference"),
            (SweepOptions { pictures: Some(vec!["none".to_owned()]), ..scored.clone() }, "--pictures"),
        ] {
            let error = options.resolve().expect_err(flag).to_string();
            assert!(error.contains(flag), "{error}");
        }
    }

    #[test]
    fn a_number_of_schedules_goes_to_those_that_take_it() {
        let options =
            with("--guidance-scale 2 --schedule step,triangular,cosine --schedule-start 0.5 --schedule-peak 0.75");
        let points = options.resolve().expect("each takes its own").points;
        let schedules: Vec<String> = points.iter().map(|point| format!("{:?}", point.settings.codes)).collect();
        assert!(schedules[0].contains("start: 0.5") && schedules[1].contains("peak: 0.75"), "{schedules:?}");
        assert!(schedules[2].contains("Cosine"), "{schedules:?}");
    }

    #[test]
    fn a_point_that_cannot_be_is_refused_before_any_is_made() {
        let options = SweepOptions { guidance_scale: Some(vec![2.0, 0.5]), ..complete() };
        assert!(options.resolve().expect_err("below 1").to_string().contains("guidance scale"));
        let options = SweepOptions { top_p: Some(Vec::new()), ..complete() };
        assert!(options.resolve().expect_err("empty").to_string().contains("--top-p"));
    }
}
