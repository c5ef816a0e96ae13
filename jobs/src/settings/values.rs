//! Values that are typed as one word and mean more than it.

use super::SettingsError;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use models::{DeviceChoice, Precision};
use schemas::{Crop, ImageExtensions, ImageIdRule, LabelSource, SchemaError, SourceLayout};
use std::{fmt, path::PathBuf, str::FromStr};

/// Devices that encode: `auto`, `cpu`, `cuda`, or a list such as `cuda:0,cuda:1`; `cpu*2` is two workers on the processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Devices(Vec<(DeviceChoice, usize)>);

impl Devices {
    /// Most workers that one name may stand for.
    const MOST_WORKERS: usize = 64;

    /// Every device that is named, with how many workers it gets.
    pub(crate) fn choices(&self) -> &[(DeviceChoice, usize)] {
        &self.0
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self(vec![(DeviceChoice::Auto, 1)])
    }
}

impl FromStr for Devices {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let wrong = || {
            SettingsError::invalid(
                "devices",
                format!("{text:?}"),
                format!(
                    "auto, cpu, cuda (all of them), cuda:N, a list of these with commas, or cpu*N for N workers (1 to {})",
                    Self::MOST_WORKERS
                ),
            )
        };
        let device = |part: &str| {
            let (name, workers) = part.split_once('*').unwrap_or((part, "1"));
            let workers = workers.parse().ok().filter(|workers| (1..=Self::MOST_WORKERS).contains(workers));
            Ok((name.parse().map_err(|_| wrong())?, workers.ok_or_else(wrong)?))
        };
        text.split(',').map(|part| device(part.trim())).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self
            .0
            .iter()
            .map(|(choice, workers)| if *workers == 1 { choice.to_string() } else { format!("{choice}*{workers}") })
            .collect();
        formatter.write_str(&names.join(","))
    }
}

/// Rows of a batch: a number, or `auto` for as many as fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchSize {
    /// As many as the device has memory for, up to where more are not faster.
    Auto,
    /// This many.
    Rows(usize),
}

impl Default for BatchSize {
    fn default() -> Self {
        Self::Rows(32)
    }
}

impl BatchSize {
    fn try_new(rows: usize) -> Result<Self, SettingsError> {
        match rows {
            0 => Err(Self::invalid("0")),
            rows => Ok(Self::Rows(rows)),
        }
    }

    fn invalid(found: &str) -> SettingsError {
        SettingsError::invalid("--batch-size", found.to_owned(), "a number from 1 on, or auto")
    }
}

impl FromStr for BatchSize {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            number => number.parse().map_err(|_| Self::invalid(&format!("{text:?}"))).and_then(Self::try_new),
        }
    }
}

/// Fraction of listed images that may be rejected: `1%` or `0.01`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RejectRate(f64);

impl RejectRate {
    /// The fraction, 0 to 1.
    pub(crate) fn fraction(self) -> f64 {
        self.0
    }

    fn try_new(fraction: f64, found: &str) -> Result<Self, SettingsError> {
        match (0.0..=1.0).contains(&fraction) {
            true => Ok(Self(fraction)),
            false => Err(SettingsError::invalid(
                "max-reject-rate",
                format!("{found:?}"),
                "a fraction such as 1% or 0.01, 0% to 100%",
            )),
        }
    }
}

impl Default for RejectRate {
    /// One percent: more than a sound set ever has, less than a broken mount gives.
    fn default() -> Self {
        Self(0.01)
    }
}

impl FromStr for RejectRate {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let fraction = match text.trim().strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
            None => text.trim().parse::<f64>(),
        };
        Self::try_new(fraction.unwrap_or(f64::NAN), text)
    }
}

impl fmt::Display for RejectRate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Hundredths of a percent are finer than anybody sets it, and hide what binary fractions do to 0.07.
        write!(formatter, "{}%", (self.0 * 1e6).round() / 1e4)
    }
}

