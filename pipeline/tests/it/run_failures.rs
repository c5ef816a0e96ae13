//! What ends a run, and what it says then.

use crate::run_support::*;
use object_store::{ObjectStore, memory::InMemory};
use pipeline::{
    DeviceError, PipelineError, RunReport, Storage, claim_output, read_plan,
    testing::{Fault, FaultRule, FaultStore, Gate, Operation, wait_until_async},
};
use schemas::{Crop, Plan, SourceLayout};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

async fn scene() -> (Storage, Arc<Plan>) {
    let source = memory_source(&sample(14), SourceLayout::Folder).await;
    let plan = plan(&source, settings(SourceLayout::Folder)).await;
    (source, plan)
}

async fn is_finished(output: &Storage) -> bool {
    output.exists("_SUCCESS").await.expect("memory")
}

/// Far above what a run of this file takes on any machine: time passes only once [`stalled`] makes it.
const STALL_SECONDS: u64 = 3600;

/// How a run ends that stands still already. The clock of its runtime is paused, which then jumps to whatever is waited for: the watchdog
/// sees its limit pass at once, and a busy machine cannot make it see that too early.
async fn stalled(running: &mut JoinSet<Result<RunReport, PipelineError>>) -> PipelineError {
    tokio::time::pause();
    end_of(running).await.expect("no panic").expect_err("the run stands still")
}

#[tokio::test]
async fn an_encoder_that_fails_ends_the_run_with_its_own_words() {
    let (source, plan) = scene().await;
    for temporary in [true, false] {
        let (_, output) = memory_output();
        let error = tokenize_with(&plan, &source, &output, &encoder().fail_at(2, temporary)).await.expect_err("fails");
        assert_eq!(error.to_string(), "device fake:0: planted failure");
        assert_eq!(error.is_temporary(), temporary);
        assert!(!is_finished(&output).await);
    }
}

#[tokio::test]
async fn a_code_outside_the_codebook_is_never_written() {
    let (source, plan) = scene().await;
    for code in [CODEBOOK_SIZE as i16, -1] {
        let (_, output) = memory_output();
        let error = tokenize_with(&plan, &source, &output, &encoder().wrong_code_at(0, code)).await.expect_err("range");
        assert_eq!(error.to_string(), format!("device fake:0: gave code {code}, but the codebook has {CODEBOOK_SIZE}"));
        assert!(!error.is_temporary());
    }
}

#[tokio::test]
async fn an_encoder_that_panics_panics_in_the_caller() {
    let (source, plan) = scene().await;
    let (_, output) = memory_output();
    let run = run_of(&plan, &source, &output, &encoder().panic_at(1));
    let panic = end_of(&mut background(tokenize(run))).await.expect_err("the panic arrives").into_panic();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"planted panic"));
    assert!(!is_finished(&output).await);
}

#[tokio::test]
async fn an_encoder_that_cannot_be_built_ends_the_run_before_anything_is_read() {
    let (source, plan) = scene().await;
    let (_, output) = memory_output();
    let mut run = run_of(&plan, &source, &output, &encoder());
    let telemetry = Arc::clone(&run.common.telemetry);
    run.encoders.push((
        "fake:1".to_owned(),
        Box::new(|| {
            let source = Some("out of memory".into());
            Err(DeviceError { message: "cannot load weights".to_owned(), temporary: false, source })
        }),
    ));
    let error = tokenize(run).await.expect_err("no encoder").to_string();
    assert_eq!(error, "device fake:1: cannot load weights: out of memory");
    assert_eq!(telemetry.snapshot().images_listed, 0);
}

#[tokio::test]
async fn an_encoder_that_stands_still_is_reported_with_the_state_of_every_stage() {
    let (source, plan) = scene().await;
    let (_, output) = memory_output();
    let gate = Gate::default();
    let blocked = encoder().block_at(1, &gate);
    let mut run = run_of(&plan, &source, &output, &blocked);
    run.common.limits.stall_seconds = STALL_SECONDS;
    let mut running = background(tokenize(run));
    wait_until_async("the device to stand in front of the gate", || blocked.batches() == 2).await;
    let error = stalled(&mut running).await;
    gate.open();
    assert!(matches!(error, PipelineError::Stalled { seconds: STALL_SECONDS, .. }), "{error}");
    assert!(error.is_temporary());
    assert!(error.to_string().contains("encode: 3 views, 1 in it"), "{error}");
}

