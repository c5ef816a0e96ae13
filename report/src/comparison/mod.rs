//! A table of sets by their scores: which is best, and what does not compare.
//!
//! ```text
//! lines of scores tables ── terms: what must be alike ──▶ Comparison ──▶ text, Markdown, LaTeX, CSV, JSON
//! ```
//! The lines that most others are alike are the comparison. Of a line that differs, the numbers that depend on the difference are
//! marked, with a note on what differs, and take no part in what is best.

mod csv;
mod document;
mod latex;
mod markdown;
mod terms;
#[cfg(test)]
mod tests;
mod text;
mod variants;

pub use document::ComparisonDocument;

use crate::{
    score_difference::beside_the_lowest,
    score_lines::{ScoreColumn, columns},
    text::counted,
};
use schemas::{ConfidenceInterval, EvaluationRecord, ScoreDirection};
use std::{cmp::Ordering, collections::BTreeSet};
use terms::{Difference, Terms};
use variants::Variant;

/// How rows follow each other.
#[derive(Clone, Copy, Debug, Default)]
pub enum RowOrder {
    /// By the first score that is shown, the best first.
    #[default]
    FirstScore,
    /// By this score, the best first; as given where it is not shown.
    Score(&'static ScoreColumn),
    /// As the lines were given.
    Given,
}

/// Sets beside each other.
pub struct Comparison {
    columns: Vec<&'static ScoreColumn>,
    variants: Vec<&'static Variant>,
    rows: Vec<Row>,
    /// What differs, each told once.
    notes: Vec<String>,
    /// What is to be said of the table as a whole.
    remarks: Vec<String>,
}

impl std::fmt::Debug for Comparison {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sets: Vec<&str> = self.rows.iter().map(|row| row.set.as_str()).collect();
        formatter.debug_struct("Comparison").field("sets", &sets).field("notes", &self.notes).finish_non_exhaustive()
    }
}

/// A line.
struct Row {
    record: EvaluationRecord,
    /// What its set is called.
    set: String,
    /// What tells it from other lines of that set, a text for each variant that is shown.
    variants: Vec<String>,
    /// A number for each column; `None` where the line has none.
    cells: Vec<Option<Cell>>,
}

/// A number of a line.
#[derive(Clone, Debug)]
struct Cell {
    score: f64,
    interval: Option<ConfidenceInterval>,
    /// The best of its column.
    is_best: bool,
    /// Why it does not compare with the others, by number of the note; empty where it does.
    notes: Vec<usize>,
}

impl Comparison {
    /// Sets lines beside each other; of scores, those that any line has, or the `asked` ones.
    pub fn new(records: Vec<EvaluationRecord>, asked: Option<Vec<&'static ScoreColumn>>, order: RowOrder) -> Self {
        let mut lines: Vec<EvaluationRecord> = Vec::new();
        let given = records.len();
        for record in records {
            if !lines.contains(&record) {
                lines.push(record);
            }
        }
        let repeated = given - lines.len();
        let records: Vec<&EvaluationRecord> = lines.iter().collect();
        let columns = asked.unwrap_or_else(|| columns(records.iter().copied()));
        let names = variants::set_names(&records);
        let variants = variants::shown(&records, &names);
        let mut comparison = Self { columns, variants, rows: Vec::new(), notes: Vec::new(), remarks: Vec::new() };
        let terms = Terms::of(&records);
        for (record, set) in records.iter().zip(names) {
            let differences = terms.as_ref().map_or_else(Vec::new, |terms| terms.differences(record));
            let row = comparison.row(record, set, &differences);
            comparison.rows.push(row);
        }
        comparison.mark_best();
        comparison.sort(order);
        comparison.number_notes();
        if let Some(terms) = terms {
            comparison.remark(&terms, repeated);
        }
        comparison
    }

