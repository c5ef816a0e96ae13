//! A comparison as a Markdown table, the best in bold.

use super::Comparison;

impl Comparison {
    /// The table, then its notes as a list.
    pub fn markdown(&self) -> String {
        let scores = self.columns.iter().map(|column| column.heading());
        let heading: Vec<String> = self.headings().map(str::to_owned).chain(scores).collect();
        let alignment = heading.iter().enumerate().map(|(place, _)| if place == 0 { ":--" } else { "--:" });
        let mut text = line(&heading.iter().map(|name| escaped(name)).collect::<Vec<_>>());
        text.push_str(&line(&alignment.map(str::to_owned).collect::<Vec<_>>()));
        for row in &self.rows {
            let numbers = self.columns.iter().zip(&row.cells).map(|(column, cell)| {
                let Some(cell) = cell else { return String::new() };
                let score = column.rounded(cell.score);
                let score = if cell.is_best { format!("**{score}**") } else { score };
                let marks = cell.marks().map_or(String::new(), |marks| format!(" <sup>{marks}</sup>"));
                format!("{score}{}{marks}", self.interval(row, cell, column))
            });
            text.push_str(&line(&row.beginning().map(|cell| escaped(&cell)).chain(numbers).collect::<Vec<_>>()));
        }
        let notes: String =
            self.marked_notes().map(|(mark, note)| format!("- <sup>{mark}</sup> {}\n", escaped(note))).collect();
        for part in [notes, self.remarks.iter().map(|remark| format!("{}\n", escaped(remark))).collect()] {
            if !part.is_empty() {
                text.push_str(&format!("\n{part}"));
            }
        }
        text
    }
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// A text that reads as it is: nothing in it is markup.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '$' => escaped.extend(['\\', character]),
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            _ => escaped.push(character),
        }
    }
    escaped
}
