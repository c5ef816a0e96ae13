//! Logs and progress: the same for every command.

use clap::ValueEnum;

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Logging and progress")]
pub(crate) struct GeneralOptions {
    /// Log level or filter for standard error.
    ///
    /// One of off, error, warn, info, debug and trace, or directives such as info,pipeline=debug.
    #[arg(long, global = true, value_name = "LEVEL", env = "RESTOK_LOG", default_value = "info")]
    pub(crate) log_level: Option<String>,
    /// Format of log lines
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: Option<LogFormat>,
    /// How to show progress on standard error
    #[arg(long, global = true, value_name = "STYLE", default_value = "auto")]
    pub(crate) progress: Option<ProgressStyle>,
    /// Seconds between progress lines when no bars are shown
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30")]
    pub(crate) progress_seconds: Option<u64>,
    /// Compute norms on CUDA with restok's own fused kernels, compiled on first use. Hidden until a GPU has validated
    /// them
    #[arg(long, global = true, hide = true, default_value = "false")]
    pub(crate) fused_kernels: Option<bool>,
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Human-readable lines
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressStyle {
    /// Bars on a terminal with text logs, log lines otherwise
    #[default]
    Auto,
    /// Bars on a terminal with text logs, nothing otherwise
    Bars,
    /// A log line every --progress-seconds
    Lines,
    /// No progress until the final report
    None,
}
