//! A job as a script of Slurm.

use super::{Job, job::Kind};
use crate::{
    exit_code::{ExitCode, OtherProgramError},
    settings::{SettingsError, SlurmSettings},
};
use anyhow::{Context, Result};
use report::text::{counted, named};
use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
};

/// Tasks of an array where the cluster does not say how many there may be: Slurm's default.
pub(super) const MAX_ARRAY_SIZE: u32 = 1001;

/// Most tasks of an array of this cluster, if it can be asked.
pub(super) fn max_array_size() -> Option<u32> {
    let told = Command::new("scontrol").args(["show", "config"]).stderr(Stdio::null()).output().ok()?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let line = told.lines().find(|line| line.starts_with("MaxArraySize"))?;
    line.split_once('=')?.1.trim().parse().ok()
}

/// The batch script.
///
/// # Errors
/// When there are more tasks than an array may have, or a word cannot stand in a script; as [`words`].
pub(super) fn script(settings: &SlurmSettings, job: &Job, tasks: u32, limit: Option<u32>) -> Result<String> {
    if let Some(limit) = limit.filter(|limit| job.kind == Kind::SharesUnits && tasks > *limit) {
        let expected = format!("at most {limit}, MaxArraySize of this cluster; a task takes as many units as it can");
        return Err(SettingsError::invalid("--tasks", tasks.to_string(), expected).into());
    }
    let program = std::env::current_exe().context("this program does not find itself")?;
    let program = program.to_str().context("the path of this program is no text")?.to_owned();
    let words = words(settings, job)?;
    let mut text = String::from("#!/bin/bash\n");
    writeln!(text, "# Written by `restok submit slurm`. docs/many-machines.md says how it behaves.")?;
    for option in options(settings, job, tasks) {
        let (name, value) = option.split_once('=').map_or((option.as_str(), None), |(name, value)| (name, Some(value)));
        match value {
            Some(value) => writeln!(text, "#SBATCH --{name}={}", quoted(value)?)?,
            None => writeln!(text, "#SBATCH --{name}")?,
        }
    }
    let mut command = format!("  {}", quoted(&program)?);
    for word in words {
        let parting = if command.contains('\n') || word.starts_with("--") { "\n  " } else { " " };
        write!(command, "{parting}{}", quoted(&word)?)?;
    }
    write!(text, "\ncommand=(\n{command}\n)\nmax_restarts={}\n", settings.max_restarts)?;
    text.push_str(match job.kind {
        Kind::SharesUnits => ARRAY,
        Kind::TrainsTogether => STEP,
    });
    text.push_str(WAIT);
    let (permanent, temporary, drained) = (ExitCode::Permanent, ExitCode::Temporary, ExitCode::Drained);
    let cancelling = if job.kind == Kind::SharesUnits { CANCEL_WAITING } else { "" };
    write!(text, "\ncase $code in\n  {}){cancelling} ;;\n", permanent as u8)?;
    if settings.requeue {
        writeln!(text, "  {} | {}){REQUEUE} ;;", temporary as u8, drained as u8)?;
    }
    text.push_str("esac\nexit \"$code\"\n");
    Ok(text)
}

/// The job as it is typed there.
///
/// # Errors
/// When a word holds credentials, or the tasks of an array would serve their metrics at one port.
pub(super) fn words(settings: &SlurmSettings, job: &Job) -> Result<Vec<String>, SettingsError> {
    let may_share_a_node = job.kind == Kind::SharesUnits && settings.tasks != Some(1);
    let is_fixed = |address: &&String| address.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0);
    let listen = job.told.iter().filter(|told| told.flag == "metrics-listen").flat_map(|told| &told.values);
    // Exit code 42 of one task cancels those that wait.
    if let Some(found) = listen.filter(|_| may_share_a_node).find(is_fixed) {
        let expected = "port 0, which takes a free one that the log of each task names: tasks may share a node, and only one \
                        of them gets a port; or metrics that are pushed (docs/watching.md)";
        return Err(SettingsError::invalid("--metrics-listen", found.clone(), expected));
    }
    job.typed("`export VARIABLE=…` here instead, which Slurm passes on to the job and no script shows")
}

