use crate::workspace;
use std::{collections::BTreeMap, path::Path, process::Command};
use tests::{
    random::Random,
    s3_server::{Fault, FaultRule, RequestKind, S3Server},
    training::{assert_equal, held_at_sheet, metrics, result, steps_logged},
    workspace::{Workspace, run, start},
};

pub(super) const STEPS: u64 = 12;

/// A tokenizer that a few steps a second train.
const CONFIG: &str = r#"{
  "model": { "vq_model": {
    "codebook_size": 64, "token_size": 8, "use_l2_norm": true, "commitment_cost": 0.25, "entropy_loss_ratio": 0.1,
    "vit_enc_model_size": "small", "vit_dec_model_size": "small", "vit_enc_patch_size": 4, "vit_dec_patch_size": 4,
    "num_latent_tokens": 16, "num_min_tokens": 2, "merge_tokens": true, "vae_encoder": true,
    "drop_latent_tokens": true, "drop_prob": 0.2 } },
  "dataset": { "preprocessing": { "crop_size": 32 } },
  "architecture": { "width": 32, "layers": 2, "heads": 2, "z": 32, "hidden": 32, "mult": [1, 1, 1], "nres": 1 }
}"#;

/// A workspace with images to train on and the configuration of the small tokenizer.
pub(super) fn prepared() -> Workspace {
    let workspace = workspace();
    workspace.sample_folder(40);
    std::fs::write(workspace.path("config.json"), CONFIG).expect("a file");
    workspace
}

/// `restok train-tokenizer` into `output`, with a checkpoint after every second step.
pub(super) fn train(workspace: &Workspace, output: &str) -> Command {
    train_on(workspace, "images", 2, output)
}

/// The same on the images of `source`, with a checkpoint after every `save_every` steps.
fn train_on(workspace: &Workspace, source: &str, save_every: u64, output: &str) -> Command {
    let mut command = workspace.restok([
        "train-tokenizer",
        "--preset=tiny",
        "--tokenizer-config=config.json",
        "--validation-source=images",
        "--device=cpu",
        "--device-threads=1",
        "--batch-size=4",
        "--warmup-steps=2",
        "--log-every=1",
        "--validate-every=6",
        "--validation-images=8",
        "--sheet-every=6",
        "--max-reject-rate=0.5",
        "--source",
        source,
        "--output",
        output,
    ]);
    command.args([format!("--steps={STEPS}"), format!("--save-every={save_every}")]);
    command
}

#[test]
fn a_run_leaves_checkpoints_metrics_sheets_and_a_tokenizer_that_tokenizes() {
    let workspace = prepared();
    run(&mut train(&workspace, "run")).expect_code(0);
    let files = workspace.files("run");
    for name in ["tokenizer/config.json", "tokenizer/model.safetensors", "best/model.safetensors", "metrics.csv"] {
        assert!(files.contains_key(name), "{name} is not in {:?}", files.keys());
    }
    let steps = |folder: &str, suffix: &str| -> Vec<String> {
        let inside = files.keys().filter_map(|name| name.strip_prefix(folder)?.strip_suffix(suffix));
        inside.map(str::to_owned).collect()
    };
    assert_eq!(steps("checkpoints/step-", "/state.json"), ["00000008", "00000010", "00000012"], "the last three");
    assert_eq!(steps("sheets/step-", ".png"), ["00000006", "00000012"]);
    assert!(files.keys().any(|name| name.starts_with("tensorboard/") && name.contains("tfevents")));

    let about: serde_json::Value = serde_json::from_slice(&files["tokenizer/training.json"]).expect("JSON");
    assert_eq!((&about["steps"], &about["settings"]["recipe"]["seed"]), (&STEPS.into(), &10_086.into()));
    let kept: Vec<_> = about["scores"]["by_tokens"].as_array().expect("a list").iter().collect();
    assert_eq!(kept.iter().map(|score| score["tokens"].as_u64()).collect::<Vec<_>>(), [1, 2, 4, 8, 16].map(Some));
    assert!(kept.iter().all(|score| score["psnr"].as_f64().is_some_and(f64::is_finite)), "{kept:?}");

    run(&mut train(&workspace, "run")).expect_code(0);
    assert_eq!(workspace.files("run").keys().collect::<Vec<_>>().len(), files.len() + 1, "another event file, no more");
    assert_eq!(workspace.files("run")["tokenizer/training.json"], files["tokenizer/training.json"]);

    let lines = metrics(&workspace.path("run"));
    assert_eq!(lines.len(), 1 + STEPS as usize);
    let column = |name: &str| lines[0].iter().position(|column| column == name).expect(name);
    let loss = |line: usize| lines[line][column("reconstruction_loss")].parse::<f64>().expect("a number");
    assert!(loss(STEPS as usize) < loss(1), "{} {}", loss(STEPS as usize), loss(1));
    let psnr: Vec<_> = lines[1..].iter().map(|line| !line[column("validation_psnr")].is_empty()).collect();
    assert_eq!(psnr, (1..=STEPS).map(|step| step % 6 == 0).collect::<Vec<_>>(), "validated at 6 and 12");

    let mut tokenize =
        workspace.restok(["tokenize", "--source=images", "--output=tokens", "--tokenizer=run/tokenizer"]);
    run(tokenize.args(["--max-reject-rate=0.5", "--devices=cpu", "--device-threads=1"])).expect_code(0);
    run(&mut workspace.restok(["verify", "tokens"])).expect_code(0);
}

