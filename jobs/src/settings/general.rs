//! Logs and progress: the same for every command.

use super::Options;
use crate::environment;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Options of every command.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[command(next_help_heading = "Logs and progress")]
pub(crate) struct GeneralOptions {
    /// What is logged to standard error: error, warn, info, debug or trace, or directives such as info,pipeline=debug
    #[arg(long, global = true, value_name = "LEVEL", env = environment::LOG)]
    pub(crate) log_level: Option<String>,
    /// Shape of log lines
    #[arg(long, global = true, value_name = "FORMAT", env = environment::LOG_FORMAT)]
    pub(crate) log_format: Option<LogFormat>,
    /// How progress is shown on standard error
    #[arg(long, global = true, value_name = "STYLE", env = environment::PROGRESS)]
    pub(crate) progress: Option<ProgressStyle>,
    /// Seconds between two progress lines, where no bars are shown
    #[arg(long, global = true, value_name = "SECONDS", env = environment::PROGRESS_SECONDS)]
    pub(crate) progress_seconds: Option<u64>,
    /// Compute norms on CUDA by kernels of restok's own, compiled when they are first used. Hidden until a GPU has shown them
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", env = environment::FUSED_KERNELS)]
    pub(crate) fused_kernels: Option<bool>,
}

impl Options for GeneralOptions {
    fn defaults() -> Self {
        Self {
            log_level: Some("info".to_owned()),
            log_format: Some(LogFormat::Text),
            progress: Some(ProgressStyle::Auto),
            progress_seconds: Some(30),
            fused_kernels: Some(false),
        }
    }
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// A line for a person
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProgressStyle {
    /// Bars on a terminal, lines elsewhere
    #[default]
    Auto,
    /// Bars, if standard error is a terminal
    Bars,
    /// A log line every few seconds
    Lines,
    /// Nothing until the report
    None,
}
