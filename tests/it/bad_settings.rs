use crate::workspace;
use std::fs;
use tests::{
    digest, tokenizer,
    workspace::{Finished, Workspace, run, text},
};

/// Runs over a small sample with one thing wrong.
fn fails(workspace: &Workspace, arguments: &[&str]) -> Finished {
    let finished = run(workspace.tokenize("images", "out").args(arguments)).expect_code(42);
    assert!(finished.stderr.contains("error"), "{}", finished.stderr);
    assert!(
        !finished.stderr.contains("panicked") && !finished.stderr.contains("RUST_BACKTRACE"),
        "{}",
        finished.stderr
    );
    finished
}

/// A workspace with a tokenizer of which one file is another.
fn with_tokenizer_file(file: &str, bytes: &[u8]) -> Finished {
    let workspace = workspace();
    workspace.sample_folder(8);
    fs::write(workspace.tokenizer().join(file), bytes).expect("a tokenizer's file");
    let finished = fails(&workspace, &[]);
    assert!(!workspace.path("out").exists() || !digest::is_finished(&workspace.files("out")));
    finished
}

#[test]
fn a_checkpoint_that_is_empty_cut_or_garbled_is_refused_by_its_file() {
    let good = {
        let workspace = workspace();
        fs::read(workspace.tokenizer().join("model.safetensors")).expect("weights")
    };
    let mut garbled = good.clone();
    garbled[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    for bytes in [&[], &good[..good.len() / 2], &good[..5], &garbled, b"version https://git-lfs.github.com/spec/v1\n"] {
        with_tokenizer_file("model.safetensors", bytes).expect_message(&["model.safetensors"]);
    }
}

#[test]
fn a_checkpoint_that_is_not_there_is_refused_by_its_file() {
    let workspace = workspace();
    workspace.sample_folder(8);
    for file in ["model.safetensors", "config.json"] {
        let path = workspace.tokenizer().join(file);
        let bytes = fs::read(&path).expect("a tokenizer's file");
        fs::remove_file(&path).expect("a tokenizer's file");
        fails(&workspace, &[]).expect_message(&[file]);
        fs::write(&path, bytes).expect("a tokenizer's file");
    }
}

#[test]
fn a_checkpoint_that_may_not_be_read_is_refused_by_its_file() {
    let workspace = workspace();
    workspace.sample_folder(8);
    let path = workspace.tokenizer().join("model.safetensors");
    // A folder in the file's place: as unreadable for root as for anybody.
    fs::remove_file(&path).expect("weights");
    fs::create_dir(&path).expect("a folder");
    fails(&workspace, &[]).expect_message(&["model.safetensors"]);
}

#[test]
fn a_pickled_checkpoint_is_refused_with_the_command_that_converts_it() {
    let workspace = workspace();
    workspace.sample_folder(8);
    let tokenizer = workspace.tokenizer();
    fs::rename(tokenizer.join("model.safetensors"), tokenizer.join("pytorch_model.bin")).expect("a rename");
    fails(&workspace, &[]).expect_message(&["pytorch_model.bin", "python", "safetensors"]);
}

#[test]
fn a_checkpoint_whose_names_all_begin_alike_is_read_with_a_warning() {
    let workspace = workspace();
    workspace.sample_folder(8);
    run(&mut workspace.tokenize("images", "as-published")).expect_code(0);
    tokenizer::put_under("module.", &workspace.tokenizer());
    let finished = run(&mut workspace.tokenize("images", "under-a-prefix")).expect_code(0);
    finished.expect_message(&["model.safetensors", "begin with module."]);
    let tokens = |output: &str| tests::tables::tokens(&workspace.files(output));
    assert_eq!(tokens("as-published"), tokens("under-a-prefix"));
}

#[test]
fn a_configuration_with_a_key_that_nobody_knows_is_refused_by_the_key() {
    let mut config = tokenizer::config();
    config["model"]["vq_model"]["surprise_layers"] = 3.into();
    with_tokenizer_file("config.json", config.to_string().as_bytes())
        .expect_message(&["config.json", "surprise_layers"]);
}

#[test]
fn a_configuration_that_does_not_fit_its_weights_is_refused_by_the_tensors() {
    let mut config = tokenizer::config();
    config["architecture"]["layers"] = 3.into();
    config["model"]["vq_model"]["codebook_size"] = 256.into();
    with_tokenizer_file("config.json", config.to_string().as_bytes()).expect_message(&["encoder", "quantize", "256"]);
}

#[test]
fn a_configuration_with_a_setting_that_cannot_be_is_refused_by_the_setting() {
    let mut config = tokenizer::config();
    config["model"]["vq_model"]["codebook_size"] = 40_000.into();
    with_tokenizer_file("config.json", config.to_string().as_bytes()).expect_message(&["40000", "int16"]);
}

#[test]
fn a_crop_of_another_size_than_the_tokenizers_is_refused_with_both() {
    let workspace = workspace();
    workspace.sample_folder(8);
    fails(&workspace, &["--crop", "adm-center-256"]).expect_message(&["256", "32"]);
    fails(&workspace, &["--crop", "center-32"]).expect_message(&["center-32", "adm-center-SIZE"]);
}

#[test]
fn a_layout_that_nobody_knows_or_that_is_not_there_is_refused() {
    let workspace = workspace();
    workspace.sample_folder(8);
    fails(&workspace, &["--layout", "zip"]).expect_message(&["zip", "webdataset"]);
    fails(&workspace, &["--layout", "parquet"]).expect_message(&["images"]);
    fs::create_dir(workspace.path("empty")).expect("a folder");
    for source in ["empty", "nowhere"] {
        run(&mut workspace.tokenize(source, "out")).expect_code(42).expect_message(&[source]);
    }
}

#[test]
fn shards_that_a_range_names_and_that_are_missing_are_listed() {
    let workspace = workspace();
    workspace.sample_folder(24).write_webdataset(&workspace.path("shards"), 3);
    run(&mut workspace.tokenize("shards/sample-{0000..0004}.tar", "out"))
        .expect_code(42)
        .expect_message(&["sample-0003.tar", "sample-0004.tar"]);
    run(&mut workspace.tokenize("shards/other-*.tar", "out")).expect_code(42).expect_message(&["other-*.tar"]);
}

#[test]
fn another_plan_in_the_output_is_refused_by_what_differs() {
    let workspace = workspace();
    workspace.sample_folder(24);
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    let before = workspace.files("out");
    fails(&workspace, &["--crop", "adm-center-32-flip"]).expect_message(&[
        "another plan",
        "crop:",
        "adm-center-32-flip",
    ]);
    fails(&workspace, &["--precision", "bf16"]).expect_message(&["precision:", "fp32", "bf16"]);
    fails(&workspace, &["--image-id", "path"]).expect_message(&["image_id:"]);
    // Another checkpoint under the same name.
    let other = workspace.path("elsewhere").join("tokenizer");
    tokenizer::save(&other, 2);
    let mut command =
        workspace.restok(["tokenize", "--source", "images", "--output", "out", "--tokenizer", &text(&other)]);
    command.args(["--batch-size", "4", "--unit-size", "8", "--devices", "cpu"]);
    run(&mut command).expect_code(42).expect_message(&["tokenizer:"]);
    // Other images.
    let first = workspace.path("images").join(tests::sample::CLASSES[0]);
    fs::copy(first.join("n01440764_10000.JPEG"), first.join("n01440764_99999.JPEG")).expect("one image more");
    fails(&workspace, &[]).expect_message(&["n01440764_99999.JPEG"]);
    assert!(workspace.files("out") == before, "a refused run changed the output");
}

#[test]
fn more_rejects_than_allowed_fail_the_job_with_their_reasons() {
    let workspace = workspace();
    workspace.sample_folder(48);
    let finished = run(&mut {
        let tokenizer = text(&workspace.tokenizer());
        let mut command =
            workspace.restok(["tokenize", "--source", "images", "--output", "out", "--tokenizer", &tokenizer]);
        command.args(["--batch-size", "4", "--unit-size", "8", "--devices", "cpu"]);
        command
    });
    finished.expect_code(42).expect_message(&["3 of 48", "truncated", "unsupported", "--max-reject-rate"]);
    assert!(!digest::is_finished(&workspace.files("out")));
    // Allowed, the same units are closed: nothing is encoded again.
    let units = digest::table_digests(&workspace.files("out"));
    run(workspace.tokenize("images", "out").args(["--show-settings"])).expect_code(0);
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    let closed = workspace.digests("out");
    assert!(units.iter().all(|(path, digest)| closed.get(path) == Some(digest)));
}

#[test]
fn stems_that_repeat_are_refused_with_the_flag_that_helps() {
    let workspace = workspace();
    workspace.sample_folder(8);
    let images = workspace.path("images");
    let one = images.join(tests::sample::CLASSES[0]).join("n01440764_10000.JPEG");
    fs::copy(&one, images.join(tests::sample::CLASSES[1]).join("n01440764_10000.JPEG")).expect("a copy");
    fails(&workspace, &[]).expect_message(&["n01440764_10000", "--image-id path"]);
    run(workspace.tokenize("images", "by-path").args(["--image-id", "path"])).expect_code(0);
}

#[test]
fn flags_and_addresses_that_cannot_be_are_refused_before_any_work() {
    let workspace = workspace();
    workspace.sample_folder(8);
    fails(&workspace, &["--devices", "abacus"]).expect_message(&["abacus", "cuda"]);
    fails(&workspace, &["--rank", "3", "--world-size", "3"]).expect_message(&["3"]);
    fails(&workspace, &["--surprise"]).expect_message(&["--surprise"]);
    run(&mut workspace.tokenize("images", "ftp://host/out"))
        .expect_code(42)
        .expect_message(&["ftp://host/out", "s3://"]);
    run(&mut workspace.tokenize("images", "https://user:hidden@host/out?sig=hidden"))
        .expect_code(42)
        .expect_message(&["https://"]);
    let refused = run(&mut workspace.tokenize("images", "https://user:hidden@host/out?sig=hidden"));
    assert!(!refused.stderr.contains("hidden"), "{}", refused.stderr);
    run(&mut workspace.restok(["verify", "nowhere"])).expect_code(42).expect_message(&["nowhere"]);
    run(&mut workspace.restok(["inspect", "images"])).expect_code(42).expect_message(&["images"]);
}
