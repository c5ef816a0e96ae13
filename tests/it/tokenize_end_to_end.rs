use crate::workspace;
use schemas::STATUS_OK;
use std::{collections::BTreeMap, fs};
use tests::{
    digest,
    sample::Sample,
    tables::{self, Tokens},
    tokenizer::{CODEBOOK_SIZE, RESOLUTION, TOKENS_PER_IMAGE},
    workspace::{Workspace, run},
};

/// Status of an image as the tables hold it.
fn status(row: &schemas::ImageRow) -> &'static str {
    row.rejected.map_or(STATUS_OK, schemas::RejectReason::name)
}

fn check_against_sample(sample: &Sample, tokens: &Tokens, images: &BTreeMap<String, schemas::ImageRow>) {
    assert_eq!(images.len(), sample.images.len());
    assert_eq!(tokens.len(), sample.good());
    for image in &sample.images {
        let row = &images[&image.stem];
        assert_eq!(status(row), image.rejected.unwrap_or(STATUS_OK), "{}: {:?}", image.stem, row.error);
        assert_eq!(row.label, Some(image.label as i32), "{}", image.stem);
        assert_eq!(row.bytes, image.bytes.len() as i64, "{}", image.stem);
        assert_eq!(row.sha256.as_deref(), Some(schemas::sha256_hex(&image.bytes).as_str()), "{}", image.stem);
        match tokens.get(&(image.stem.clone(), 0)) {
            Some((label, codes)) => {
                assert_eq!((image.rejected, *label, codes.len()), (None, Some(image.label as i32), TOKENS_PER_IMAGE));
                assert!(codes.iter().all(|&code| (0..CODEBOOK_SIZE as i16).contains(&code)), "{codes:?}");
            }
            None => assert!(image.rejected.is_some() && row.error.is_some(), "{} has no tokens", image.stem),
        }
    }
    // Tokens that do not depend on the image would make every comparison above empty.
    let distinct: std::collections::BTreeSet<_> = tokens.values().map(|(_, codes)| codes).collect();
    assert!(distinct.len() > sample.good() / 2, "{} distinct rows of {}", distinct.len(), sample.good());
}

fn json(workspace: &Workspace, arguments: &[&str]) -> serde_json::Value {
    let finished = run(&mut workspace.restok(arguments.iter().copied())).expect_code(0);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error} in {}", finished.stdout))
}

#[test]
fn three_layouts_of_the_same_images_give_the_same_tokens() {
    let workspace = workspace();
    let sample = workspace.sample_folder(48);
    sample.write_webdataset(&workspace.path("shards"), 3);
    sample.write_parquet(&workspace.path("hub"), 2);
    for (source, output) in
        [("images", "from-folder"), ("shards/sample-{0000..0002}.tar", "from-shards"), ("hub/*.parquet", "from-hub")]
    {
        run(&mut workspace.tokenize(source, output)).expect_code(0);
        let files = workspace.files(output);
        assert!(digest::is_finished(&files));
        assert!(digest::finished_units(&files) >= 3, "{} units", digest::finished_units(&files));
        check_against_sample(&sample, &tables::tokens(&files), &tables::images(&files));
        run(&mut workspace.restok(["verify", output])).expect_code(0);
    }
    let from_folder = tables::tokens(&workspace.files("from-folder"));
    assert_eq!(from_folder, tables::tokens(&workspace.files("from-shards")));
    assert_eq!(from_folder, tables::tokens(&workspace.files("from-hub")));
}

#[test]
fn shards_on_a_plain_web_server_give_the_tokens_of_the_same_files() {
    let (workspace, server) = (workspace(), tests::s3_server::S3Server::start());
    workspace.sample_folder(24).write_webdataset(&workspace.path("shards"), 3);
    server.put_folder("pub/shards", &workspace.path("shards"));
    let source = format!("{}/pub/shards/sample-{{0000..0002}}.tar", server.endpoint());
    run(&mut workspace.tokenize(&source, "from-web")).expect_code(0);
    run(&mut workspace.tokenize("shards/sample-{0000..0002}.tar", "from-files")).expect_code(0);
    assert_eq!(tables::tokens(&workspace.files("from-web")), tables::tokens(&workspace.files("from-files")));
    let missing = source.replace("0002", "0003");
    run(&mut workspace.tokenize(&missing, "missing")).expect_code(42).expect_message(&["sample-0003.tar"]);
}

