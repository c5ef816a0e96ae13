//! Options and settings of `restok evaluate`.

use super::{
    Devices, ModelReference, RejectRate, ReportFormat, SettingsError,
    shared::{
        HOW, ImageOptions, LabelOptions, MetricsOptions, OUTPUT_USAGE, ProcessOptions, WHAT, WorkerOptions,
        at_least_one, at_least_one_if_given, required,
    },
    tokenize::precision,
    values::{crop_parser, named, precision_parser},
};
use clap::builder::TypedValueParser;
use models::{KernelDistanceOptions, Precision, Resampling};
use pipeline::ImageSetOptions;
use schemas::{Crop, DeviationKind, Protocol, ScoreKind, SourceLayout, SourceReading};
use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

const NETWORKS: &str = "Scoring networks";
const SCORES: &str = "Scores (--protocol gfid-adm)";
const REBUILDING: &str = "Reconstruction (--protocol rfid)";

/// Images of a batch where nobody says otherwise.
const BATCH_SIZE: usize = 32;

/// Images of a unit where nobody says otherwise.
const UNIT_SIZE: usize = ImageSetOptions::UNIT_SIZE;

/// Resampled sets of an interval where nobody says otherwise.
const RESAMPLES: usize = 1_000;

/// Options of `restok evaluate`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EvaluateOptions {
    /// Read images from this path or URL: local, s3://, gs://, az://, https:// or file://.
    ///
    /// An output of `restok generate`, an archive (.npz), a folder, tar shards or Parquet; under rfid, the originals to
    /// reconstruct. Patterns with {0000..1023}, {a,b}, * and ** match many files; quote them against the shell.
    #[arg(long, value_name = "URL", help_heading = WHAT)]
    pub(crate) source: Option<String>,
    /// Write features and scores to this path or URL: local, s3://, gs://, az:// or file://.
    ///
    /// One folder may hold the scores of many sets. The same command resumes an interrupted run.
    #[arg(long, value_name = "URL", help_heading = WHAT)]
    pub(crate) output: Option<String>,
    /// Evaluation protocol, which decides metrics and rules
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol_parser(), help_heading = WHAT, default_value = "gfid-adm")]
    pub(crate) protocol: Option<String>,
    /// Reference to compare with: VIRTUAL_imagenet256_labeled.npz, an archive with mu and sigma, or one from
    /// --make-reference.
    ///
    /// Without it, gfid-adm computes only the inception score. rfid takes none: reconstructions are compared with their
    /// originals.
    #[arg(long, value_name = "URL", help_heading = WHAT)]
    pub(crate) reference: Option<String>,
    /// Write a reference archive (.npz) with the statistics of --source, instead of scoring it
    #[arg(long, value_name = "FILE", help_heading = WHAT)]
    pub(crate) make_reference: Option<String>,
    /// Protocol rules that may be broken, comma-separated; the result names them.
    ///
    /// count: another number of images. order: images sorted by class. resize: another size or crop. jpeg: lossy files.
    /// reference: one of another protocol or of unknown origin. rejects: broken images left out. precision: a tokenizer
    /// not in fp32.
    #[arg(long, value_name = "RULES", value_delimiter = ',', help_heading = WHAT)]
    pub(crate) allow: Option<Vec<String>>,
    /// How images are found.
    #[command(flatten)]
    pub(crate) images: ImageOptions,
    /// How labels are found.
    #[command(flatten)]
    pub(crate) labels: LabelOptions,
    /// Crop of one view: adm-center-SIZE or torchvision-center-SIZE.
    ///
    /// Defaults to no crop under gfid-adm, and to torchvision-center-SIZE at the tokenizer's resolution under rfid.
    #[arg(long, value_name = "NAME", value_parser = crop_parser, help_heading = WHAT)]
    pub(crate) crop: Option<Crop>,
    /// Use only the first IMAGES images of the source, for a trial
    #[arg(long, value_name = "IMAGES", help_heading = WHAT)]
    pub(crate) max_images: Option<u64>,

    /// Scores to compute, comma-separated (default: fid,sfid,is,precision,recall, as far as the reference allows).
    ///
    /// fid, sfid, is, precision, recall: as the ADM evaluator. kid, mind: other distances, which few images tell. density,
    /// coverage: precision and recall that outliers do not spoil. fid-infinity: FID of a set without end. vendi: how varied
    /// the set is. authpct: percentage of images that are no copies. All but is, vendi, fid, sfid and fid-infinity compare
    /// with features of the reference's images.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = SCORES)]
    pub(crate) scores: Option<Vec<String>>,
    /// Confidence of the scores' intervals, in percent, such as 95 (default: no intervals).
    ///
    /// Intervals of fid, sfid, is, kid, precision, recall, density and coverage, by resampling.
    #[arg(long, value_name = "PERCENT", help_heading = SCORES)]
    pub(crate) confidence: Option<f64>,
    /// Resampled sets per interval
    #[arg(long, value_name = "SETS", help_heading = SCORES, default_value = "1000")]
    pub(crate) resamples: Option<usize>,
    /// Random subsets whose kernel distances kid is the mean of
    #[arg(long, value_name = "SUBSETS", help_heading = SCORES, default_value = "100")]
    pub(crate) kid_subsets: Option<usize>,
    /// Images per subset of kid
    #[arg(long, value_name = "IMAGES", help_heading = SCORES, default_value = "1000")]
    pub(crate) kid_subset_size: Option<usize>,
    /// Seed of what scores and intervals draw: subsets, directions, resampled sets
    #[arg(long, value_name = "SEED", help_heading = SCORES, default_value = "0")]
    pub(crate) score_seed: Option<u64>,

    /// Inception network of 2015-12-05, as safetensors with the names of its PyTorch port.
    ///
    /// Required under gfid-adm. Without it, rfid computes no FID and no inception score.
    #[arg(long, value_name = "FILE", help_heading = NETWORKS)]
    pub(crate) inception: Option<PathBuf>,
    /// AlexNet weights for LPIPS, as safetensors with torchvision's names; requires --lpips
    #[arg(long, value_name = "FILE", help_heading = NETWORKS)]
    pub(crate) alexnet: Option<PathBuf>,
    /// Linear layers of LPIPS 0.1 over AlexNet, as safetensors; requires --alexnet
    #[arg(long, value_name = "FILE", help_heading = NETWORKS)]
    pub(crate) lpips: Option<PathBuf>,

    /// Tokenizer to evaluate: a local folder or hf://owner/name.
    ///
    /// The folder holds config.json and model.safetensors. Append @revision to hf://owner/name for a branch, tag or
    /// commit.
    #[arg(long, value_name = "PATH|hf://…", help_heading = REBUILDING)]
    pub(crate) tokenizer: Option<String>,
    /// Numbers of leading tokens to reconstruct from, comma-separated (default: all tokens)
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', help_heading = REBUILDING)]
    pub(crate) keep: Option<Vec<usize>>,
    /// Floating-point precision of the tokenizer
    #[arg(long, value_name = "PRECISION", value_parser = precision_parser(), help_heading = REBUILDING, default_value = "fp32")]
    pub(crate) precision: Option<String>,

    /// Images per batch
    #[arg(long, value_name = "IMAGES", help_heading = HOW, default_value = "32")]
    pub(crate) batch_size: Option<usize>,
    /// Images per unit of work; each unit writes one file of features.
    ///
    /// Features take 16 KB per image; under rfid, 8 KB per original and per reconstruction.
    #[arg(long, value_name = "IMAGES", help_heading = HOW, default_value = "1000")]
    pub(crate) unit_size: Option<usize>,
    /// Devices.
    #[command(flatten)]
    pub(crate) workers: WorkerOptions,
    /// This process among those that share the output.
    #[command(flatten)]
    pub(crate) process: ProcessOptions,
    /// How it is seen from outside.
    #[command(flatten)]
    pub(crate) metrics: MetricsOptions,
    /// Refuse to score if more than this fraction of images is broken, such as 1% or 0.01.
    ///
    /// Any broken image breaks the rule rejects, see --allow.
    #[arg(long, value_name = "FRACTION", help_heading = HOW, default_value = "1%")]
    pub(crate) max_reject_rate: Option<RejectRate>,
    /// Format of the result on standard output
    #[arg(long, value_name = "FORMAT", help_heading = HOW, default_value = "text")]
    pub(crate) format: Option<ReportFormat>,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum EvaluationTask {
    /// Score a set of images against a reference.
    Score {
        /// The reference; without one there is only what needs none.
        reference: Option<String>,
        /// The Inception network.
        inception: PathBuf,
    },
    /// Make a reference of a set of images.
    MakeReference {
        /// The archive to write.
        archive: String,
        /// The Inception network.
        inception: PathBuf,
    },
    /// Score the reconstructions of a tokenizer.
    Reconstruct(ReconstructionTask),
}

