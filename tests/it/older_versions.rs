use crate::workspace;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tests::{
    digest, inception,
    s3_server::S3Server,
    training::metrics,
    workspace::{Workspace, run, text},
};

/// What the version of 2026-11-27 wrote, by [`write_with_an_older_program`].
fn older(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/older").join(name)
}

/// A folder that ships with the repository.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples").join(name)
}

/// A store with the images of the sample: its addresses and version tags are the same everywhere.
fn bucket() -> S3Server {
    let server = S3Server::start();
    server.put_folder("bucket/images", &shipped("folder"));
    server
}

/// `restok` with these arguments, on one thread of the processor.
fn on_one_thread(workspace: &Workspace, arguments: &str) -> Command {
    let mut command = workspace.restok(arguments.split_whitespace());
    command.arg("--device-threads=1");
    command
}

fn tokenize(workspace: &Workspace, server: &S3Server) -> Command {
    let mut command = on_one_thread(
        workspace,
        "tokenize --source s3://bucket/images/ --output tokens --crop adm-center-32-flip --unit-size 12 --max-reject-rate 0.5 --devices cpu",
    );
    command.args(["--tokenizer", &text(&shipped("fashion-mnist/tokenizer"))]).envs(server.environment());
    command
}

fn generate(workspace: &Workspace) -> Command {
    let mut command = on_one_thread(
        workspace,
        "generate --output generated --count 12 --unit-size 4 --batch-size 4 --guidance 2 --pictures npz,png --devices cpu",
    );
    command.args(["--generator", &text(&shipped("fashion-mnist/generator"))]);
    command.args(["--tokenizer", &text(&shipped("fashion-mnist/tokenizer"))]);
    command
}

fn evaluate(workspace: &Workspace) -> Command {
    let mut command = on_one_thread(
        workspace,
        "evaluate --source generated --output evaluation --batch-size 4 --unit-size 12 --allow count,resize,order,reference --devices cpu",
    );
    command.args(["--inception", &text(&inception::shared(Path::new(env!("CARGO_TARGET_TMPDIR"))))]);
    command
}

/// Up to `steps` of eight.
fn train_generator(workspace: &Workspace, steps: u64) -> Command {
    let mut command = on_one_thread(
        workspace,
        "train-generator --source tokens --validation-source tokens --output generator-run --preset tiny --device cpu --batch-size 4 \
         --accumulation 2 --warmup-steps 2 --steps 8 --save-every 2 --log-every 1 --validate-every 50 --validation-images 8 \
         --sheet-every 50 --keep-checkpoints 1",
    );
    command.args(["--generator-config", &text(&older("generator.json"))]).arg(format!("--stop-after={steps}"));
    command.args(["--tokenizer", &text(&shipped("fashion-mnist/tokenizer"))]);
    command
}

/// Up to `steps` of eight.
fn train_tokenizer(workspace: &Workspace, server: &S3Server, steps: u64) -> Command {
    let mut command = on_one_thread(
        workspace,
        "train-tokenizer --source s3://bucket/images/ --output tokenizer-run --preset tiny --device cpu --batch-size 4 \
         --warmup-steps 2 --steps 8 --save-every 2 --log-every 1 --validate-every 50 --sheet-every 50 --max-reject-rate 0.5 \
         --keep-checkpoints 1",
    );
    command.args(["--tokenizer-config", &text(&older("tokenizer.json"))]).arg(format!("--stop-after={steps}"));
    command.envs(server.environment());
    command
}

/// A workspace with copies of these outputs.
fn with_older(names: &[&str]) -> Workspace {
    let workspace = workspace();
    for name in names {
        for (path, bytes) in digest::read_tree(&older(name)) {
            let file = workspace.path(name).join(path);
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(file, bytes).expect("written");
        }
    }
    workspace
}

