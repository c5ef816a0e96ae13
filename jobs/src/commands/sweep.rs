//! `restok sweep`: a small set at every point of a grid of sampling settings, and a table of them.

use super::generate::{Loaded, MadeSet, generate_set};
use crate::{
    aligned::{aligned, count, percent},
    progress::Progress,
    settings::{ReportFormat, SettingsError, SweepPoint, SweepSettings},
    workers::Workers,
};
use anyhow::Result;
use futures::TryStreamExt;
use pipeline::{Limits, PipelineError, TableReader};
use schemas::CodebookStatistics;
use serde::Serialize;
use std::pin::pin;
use tokio_util::sync::CancellationToken;

/// What is said of a point.
#[derive(Debug, Serialize)]
struct PointRow {
    output: String,
    guidance: f64,
    schedule: &'static str,
    top_p: f64,
    temperature: f64,
    samples: u64,
    /// Codes of the codebook that occur in the set.
    codes_used: u64,
    codebook_size: usize,
    /// Bits of the distribution of codes.
    entropy_bits: f64,
    /// Whether the set was there before.
    there_before: bool,
}

/// Makes the sets one after another, with networks that are loaded once, and tabulates them. A point whose set is finished is only
/// read, so that the same command goes on where it was stopped.
///
/// # Errors
/// Whatever ended it; points that are finished stay.
pub(crate) async fn run(
    settings: SweepSettings,
    limits: Limits,
    workers: Workers,
    progress: Progress,
    cancel: CancellationToken,
) -> Result<()> {
    let first =
        settings.points.first().ok_or_else(|| SettingsError::invalid("the grid", "no point", "at least one"))?;
    let loading = Loaded::load(&first.settings, &workers);
    let loaded = cancel.run_until_cancelled(loading).await.ok_or(PipelineError::Drained)??;
    let mut rows = Vec::new();
    for (number, point) in settings.points.iter().enumerate() {
        tracing::info!("point {} of {}: {}", number + 1, settings.points.len(), point.name);
        let made = generate_set(&point.settings, &point.output, &limits, &loaded, &progress, &cancel).await?;
        rows.push(point_row(point, &made).await?);
    }
    match settings.format {
        ReportFormat::Json => Ok(crate::output::print_json(&rows)?),
        ReportFormat::Text => Ok(crate::output::print(&text(&rows))?),
    }
}

async fn point_row(point: &SweepPoint, made: &MadeSet) -> Result<PointRow> {
    let settings = made.plan.settings();
    let tokenizer = &settings.tokenizer;
    let mut statistics = CodebookStatistics::new(tokenizer.levels.clone(), tokenizer.codebook_size);
    let reader = TableReader::open(&made.output).await?;
    let mut files = pin!(reader.token_files());
    while let Some(file) = files.try_next().await? {
        statistics.add(&file.rows.tokens);
    }
    let used = statistics.all();
    let samples = settings
        .origin
        .samples()
        .ok_or_else(|| SettingsError::invalid("sweep", "a plan without samples", "samples"))?;
    let sampling = &samples.sampling;
    Ok(PointRow {
        output: pipeline::without_secrets(&point.output),
        guidance: sampling.guidance.scale,
        schedule: sampling.guidance.schedule.name(),
        top_p: sampling.top_p,
        temperature: sampling.temperature,
        samples: made.report.books_output.written,
        codes_used: used.distinct,
        codebook_size: tokenizer.codebook_size,
        entropy_bits: used.entropy_bits,
        there_before: made.report.units_here == 0,
    })
}

fn text(rows: &[PointRow]) -> String {
    let heading = [
        "guidance",
        "schedule",
        "top-p",
        "temperature",
        "samples",
        "codes used",
        "of codebook",
        "entropy, bits",
        "output",
    ];
    let mut table = vec![heading.map(str::to_owned).to_vec()];
    table.extend(rows.iter().map(|row| {
        vec![
            row.guidance.to_string(),
            row.schedule.to_owned(),
            row.top_p.to_string(),
            row.temperature.to_string(),
            count(row.samples),
            count(row.codes_used),
            percent(row.codes_used as f64 / row.codebook_size.max(1) as f64),
            format!("{:.2}", row.entropy_bits),
            row.output.clone(),
        ]
    }));
    aligned(0, &table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_point() {
        let row = |guidance| PointRow {
            output: format!("out/{guidance}"),
            guidance,
            schedule: "step",
            top_p: 0.95,
            temperature: 1.0,
            samples: 1_000,
            codes_used: 512,
            codebook_size: 1_024,
            entropy_bits: 7.5,
            there_before: false,
        };
        let text = text(&[row(1.0), row(3.75)]);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("3.75") && text.contains("1,000") && text.contains("50.0 %"), "{text}");
    }
}
