use crate::workspace;
use std::{collections::BTreeMap, process::Command};
use tests::{
    random::Random,
    training::{assert_equal, held_at_sheet, metrics, result, steps_logged},
    workspace::{Workspace, run, shipped, start, text},
};

pub(super) const STEPS: u64 = 12;

fn tokenizer() -> String {
    text(&shipped("fashion-mnist/tokenizer"))
}

/// Tables of the sample's 36 pictures in six classes: two views an image in small files to train on, and one view to validate on.
pub(super) fn prepared() -> Workspace {
    let workspace = workspace();
    for (output, crop) in [("tokens", "adm-center-32-flip"), ("validation", "adm-center-32")] {
        tokenize(&workspace, output, crop);
    }
    workspace
}

/// Tables of the sample's pictures in `output`, in files of eight.
pub(super) fn tokenize(workspace: &Workspace, output: &str, crop: &str) {
    let (source, tokenizer) = (text(&shipped("folder")), tokenizer());
    let mut command = workspace.restok(["tokenize", "--source", &source, "--tokenizer", &tokenizer]);
    command.args(["--output", output, "--crop", crop, "--unit-size=8", "--max-reject-rate=0.5", "--devices=cpu"]);
    run(&mut command).expect_code(0);
}

/// `restok train-generator` into `output`, with a checkpoint after every second step.
fn train(workspace: &Workspace, output: &str) -> Command {
    train_in_batches(workspace, output, 2)
}

/// The same with so many batches of four images in an update of each process.
pub(super) fn train_in_batches(workspace: &Workspace, output: &str, batches: usize) -> Command {
    let mut command = workspace.restok([
        "train-generator",
        "--preset=tiny",
        "--device=cpu",
        "--device-threads=1",
        "--batch-size=4",
        "--warmup-steps=2",
        "--save-every=2",
        "--log-every=1",
        "--validate-every=6",
        "--validation-images=8",
        "--sheet-every=6",
        "--output",
        output,
    ]);
    command.args([format!("--steps={STEPS}"), format!("--gradient-accumulation={batches}")]);
    // As variables, so that a test can add the flags.
    command.env("RESTOK_SOURCE", "tokens").env("RESTOK_VALIDATION_SOURCE", "validation");
    command.env("RESTOK_TOKENIZER", tokenizer());
    command
}

