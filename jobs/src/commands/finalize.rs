//! `restok finalize`: checks that every unit is there and whole, and closes the output.

use crate::settings::{RejectRate, ReportFormat};
use anyhow::Result;
use pipeline::{Limits, Storage};
use report::{output_text::row_counts_text, text::counted};

/// Closes an output and prints its row counts.
///
/// # Errors
/// When a unit is missing or damaged, too many images were rejected, or the store fails.
pub(crate) async fn run(
    output: &str,
    max_reject_rate: RejectRate,
    format: ReportFormat,
    limits: &Limits,
) -> Result<()> {
    let storage = Storage::open_output(output, limits)?;
    let manifest = pipeline::finalize(&storage, max_reject_rate.fraction()).await?;
    match format {
        ReportFormat::Json => crate::output::print_json(&manifest)?,
        ReportFormat::Text => crate::output::print(&format!(
            "{}\nfinished: {}\n\n{}\nNext: restok inspect {}\n",
            storage.display(),
            counted(u64::from(manifest.units), "unit"),
            row_counts_text(&manifest.row_counts),
            pipeline::without_secrets(output),
        ))?,
    }
    Ok(())
}