/// Where a tokenizer or a generator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModelReference {
    /// A folder with `config.json` and `model.safetensors`.
    Folder(PathBuf),
    /// A repository of the model hub.
    Hub {
        /// `owner/name`.
        repository: String,
        /// Branch, tag or commit; the hub's `main` when absent.
        revision: Option<String>,
    },
}

impl ModelReference {
    /// Reads what was given for `key`.
    ///
    /// # Errors
    /// When it is neither a local folder nor a repository of the hub.
    pub(crate) fn parse(key: &'static str, text: &str) -> Result<Self, SettingsError> {
        let wrong =
            |expected: &str| SettingsError::invalid(key, format!("{:?}", pipeline::without_secrets(text)), expected);
        let Some(address) = text.strip_prefix("hf://") else {
            return match text.split_once("://") {
                None if !text.is_empty() => Ok(Self::Folder(PathBuf::from(text))),
                Some(("file", path)) if path.starts_with('/') => Ok(Self::Folder(PathBuf::from(path))),
                _ => Err(wrong("a local folder or hf://owner/name[@revision]; copy other addresses to a folder first")),
            };
        };
        let (repository, revision) = match address.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (address, None),
        };
        let word = |word: &str| {
            !word.is_empty()
                && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
                && !word.starts_with('.')
        };
        let is_repository = repository.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name));
        let is_revision = revision.is_none_or(|revision| revision.split('/').all(word));
        if !is_repository || !is_revision {
            return Err(wrong("hf://owner/name or hf://owner/name@revision"));
        }
        Ok(Self::Hub { repository: repository.to_owned(), revision: revision.map(str::to_owned) })
    }
}

impl fmt::Display for ModelReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(formatter),
            Self::Hub { repository, revision: None } => write!(formatter, "hf://{repository}"),
            Self::Hub { repository, revision: Some(revision) } => write!(formatter, "hf://{repository}@{revision}"),
        }
    }
}

/// Reads a layout on the command line, with what each one is in the help.
pub(super) fn layout_parser() -> impl TypedValueParser<Value = SourceLayout> {
    named([
        ("folder", "<class>/<file>; labels number the classes in sorted order"),
        ("webdataset", "Tar shards of <key>.jpg (or .png, .webp, …) with <key>.cls and optionally <key>.json"),
        ("parquet", "Parquet with image: struct<bytes, path> and label: int64, as on the Hugging Face Hub"),
    ])
    .try_map(|name| name.parse())
}

/// Reads a rule for image keys on the command line.
pub(super) fn image_id_parser() -> impl TypedValueParser<Value = ImageIdRule> {
    named([
        ("stem", "File name without extension: the same for an image in every layout"),
        ("path", "Path below the source without extension: for sources where stems repeat"),
        ("position", "Path of the file, or of the shard with the row number: unique for every image"),
    ])
    .map(|name| match name.as_str() {
        "path" => ImageIdRule::Path,
        "position" => ImageIdRule::Position,
        _ => ImageIdRule::Stem,
    })
}

/// Reads where labels come from on the command line.
pub(super) fn labels_parser() -> impl TypedValueParser<Value = LabelSource> {
    named([
        ("auto", "From the layout: class folders, .cls before .json, or the label column"),
        ("cls", "From the .cls members of tar shards only"),
        ("json", "From the .json members of tar shards only"),
        ("none", "No labels; side files are not read"),
    ])
    .try_map(|name| name.parse())
}

/// Reads a list of extensions on the command line.
pub(super) fn extensions_parser(text: &str) -> Result<ImageExtensions, SchemaError> {
    text.parse()
}

/// Reads a precision on the command line.
pub(super) fn precision_parser() -> impl TypedValueParser<Value = String> {
    named(Precision::ALL.map(|precision| {
        let help = match precision {
            Precision::Fp32 => "float32 throughout: the precision of the published tokens",
            Precision::Tf32 => "float32, with TensorFloat-32 products on CUDA",
            Precision::Bf16 => "bfloat16, with the quantizer in float32",
            Precision::Fp16 => "float16, with the quantizer in float32",
        };
        (precision.name(), help)
    }))
}

