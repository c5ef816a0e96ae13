//! The numbers of a run as a table, `metrics.csv`: a line a logged step, a column a number.
//!
//! Cells are empty where a step has no such number (most steps are not validated). Every number but the step has a point or an
//! exponent, so that a reader that guesses types from the first lines does not take a loss that starts at 0 for a whole number;
//! it reads back as exactly the number that was written. DuckDB, Polars and pandas read the file as it is.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

/// The first column.
const STEP: &str = "step";

/// The table of a run, open for more lines.
#[derive(Debug)]
pub(crate) struct MetricsTable {
    path: PathBuf,
    file: File,
    columns: Vec<String>,
}

impl MetricsTable {
    /// Opens the table at `path`, with `columns` after the step, for a run that has made `from_step` steps; a table that is not
    /// there is begun. Lines of later steps are dropped, for they will be made again, and so is a last line that a killed
    /// process left unfinished; of a run that starts at 0, all lines are. Columns that a table lacks are added at its right, and
    /// those that it has beyond `columns` stay: a run may be told to go on with other terms.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is no such table.
    pub(crate) fn open(path: &Path, columns: &[String], from_step: u64) -> Result<Self> {
        for column in columns {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./".contains(letter);
            ensure!(
                !column.is_empty() && column.chars().all(plain),
                "column {column:?} of {}: expected ASCII letters, digits, _, -, . and /",
                path.display()
            );
        }
        let found = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        let (columns, kept) = keep(&found, columns, from_step)
            .with_context(|| format!("{} is not the table of a run: move it away", path.display()))?;
        if kept != found {
            // Under another name first: whoever looks sees the old table or the new one.
            let partial = path.with_extension("csv.partial");
            fs::write(&partial, kept).with_context(|| format!("{} cannot be written", partial.display()))?;
            fs::rename(&partial, path).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        let file = OpenOptions::new().append(true).open(path);
        let file = file.with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self { path: path.to_owned(), file, columns })
    }