#[test]
fn stopped_drained_and_killed_a_run_ends_with_the_weights_and_losses_of_one_that_was_not() {
    let workspace = prepared();
    run(&mut train(&workspace, "undisturbed")).expect_code(0);
    let expected = result(&workspace, "undisturbed", "tokenizer", STEPS);

    // Stopped between two checkpoints, and again.
    run(train(&workspace, "stopped").arg("--stop-after=3")).expect_code(0);
    assert!(!workspace.path("stopped/tokenizer").exists(), "nothing is published before the end");
    run(train(&workspace, "stopped").arg("--stop-after=7")).expect_code(0);
    run(&mut train(&workspace, "stopped")).expect_code(0);
    assert_equal(&result(&workspace, "stopped", "tokenizer", STEPS), &expected);

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
    assert_equal(&result(&workspace, "drained", "tokenizer", STEPS), &expected);

    // Killed at random instants, some of them while a checkpoint is written.
    let held = held_at_sheet(&workspace, "killed", STEPS);
    let mut random = Random::new(5);
    for attempt in 0..4 {
        let mut running = start(&mut train(&workspace, "killed"));
        let more = steps_logged(&workspace, "killed").min(STEPS as usize - 4) + random.below(3) as usize;
        let reached = running.wait_until("more steps", || steps_logged(&workspace, "killed") > more);
        assert!(reached, "attempt {attempt} ended by itself: {}", running.said());
        // No event: any instant will do.
        std::thread::sleep(std::time::Duration::from_micros(random.below(40_000)));
        running.kill();
        assert_eq!(running.finish().status.code(), None, "attempt {attempt} came to its end first");
    }
    held.remove();
    run(&mut train(&workspace, "killed")).expect_code(0);
    assert_equal(&result(&workspace, "killed", "tokenizer", STEPS), &expected);
    let left: Vec<_> = workspace.files("killed").into_keys().filter(|name| name.contains("partial")).collect();
    assert_eq!(left, [""; 0], "what a kill left half written is cleared away");
}

#[test]
fn a_run_whose_images_stop_coming_keeps_its_steps_and_ends_as_if_they_had_not() {
    let (workspace, server) = (prepared(), S3Server::start());
    server.put_folder("bucket/images", &workspace.path("images"));
    // No checkpoint is due before the end.
    let train = |output: &str| {
        let mut command = train_on(&workspace, "s3://bucket/images", 100, output);
        command.args(["--retry-attempts=4"]).envs(server.environment());
        command
    };
    let checkpoints = |output: &str| -> Vec<String> {
        let entries = std::fs::read_dir(workspace.path(output).join("checkpoints")).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
    };
    run(&mut train("undisturbed")).expect_code(0);
    let expected = result(&workspace, "undisturbed", "tokenizer", STEPS);
    // Within the second epoch: what the first one gave is trained on.
    let outage = |fault| FaultRule::new(fault).on(RequestKind::Get).path_contains("bucket/images/").after(45);

    server.inject(outage(Fault::SlowDown));
    run(&mut train("failed")).expect_code(75).expect_message(&["s3://bucket/images"]);
    server.heal();
    let steps = steps_logged(&workspace, "failed");
    assert!(0 < steps && steps < STEPS as usize, "{steps}");
    assert_eq!(checkpoints("failed"), [format!("step-{steps:08}")]);
    run(&mut train("failed")).expect_code(0);
    assert_equal(&result(&workspace, "failed", "tokenizer", STEPS), &expected);

    // A signal is heard also by a run that waits.
    server.inject(outage(Fault::Stall));
    let mut running = start(train("stalled").arg("--read-timeout-seconds=600"));
    let logged = || steps_logged(&workspace, "stalled") == steps;
    assert!(running.wait_until("the steps before the outage", logged), "it ended too early: {}", running.said());
    running.signal(libc::SIGTERM);
    running.finish().expect_code(143);
    server.heal();
    assert_eq!(checkpoints("stalled"), [format!("step-{steps:08}")]);
    run(&mut train("stalled")).expect_code(0);
    assert_equal(&result(&workspace, "stalled", "tokenizer", STEPS), &expected);
}

