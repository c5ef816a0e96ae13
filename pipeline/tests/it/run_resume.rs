//! Killed at any instant and started again, a run ends with exactly the tables of an undisturbed one.

use crate::run_support::*;
use object_store::{ObjectStore, memory::InMemory};
use pipeline::{
    PipelineError, Storage,
    testing::{Fault, FaultRule, FaultStore, Operation, wait_until_async},
    verify,
};
use schemas::{Plan, SourceLayout, images_path, marker_path, tokens_path};
use std::sync::Arc;

struct Scene {
    source: Storage,
    plan: Arc<Plan>,
    reference: std::collections::BTreeMap<String, bytes::Bytes>,
}

/// Three units, and what they look like undisturbed.
async fn scene() -> Scene {
    let source = memory_source(&sample(14), SourceLayout::Folder).await;
    let plan = plan(&source, settings(SourceLayout::Folder)).await;
    assert_eq!(plan.units(), 3);
    let (_, output) = memory_output();
    tokenize_with(&plan, &source, &output, &encoder()).await.expect("an undisturbed run");
    let reference = contents(&output).await;
    Scene { source, plan, reference }
}

#[tokio::test]
async fn a_run_that_dies_before_any_put_and_starts_again_ends_with_the_same_bytes() {
    let scene = scene().await;
    assert_eq!(scene.reference.len(), 2 + 3 * 3 + 2, "plan, owner, three objects a unit, manifest, success");
    // The owner is put twice: the second time to see that the store refuses.
    let puts = scene.reference.len() + 1;
    for survived in 0..puts {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let dying = FaultStore::new(Arc::clone(&memory));
        dying.inject(FaultRule::new(Operation::Put, Fault::Denied).skip(survived).forever());
        let store: Arc<dyn ObjectStore> = dying;
        let error = tokenize_with(&scene.plan, &scene.source, &storage_over(store), &encoder()).await;
        assert!(matches!(error, Err(PipelineError::Storage { action: "write", .. })), "{survived}: {error:?}");
        let output = storage_over(memory);
        let left = contents(&output).await.len();
        assert_eq!(left, survived - usize::from(survived > 2), "what the dead run left");
        tokenize_with(&scene.plan, &scene.source, &output, &encoder()).await.expect("started again");
        assert_eq!(contents(&output).await, scene.reference, "after {survived} puts");
    }
}

#[tokio::test]
async fn puts_whose_answer_is_lost_change_nothing() {
    let scene = scene().await;
    for put in 0..scene.reference.len() {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let faulty = FaultStore::new(Arc::clone(&memory));
        faulty.inject(FaultRule::new(Operation::Put, Fault::CommitThenError).skip(put));
        faulty.inject(FaultRule::new(Operation::Put, Fault::FalseConflict).skip(put + 1));
        faulty.inject(FaultRule::new(Operation::Put, Fault::Unavailable).skip(put + 2));
        let store: Arc<dyn ObjectStore> = faulty;
        tokenize_with(&scene.plan, &scene.source, &storage_over(store), &encoder()).await.expect("faults are mended");
        assert_eq!(contents(&storage_over(memory)).await, scene.reference, "put {put}");
    }
}

#[tokio::test]
async fn lost_markers_and_files_are_made_again() {
    let scene = scene().await;
    let (split, hash) = ("train", scene.plan.hash());
    let lost = [
        vec![marker_path(0, hash)],
        vec![marker_path(1, hash), images_path(split, 1, hash)],
        vec![marker_path(2, hash), images_path(split, 2, hash), tokens_path(split, 2, hash)],
        vec![marker_path(0, hash), tokens_path(split, 0, hash), marker_path(2, hash)],
    ];
    for lost in lost {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let output = storage_over(Arc::clone(&store));
        for (path, bytes) in &scene.reference {
            let unfinished = path != "_SUCCESS" && path != "_manifest.json" && !lost.contains(path);
            if unfinished {
                output.put_create(path, bytes.clone()).await.expect("memory");
            }
        }
        let report = tokenize_with(&scene.plan, &scene.source, &output, &encoder()).await.expect("goes on");
        let markers = lost.iter().filter(|path| path.starts_with("_state/")).count() as u32;
        assert_eq!((report.units_here, report.units_already_done), (markers, 3 - markers));
        assert_eq!(contents(&output).await, scene.reference, "{lost:?}");
    }
}