    /// Adds the line of a step, and hands it to the system at once; columns without a value stay empty.
    ///
    /// # Errors
    /// When a column is not one of the table's, or the file cannot be written.
    pub(crate) fn append(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut cells = vec![String::new(); self.columns.len()];
        for (column, value) in values {
            let Some(index) = self.columns.iter().position(|known| known == column) else {
                bail!("{} has no column {column:?}; its columns: {}", self.path.display(), self.columns.join(", "));
            };
            // The shortest digits that read back as the same number.
            cells[index] = format!("{value:?}");
        }
        let line = std::iter::once(step.to_string()).chain(cells).collect::<Vec<_>>().join(",") + "\n";
        self.file.write_all(line.as_bytes()).with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

/// The columns after the step, and what stays of a table's text: a header and the whole lines of the steps up to `from_step`.
fn keep(text: &str, asked: &[String], from_step: u64) -> Result<(Vec<String>, String)> {
    // After the last line break there is nothing, or a line that was being written when the process died.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut lines = whole.lines().enumerate();
    let old: Vec<&str> = lines.next().map_or_else(|| vec![STEP], |(_, header)| header.split(',').collect());
    ensure!(old[0] == STEP, "found a first column {:?}, expected {STEP:?}", old[0]);
    // Nothing stays of a run that starts again, its columns neither.
    let staying = if from_step == 0 { &[] } else { &old[1..] };
    let mut columns: Vec<String> = staying.iter().map(ToString::to_string).collect();
    columns.extend(asked.iter().filter(|column| !staying.contains(&column.as_str())).cloned());
    let header = std::iter::once(STEP).chain(columns.iter().map(String::as_str)).collect::<Vec<_>>().join(",");
    let mut kept = format!("{header}\n");
    for (index, line) in lines {
        let cells = line.split(',').count();
        ensure!(cells == old.len(), "line {}: found {cells} cells, expected {}", index + 1, old.len());
        let step: u64 =
            line.split(',').next().unwrap_or_default().parse().with_context(|| format!("line {}", index + 1))?;
        if step <= from_step && from_step > 0 {
            kept.push_str(line);
            kept.push_str(&",".repeat(columns.len() + 1 - cells));
            kept.push('\n');
        }
    }
    Ok((columns, kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn columns(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).expect("a table")
    }

    #[test]
    fn a_line_has_a_cell_for_each_column_and_empty_ones_where_there_is_no_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.csv");
        let mut table = MetricsTable::open(&path, &columns(&["loss", "validation_psnr"]), 0).expect("begun");
        table.append(10, &[("loss", 0.0)]).expect("a line");
        table.append(20, &[("validation_psnr", 21.25), ("loss", 1e-9)]).expect("a line");
        table.append(30, &[("loss", f64::NAN)]).expect("a line");
        assert_eq!(read(&path), "step,loss,validation_psnr\n10,0.0,\n20,1e-9,21.25\n30,NaN,\n");
        let error = table.append(40, &[("rate", 1.0)]).expect_err("no such column");
        assert!(error.to_string().contains("\"rate\""), "{error}");
    }

    #[test]
    fn a_resumed_run_goes_on_where_it_was_saved() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.csv");
        let names = columns(&["loss"]);
        let mut table = MetricsTable::open(&path, &names, 0).expect("begun");
        for step in [10, 20, 30] {
            table.append(step, &[("loss", step as f64)]).expect("a line");
        }
        drop(table);
        // Killed while it wrote a line.
        fs::write(&path, read(&path) + "40,4").expect("written");
        let mut table = MetricsTable::open(&path, &names, 20).expect("opened");
        assert_eq!(read(&path), "step,loss\n10,10.0\n20,20.0\n");
        table.append(30, &[("loss", 3.5)]).expect("a line");
        drop(table);
        // Nothing to drop but the torn line, though its step would be kept.
        fs::write(&path, read(&path) + "4").expect("written");
        drop(MetricsTable::open(&path, &names, 30).expect("opened"));
        assert_eq!(read(&path), "step,loss\n10,10.0\n20,20.0\n30,3.5\n");
        drop(MetricsTable::open(&path, &names, 0).expect("begun anew"));
        assert_eq!(read(&path), "step,loss\n");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_torn_header_is_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.csv");
        fs::write(&path, "step,lo").expect("written");
        drop(MetricsTable::open(&path, &columns(&["loss"]), 0).expect("begun"));
        assert_eq!(read(&path), "step,loss\n");
    }

    #[test]
    fn a_run_that_goes_on_with_other_terms_adds_columns_and_keeps_those_it_had() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.csv");
        let mut table = MetricsTable::open(&path, &columns(&["loss", "psnr"]), 0).expect("begun");
        table.append(10, &[("loss", 1.5), ("psnr", 20.0)]).expect("a line");
        let mut table = MetricsTable::open(&path, &columns(&["rate", "loss"]), 10).expect("opened");
        table.append(20, &[("rate", 0.5), ("loss", 1.0)]).expect("a line");
        assert_eq!(read(&path), "step,loss,psnr,rate\n10,1.5,20.0,\n20,1.0,,0.5\n");
    }

    #[test]
    fn another_table_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.csv");
        let names = columns(&["loss"]);
        for other in ["when,loss\n1,2.0\n", "step,loss\n1\n", "step,loss\none,2.0\n"] {
            fs::write(&path, other).expect("written");
            let error = format!("{:#}", MetricsTable::open(&path, &names, 0).expect_err("another table"));
            assert!(error.contains("metrics.csv") && error.contains("move it away"), "{error}");
            assert_eq!(read(&path), other);
        }
        assert!(MetricsTable::open(&path, &columns(&["a,b"]), 0).is_err(), "a comma would divide the cell");
    }

    proptest! {
        #[test]
        fn numbers_read_back_as_they_were(values in prop::collection::vec(any::<f64>(), 1..8)) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("metrics.csv");
            let mut table = MetricsTable::open(&path, &columns(&["loss"]), 0).expect("begun");
            for (step, &value) in (1..).zip(&values) {
                table.append(step, &[("loss", value)]).expect("a line");
            }
            let text = read(&path);
            let found: Vec<f64> = text.lines().skip(1)
                .map(|line| line.split(',').nth(1).expect("a cell").parse().expect("a number"))
                .collect();
            prop_assert_eq!(found.len(), values.len());
            for (found, value) in found.iter().zip(&values) {
                prop_assert!(found.to_bits() == value.to_bits() || found.is_nan() && value.is_nan());
            }
        }
    }
}
