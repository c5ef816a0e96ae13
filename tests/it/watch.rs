use crate::workspace;
use axum::{Router, body::Bytes, http::Uri};
use pipeline::testing::{returns, wait_until};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};
use tests::{
    s3_server::{Fault, FaultRule, RequestKind, S3Server},
    workspace::{Workspace, run, start},
};

/// One look at `out`.
fn look(workspace: &Workspace) -> serde_json::Value {
    let finished = run(&mut workspace.restok(["watch", "out", "--once", "--format", "json"])).expect_code(0);
    serde_json::from_str(&finished.stdout).expect("a look")
}

/// The state of each worker, by rank.
fn states(look: &serde_json::Value) -> Vec<(u64, String)> {
    let of = |worker: &serde_json::Value| {
        let state = worker["state"].as_str().expect("a state").to_owned();
        (worker["rank"].as_u64().expect("a rank"), state)
    };
    let mut states: Vec<_> = look["workers"].as_array().expect("workers").iter().map(of).collect();
    states.sort_unstable();
    states
}

#[test]
fn two_workers_are_seen_from_outside_until_one_is_killed_and_the_other_stopped_and_the_output_is_finished() {
    let (workspace, server) = (workspace(), S3Server::start());
    let sample = workspace.sample_folder(96);
    server.put_folder("bucket/images", &workspace.path("images"));
    let tokenize = |rank: &str| {
        let mut command = workspace.tokenize_with_units_of(8, "s3://bucket/images", "out");
        command.envs(server.environment());
        command.args(["--rank", rank, "--world-size", "2", "--heartbeat-seconds", "1"]);
        command
    };
    run(&mut workspace.restok(["watch", "out"])).expect_code(42).expect_message(&["no plan is here"]);
    // One image does not come, so that neither worker ends.
    let withheld = format!("{}.JPEG", sample.images.last().expect("a sample").stem);
    server.inject(FaultRule::new(Fault::Stall).on(RequestKind::Get).path_contains(&withheld));
    let (mut first, mut second) = (start(&mut tokenize("0")), start(&mut tokenize("1")));
    let is_there = || workspace.path("out").join(schemas::PLAN_OWNER_PATH).exists();
    assert!(first.wait_until("a plan", is_there), "{}", first.said());
    // All but the one unit that nobody can finish: one of them works on it, or both.
    let both = [(0, "working".to_owned()), (1, "working".to_owned())];
    let at_the_last =
        |look: &serde_json::Value| look["units_done"] == 11 && look["units_in_work"] == 1 && states(look) == both;
    assert!(first.wait_until("the last unit", || at_the_last(&look(&workspace))), "{}", first.said());
    let now = look(&workspace);
    assert_eq!((now["units_total"].as_u64(), now["finished"].as_bool()), (Some(12), Some(false)));
    assert_eq!((now["units_counted"].as_u64(), now["row_counts"]["listed"].as_u64()), (Some(11), Some(88)));

    second.kill();
    assert_eq!(second.finish().status.code(), None);
    let silent = [(0, "working".to_owned()), (1, "silent".to_owned())];
    assert!(first.wait_until("a silent worker", || states(&look(&workspace)) == silent), "{}", first.said());
    let text = run(&mut workspace.restok(["watch", "out", "--once"])).expect_code(0).stdout;
    for part in ["11 of 12 units complete (91.7 %), ", "Fallen silent\n  rank 1, ", "and promised within "] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }

    // Watched all the while, by lines: it ends when the output is finished.
    let mut watching = start(&mut workspace.restok(["watch", "out", "--progress", "lines", "--progress-seconds", "1"]));
    watching.wait_until_said("a worker fell silent");
    first.signal(libc::SIGTERM);
    first.finish().expect_code(143);
    let stopped = look(&workspace);
    assert_eq!(states(&stopped), [(0, "stopped".to_owned()), (1, "silent".to_owned())]);
    assert_eq!((stopped["images_a_second"].as_f64(), &stopped["seconds_left"]), (Some(0.0), &serde_json::Value::Null));
    // The killed one comes again.
    let mut again = start(&mut tokenize("1"));
    let replaced = [(0, "stopped".to_owned()), (1, "working".to_owned())];
    assert!(again.wait_until("another life", || states(&look(&workspace)) == replaced), "{}", again.said());
    again.signal(libc::SIGTERM);
    again.finish().expect_code(143);
    server.heal();
    run(&mut tokenize("1")).expect_code(0);
    let watched = watching.finish().expect_code(0);
    assert!(watched.stdout.contains("finished: 12 units"), "{}", watched.stdout);
    let last = look(&workspace);
    // The last run may have been over before its first heartbeat.
    let (replaced, done) = (last["workers_replaced"].as_u64(), last["units_done"].as_u64());
    assert!(replaced >= Some(1) && done == Some(12), "{last}");

    // Heartbeats are no part of the output.
    let verified = run(&mut workspace.restok(["verify", "out"])).expect_code(0);
    assert!(verified.stdout.contains("Nothing is wrong.") && !verified.stdout.contains("heartbeats"));
    let page = |name: &str| {
        run(&mut workspace.restok(["report", "out", "--to", name])).expect_code(0);
        std::fs::read(workspace.path(name)).expect("a page")
    };
    let with = page("with.html");
    std::fs::remove_dir_all(workspace.path("out/_log/heartbeats")).expect("heartbeats may be deleted");
    assert_eq!(page("without.html"), with);
    assert!(states(&look(&workspace)).is_empty());
}

