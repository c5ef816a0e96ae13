//! A comparison as CSV: numbers with all their digits, a column for each bound, lists joined by `;` as in the scores table.

use super::{Comparison, Row, variants::VARIANTS};
use crate::score_lines::ScoreColumn;
use anyhow::{Context, Result};
use schemas::EvaluationRecord;

/// A column that every table has, before the scores.
type Column = (&'static str, fn(&EvaluationRecord) -> Option<String>);

const BEFORE: [Column; 5] = [
    ("evaluation", |record| Some(record.evaluation.clone())),
    ("source", |record| Some(record.source.clone())),
    ("protocol", |record| Some(record.protocol.to_string())),
    ("deviations", |record| Some(record.deviations.join(";"))),
    ("images", |record| Some(record.images.to_string())),
];

const BEHIND: [Column; 5] = [
    ("confidence", |record| Some(record.scores.intervals.as_ref()?.confidence.to_string())),
    ("reference", |record| record.reference.clone()),
    ("reference_sha256", |record| record.reference_sha256.clone()),
    ("extractor_sha256", |record| record.extractor_sha256.clone()),
    ("extractor_precision", |record| record.extractor_precision.clone()),
];

impl Comparison {
    /// The table with a header. What is best and what does not compare stands in columns of its own.
    ///
    /// # Errors
    /// When a row cannot be written, which memory does not give it reason to.
    pub fn csv(&self) -> Result<String> {
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        let scores = self.columns.iter().flat_map(|column| {
            let bounds =
                self.has_interval(column).then(|| ["lower", "upper"].map(|end| format!("{}_{end}", column.field)));
            std::iter::once(column.field.to_owned()).chain(bounds.into_iter().flatten())
        });
        let before = BEFORE.iter().map(|(name, _)| *name).chain(VARIANTS.iter().map(|variant| variant.field));
        let behind = BEHIND.iter().map(|(name, _)| *name).chain(["best", "not_comparable", "notes"]);
        let header = std::iter::once("set").chain(before).map(str::to_owned);
        writer.write_record(header.chain(scores).chain(behind.map(str::to_owned)))?;
        for row in &self.rows {
            writer.write_record(self.cells(row))?;
        }
        let bytes = writer.into_inner().map_err(::csv::IntoInnerError::into_error)?;
        String::from_utf8(bytes).context("a table of texts")
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let record = &row.record;
        let mut cells = vec![row.set.clone()];
        let before = BEFORE.iter().map(|(_, of)| of).chain(VARIANTS.iter().map(|variant| &variant.of));
        cells.extend(before.map(|of| of(record).unwrap_or_default()));
        for (column, cell) in self.columns.iter().zip(&row.cells) {
            cells.push(cell.as_ref().map_or(String::new(), |cell| cell.score.to_string()));
            if self.has_interval(column) {
                let interval = cell.as_ref().and_then(|cell| cell.interval);
                let bounds = interval.map_or([None; 2], |interval| [Some(interval.lower), Some(interval.upper)]);
                cells.extend(bounds.map(|bound| bound.map_or(String::new(), |bound| bound.to_string())));
            }
        }
        cells.extend(BEHIND.iter().map(|(_, of)| of(record).unwrap_or_default()));
        cells.push(self.best_of(row).join(";"));
        cells.push(self.not_comparable_of(row).map(|(column, _)| column.field).collect::<Vec<_>>().join(";"));
        let mut notes: Vec<usize> = self.not_comparable_of(row).flat_map(|(_, notes)| notes.to_vec()).collect();
        notes.sort_unstable();
        notes.dedup();
        cells.push(notes.into_iter().map(|number| self.notes[number].as_str()).collect::<Vec<_>>().join(";"));
        cells
    }

    /// Whether any row has an interval of a score.
    fn has_interval(&self, column: &ScoreColumn) -> bool {
        self.rows.iter().any(|row| column.value(&row.record).is_some() && column.interval(&row.record).is_some())
    }
}
