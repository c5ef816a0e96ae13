use crate::workspace;
use std::process::Command;
use tests::{
    digest,
    s3_server::{Fault, FaultRule, RequestKind, S3Server},
    sample::Sample,
    tables,
    workspace::{SHORT_SILENCE, Workspace, run},
};

/// The table of docs/storage.md that [`STORE_ANSWERS`] is.
const DOCUMENT: &str = include_str!("../../docs/storage.md");

/// A row: what is answered, to which requests, by what fault; the exit code, and words of what restok says.
type StoreAnswerRow = (&'static str, RequestKind, Fault, i32, &'static str);

/// Every answer of a store that has a meaning of its own, and how a run ends that gets it for good.
const STORE_ANSWERS: [StoreAnswerRow; 28] = [
    ("500 InternalError", RequestKind::Get, Fault::InternalError, 75, "500 InternalError"),
    ("503 SlowDown", RequestKind::Get, Fault::SlowDown, 75, "503 SlowDown"),
    ("503 SlowDown", RequestKind::List, Fault::SlowDown, 75, "503 SlowDown"),
    ("503 SlowDown", RequestKind::Put, Fault::SlowDown, 75, "503 SlowDown"),
    ("504 GatewayTimeout", RequestKind::Get, Fault::Refused(504, "GatewayTimeout"), 75, "504 GatewayTimeout"),
    ("429 TooManyRequests", RequestKind::Get, Fault::Refused(429, "TooManyRequests"), 75, "429 TooManyRequests"),
    ("400 RequestTimeout", RequestKind::Get, Fault::Refused(400, "RequestTimeout"), 75, "400 RequestTimeout"),
    ("409 ConditionalRequestConflict", RequestKind::Put, Fault::Conflict, 75, "409 ConditionalRequestConflict"),
    ("nothing, and hangs up", RequestKind::Get, Fault::HangUp, 75, "s3://bucket/images/"),
    ("nothing at all", RequestKind::Get, Fault::Stall, 75, "s3://bucket/images/"),
    ("half of a body", RequestKind::Get, Fault::TruncateBody, 75, "s3://bucket/images/"),
    ("301 PermanentRedirect", RequestKind::List, Fault::InRegion("eu-west-3"), 42, "set AWS_REGION=eu-west-3"),
    ("301 PermanentRedirect", RequestKind::Put, Fault::InRegion("eu-west-3"), 42, "set AWS_REGION=eu-west-3"),
    ("400 ExpiredToken", RequestKind::List, Fault::Refused(400, "ExpiredToken"), 42, "the credentials have expired"),
    ("400 ExpiredToken", RequestKind::Get, Fault::Refused(400, "ExpiredToken"), 42, "the credentials have expired"),
    ("400 InvalidToken", RequestKind::List, Fault::Refused(400, "InvalidToken"), 42, "AWS_SESSION_TOKEN"),
    ("403 AccessDenied", RequestKind::List, Fault::AccessDenied, 42, "may not do this"),
    ("403 AccessDenied", RequestKind::Get, Fault::AccessDenied, 42, "may not do this"),
    ("403 AccessDenied", RequestKind::Put, Fault::AccessDenied, 42, "may not do this"),
    ("403 InvalidAccessKeyId", RequestKind::List, Fault::Refused(403, "InvalidAccessKeyId"), 42, "AWS_ACCESS_KEY_ID"),
    (
        "403 SignatureDoesNotMatch",
        RequestKind::List,
        Fault::Refused(403, "SignatureDoesNotMatch"),
        42,
        "AWS_SECRET_ACCESS_KEY",
    ),
    (
        "403 RequestTimeTooSkewed",
        RequestKind::List,
        Fault::Refused(403, "RequestTimeTooSkewed"),
        42,
        "the clock of this machine",
    ),
    ("403 InvalidObjectState", RequestKind::Get, Fault::Refused(403, "InvalidObjectState"), 42, "restore it first"),
    ("404 NoSuchBucket", RequestKind::List, Fault::Refused(404, "NoSuchBucket"), 42, "no bucket of this name"),
    ("404 NoSuchBucket", RequestKind::Put, Fault::Refused(404, "NoSuchBucket"), 42, "no bucket of this name"),
    ("405 MethodNotAllowed", RequestKind::Get, Fault::Refused(405, "MethodNotAllowed"), 42, "405 MethodNotAllowed"),
    ("501 NotImplemented", RequestKind::Put, Fault::Refused(501, "NotImplemented"), 42, "If-None-Match"),
    ("no Content-Length", RequestKind::Get, Fault::NoLength, 42, "no Content-Length"),
];

