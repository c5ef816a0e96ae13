//! A comparison as a LaTeX table, the best in bold.

use super::Comparison;
use schemas::{ConfidenceInterval, ScoreDirection};

impl Comparison {
    /// The table, then its notes.
    pub fn latex(&self) -> String {
        let scores = self.columns.iter().map(|column| {
            let arrow = match column.direction {
                Some(ScoreDirection::Lower) => " $\\downarrow$",
                Some(ScoreDirection::Higher) => " $\\uparrow$",
                None => "",
            };
            format!("{}{arrow}", escaped(column.name))
        });
        let heading: Vec<String> = self.headings().map(escaped).chain(scores).collect();
        let columns = "r".repeat(heading.len() - 1);
        let mut text = format!(
            "% needs \\usepackage{{booktabs}}\n\\begin{{tabular}}{{l{columns}}}\n\\toprule\n{}\\midrule\n",
            line(&heading)
        );
        for row in &self.rows {
            let numbers = self.columns.iter().zip(&row.cells).map(|(column, cell)| {
                let Some(cell) = cell else { return "--".to_owned() };
                let number = |value| signed(&column.rounded(value));
                let score = number(cell.score);
                let score = if cell.is_best { format!("\\textbf{{{score}}}") } else { score };
                let confidence =
                    self.own_confidence(row).map_or(String::new(), |confidence| format!(", {confidence}\\,\\%"));
                let interval = cell.interval.map_or(String::new(), |ConfidenceInterval { lower, upper }| {
                    format!(" {{\\scriptsize [{}, {}]{confidence}}}", number(lower), number(upper))
                });
                let marks = cell.marks().map_or(String::new(), |marks| format!("\\textsuperscript{{{marks}}}"));
                format!("{score}{interval}{marks}")
            });
            let beginning = row.beginning().map(|cell| escaped(&cell));
            text.push_str(&line(&beginning.chain(numbers).collect::<Vec<_>>()));
        }
        text.push_str("\\bottomrule\n\\end{tabular}\n");
        let notes = self.marked_notes();
        let notes = notes.map(|(mark, note)| format!("\\textsuperscript{{{mark}}} {}", escaped(note)));
        let below: Vec<String> = notes.chain(self.remarks.iter().map(|remark| escaped(remark))).collect();
        if !below.is_empty() {
            text.push_str(&format!("\n\\par{{\\footnotesize\n{}\\par}}\n", below.join("\\par\n")));
        }
        text
    }
}

fn line(cells: &[String]) -> String {
    format!("{} \\\\\n", cells.join(" & "))
}

/// A number with a minus, not a hyphen.
fn signed(number: &str) -> String {
    number.strip_prefix('-').map_or_else(|| number.to_owned(), |size| format!("$-${size}"))
}

/// A text that reads as it is: no character of it is a command. Brackets and stars would belong to the end of the line above.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => escaped.extend(['\\', character]),
            '\\' => escaped.push_str("\\textbackslash{}"),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '<' => escaped.push_str("\\textless{}"),
            '>' => escaped.push_str("\\textgreater{}"),
            '|' => escaped.push_str("\\textbar{}"),
            '…' => escaped.push_str("\\ldots{}"),
            '[' | ']' | '*' => escaped.extend(['{', character, '}']),
            _ => escaped.push(character),
        }
    }
    escaped
}
