//! What can be wrong with settings.

use std::path::PathBuf;

/// A setting that cannot be used; nothing was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The settings file cannot be read, or says something it cannot say.
    #[error("settings file {}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with line and key.
        problem: String,
    },
    /// A setting that has no default was given nowhere.
    #[error(
        "{key} is missing: give {usage}, set {variable}, or write `{key} = …` under [{section}] in the settings file"
    )]
    Missing {
        /// Key in the settings file.
        key: &'static str,
        /// The flag or argument with the name of its value.
        usage: &'static str,
        /// The environment variable.
        variable: String,
        /// Section of the settings file.
        section: &'static str,
    },
    /// A value that does not fit.
    #[error("{key}: found {found}, expected {expected}")]
    Invalid {
        /// The flag, or what the value belongs to.
        key: &'static str,
        /// The value.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// The configuration of a network cannot be used; its error names the file.
    #[error(transparent)]
    Network(#[from] models::ModelError),
}

impl SettingsError {
    /// A value that does not fit.
    pub(crate) fn invalid(key: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Invalid { key, found: found.into(), expected: expected.into() }
    }
}
