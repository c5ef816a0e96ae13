//! Options of the commands that work on an output that is there: `finalize`, `verify`, `inspect`, `watch` and `reconstruct`.

use super::{
    ModelReference, RejectRate, SettingsError, shared::required, tokenize::precision, values::precision_parser,
};
use clap::ValueEnum;
use models::{DeviceChoice, Precision};
use std::path::PathBuf;

/// How the output is given as an argument.
const OUTPUT_ARGUMENT: &str = "OUTPUT as an argument";

/// Shape of a report on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// Human-readable text
    #[default]
    Text,
    /// One JSON document
    Json,
}

/// Options of `restok finalize`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FinalizeOptions {
    /// Path or URL of the output, as passed to --output
    #[arg(value_name = "OUTPUT")]
    pub(crate) output: Option<String>,
    /// Refuse to close the output if more than this fraction of images is rejected, such as 1% or 0.01
    #[arg(long, value_name = "FRACTION", default_value = "1%")]
    pub(crate) max_reject_rate: Option<RejectRate>,
    /// Format of the report on standard output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Option<ReportFormat>,
}

/// Options of `restok verify`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct VerifyOptions {
    /// Path or URL of the output, finished or not
    #[arg(value_name = "OUTPUT")]
    pub(crate) output: Option<String>,
    /// Check only markers, manifest and file sizes, without reading any table
    #[arg(long, default_value = "false")]
    pub(crate) fast: Option<bool>,
    /// Format of the report on standard output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Option<ReportFormat>,
}

/// Options of `restok inspect`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InspectOptions {
    /// Path or URL of the output, finished or not
    #[arg(value_name = "OUTPUT")]
    pub(crate) output: Option<String>,
    /// Number of example rows to show
    #[arg(long, value_name = "COUNT", default_value = "3")]
    pub(crate) rows: Option<usize>,
    /// Format of the report on standard output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Option<ReportFormat>,
}

/// Options of `restok watch`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WatchOptions {
    /// Path or URL of the output that workers write to, as passed to their --output
    #[arg(value_name = "OUTPUT")]
    pub(crate) output: Option<String>,
    /// Look once, print it and exit
    #[arg(long, default_value = "false")]
    pub(crate) once: Option<bool>,
    /// Format of the looks on standard output: text, the last one, or json, one object per look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Option<ReportFormat>,
}

/// Settings of `restok watch`.
#[derive(Clone, Debug)]
pub(crate) struct WatchSettings {
    /// The output.
    pub(crate) output: String,
    /// Whether to look once only.
    pub(crate) once: bool,
    /// Shape of the looks on standard output.
    pub(crate) format: ReportFormat,
}

/// Options of `restok reconstruct`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReconstructOptions {
    /// Path or URL of the output that holds the tokens, finished or not
    #[arg(long, value_name = "OUTPUT", env = "RESTOK_OUTPUT")]
    pub(crate) tokens: Option<String>,
    /// Tokenizer that made the tokens: a local folder or hf://owner/name.
    ///
    /// The folder holds config.json and model.safetensors. Append @revision to hf://owner/name for a branch, tag or
    /// commit.
    #[arg(long, value_name = "PATH|hf://…")]
    pub(crate) tokenizer: Option<String>,
    /// Write the PNG files and contact-sheet.png to this folder, created if missing.
    ///
    /// The contact sheet shows at most 32 images.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) to: Option<PathBuf>,
    /// Number of images to reconstruct, spread evenly over the table
    #[arg(long, value_name = "COUNT", default_value = "8")]
    pub(crate) images: Option<usize>,
    /// Reconstruct the images with these keys instead; separate keys with commas or repeat the option
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub(crate) image_id: Option<Vec<String>>,
    /// View of the crop to reconstruct, counted from 0
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    pub(crate) view: Option<i8>,
    /// Numbers of leading tokens to reconstruct from, comma-separated (default: the end of every level)
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    pub(crate) keep: Option<Vec<usize>>,
    /// Omit the originals, and do not read the source
    #[arg(long, default_value = "false")]
    pub(crate) no_originals: Option<bool>,
    /// Decode tokens that another tokenizer made, if levels and codebook size match.
    ///
    /// The images are then not faithful to the originals.
    #[arg(long, default_value = "false")]
    pub(crate) allow_other_tokenizer: Option<bool>,
    /// Device to decode on: auto, cpu or cuda:N.
    ///
    /// auto uses the first CUDA device, or the CPU if there is none.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: Option<String>,
    /// Floating-point precision of the tokenizer
    #[arg(long, value_name = "PRECISION", value_parser = precision_parser(), default_value = "fp32")]
    pub(crate) precision: Option<String>,
    /// Images per batch
    #[arg(long, value_name = "IMAGES", default_value = "8")]
    pub(crate) batch_size: Option<usize>,
}

impl FinalizeOptions {
    /// The output.
    pub(crate) fn output(&self) -> Result<String, SettingsError> {
        required(self.output.clone(), "output", OUTPUT_ARGUMENT, "finalize")
    }
}