/// A bucket with images in two layouts, and the digests of a run over each while the store was well.
struct Bucket {
    workspace: Workspace,
    server: S3Server,
    sample: Sample,
}

impl Bucket {
    fn new() -> Self {
        let (workspace, server) = (workspace(), S3Server::start());
        let sample = workspace.sample_folder(48);
        sample.write_webdataset(&workspace.path("shards"), 3);
        sample.write_parquet(&workspace.path("hub"), 3);
        for folder in ["images", "shards", "hub"] {
            server.put_folder(&format!("bucket/{folder}"), &workspace.path(folder));
        }
        Self { workspace, server, sample }
    }

    fn tokenize(&self, source: &str, output: &str) -> Command {
        let mut command = self.workspace.tokenize(&format!("s3://bucket/{source}"), &format!("s3://bucket/{output}"));
        command.envs(self.server.environment());
        command
    }

    /// Runs to a fresh output with the faults in force, and holds the tables to those of a run without.
    fn survives(&self, what: &str, source: &str, rules: impl IntoIterator<Item = FaultRule>) {
        let clean = format!("clean-{}", source.split('/').next().unwrap_or(source));
        if self.server.objects(&format!("bucket/{clean}")).is_empty() {
            run(&mut self.tokenize(source, &clean)).expect_code(0);
        }
        let expected = digest::table_digests(&self.server.objects(&format!("bucket/{clean}")));
        let (output, served) = (format!("out {what}").replace(['/', '*'], "-"), self.server.faults_served());
        let mut is_silent = false;
        for rule in rules {
            is_silent |= rule.is_silent();
            self.server.inject(rule);
        }
        let mut command = self.tokenize(source, &output);
        if is_silent {
            command.args(SHORT_SILENCE);
        }
        let finished = run(&mut command);
        self.server.heal();
        let finished = finished.expect_code(0);
        assert!(self.server.faults_served() > served, "{what}: no request met its fault");
        let objects = self.server.objects(&format!("bucket/{output}"));
        assert_eq!(digest::table_digests(&objects), expected, "{what}");
        assert!(digest::is_finished(&objects), "{what}");
        assert_eq!(tables::tokens(&objects).len(), self.sample.good(), "{what}");
        assert!(!finished.stderr.contains("secret-that") && !finished.stdout.contains("secret-that"), "{what}");
    }
}

#[test]
fn a_source_that_answers_badly_is_read_to_the_last_image() {
    let bucket = Bucket::new();
    for source in ["images", "shards/*.tar", "hub/*.parquet"] {
        let busy = [FaultRule::new(Fault::SlowDown).on(RequestKind::Get).fraction(0.3, 3)];
        bucket.survives(&format!("busy {source}"), source, busy);
        let broken = [
            FaultRule::new(Fault::ResetBody).on(RequestKind::Get).fraction(0.15, 4),
            FaultRule::new(Fault::TruncateBody).on(RequestKind::Get).fraction(0.15, 5),
            FaultRule::new(Fault::HangUp).on(RequestKind::Get).fraction(0.15, 6),
            FaultRule::new(Fault::InternalError).on(RequestKind::Get).fraction(0.15, 7),
        ];
        bucket.survives(&format!("broken {source}"), source, broken);
        let silent = [
            FaultRule::new(Fault::StallBody).on(RequestKind::Get).path_contains("bucket/").after(1).times(1),
            FaultRule::new(Fault::Stall).on(RequestKind::Get).after(1).times(1),
        ];
        bucket.survives(&format!("silent {source}"), source, silent);
    }
}

#[test]
fn listings_and_heads_that_fail_are_asked_again() {
    let bucket = Bucket::new();
    bucket.server.set_page_size(7);
    let rules =
        [RequestKind::List, RequestKind::Head].map(|kind| FaultRule::new(Fault::SlowDown).on(kind).fraction(0.4, 8));
    bucket.survives("paged", "images", rules);
}