/// Which reconstructions, and what is measured of them.
#[derive(Clone, Debug)]
pub(crate) struct ReconstructionTask {
    /// The tokenizer.
    pub(crate) tokenizer: ModelReference,
    /// Its arithmetic.
    pub(crate) precision: Precision,
    /// Prefix lengths, ascending; `None` for all tokens.
    pub(crate) keep: Option<Vec<usize>>,
    /// The Inception network, for rFID.
    pub(crate) inception: Option<PathBuf>,
    /// AlexNet and the layers of LPIPS.
    pub(crate) lpips: Option<(PathBuf, PathBuf)>,
}

/// Settings of `restok evaluate`.
#[derive(Clone, Debug)]
pub(crate) struct EvaluateSettings {
    /// What is to be done.
    pub(crate) task: EvaluationTask,
    /// Where the images are.
    pub(crate) source: String,
    /// Where features and scores go.
    pub(crate) output: String,
    /// The protocol.
    pub(crate) protocol: Protocol,
    /// Rules that may be broken.
    pub(crate) allow: BTreeSet<DeviationKind>,
    /// Which scores of a generated set.
    pub(crate) scores: ScoreSelection,
    /// How the images lie; `None` to recognise it.
    pub(crate) layout: Option<SourceLayout>,
    /// How images and labels are found.
    pub(crate) reading: SourceReading,
    /// The crop that was asked for.
    pub(crate) crop: Option<Crop>,
    /// Only the first images.
    pub(crate) max_images: Option<u64>,
    /// How it runs.
    pub(crate) work: ScoringWork,
    /// Fraction of broken images above which nothing is scored.
    pub(crate) max_reject_rate: RejectRate,
    /// Devices.
    pub(crate) devices: Devices,
    /// Threads of a CPU worker; `None` to divide the cores.
    pub(crate) device_threads: Option<usize>,
    /// Where metrics are served.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Shape of the result.
    pub(crate) format: ReportFormat,
}

