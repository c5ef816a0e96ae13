//! A folder of its own for each test, and the program run in it as an operator would.

use crate::{digest, sample::Sample};
use pipeline::testing::{PATIENCE, returns};
use std::{
    collections::BTreeMap,
    ffi::CString,
    fs,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A process that has not come to what a test waits for after this long hangs: it is killed, and the test fails with what it said. No
/// test depends on how long a run takes.
const HANGS_AFTER: Duration = PATIENCE.saturating_mul(3);

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

/// Limits under which a fault that passes is outlasted in a few seconds.
pub const QUICK_RETRIES: [&str; 4] = ["--retry-pause-first-milliseconds", "2", "--retry-pause-max-seconds", "1"];

/// And one that is silence. Only where a store is silent on purpose: a machine with much else to do may be silent for a second as well.
pub const SHORT_SILENCE: [&str; 2] = ["--read-timeout-seconds", "1"];

/// A pipe under the name of a file. A process that opens the file waits there, however late the test looks, until the test lets it
/// through or kills it.
#[derive(Debug)]
pub struct Hold(PathBuf);

impl Hold {
    /// Puts the pipe there, with the folders that it needs.
    #[expect(unsafe_code, reason = "the standard library makes no named pipes")]
    pub fn at(path: PathBuf) -> Self {
        fs::create_dir_all(path.parent().expect("a path in a workspace")).expect("a folder for a pipe");
        let name = CString::new(path.as_os_str().as_bytes()).expect("temporary paths are plain text");
        // SAFETY: the name is a string that ends with a zero and lives through the call.
        let made = unsafe { libc::mkfifo(name.as_ptr(), 0o600) };
        assert_eq!(made, 0, "{}: {}", path.display(), std::io::Error::last_os_error());
        Self(path)
    }

    /// Lets a process through that writes the file, and says what it wrote.
    pub fn let_write(self) -> Vec<u8> {
        returns("what a process writes into a pipe", || fs::read(&self.0)).expect("a pipe")
    }

    /// Takes the pipe away.
    pub fn remove(self) {
        fs::remove_file(&self.0).expect("a pipe");
    }
}

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
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy());
    Running { child, command: words.collect::<Vec<_>>().join(" "), stdout, stderr }
}

/// A process under way; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: String,
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

    /// What it has written to standard error so far.
    pub fn said(&self) -> String {
        read_back(&self.stderr)
    }

    /// Waits until `condition` holds, which is `what` is waited for, or the process has ended; says whether it holds.
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut() -> bool) -> bool {
        let started = Instant::now();
        loop {
            if condition() {
                return true;
            }
            if self.has_ended() {
                return condition();
            }
            self.fail_if_hanging(started, what);
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Waits until its standard error holds `words`.
    ///
    /// # Panics
    /// When it ends without them.
    pub fn wait_until_said(&mut self, words: &str) {
        let stderr = self.stderr.try_clone().expect("a second handle");
        let said = self.wait_until(words, || read_back(&stderr).contains(words));
        assert!(said, "it ended without {words:?}:\n{}", self.said());
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        let started = Instant::now();
        while !self.has_ended() {
            self.fail_if_hanging(started, "its end");
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = self.child.wait().expect("the state of a child");
        Finished { status, stdout: read_back(&self.stdout), stderr: read_back(&self.stderr) }
    }

    fn fail_if_hanging(&mut self, started: Instant, what: &str) {
        if started.elapsed() > HANGS_AFTER {
            self.kill();
            let seconds = HANGS_AFTER.as_secs();
            panic!("waited {seconds} seconds in vain for {what} of {}; it said:\n{}", self.command, self.said());
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

/// What is in the file so far. Where the process writes next stays as it is, which it shares with this handle.
fn read_back(file: &fs::File) -> String {
    let size = file.metadata().expect("the size of a file").len();
    let mut bytes = vec![0; usize::try_from(size).expect("what fits in memory")];
    file.read_exact_at(&mut bytes, 0).expect("what the process wrote");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A folder of `samples/`, which ships with the repository.
pub fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples").join(name)
}

/// Names the generator and the tokenizer that ship, for a command that takes both.
pub fn with_shipped_models(command: &mut Command) -> &mut Command {
    command
        .env("RESTOK_GENERATOR", text(&shipped("fashion-mnist/generator")))
        .env("RESTOK_TOKENIZER", text(&shipped("fashion-mnist/tokenizer")))
}

/// A path as text, for command lines.
pub fn text(path: &Path) -> String {
    path.to_str().expect("temporary paths are plain text").to_owned()
}
