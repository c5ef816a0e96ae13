use crate::workspace;
use std::{collections::BTreeMap, fs, path::Path};
use tests::{
    digest, inception, older,
    training::metrics,
    workspace::{Workspace, run},
};

/// A workspace with copies of these outputs.
fn with_older(names: &[&str]) -> Workspace {
    let workspace = workspace();
    for name in names {
        for (path, bytes) in digest::read_tree(&older::written(name)) {
            let file = workspace.path(name).join(path);
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(file, bytes).expect("written");
        }
    }
    workspace
}

/// Whether this processor makes the file anew.
fn is_of_last_unit(path: &str) -> bool {
    match path.strip_prefix("pictures/png/") {
        Some(picture) => picture >= "000008",
        None => path.contains("00002"),
    }
}

/// Takes away what only a finished output has, and its last unit.
fn unfinish(workspace: &Workspace, output: &str) -> BTreeMap<String, Vec<u8>> {
    let files = workspace.files(output);
    let of_all = ["_SUCCESS", "_manifest.json", "pictures/samples.npz"];
    for path in files.keys().filter(|path| is_of_last_unit(path) || of_all.contains(&path.as_str())) {
        fs::remove_file(workspace.path(output).join(path)).expect("removed");
    }
    files
}

/// The output is whole again. Files of the units that were there, and the plan, are untouched; the last unit's are the same where this
/// processor computes as the one did that wrote them.
fn assert_finished(workspace: &Workspace, output: &str, before: &BTreeMap<String, Vec<u8>>) {
    run(&mut workspace.restok(["verify", output])).expect_code(0);
    let now = workspace.files(output);
    for (path, bytes) in before.iter().filter(|(path, _)| !path.starts_with("_log/")) {
        let found = now.get(path).unwrap_or_else(|| panic!("{path} is gone"));
        let of_this = is_of_last_unit(path) || path.ends_with(".npz") || path == "_manifest.json";
        assert!(of_this || found == bytes, "{path} has changed");
    }
}

#[test]
fn tokens_that_an_older_version_left_half_done_are_finished() {
    let (workspace, server) = (with_older(&["tokens"]), older::bucket());
    let before = unfinish(&workspace, "tokens");
    run(&mut older::tokenize(&workspace, &server)).expect_code(0);
    assert_finished(&workspace, "tokens", &before);
    run(&mut workspace.restok(["inspect", "tokens"])).expect_code(0);
}

#[test]
fn a_set_that_an_older_version_left_half_done_is_finished() {
    let workspace = with_older(&["generated"]);
    let before = unfinish(&workspace, "generated");
    run(&mut older::generate(&workspace)).expect_code(0);
    assert_finished(&workspace, "generated", &before);
    run(&mut workspace.restok(["inspect", "generated"])).expect_code(0);
}

#[test]
fn scores_of_an_older_version_stay_in_the_table() {
    let workspace = with_older(&["generated", "evaluation"]);
    let table = |workspace: &Workspace| {
        let text = fs::read_to_string(workspace.path("evaluation/scores.csv")).expect("a table");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = table(&workspace);
    run(&mut older::evaluate(&workspace, &inception::shared(Path::new(env!("CARGO_TARGET_TMPDIR"))))).expect_code(0);
    let after = table(&workspace);
    assert_eq!((before.len(), after.len()), (2, 3), "{after:?}");
    // Columns that came since stand behind the older ones.
    let stays = |line: &String| after.iter().any(|now| now.starts_with(line.as_str()));
    assert!(before.iter().all(stays), "{before:?} {after:?}");
}

#[test]
fn a_generators_training_of_an_older_version_goes_on() {
    let workspace = with_older(&["tokens", "generator-run"]);
    run(&mut older::train_generator(&workspace, 8)).expect_code(0);
    assert_eq!(metrics(&workspace.path("generator-run")).len(), 9, "a line of names and eight steps");
    assert!(workspace.path("generator-run/generator/model.safetensors").exists());
}

#[test]
fn a_tokenizers_training_of_an_older_version_goes_on() {
    let (workspace, server) = (with_older(&["tokenizer-run"]), older::bucket());
    run(&mut older::train_tokenizer(&workspace, &server, 8)).expect_code(0);
    assert_eq!(metrics(&workspace.path("tokenizer-run")).len(), 9, "a line of names and eight steps");
    assert!(workspace.path("tokenizer-run/tokenizer/model.safetensors").exists());
}

#[test]
fn a_page_is_made_of_all_that_an_older_version_wrote() {
    let workspace = with_older(&older::OUTPUTS);
    let mut command = workspace.restok(["report", "--to", "page.html"]);
    run(command.args(older::OUTPUTS)).expect_code(0);
    let page = fs::read_to_string(workspace.path("page.html")).expect("a page");
    for name in older::OUTPUTS {
        assert!(page.contains(name), "{name} is not on the page");
    }
}