#[test]
fn an_output_that_answers_badly_gets_every_row_once() {
    let bucket = Bucket::new();
    for fault in [
        Fault::SlowDown,
        Fault::InternalError,
        Fault::Conflict,
        Fault::HangUp,
        Fault::CommitThenError,
        Fault::CommitThenHangUp,
    ] {
        bucket.survives(
            &format!("{fault:?}"),
            "shards/*.tar",
            [FaultRule::new(fault).on(RequestKind::Put).fraction(0.4, 9)],
        );
    }
}

#[test]
fn every_put_may_time_out_after_it_was_carried_out() {
    let bucket = Bucket::new();
    // One of each kind of object that a run puts, so that each way of finding one's own earlier success is walked.
    for part in ["/_plan/", "/tokens/", "/images/split", "/_state/", "/_manifest.json", "/_SUCCESS"] {
        let rule = FaultRule::new(Fault::CommitThenStall).on(RequestKind::Put).path_contains(part).times(1);
        bucket.survives(&format!("timeout{}", part.replace('/', "-")), "shards/*.tar", [rule]);
    }
}

#[test]
fn a_store_that_stays_down_is_a_temporary_failure_and_the_same_command_goes_on() {
    let bucket = Bucket::new();
    run(&mut bucket.tokenize("images", "clean")).expect_code(0);
    for (kind, part) in [(RequestKind::Put, "/tokens/"), (RequestKind::Get, "bucket/images/")] {
        let output = format!("out-{kind:?}");
        // The first few are well, so that the outage comes in the middle of the work.
        bucket.server.inject(FaultRule::new(Fault::SlowDown).on(kind).path_contains(part).after(3));
        let failed = run(bucket.tokenize("images", &output).args(["--retry-attempts", "4"])).expect_code(75);
        failed.expect_message(&["s3://bucket/", part.trim_start_matches("bucket/").trim_matches('/')]);
        assert!(!digest::is_finished(&bucket.server.objects(&format!("bucket/{output}"))));
        bucket.server.heal();
        run(&mut bucket.tokenize("images", &output)).expect_code(0);
        let digests = |output: &str| digest::table_digests(&bucket.server.objects(&format!("bucket/{output}")));
        assert_eq!(digests(&output), digests("clean"));
    }
}

#[test]
fn a_store_that_refuses_access_is_a_permanent_failure_that_names_the_object() {
    let bucket = Bucket::new();
    bucket.server.inject(FaultRule::new(Fault::AccessDenied).on(RequestKind::Put));
    run(&mut bucket.tokenize("images", "out")).expect_code(42).expect_message(&["s3://bucket/out/_plan"]);
    bucket.server.heal();
    bucket.server.inject(FaultRule::new(Fault::AccessDenied).on(RequestKind::List));
    run(&mut bucket.tokenize("images", "out")).expect_code(42).expect_message(&["s3://bucket/images"]);
}

#[test]
fn an_object_that_changed_or_vanished_since_the_plan_ends_the_run_by_its_name() {
    for vanish in [false, true] {
        let bucket = Bucket::new();
        let image = bucket.sample.images.last().expect("a sample").clone();
        let key = format!("images/{}/{}.JPEG", tests::sample::CLASSES[image.label], image.stem);
        // Its first answer never comes; while the program waits, somebody replaces or removes the object.
        let other = (!vanish).then(|| bucket.sample.images[0].bytes.clone().into());
        let rule = FaultRule::new(Fault::Stall).on(RequestKind::Get).path_contains(&key).times(1);
        bucket.server.inject(rule.after_change(&format!("bucket/{key}"), other));
        let finished = run(bucket.tokenize("images", "out").args(SHORT_SILENCE));
        assert!(bucket.server.faults_served() > 0, "{key} was never asked for");
        finished.expect_code(42).expect_message(&[&key, "since the plan was made"]);
        assert!(!digest::is_finished(&bucket.server.objects("bucket/out")));
        // The next start plans anew, and what it finds is another plan: it says which input differs.
        let message: &[&str] = &["another plan", &key];
        run(&mut bucket.tokenize("images", "out")).expect_code(42).expect_message(message);
    }
}