    fn row(&mut self, record: &EvaluationRecord, set: String, differences: &[Difference<'_>]) -> Row {
        let cell = |column: &&ScoreColumn| {
            let score = column.value(record)?;
            Some(Cell { score, interval: column.interval(record), is_best: false, notes: Vec::new() })
        };
        let mut cells: Vec<Option<Cell>> = self.columns.iter().map(cell).collect();
        for difference in differences {
            let matters = |column: &ScoreColumn| (difference.term.matters_to)(column, record.protocol);
            let here = self.columns.iter().zip(&cells).filter_map(|(column, cell)| cell.as_ref().map(|_| *column));
            let (dependent, others): (Vec<&ScoreColumn>, Vec<&ScoreColumn>) = here.partition(|column| matters(column));
            if dependent.is_empty() {
                continue;
            }
            let note = note(record, difference, &dependent, &others);
            let number = self.notes.iter().position(|told| *told == note).unwrap_or_else(|| {
                self.notes.push(note);
                self.notes.len() - 1
            });
            for (column, cell) in self.columns.iter().zip(&mut cells) {
                if let Some(cell) = cell.as_mut().filter(|_| matters(column)) {
                    cell.notes.push(number);
                }
            }
        }
        let variants = self.variants.iter().map(|variant| variant.text(record)).collect();
        Row { record: record.clone(), set, variants, cells }
    }

    /// Marks the best numbers of each column that compare, all that read the same.
    fn mark_best(&mut self) {
        for (place, column) in self.columns.iter().enumerate() {
            let Some(direction) = column.direction else { continue };
            let comparable = self.rows.iter_mut().filter_map(|row| row.cells[place].as_mut());
            let mut comparable: Vec<&mut Cell> = comparable.filter(|cell| cell.notes.is_empty()).collect();
            let best = comparable.iter().map(|cell| cell.score).min_by(|one, other| direction.order(*one, *other));
            // Who stands alone is not the best of anything.
            let Some(best) = best.filter(|_| comparable.len() > 1).map(|best| column.rounded(best)) else { continue };
            for cell in &mut comparable {
                cell.is_best = column.rounded(cell.score) == best;
            }
        }
    }

    /// Sorts rows: first those whose number compares, then those whose does not, then those without.
    fn sort(&mut self, order: RowOrder) {
        let place = match order {
            RowOrder::FirstScore => (!self.columns.is_empty()).then_some(0),
            RowOrder::Score(column) => self.columns.iter().position(|shown| std::ptr::eq(*shown, column)),
            RowOrder::Given => None,
        };
        let Some(place) = place else { return };
        let direction = self.columns[place].direction.unwrap_or(ScoreDirection::Higher);
        let rank = |row: &Row| row.cells[place].as_ref().map_or(2, |cell| usize::from(!cell.notes.is_empty()));
        self.rows.sort_by(|one, other| {
            rank(one).cmp(&rank(other)).then_with(|| match (&one.cells[place], &other.cells[place]) {
                (Some(one), Some(other)) => direction.order(one.score, other.score),
                _ => Ordering::Equal,
            })
        });
    }

    /// Gives notes the order in which a reader comes to their marks.
    fn number_notes(&mut self) {
        let mut order: Vec<usize> = Vec::new();
        for number in
            self.rows.iter_mut().flat_map(|row| row.cells.iter_mut().flatten()).flat_map(|cell| &mut cell.notes)
        {
            let place = order.iter().position(|seen| seen == number).unwrap_or_else(|| {
                order.push(*number);
                order.len() - 1
            });
            *number = place;
        }
        self.notes = order.into_iter().map(|number| self.notes[number].clone()).collect();
    }

    fn remark(&mut self, terms: &Terms<'_>, repeated: usize) {
        let Some(first) = terms.common.first() else { return };
        let mut remarks = vec![format!("Compared under {}: {}.", first.protocol, terms.told().join(", "))];
        let broken: BTreeSet<&str> =
            terms.common.iter().flat_map(|record| &record.deviations).map(String::as_str).collect();
        if !broken.is_empty() {
            let broken = broken.into_iter().collect::<Vec<_>>().join("; ");
            remarks.push(format!(
                "{} was not kept ({broken}): these numbers do not compare with published ones.",
                first.protocol
            ));
        }
        if let [confidence] = self.confidences()[..] {
            remarks.push(format!("Behind the numbers: confidence intervals of {confidence} %."));
        }
        remarks.extend(self.difference());
        if repeated > 0 {
            remarks.push(format!("{} given more than once, and shown once.", counted(repeated as u64, "line")));
        }
        self.remarks = remarks;
    }

    /// The confidences of the intervals that are shown.
    fn confidences(&self) -> Vec<f64> {
        let shown = self.rows.iter().filter(|row| row.cells.iter().flatten().any(|cell| cell.interval.is_some()));
        let mut confidences: Vec<f64> = shown.filter_map(Row::confidence).collect();
        confidences.sort_by(f64::total_cmp);
        confidences.dedup();
        confidences
    }

    /// The confidence of a row's intervals, where it must stand beside them: rows have several.
    fn own_confidence(&self, row: &Row) -> Option<f64> {
        row.confidence().filter(|_| self.confidences().len() > 1)
    }

    /// Whether the lowest FID is lower than the next one by more than chance, where both compare and have intervals.
    fn difference(&self) -> Vec<String> {
        let Some(place) = self.columns.iter().position(|column| column.key == "fid") else { return Vec::new() };
        let comparable = |row: &&Row| row.cells[place].as_ref().is_some_and(|cell| cell.notes.is_empty());
        let mut rows: Vec<&Row> = self.rows.iter().filter(comparable).collect();
        let score = |row: &Row| row.cells[place].as_ref().map_or(f64::INFINITY, |cell| cell.score);
        rows.sort_by(|one, other| score(one).total_cmp(&score(other)));
        let [lowest, next, ..] = rows[..] else { return Vec::new() };
        let name =
            |record: &EvaluationRecord| self.label(if std::ptr::eq(record, &lowest.record) { lowest } else { next });
        let mut told = beside_the_lowest(&[&lowest.record, &next.record], name);
        if !told.is_empty() {
            told.push("This holds for sets that were drawn independently, such as with two seeds.".to_owned());
        }
        told
    }

    /// What a row is called within a sentence: its set, and what is not the same in all rows.
    fn label(&self, row: &Row) -> String {
        let told = self.variants.iter().zip(&row.variants).enumerate().filter(|(place, (_, value))| {
            !value.is_empty() && self.rows.iter().any(|other| other.variants[*place] != **value)
        });
        let told: Vec<String> = told.map(|(_, (variant, value))| format!("{} {value}", variant.name)).collect();
        match told.is_empty() {
            true => row.set.clone(),
            false => format!("{} ({})", row.set, told.join(", ")),
        }
    }

    /// Scores in which a row is the best.
    fn best_of(&self, row: &Row) -> Vec<&'static str> {
        let cells = self.columns.iter().zip(&row.cells);
        let best = cells.filter(|(_, cell)| cell.as_ref().is_some_and(|cell| cell.is_best));
        best.map(|(column, _)| column.field).collect()
    }

