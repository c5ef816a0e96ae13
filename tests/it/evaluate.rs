use crate::workspace;
use std::{collections::BTreeMap, path::Path, process::Command};
use tests::{
    inception,
    random::Random,
    s3_server::{Fault, FaultRule, RequestKind, S3Server},
    workspace::{Workspace, run, shipped, start, text, with_shipped_models},
};

/// A set of `count` samples of the generator that ships, in the workspace's folder `output`.
fn generate(workspace: &Workspace, output: &str, count: usize, pictures: &str) {
    generate_of_seed(workspace, output, count, pictures, 0);
}

pub(super) fn generate_of_seed(workspace: &Workspace, output: &str, count: usize, pictures: &str, seed: u64) {
    let mut command = workspace.restok(["generate", "--output", output, "--pictures", pictures, "--devices=cpu"]);
    with_shipped_models(&mut command);
    command.args([
        "--count",
        &count.to_string(),
        "--unit-size=8",
        "--batch-size=8",
        "--guidance-scale=2",
        "--device-threads=1",
        &format!("--seed={seed}"),
    ]);
    run(&mut command).expect_code(0);
}

/// `restok evaluate` with the random network, small batches and units, and these arguments.
fn evaluate(workspace: &Workspace, arguments: &[&str]) -> Command {
    evaluate_into(workspace, "evaluation", arguments)
}

pub(super) fn evaluate_into(workspace: &Workspace, output: &str, arguments: &[&str]) -> Command {
    let mut command = workspace.restok(["evaluate", "--batch-size=4", "--unit-size=4", "--output", output]);
    command.args(arguments).arg("--device-threads=1");
    // As variables, so that a test can say them otherwise.
    command.env("RESTOK_DEVICES", "cpu").env("RESTOK_FORMAT", "json");
    command.env("RESTOK_INCEPTION", text(&inception::shared(Path::new(env!("CARGO_TARGET_TMPDIR")))));
    command
}

/// The records that a command printed.
fn records(printed: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(printed).expect("records as JSON")
}

fn number(record: &serde_json::Value, name: &str) -> f64 {
    record["scores"][name].as_f64().unwrap_or_else(|| panic!("{name} in {record}"))
}

/// Files of features by path below the evaluation.
fn features(workspace: &Workspace) -> BTreeMap<String, Vec<u8>> {
    let folder = workspace.path("evaluation");
    let files = if folder.exists() { workspace.files("evaluation") } else { BTreeMap::new() };
    files.into_iter().filter(|(path, _)| path.starts_with("features/")).collect()
}

pub(super) const ALLOWED: &str = "--allow=count,resize,order,reference";

#[test]
fn a_generated_set_is_scored_against_a_reference_of_its_own_making() {
    let workspace = workspace();
    generate(&workspace, "samples", 16, "npz,webdataset,png");
    let made = run(&mut evaluate(&workspace, &["--make-reference=reference.npz", "--source=samples"])).expect_code(0);
    assert!(made.stdout.contains("reference.npz") && made.stdout.contains("16 of 32x32"), "{}", made.stdout);

    let arguments = ["--source=samples", "--reference=reference.npz", ALLOWED];
    let finished = run(&mut evaluate(&workspace, &arguments)).expect_code(0);
    let [record] = records(&finished.stdout).try_into().expect("one record");
    // A set against itself.
    assert!(number(&record, "fid").abs() < 1e-6 && number(&record, "sfid").abs() < 1e-6, "{record}");
    assert_eq!((number(&record, "precision"), number(&record, "recall")), (1.0, 1.0));
    assert!(number(&record, "inception_score") >= 1.0);
    // What made it, and how the protocol was not kept.
    assert_eq!((record["protocol"].as_str(), record["images"].as_u64()), (Some("gfid-adm"), Some(16)));
    assert_eq!((record["guidance"].as_f64(), record["seed"].as_u64()), (Some(2.0), Some(0)));
    assert!(record["generator_sha256"].is_string() && record["tokenizer_sha256"].is_string(), "{record}");
    let deviations = record["deviations"].as_array().expect("a list");
    let names: Vec<_> = deviations.iter().filter_map(|text| text.as_str()?.split(':').next()).collect();
    assert_eq!(names, ["reference", "resize", "count"], "{record}");

    // The same pixels in every form give the same numbers.
    for source in ["samples/pictures/samples.npz", "samples/pictures/png", "samples/pictures/webdataset"] {
        let finished = run(&mut evaluate(&workspace, &["--source", source, ALLOWED])).expect_code(0);
        let [other] = records(&finished.stdout).try_into().expect("one record");
        let (found, expected) = (number(&other, "inception_score"), number(&record, "inception_score"));
        assert!((found - expected).abs() < 1e-9, "{source}: {found}, {expected}");
    }
    // A line each, in both tables.
    let csv = std::fs::read_to_string(workspace.path("evaluation/scores.csv")).expect("a table");
    assert_eq!(csv.lines().count(), 5, "{csv}");
    assert!(csv.starts_with("evaluation,protocol,"), "{csv}");
    // A reference of so few images does not keep the protocol.
    let refused =
        run(&mut evaluate(&workspace, &["--source=samples", "--reference=reference.npz", "--allow=count,resize"]));
    assert!(refused.expect_code(42).stderr.contains("an archive of 16 images"));
    let tables = workspace.files("evaluation").into_keys().filter(|path| path.starts_with("scores/score-")).count();
    assert_eq!(tables, 4);
}

