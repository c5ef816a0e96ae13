//! `restok sweep`: a small set at every point of a grid of sampling settings, and a table of them.

use super::{
    evaluate::{ComparedWith, Extractors, GeneratedSet, Scoring, check_before},
    generate::{Loaded, MadeSet, generate_set},
};
use crate::{
    progress::Progress,
    settings::{ReportFormat, ScoreSelection, ScoringWork, SettingsError, SweepPoint, SweepScoring, SweepSettings},
    workers::Workers,
};
use anyhow::Result;
use futures::TryStreamExt;
use models::ExtractorPrecision;
use pipeline::{Limits, PipelineError, ProcessRank, SourceOptions, Storage, TableReader};
use report::text::{aligned, count, percent};
use schemas::{CodebookStatistics, ImageIdRule, Protocol, Scores};
use serde::Serialize;
use std::{pin::pin, sync::Mutex};
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
    /// What the set scores, where points are scored.
    #[serde(skip_serializing_if = "Option::is_none")]
    scores: Option<Scores>,
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
    let _exporting = progress.metrics().export(settings.metrics_listen)?;
    let loading = Loaded::load(&first.settings, &workers);
    let loaded = cancel.run_until_cancelled(loading).await.ok_or(PipelineError::Drained)??;
    let scorer = match &settings.scoring {
        Some(scoring) => {
            let (output, cancel) = (Storage::open_output(&settings.output, &limits)?, cancel.clone());
            let scorer = Scorer::load(scoring, output, &limits, &workers, progress.clone(), cancel).await?;
            // Before anything is drawn.
            scorer.check_before(&settings.points, loaded.side())?;
            Some(scorer)
        }
        None => None,
    };
    let mut rows = Vec::new();
    for (number, point) in settings.points.iter().enumerate() {
        tracing::info!("point {} of {}: {}", number + 1, settings.points.len(), point.name);
        let made = generate_set(&point.settings, &point.output, &limits, &loaded, &progress, None, &cancel).await?;
        let scores = match &scorer {
            Some(scorer) => Some(scorer.score(&point.output).await?),
            None => None,
        };
        rows.push(point_row(point, &made, scores).await?);
    }
    match settings.format {
        ReportFormat::Json => Ok(crate::output::print_json(&rows)?),
        ReportFormat::Text => Ok(crate::output::print(&text(&rows))?),
    }
}

/// The network and the reference, loaded once for all points.
struct Scorer {
    scoring: Scoring,
    extractors: Extractors,
    compared: ComparedWith,
}

impl Scorer {
    async fn load(
        settings: &SweepScoring,
        output: Storage,
        limits: &Limits,
        workers: &Workers,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let scoring = Scoring {
            output,
            protocol: Protocol::GfidAdm,
            allow: settings.allow.clone(),
            work: ScoringWork::default(),
            max_reject_rate: 0.0,
            // Points are not shared out: each process makes all that others have not made.
            process: ProcessRank::ALONE,
            limits: limits.clone(),
            progress,
            cancel,
            engine: Mutex::default(),
        };
        let extractors = Extractors::load(&settings.inception, workers, ExtractorPrecision::Float32).await?;
        let compared = match &settings.reference {
            Some(reference) => ComparedWith::read(reference, &scoring, &extractors).await?,
            None => ComparedWith::nothing(),
        };
        Ok(Self { scoring, extractors, compared })
    }

    /// Refuses points that would break a rule.
    fn check_before(&self, points: &[SweepPoint], side: usize) -> Result<()> {
        let counts = points.iter().filter_map(|point| point.settings.count());
        let shape = (side, side);
        for images in counts {
            let reference = self.compared.deviations_for(shape);
            check_before(self.scoring.protocol, images, shape, &reference, &self.scoring.allow)?;
        }
        Ok(())
    }

    /// Scores a point that is made, and adds its line to the scores table of the sweep.
    async fn score(&self, output: &str) -> Result<Scores> {
        let source = SourceOptions { image_id: ImageIdRule::Position, ..SourceOptions::new(output) };
        let set = GeneratedSet::open(source, None, &self.scoring).await?;
        let record = set.score(&self.compared, &ScoreSelection::default(), &self.scoring, &self.extractors).await?;
        pipeline::write_scores(&self.scoring.output, std::slice::from_ref(&record)).await?;
        Ok(record.scores)
    }
}

async fn point_row(point: &SweepPoint, made: &MadeSet, scores: Option<Scores>) -> Result<PointRow> {
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
        samples: made.report.row_counts_output.written,
        codes_used: used.distinct,
        codebook_size: tokenizer.codebook_size,
        entropy_bits: used.entropy_bits,
        scores,
        there_before: made.report.units_here == 0,
    })
}

/// Name of a score, its digits, and where it is.
type Measured = (&'static str, usize, fn(&Scores) -> Option<f64>);

fn text(rows: &[PointRow]) -> String {
    const SCORES: [Measured; 5] = [
        ("FID", 3, |scores| scores.fid),
        ("sFID", 3, |scores| scores.sfid),
        ("IS", 2, |scores| scores.inception_score),
        ("precision", 3, |scores| scores.precision),
        ("recall", 3, |scores| scores.recall),
    ];
    let number = |row: &PointRow, of: fn(&Scores) -> Option<f64>| row.scores.as_ref().and_then(of);
    // Only what was measured has a column.
    let measured: Vec<_> = SCORES.iter().filter(|(.., of)| rows.iter().any(|row| number(row, *of).is_some())).collect();
    let heading =
        ["guidance", "schedule", "top-p", "temperature", "samples", "codes used", "of codebook", "entropy, bits"];
    let heading = heading.into_iter().chain(measured.iter().map(|(name, ..)| *name)).chain(["output"]);
    let mut table = vec![heading.map(str::to_owned).collect::<Vec<_>>()];
    table.extend(rows.iter().map(|row| {
        let mut cells = vec![
            row.guidance.to_string(),
            row.schedule.to_owned(),
            row.top_p.to_string(),
            row.temperature.to_string(),
            count(row.samples),
            count(row.codes_used),
            percent(row.codes_used as f64 / row.codebook_size.max(1) as f64),
            format!("{:.2}", row.entropy_bits),
        ];
        cells.extend(measured.iter().map(|(_, digits, of)| {
            number(row, *of).map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
        }));
        cells.push(row.output.clone());
        cells
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
            scores: (guidance > 2.0).then(|| Scores { fid: Some(12.345_6), ..Scores::default() }),
            there_before: false,
        };
        let text = text(&[row(1.0), row(3.75)]);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("3.75") && text.contains("1,000") && text.contains("50.0 %"), "{text}");
        assert!(text.contains("FID") && text.contains("12.346") && !text.contains("recall"), "{text}");
    }
}
