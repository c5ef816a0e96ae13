//! A comparison as one JSON document, with the whole lines.

use super::{Comparison, mark};
use schemas::EvaluationRecord;
use serde::Serialize;
use std::collections::BTreeMap;

/// A comparison for programs.
#[derive(Debug, Serialize)]
pub struct ComparisonDocument<'a> {
    /// The scores that are compared, in their order.
    scores: Vec<Score>,
    /// The sets, in their order.
    sets: Vec<Set<'a>>,
    /// Why numbers do not compare, by mark.
    notes: BTreeMap<String, &'a str>,
    /// What is to be said of all.
    remarks: &'a [String],
}

#[derive(Debug, Serialize)]
struct Score {
    /// Field of the scores of a line.
    name: &'static str,
    /// Which is better: `lower` or `higher`; null where neither is.
    better: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Set<'a> {
    name: &'a str,
    /// What tells it from others.
    variant: BTreeMap<&'static str, &'a str>,
    /// Scores in which it is the best.
    best: Vec<&'static str>,
    /// Marks of the notes on scores that do not compare.
    not_comparable: BTreeMap<&'static str, Vec<String>>,
    /// The line, with everything that made it.
    record: &'a EvaluationRecord,
}

impl Comparison {
    /// Everything of it, for programs.
    pub fn document(&self) -> ComparisonDocument<'_> {
        let score = |column: &&'static crate::ScoreColumn| Score {
            name: column.field,
            better: column.direction.map(schemas::ScoreDirection::name),
        };
        let sets = self.rows.iter().map(|row| {
            let told = self.variants.iter().zip(&row.variants).filter(|(_, value)| !value.is_empty());
            let marks = |notes: &[usize]| notes.iter().map(|number| mark(*number)).collect();
            Set {
                name: &row.set,
                variant: told.map(|(variant, value)| (variant.field, value.as_str())).collect(),
                best: self.best_of(row),
                not_comparable: self
                    .not_comparable_of(row)
                    .map(|(column, notes)| (column.field, marks(notes)))
                    .collect(),
                record: &row.record,
            }
        });
        ComparisonDocument {
            scores: self.columns.iter().map(score).collect(),
            sets: sets.collect(),
            notes: self.marked_notes().collect(),
            remarks: &self.remarks,
        }
    }
}