#[test]
fn scores_are_those_that_are_asked_for_or_refused_with_what_they_need() {
    let workspace = workspace();
    generate(&workspace, "samples", 16, "npz");
    run(&mut evaluate(&workspace, &["--make-reference=reference.npz", "--source=samples"])).expect_code(0);
    let common = ["--source=samples", "--reference=reference.npz", ALLOWED];
    let asked = |more: &[&str]| run(&mut evaluate(&workspace, &[&common, more].concat()));

    let finished = asked(&["--scores=density,kid,authpct", "--kid-subset-size=8", "--confidence=80", "--resamples=50"]);
    let [record] = records(&finished.expect_code(0).stdout).try_into().expect("one record");
    // A set against itself: each image is a copy, and lies in as many balls as its own neighbours make.
    assert_eq!((number(&record, "density"), number(&record, "authpct")), (1.0, 0.0));
    assert!(record["scores"]["fid"].is_null() && record["scores"]["inception_score"].is_null(), "{record}");
    let intervals = &record["scores"]["intervals"];
    assert!(intervals["kid"]["upper"].is_number() && intervals["fid"].is_null(), "{record}");
    // Said again, it is the same line.
    let again = asked(&["--scores=density,kid,authpct", "--kid-subset-size=8", "--confidence=80", "--resamples=50"]);
    assert_eq!(records(&again.expect_code(0).stdout), std::slice::from_ref(&record));
    // What is not asked for leaves no trace in what is printed.
    let [plain] = records(&asked(&[]).expect_code(0).stdout).try_into().expect("one record");
    for absent in ["kid", "intervals", "vendi_score"] {
        assert!(plain["scores"].get(absent).is_none() && plain.get("score_settings").is_none(), "{plain}");
    }

    for (arguments, words) in [
        (&["--scores=kid"][..], "--kid-subset-size"),
        (&["--scores=fd"], "fid, sfid, is, precision"),
        (&["--scores=kid", "--kid-subset-size=9", "--confidence=95"], "at most 8, half of the smaller set's images"),
        (&["--confidence=0"], "--confidence"),
    ] {
        let refused = asked(arguments).expect_code(42);
        assert!(refused.stderr.contains(words), "{arguments:?}: {}", refused.stderr);
    }
    // Without anything to compare with there is what needs nothing.
    let alone = |scores: &str| run(&mut evaluate(&workspace, &["--source=samples", ALLOWED, scores]));
    let [record] = records(&alone("--scores=vendi").expect_code(0).stdout).try_into().expect("one record");
    assert!((1.0..=16.0).contains(&number(&record, "vendi_score")), "{record}");
    for (scores, words) in [
        ("--scores=fid", "fid without statistics to compare with"),
        ("--scores=vendi,kid,density", "kid, density without features of the reference's images"),
    ] {
        let refused = alone(scores).expect_code(42);
        assert!(refused.stderr.contains(words) && refused.stderr.contains("--reference"), "{}", refused.stderr);
    }
}

