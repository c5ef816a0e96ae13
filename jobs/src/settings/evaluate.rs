//! Options and settings of `restok evaluate`.

use super::{
    Devices, ModelReference, Options, RejectRate, ReportFormat, SettingsError,
    table_commands::{OUTPUT_USAGE, required},
    tokenize::precision,
    values::{crop_parser, layout_parser, named, precision_parser},
};
use crate::environment;
use clap::builder::TypedValueParser;
use models::Precision;
use pipeline::PictureSetOptions;
use schemas::{Crop, DeviationKind, Protocol, SourceLayout};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::PathBuf};

const WHAT: &str = "What and where";
const NETWORKS: &str = "Networks that score";
const REBUILDING: &str = "Reconstructions (--protocol rfid)";
const HOW: &str = "How it runs";

/// Images of a batch where nobody says otherwise.
const BATCH_SIZE: usize = 32;

/// Images of a unit where nobody says otherwise.
const UNIT_SIZE: usize = PictureSetOptions::UNIT_SIZE;

/// Options of `restok evaluate`.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct EvaluateOptions {
    /// The images: an output of `restok generate`, an archive (.npz), a folder, tar shards or Parquet; for reconstructions, the originals
    #[arg(long, value_name = "URL", env = environment::SOURCE, help_heading = WHAT)]
    pub(crate) source: Option<String>,
    /// Where features and scores go: s3://, gs://, az://, file:// or a plain path; one folder may hold the scores of many sets
    #[arg(long, value_name = "URL", env = environment::OUTPUT, help_heading = WHAT)]
    pub(crate) output: Option<String>,
    /// Which numbers are meant
    #[arg(long, value_name = "PROTOCOL", env = environment::PROTOCOL, value_parser = protocol_parser(), help_heading = WHAT)]
    pub(crate) protocol: Option<String>,
    /// What the set is compared with: VIRTUAL_imagenet256_labeled.npz, an archive with mu and sigma, or one that --make-reference made
    #[arg(long, value_name = "URL", env = environment::REFERENCE, help_heading = WHAT)]
    pub(crate) reference: Option<String>,
    /// Score nothing: write this archive, the reference that the images of --source are
    #[arg(long, value_name = "FILE", env = environment::MAKE_REFERENCE, help_heading = WHAT)]
    pub(crate) make_reference: Option<String>,
    /// Rules of the protocol that may be broken, with commas; the result says so: count, order, resize, jpeg, reference, rejects,
    /// precision
    #[arg(long, value_name = "RULES", env = environment::ALLOW, value_delimiter = ',', help_heading = WHAT)]
    pub(crate) allow: Option<Vec<String>>,
    /// How the images lie in the source; recognised from its file names when absent
    #[arg(long, value_name = "LAYOUT", env = environment::LAYOUT, value_parser = layout_parser(), help_heading = WHAT)]
    pub(crate) layout: Option<SourceLayout>,
    /// Crop of one view: adm-center-SIZE or torchvision-center-SIZE; when absent, generated images are taken as they are, and originals
    /// of reconstructions by torchvision-center- with the tokenizer's resolution
    #[arg(long, value_name = "NAME", env = environment::CROP, value_parser = crop_parser, help_heading = WHAT)]
    pub(crate) crop: Option<Crop>,
    /// Take only the first images of the source, for a trial
    #[arg(long, value_name = "IMAGES", env = environment::MAX_IMAGES, help_heading = WHAT)]
    pub(crate) max_images: Option<u64>,

    /// The Inception network of 2015-12-05, safetensors under the names of its PyTorch port; without it, no FID and no inception score
    #[arg(long, value_name = "FILE", env = environment::INCEPTION, help_heading = NETWORKS)]
    pub(crate) inception: Option<PathBuf>,
    /// AlexNet, safetensors under torchvision's names, for LPIPS
    #[arg(long, value_name = "FILE", env = environment::ALEXNET, help_heading = NETWORKS)]
    pub(crate) alexnet: Option<PathBuf>,
    /// The linear layers of LPIPS 0.1 over AlexNet, safetensors
    #[arg(long, value_name = "FILE", env = environment::LPIPS, help_heading = NETWORKS)]
    pub(crate) lpips: Option<PathBuf>,

    /// The tokenizer that is judged: a folder or hf://owner/name or hf://owner/name@revision
    #[arg(long, value_name = "PATH|hf://…", env = environment::TOKENIZER, help_heading = REBUILDING)]
    pub(crate) tokenizer: Option<String>,
    /// Rebuild from the first 1, 2, 4 … tokens, with commas; all tokens when absent
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', env = environment::KEEP, help_heading = REBUILDING)]
    pub(crate) keep: Option<Vec<usize>>,
    /// Arithmetic of the tokenizer
    #[arg(long, value_name = "PRECISION", env = environment::PRECISION, value_parser = precision_parser(), help_heading = REBUILDING)]
    pub(crate) precision: Option<String>,

    /// Images of a batch
    #[arg(long, value_name = "IMAGES", env = environment::BATCH_SIZE, help_heading = HOW)]
    pub(crate) batch_size: Option<usize>,
    /// Images of a unit of work: each makes one file of features, 16 KB an image (8 for each form of a reconstruction)
    #[arg(long, value_name = "IMAGES", env = environment::UNIT_SIZE, help_heading = HOW)]
    pub(crate) unit_size: Option<usize>,
    /// Devices that score: auto (all CUDA devices, else the processor), cpu, cuda (all), cuda:N, a list with commas, or cpu*N for N
    /// workers
    #[arg(long, value_name = "DEVICES", env = environment::DEVICES, help_heading = HOW)]
    pub(crate) devices: Option<Devices>,
    /// Threads that torch uses for one CPU worker; the cores divided by the workers when absent
    #[arg(long, value_name = "COUNT", env = environment::DEVICE_THREADS, help_heading = HOW)]
    pub(crate) device_threads: Option<usize>,
    /// Number of this process among those that share the output, from 0; else JOB_COMPLETION_INDEX, SLURM_ARRAY_TASK_ID,
    /// SLURM_PROCID or RANK
    #[arg(long, value_name = "NUMBER", env = environment::RANK, help_heading = HOW)]
    pub(crate) rank: Option<u32>,
    /// Processes that share the output; else SLURM_ARRAY_TASK_COUNT, SLURM_NTASKS or WORLD_SIZE (Kubernetes gives none)
    #[arg(long, value_name = "COUNT", env = environment::WORLD, help_heading = HOW)]
    pub(crate) world: Option<u32>,
    /// Share of broken images above which nothing is scored, such as 1% or 0.01
    #[arg(long, value_name = "SHARE", env = environment::MAX_REJECT_RATE, help_heading = HOW)]
    pub(crate) max_reject_rate: Option<RejectRate>,
    /// Shape of the result on standard output
    #[arg(long, value_name = "FORMAT", env = environment::FORMAT, help_heading = HOW)]
    pub(crate) format: Option<ReportFormat>,
}