#[test]
fn a_run_with_other_settings_or_other_images_is_refused_by_what_differs() {
    let workspace = prepared();
    run(train(&workspace, "run").arg("--stop-after=2")).expect_code(0);
    let before = workspace.files("run");
    run(train(&workspace, "run").args(["--learning-rate=0.5", "--seed=3"])).expect_code(42).expect_message(&[
        "recipe.learning_rate.peak",
        "0.5 now",
        "recipe.seed",
        "--output",
    ]);
    let extra = workspace.path("images").join("another_class");
    std::fs::create_dir_all(&extra).expect("a folder");
    let (name, picture) = workspace.files("images").into_iter().next().expect("the sample has images");
    let suffix = Path::new(&name).extension().and_then(|suffix| suffix.to_str()).expect("it has one");
    std::fs::write(extra.join(format!("another.{suffix}")), picture).expect("a file");
    run(&mut train(&workspace, "run")).expect_code(42).expect_message(&["the images have changed", "images"]);
    let after = workspace.files("run");
    let checkpoint = |files: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
        files.iter().filter(|(name, _)| name.starts_with("checkpoints")).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    assert_eq!(checkpoint(&after), checkpoint(&before), "a refused start changes nothing");
}

#[test]
fn a_run_told_to_go_on_with_other_settings_keeps_what_changed_and_when() {
    let workspace = prepared();
    run(train(&workspace, "run").arg("--stop-after=2")).expect_code(0);
    run(train(&workspace, "run").args(["--learning-rate=0.002", "--allow-other-settings", "--stop-after=4"]))
        .expect_code(0)
        .expect_message(&["recipe.learning_rate.peak"]);
    // From here on these are the settings of the run.
    run(&mut train(&workspace, "run")).expect_code(42).expect_message(&["0.002 then"]);
    run(train(&workspace, "run").arg("--learning-rate=0.002")).expect_code(0);
    let about = std::fs::read(workspace.path("run/tokenizer/training.json")).expect("a file");
    let about: serde_json::Value = serde_json::from_slice(&about).expect("JSON");
    let changes = about["changes"].as_array().expect("a list");
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0]["after_step"], 2);
    assert!(changes[0]["settings"][0].as_str().is_some_and(|line| line.contains("learning_rate.peak")), "{changes:?}");
}

#[test]
fn a_damaged_checkpoint_is_refused_by_its_file() {
    let workspace = prepared();
    run(train(&workspace, "run").arg("--stop-after=2")).expect_code(0);
    let optimizer = workspace.path("run/checkpoints/step-00000002/optimizer.safetensors");
    let bytes = std::fs::read(&optimizer).expect("a file");
    std::fs::write(&optimizer, &bytes[..bytes.len() - 100]).expect("cut short");
    run(&mut train(&workspace, "run")).expect_code(42).expect_message(&["optimizer.safetensors", "wrong size"]);
}

#[test]
fn a_term_without_its_frozen_network_is_an_error_that_names_the_flag() {
    let workspace = prepared();
    for (term, flag) in [("--perceptual-weight=1", "--vgg16"), ("--discriminator-weight=0.5", "--dino")] {
        let mut command = train(&workspace, "run");
        command.args([term, "--discriminator=dino", "--discriminator-start=1"]);
        run(&mut command).expect_code(42).expect_message(&[flag, "docs/frozen-networks.md"]);
    }
    let with_alignment = |keys: &str| {
        let config = CONFIG.replace("\"drop_prob\"", &format!("{keys} \"drop_prob\""));
        std::fs::write(workspace.path("config.json"), config).expect("a file");
        run(train(&workspace, "run").arg("--alignment-weight=1")).expect_code(42)
    };
    with_alignment(r#""use_vf": "dinov3","#).expect_message(&["--foundation-model", "docs/frozen-networks.md"]);
    // Nor is a term left out because the tokenizer's configuration has no place for it.
    let neither = r#""use_vf": "dinov3", "encoder_feature_supervision": false, "decoder_feature_supervision": false,"#;
    for (keys, found) in [("", "no use_vf"), (neither, "neither supervision")] {
        with_alignment(keys).expect_message(&[
            found,
            "use_vf",
            "encoder_feature_supervision",
            "decoder_feature_supervision",
            "--alignment-weight 0",
        ]);
    }
    assert!(!workspace.path("run/checkpoints").exists(), "nothing was trained");
}

#[test]
fn two_processes_do_not_train_one_run() {
    let workspace = prepared();
    // The first one stands still at its sixth step until the second one was refused.
    let held = held_at_sheet(&workspace, "run", 6);
    let mut running = start(&mut train(&workspace, "run"));
    let logged = || steps_logged(&workspace, "run") == 6;
    assert!(running.wait_until("six steps", logged), "it ended too early: {}", running.said());
    run(&mut train(&workspace, "run")).expect_code(75).expect_message(&["in use by another process"]);
    held.let_write();
    running.finish().expect_code(0);
}
