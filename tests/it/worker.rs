//! `restok worker`: the protocol of docs/worker-protocol.md, spoken with the real program.

use crate::workspace;
use pipeline::testing::returns;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
};
use tests::{
    digest,
    s3_server::{Fault, FaultRule, RequestKind, S3Server},
    workspace::{Workspace, run, with_shipped_models},
};

/// A worker, and the engine's ends of its pipes; killed when dropped.
struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// The command of a worker for the job of a plain command.
fn worker_of(job: &Command) -> Command {
    let mut command = Command::new(job.get_program());
    command.arg("worker").args(job.get_args()).env_clear();
    for (name, value) in job.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.current_dir(job.get_current_dir().expect("tests name a folder"));
    command
}

impl Worker {
    fn start(job: &Command) -> Self {
        let mut command = worker_of(job);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    fn ask(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("input has not ended"), "{line}").expect("the worker listens");
    }

    /// The next event that is no progress; null when no more come.
    fn told(&mut self) -> Value {
        returns("an event of the worker", || {
            loop {
                let mut line = String::new();
                self.output.read_line(&mut line).expect("a pipe");
                let event: Value = if line.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
                };
                if event["event"] != "progress" {
                    break event;
                }
            }
        })
    }

    /// The next event, which must be of this name.
    fn expect(&mut self, event: &str) -> Value {
        let told = self.told();
        if told["event"] != event {
            self.child.kill().ok();
            let mut said = String::new();
            self.child.stderr.take().expect("a pipe").read_to_string(&mut said).ok();
            panic!("{told} instead of {event}; it said:\n{said}");
        }
        told
    }

    /// Asks for a unit and waits until it is stored.
    fn make(&mut self, unit: u64) -> Value {
        self.ask(&unit.to_string());
        assert_eq!(self.expect("begun")["unit"], unit);
        let done = self.expect("done");
        assert_eq!(done["unit"], unit);
        done
    }

    /// Ends the input and gives the last event with the exit code.
    fn end(&mut self) -> (Value, Option<i32>) {
        drop(self.input.take());
        let last = self.told();
        assert_eq!(self.told(), Value::Null, "{last} is the last");
        (last, self.wait().code())
    }

    fn wait(&mut self) -> ExitStatus {
        returns("the end of the worker", || self.child.wait().expect("a child"))
    }

    #[expect(unsafe_code, reason = "the standard library sends SIGKILL only")]
    fn terminate(&self) {
        let process = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: kill takes no pointers, and the child is not yet waited for, so its id is its own.
        unsafe { libc::kill(process, libc::SIGTERM) };
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Four units, and the command that makes them into `output`.
fn job(workspace: &Workspace, output: &str) -> Command {
    workspace.tokenize("images", output)
}

#[test]
fn two_workers_make_what_a_plain_run_makes() {
    let workspace = workspace();
    workspace.sample_folder(32);
    run(&mut job(&workspace, "alone")).expect_code(0);
    let (mut first, mut second) =
        (Worker::start(&job(&workspace, "shared")), Worker::start(&job(&workspace, "shared")));
    let ready = first.expect("ready");
    assert_eq!((&ready["protocol"], &ready["job"], &ready["units"]), (&json!(1), &json!("tokenize"), &json!(4)));
    assert_eq!((&ready["missing"], &ready["process_id"]), (&json!([[0, 3]]), &json!(first.child.id())));
    assert_eq!(second.expect("ready")["plan"], ready["plan"]);

    let done = first.make(3);
    assert_eq!((&done["by"], &done["images"]), (&json!("here"), &json!(8)));
    let rejected: u64 = done["rejected"].as_object().expect("by reason").values().filter_map(Value::as_u64).sum();
    assert_eq!(done["rows"].as_u64().map(|rows| rows + rejected), Some(8));
    assert_eq!(second.make(3), json!({ "event": "done", "unit": 3, "by": "elsewhere" }));
    first.ask("4");
    let refused = first.expect("refused");
    assert_eq!((&refused["line"], refused["problem"].as_str().expect("text").contains("0 to 3")), (&json!("4"), true));
    first.ask("two");
    assert_eq!(first.expect("refused")["line"], "two");
    second.make(0);
    second.make(1);
    let (ended, code) = second.end();
    assert_eq!(ended, json!({ "event": "ended", "units_here": 2, "units_left": 1, "finalized": false }));
    assert_eq!(code, Some(0));
    assert!(!digest::is_finished(&workspace.files("shared")));
    first.make(2);
    let (ended, code) = first.end();
    assert_eq!(ended, json!({ "event": "ended", "units_here": 2, "units_left": 0, "finalized": true }));
    assert_eq!(code, Some(0));
    assert_eq!(workspace.digests("shared"), workspace.digests("alone"));
}

#[test]
fn a_worker_drains_on_sigterm_and_says_what_it_dropped() {
    let (workspace, server) = (workspace(), S3Server::start());
    let sample = workspace.sample_folder(32);
    server.put_folder("bucket/images", &workspace.path("images"));
    let mut tokenize = workspace.tokenize("s3://bucket/images", "out");
    tokenize.envs(server.environment()).args(["--progress-seconds", "1"]);
    // One image of the last unit does not come, so that the worker is in the middle of it.
    let withheld = format!("{}.JPEG", sample.images.last().expect("a sample").stem);
    server.inject(FaultRule::new(Fault::Stall).on(RequestKind::Get).path_contains(&withheld));
    let mut worker = Worker::start(&tokenize);
    let units = worker.expect("ready")["units"].as_u64().expect("a number");
    worker.make(0);
    worker.ask(&(units - 1).to_string());
    worker.expect("begun");
    worker.terminate();
    assert_eq!(worker.expect("drained")["units_dropped"], json!([units - 1]));
    assert_eq!(worker.wait().code(), Some(143));
    assert_eq!(digest::finished_units(&workspace.files("out")), 1);
}

#[test]
fn a_worker_ends_with_the_program_that_started_it() {
    let workspace = workspace();
    workspace.sample_folder(32);
    let job = worker_of(&job(&workspace, "out"));
    // A shell that starts the worker with an input that stays open, says its number, and waits.
    let script = "sleep 1000 | \"$@\" & echo $!; wait";
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg("sh").arg(job.get_program()).args(job.get_args()).env_clear();
    shell.envs(job.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(workspace.path("")).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut child = shell.spawn().expect("a shell");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut read = || {
        returns("a line", || {
            let mut line = String::new();
            output.read_line(&mut line).expect("a pipe");
            line
        })
    };
    let process: u32 = read().trim().parse().expect("a process id");
    let ready: Value = serde_json::from_str(&read()).expect("an event");
    assert_eq!(ready["process_id"], process);
    child.kill().expect("the shell is there");
    child.wait().expect("the shell ends");
    let drained: Value = serde_json::from_str(&read()).expect("an event");
    assert_eq!(drained["event"], "drained");
    assert_eq!(read(), "", "the worker has ended");
    end_group(child.id());
}

/// Ends what the shell left behind.
#[expect(unsafe_code, reason = "the standard library knows no process groups")]
fn end_group(group: u32) {
    let group = libc::pid_t::try_from(group).expect("a process id");
    // SAFETY: kill takes no pointers; the group is the shell's own.
    unsafe { libc::kill(-group, libc::SIGKILL) };
}

#[test]
fn wrong_settings_are_the_last_event_and_exit_code_42() {
    let workspace = workspace();
    workspace.sample_folder(8);
    run(&mut job(&workspace, "out")).expect_code(0);
    let mut other = job(&workspace, "out");
    other.args(["--crop", "adm-center-32-flip"]);
    let mut worker = Worker::start(&other);
    let failed = worker.expect("failed");
    assert_eq!((&failed["exit_code"], &failed["units_dropped"]), (&json!(42), &json!([])));
    assert!(failed["problem"].as_str().expect("text").contains("another plan"), "{failed}");
    assert_eq!(worker.wait().code(), Some(42));

    for (arguments, word) in
        [(["--rank", "0"], "--rank"), (["--world-size", "2"], "--world-size"), (["--dry-run", "--seed=1"], "--seed")]
    {
        let mut job = job(&workspace, "out");
        job.args(arguments);
        run(&mut worker_of(&job)).expect_code(42).expect_message(&[word]);
    }
    run(&mut workspace.restok(["worker", "verify", "out"]))
        .expect_code(42)
        .expect_message(&["verify", "tokenize, generate"]);
}

#[test]
fn samples_and_scores_are_made_by_workers_too() {
    let workspace = workspace();
    let generate = |output: &str| {
        let arguments = ["generate", "--output", output, "--count", "12", "--unit-size", "4", "--devices", "cpu"];
        let mut command = workspace.restok(arguments);
        with_shipped_models(&mut command);
        command
    };
    run(&mut generate("alone")).expect_code(0);
    let mut worker = Worker::start(&generate("shared"));
    assert_eq!(worker.expect("ready")["job"], "generate");
    for unit in [2, 0, 1] {
        assert_eq!(worker.make(unit)["rows"], 4);
    }
    let (ended, _) = worker.end();
    assert_eq!(ended["finalized"], true);
    assert_eq!(workspace.digests("shared"), workspace.digests("alone"));

    let evaluate = |output: &str| {
        let images = tests::workspace::shipped("fashion-mnist/images");
        let mut command =
            workspace.restok(["evaluate", "--protocol", "rfid", "--allow", "count,resize", "--output", output]);
        command.args(["--unit-size", "4", "--batch-size", "2", "--devices", "cpu", "--source"]).arg(images);
        command.arg("--tokenizer").arg(tests::workspace::shipped("fashion-mnist/tokenizer"));
        command
    };
    let alone = run(&mut evaluate("scores-alone")).expect_code(0).stdout;
    let mut worker = Worker::start(&evaluate("scores"));
    let units = worker.expect("ready")["units"].as_u64().expect("a number");
    assert_eq!(units, 3);
    for unit in 0..units {
        worker.make(unit);
    }
    let (ended, _) = worker.end();
    assert_eq!((&ended["units_left"], &ended["finalized"]), (&json!(0), &json!(false)));
    // The plain command finds all features there.
    let told = run(&mut evaluate("scores")).expect_code(0);
    assert_eq!(told.stdout, alone);
    assert!(told.stderr.contains("units_here=0"), "{}", told.stderr);
}
