//! Text in columns.

/// Rows of cells as lines: the first column at its left, all others at their right, two spaces between them, and `indent`
/// spaces before all.
pub fn aligned(indent: usize, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, &width))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            format!("{}{}\n", " ".repeat(indent), cells.join("  ").trim_end())
        })
        .collect()
}

/// Names and values as lines, both at their left.
pub fn named(indent: usize, pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    pairs.iter().map(|(name, value)| format!("{}{name:<width$}  {value}\n", " ".repeat(indent))).collect()
}

/// A number with commas between thousands.
pub fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// A number of things: `1 unit`, `1,024 units`.
pub fn counted(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A number rounded to tenths, for logs.
pub fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// A number of bytes in units of 1,024.
pub fn bytes(number: u64) -> String {
    indicatif::BinaryBytes(number).to_string()
}

/// A fraction as percent.
pub fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}

/// A time as a person says it: `42.3 s`, `3 min 20 s`, `2 h 15 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_below_each_other() {
        let rows = [vec!["stage".to_owned(), "items".to_owned()], vec!["encode".to_owned(), "7".to_owned()]];
        assert_eq!(aligned(2, &rows), "  stage   items\n  encode      7\n");
    }

    #[test]
    fn times_and_counts_read_as_they_are_said() {
        assert_eq!(
            [duration(0.04), duration(59.44), duration(200.0), duration(8100.0)],
            ["0.0 s", "59.4 s", "3 min 20 s", "2 h 15 min"]
        );
        assert_eq!((counted(1, "unit"), counted(1000, "unit")), ("1 unit".to_owned(), "1,000 units".to_owned()));
        assert_eq!((count(1_281_167), percent(0.0125)), ("1,281,167".to_owned(), "1.2 %".to_owned()));
    }
}
