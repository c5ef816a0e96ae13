//! Options and settings of `restok report`.

use super::{SettingsError, shared::required};
use std::path::PathBuf;

/// Options of `restok report`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReportOptions {
    /// Outputs, training folders, sweeps, evaluation results and PNG sheets, in the order in which the page shows them
    #[arg(value_name = "OUTPUT")]
    pub(crate) output: Option<Vec<String>>,
    /// Write the page to this file, replacing an existing one.
    ///
    /// Anything that is not a regular file, such as /dev/stdout, is written to directly.
    #[arg(long, value_name = "FILE", env = "RESTOK_REPORT", default_value = "report.html")]
    pub(crate) to: Option<PathBuf>,
}

/// Settings of `restok report`.
#[derive(Clone, Debug)]
pub(crate) struct ReportSettings {
    /// What the page is about; at least one.
    pub(crate) outputs: Vec<String>,
    /// The page.
    pub(crate) to: PathBuf,
}

impl ReportOptions {
    /// The settings.
    ///
    /// # Errors
    /// When there is no output, or no name for the page.
    pub(crate) fn resolve(self) -> Result<ReportSettings, SettingsError> {
        const SECTION: &str = "report";
        let outputs = self.output.filter(|outputs| !outputs.is_empty());
        let outputs = required(outputs, "output", "OUTPUT as an argument", SECTION)?;
        let to = self.to.unwrap_or_default();
        if to.file_name().is_none() {
            return Err(SettingsError::invalid("--to", to.display().to_string(), "a file, such as report.html"));
        }
        Ok(ReportSettings { outputs, to })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    #[test]
    fn outputs_are_needed_and_the_page_has_a_name() {
        let error = parsed::<ReportOptions>("").resolve().expect_err("no output").to_string();
        assert!(error.contains("OUTPUT as an argument") && error.contains("[report]"), "{error}");
        let named = ReportOptions { output: Some(vec!["a".to_owned(), "b".to_owned()]), ..parsed("") };
        let settings = named.clone().resolve().expect("complete");
        assert_eq!((settings.outputs.len(), settings.to), (2, PathBuf::from("report.html")));
        assert!(ReportOptions { to: Some("..".into()), ..named }.resolve().is_err());
    }
}
