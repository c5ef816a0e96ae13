//! Killed, shared, damaged: the same features in the end, or an error that says what to do.

use crate::{
    run_support::{background, contents, end_of, memory_output, storage_over},
    scoring_support::*,
};
use bytes::Bytes;
use object_store::{ObjectStore, memory::InMemory};
use pipeline::{
    ImageSet, PipelineError, ProcessRank, RankOrigin, ScoreRun, ScoredTables, Storage,
    testing::{FakeScorer, Fault, FaultRule, FaultStore, Gate, Operation, wait_until_async},
};
use schemas::features_path;
use std::{collections::BTreeMap, sync::Arc};

const SIZE: usize = 8;

struct Scene {
    set: Arc<ImageSet>,
    scorer: FakeScorer,
    reference: BTreeMap<String, Bytes>,
}

/// Four units of reconstructed pictures, and their files undisturbed.
async fn scene(name: &str) -> Scene {
    let set = open(&png_folder(name, 14, SIZE).await, 4).await;
    assert_eq!(set.units(), 4);
    let scorer = FakeScorer::reconstructing(&[1, 4], 4);
    let (_, output) = memory_output();
    let report = score_with(&set, &output, &scorer).await.expect("an undisturbed run");
    assert_eq!((report.units, report.units_here, report.units_left), (4, 4, 0));
    assert_eq!(report.device_kind.as_deref(), Some("fake"));
    let reference = contents(&output).await;
    assert_eq!(
        reference.keys().cloned().collect::<Vec<_>>(),
        (0..4).map(|unit| features_path(KEY, unit)).collect::<Vec<_>>()
    );
    Scene { set, scorer, reference }
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_read_back_with_all_variants_and_codes() {
    let scene = scene("faces").await;
    let output = copy_of(&scene.reference).await;
    let units = read_all(&scene.set, &output).await;
    let unit = &units[3];
    assert_eq!((unit.rows.len(), unit.variants.len()), (2, 3));
    assert_eq!(unit.variants.iter().map(|variant| variant.kept_tokens).collect::<Vec<_>>(), [None, Some(1), Some(4)]);
    assert!(unit.variants.iter().all(|variant| variant.pool.len() == 2 * 2048 && variant.spatial.is_empty()));
    assert_eq!(unit.variants.iter().map(|variant| variant.measures.len()).collect::<Vec<_>>(), [0, 2, 2]);
    let measures = unit.variants[1].measures[0];
    assert_eq!(measures.psnr, 20.0 + f64::from(unit.variants[1].pool[0]));
    assert_eq!((measures.ms_ssim, measures.lpips), (None, Some(f64::from(unit.variants[1].pool[2]))));
    let tokens = unit.tokens.as_ref().expect("codes");
    assert_eq!((tokens.rows(), tokens.tokens_per_image()), (2, 4));
    assert_eq!(tokens.codes()[0], (unit.variants[0].pool[0] * 97.0) as i16);
    let file = ScoredTables::open(output, KEY, 4).expect("a key").file(3).await.expect("there");
    assert_eq!(file.metadata["restok.device_kind"], "fake");
    assert_eq!(file.rows, *unit);
}

async fn copy_of(files: &BTreeMap<String, Bytes>) -> Storage {
    let (_, output) = memory_output();
    for (path, bytes) in files {
        output.put_create(path, bytes.clone()).await.expect("memory");
    }
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_dies_before_any_put_and_starts_again_ends_with_the_same_files() {
    let scene = scene("dies").await;
    for survived in 0..scene.reference.len() {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let dying = FaultStore::new(Arc::clone(&memory));
        dying.inject(FaultRule::new(Operation::Put, Fault::Denied).skip(survived).forever());
        let error = score_with(&scene.set, &storage_over(dying), &scene.scorer).await;
        assert!(matches!(error, Err(PipelineError::Storage { action: "write", .. })), "{survived}: {error:?}");
        let output = storage_over(memory);
        assert_eq!(contents(&output).await.len(), survived, "what the dead run left");
        let report = score_with(&scene.set, &output, &scene.scorer).await.expect("started again");
        assert_eq!((report.units_already_done, report.units_here), (survived as u32, 4 - survived as u32));
        assert_eq!(contents(&output).await, scene.reference, "after {survived} puts");
    }
    // When all is there, no device is asked for.
    let output = copy_of(&scene.reference).await;
    let run = ScoreRun { scorers: Vec::new(), ..run_of(&scene.set, &output, &scene.scorer) };
    let report = score(run).await.expect("nothing to do");
    assert_eq!((report.units_already_done, report.units_here, report.device_kind), (4, 0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_whose_answer_is_lost_change_nothing() {
    let scene = scene("lost").await;
    for put in 0..scene.reference.len() {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let faulty = FaultStore::new(Arc::clone(&memory));
        faulty.inject(FaultRule::new(Operation::Put, Fault::CommitThenError).skip(put));
        faulty.inject(FaultRule::new(Operation::Put, Fault::FalseConflict).skip(put + 1));
        let report = score_with(&scene.set, &storage_over(faulty), &scene.scorer).await.expect("mended");
        assert_eq!((report.units_here, report.adopted), (4, 0));
        assert_eq!(contents(&storage_over(memory)).await, scene.reference, "put {put}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_the_units_and_either_may_finish_alone() {
    let scene = scene("shared").await;
    let (_, output) = memory_output();
    let part = |rank| {
        let run = run_of(&scene.set, &output, &scene.scorer);
        score(ScoreRun { process: ProcessRank { rank, world_size: 2, origin: RankOrigin::Options }, ..run })
    };
    let (left, right) = tokio::join!(part(0), part(1));
    let (left, right) = (left.expect("one"), right.expect("the other"));
    assert_eq!((left.units_left, right.units_left, left.adopted + right.adopted), (0, 0, 0));
    // Each says of every unit who did it; one that both did at once is the same file twice.
    for report in [&left, &right] {
        assert_eq!(report.units_already_done + report.units_here + report.units_elsewhere, 4, "{report:?}");
    }
    assert!(left.units_here + right.units_here >= 4, "{left:?} {right:?}");
    assert_eq!(contents(&output).await, scene.reference);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_damaged_or_of_another_evaluation_is_named_and_never_adopted() {
    let scene = scene("foreign").await;
    let (first, second) = (&scene.reference[&features_path(KEY, 0)], &scene.reference[&features_path(KEY, 1)]);
    let mut elsewhere = first.to_vec();
    let key = elsewhere.windows(KEY.len()).position(|bytes| bytes == KEY.as_bytes()).expect("its key");
    elsewhere[key] = b'G';
    let foreign: [(&str, Bytes, &str); 5] = [
        ("truncated", first.slice(..first.len() - 100), "no whole Parquet file"),
        ("empty", Bytes::new(), "0 bytes that are no whole Parquet file"),
        ("another unit's", second.clone(), "restok.unit is Some(\"1\"), expected \"0\""),
        ("another key's", elsewhere.into(), "restok.scoring is"),
        ("no file of this project", crate::sample_files::parquet(&[]), "restok.schema_version is None"),
    ];
    for (what, bytes, words) in foreign {
        let (_, output) = memory_output();
        output.put_create(&features_path(KEY, 0), bytes).await.expect("memory");
        let tables = ScoredTables::open(output.clone(), KEY, 4).expect("a key");
        assert_eq!(tables.missing().await.expect("lists"), [1, 2, 3], "{what}");
        let told = tables.read(0).await.expect_err(what).to_string();
        assert!(told.starts_with(&output.uri(&features_path(KEY, 0))), "{what}: {told}");
        assert!(told.contains(words) && told.contains("delete it"), "{what}: {told}");
    }
    let (_, output) = memory_output();
    let told = ScoredTables::open(output, KEY, 4).expect("a key").read(2).await.expect_err("not there").to_string();
    assert!(told.contains("unit 2 of 4 is not scored yet"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn features_of_another_device_that_were_there_first_are_kept_and_those_of_other_images_are_not() {
    let scene = scene("overtaken").await;
    let other = scene.scorer.clone().device_kind("other");
    for (set, scorer, kept) in [
        (Arc::clone(&scene.set), other, true),
        (open(&tar_shards("overtaken-labels", 14, SIZE).await, 4).await, scene.scorer.clone(), false),
    ] {
        let (_, elsewhere) = memory_output();
        score_with(&set, &elsewhere, &scorer).await.expect("the other attempt");
        let (_, output) = memory_output();
        // Ours stands in front of its first batch while theirs is written.
        let gate = Gate::default();
        let blocked = FakeScorer::reconstructing(&[1, 4], 4).block_at(0, &gate);
        let mut run = run_of(&scene.set, &output, &blocked);
        run.limits.units_in_flight = 1;
        let mut running = background(score(run));
        wait_until_async("the device to stand in front of the gate", || blocked.batches() == 1).await;
        let theirs = elsewhere.get(&features_path(KEY, 0)).await.expect("there");
        output.put_create(&features_path(KEY, 0), theirs.clone()).await.expect("first");
        gate.open();
        let report = end_of(&mut running).await.expect("no panic");
        match kept {
            true => assert_eq!(report.expect("adopts").adopted, 1),
            false => {
                let told = report.expect_err("other images").to_string();
                assert!(told.contains("it is about other images") && told.contains("delete it"), "{told}");
            }
        }
        assert_eq!(output.get(&features_path(KEY, 0)).await.expect("there"), theirs, "the first writer wins");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_number_names_unit_and_row_and_is_never_written() {
    let scene = scene("numbers").await;
    let (_, output) = memory_output();
    let mut run = run_of(&scene.set, &output, &FakeScorer::new().no_number_at(3, 0));
    run.limits.units_in_flight = 1;
    // Units of four pictures in batches of three: batch 3 holds the last picture of unit 1.
    let error = score(run).await.expect_err("no number");
    let told = error.to_string();
    assert!(told.contains("a pool feature is NaN in row 3 of unit 1, image \"000007\""), "{told}");
    assert!(!error.is_temporary());
    assert_eq!(contents(&output).await.len(), 1, "unit 0 alone");

    let error = score_with(&scene.set, &output, &FakeScorer::new().row_missing_at(0)).await.expect_err("a row short");
    assert!(error.to_string().contains("pool features: found"), "{error}");
    let error = score_with(&scene.set, &output, &FakeScorer::new().fail_at(1)).await.expect_err("a device failed");
    assert!(error.is_temporary() && error.to_string().contains("planted failure"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_run_says_so_and_goes_on_later() {
    let scene = scene("drained").await;
    let (_, output) = memory_output();
    let gate = Gate::default();
    let blocked = FakeScorer::reconstructing(&[1, 4], 4).block_at(3, &gate);
    let run = run_of(&scene.set, &output, &blocked);
    let cancel = run.cancel.clone();
    let mut running = background(score(run));
    wait_until_async("the device to stand in front of the gate", || blocked.batches() == 4).await;
    cancel.cancel();
    gate.open();
    let error = end_of(&mut running).await.expect("no panic").expect_err("drained");
    assert!(error.is_drained(), "{error}");
    score_with(&scene.set, &output, &scene.scorer).await.expect("goes on");
    assert_eq!(contents(&output).await, scene.reference);
}

#[tokio::test]
async fn keys_that_are_no_names_are_refused() {
    for key in ["", "a/b", "..", ".a", "a b"] {
        let (_, output) = memory_output();
        let told = ScoredTables::open(output, key, 1).expect_err(key).to_string();
        assert!(told.contains(&format!("{key:?}")), "{told}");
    }
}