/// Options of sbatch.
fn options(settings: &SlurmSettings, job: &Job, tasks: u32) -> Vec<String> {
    let name = settings.job_name.clone().unwrap_or_else(|| format!("restok-{}", job.name));
    let mut options = vec![format!("job-name={name}")];
    match job.kind {
        Kind::SharesUnits => {
            options.push(format!("array=0-{}", tasks.saturating_sub(1)));
            options.extend(settings.gpus.map(|gpus| format!("gpus={gpus}")));
            // To the shell alone: Slurm knows no other process of a batch script that could have it.
            options.extend(settings.signal_seconds.map(|seconds| format!("signal=B:USR1@{seconds}")));
        }
        Kind::TrainsTogether => {
            options.push(format!("ntasks={tasks}"));
            options.extend(settings.gpus.map(|gpus| format!("gpus-per-task={gpus}")));
            // To the processes that srun starts, and not to the shell.
            options.extend(settings.signal_seconds.map(|seconds| format!("signal=TERM@{seconds}")));
        }
    }
    options.extend(settings.cpus.map(|cpus| format!("cpus-per-task={cpus}")));
    options.push(if settings.requeue { "requeue" } else { "no-requeue" }.to_owned());
    // What a task said before it was queued again stays in its log.
    options.push("open-mode=append".to_owned());
    options.extend(settings.options.iter().cloned());
    options
}

/// A word of a script.
fn quoted(word: &str) -> Result<String> {
    let quoted = shlex::try_quote(word).with_context(|| format!("{word:?} cannot stand in a script"))?;
    Ok(quoted.into_owned())
}

/// Starts the task of an array, and passes on what only the shell is told.
const ARRAY: &str = r#"
# Slurm sends SIGTERM to every process of a task that it ends (scancel, preemption): restok drains, and this shell only waits.
trap 'ended_by_slurm=yes; waiting=yes' TERM
# Slurm sends SIGUSR1 to this shell alone, before the time limit: restok drains, and the task is queued again.
trap 'kill -TERM "$restok" 2>/dev/null; waiting=yes' USR1

"${command[@]}" &
restok=$!
"#;

/// Starts the processes of a training, and says where they meet.
const STEP: &str = r#"
# The processes meet on the first node, which this shell runs on, under the address by which Slurm knows it.
MASTER_ADDR=$(scontrol show node "$SLURMD_NODENAME" | grep -o 'NodeAddr=[^ ]*' | cut -d= -f2)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export MASTER_ADDR MASTER_PORT

# Slurm sends SIGTERM to every process of a job that it ends (scancel, preemption); this shell only waits.
trap 'ended_by_slurm=yes; waiting=yes' TERM

# srun does not take this from the batch script since Slurm 22.05.
if [ "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi

srun --kill-on-bad-exit=1 "${command[@]}" &
restok=$!
"#;

const WAIT: &str = r#"
# A signal ends a wait, not what is waited for.
waiting=yes
while [ "$waiting" ]; do
  waiting=
  wait "$restok"
  code=$?
done
"#;

/// What fails for good fails in every task. Those that run find out for themselves, and leave with the code that says so.
const CANCEL_WAITING: &str = r#"
    echo "restok submit: exit code $code is permanent; cancelling the tasks of array $SLURM_ARRAY_JOB_ID that wait" >&2
    scancel --state=PENDING "$SLURM_ARRAY_JOB_ID"
   "#;

const REQUEUE: &str = r#"
    if [ "${ended_by_slurm:-}" ]; then
      echo "restok submit: ended by Slurm, which decides whether the task is queued again" >&2
    elif [ "${SLURM_RESTART_COUNT:-0}" -lt "$max_restarts" ]; then
      echo "restok submit: exit code $code; queued again, restart $((${SLURM_RESTART_COUNT:-0} + 1)) of at most $max_restarts" >&2
      scontrol requeue "$SLURM_JOB_ID"
    else
      echo "restok submit: exit code $code after $max_restarts restarts; not queued again" >&2
    fi
   "#;

/// Has sbatch submit a script, keeps the script beside the logs, and says what was submitted.
///
/// # Errors
/// When sbatch is not there or refuses it.
pub(super) fn submit(script: &str, job: &Job, tasks: u32) -> Result<String> {
    let failed = |problem: String, code| OtherProgramError { problem: format!("sbatch: {problem}"), code };
    let sbatch = Command::new("sbatch")
        .arg("--parsable")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            let problem = format!("{error}; run this where Slurm's commands are, or print the script with --print");
            failed(problem, ExitCode::Permanent)
        })?;
    let done = given(sbatch, script).context("sbatch cannot be talked to")?;
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if !done.status.success() {
        // What Slurm says when its controller is away or busy.
        let passing = ["Unable to contact slurm controller", "Socket timed out", "try again later"];
        let is_passing = passing.iter().any(|words| said.contains(words));
        return Err(failed(said, if is_passing { ExitCode::Temporary } else { ExitCode::Permanent }).into());
    }
    if !said.is_empty() {
        tracing::warn!("sbatch: {said}");
    }
    // The number, and behind a semicolon the cluster where there are several.
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    let id = told.trim().split(';').next().unwrap_or_default();
    let file = format!("slurm-{id}.sh");
    let kept = match fs::write(&file, script) {
        Ok(()) => file,
        Err(error) => format!("not kept here ({file}: {error}); scontrol write batch_script {id} shows it"),
    };
    let (what, logs) = match job.kind {
        Kind::SharesUnits => (counted(u64::from(tasks), "task"), format!("slurm-{id}_TASK.out")),
        Kind::TrainsTogether => {
            (format!("{} that train together", counted(u64::from(tasks), "process")), format!("slurm-{id}.out"))
        }
    };
    let mut pairs = vec![
        ("job", format!("{id}, {what} of restok {}", job.name)),
        ("script", kept),
        ("logs", format!("{logs}, unless --output says otherwise")),
        ("watch", format!("squeue --jobs={id}")),
        ("cancel", format!("scancel {id}")),
    ];
    pairs.extend(job.output().map(|output| ("output", output)));
    Ok(format!("Submitted to Slurm.\n{}", named(2, &pairs)))
}