/// Which scores of a set are computed, and what they draw.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScoreSelection {
    /// Those that were asked for; `None` for the ADM evaluator's, as far as the reference allows.
    pub(crate) asked: Option<BTreeSet<ScoreKind>>,
    /// Subsets of the kernel distance.
    pub(crate) kernel: KernelDistanceOptions,
    /// Seed of everything that is drawn.
    pub(crate) seed: u64,
    /// How intervals are made, where they are.
    pub(crate) intervals: Option<IntervalSettings>,
}

/// How confidence intervals are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntervalSettings {
    /// In percent.
    pub(crate) confidence: f64,
    /// Resampled sets.
    pub(crate) resamples: usize,
}

/// How the images of a set are worked through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScoringWork {
    /// Images of a batch.
    pub(crate) batch_size: usize,
    /// Images of a unit.
    pub(crate) unit_size: usize,
    /// Rank and world size as given.
    pub(crate) process: ProcessOptions,
}

impl Default for ScoringWork {
    fn default() -> Self {
        Self { batch_size: BATCH_SIZE, unit_size: UNIT_SIZE, process: ProcessOptions { rank: None, world_size: None } }
    }
}

impl EvaluateOptions {
    /// The settings.
    ///
    /// # Errors
    /// When something needed is absent, or a value cannot be.
    pub(crate) fn resolve(self) -> Result<EvaluateSettings, SettingsError> {
        const SECTION: &str = "evaluate";
        let source = required(self.source.clone(), "source", "--source URL", SECTION)?;
        let output = required(self.output.clone(), "output", OUTPUT_USAGE, SECTION)?;
        let protocol = self.protocol.clone().unwrap_or_default();
        let protocol: Protocol = protocol.parse().map_err(|_| {
            SettingsError::invalid(
                "--protocol",
                format!("{protocol:?}"),
                Protocol::ALL.map(Protocol::name).join(" or "),
            )
        })?;
        if let Some(crop) = self.crop.filter(|crop| crop.views() != 1) {
            let found = format!("{crop}, {} views an image", crop.views());
            return Err(SettingsError::invalid("--crop", found, "a crop of one view"));
        }
        let max_images = at_least_one_if_given("--max-images", self.max_images)?;
        let task = self.task(protocol)?;
        let scores = self.score_selection(&task)?;
        let (devices, device_threads) = self.workers.resolve()?;
        Ok(EvaluateSettings {
            task,
            source,
            output,
            protocol,
            allow: allowed(self.allow.as_deref().unwrap_or_default())?,
            scores,
            layout: self.images.layout,
            reading: self.images.reading(Some(self.labels), None),
            crop: self.crop,
            max_images,
            work: ScoringWork {
                batch_size: at_least_one("--batch-size", self.batch_size)?,
                unit_size: at_least_one("--unit-size", self.unit_size)?,
                process: self.process,
            },
            max_reject_rate: self.max_reject_rate.unwrap_or_default(),
            devices,
            device_threads,
            metrics_listen: self.metrics.metrics_listen,
            format: self.format.unwrap_or_default(),
        })
    }

