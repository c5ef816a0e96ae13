use crate::workspace;
use schemas::NPZ_PATH;
use std::{collections::BTreeMap, path::Path, process::Command};
use tests::{
    digest,
    kills::kill_again_and_again,
    random::Random,
    workspace::{Workspace, run, shipped, start, text, with_shipped_models},
};

/// `restok generate` of `count` samples with the models that ship, in small units.
fn generate(workspace: &Workspace, output: &str, count: usize) -> Command {
    let count = count.to_string();
    let mut command = workspace.restok(["generate", "--output", output, "--count", &count]);
    with_shipped_models(&mut command);
    // As a variable, so that a test can say it otherwise.
    command.env("RESTOK_DEVICES", "cpu");
    command.args(["--device-threads=1", "--batch-size=4", "--unit-size=4", "--guidance-scale=2"]);
    command
}

/// Everything below an output but the markers and the logs of the runs, which hold a clock.
fn contents(workspace: &Workspace, output: &str) -> BTreeMap<String, String> {
    let files = workspace.files(output).into_iter();
    let of_a_run = ["_state/", "_staging/", "_log/"];
    let lasting = files.filter(|(path, _)| !of_a_run.iter().any(|folder| path.starts_with(folder)));
    lasting.map(|(path, bytes)| (path, schemas::sha256_hex(&bytes))).collect()
}

#[test]
fn killed_twenty_times_the_set_is_that_of_an_undisturbed_run() {
    let workspace = workspace();
    let generate = |output: &str| {
        let mut command = generate(&workspace, output, 400);
        command.args(["--pictures=npz,webdataset", "--units-in-flight=2"]);
        command
    };
    run(&mut generate("undisturbed")).expect_code(0);
    let expected = contents(&workspace, "undisturbed");
    assert!(expected.contains_key(NPZ_PATH));
    assert_eq!(digest::finished_units(&workspace.files("undisturbed")), 100);
    kill_again_and_again(&workspace, || generate("out"), ("undisturbed", "out"), 12, Random::new(21));

    run(&mut generate("out")).expect_code(0);
    assert_eq!(contents(&workspace, "out"), expected);
    run(&mut workspace.restok(["verify", "out"])).expect_code(0);
}

#[test]
fn two_processes_share_a_set_and_their_number_changes_nothing() {
    let workspace = workspace();
    run(&mut generate(&workspace, "alone", 40)).expect_code(0);
    let ranks =
        ["0", "1"].map(|rank| start(generate(&workspace, "shared", 40).args(["--rank", rank, "--world-size=2"])));
    for running in ranks {
        running.finish().expect_code(0);
    }
    assert_eq!(contents(&workspace, "shared"), contents(&workspace, "alone"));
    let more_workers = &mut generate(&workspace, "workers", 40);
    // The second worker has a thread of its own, like the first.
    run(more_workers.arg("--devices=cpu*2")).expect_code(0);
    assert_eq!(contents(&workspace, "workers"), contents(&workspace, "alone"));
}

#[test]
fn tokens_first_and_pictures_later_are_the_pictures_at_once() {
    let workspace = workspace();
    run(generate(&workspace, "at-once", 10).arg("--pictures=png")).expect_code(0);
    run(generate(&workspace, "tokens", 10).arg("--pictures=none")).expect_code(0);
    let tokenizer = text(&shipped("fashion-mnist/tokenizer"));
    let mut decode = workspace.restok(["generate", "--decode-only", "--tokens=tokens", "--output=pictures"]);
    decode.args(["--tokenizer", &tokenizer, "--pictures=png", "--devices=cpu", "--device-threads=1"]);
    run(decode.args(["--batch-size=4"])).expect_code(0);
    let pictures = |output: &str| -> BTreeMap<String, String> {
        contents(&workspace, output).into_iter().filter(|(path, _)| path.starts_with("pictures/png/")).collect()
    };
    assert_eq!(pictures("at-once").len(), 10);
    assert_eq!(pictures("pictures"), pictures("at-once"));
    assert!(pictures("tokens").is_empty());
    run(&mut workspace.restok(["verify", "pictures"])).expect_code(0);
}

#[test]
fn sheets_are_drawn_by_class_and_step_by_step_and_no_output_is_made() {
    let workspace = workspace();
    let mut command = workspace.restok(["generate", "--grid=grid.png", "--reveal=reveal.png", "--grid-columns=3"]);
    with_shipped_models(&mut command);
    let finished = run(command.args(["--classes=1,7", "--devices=cpu", "--device-threads=1"])).expect_code(0);
    assert!(finished.stdout.contains("grid.png") && finished.stdout.contains("reveal.png"), "{}", finished.stdout);
    assert!(finished.stdout.contains("2 classes") && finished.stdout.contains("7 steps"), "{}", finished.stdout);
    let size = |name: &str| {
        let picture = image::open(workspace.path(name)).expect(name);
        (picture.width(), picture.height())
    };
    let (grid, reveal) = (size("grid.png"), size("reveal.png"));
    // Seven steps of 32 tokens beside each other, against three samples.
    assert!(reveal.0 > grid.0 && reveal.1 == grid.1, "{grid:?} {reveal:?}");
}

#[test]
fn what_does_not_fit_is_refused_by_name_before_anything_is_written() {
    let workspace = workspace();
    let other_codes = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/generator");
    let mut command = generate(&workspace, "out", 4);
    command.env("RESTOK_GENERATOR", text(&other_codes));
    run(&mut command).expect_code(42).expect_message(&["--generator", "512 codes", "1024 codes"]);
    let mut command = generate(&workspace, "out", 4);
    run(command.arg("--classes=3,10")).expect_code(42).expect_message(&["--classes", "10", "0 to 9"]);
    let mut command = generate(&workspace, "out", 4);
    run(command.arg("--recipe=paper")).expect_code(42).expect_message(&["--count", "--recipe paper"]);
    assert!(!workspace.path("out").exists());

    run(&mut generate(&workspace, "out", 4)).expect_code(0);
    let mut command = generate(&workspace, "out", 4);
    run(command.arg("--seed=8")).expect_code(42).expect_message(&["sampling", "\"seed\":0", "\"seed\":8"]);
}

#[test]
fn a_sweep_makes_a_set_a_point_and_goes_on_where_it_was_stopped() {
    let workspace = workspace();
    let sweep = || {
        let mut command =
            workspace.restok(["sweep", "--output=sweep", "--guidance-scale=1,2", "--top-p=0.9,1", "--count=8"]);
        with_shipped_models(&mut command);
        command.args(["--pictures=none", "--devices=cpu", "--device-threads=1", "--batch-size=8", "--format=json"]);
        let finished = run(&mut command).expect_code(0);
        serde_json::from_str::<Vec<serde_json::Value>>(&finished.stdout).expect("a list of points")
    };
    let points = sweep();
    assert_eq!(points.len(), 4);
    assert!(points.iter().all(|point| point["samples"] == 8 && point["there_before"] == false), "{points:?}");
    let first = points[0]["output"].as_str().expect("an address");
    assert_eq!(first, "sweep/guidance-1-step-top-p-0.9-temperature-1");
    assert!(digest::is_finished(&workspace.files(first)));
    let again = sweep();
    assert!(again.iter().all(|point| point["there_before"] == true));
    assert_eq!(again[3]["entropy_bits"], points[3]["entropy_bits"]);
}