#[test]
fn a_broken_protocol_is_refused_with_the_flag_that_allows_it() {
    let workspace = workspace();
    generate(&workspace, "samples", 8, "npz");
    let refused = run(&mut evaluate(&workspace, &["--source=samples"])).expect_code(42);
    for words in ["gfid-adm is not kept", "8 images, the protocol says 50,000", "32x32", "--allow count,resize"] {
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    assert!(features(&workspace).is_empty(), "nothing is computed for a set that is refused");
    // JPEG files are found when the set has been read.
    workspace.sample_folder(6);
    let refused =
        run(&mut evaluate(&workspace, &["--source=images", "--crop=adm-center-32", ALLOWED, "--max-reject-rate=50%"]))
            .expect_code(42);
    assert!(refused.stderr.contains("lossy files"), "{}", refused.stderr);
}

#[test]
fn killed_at_any_moment_scoring_goes_on_and_ends_with_the_same_numbers() {
    let workspace = workspace();
    generate(&workspace, "samples", 24, "npz");
    let arguments = ["--source=samples", ALLOWED];
    let finished = run(&mut evaluate(&workspace, &arguments)).expect_code(0);
    let (expected, expected_features) = (records(&finished.stdout), features(&workspace));
    assert_eq!(expected_features.len(), 6);

    // The store does not answer to the put of the last unit's features: the command cannot end before it is killed.
    let server = S3Server::start();
    let last_unit = expected_features.keys().next_back().expect("features");
    server.inject(FaultRule::new(Fault::Stall).on(RequestKind::Put).path_contains(last_unit));
    let evaluate = || {
        let mut command = evaluate_into(&workspace, "s3://bucket/evaluation", &arguments);
        command.envs(server.environment());
        command
    };
    let stored = || {
        let objects = server.objects("bucket/evaluation").into_iter();
        objects.filter(|(path, _)| path.starts_with("features/")).collect::<BTreeMap<_, _>>()
    };
    let mut random = Random::new(5);
    for attempt in 0..4 {
        let units = (stored().len() + 1).min(5);
        let mut running = start(&mut evaluate());
        let reached = running.wait_until("features of another unit", || stored().len() >= units);
        assert!(reached, "attempt {attempt} ended by itself: {}", running.said());
        // No event: any instant will do.
        std::thread::sleep(std::time::Duration::from_micros(random.below(20_000)));
        running.kill();
        assert_eq!(running.finish().status.code(), None, "attempt {attempt} ended by itself");
    }
    server.heal();
    let finished = run(&mut evaluate()).expect_code(0);
    assert_eq!(records(&finished.stdout), expected);
    assert_eq!(stored(), expected_features);
    // Everything is there: the same command only reads.
    let again = run(&mut evaluate()).expect_code(0);
    assert_eq!(records(&again.stdout), expected);
}

#[test]
fn two_processes_share_a_set_and_workers_change_nothing() {
    let workspace = workspace();
    generate(&workspace, "samples", 16, "npz");
    let arguments = ["--source=samples", ALLOWED];
    let shares =
        ["0", "1"].map(|rank| start(evaluate(&workspace, &arguments).args(["--rank", rank, "--world-size=2"])));
    let shares = shares.map(|share| share.finish().expect_code(0));
    let [expected, other] = shares.map(|share| records(&share.stdout));
    assert_eq!(other, expected);
    std::fs::remove_dir_all(workspace.path("evaluation")).expect("a folder of the test");
    let mut with_two = evaluate(&workspace, &arguments);
    with_two.env("RESTOK_DEVICES", "cpu*2");
    let with_two = run(&mut with_two).expect_code(0);
    assert_eq!(records(&with_two.stdout), expected);
}

#[test]
fn reconstructions_are_scored_from_any_number_of_tokens() {
    let workspace = workspace();
    let images = shipped("fashion-mnist/images");
    let tokenizer = shipped("fashion-mnist/tokenizer");
    let arguments = [
        "--protocol=rfid",
        "--source",
        &text(&images),
        "--tokenizer",
        &text(&tokenizer),
        "--keep=32,1",
        "--allow=count,resize",
    ];
    let finished = run(&mut evaluate(&workspace, &arguments)).expect_code(0);
    let records = records(&finished.stdout);
    assert_eq!(records.iter().map(|record| record["kept_tokens"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(32)]);
    let psnr: Vec<f64> = records.iter().map(|record| number(record, "psnr")).collect();
    assert!(psnr[0] > 10.0 && psnr[1] > psnr[0] + 3.0, "more tokens tell more: {psnr:?}");
    for record in &records {
        assert_eq!(record["crop"].as_str(), Some("torchvision-center-32"));
        assert_eq!(record["extractor_precision"].as_str(), Some("float64"));
        assert!(number(record, "fid") > 0.0 && number(record, "codes_used") > 1.0, "{record}");
        assert_eq!(record["scores"]["codes_used_by_level"].as_array().map(Vec::len), Some(6));
        // Too small for five scales; no network for LPIPS.
        assert!(record["scores"]["ms_ssim"].is_null() && record["scores"]["lpips"].is_null());
    }
    // Without the network there are the measures that need none, and a word on what is missing.
    let mut command = evaluate(&workspace, &arguments);
    command.env_remove("RESTOK_INCEPTION").env("RESTOK_FORMAT", "text");
    let finished = run(&mut command).expect_code(0);
    assert!(
        finished.stdout.contains("PSNR, dB") && finished.stdout.contains("give --inception"),
        "{}",
        finished.stdout
    );
}

#[test]
fn a_sweep_fills_in_its_scores() {
    let workspace = workspace();
    generate(&workspace, "samples", 16, "npz");
    run(&mut evaluate(&workspace, &["--make-reference=reference.npz", "--source=samples"])).expect_code(0);
    let mut command =
        workspace.restok(["sweep", "--output=sweep", "--guidance-scale=1,3", "--count=8", "--format=json"]);
    with_shipped_models(&mut command);
    command.env("RESTOK_INCEPTION", text(&inception::shared(Path::new(env!("CARGO_TARGET_TMPDIR")))));
    command.args(["--reference=reference.npz", "--allow=count,resize,reference", "--devices=cpu"]);
    command.args(["--device-threads=1", "--batch-size=8"]);
    let points = records(&run(&mut command).expect_code(0).stdout);
    assert_eq!(points.len(), 2);
    for point in &points {
        for name in ["fid", "sfid", "inception_score", "precision", "recall"] {
            assert!(number(point, name).is_finite(), "{point}");
        }
    }
    assert_ne!(number(&points[0], "fid"), number(&points[1], "fid"));
    let csv = std::fs::read_to_string(workspace.path("sweep/scores.csv")).expect("a table");
    assert_eq!(csv.lines().count(), 3, "a line for each point: {csv}");
}

#[test]
fn what_is_no_set_no_reference_and_no_network_is_refused_by_name() {
    let workspace = workspace();
    generate(&workspace, "samples", 8, "none");
    generate(&workspace, "pictures", 8, "png");
    std::fs::write(workspace.path("broken.npz"), b"PK\x03\x04 and no more").expect("a file of the test");
    std::fs::write(workspace.path("broken.safetensors"), b"nothing").expect("a file of the test");
    for (arguments, words) in [
        (&["--source=samples"][..], "no pictures"),
        (&["--source=nowhere"], "nowhere"),
        (&["--source=broken.npz"], "broken.npz"),
        (&["--source=pictures", ALLOWED, "--reference=broken.npz"], "broken.npz"),
        (&["--source=samples", "--inception=broken.safetensors"], "broken.safetensors"),
    ] {
        let finished = run(&mut evaluate(&workspace, arguments)).expect_code(42);
        assert!(finished.stderr.contains(words), "{arguments:?}: {}", finished.stderr);
    }
}
