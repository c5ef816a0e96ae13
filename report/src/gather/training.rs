//! The folder of a training: its state, settings, numbers and sheets. It may be of a run under way: everything there is whole or
//! absent, but for the last line of the numbers.

use super::pictures;
use crate::{
    Album,
    album::{LeftOut, Picture},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// Names of the folders in which finished weights lie.
const PUBLISHED: [&str; 2] = ["tokenizer", "generator"];
/// Longest side of the newest sheet, and of those in the strip.
const NEWEST_LONGEST: u32 = 1_600;
const STRIP_LONGEST: u32 = 560;
/// Sheets in the strip.
const STRIP: usize = 8;

/// Everything that the page says of a training.
#[derive(Debug)]
pub(crate) struct TrainingRun {
    /// `tokenizer` or `generator`; empty where nothing tells.
    pub(crate) published: &'static str,
    /// Whether the finished weights are there.
    pub(crate) finished: bool,
    /// Updates made, as far as they are saved.
    pub(crate) steps: u64,
    /// Updates to make, where the recipe says it.
    pub(crate) steps_planned: Option<u64>,
    /// Steps of the checkpoints that are there, ascending.
    pub(crate) checkpoints: Vec<u64>,
    /// The best weights so far.
    pub(crate) best: Option<Best>,
    /// What it ran on last.
    pub(crate) machine: String,
    /// All its settings.
    pub(crate) settings: Value,
    /// What was changed on the way: after which step, and a line each.
    pub(crate) changes: Vec<(u64, Vec<String>)>,
    /// What the finished weights score.
    pub(crate) scores: Value,
    /// Numbers by step.
    pub(crate) metrics: Metrics,
    /// Pictures on the way.
    pub(crate) sheets: Sheets,
}

/// The best weights of a run.
#[derive(Debug)]
pub(crate) struct Best {
    /// Updates that had been made.
    pub(crate) step: u64,
    /// Their validation score.
    pub(crate) score: f64,
}

/// The numbers of a run: a line for each column of `metrics.csv`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Metrics {
    /// Column and its numbers by step; steps without one are absent.
    pub(crate) columns: Vec<(String, Vec<(f64, f64)>)>,
}

/// The sheets of a run.
#[derive(Debug, Default)]
pub(crate) struct Sheets {
    /// The newest.
    pub(crate) newest: Option<(u64, Picture)>,
    /// Some of all, oldest first.
    pub(crate) strip: Vec<(u64, Picture)>,
    /// Sheets that were to be shown and are not.
    pub(crate) left_out: LeftOut,
}

impl TrainingRun {
    /// Whether a folder is that of a training.
    pub(crate) fn is_there(folder: &Path) -> bool {
        folder.join("metrics.csv").is_file() || folder.join("checkpoints").is_dir()
    }

    /// Reads it.
    ///
    /// # Errors
    /// When a file of it is damaged; the error names it.
    pub(crate) fn read(folder: &Path, album: &mut Album) -> Result<Self> {
        let about = PUBLISHED
            .into_iter()
            .find_map(|name| Some((name, json(&folder.join(name).join("training.json")).transpose()?)));
        let about = about.map(|(name, about)| about.map(|about| (name, about))).transpose()?;
        let checkpoints = numbered(&folder.join("checkpoints"), "")?;
        let newest =
            checkpoints.last().map(|(_, checkpoint)| json(&checkpoint.join("state.json"))).transpose()?.flatten();
        let state = newest.unwrap_or_default();
        let settings = about.as_ref().map_or(&state["settings"], |(_, about)| &about["settings"]).clone();
        let published = match &about {
            Some((name, _)) => name,
            // The networks that a recipe trains stand in its settings under this name.
            None => PUBLISHED.into_iter().rev().find(|name| settings[name].is_object()).unwrap_or_default(),
        };
        let steps =
            about.as_ref().map_or(&state["steps_done"], |(_, about)| &about["steps"]).as_u64().unwrap_or_default();
        let best = &state["best"];
        let metrics = match fs::read_to_string(folder.join("metrics.csv")) {
            Ok(text) => Metrics::parse(&text).with_context(|| folder.join("metrics.csv").display().to_string())?,
            Err(error) if error.kind() == ErrorKind::NotFound => Metrics::default(),
            Err(error) => return Err(error).with_context(|| folder.join("metrics.csv").display().to_string()),
        };
        Ok(Self {
            published,
            finished: about.is_some(),
            steps,
            steps_planned: settings["recipe"]["learning_rate"]["steps"].as_u64(),
            checkpoints: checkpoints.into_iter().map(|(step, _)| step).collect(),
            best: best["step"].as_u64().zip(best["score"].as_f64()).map(|(step, score)| Best { step, score }),
            machine: state["machine"].as_str().unwrap_or_default().to_owned(),
            changes: changes(about.as_ref().map_or(&state["changes"], |(_, about)| &about["changes"])),
            scores: about.map(|(_, mut about)| about["scores"].take()).unwrap_or_default(),
            settings,
            metrics,
            sheets: Sheets::read(&folder.join("sheets"), album)?,
        })
    }
}