    fn score_selection(&self, task: &EvaluationTask) -> Result<ScoreSelection, SettingsError> {
        let by_names = |names| by_name("--scores", names, ScoreKind::ALL, ScoreKind::name);
        let asked = self.scores.as_deref().map(by_names).transpose()?;
        if !matches!(task, EvaluationTask::Score { .. }) {
            let given = [("--scores", asked.is_some()), ("--confidence", self.confidence.is_some())];
            if let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) {
                let expected = "none with --make-reference or --protocol rfid: it is for generated sets";
                return Err(SettingsError::invalid(flag, "a value", expected));
            }
        }
        let (seed, resamples) = (self.score_seed.unwrap_or(0), self.resamples.unwrap_or(RESAMPLES));
        let defaults = KernelDistanceOptions::default();
        let kernel = KernelDistanceOptions {
            subsets: at_least_one_if_given("--kid-subsets", self.kid_subsets)?.unwrap_or(defaults.subsets),
            subset_size: self.kid_subset_size.unwrap_or(defaults.subset_size),
            seed,
        };
        if kernel.subset_size < 2 {
            return Err(SettingsError::invalid(
                "--kid-subset-size",
                kernel.subset_size.to_string(),
                "at least 2 images",
            ));
        }
        let intervals = self.confidence.map(|confidence| {
            if !(confidence > 0.0 && confidence < 100.0) {
                let expected = "a percentage above 0 and below 100, such as 95";
                return Err(SettingsError::invalid("--confidence", confidence.to_string(), expected));
            }
            let least = Resampling::least(confidence / 100.0);
            if resamples < least {
                let expected = format!("at least {least} for a confidence of {confidence} %");
                return Err(SettingsError::invalid("--resamples", resamples.to_string(), expected));
            }
            Ok(IntervalSettings { confidence, resamples })
        });
        Ok(ScoreSelection { asked, kernel, seed, intervals: intervals.transpose()? })
    }

    fn task(&self, protocol: Protocol) -> Result<EvaluationTask, SettingsError> {
        const SECTION: &str = "evaluate";
        let inception = || required(self.inception.clone(), "inception", "--inception FILE", SECTION);
        if let Some(archive) = self.make_reference.clone() {
            if !archive.ends_with(".npz") {
                return Err(SettingsError::invalid(
                    "--make-reference",
                    format!("{:?}", pipeline::without_secrets(&archive)),
                    "a name that ends with .npz",
                ));
            }
            if self.reference.is_some() {
                return Err(SettingsError::invalid("--make-reference", "--reference beside it", "one of the two"));
            }
            if protocol != Protocol::GfidAdm {
                let expected = "gfid-adm: reconstructions are compared with their own originals";
                return Err(SettingsError::invalid("--make-reference", format!("--protocol {protocol}"), expected));
            }
            return Ok(EvaluationTask::MakeReference { archive, inception: inception()? });
        }
        if protocol == Protocol::GfidAdm {
            return Ok(EvaluationTask::Score { reference: self.reference.clone(), inception: inception()? });
        }
        if self.reference.is_some() {
            let expected = "none under --protocol rfid: reconstructions are compared with their own originals";
            return Err(SettingsError::invalid("--reference", "an archive", expected));
        }
        let tokenizer = required(self.tokenizer.clone(), "tokenizer", "--tokenizer PATH", SECTION)?;
        let keep = self.keep.clone().map(|mut keep| {
            keep.sort_unstable();
            keep.dedup();
            keep
        });
        if keep.as_ref().is_some_and(|keep| keep.is_empty() || keep[0] == 0) {
            return Err(SettingsError::invalid("--keep", "0", "numbers of tokens from 1, such as 1,2,4,128"));
        }
        let lpips = match (self.alexnet.clone(), self.lpips.clone()) {
            (Some(alexnet), Some(lpips)) => Some((alexnet, lpips)),
            (None, None) => None,
            (alexnet, _) => {
                let found = if alexnet.is_some() { "--alexnet without --lpips" } else { "--lpips without --alexnet" };
                return Err(SettingsError::invalid("LPIPS", found, "both files, or neither"));
            }
        };
        Ok(EvaluationTask::Reconstruct(ReconstructionTask {
            tokenizer: ModelReference::parse("tokenizer", &tokenizer)?,
            precision: precision(self.precision.clone())?,
            keep,
            inception: self.inception.clone(),
            lpips,
        }))
    }
}

