use crate::workspace;
use schemas::{UnitReport, from_json, sha256_hex, to_json};
use std::fs;
use tests::{
    tables::with_changed_codes,
    tokenizer::CODEBOOK_SIZE,
    workspace::{Workspace, run},
};

/// A finished output, one of its tokens files, and the marker of that file's unit.
fn output() -> (Workspace, String, String) {
    let workspace = workspace();
    workspace.sample_folder(24);
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    let files = workspace.files("out");
    let marker = files.keys().find(|path| path.starts_with("_state/")).expect("a marker").clone();
    let report: UnitReport = from_json(&marker, &files[&marker]).expect("a marker");
    (workspace, report.tokens.path, marker)
}

/// Puts `bytes` in the place of a tokens file and makes marker and manifest agree with them, so that only the content is wrong.
fn plant(workspace: &Workspace, path: &str, marker: &str, bytes: &[u8]) {
    let out = workspace.path("out");
    fs::write(out.join(path), bytes).expect("a tokens file");
    let text = fs::read(out.join(marker)).expect("a marker");
    let mut report: UnitReport = from_json(marker, &text).expect("a marker");
    (report.tokens.bytes, report.tokens.sha256) = (bytes.len() as u64, sha256_hex(bytes));
    fs::write(out.join(marker), to_json(marker, &report).expect("a marker")).expect("a marker");
    fs::remove_file(out.join(schemas::MANIFEST_PATH)).expect("a manifest");
    fs::remove_file(out.join(schemas::SUCCESS_PATH)).expect("the sign of success");
}

/// What `verify` says of a damaged output.
fn findings(workspace: &Workspace) -> String {
    let finished = run(&mut workspace.restok(["verify", "out"])).expect_code(42);
    format!("{}{}", finished.stdout, finished.stderr)
}

#[test]
fn a_rewritten_file_with_the_same_codes_is_sound() {
    let (workspace, path, marker) = output();
    let bytes = with_changed_codes(&workspace.files("out")[&path], |_| {});
    plant(&workspace, &path, &marker, &bytes);
    run(&mut workspace.restok(["verify", "out"])).expect_code(0);
}

#[test]
fn codes_that_the_codebook_does_not_have_are_found_and_named() {
    for code in [CODEBOOK_SIZE as i16, -1, i16::MAX] {
        let (workspace, path, marker) = output();
        let bytes = with_changed_codes(&workspace.files("out")[&path], |codes| codes[5] = code);
        plant(&workspace, &path, &marker, &bytes);
        let said = findings(&workspace);
        assert!(said.contains(&path) && said.contains(&code.to_string()) && said.contains("512"), "{code}: {said}");
        // Nobody may build pictures from them either.
        let tokenizer = workspace.tokenizer();
        let mut command =
            workspace.restok(["reconstruct", "--tokens", "out", "--to", "p", "--device", "cpu", "--tokenizer"]);
        let finished = run(command.arg(tokenizer).args(["--image-id", "n01440764_10000"])).expect_code(42);
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    }
}

#[test]
fn a_changed_byte_is_found_by_its_digest() {
    let (workspace, path, _) = output();
    let file = workspace.path("out").join(&path);
    let mut bytes = fs::read(&file).expect("a tokens file");
    bytes[40] ^= 1;
    fs::write(&file, bytes).expect("a tokens file");
    assert!(findings(&workspace).contains(&path));
    // Sizes alone do not show it, and the fast check does not pretend to.
    run(&mut workspace.restok(["verify", "out", "--fast"])).expect_code(0);
}

#[test]
fn a_file_that_was_cut_is_found_even_by_its_size() {
    let (workspace, path, _) = output();
    let file = workspace.path("out").join(&path);
    let bytes = fs::read(&file).expect("a tokens file");
    fs::write(&file, &bytes[..bytes.len() / 2]).expect("a tokens file");
    assert!(findings(&workspace).contains(&path));
    let fast = run(&mut workspace.restok(["verify", "out", "--fast"])).expect_code(42);
    assert!(format!("{}{}", fast.stdout, fast.stderr).contains(&path));
}

#[test]
fn every_damage_is_told_not_only_the_first() {
    let (workspace, ..) = output();
    let lost: Vec<String> = workspace.files("out").keys().filter(|path| path.starts_with("tokens/")).cloned().collect();
    assert!(lost.len() >= 3);
    for path in &lost {
        fs::remove_file(workspace.path("out").join(path)).expect("a tokens file");
    }
    let said = findings(&workspace);
    assert!(lost.iter().all(|path| said.contains(path.as_str())), "{said}");
}

#[test]
fn another_tokenizer_is_refused_for_pictures_unless_told_otherwise() {
    let (workspace, ..) = output();
    let other = workspace.path("other");
    tests::tokenizer::save(&other, 2);
    let reconstruct = || {
        let mut command =
            workspace.restok(["reconstruct", "--tokens", "out", "--to", "p", "--device", "cpu", "--tokenizer"]);
        command.arg(&other);
        command
    };
    run(&mut reconstruct()).expect_code(42).expect_message(&["--allow-other-tokenizer"]);
    run(reconstruct().arg("--allow-other-tokenizer")).expect_code(0);
}