#[test]
fn a_run_leaves_checkpoints_metrics_sheets_and_a_generator_that_generates() {
    let workspace = prepared();
    let finished = run(&mut train(&workspace, "run")).expect_code(0).expect_message(&[
        "an epoch is one view of each of the 36 images",
        "5 steps of 8 images",
        "12 steps are 2.7 epochs",
    ]);
    assert!(finished.stdout.contains("run/generator"), "{}", finished.stdout);
    let files = workspace.files("run");
    for name in ["generator/config.json", "generator/model.safetensors", "best/model.safetensors", "metrics.csv"] {
        assert!(files.contains_key(name), "{name} is not in {:?}", files.keys());
    }
    let steps = |folder: &str, suffix: &str| -> Vec<String> {
        let inside = files.keys().filter_map(|name| name.strip_prefix(folder)?.strip_suffix(suffix));
        inside.map(str::to_owned).collect()
    };
    assert_eq!(steps("checkpoints/step-", "/state.json"), ["00000008", "00000010", "00000012"], "the last three");
    assert_eq!(steps("sheets/step-", ".png"), ["00000006", "00000012"]);
    assert!(files.keys().any(|name| name.starts_with("tensorboard/") && name.contains("tfevents")));

    let about: serde_json::Value = serde_json::from_slice(&files["generator/training.json"]).expect("JSON");
    assert_eq!(about["steps"], STEPS);
    let settings = &about["settings"];
    assert_eq!((&settings["generator"]["num_classes"], &settings["batch_size"]), (&6.into(), &4.into()));
    assert_eq!(settings["trained_on"]["class_names"][0], "blossom");
    // All images, in levels of 1, 1, 2, 4, 8 and 16 tokens.
    assert_eq!(about["scores"]["images"], 36);
    let tokens = about["scores"]["by_level"].as_array().expect("a list").iter().map(|level| level["tokens"].as_u64());
    assert_eq!(tokens.collect::<Vec<_>>(), [1, 1, 2, 4, 8, 16].map(Some));

    let lines = metrics(&workspace.path("run"));
    assert_eq!(lines.len(), 1 + STEPS as usize);
    let column = |name: &str| lines[0].iter().position(|column| column == name).expect(name);
    let number = |line: usize, name: &str| lines[line][column(name)].parse::<f64>().expect("a number");
    let last = STEPS as usize;
    assert!(number(last, "loss") < number(1, "loss"), "{} {}", number(last, "loss"), number(1, "loss"));
    assert!(number(last, "loss_level_5") > 0.0);
    // Knowing nothing of 1,024 codes is 6.9 nats.
    assert!((5.0..9.0).contains(&number(last, "validation_loss")), "{}", number(last, "validation_loss"));
    assert!((0.0..=1.0).contains(&number(last, "validation_accuracy_level_5")));
    assert!(!lines[0].contains(&"images_rejected".to_owned()), "none is ever passed over: {:?}", lines[0]);
    let validated: Vec<_> = lines[1..].iter().map(|line| !line[column("validation_loss")].is_empty()).collect();
    assert_eq!(validated, (1..=STEPS).map(|step| step % 6 == 0).collect::<Vec<_>>(), "validated at 6 and 12");

    let mut generate = workspace.restok(["generate", "--generator=run/generator", "--grid=sheet.png", "--devices=cpu"]);
    run(generate.args(["--tokenizer", &tokenizer(), "--classes=0,5", "--grid-columns=2"])).expect_code(0);
    assert!(workspace.path("sheet.png").exists());
}

#[test]
fn stopped_drained_and_killed_a_run_ends_with_the_weights_and_losses_of_one_that_was_not() {
    let workspace = prepared();
    run(&mut train(&workspace, "undisturbed")).expect_code(0);
    let expected = result(&workspace, "undisturbed", "generator", STEPS);

    // Stopped between two checkpoints, and again.
    run(train(&workspace, "stopped").arg("--stop-after=3")).expect_code(0);
    assert!(!workspace.path("stopped/generator").exists(), "nothing is published before the end");
    run(train(&workspace, "stopped").arg("--stop-after=7")).expect_code(0);
    run(&mut train(&workspace, "stopped")).expect_code(0);
    assert_equal(&result(&workspace, "stopped", "generator", STEPS), &expected);

    // Drained: the step in hand is finished and kept.
    let held = held_at_sheet(&workspace, "drained", 6);
    let mut running = start(&mut train(&workspace, "drained"));
    let logged = || steps_logged(&workspace, "drained") == 6;
    assert!(running.wait_until("six steps", logged), "it ended too early: {}", running.said());
    running.signal(libc::SIGTERM);
    running.wait_until_said("SIGTERM: finishing this step and writing a checkpoint");
    assert!(held.let_write().starts_with(b"\x89PNG"));
    running.finish().expect_code(143);
    assert!(steps_logged(&workspace, "drained") < STEPS as usize, "it came to its end first");
    run(&mut train(&workspace, "drained")).expect_code(0);
    assert_equal(&result(&workspace, "drained", "generator", STEPS), &expected);

    // Killed at random instants, some of them while a checkpoint is written.
    let held = held_at_sheet(&workspace, "killed", STEPS);
    let mut random = Random::new(7);
    for attempt in 0..6 {
        let mut running = start(&mut train(&workspace, "killed"));
        let more = steps_logged(&workspace, "killed").min(STEPS as usize - 4) + random.below(2) as usize;
        let reached = running.wait_until("more steps", || steps_logged(&workspace, "killed") > more);
        assert!(reached, "attempt {attempt} ended by itself: {}", running.said());
        // No event: any instant will do.
        std::thread::sleep(std::time::Duration::from_micros(random.below(40_000)));
        running.kill();
        assert_eq!(running.finish().status.code(), None, "attempt {attempt} came to its end first");
    }
    held.remove();
    run(&mut train(&workspace, "killed")).expect_code(0);
    assert_equal(&result(&workspace, "killed", "generator", STEPS), &expected);
    let left: Vec<_> = workspace.files("killed").into_keys().filter(|name| name.contains("partial")).collect();
    assert_eq!(left, [""; 0], "what a kill left half written is cleared away");
}