#[test]
fn watching_ends_with_whoever_reads_the_looks() {
    let workspace = workspace();
    workspace.sample_folder(24);
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    // Without this it is never finished.
    std::fs::remove_file(workspace.path("out").join(schemas::SUCCESS_PATH)).expect("a finished output");
    let mut command = workspace.restok(["watch", "out", "--format", "json"]);
    command.args(["--progress", "lines", "--progress-seconds", "1"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut watching = command.spawn().expect("it starts");
    let mut look = String::new();
    // The pipe is closed behind the first look, as by `head -n 1`.
    let mut looks = BufReader::new(watching.stdout.take().expect("a pipe"));
    returns("the first look", || looks.read_line(&mut look)).expect("a look");
    drop(looks);
    let mut ended = None;
    wait_until("the end of a watch that nobody reads", || {
        ended = watching.try_wait().expect("the state of a child");
        ended.is_some()
    });
    assert_eq!(ended.expect("it has ended").code(), Some(0));
    let look: serde_json::Value = serde_json::from_str(&look).expect("a look");
    assert_eq!((look["finished"].as_bool(), &look["units_done"]), (Some(false), &look["units_total"]));
}

#[test]
fn a_run_without_heartbeats_leaves_none_and_one_that_cannot_write_them_warns_once() {
    let (workspace, server) = (workspace(), S3Server::start());
    let sample = workspace.sample_folder(24);
    server.put_folder("bucket/images", &workspace.path("images"));
    let tokenize = |output: &str, seconds: &str| {
        let mut command = workspace.tokenize("s3://bucket/images", &format!("s3://bucket/{output}"));
        command.envs(server.environment()).args(["--heartbeat-seconds", seconds]);
        command
    };
    let heartbeats = |output: &str| {
        server
            .objects(&format!("bucket/{output}"))
            .into_keys()
            .filter(|path| path.starts_with("_log/heartbeats/"))
            .count()
    };
    run(&mut tokenize("without", "0")).expect_code(0);
    assert_eq!(heartbeats("without"), 0);
    // The first is refused, and so is the second, for which one image waits.
    server.inject(FaultRule::new(Fault::AccessDenied).on(RequestKind::Put).path_contains("_log/heartbeats/"));
    let withheld = format!("{}.JPEG", sample.images.last().expect("a sample").stem);
    server.inject(FaultRule::new(Fault::Stall).on(RequestKind::Get).path_contains(&withheld));
    let before = server.faults_served();
    let mut running = start(&mut tokenize("refused", "1"));
    assert!(running.wait_until("two refusals", || server.faults_served() >= before + 3), "{}", running.said());
    running.signal(libc::SIGTERM);
    let ended = running.finish().expect_code(143);
    assert_eq!(ended.stderr.matches("a heartbeat could not be written").count(), 1, "{}", ended.stderr);
    assert_eq!(heartbeats("refused"), 0);
    server.heal();
    server.inject(FaultRule::new(Fault::Stall).on(RequestKind::Get).path_contains(&withheld));
    let mut running = start(&mut tokenize("refused", "1"));
    assert!(running.wait_until("a heartbeat", || heartbeats("refused") > 0), "{}", running.said());
    running.signal(libc::SIGTERM);
    running.finish().expect_code(143);
    assert!(heartbeats("refused") >= 2, "one at its beginning and one at its end");
    server.heal();
    run(&mut tokenize("refused", "1")).expect_code(0);
}

/// What a fetch gets of the metrics that a process says it serves.
fn fetch(said: &str) -> String {
    let address = said.split("http://").nth(1).and_then(|rest| rest.split("/metrics").next()).expect("an address");
    let mut connection = TcpStream::connect(address).expect("a connection");
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    answer
}

/// The number of a metric in an answer.
fn value(answer: &str, name: &str) -> Option<f64> {
    let line = answer.lines().find(|line| line.starts_with(name) && !line.starts_with('#'))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn metrics_are_fetched_while_a_run_works_and_a_port_in_use_is_said_before_it_begins() {
    let (workspace, server) = (workspace(), S3Server::start());
    let sample = workspace.sample_folder(24);
    server.put_folder("bucket/images", &workspace.path("images"));
    let tokenize = |listen: &str| -> Command {
        let mut command = workspace.tokenize("s3://bucket/images", "out");
        command.envs(server.environment()).args(["--metrics-listen", listen]);
        command
    };
    let withheld = format!("{}.JPEG", sample.images.last().expect("a sample").stem);
    server.inject(FaultRule::new(Fault::Stall).on(RequestKind::Get).path_contains(&withheld));
    let mut running = start(&mut tokenize("127.0.0.1:0"));
    running.wait_until_said("/metrics");
    let said = running.said();
    let done = || value(&fetch(&said), "restok_units_done_total{") == Some(2.0);
    assert!(running.wait_until("two units", done), "{}", running.said());
    let answer = fetch(&said);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("application/openmetrics-text"), "{answer}");
    assert_eq!((value(&answer, "restok_units{"), value(&answer, "restok_units_in_work{")), (Some(3.0), Some(1.0)));
    assert_eq!(value(&answer, "restok_images_read_total{").map(|images| images >= 16.0), Some(true), "{answer}");
    assert!(answer.contains("rank=\"0\"") && answer.contains("stage=\"encode\"") && answer.ends_with("# EOF\n"));

    let port = said.split("http://").nth(1).and_then(|rest| rest.split("/metrics").next()).expect("an address");
    run(&mut tokenize(port)).expect_code(42).expect_message(&["--metrics-listen", port, "free"]);
    running.signal(libc::SIGTERM);
    running.finish().expect_code(143);
}

#[test]
fn a_collector_that_the_environment_names_is_told_until_the_end_of_a_run() {
    let workspace = workspace();
    workspace.sample_folder(24);
    let told: Arc<Mutex<Vec<(String, Bytes)>>> = Arc::default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let telling = Arc::clone(&told);
    let collector = Router::new().fallback(move |uri: Uri, body: Bytes| async move {
        telling.lock().expect("no handler panics").push((uri.path().to_owned(), body));
    });
    runtime.spawn(async move { axum::serve(listener, collector).await });
    let mut tokenize = workspace.tokenize("images", "out");
    tokenize
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
        .env("OTEL_RESOURCE_ATTRIBUTES", "team=vision");
    run(&mut tokenize).expect_code(0).expect_message(&["metrics are pushed"]);
    let told = told.lock().expect("no handler panics");
    // The last push, however short the run. Texts stand in Protocol Buffers as they are.
    let (path, body) = told.last().expect("a push");
    let body = String::from_utf8_lossy(body);
    assert_eq!(path, "/v1/metrics");
    for part in ["restok_units_done", "restok_stage_busy_seconds", "encode", "service.instance.id", "restok", "vision"]
    {
        assert!(body.contains(part), "{part} is not in {body}");
    }
    assert!(!body.contains("restok_training"), "a metric without numbers is not sent");

    // One that nobody answers for does not end a run.
    runtime.shutdown_background();
    let mut unheard = workspace.tokenize("images", "unheard");
    unheard.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
    run(&mut unheard).expect_code(0);
}
