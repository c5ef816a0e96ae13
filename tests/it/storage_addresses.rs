use crate::workspace;
use tests::{
    digest,
    s3_server::{Fault, FaultRule, RequestKind, S3Server},
    workspace::run,
};

/// The query of a signed URL. It is a credential.
const SIGNATURE: &str =
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=key%2F20260101&X-Amz-Signature=c0ffee-that-must-not-be-shown";

#[test]
fn a_signed_url_that_is_good_for_get_alone_is_read_and_never_shown() {
    let (workspace, server) = (workspace(), S3Server::start());
    let sample = workspace.sample_folder(12);
    sample.write_webdataset(&workspace.path("shards"), 1);
    server.put_folder("bucket/a+b/shards", &workspace.path("shards"));
    server.answer_only_signed(SIGNATURE);
    let name = server.objects("bucket/a+b/shards").into_keys().next().expect("a shard");
    let address = format!("{}/bucket/a%2Bb/shards/{name}", server.endpoint());

    let finished = run(&mut workspace.tokenize(&format!("{address}?{SIGNATURE}"), "signed")).expect_code(0);
    let files = workspace.files("signed");
    assert_eq!(tests::tables::tokens(&files).len(), sample.good());
    assert_eq!(server.requests(RequestKind::Head), 0, "HEAD is refused by such URLs, so nobody needs to try");
    for said in [&finished.stdout, &finished.stderr] {
        assert!(!said.contains("c0ffee"), "{said}");
    }
    for (path, bytes) in &files {
        let holds = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        assert!(!holds(b"c0ffee"), "{path} holds the signature");
    }
    // What was frozen is the object, not who may read it: another signature goes on with the same plan.
    server.answer_only_signed("sig=another");
    run(&mut workspace.tokenize(&format!("{address}?sig=another"), "signed")).expect_code(0);

    let refused = run(&mut workspace.tokenize(&format!("{address}?sig=c0ffee"), "refused")).expect_code(42);
    let refused = refused.expect_message(&["the signed URL is not accepted", "have expired", &name]);
    assert!(!refused.stderr.contains("c0ffee"), "{}", refused.stderr);
}

#[test]
fn a_web_server_that_lists_nothing_is_asked_once_and_the_error_says_what_was_tried() {
    let (workspace, server) = (workspace(), S3Server::start());
    workspace.sample_folder(2);
    server.put_folder("bucket/images", &workspace.path("images"));
    let address = format!("{}/bucket/images", server.endpoint());
    let finished = run(&mut workspace.tokenize(&address, "out")).expect_code(42);
    finished.expect_message(&["PROPFIND", "501", "lists no folders", "{0000..1023}"]);
    assert_eq!(server.requests(RequestKind::Other), 1);
}

#[test]
fn a_web_server_without_lengths_is_refused_in_words() {
    let (workspace, server) = (workspace(), S3Server::start());
    let sample = workspace.sample_folder(6);
    sample.write_webdataset(&workspace.path("shards"), 1);
    server.put_folder("bucket/shards", &workspace.path("shards"));
    let name = server.objects("bucket/shards").into_keys().next().expect("a shard");
    let address = format!("{}/bucket/shards/{name}", server.endpoint());
    // A range tells the length where HEAD does not.
    server.inject(FaultRule::new(Fault::NoLength).on(RequestKind::Head));
    run(&mut workspace.tokenize(&address, "out")).expect_code(0);
    assert!(server.faults_served() > 0);
    let digests = digest::table_digests(&workspace.files("out"));
    assert!(!digests.is_empty());

    server.heal();
    server.inject(FaultRule::new(Fault::NoLength));
    run(&mut workspace.tokenize(&address, "none")).expect_code(42).expect_message(&["no Content-Length", &name]);
}

#[test]
fn a_store_where_nobody_listens_is_a_temporary_failure() {
    let workspace = workspace();
    workspace.sample_folder(2);
    let server = S3Server::start();
    let mut command = workspace.tokenize("s3://bucket/images", "out");
    // The first port of all: nobody listens there, and only root could.
    command.envs(server.environment()).env("AWS_ENDPOINT", "http://127.0.0.1:1");
    let finished = run(command.args(["--retry-attempts", "2"])).expect_code(75);
    finished.expect_message(&["s3://bucket/images"]);
}