/// Rules by their names.
pub(super) fn allowed(names: &[String]) -> Result<BTreeSet<DeviationKind>, SettingsError> {
    by_name("--allow", names, DeviationKind::ALL, DeviationKind::name)
}

/// Those of `all` that have one of these names.
fn by_name<T: Copy + Ord, const N: usize>(
    flag: &'static str,
    names: &[String],
    all: [T; N],
    name_of: fn(T) -> &'static str,
) -> Result<BTreeSet<T>, SettingsError> {
    let known = |name: &String| {
        all.into_iter()
            .find(|&kind| name_of(kind) == name)
            .ok_or_else(|| SettingsError::invalid(flag, format!("{name:?}"), all.map(name_of).join(", ")))
    };
    names.iter().map(known).collect()
}

/// Reads a protocol on the command line, with what each one is in the help.
fn protocol_parser() -> impl TypedValueParser<Value = String> {
    named([
        (
            "gfid-adm",
            "Generated sets, as the ADM evaluator: FID, sFID, inception score over splits of 5,000, precision, recall",
        ),
        (
            "rfid",
            "Reconstructions, as the published evaluation: rFID in float64, PSNR, SSIM, MS-SSIM, LPIPS, codebook use",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    const COMPLETE: &str = "--source samples --output scores --inception inception.safetensors";

    fn complete() -> EvaluateOptions {
        parsed(COMPLETE)
    }

    #[test]
    fn a_set_is_scored_as_the_adm_evaluator_does_unless_told_otherwise() {
        let settings = complete().resolve().expect("complete");
        assert_eq!((settings.protocol, settings.work.unit_size), (Protocol::GfidAdm, 1_000));
        assert!(matches!(settings.task, EvaluationTask::Score { reference: None, .. }) && settings.allow.is_empty());
        let error = EvaluateOptions { inception: None, ..complete() }.resolve().expect_err("no network").to_string();
        assert!(error.contains("--inception FILE") && error.contains("[evaluate]"), "{error}");
    }

    #[test]
    fn reconstructions_need_a_tokenizer_and_take_the_networks_that_are_there() {
        let rfid = EvaluateOptions { protocol: Some("rfid".to_owned()), inception: None, ..complete() };
        assert!(rfid.clone().resolve().expect_err("no tokenizer").to_string().contains("--tokenizer"));
        let rfid = EvaluateOptions { tokenizer: Some("t".to_owned()), keep: Some(vec![4, 1, 4]), ..rfid };
        let EvaluationTask::Reconstruct(task) = rfid.clone().resolve().expect("complete").task else {
            panic!("reconstructions")
        };
        assert_eq!((task.keep, task.inception, task.lpips), (Some(vec![1, 4]), None, None));
        for (options, flag) in [
            (EvaluateOptions { reference: Some("r.npz".to_owned()), ..rfid.clone() }, "--reference"),
            (EvaluateOptions { alexnet: Some("a".into()), ..rfid.clone() }, "LPIPS"),
            (EvaluateOptions { keep: Some(vec![0]), ..rfid.clone() }, "--keep"),
            (EvaluateOptions { make_reference: Some("r.npz".to_owned()), ..rfid }, "--make-reference"),
        ] {
            let error = options.resolve().expect_err(flag).to_string();
            assert!(error.contains(flag), "{error}");
        }
    }

    #[test]
    fn images_and_labels_are_found_as_for_tokenizing() {
        assert_eq!(complete().resolve().expect("complete").reading, SourceReading::default());
        let options: EvaluateOptions = parsed(&format!(
            "{COMPLETE} --image-column photo --label-column kind --labels none --image-extensions jpg"
        ));
        let reading = options.resolve().expect("complete").reading;
        assert_eq!((reading.columns.image.as_deref(), reading.columns.label.as_deref()), (Some("photo"), Some("kind")));
        assert_eq!((reading.labels.name(), reading.image_extensions.contain(Some("png"))), ("none", false));
    }

    #[test]
    fn rules_are_allowed_by_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let settings = EvaluateOptions { allow: Some(names(&["count", "jpeg"])), ..complete() }.resolve();
        assert_eq!(settings.expect("rules").allow, [DeviationKind::Count, DeviationKind::Jpeg].into());
        let error = EvaluateOptions { allow: Some(names(&["everything"])), ..complete() }.resolve();
        assert!(error.expect_err("no rule").to_string().contains("count, order, resize, jpeg"));
    }

    #[test]
    fn scores_are_asked_for_by_name_and_intervals_by_their_confidence() {
        let settings = complete().resolve().expect("complete").scores;
        assert!(settings.asked.is_none() && settings.intervals.is_none());
        let options: EvaluateOptions = parsed(&format!(
            "{COMPLETE} --scores kid,fid --confidence 90 --resamples 200 --kid-subsets 7 --kid-subset-size 50 --score-seed 3"
        ));
        let settings = options.clone().resolve().expect("complete").scores;
        assert_eq!(settings.asked, Some([ScoreKind::Fid, ScoreKind::Kid].into()));
        assert_eq!(settings.kernel, KernelDistanceOptions { subsets: 7, subset_size: 50, seed: 3 });
        let intervals = settings.intervals.expect("asked for");
        assert_eq!((intervals.confidence, intervals.resamples), (90.0, 200));
        for (options, words) in [
            (EvaluateOptions { scores: Some(vec!["fd".to_owned()]), ..complete() }, "fid, sfid, is, precision"),
            (EvaluateOptions { confidence: Some(100.0), ..complete() }, "--confidence"),
            (EvaluateOptions { resamples: Some(10), ..options.clone() }, "--resamples"),
            (EvaluateOptions { kid_subsets: Some(0), ..complete() }, "--kid-subsets"),
            (EvaluateOptions { kid_subset_size: Some(1), ..complete() }, "--kid-subset-size"),
            (EvaluateOptions { make_reference: Some("r.npz".to_owned()), ..options }, "--scores"),
        ] {
            let error = options.resolve().expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_their_flag() {
        for (options, flag) in [
            (EvaluateOptions { batch_size: Some(0), ..complete() }, "--batch-size"),
            (EvaluateOptions { unit_size: Some(0), ..complete() }, "--unit-size"),
            (EvaluateOptions { max_images: Some(0), ..complete() }, "--max-images"),
            (EvaluateOptions { crop: Some(Crop::AdmCenterFlip { size: 32 }), ..complete() }, "--crop"),
            (EvaluateOptions { protocol: Some("fid".to_owned()), ..complete() }, "--protocol"),
            (EvaluateOptions { make_reference: Some("reference".to_owned()), ..complete() }, "--make-reference"),
        ] {
            let error = options.resolve().expect_err(flag).to_string();
            assert!(error.contains(flag), "{error}");
        }
    }
}
