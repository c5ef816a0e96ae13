//! A folder of its own for each test, and the program run in it as an operator would.

use crate::{digest, sample::Sample};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A child that has not ended after this long hangs: it is killed and the test fails. No test depends on how long a run takes.
const HANGS_AFTER: Duration = Duration::from_secs(300);

/// A folder that vanishes with the test, and the program to run in it.
#[derive(Debug)]
pub struct Workspace {
    folder: TempDir,
    program: PathBuf,
}

impl Workspace {
    /// Makes the folder. `program` is the path of `restok-under-test`.
    pub fn new(program: &str) -> Self {
        Self { folder: TempDir::new().expect("a folder for the test"), program: PathBuf::from(program) }
    }

    /// A path in the workspace.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The small tokenizer, made on first use.
    pub fn tokenizer(&self) -> PathBuf {
        let folder = self.path("tokenizer");
        if !folder.exists() {
            crate::tokenizer::save(&folder, 1);
        }
        folder
    }

    /// Draws `images` images and lays them in the workspace's `images` folder.
    pub fn sample_folder(&self, images: usize) -> Sample {
        let sample = Sample::draw(images, 7);
        sample.write_folder(&self.path("images"));
        sample
    }

    /// `restok` with these arguments, in an environment that holds nothing but what is set here: no credentials, no rank and
    /// no setting of the machine leaks in.
    pub fn restok<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.folder.path())
            // Tests run side by side; a process that takes every core for itself slows them all.
            .env("OMP_NUM_THREADS", "1")
            .env("RAYON_NUM_THREADS", "1")
            .stdin(Stdio::null());
        command
    }

    /// `restok tokenize` on the processor with small units and batches, short pauses between attempts, and room for the sample's
    /// broken images.
    pub fn tokenize(&self, source: &str, output: &str) -> Command {
        let mut command = self.tokenize_with_units_of(8, source, output);
        command.args(QUICK_RETRIES);
        command
    }

    /// The same with units of another size, and the program's own limits on storage.
    pub fn tokenize_with_units_of(&self, images: usize, source: &str, output: &str) -> Command {
        let tokenizer = self.tokenizer();
        let mut command = self.restok(["tokenize", "--source", source, "--output", output, "--tokenizer"]);
        command.arg(tokenizer).args([
            "--batch-size",
            "4",
            "--max-reject-rate",
            "0.2",
            "--unit-size",
            &images.to_string(),
        ]);
        // As a variable, so that a test can add the flag.
        command.env("RESTOK_DEVICES", "cpu");
        command
    }

    /// Every file of an output in the workspace.
    pub fn files(&self, output: &str) -> BTreeMap<String, Vec<u8>> {
        digest::read_tree(&self.path(output))
    }

    /// Digests of the tables of an output in the workspace.
    pub fn digests(&self, output: &str) -> BTreeMap<String, String> {
        digest::table_digests(&self.files(output))
    }
}

/// Limits under which a fault of a few seconds is outlasted in a few seconds.
pub const QUICK_RETRIES: [&str; 6] =
    ["--retry-pause-first-milliseconds", "2", "--retry-pause-max-seconds", "1", "--read-timeout-seconds", "1"];

/// What a process left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// Fails the test unless the process ended with this code, showing what it said.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{}\n--- standard output\n{}\n--- standard error\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Fails the test unless standard error holds every one of `parts`, whatever the line breaks.
    #[track_caller]
    pub fn expect_message(self, parts: &[&str]) -> Self {
        let said = self.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in:\n{}", self.stderr);
        }
        self
    }
}

/// Runs a command to its end. Output goes through files, so that no amount of it can block the child.
pub fn run(command: &mut Command) -> Finished {
    start(command).finish()
}

/// Starts a command.
pub fn start(command: &mut Command) -> Running {
    let (stdout, stderr) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
    let clone = |file: &fs::File| Stdio::from(file.try_clone().expect("a second handle"));
    command.stdout(clone(&stdout)).stderr(clone(&stderr));
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Running { child, stdout, stderr }
}

/// A process under way; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: fs::File,
    stderr: fs::File,
}

impl Running {
    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the state of a child").is_some()
    }

    /// SIGKILL: the process gets no chance to tidy up.
    pub fn kill(&mut self) {
        // It may have ended by itself a moment ago.
        self.child.kill().ok();
    }

    /// Sends a signal such as `libc::SIGTERM`.
    #[expect(unsafe_code, reason = "the standard library sends SIGKILL only")]
    pub fn signal(&self, signal: libc::c_int) {
        let process = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: kill takes no pointers, and the child is not yet waited for, so its id is its own.
        unsafe { libc::kill(process, signal) };
    }

    /// Waits until `condition` holds or the process has ended; says whether it holds.
    pub fn wait_until(&mut self, mut condition: impl FnMut() -> bool) -> bool {
        let started = Instant::now();
        loop {
            if condition() {
                return true;
            }
            if self.has_ended() {
                return condition();
            }
            self.fail_if_hanging(started);
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        let started = Instant::now();
        while !self.has_ended() {
            self.fail_if_hanging(started);
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = self.child.wait().expect("the state of a child");
        Finished { status, stdout: read_back(&mut self.stdout), stderr: read_back(&mut self.stderr) }
    }

    fn fail_if_hanging(&mut self, started: Instant) {
        if started.elapsed() > HANGS_AFTER {
            self.kill();
            panic!("the process hangs; it said:\n{}", read_back(&mut self.stderr));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        // Reaped, so that a test binary with many tests leaves no zombies.
        self.child.wait().ok();
    }
}

fn read_back(file: &mut fs::File) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes)).expect("what the process wrote");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A path as text, for command lines.
pub fn text(path: &Path) -> String {
    path.to_str().expect("temporary paths are plain text").to_owned()
}
