//! Logs and progress: the same for every command.

use clap::ValueEnum;

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Logs and progress")]
pub(crate) struct GeneralOptions {
    /// What is logged to standard error: error, warn, info, debug or trace, or directives such as info,pipeline=debug
    #[arg(long, global = true, value_name = "LEVEL", env = "RESTOK_LOG", default_value = "info")]
    pub(crate) log_level: Option<String>,
    /// Shape of log lines
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: Option<LogFormat>,
    /// How progress is shown on standard error
    #[arg(long, global = true, value_name = "STYLE", default_value = "auto")]
    pub(crate) progress: Option<ProgressStyle>,
    /// Seconds between two progress lines, where no bars are shown
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30")]
    pub(crate) progress_seconds: Option<u64>,
    /// Compute norms on CUDA by kernels of restok's own, compiled when they are first used. Hidden until a GPU has shown them
    #[arg(long, global = true, hide = true, default_value = "false")]
    pub(crate) fused_kernels: Option<bool>,
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for a person
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
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