#[test]
fn the_report_the_row_counts_and_the_tables_agree() {
    let workspace = workspace();
    let sample = workspace.sample_folder(48);
    let report = run(workspace.tokenize("images", "out").args(["--format", "json"])).expect_code(0);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("a JSON report");
    let inspected = json(&workspace, &["inspect", "out", "--format", "json"]);
    let manifest: schemas::Manifest =
        schemas::from_json("manifest", &workspace.files("out")[schemas::MANIFEST_PATH]).expect("a manifest");
    let row_counts = serde_json::to_value(&manifest.row_counts).expect("row counts as JSON");
    assert_eq!((row_counts["listed"].as_u64(), row_counts["written"].as_u64()), (Some(48), Some(sample.good() as u64)));
    assert_eq!(row_counts["rejected"], serde_json::json!({ "truncated": 2, "unsupported": 1 }));
    assert_eq!(inspected["books"], row_counts, "{inspected}");
    assert!(report.to_string().contains(&format!("\"listed\":{}", 48)), "{report}");
    let verified = json(&workspace, &["verify", "out", "--format", "json"]);
    assert_eq!(verified["books"], row_counts, "{verified}");
}

#[test]
fn every_view_of_a_crop_is_a_row() {
    let workspace = workspace();
    let sample = workspace.sample_folder(24);
    let plain = format!("adm-center-{RESOLUTION}");
    for (crop, output, views) in [
        (plain.clone(), "plain", 1),
        (format!("{plain}-flip"), "flip", 2),
        (format!("adm-ten-crop-{}-{RESOLUTION}", RESOLUTION + 4), "ten", 10),
    ] {
        run(workspace.tokenize("images", output).args(["--crop", &crop])).expect_code(0);
        let tokens = tables::tokens(&workspace.files(output));
        assert_eq!(tokens.len(), sample.good() * views, "{crop}");
        run(&mut workspace.restok(["verify", output])).expect_code(0);
    }
    let (plain, flip) = (tables::tokens(&workspace.files("plain")), tables::tokens(&workspace.files("flip")));
    for (key, row) in &plain {
        assert_eq!(row, &flip[key], "view 0 is the crop without the flip");
    }
    assert!(
        flip.iter().any(|((id, view), row)| *view == 1 && *row != flip[&(id.clone(), 0)]),
        "no flip changed a token"
    );
}

#[test]
fn how_the_work_is_spread_does_not_change_a_byte() {
    let workspace = workspace();
    workspace.sample_folder(48);
    run(&mut workspace.tokenize("images", "plain")).expect_code(0);
    let expected = workspace.digests("plain");
    let ways: [(&str, &[&str]); 4] = [
        (
            "one-by-one",
            &["--units-in-flight", "1", "--decode-threads", "1", "--decode-ahead-images", "1", "--fetch-requests", "1"],
        ),
        ("many-units", &["--units-in-flight", "6", "--decode-threads", "3"]),
        ("two-workers", &["--devices", "cpu*2"]),
        ("small-buffers", &["--fetch-buffer-bytes", "1", "--queued-batches-per-device", "1"]),
    ];
    for (output, way) in ways {
        run(workspace.tokenize("images", output).args(way)).expect_code(0);
        assert_eq!(workspace.digests(output), expected, "{output}");
    }
}

#[test]
fn a_finished_output_is_left_as_it_is() {
    let workspace = workspace();
    workspace.sample_folder(24);
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    let before = workspace.files("out");
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    run(&mut workspace.restok(["finalize", "out", "--max-reject-rate", "50%"])).expect_code(0);
    assert!(workspace.files("out") == before, "a second run changed the output");
}

#[test]
fn processes_of_a_job_share_the_units_and_the_last_one_closes_the_output() {
    let workspace = workspace();
    workspace.sample_folder(48);
    run(&mut workspace.tokenize("images", "alone")).expect_code(0);
    // Slurm's variables, as the scheduler sets them.
    for rank in ["0", "1", "2"] {
        run(workspace.tokenize("images", "shared").env("SLURM_PROCID", rank).env("SLURM_NTASKS", "3")).expect_code(0);
    }
    assert_eq!(workspace.digests("shared"), workspace.digests("alone"));
    assert!(digest::is_finished(&workspace.files("shared")));
}

#[test]
fn an_output_is_closed_by_hand_where_the_run_was_told_not_to() {
    let workspace = workspace();
    workspace.sample_folder(24);
    run(workspace.tokenize("images", "out").arg("--no-finalize")).expect_code(0);
    let open = workspace.files("out");
    assert!(!digest::is_finished(&open) && !open.contains_key(schemas::MANIFEST_PATH));
    run(&mut workspace.restok(["verify", "out"])).expect_code(0);
    run(&mut workspace.restok(["inspect", "out"])).expect_code(0);
    run(&mut workspace.restok(["finalize", "out", "--max-reject-rate", "50%"])).expect_code(0);
    assert!(digest::is_finished(&workspace.files("out")));
}

