//! Options and settings of `restok doctor`.

use super::ReportFormat;

/// Options of `restok doctor`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DoctorOptions {
    /// Sources and outputs to reach, as passed to --source and --output
    #[arg(value_name = "URL")]
    pub(crate) url: Option<Vec<String>>,
    /// Format of the report on standard output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Option<ReportFormat>,
}

/// Settings of `restok doctor`.
#[derive(Clone, Debug)]
pub(crate) struct DoctorSettings {
    /// Places to reach.
    pub(crate) urls: Vec<String>,
    /// Shape of the report.
    pub(crate) format: ReportFormat,
}

impl DoctorOptions {
    /// The settings.
    pub(crate) fn resolve(self) -> DoctorSettings {
        DoctorSettings { urls: self.url.unwrap_or_default(), format: self.format.unwrap_or_default() }
    }
}
