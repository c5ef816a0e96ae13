//! The server against `object_store`'s own client.

use super::*;
use futures::TryStreamExt;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig, aws::AmazonS3Builder, path::Path,
};
use std::time::Duration;

/// Far above what an answer takes on any machine.
const PATIENT: Duration = Duration::from_secs(60);

fn client(server: &S3Server) -> impl ObjectStore + use<> {
    client_that_waits(server, PATIENT)
}

/// For `fault`: one that waits only as long as it must where the server is silent on purpose. There, a machine with much else to do may be
/// taken for silent too, which costs an attempt.
fn client_for(server: &S3Server, fault: Fault) -> impl ObjectStore + use<> {
    client_that_waits(server, if FaultRule::new(fault).is_silent() { Duration::from_millis(300) } else { PATIENT })
}

fn client_that_waits(server: &S3Server, silence: Duration) -> impl ObjectStore + use<> {
    // As `pipeline` does before it makes a client.
    drop(rustls::crypto::ring::default_provider().install_default());
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(1), max_backoff: Duration::from_millis(5), base: 2.0 };
    AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_bucket_name("bucket")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_retry(RetryConfig { backoff, max_retries: 100, retry_timeout: PATIENT })
        .with_client_options(
            ClientOptions::new().with_allow_http(true).with_timeout_disabled().with_read_timeout(silence),
        )
        .build()
        .expect("a client")
}

fn create() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

#[tokio::test]
async fn an_object_is_stored_once_and_read_whole_or_in_part() {
    let server = S3Server::start();
    let store = client(&server);
    let path = Path::from("tokens/split=train/part 1+.parquet");
    store.put_opts(&path, PutPayload::from_static(b"0123456789"), create()).await.expect("the first put");
    let second = store.put_opts(&path, PutPayload::from_static(b"other"), create()).await;
    assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
    assert_eq!(store.get_range(&path, 2..5).await.expect("a range"), "234");
    let whole = store.get(&path).await.expect("the object");
    let etag = whole.meta.e_tag.clone();
    assert_eq!(whole.bytes().await.expect("its body"), "0123456789");
    assert_eq!(store.head(&path).await.expect("its head").e_tag, etag);
    server.put("bucket/tokens/split=train/part 1+.parquet", "changed");
    let changed = store.get_opts(&path, GetOptions { if_match: etag, ..GetOptions::default() }).await;
    assert!(matches!(changed, Err(Error::Precondition { .. })), "{changed:?}");
    store.delete(&path).await.expect("delete");
    assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_listing_has_every_key_once_whatever_the_page_size() {
    let server = S3Server::start();
    let store = client(&server);
    for number in 0..25 {
        server.put(&format!("bucket/a/{}/{number:02}", number % 3), "x");
        server.put(&format!("bucket/other/{number}"), "x");
    }
    for page_size in [1, 2, 7, 1000] {
        server.set_page_size(page_size);
        let prefix = Path::from("a");
        let listed: Vec<_> = store.list(Some(&prefix)).try_collect().await.expect("a listing");
        let mut keys: Vec<_> = listed.iter().map(|meta| meta.location.to_string()).collect();
        keys.dedup();
        assert_eq!(keys.len(), 25, "pages of {page_size}");
        let folders = store.list_with_delimiter(Some(&prefix)).await.expect("a listing by folder");
        assert_eq!((folders.common_prefixes.len(), folders.objects.len()), (3, 0), "pages of {page_size}");
    }
}

#[tokio::test]
async fn a_multipart_upload_is_whole_or_not_there() {
    let server = S3Server::start();
    let store = client(&server);
    let path = Path::from("large");
    let mut upload = store.put_multipart(&path).await.expect("an upload");
    upload.put_part(vec![1_u8; 10].into()).await.expect("a part");
    upload.put_part(vec![2_u8; 5].into()).await.expect("a part");
    assert!(server.objects("bucket").is_empty());
    upload.complete().await.expect("complete");
    assert_eq!(server.objects("bucket")["large"].len(), 15);
    let mut upload = store.put_multipart(&Path::from("given up")).await.expect("an upload");
    upload.put_part(vec![1_u8; 10].into()).await.expect("a part");
    upload.abort().await.expect("abort");
    assert_eq!((server.objects("bucket").len(), server.open_uploads()), (1, 0));
}

#[tokio::test]
async fn faults_that_pass_are_outlasted_by_the_client() {
    let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    for fault in [
        Fault::SlowDown,
        Fault::InternalError,
        Fault::HangUp,
        Fault::Stall,
        Fault::ResetBody,
        Fault::TruncateBody,
        Fault::StallBody,
    ] {
        let server = S3Server::start();
        server.put("bucket/object", body.clone());
        server.inject(FaultRule::new(fault).on(RequestKind::Get).times(2));
        let read = client_for(&server, fault)
            .get(&Path::from("object"))
            .await
            .expect("an answer")
            .bytes()
            .await
            .expect("a body");
        assert_eq!((read.as_ref() == body, server.faults_served()), (true, 2), "{fault:?}");
    }
}

#[tokio::test]
async fn a_put_that_was_carried_out_and_not_confirmed_is_there() {
    for fault in [Fault::CommitThenError, Fault::CommitThenHangUp, Fault::CommitThenStall, Fault::Conflict] {
        let server = S3Server::start();
        server.inject(FaultRule::new(fault).on(RequestKind::Put).times(1));
        let put = client_for(&server, fault)
            .put_opts(&Path::from("object"), PutPayload::from_static(b"bytes"), create())
            .await;
        assert!(put.is_err(), "{fault:?}: {put:?}");
        assert_eq!(server.objects("bucket").contains_key("object"), fault != Fault::Conflict, "{fault:?}");
    }
}

#[test]
fn a_rule_strikes_what_it_names_and_no_more() {
    let mut rule = FaultRule::new(Fault::SlowDown).on(RequestKind::Put).path_contains("_state").after(1).times(1);
    assert_eq!(rule.strike(RequestKind::Get, "b/_state/1"), None);
    assert_eq!(rule.strike(RequestKind::Put, "b/tokens/1"), None);
    let strikes: Vec<_> = (0..3).map(|_| rule.strike(RequestKind::Put, "b/_state/1").is_some()).collect();
    assert_eq!(strikes, [false, true, false]);
    let mut some = FaultRule::new(Fault::SlowDown).fraction(0.25, 7);
    let struck = (0..1000).filter(|_| some.strike(RequestKind::Get, "b/x").is_some()).count();
    assert!((200..300).contains(&struck), "{struck}");
}
