//! Storage: create-only writes that find out what happened, reads that notice short bodies, lists that are sorted.

use bytes::Bytes;
use object_store::{ObjectStore, memory::InMemory, path::Path};
use pipeline::{
    Limits, PipelineError, PutOutcome, Storage,
    testing::{Fault, FaultRule, FaultStore, Operation},
};
use std::sync::Arc;

fn faulty() -> (Arc<FaultStore>, Storage) {
    let faults = FaultStore::new(Arc::new(InMemory::new()));
    let store: Arc<dyn ObjectStore> = Arc::clone(&faults) as _;
    (faults, Storage::from_store(store, Path::from("out"), "memory:///out"))
}

#[tokio::test]
async fn a_second_write_keeps_the_first_and_says_whether_it_was_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let local = Storage::open_output(&folder.path().display().to_string(), &Limits::default()).expect("a path opens");
    let (_, memory) = faulty();
    for storage in [local, memory] {
        let (first, other) = (Bytes::from("first"), Bytes::from("other"));
        assert_eq!(storage.put_create("a/b.txt", first.clone()).await.expect("written"), PutOutcome::Created);
        assert_eq!(storage.put_create("a/b.txt", first.clone()).await.expect("seen"), PutOutcome::Same);
        assert_eq!(storage.put_create("a/b.txt", other).await.expect("seen"), PutOutcome::Different(first.clone()));
        assert_eq!(storage.get("a/b.txt").await.expect("read"), first);
        let listed = storage.list("").await.expect("listed");
        assert_eq!(
            listed.iter().map(|object| (object.path.as_str(), object.size)).collect::<Vec<_>>(),
            [("a/b.txt", 5)]
        );
    }
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_found_to_have_happened() {
    let (faults, storage) = faulty();
    faults.inject(FaultRule::new(Operation::Put, Fault::CommitThenError));
    assert_eq!(storage.put_create("part", Bytes::from("rows")).await.expect("found"), PutOutcome::Same);
    assert_eq!(faults.requests(Operation::Put), 1);
}

#[tokio::test]
async fn a_conflict_with_nothing_there_is_tried_again() {
    let (faults, storage) = faulty();
    faults.inject(FaultRule::new(Operation::Put, Fault::FalseConflict).times(2));
    assert_eq!(storage.put_create("part", Bytes::from("rows")).await.expect("written at last"), PutOutcome::Created);
    assert_eq!(faults.requests(Operation::Put), 3);
}

#[tokio::test]
async fn a_store_that_recovers_gets_the_write_and_one_that_refuses_is_asked_once() {
    let (faults, storage) = faulty();
    faults.inject(FaultRule::new(Operation::Put, Fault::Unavailable).times(2));
    faults.inject(FaultRule::new(Operation::Get, Fault::Unavailable).on("part"));
    assert_eq!(storage.put_create("part", Bytes::from("rows")).await.expect("written"), PutOutcome::Created);

    let (faults, storage) = faulty();
    faults.inject(FaultRule::new(Operation::Put, Fault::Denied).forever());
    let error = storage.put_create("part", Bytes::from("rows")).await.expect_err("refused");
    assert!(!error.is_temporary() && error.to_string().contains("memory:///out/part"), "{error}");
    assert_eq!(faults.requests(Operation::Put), 1);

    let (faults, storage) = faulty();
    faults.inject(FaultRule::new(Operation::Put, Fault::Unavailable).forever());
    let error = storage.put_create("part", Bytes::from("rows")).await.expect_err("gives up");
    assert!(error.is_temporary(), "{error}");
    assert!(faults.requests(Operation::Put) > 1);
}

#[tokio::test]
async fn short_and_broken_bodies_are_asked_for_again() {
    let (faults, storage) = faulty();
    storage.put_create("object", Bytes::from("0123456789")).await.expect("written");
    for fault in [Fault::TruncatedBody(4), Fault::TruncatedBody(0), Fault::BrokenBody(4)] {
        faults.inject(FaultRule::new(Operation::Get, fault));
        assert_eq!(storage.get("object").await.expect("whole"), "0123456789", "{fault:?}");
        faults.inject(FaultRule::new(Operation::Get, fault));
        assert_eq!(storage.get_range("object", 2..7).await.expect("whole"), "23456", "{fault:?}");
    }
    faults.inject(FaultRule::new(Operation::Get, Fault::TruncatedBody(4)).forever());
    let error = storage.get("object").await.expect_err("never whole");
    assert!(error.is_temporary() && error.to_string().contains("4 of 10 bytes"), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_none_and_never_an_empty_object() {
    let (_, storage) = faulty();
    assert_eq!(storage.get_if_exists("nothing").await.expect("asked"), None);
    assert!(!storage.exists("nothing").await.expect("asked"));
    assert!(storage.list("nothing/").await.expect("listed").is_empty());
    assert!(matches!(storage.get("nothing").await, Err(PipelineError::Storage { action: "read", .. })));
    storage.put_create("empty", Bytes::new()).await.expect("written");
    assert_eq!(storage.get_if_exists("empty").await.expect("asked"), Some(Bytes::new()));
}

#[tokio::test]
async fn lists_are_sorted_and_stay_below_their_folder() {
    let (_, storage) = faulty();
    for path in ["b/2", "b/10", "a", "bb/1", "b/sub/x"] {
        storage.put_create(path, Bytes::from("x")).await.expect("written");
    }
    let paths =
        |objects: Vec<pipeline::StoredObject>| objects.into_iter().map(|object| object.path).collect::<Vec<_>>();
    assert_eq!(paths(storage.list("b/").await.expect("listed")), ["b/10", "b/2", "b/sub/x"]);
    assert_eq!(paths(storage.list("").await.expect("listed")), ["a", "b/10", "b/2", "b/sub/x", "bb/1"]);
}

#[tokio::test]
async fn a_local_output_that_cannot_be_written_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file"), "in the way").expect("a file");
    let url = folder.path().join("file").display().to_string();
    let storage = Storage::open_output(&url, &Limits::default()).expect("a path opens");
    let error = storage.put_create("tokens/part", Bytes::from("rows")).await.expect_err("a file is no folder");
    assert!(error.to_string().contains("a file stands where a folder must be"), "{error}");
    assert!(!error.is_temporary(), "{error}");
}

#[tokio::test]
async fn unusual_names_keep_their_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = "50% [off] {x} ~ä #b.png";
    std::fs::create_dir(folder.path().join("a b")).expect("a folder");
    std::fs::write(folder.path().join("a b").join(name), "pixels").expect("a file");
    let storage = Storage::open(&folder.path().display().to_string(), &Limits::default()).expect("a path opens");
    let listed = storage.list("").await.expect("listed");
    assert_eq!(listed[0].path, format!("a b/{name}"));
    assert_eq!(storage.get(&listed[0].path).await.expect("read"), "pixels");
    let again = Storage::open(&storage.uri("a b"), &Limits::default()).expect("its own address opens");
    assert_eq!(again.get(name).await.expect("read"), "pixels");
}

#[test]
fn plain_http_is_no_output_and_secrets_stay_secret() {
    let error = Storage::open_output("https://me:secret@host/out?sig=secret", &Limits::default()).expect_err("refused");
    assert!(error.to_string().contains("s3://") && !format!("{error} {error:?}").contains("secret"), "{error:?}");
    let storage = Storage::open("https://me:secret@host/in?sig=secret", &Limits::default()).expect("readable");
    assert_eq!(storage.uri("a b.tar"), "https://host/in/a%20b.tar");
    assert!(!format!("{storage:?}").contains("secret"), "{storage:?}");
}