impl Options for EvaluateOptions {
    fn defaults() -> Self {
        Self {
            protocol: Some(Protocol::GfidAdm.name().to_owned()),
            precision: Some(Precision::Fp32.name().to_owned()),
            batch_size: Some(BATCH_SIZE),
            unit_size: Some(UNIT_SIZE),
            devices: Some(Devices::default()),
            max_reject_rate: Some(RejectRate::default()),
            format: Some(ReportFormat::Text),
            ..Self::default()
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum EvaluationTask {
    /// Score a set of images against a reference.
    Score {
        /// The reference; without one there is an inception score alone.
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
    /// How the images lie; `None` to recognise it.
    pub(crate) layout: Option<SourceLayout>,
    /// The crop that was asked for.
    pub(crate) crop: Option<Crop>,
    /// Only the first images.
    pub(crate) max_images: Option<u64>,
    /// How it runs.
    pub(crate) work: ScoringWork,
    /// Share of broken images above which nothing is scored.
    pub(crate) max_reject_rate: RejectRate,
    /// Devices.
    pub(crate) devices: Devices,
    /// Threads of a CPU worker; `None` to divide the cores.
    pub(crate) device_threads: Option<usize>,
    /// Shape of the result.
    pub(crate) format: ReportFormat,
}

/// How the images of a set are worked through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScoringWork {
    /// Images of a batch.
    pub(crate) batch_size: usize,
    /// Images of a unit.
    pub(crate) unit_size: usize,
    /// Rank as given.
    pub(crate) rank: Option<u32>,
    /// World as given.
    pub(crate) world: Option<u32>,
}

impl Default for ScoringWork {
    fn default() -> Self {
        Self { batch_size: BATCH_SIZE, unit_size: UNIT_SIZE, rank: None, world: None }
    }
}

impl EvaluateOptions {
    /// The settings.
    ///
    /// # Errors
    /// When something needed is absent, or a value cannot be.
    pub(crate) fn resolve(self) -> Result<EvaluateSettings, SettingsError> {
        const SECTION: &str = "evaluate";
        let source = required(self.source.clone(), "source", "--source URL", environment::SOURCE, SECTION)?;
        let output = required(self.output.clone(), "output", OUTPUT_USAGE, environment::OUTPUT, SECTION)?;
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
        Ok(EvaluateSettings {
            task: self.task(protocol)?,
            source,
            output,
            protocol,
            allow: allowed(self.allow.as_deref().unwrap_or_default())?,
            layout: self.layout,
            crop: self.crop,
            max_images: self.max_images,
            work: ScoringWork {
                batch_size: at_least_one("--batch-size", self.batch_size)?,
                unit_size: at_least_one("--unit-size", self.unit_size)?,
                rank: self.rank,
                world: self.world,
            },
            max_reject_rate: self.max_reject_rate.unwrap_or_default(),
            devices: self.devices.unwrap_or_default(),
            device_threads: self.device_threads,
            format: self.format.unwrap_or_default(),
        })
    }

    fn task(&self, protocol: Protocol) -> Result<EvaluationTask, SettingsError> {
        const SECTION: &str = "evaluate";
        let inception =
            || required(self.inception.clone(), "inception", "--inception FILE", environment::INCEPTION, SECTION);
        if let Some(archive) = self.make_reference.clone() {
            if !archive.ends_with(".npz") {
                return Err(SettingsError::invalid(
                    "--make-reference",
                    format!("{archive:?}"),
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
        let tokenizer =
            required(self.tokenizer.clone(), "tokenizer", "--tokenizer PATH", environment::TOKENIZER, SECTION)?;
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
    let known = |name: &String| {
        DeviationKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let expected = DeviationKind::ALL.map(DeviationKind::name).join(", ");
            SettingsError::invalid("--allow", format!("{name:?}"), expected)
        })
    };
    names.iter().map(known).collect()
}

/// Reads a protocol on the command line, with what each one is in the help.
fn protocol_parser() -> impl TypedValueParser<Value = String> {
    named([
        (
            "gfid-adm",
            "Generated sets as the ADM evaluator scores them: FID, sFID, inception score over splits of 5,000, precision, recall",
        ),
        (
            "rfid",
            "Reconstructions as the published evaluation scores them: rFID in float64, PSNR, SSIM, MS-SSIM, LPIPS, use of the codebook",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> EvaluateOptions {
        EvaluateOptions {
            source: Some("samples".to_owned()),
            output: Some("scores".to_owned()),
            inception: Some("inception.safetensors".into()),
            ..EvaluateOptions::defaults()
        }
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
    fn rules_are_allowed_by_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let settings = EvaluateOptions { allow: Some(names(&["count", "jpeg"])), ..complete() }.resolve();
        assert_eq!(settings.expect("rules").allow, [DeviationKind::Count, DeviationKind::Jpeg].into());
        let error = EvaluateOptions { allow: Some(names(&["everything"])), ..complete() }.resolve();
        assert!(error.expect_err("no rule").to_string().contains("count, order, resize, jpeg"));
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
