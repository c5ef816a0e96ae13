//! `restok inspect`: what is in an output.

use crate::settings::ReportFormat;
use anyhow::Result;
use pipeline::{Limits, Storage, TableReader};
use report::{inspect, inspection_text};

/// Reads an output, finished or not, and prints what is in it.
///
/// # Errors
/// When there is no output, or it cannot be read or written about.
pub(crate) async fn run(output: &str, rows: usize, format: ReportFormat, limits: &Limits) -> Result<()> {
    let storage = Storage::open(output, limits)?;
    let inspection = inspect(&storage, &TableReader::open(&storage).await?, rows).await?;
    match format {
        ReportFormat::Json => crate::output::print_json(&inspection)?,
        ReportFormat::Text => crate::output::print(&inspection_text(&inspection))?,
    }
    Ok(())
}