#[tokio::test]
async fn two_runs_at_once_end_with_the_same_bytes() {
    let scene = scene().await;
    for _ in 0..5 {
        let (_, output) = memory_output();
        let (left, right) = (encoder(), encoder());
        let run = |encoder| tokenize_with(&scene.plan, &scene.source, &output, encoder);
        let (left, right) = tokio::join!(run(&left), run(&right));
        let (left, right) = (left.expect("one"), right.expect("the other"));
        assert!(left.finalized && right.finalized);
        assert_eq!((left.adopted, right.adopted), (0, 0), "equal bytes are nobody's duplicate");
        assert_eq!(contents(&output).await, scene.reference);
    }
}

#[tokio::test]
async fn files_of_another_device_are_kept_and_counted_and_the_tables_agree() {
    let scene = scene().await;
    let (_, output) = memory_output();
    let other = encoder().device_kind("other");
    tokenize_with(&scene.plan, &scene.source, &output, &other).await.expect("the first writer");
    let first = contents(&output).await;
    let (store, output) = memory_output();
    for (path, bytes) in &first {
        if path.starts_with("tokens/") || path.starts_with("_plan/") {
            output.put_create(path, bytes.clone()).await.expect("memory");
        }
    }
    let report = tokenize_with(&scene.plan, &scene.source, &output, &encoder()).await.expect("adopts");
    assert_eq!(report.adopted, 3);
    let after = contents(&output).await;
    for (path, bytes) in first.iter().filter(|(path, _)| path.starts_with("tokens/")) {
        assert_eq!(after[path], bytes, "the first writer wins");
    }
    let verified = verify(&storage_over(store), &Default::default()).await.expect("verify reads");
    assert!(verified.is_sound(), "{:?}", verified.findings);
}

#[tokio::test]
async fn a_file_that_is_no_attempt_at_the_unit_is_never_adopted() {
    let scene = scene().await;
    let hash = scene.plan.hash();
    let foreign = [
        ("tokens of another unit", scene.reference[&tokens_path("train", 1, hash)].clone()),
        ("images instead of tokens", scene.reference[&images_path("train", 0, hash)].clone()),
        ("no Parquet", bytes::Bytes::from_static(b"half a file")),
    ];
    for (what, bytes) in foreign {
        let (_, output) = memory_output();
        output.put_create(&tokens_path("train", 0, hash), bytes).await.expect("memory");
        let error = tokenize_with(&scene.plan, &scene.source, &output, &encoder()).await.expect_err(what);
        assert!(error.to_string().contains(&tokens_path("train", 0, hash)), "{what}: {error}");
        assert!(!error.is_temporary(), "{what}");
        assert!(!output.exists(&marker_path(0, hash)).await.expect("memory"), "{what}");
    }
}

#[tokio::test]
async fn a_drained_run_says_so_and_goes_on_later() {
    let scene = scene().await;
    let (_, output) = memory_output();
    let gate = pipeline::testing::Gate::default();
    let blocked = encoder().block_at(3, &gate);
    let run = run_of(&scene.plan, &scene.source, &output, &blocked);
    let (cancel, telemetry) = (run.common.cancel.clone(), Arc::clone(&run.common.telemetry));
    let mut running = background(tokenize(run));
    // Once the device stands in front of the gate, nothing can move past it.
    wait_until_async("the device to stand in front of the gate", || blocked.batches() == 4).await;
    cancel.cancel();
    gate.open();
    let error = end_of(&mut running).await.expect("no panic").expect_err("drained");
    assert!(error.is_drained(), "{error}");
    assert!(telemetry.snapshot().units_done < 3);
    tokenize_with(&scene.plan, &scene.source, &output, &encoder()).await.expect("goes on");
    assert_eq!(contents(&output).await, scene.reference);
}