/// Gives a program its input and waits for its end.
fn given(mut program: std::process::Child, input: &str) -> std::io::Result<std::process::Output> {
    if let Some(mut stdin) = program.stdin.take() {
        // One that has ended already says why.
        drop(stdin.write_all(input.as_bytes()));
    }
    program.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::{
        super::job::tests::{TOKENIZE, job, job_of},
        *,
    };
    use crate::settings::SlurmOptions;
    use clap::{Args, FromArgMatches};
    use std::os::unix::fs::PermissionsExt;

    fn settings(line: &str) -> SlurmSettings {
        let command = SlurmOptions::augment_args(clap::Command::new("slurm").no_binary_name(true));
        let matches =
            command.try_get_matches_from(line.split_whitespace().chain(["tokenize"])).expect("right arguments");
        SlurmOptions::from_arg_matches(&matches).expect("options").resolve().expect("settings")
    }

    #[test]
    fn the_script_says_what_the_options_say() {
        let text =
            script(&settings("--gpus 2 --cpus 8 --partition gpu --time 1:00"), &job(TOKENIZE).expect("a job"), 8, None);
        let text = text.expect("a script");
        for line in [
            "#!/bin/bash",
            "#SBATCH --job-name=restok-tokenize",
            "#SBATCH --array=0-7",
            "#SBATCH --gpus=2",
            "#SBATCH --cpus-per-task=8",
            "#SBATCH --partition=gpu",
            "#SBATCH --time=1:00",
            "#SBATCH --requeue",
            "#SBATCH --signal=B:USR1@120",
            "  '--source=in'",
            "max_restarts=100",
            "  42)",
            "  75 | 143)",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let text = script(&settings("--requeue=false --signal-seconds 0"), &job(TOKENIZE).expect("a job"), 1, None);
        let text = text.expect("a script");
        assert!(text.contains("--no-requeue") && !text.contains("--signal") && !text.contains("75 | 143"), "{text}");
    }

    #[test]
    fn processes_that_train_together_are_started_by_srun() {
        let training = job("train-generator --source s --output o").expect("a job");
        let text = script(&settings("--gpus 1"), &training, 2, Some(1)).expect("a script");
        for line in ["#SBATCH --ntasks=2", "#SBATCH --gpus-per-task=1", "#SBATCH --signal=TERM@120"] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.contains("srun ") && !text.contains("--array") && !text.contains("scancel --"), "{text}");
    }

    #[test]
    fn words_reach_the_job_as_they_were_typed() {
        let odd = "s3://b/train-{0..3}.tar $(touch x) `id` 'a' \"b\" \\ ;&|\n!*?~#";
        let words = ["tokenize", "--source", odd, "--output", "o p", "--tokenizer", "t"];
        let text = script(&settings(""), &job_of(&words).expect("a job"), 1, None).expect("a script");
        let (_, command) = text.split_once("command=(").expect("the command");
        let (command, _) = command.split_once("\n)\n").expect("its end");
        let read = std::process::Command::new("bash")
            .args(["-c", &format!("command=({command}\n)\nprintf '%s\\0' \"${{command[@]}}\"")])
            .output()
            .expect("bash");
        let read = String::from_utf8(read.stdout).expect("text");
        let read: Vec<&str> = read.trim_end_matches('\0').split('\0').skip(1).collect();
        assert_eq!(read, ["tokenize", &format!("--source={odd}"), "--output=o p", "--tokenizer=t"]);
    }

    /// The script of an array with programs in place of restok and of Slurm's; the latter write down how they are called.
    struct Played {
        folder: tempfile::TempDir,
        shell: std::process::Child,
    }

    impl Played {
        /// Starts the script, with a shell's words for what restok does.
        fn start(restok: &str, restarts: Option<u32>) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let place = |name: &str, lines: &str| {
                let path = folder.path().join(name);
                fs::write(&path, format!("#!/bin/bash\n{lines}\n")).expect("a program");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
                path.display().to_string()
            };
            let calls = folder.path().join("calls").display().to_string();
            for name in ["scontrol", "scancel"] {
                place(name, &format!("echo {name} \"$@\" >>{calls}"));
            }
            let restok = place("restok", restok);
            let text = script(&settings(""), &job(TOKENIZE).expect("a job"), 8, None).expect("a script");
            let program = std::env::current_exe().expect("a program").display().to_string();
            assert_eq!(text.matches(&program).count(), 1, "{text}");
            let text = text.replace(&program, &restok);
            let path = format!("{}:/usr/bin:/bin", folder.path().display());
            let mut command = Command::new("bash");
            command.args(["-c", &text]).current_dir(folder.path()).env("PATH", path).stderr(Stdio::null());
            command.envs([("SLURM_JOB_ID", "9"), ("SLURM_ARRAY_JOB_ID", "7"), ("SLURM_ARRAY_TASK_ID", "2")]);
            command.envs(restarts.map(|restarts| ("SLURM_RESTART_COUNT", restarts.to_string())));
            Self { shell: command.spawn().expect("bash"), folder }
        }

        /// Waits until restok says so by a file, and sends a signal to the shell, or to both.
        fn signal(&self, signal: &str, restok_too: bool) {
            let started = self.folder.path().join("started");
            let number = || fs::read_to_string(&started).unwrap_or_default();
            pipeline::testing::wait_until("restok started", || number().ends_with('\n'));
            let mut told = vec![self.shell.id().to_string()];
            told.extend(restok_too.then(|| number().trim().to_owned()));
            assert!(Command::new("kill").arg(format!("-{signal}")).args(told).status().expect("kill").success());
        }

        /// The code that it leaves with, and the calls of Slurm's programs.
        fn end(mut self) -> (Option<i32>, String) {
            let code = self.shell.wait().expect("a shell").code();
            let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
            (code, calls.trim_end().to_owned())
        }
    }

    #[test]
    fn exit_codes_decide_what_slurm_is_told() {
        for (restok, restarts, code, calls) in [
            ("exit 0", None, 0, ""),
            ("exit 42", None, 42, "scancel --state=PENDING 7"),
            ("exit 75", None, 75, "scontrol requeue 9"),
            ("exit 143", Some(99), 143, "scontrol requeue 9"),
            ("exit 75", Some(100), 75, ""),
            ("exit 101", None, 101, ""),
            ("kill -KILL $$", None, 137, ""),
        ] {
            let played = Played::start(restok, restarts).end();
            assert_eq!(played, (Some(code), calls.to_owned()), "{restok} {restarts:?}");
        }
    }

    /// Drains on the first SIGTERM; a second one would end it with another code.
    const DRAINS: &str =
        "trap 'trap \"exit 9\" TERM; sleep 0.2; exit 143' TERM; echo $$ >started; while :; do sleep 0.01; done";

    #[test]
    fn a_signal_of_the_time_limit_reaches_restok_once_and_queues_the_task_again() {
        let played = Played::start(DRAINS, None);
        played.signal("USR1", false);
        assert_eq!(played.end(), (Some(143), "scontrol requeue 9".to_owned()));
    }

    #[test]
    fn a_task_that_slurm_ends_gets_one_signal_and_is_not_queued_again() {
        let played = Played::start(DRAINS, None);
        played.signal("TERM", true);
        assert_eq!(played.end(), (Some(143), String::new()));
    }

    #[test]
    fn one_port_for_the_metrics_of_all_tasks_is_refused() {
        let at = |options: &str, line: &str, address: &str| {
            let job = job(&format!("{line} --metrics-listen {address}")).expect("a job");
            words(&settings(options), &job).map_err(|error| error.to_string())
        };
        for (options, address) in [("", "0.0.0.0:9400"), ("--tasks 2", "[::1]:9400")] {
            let error = at(options, TOKENIZE, address).expect_err(address);
            assert!(error.contains("--metrics-listen") && error.contains("port 0"), "{error}");
        }
        assert!(at("--tasks 2", TOKENIZE, "0.0.0.0:0").is_ok() && at("--tasks 1", TOKENIZE, "0.0.0.0:9400").is_ok());
        // The first process serves them for all.
        assert!(at("--tasks 2", "train-generator --source s --output o", "0.0.0.0:9400").is_ok());
    }

    #[test]
    fn more_tasks_than_an_array_may_have_are_refused() {
        let error = script(&settings(""), &job(TOKENIZE).expect("a job"), 9, Some(8)).expect_err("nine").to_string();
        assert!(error.contains("--tasks") && error.contains("at most 8"), "{error}");
    }
}