#[test]
fn an_output_that_loses_a_file_is_not_closed() {
    let bucket = Bucket::new();
    run(bucket.tokenize("shards/*.tar", "out").arg("--no-finalize")).expect_code(0);
    let objects = bucket.server.objects("bucket/out");
    let lost = objects.keys().find(|path| path.starts_with("tokens/")).expect("a tokens file");
    bucket.server.remove(&format!("bucket/out/{lost}"));
    for command in ["finalize", "verify"] {
        let mut restok = bucket.workspace.restok([command, "s3://bucket/out"]);
        restok.env("RESTOK_MAX_REJECT_RATE", "50%");
        let finished = run(restok.envs(bucket.server.environment())).expect_code(42);
        assert!(
            format!("{}{}", finished.stdout, finished.stderr).contains(lost.as_str()),
            "{command} does not name {lost}"
        );
    }
    assert!(!digest::is_finished(&bucket.server.objects("bucket/out")));
}

#[test]
fn every_answer_of_a_store_ends_a_run_as_the_table_says() {
    let bucket = Bucket::new();
    for (row, (answer, kind, fault, code, words)) in STORE_ANSWERS.into_iter().enumerate() {
        let request = match kind {
            RequestKind::Get => "GET",
            RequestKind::List => "listing",
            RequestKind::Put => "PUT",
            other => panic!("{other:?} has no word in the table"),
        };
        let documented = format!("| {answer} | {request} | {code} |");
        assert!(DOCUMENT.contains(&documented), "docs/storage.md has no row {documented}");
        // Of the images alone, and not of what the run itself has put: its plan would be asked for again and found.
        let path = if kind == RequestKind::Put { "bucket/out" } else { "bucket/images" };
        bucket.server.inject(FaultRule::new(fault).on(kind).path_contains(path));
        let mut command = bucket.tokenize("images", &format!("out-{row}"));
        command.args(["--retry-attempts", "2"]);
        if FaultRule::new(fault).is_silent() {
            command.args(SHORT_SILENCE);
        }
        let finished = run(&mut command);
        bucket.server.heal();
        let finished = finished.expect_code(code).expect_message(&["s3://bucket/", words]);
        assert!(!finished.stderr.contains("secret-that"), "{answer}");
    }
    let rows = DOCUMENT.lines().filter(|line| line.contains("| 75 |") || line.contains("| 42 |")).count();
    assert_eq!(rows, STORE_ANSWERS.len(), "docs/storage.md has rows that are not tried here");
}

#[test]
fn a_store_that_refuses_head_alone_is_read_by_get() {
    let bucket = Bucket::new();
    for fault in [
        Fault::AccessDenied,
        Fault::Refused(405, "MethodNotAllowed"),
        Fault::Refused(501, "NotImplemented"),
        Fault::NoLength,
    ] {
        bucket.survives(
            &format!("{fault:?}").replace(['(', ')', '"', ',', ' '], "-"),
            "shards/sample-{0000..0002}.tar",
            [FaultRule::new(fault).on(RequestKind::Head).path_contains("bucket/shards")],
        );
    }
}

#[test]
fn a_store_that_is_asked_again_is_named_with_the_request() {
    let bucket = Bucket::new();
    bucket.server.inject(FaultRule::new(Fault::SlowDown).on(RequestKind::List).path_contains("bucket/images").times(1));
    let finished = run(&mut bucket.tokenize("images", "out")).expect_code(0);
    let line = finished.stderr.lines().find(|line| line.contains("asking again")).expect("a line about the attempt");
    for part in ["s3://bucket/images", "GET http://127.0.0.1", "503"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[test]
fn names_that_no_client_can_ask_for_do_not_end_a_listing() {
    let bucket = Bucket::new();
    run(&mut bucket.tokenize("images", "clean")).expect_code(0);
    let clean = digest::table_digests(&bucket.server.objects("bucket/clean"));
    for key in ["/lead.txt", "n01440764//b.txt", "n01440764/./c.txt", "n01440764/new\nline.txt"] {
        bucket.server.put(&format!("bucket/images/{key}"), "no image");
    }
    bucket.server.put("bucket/images/n01440764/", "");
    bucket.server.put("bucket/images/", "");
    run(&mut bucket.tokenize("images", "odd")).expect_code(0);
    assert_eq!(digest::table_digests(&bucket.server.objects("bucket/odd")), clean);
}
