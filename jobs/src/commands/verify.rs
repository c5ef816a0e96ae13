//! `restok verify`: checks an output against its plan, its markers and its manifest.

use crate::settings::ReportFormat;
use anyhow::Result;
use pipeline::{Limits, Storage, VerifyReport};
use report::{
    output_text::row_counts_text,
    text::{bytes, counted},
};

/// An output is damaged; what is wrong was printed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{output}: {findings} findings. A damaged unit is done again when its marker below _state/ and both its files are removed \
     (and _SUCCESS and _manifest.json, if they are there) and `restok tokenize` is started again"
)]
pub(crate) struct Unsound {
    output: String,
    findings: usize,
}

/// Checks an output and prints everything that is wrong with it.
///
/// # Errors
/// [`Unsound`] when anything is; otherwise when there is no output, or the store fails.
pub(crate) async fn run(output: &str, fast: bool, format: ReportFormat, limits: &Limits) -> Result<()> {
    let storage = Storage::open(output, limits)?;
    let options = pipeline::VerifyOptions { read_files: !fast, ..pipeline::VerifyOptions::default() };
    let report = pipeline::verify(&storage, &options).await?;
    match format {
        ReportFormat::Json => crate::output::print_json(&report)?,
        ReportFormat::Text => crate::output::print(&text(storage.display(), &report, fast))?,
    }
    match report.is_sound() {
        true => Ok(()),
        false => Err(Unsound { output: storage.display().to_owned(), findings: report.findings.len() }.into()),
    }
}

fn text(output: &str, report: &VerifyReport, fast: bool) -> String {
    let state = match report.finished {
        true => format!("finished: {}", counted(u64::from(report.units_total), "unit")),
        false => format!("unfinished: {} of {} units are complete", report.units_done, report.units_total),
    };
    let checked = match fast {
        true => "presence and sizes only",
        false => "digests, schemas, rows, ranges, uniqueness",
    };
    let mut text = format!(
        "{output}\n{state}\n\n{}\nChecked {}, {} ({checked})\n",
        row_counts_text(&report.row_counts),
        counted(report.files, "file"),
        bytes(report.bytes)
    );
    match report.findings.as_slice() {
        [] => text.push_str("Nothing is wrong.\n"),
        findings => {
            text.push_str(&format!("{}\n", counted(findings.len() as u64, "finding")));
            findings.iter().for_each(|finding| text.push_str(&format!("  {finding}\n")));
        }
    }
    if !report.leftovers.is_empty() {
        text.push_str("Files that no marker names (units in progress, or of a run that was killed; not wrong)\n");
        report.leftovers.iter().for_each(|path| text.push_str(&format!("  {path}\n")));
    }
    text
}