/// Reads a precision of training on the command line.
pub(super) fn training_precision_parser() -> impl TypedValueParser<Value = String> {
    named(Precision::ALL.map(|precision| {
        let help = match precision {
            Precision::Fp32 => "float32 throughout",
            Precision::Tf32 => "float32, with TensorFloat-32 products on CUDA",
            Precision::Bf16 => "bfloat16",
            Precision::Fp16 => "float16, with loss scaling",
        };
        (precision.name(), help)
    }))
}

/// Reads a crop on the command line. Its size is free, so its names cannot be listed.
pub(super) fn crop_parser(name: &str) -> Result<Crop, schemas::SchemaError> {
    name.parse()
}

pub(super) fn named<const COUNT: usize>(names: [(&'static str, &'static str); COUNT]) -> PossibleValuesParser {
    PossibleValuesParser::new(names.map(|(name, help)| PossibleValue::new(name).help(help)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_a_list_with_workers() {
        let devices: Devices = "cuda:0, cuda:1,cpu*2".parse().expect("a list");
        assert_eq!(devices.choices(), [(DeviceChoice::Cuda(0), 1), (DeviceChoice::Cuda(1), 1), (DeviceChoice::Cpu, 2)]);
        assert_eq!(devices.to_string(), "cuda:0,cuda:1,cpu*2");
        for wrong in ["", "gpu", "cpu*0", "cpu*65", "cpu*x", "cuda:0,,cpu"] {
            let error = wrong.parse::<Devices>().expect_err(wrong).to_string();
            assert!(error.contains("cuda:N"), "{error}");
        }
    }

    #[test]
    fn a_batch_size_is_a_number_or_auto() {
        for (text, size) in [("auto", BatchSize::Auto), ("64", BatchSize::Rows(64))] {
            assert_eq!(text.parse::<BatchSize>().expect(text), size);
        }
        for wrong in ["", "0", "-1", "1.5", "all"] {
            let error = wrong.parse::<BatchSize>().expect_err(wrong).to_string();
            assert!(error.contains("--batch-size") && error.contains("auto"), "{error}");
        }
    }

    #[test]
    fn a_reject_rate_is_a_share_or_a_percentage() {
        for (text, fraction) in [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), ("100 %", 1.0), ("0.5%", 0.005)] {
            assert_eq!(text.parse::<RejectRate>().expect(text).fraction(), fraction, "{text}");
        }
        for wrong in ["", "-1%", "101%", "1.01", "many", "NaN"] {
            assert!(wrong.parse::<RejectRate>().is_err(), "{wrong}");
        }
        assert_eq!(RejectRate(0.07).to_string(), "7%");
    }

    #[test]
    fn a_tokenizer_is_a_folder_or_a_repository_of_the_hub() {
        let hub = |repository: &str, revision: Option<&str>| ModelReference::Hub {
            repository: repository.to_owned(),
            revision: revision.map(str::to_owned),
        };
        let read = |text: &str| ModelReference::parse("tokenizer", text).expect(text);
        assert_eq!(read("./tokenizer"), ModelReference::Folder("./tokenizer".into()));
        assert_eq!(read("file:///data/tokenizer"), ModelReference::Folder("/data/tokenizer".into()));
        assert_eq!(read("hf://owner/restok_l.r256"), hub("owner/restok_l.r256", None));
        assert_eq!(read("hf://owner/name@refs/pr/3"), hub("owner/name", Some("refs/pr/3")));
        assert_eq!(read("hf://owner/name@v1").to_string(), "hf://owner/name@v1");
        for wrong in
            ["", "hf://", "hf://name", "hf://a/b/c", "hf://a/..", "hf://a/b@", "hf://a/b@../x", "s3://bucket/tokenizer"]
        {
            assert!(ModelReference::parse("tokenizer", wrong).is_err(), "{wrong}");
        }
    }
}
