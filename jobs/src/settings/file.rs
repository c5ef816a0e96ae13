//! The settings file: a section for each command, `[limits]` and `[general]` for all of them.

use super::{
    EvaluateOptions, FinalizeOptions, GeneralOptions, GenerateOptions, InspectOptions, LimitOptions,
    ReconstructOptions, ReportOptions, SettingsError, SweepOptions, TokenizeOptions, TrainGeneratorOptions,
    TrainTokenizerOptions, VerifyOptions,
};
use serde::Deserialize;
use std::path::Path;

/// What a settings file may say. Keys are flags without their dashes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SettingsFile {
    /// `[general]`: logs and progress.
    pub(crate) general: GeneralOptions,
    /// `[limits]`: limits on fetching, decoding, queues and waiting.
    pub(crate) limits: LimitOptions,
    /// `[tokenize]`.
    pub(crate) tokenize: TokenizeOptions,
    /// `[train-tokenizer]`.
    #[serde(rename = "train-tokenizer")]
    pub(crate) train_tokenizer: TrainTokenizerOptions,
    /// `[train-generator]`.
    #[serde(rename = "train-generator")]
    pub(crate) train_generator: TrainGeneratorOptions,
    /// `[generate]`.
    pub(crate) generate: GenerateOptions,
    /// `[sweep]`.
    pub(crate) sweep: SweepOptions,
    /// `[evaluate]`.
    pub(crate) evaluate: EvaluateOptions,
    /// `[finalize]`.
    pub(crate) finalize: FinalizeOptions,
    /// `[verify]`.
    pub(crate) verify: VerifyOptions,
    /// `[inspect]`.
    pub(crate) inspect: InspectOptions,
    /// `[reconstruct]`.
    pub(crate) reconstruct: ReconstructOptions,
    /// `[report]`.
    pub(crate) report: ReportOptions,
}

impl SettingsFile {
    /// Reads a file; no file is an empty one.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or holds a section, key or value that no command knows.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, SettingsError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let problem = |problem: String| SettingsError::File { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
        toml::from_str(&text).map_err(|error| problem(error.to_string().trim_end().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SettingsFile, SettingsError> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it can be written");
        SettingsFile::read(Some(file.path()))
    }

    #[test]
    fn a_file_sets_any_option_in_its_section() {
        let file = read(
            r#"
            [general]
            log-format = "json"
            [limits]
            fetch-requests = 8
            [tokenize]
            source = "s3://bucket/train"
            crop = "adm-center-256-flip"
            max-reject-rate = "2%"
            devices = "cuda:0,cuda:1"
            dry-run = true
            "#,
        )
        .expect("this file is right");
        assert_eq!(file.limits.fetch_requests, Some(8));
        assert_eq!(file.tokenize.crop.map(|crop| crop.to_string()).as_deref(), Some("adm-center-256-flip"));
        assert_eq!(file.tokenize.max_reject_rate.map(|rate| rate.share()), Some(0.02));
        assert_eq!(file.tokenize.dry_run, Some(true));
    }

    #[test]
    fn an_unknown_key_is_named_with_file_and_line() {
        let error = read("[tokenize]\nsource = 'x'\nbatchsize = 3\n").expect_err("batchsize is no key").to_string();
        assert!(error.contains("batchsize") && error.contains("line 3") && error.contains("batch-size"), "{error}");
        let error = read("[tokenise]\n").expect_err("tokenise is no section").to_string();
        assert!(error.contains("tokenise") && error.contains("settings file"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_by_its_line() {
        for wrong in
            ["batch-size = 'many'", "max-reject-rate = 1.5", "crop = 'center'", "precision = 32", "image-id = 'x'"]
        {
            let error = read(&format!("[tokenize]\n{wrong}\n")).expect_err(wrong).to_string();
            assert!(error.contains("line 2"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = SettingsFile::read(Some(Path::new("/nowhere/restok.toml"))).expect_err("there is none").to_string();
        assert!(error.contains("/nowhere/restok.toml"), "{error}");
    }
}