#[test]
fn tokens_that_stream_file_by_file_resume_exactly_too() {
    let workspace = prepared();
    // Less than all of the files, and more than one of them.
    let streaming = |output: &str| {
        let mut command = train(&workspace, output);
        command.arg("--memory-bytes=2500");
        command
    };
    run(&mut streaming("undisturbed")).expect_code(0).expect_message(&["they stream file by file through 2.44 KiB"]);
    let expected = result(&workspace, "undisturbed", "generator", STEPS);
    for steps in [3, 4, 9] {
        run(streaming("stopped").arg(format!("--stop-after={steps}"))).expect_code(0);
    }
    run(&mut train(&workspace, "stopped")).expect_code(42);
    run(&mut streaming("stopped")).expect_code(0);
    assert_equal(&result(&workspace, "stopped", "generator", STEPS), &expected);
}

#[test]
fn a_run_with_other_settings_or_other_tables_is_refused_by_what_differs() {
    let workspace = prepared();
    run(train(&workspace, "run").arg("--stop-after=2")).expect_code(0);
    let checkpoints = || -> BTreeMap<String, Vec<u8>> {
        workspace.files("run").into_iter().filter(|(name, _)| name.starts_with("checkpoints")).collect()
    };
    let before = checkpoints();
    run(train(&workspace, "run").args(["--learning-rate=0.5", "--dropout=0"])).expect_code(42).expect_message(&[
        "recipe.learning_rate.peak",
        "0.5 now",
        "generator.resid_dropout_p",
        "--output",
    ]);
    // The same images and tokenizer, in another crop.
    run(train(&workspace, "run").arg("--source=validation"))
        .expect_code(42)
        .expect_message(&["tables.digest", "tables.plans"]);
    assert!(checkpoints() == before, "a refused start changes nothing");
}

#[test]
fn one_token_a_step_is_a_setting_of_the_same_job() {
    let workspace = prepared();
    run(train(&workspace, "run").args(["--token-by-token", "--stop-after=2"])).expect_code(0);
    let config = std::fs::read_to_string(workspace.path("run/checkpoints/step-00000002/config.json")).expect("a file");
    assert!(!config.contains("ar_token_num"), "{config}");
    run(&mut train(&workspace, "run")).expect_code(42).expect_message(&["generator.ar_token_num"]);
}

#[test]
fn tables_and_tokenizers_that_do_not_belong_together_are_named() {
    let workspace = prepared();
    let other = text(&workspace.tokenizer());
    let refused = |arguments: &[&str], parts: &[&str]| {
        run(train(&workspace, "run").args(arguments)).expect_code(42).expect_message(parts);
    };
    refused(&["--tokenizer", &other], &["--tokenizer", "whose codes the tables hold"]);
    refused(&["--classes=5"], &["--classes", "at least 6"]);
    refused(&["--source=tokens,tokens"], &["one plan"]);
    refused(&["--source=nothing"], &["nothing", "no plan is here"]);
    let source = text(&shipped("folder"));
    let mut command = workspace.restok(["tokenize", "--source", &source, "--tokenizer", &other, "--output=other"]);
    command.args(["--crop=adm-center-32", "--max-reject-rate=0.5", "--devices=cpu"]);
    run(&mut command).expect_code(0);
    refused(&["--validation-source=other"], &["--validation-source", "as --source has"]);
    refused(&["--source=tokens,other"], &["two tokenizers"]);
    assert!(!workspace.path("run/checkpoints").exists(), "nothing is made before everything fits");
}