#[test]
fn a_dry_run_writes_nothing() {
    let workspace = workspace();
    workspace.sample_folder(24);
    let finished = run(workspace.tokenize("images", "out").arg("--dry-run")).expect_code(0);
    assert!(finished.stdout.contains("24") && finished.stdout.contains("for a batch"), "{}", finished.stdout);
    assert!(!workspace.path("out").exists() || workspace.files("out").is_empty());
}

#[test]
fn a_batch_size_of_auto_is_measured_once_and_then_part_of_the_plan() {
    let workspace = workspace();
    workspace.sample_folder(24);
    let auto = |output: &str, more: &[&str]| {
        let with_size = workspace.tokenize("images", output);
        let mut arguments: Vec<_> = with_size.get_args().map(std::ffi::OsStr::to_owned).collect();
        let flag = arguments.iter().position(|argument| argument == "--batch-size").expect("a size of its own");
        arguments[flag + 1] = "auto".into();
        let mut command = workspace.restok([]);
        command.env("RESTOK_DEVICES", "cpu").args(arguments).args(more);
        command
    };
    let planned = |finished: tests::workspace::Finished| -> serde_json::Value {
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error} in {}", finished.stdout))
    };
    let dry = planned(run(&mut auto("out", &["--dry-run", "--format", "json"])).expect_code(0));
    let size = dry["settings"]["batch_size"].as_u64().expect("a number");
    assert!(size.is_power_of_two() && size <= 32, "{size}");
    let (batch, device) = (dry["memory"]["batch_bytes"].as_u64(), dry["memory"]["device_bytes"].as_u64());
    assert!(batch.is_some_and(|bytes| bytes > 0) && batch < device, "{dry}");
    run(&mut auto("out", &[])).expect_code(0);
    let inspected = json(&workspace, &["inspect", "out", "--format", "json"]);
    assert!(inspected.to_string().contains(&format!("\"batch_size\":{size}")), "{inspected}");
    // Another size is there, and is gone on with.
    run(&mut workspace.tokenize("images", "four")).expect_code(0);
    let dry = planned(run(&mut auto("four", &["--dry-run", "--format", "json"])).expect_code(0));
    assert_eq!((dry["settings"]["batch_size"].as_u64(), dry["state"]["is"].as_str()), (Some(4), Some("same_plan")));
}

#[test]
fn a_batch_size_that_no_processor_has_memory_for_is_refused_before_the_output_is_touched() {
    let workspace = workspace();
    workspace.sample_folder(24);
    let mut command = workspace.restok(["tokenize", "--source=images", "--output=out", "--batch-size=1000000000"]);
    command.arg("--tokenizer").arg(workspace.tokenizer()).args(["--devices=cpu", "--device-threads=1"]);
    run(&mut command).expect_code(42).expect_message(&["--batch-size", "1000000000", "at most", "free on cpu"]);
    assert!(!workspace.path("out").exists() || workspace.files("out").is_empty());
}

#[test]
fn tokens_become_pictures_again() {
    let workspace = workspace();
    let sample = workspace.sample_folder(24);
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    let tokenizer = workspace.tokenizer();
    let mut command =
        workspace.restok(["reconstruct", "--tokens", "out", "--to", "pictures", "--images", "4", "--tokenizer"]);
    run(command.arg(&tokenizer).args(["--device", "cpu"])).expect_code(0);
    let pictures = workspace.files("pictures");
    let size = |name: &str| {
        let limits = pipeline::DecodeLimits { max_bytes: 64 << 20, max_pixels: 64 << 20 };
        let picture =
            pipeline::decode_image(&pictures[name], &limits).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        (picture.width as usize, picture.height as usize)
    };
    let (width, height) = size("contact-sheet.png");
    assert!(width > 4 * RESOLUTION && height > 4 * RESOLUTION, "{width}x{height}");
    let single: Vec<_> = pictures.keys().filter(|name| *name != "contact-sheet.png").collect();
    assert!(single.len() >= 4, "{single:?}");
    for name in single {
        assert_eq!(size(name), (RESOLUTION, RESOLUTION), "{name}");
    }
    // The originals may be gone: the pictures are made all the same.
    fs::remove_dir_all(workspace.path("images")).expect("the source");
    let one = &sample.images[0].stem;
    let mut command =
        workspace.restok(["reconstruct", "--tokens", "out", "--to", "one", "--image-id", one, "--tokenizer"]);
    run(command.arg(&tokenizer).args(["--device", "cpu"])).expect_code(0);
    assert!(workspace.files("one").contains_key("contact-sheet.png"));
}