impl VerifyOptions {
    /// The output.
    pub(crate) fn output(&self) -> Result<String, SettingsError> {
        required(self.output.clone(), "output", OUTPUT_ARGUMENT, "verify")
    }
}

impl InspectOptions {
    /// The output.
    pub(crate) fn output(&self) -> Result<String, SettingsError> {
        required(self.output.clone(), "output", OUTPUT_ARGUMENT, "inspect")
    }
}

impl WatchOptions {
    /// The settings.
    ///
    /// # Errors
    /// When there is no output.
    pub(crate) fn resolve(self) -> Result<WatchSettings, SettingsError> {
        Ok(WatchSettings {
            output: required(self.output, "output", OUTPUT_ARGUMENT, "watch")?,
            once: self.once == Some(true),
            format: self.format.unwrap_or_default(),
        })
    }
}

/// Which images to reconstruct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageChoice {
    /// This many, spread evenly over the table.
    Spread(usize),
    /// These, by key.
    Named(Vec<String>),
}

/// Settings of `restok reconstruct`.
#[derive(Clone, Debug)]
pub(crate) struct ReconstructSettings {
    /// The output with the tokens.
    pub(crate) tokens: String,
    /// The tokenizer.
    pub(crate) tokenizer: ModelReference,
    /// Folder for the pictures.
    pub(crate) to: PathBuf,
    /// Which images.
    pub(crate) images: ImageChoice,
    /// View of the crop.
    pub(crate) view: i8,
    /// Prefix lengths, ascending; `None` for the ends of the levels.
    pub(crate) keep: Option<Vec<usize>>,
    /// Whether originals are shown.
    pub(crate) originals: bool,
    /// Whether another tokenizer will do.
    pub(crate) allow_other_tokenizer: bool,
    /// The device.
    pub(crate) device: DeviceChoice,
    /// Arithmetic.
    pub(crate) precision: Precision,
    /// Images decoded at once.
    pub(crate) batch_size: usize,
}

impl ReconstructOptions {
    /// The settings.
    ///
    /// # Errors
    /// When something needed is absent, or a value cannot be.
    pub(crate) fn resolve(self) -> Result<ReconstructSettings, SettingsError> {
        const SECTION: &str = "reconstruct";
        let tokens = self.tokens.ok_or_else(|| SettingsError::Missing {
            key: "tokens",
            usage: "--tokens OUTPUT",
            variable: super::variable("output"),
            section: SECTION,
        })?;
        let tokenizer = required(self.tokenizer, "tokenizer", "--tokenizer PATH", SECTION)?;
        let to = required(self.to, "to", "--to DIR", SECTION)?;
        let device = self.device.unwrap_or_default();
        let keep = self.keep.map(|mut keep| {
            keep.sort_unstable();
            keep.dedup();
            keep
        });
        if keep.as_ref().is_some_and(|keep| keep.is_empty() || keep[0] == 0) {
            return Err(SettingsError::invalid("--keep", "0", "numbers of tokens from 1, such as 1,2,4,128"));
        }
        Ok(ReconstructSettings {
            tokens,
            tokenizer: ModelReference::parse("tokenizer", &tokenizer)?,
            to,
            images: match (self.image_id, self.images) {
                (Some(ids), _) => ImageChoice::Named(ids),
                (None, Some(0) | None) => return Err(SettingsError::invalid("--images", "0", "at least 1")),
                (None, Some(images)) => ImageChoice::Spread(images),
            },
            view: self.view.unwrap_or_default(),
            keep,
            originals: self.no_originals != Some(true),
            allow_other_tokenizer: self.allow_other_tokenizer == Some(true),
            device: device
                .parse()
                .map_err(|_| SettingsError::invalid("--device", format!("{device:?}"), "auto, cpu, cuda or cuda:N"))?,
            precision: precision(self.precision)?,
            batch_size: self.batch_size.unwrap_or_default().max(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    const COMPLETE: &str = "--tokens out --tokenizer tokenizer --to pictures";

    fn complete() -> ReconstructOptions {
        parsed(COMPLETE)
    }

    #[test]
    fn named_images_replace_the_spread() {
        assert_eq!(complete().resolve().expect("complete").images, ImageChoice::Spread(8));
        let named = ReconstructOptions { image_id: Some(vec!["a".to_owned()]), ..complete() };
        assert_eq!(named.resolve().expect("complete").images, ImageChoice::Named(vec!["a".to_owned()]));
    }

    #[test]
    fn prefixes_are_sorted_and_never_empty() {
        let keep = |keep: &[usize]| ReconstructOptions { keep: Some(keep.to_vec()), ..complete() }.resolve();
        assert_eq!(keep(&[4, 1, 4]).expect("prefixes").keep, Some(vec![1, 4]));
        assert!(keep(&[0, 1]).is_err() && keep(&[]).is_err());
    }

    #[test]
    fn a_missing_output_is_named_with_every_way_to_give_it() {
        let error = parsed::<VerifyOptions>("").output().expect_err("no output").to_string();
        for word in ["OUTPUT as an argument", "RESTOK_OUTPUT", "[verify]"] {
            assert!(error.contains(word), "{error}");
        }
    }
}