impl Metrics {
    /// Reads the table; a last line that is being written is passed over.
    fn parse(text: &str) -> Result<Self> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = whole.lines().enumerate();
        let Some((_, header)) = lines.next() else { return Ok(Self::default()) };
        let names: Vec<&str> = header.split(',').collect();
        ensure!(names[0] == "step", "found a first column {:?}, expected \"step\"", names[0]);
        let mut columns: Vec<(String, Vec<(f64, f64)>)> =
            names[1..].iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
        for (number, line) in lines {
            let cells: Vec<&str> = line.split(',').collect();
            ensure!(
                cells.len() == names.len(),
                "line {}: found {} cells, expected {}",
                number + 1,
                cells.len(),
                names.len()
            );
            let value =
                |cell: &str| cell.parse::<f64>().with_context(|| format!("line {}: {cell:?} is no number", number + 1));
            let step = value(cells[0])?;
            for (column, cell) in columns.iter_mut().zip(&cells[1..]).filter(|(_, cell)| !cell.is_empty()) {
                column.1.push((step, value(cell)?));
            }
        }
        Ok(Self { columns })
    }
}

impl Sheets {
    fn read(folder: &Path, album: &mut Album) -> Result<Self> {
        let all = numbered(folder, ".png")?;
        let mut sheets = Self::default();
        let Some((step, path)) = all.last() else { return Ok(sheets) };
        let newest = pictures::file(path, NEWEST_LONGEST, format!("sheet of step {step}"), album)?;
        sheets.newest = sheets.left_out.taken(newest).map(|picture| (*step, picture));
        // Evenly spread, the first and the last among them.
        let shown = all.len().min(STRIP);
        let places = (0..shown).map(|place| place * (all.len() - 1) / (shown - 1).max(1));
        for (step, path) in places.map(|place| &all[place]).filter(|_| all.len() > 1) {
            let added = pictures::file(path, STRIP_LONGEST, format!("sheet of step {step}"), album)?;
            sheets.strip.extend(sheets.left_out.taken(added).map(|picture| (*step, picture)));
        }
        Ok(sheets)
    }
}

/// What `step-…` of a folder, by step.
fn numbered(folder: &Path, ending: &str) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let step = name.and_then(|name| name.strip_prefix("step-")?.strip_suffix(ending)?.parse().ok());
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}

/// A document; `None` where there is none.
fn json(path: &Path) -> Result<Option<Value>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| path.display().to_string())?,
    };
    serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is no document of a training", path.display()))
}

fn changes(value: &Value) -> Vec<(u64, Vec<String>)> {
    let lines = |change: &Value| -> Vec<String> {
        change["settings"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|line| Some(line.as_str()?.trim().to_owned()))
            .collect()
    };
    value
        .as_array()
        .into_iter()
        .flatten()
        .map(|change| (change["after_step"].as_u64().unwrap_or_default(), lines(change)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_by_column_and_a_torn_line_is_passed_over() {
        let metrics = Metrics::parse("step,loss,validation_loss\n10,1.5,\n20,NaN,2.0\n30,0.").expect("a table");
        assert_eq!(metrics.columns[0].1[0], (10.0, 1.5));
        assert!(metrics.columns[0].1.len() == 2 && metrics.columns[0].1[1].1.is_nan());
        assert_eq!(metrics.columns[1], ("validation_loss".to_owned(), vec![(20.0, 2.0)]));
        assert_eq!(Metrics::parse("").expect("nothing yet"), Metrics::default());
        for (wrong, hint) in [("a,b\n1,2\n", "\"step\""), ("step,a\n1\n", "line 2"), ("step,a\n1,x\n", "\"x\"")] {
            let error = Metrics::parse(wrong).expect_err("no such table").to_string();
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn a_damaged_state_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoint = folder.path().join("checkpoints/step-00000010");
        fs::create_dir_all(&checkpoint).expect("a folder");
        fs::write(checkpoint.join("state.json"), "{\"steps_done\": 10, \"settings\": {\"generator\": {}}}")
            .expect("written");
        assert!(TrainingRun::is_there(folder.path()));
        let run = TrainingRun::read(folder.path(), &mut Album::default()).expect("a run");
        assert_eq!((run.steps, run.published, run.finished, run.checkpoints), (10, "generator", false, vec![10]));
        fs::write(checkpoint.join("state.json"), "{").expect("written");
        let error = TrainingRun::read(folder.path(), &mut Album::default()).expect_err("damaged").to_string();
        assert!(error.contains("step-00000010/state.json"), "{error}");
    }
}