#[tokio::test]
async fn a_source_that_fails_for_good_ends_the_run_without_success() {
    let (_, plan) = scene().await;
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let empty = Storage::from_store(memory, object_store::path::Path::from("in"), "memory:///in");
    let (_, output) = memory_output();
    tokenize_with(&plan, &empty, &output, &encoder()).await.expect_err("the images are gone");
    assert!(!is_finished(&output).await);
}

#[tokio::test]
async fn a_store_that_stalls_is_found_by_the_watchdog() {
    let (source, plan) = scene().await;
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let stalling = FaultStore::new(Arc::clone(&memory));
    stalling.inject(FaultRule::new(Operation::Put, Fault::Stall).on("images/"));
    let store: Arc<dyn ObjectStore> = Arc::clone(&stalling) as _;
    let mut run = run_of(&plan, &source, &storage_over(store), &encoder());
    run.common.limits.stall_seconds = STALL_SECONDS;
    run.common.limits.units_in_flight = 1;
    let mut running = background(tokenize(run));
    wait_until_async("the put that is never answered", || stalling.faults_met() == 1).await;
    let error = stalled(&mut running).await.to_string();
    assert!(error.contains("write: 1 files, 1 in it"), "{error}");
}

#[tokio::test]
async fn too_many_rejects_are_counted_by_reason_and_leave_the_output_unfinished() {
    let (source, plan) = scene().await;
    let (_, output) = memory_output();
    let mut run = run_of(&plan, &source, &output, &encoder());
    run.common.max_reject_rate = 0.05;
    let error = tokenize(run).await.expect_err("three of fourteen");
    assert!(matches!(error, PipelineError::RejectRate { rejected: 3, listed: 14, .. }), "{error}");
    assert!(
        error.to_string().contains("above the limit of 5 %") && error.to_string().contains("unsupported 2"),
        "{error}"
    );
    assert!(!is_finished(&output).await);
    // The tables are there: a higher limit finishes without encoding anything again.
    let mut run = run_of(&plan, &source, &output, &encoder());
    run.encoders = Vec::new();
    assert!(tokenize(run).await.expect("a higher limit").finalized);
}

#[tokio::test]
async fn a_source_without_one_image_is_an_error() {
    let source = memory_source(&sample(3), SourceLayout::Webdataset).await;
    let plan = plan(&source, settings(SourceLayout::Webdataset)).await;
    // Shards with labels and no image would list nothing; an empty tar does too.
    let store = InMemory::new();
    let empty = Storage::from_store(Arc::new(store), object_store::path::Path::from("in"), "memory:///in");
    for input in plan.inputs().iter() {
        let name = input.uri.rsplit('/').next().expect("a name");
        empty.put_create(name, vec![0; 1024].into()).await.expect("memory");
    }
    let plan = crate::run_support::plan(&empty, settings(SourceLayout::Webdataset)).await;
    let (_, output) = memory_output();
    let error = tokenize_with(&plan, &empty, &output, &encoder()).await.expect_err("no image").to_string();
    assert!(error.contains("3 inputs, but not one image in them"), "{error}");
}

#[tokio::test]
async fn another_plan_is_refused_by_the_names_of_what_differs_and_writes_nothing() {
    let (source, plan) = scene().await;
    let (_, output) = memory_output();
    tokenize_with(&plan, &source, &output, &encoder()).await.expect("the first plan");
    let before = contents(&output).await;
    let mut other = settings(SourceLayout::Folder);
    if let schemas::Origin::Images(images) = &mut other.origin {
        images.crop = Crop::AdmCenter { size: 16 };
    }
    other.precision = "bf16".to_owned();
    let other = crate::run_support::plan(&source, other).await;
    let error = tokenize_with(&other, &source, &output, &encoder()).await.expect_err("another plan");
    let PipelineError::PlanConflict { plan: owner, differences, .. } = &error else { panic!("{error}") };
    assert_eq!(owner, plan.hash().short());
    assert_eq!(
        differences,
        &["crop: adm-center-8-flip in the output, adm-center-16 here", "precision: fp32 in the output, bf16 here"]
    );
    assert!(!error.is_temporary());
    assert_eq!(contents(&output).await, before);
}

