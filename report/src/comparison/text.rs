//! A comparison for a terminal.

use super::{Cell, Comparison, Row};
use crate::{score_lines::ScoreColumn, text::aligned};
use schemas::{ConfidenceInterval, ScoreDirection};

/// Absent numbers.
const NONE: &str = "-";
/// What stands behind the best of a column.
const BEST: &str = "*";

impl Comparison {
    /// The table in columns, then its notes.
    pub fn text(&self) -> String {
        let scores = self.columns.iter().map(|column| column.heading());
        let mut rows = vec![self.headings().map(str::to_owned).chain(scores).collect::<Vec<_>>()];
        rows.extend(self.rows.iter().map(|row| row.beginning().collect()));
        for (place, column) in self.columns.iter().enumerate() {
            let numbers = self.rows.iter().map(|row| match &row.cells[place] {
                Some(cell) => (self.number(row, cell, column), cell.suffix()),
                None => (NONE.to_owned(), String::new()),
            });
            let numbers: Vec<(String, String)> = numbers.collect();
            // Numbers stand below each other whatever is behind them.
            let width = numbers.iter().map(|(_, suffix)| suffix.chars().count()).max().unwrap_or(0);
            for (cells, (number, suffix)) in rows[1..].iter_mut().zip(numbers) {
                cells.push(format!("{number}{suffix:<width$}"));
            }
        }
        let mut text = aligned(0, &rows);
        let best = self.rows.iter().flat_map(|row| row.cells.iter().flatten()).any(|cell| cell.is_best);
        let best = best.then(|| format!("{BEST} the best of those that compare\n"));
        let notes = self.marked_notes().map(|(mark, note)| format!("[{mark}] {note}\n"));
        let below: String = best.into_iter().chain(notes).collect();
        for part in [below, self.remarks.iter().map(|remark| format!("{remark}\n")).collect()] {
            if !part.is_empty() {
                text.push_str(&format!("\n{part}"));
            }
        }
        text
    }

    /// A number with its interval, without marks.
    pub(super) fn number(&self, row: &Row, cell: &Cell, column: &ScoreColumn) -> String {
        format!("{}{}", column.rounded(cell.score), self.interval(row, cell, column))
    }

    /// The interval of a number in brackets, with a space before; empty where there is none.
    pub(super) fn interval(&self, row: &Row, cell: &Cell, column: &ScoreColumn) -> String {
        let Some(ConfidenceInterval { lower, upper }) = cell.interval else { return String::new() };
        let confidence = self.own_confidence(row).map_or(String::new(), |confidence| format!(", {confidence} %"));
        // A dash before a number is read as its sign.
        let to = if lower < 0.0 || upper < 0.0 { " to " } else { "–" };
        format!(" ({}{to}{}{confidence})", column.rounded(lower), column.rounded(upper))
    }
}

impl ScoreColumn {
    /// What it is called, with an arrow to where better scores are.
    pub(super) fn heading(&self) -> String {
        match self.direction {
            Some(ScoreDirection::Lower) => format!("{} ↓", self.name),
            Some(ScoreDirection::Higher) => format!("{} ↑", self.name),
            None => self.name.to_owned(),
        }
    }
}

impl Cell {
    fn suffix(&self) -> String {
        match self.marks() {
            Some(marks) => format!(" [{marks}]"),
            None if self.is_best => format!(" {BEST}"),
            None => String::new(),
        }
    }
}
