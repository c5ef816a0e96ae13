//! What a training leaves behind, reduced to what must be equal between two runs of the same command.

use crate::workspace::{Hold, Workspace};
use std::{collections::BTreeMap, path::Path};

/// Every file of the newest checkpoint, of the best and of the finished weights, which lie in `published`, and the numbers of every
/// logged step.
pub fn result(
    workspace: &Workspace,
    output: &str,
    published: &str,
    steps: u64,
) -> (BTreeMap<String, Vec<u8>>, Vec<String>) {
    let files = workspace.files(output).into_iter().filter(|(name, _)| {
        let last = format!("checkpoints/step-{steps:08}/");
        name.starts_with(&last) || name.starts_with(&format!("{published}/")) || name.starts_with("best/")
    });
    // Speed and waiting are the clock's, and broken images are counted from every start anew.
    let lines = metrics(&workspace.path(output));
    let of_the_start = ["images_per_second", "data_wait_share", "images_rejected"];
    let kept: Vec<bool> = lines[0].iter().map(|column| !of_the_start.contains(&column.as_str())).collect();
    let losses = lines.iter().map(|line| {
        let cells: Vec<_> = line.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(cell, _)| cell.as_str()).collect();
        cells.join(",")
    });
    (files.collect(), losses.collect())
}

/// Says which file or line differs; the files themselves nobody wants to see.
#[track_caller]
pub fn assert_equal(
    found: &(BTreeMap<String, Vec<u8>>, Vec<String>),
    expected: &(BTreeMap<String, Vec<u8>>, Vec<String>),
) {
    assert_eq!(found.0.keys().collect::<Vec<_>>(), expected.0.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected.0 {
        assert!(&found.0[name] == bytes, "{name} differs");
    }
    assert_eq!(found.1, expected.1, "metrics.csv");
}

/// Lines of the metrics, the names of the columns first.
pub fn metrics(output: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(output.join("metrics.csv")).expect("a table");
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// Makes the run in `output` stand still where it draws the sheet of `step`, after that step was logged and before it is saved: a pipe
/// is where the sheet is written before it is renamed.
pub fn held_at_sheet(workspace: &Workspace, output: &str, step: u64) -> Hold {
    Hold::at(workspace.path(output).join(format!("sheets/step-{step:08}.png.partial")))
}

/// Steps that a run under way has logged.
pub fn steps_logged(workspace: &Workspace, output: &str) -> usize {
    let table = workspace.path(output).join("metrics.csv");
    std::fs::read_to_string(table).map_or(0, |text| text.lines().count().saturating_sub(1))
}