#[tokio::test]
async fn other_inputs_are_named_five_of_them_with_a_count() {
    let (source, plan) = scene().await;
    let (_, output) = memory_output();
    claim_output(&output, &plan).await.expect("claimed");
    assert_eq!(read_plan(&output).await.expect("reads").as_ref(), Some(plan.as_ref()));
    let mut inputs: Vec<_> = plan.inputs().iter().collect();
    for input in &mut inputs[..7] {
        input.size += 1;
    }
    let removed = inputs.remove(9).uri;
    inputs.insert(9, schemas::PlannedInput { uri: "memory:///in/new.png".to_owned(), ..inputs[9].clone() });
    let other = Plan::try_new(plan.settings().clone(), plan.class_names().to_vec(), inputs).expect("a plan");
    let error = claim_output(&output, &other).await.expect_err("other inputs").to_string();
    assert!(error.contains("1 inputs added since: memory:///in/new.png"), "{error}");
    assert!(error.contains(&format!("1 inputs no longer there: {removed}")), "{error}");
    assert!(
        error.contains("7 inputs changed (size, etag or label): memory:///in/n00000000/") && error.contains(", …"),
        "{error}"
    );
    assert_eq!(error.matches("n00000000/").count(), 5, "{error}");
    drop(source);
}

#[tokio::test]
async fn a_damaged_plan_is_named_with_its_file() {
    let (_, plan) = scene().await;
    let (_, output) = memory_output();
    claim_output(&output, &plan).await.expect("claimed");
    let path = schemas::plan_path(plan.hash());
    let whole = output.get(&path).await.expect("there");
    for damaged in [whole.slice(..whole.len() / 2), whole.slice(..9), vec![0; 40].into()] {
        output.put_replace(&path, damaged).await.expect("replaced");
        let error = read_plan(&output).await.expect_err("damaged").to_string();
        assert!(error.contains(&path), "{error}");
    }
}

#[tokio::test]
async fn of_two_plans_at_once_exactly_one_owns_the_output() {
    let (source, plan) = scene().await;
    let mut other = settings(SourceLayout::Folder);
    other.batch_size = 4;
    let other = crate::run_support::plan(&source, other).await;
    for _ in 0..10 {
        let (_, output) = memory_output();
        let (left, right) = tokio::join!(claim_output(&output, &plan), claim_output(&output, &other));
        assert!(left.is_ok() != right.is_ok());
        let owner = read_plan(&output).await.expect("reads").expect("an owner");
        assert_eq!(owner.hash(), if left.is_ok() { plan.hash() } else { other.hash() });
    }
}

#[tokio::test]
async fn a_store_that_overwrites_where_it_should_create_is_refused_before_any_table_is_written() {
    let (source, plan) = scene().await;
    let (memory, _) = memory_output();
    let careless = FaultStore::new(memory);
    careless.inject(FaultRule::new(Operation::Put, Fault::IgnoredCondition).forever());
    let store: Arc<dyn ObjectStore> = careless;
    let output = storage_over(store);
    for _ in 0..2 {
        // Starting again does not talk it round.
        let error = tokenize_with(&plan, &source, &output, &encoder()).await.expect_err("refused");
        assert!(error.to_string().contains("If-None-Match") && !error.is_temporary(), "{error}");
    }
    assert!(output.list("tokens").await.expect("memory").is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_start_is_spread_by_rank_and_can_be_stopped() {
    let (source, plan) = scene().await;
    let (_, output) = memory_output();
    let mut run = run_of(&plan, &source, &output, &encoder());
    run.common.start_jitter = Duration::from_secs(60);
    run.common.process = pipeline::ProcessRank { rank: 1, world_size: 2, origin: pipeline::RankOrigin::Options };
    let cancel = run.common.cancel.clone();
    let mut running = background(tokenize(run));
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert!(running.try_join_next().is_none());
    assert_eq!(read_plan(&output).await.expect("reads"), None, "nothing is claimed before the pause is over");
    cancel.cancel();
    assert!(end_of(&mut running).await.expect("no panic").expect_err("stopped").is_drained());
}