    /// Scores of a row that do not compare, with the numbers of their notes.
    fn not_comparable_of<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = (&'static ScoreColumn, &'a [usize])> {
        let cells = self.columns.iter().zip(&row.cells);
        let cells = cells.filter_map(|(column, cell)| Some((*column, cell.as_ref()?.notes.as_slice())));
        cells.filter(|(_, notes)| !notes.is_empty())
    }

    /// Names of all columns before the scores.
    fn headings(&self) -> impl Iterator<Item = &'static str> {
        ["set", "images"].into_iter().chain(self.variants.iter().map(|variant| variant.name))
    }

    /// Notes with their marks.
    fn marked_notes(&self) -> impl Iterator<Item = (String, &str)> {
        self.notes.iter().enumerate().map(|(number, note)| (mark(number), note.as_str()))
    }
}

impl Row {
    /// Texts of all columns before the scores.
    fn beginning(&self) -> impl Iterator<Item = String> {
        [self.set.clone(), crate::text::count(self.record.images)].into_iter().chain(self.variants.iter().cloned())
    }

    fn confidence(&self) -> Option<f64> {
        self.record.scores.intervals.as_ref().map(|intervals| intervals.confidence)
    }
}

impl Cell {
    /// The marks of its notes with commas; `None` of a number that compares.
    fn marks(&self) -> Option<String> {
        let marks: Vec<String> = self.notes.iter().map(|number| mark(*number)).collect();
        (!marks.is_empty()).then(|| marks.join(","))
    }
}

/// What differs, what it is with the others, and what that means for the numbers of a line.
fn note(
    record: &EvaluationRecord,
    Difference { term, expected }: &Difference<'_>,
    dependent: &[&ScoreColumn],
    others: &[&ScoreColumn],
) -> String {
    let means = match others.is_empty() {
        true => "Every score depends on it.".to_owned(),
        false => {
            let verb = if dependent.len() == 1 { "depends" } else { "depend" };
            let not = if others.len() == 1 { "does not" } else { "do not" };
            format!("{} {verb} on it, {} {not}.", listed(dependent), listed(others))
        }
    };
    format!("{}: {}; the others: {}. {means}", term.name, (term.text)(record), (term.text)(expected))
}

/// Names as a sentence has them: `FID, sFID and recall`.
fn listed(columns: &[&ScoreColumn]) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    match names.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => names.concat(),
    }
}

/// The mark of a note: a, b … z, aa, ab …
fn mark(number: usize) -> String {
    let letter = char::from(b'a' + (number % 26) as u8);
    match number / 26 {
        0 => letter.to_string(),
        more => format!("{}{letter}", mark(more - 1)),
    }
}