/// Takes away what only a finished output has, and its last unit.
fn unfinish(workspace: &Workspace, output: &str) -> BTreeMap<String, Vec<u8>> {
    let files = workspace.files(output);
    // Pictures of the last unit, and the archive of all, are those of this processor.
    let last = |path: &str| match path.strip_prefix("pictures/png/") {
        Some(picture) => picture >= "000008",
        None => path.contains("00002"),
    };
    let of_all = ["_SUCCESS", "_manifest.json", "pictures/samples.npz"];
    for path in files.keys().filter(|path| last(path) || of_all.contains(&path.as_str())) {
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
        let of_this = path.contains("00002")
            || path.starts_with("pictures/png/")
            || path.ends_with(".npz")
            || path == "_manifest.json";
        assert!(of_this || found == bytes, "{path} has changed");
    }
}

#[test]
fn tokens_that_an_older_version_left_half_done_are_finished() {
    let (workspace, server) = (with_older(&["tokens"]), bucket());
    let before = unfinish(&workspace, "tokens");
    run(&mut tokenize(&workspace, &server)).expect_code(0);
    assert_finished(&workspace, "tokens", &before);
    run(&mut workspace.restok(["inspect", "tokens"])).expect_code(0);
}

#[test]
fn a_set_that_an_older_version_left_half_done_is_finished() {
    let workspace = with_older(&["generated"]);
    let before = unfinish(&workspace, "generated");
    run(&mut generate(&workspace)).expect_code(0);
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
    run(&mut evaluate(&workspace)).expect_code(0);
    let after = table(&workspace);
    assert_eq!((before.len(), after.len()), (2, 3), "{after:?}");
    assert!(before.iter().all(|line| after.contains(line)), "{before:?} {after:?}");
}

#[test]
fn a_generators_training_of_an_older_version_goes_on() {
    let workspace = with_older(&["tokens", "generator-run"]);
    run(&mut train_generator(&workspace, 8)).expect_code(0);
    assert_eq!(metrics(&workspace.path("generator-run")).len(), 9, "a line of names and eight steps");
    assert!(workspace.path("generator-run/generator/model.safetensors").exists());
}

#[test]
fn a_tokenizers_training_of_an_older_version_goes_on() {
    let (workspace, server) = (with_older(&["tokenizer-run"]), bucket());
    run(&mut train_tokenizer(&workspace, &server, 8)).expect_code(0);
    assert_eq!(metrics(&workspace.path("tokenizer-run")).len(), 9, "a line of names and eight steps");
    assert!(workspace.path("tokenizer-run/tokenizer/model.safetensors").exists());
}

#[test]
fn a_page_is_made_of_all_that_an_older_version_wrote() {
    let all = ["tokens", "generated", "evaluation", "generator-run", "tokenizer-run"];
    let workspace = with_older(&all);
    let mut command = workspace.restok(["report", "--to", "page.html"]);
    run(command.args(all)).expect_code(0);
    let page = fs::read_to_string(workspace.path("page.html")).expect("a page");
    for name in all {
        assert!(page.contains(name), "{name} is not on the page");
    }
}

#[test]
#[ignore = "writes fixtures/older anew, with the program that RESTOK_OLDER names"]
#[expect(clippy::disallowed_methods, reason = "a setting of this test, not of the program")]
fn write_with_an_older_program() {
    let (server, program) = (bucket(), std::env::var("RESTOK_OLDER").expect("the path of an older program"));
    let workspace = Workspace::new(&program);
    run(&mut tokenize(&workspace, &server)).expect_code(0);
    run(&mut generate(&workspace)).expect_code(0);
    run(&mut evaluate(&workspace)).expect_code(0);
    run(&mut train_generator(&workspace, 6)).expect_code(0);
    run(&mut train_tokenizer(&workspace, &server, 6)).expect_code(0);
    for output in ["tokens", "generated", "evaluation", "generator-run", "tokenizer-run"] {
        // Features are large, and nobody reads those of another set.
        for (path, bytes) in workspace.files(output).into_iter().filter(|(path, _)| !path.starts_with("features/")) {
            let file = older(output).join(path);
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(file, bytes).expect("written");
        }
    }
}
