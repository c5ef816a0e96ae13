//! A job that is to run elsewhere.

use crate::{
    cli::{Arguments, Command},
    exit_code::{ExitCode, OtherProgramError},
    settings::{SettingsError, Told, ToldBy},
};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::{
    path::PathBuf,
    process::{self, Stdio},
};

/// A job that was read and found sound.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Its command.
    pub(super) name: String,
    /// What was set of it.
    pub(super) told: Vec<Told>,
    /// Its settings file.
    pub(super) settings_file: Option<PathBuf>,
    /// What its processes have to do with each other.
    pub(super) kind: Kind,
    units: Units,
}

/// What the processes of a job have to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They share the units of an output, and each may come and go.
    SharesUnits,
    /// They train together, and none can do without the others.
    TrainsTogether,
}

/// How many units a job has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Units {
    /// So many.
    Known(u64),
    /// As many as its dry run says.
    Planned,
    /// Only the job itself finds out.
    Unknown,
}

/// What the dry run of a job says about it.
#[derive(Debug, Deserialize)]
struct DryRun {
    units: u64,
}

/// A job that cannot be submitted.
fn refused(found: impl Into<String>, expected: impl Into<String>) -> SettingsError {
    SettingsError::invalid("the job to submit", found, expected)
}

impl Job {
    /// The jobs that can be submitted.
    const JOBS: &str =
        "tokenize, generate, evaluate, train-tokenizer or train-generator, behind the options of the submission";

    /// Checks what was read of a job: its `command`, and what was `told` of it. `processes` is how many of them train together.
    ///
    /// With `may_be_incomplete`, what is missing is left to the environment that it will run in.
    ///
    /// # Errors
    /// When it cannot run as it stands, is none that many processes share, or says itself which process it is.
    pub(crate) fn check(
        name: &str,
        command: Command,
        (told, settings_file): (Vec<Told>, Option<PathBuf>),
        processes: u32,
        may_be_incomplete: bool,
    ) -> Result<Self, SettingsError> {
        for flag in ["rank", "world-size"] {
            if told.iter().any(|told| told.flag == flag) {
                return Err(refused(
                    format!("--{flag}"),
                    "none: the scheduler says which of the processes each one is",
                ));
            }
        }
        let kind = match &command {
            Command::TrainTokenizer(_) | Command::TrainGenerator(_) => Kind::TrainsTogether,
            _ => Kind::SharesUnits,
        };
        let world_size = processes as usize;
        let checked = match command {
            Command::Tokenize(Arguments { options, limits }) => match (limits.resolve(), options.resolve()) {
                (Err(error), _) | (_, Err(error)) => Err(error),
                (_, Ok(settings)) if settings.dry_run => {
                    Err(refused("--dry-run", format!("none: `restok {name} --dry-run` prints the plan here and now")))
                }
                _ => Ok(Units::Planned),
            },
            Command::Generate(arguments) => {
                let Arguments { options, limits } = *arguments;
                limits.resolve().and(options.resolve()).and_then(|settings| {
                    match (&settings.output, settings.count()) {
                        (None, _) => Err(refused("--grid or --reveal", "an output: a sheet is drawn by one process")),
                        (_, Some(count)) => Ok(Units::Known(count.div_ceil(settings.unit_size as u64))),
                        (_, None) => Ok(Units::Unknown),
                    }
                })
            }
            Command::Evaluate(arguments) => {
                let Arguments { options, limits } = *arguments;
                limits.resolve().and(options.resolve()).map(|_| Units::Unknown)
            }
            Command::TrainTokenizer(arguments) => {
                let Arguments { options, limits } = *arguments;
                limits.resolve().and(options.resolve(world_size)).map(|_| Units::Unknown)
            }
            Command::TrainGenerator(arguments) => {
                let Arguments { options, limits } = *arguments;
                limits.resolve().and(options.resolve(world_size)).map(|_| Units::Unknown)
            }
            _ => Err(refused(name, Self::JOBS)),
        };
        let units = match checked {
            Err(SettingsError::Missing { .. }) if may_be_incomplete => Units::Unknown,
            checked => checked?,
        };
        Ok(Self { name: name.to_owned(), told, settings_file, kind, units })
    }

    /// The number of its units, where `flag` does not say how many processes there shall be. A dry run lists the source for it, on this
    /// machine.
    ///
    /// # Errors
    /// When nobody knows before it runs; when the dry run fails, with its exit code.
    pub(super) fn units(&self, flag: &'static str) -> Result<u64> {
        match self.units {
            Units::Known(units) => Ok(units),
            Units::Planned => self.ask_dry_run(),
            Units::Unknown => {
                let found =
                    format!("nothing, and `restok {}` does not say how many units it has before it runs", self.name);
                Err(SettingsError::invalid(flag, found, "how many processes shall work").into())
            }
        }
    }

    fn ask_dry_run(&self) -> Result<u64> {
        let program = std::env::current_exe().context("this program does not find itself")?;
        let mut command = process::Command::new(program);
        // What was exported and written reaches it as it reached this process.
        let typed = self.told.iter().filter(|told| told.by == ToldBy::Flag);
        let instead = ["devices", "format", "dry-run"];
        let kept = typed.filter(|told| !instead.contains(&told.flag.as_str()));
        command.arg(&self.name).args(kept.flat_map(Told::words));
        if let Some(file) = &self.settings_file {
            command.arg("--settings").arg(file);
        }
        // Where jobs are submitted from there may be no GPU.
        command.args(["--devices=cpu", "--format=json", "--dry-run"]);
        tracing::info!("counting units: `restok {} --dry-run`", self.name);
        let done =
            command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("the dry run did not start")?;
        if !done.status.success() {
            let codes = [ExitCode::Temporary, ExitCode::Drained];
            let code = codes.into_iter().find(|code| done.status.code() == Some(*code as i32));
            let problem = format!("restok {} --dry-run: {}: the number of units is not known", self.name, done.status);
            return Err(OtherProgramError { problem, code: code.unwrap_or(ExitCode::Permanent) }.into());
        }
        let dry_run: DryRun = serde_json::from_slice(&done.stdout).context("the dry run printed no plan")?;
        Ok(dry_run.units)
    }

    /// Where its output goes, as it may be shown.
    pub(super) fn output(&self) -> Option<String> {
        let output = self.told.iter().find(|told| told.flag == "output")?;
        output.values.first().map(|output| pipeline::without_secrets(output))
    }

    /// What was typed of it, as words that may be written down.
    ///
    /// # Errors
    /// When a value holds credentials: a signed URL, a user with a password.
    pub(super) fn typed(&self, instead: &str) -> Result<Vec<String>, SettingsError> {
        let mut words = vec![self.name.clone()];
        for told in self.told.iter().filter(|told| told.by == ToldBy::Flag) {
            refuse_credentials(told, instead)?;
            words.extend(told.words());
        }
        if let Some(file) = &self.settings_file {
            words.push(format!("--settings={}", file.display()));
        }
        Ok(words)
    }
}

/// Refuses an option with credentials in one of its values.
///
/// # Errors
/// When there are some; with the option's variable, and what to do `instead`.
pub(super) fn refuse_credentials(told: &Told, instead: &str) -> Result<(), SettingsError> {
    let secret = told
        .values
        .iter()
        .map(|value| (value, pipeline::without_secrets(value)))
        .find(|(value, shown)| *value != shown);
    let Some((_, shown)) = secret else { return Ok(()) };
    let variable = crate::settings::variable(&told.flag);
    Err(refused(format!("--{} with credentials, {shown}", told.flag), instead.replace("VARIABLE", &variable)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        cli::{self, Cli},
        settings::{SettingsFile, told},
    };
    use clap::FromArgMatches;

    /// A job as it is typed.
    pub(crate) fn job(line: &str) -> Result<Job, SettingsError> {
        job_of(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// The same of words that may hold spaces.
    pub(crate) fn job_of(words: &[&str]) -> Result<Job, SettingsError> {
        checked(words, false)
    }

    fn checked(words: &[&str], may_be_incomplete: bool) -> Result<Job, SettingsError> {
        let program = cli::command();
        let matches = program.clone().try_get_matches_from(["restok"].iter().chain(words)).expect("it can be typed");
        let read = Cli::from_arg_matches(&matches).expect("it can be typed");
        let (name, matches) = matches.subcommand().expect("a command");
        let told = told(&program, name, matches, &SettingsFile::default());
        Job::check(name, read.command, (told, read.shared.settings), 2, may_be_incomplete)
    }

    pub(crate) const TOKENIZE: &str = "tokenize --source in --output out --tokenizer t";

    #[test]
    fn units_are_known_where_the_settings_decide_them() {
        let generate =
            job("generate --generator g --tokenizer t --output o --count 1001 --unit-size 500").expect("sound");
        assert_eq!((generate.units, generate.kind), (Units::Known(3), Kind::SharesUnits));
        assert_eq!(job(TOKENIZE).expect("sound").units, Units::Planned);
        let evaluate = job("evaluate --source s --inception i --output o").expect("sound");
        let error = evaluate.units("--tasks").expect_err("nobody knows").to_string();
        assert!(error.contains("--tasks") && error.contains("evaluate"), "{error}");
    }

    #[test]
    fn what_is_left_to_the_environment_of_the_job_changes_nothing_of_its_kind() {
        for (command, kind) in [("tokenize", Kind::SharesUnits), ("train-generator", Kind::TrainsTogether)] {
            assert!(checked(&[command], false).is_err());
            let job = checked(&[command], true).expect("complete where it runs");
            assert_eq!((job.kind, job.units), (kind, Units::Unknown));
        }
    }

    #[test]
    fn what_cannot_be_submitted_is_refused_with_the_reason() {
        for (line, word) in [
            (format!("{TOKENIZE} --rank 1 --world-size 2"), "--rank"),
            (format!("{TOKENIZE} --world-size 2"), "--world-size"),
            (format!("{TOKENIZE} --dry-run"), "--dry-run"),
            (format!("{TOKENIZE} --unit-size 0"), "--unit-size"),
            (format!("{TOKENIZE} --stall-seconds 0"), "--stall-seconds"),
            ("tokenize --source in".to_owned(), "--output URL"),
            ("generate --generator g --tokenizer t --grid g.png".to_owned(), "--grid"),
            ("inspect out".to_owned(), "tokenize, generate, evaluate"),
            ("submit slurm tokenize".to_owned(), "tokenize, generate, evaluate"),
            // Two processes do not share nine images a step.
            ("train-generator --source s --output o --global-batch-size 9".to_owned(), "9"),
        ] {
            let error = job(&line).expect_err(&line).to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn credentials_are_not_written_down() {
        let words = ["tokenize", "--source", "https://h/a?sig=secret", "--output", "o", "--tokenizer", "t"];
        let error = job_of(&words).expect("sound").typed("export VARIABLE").expect_err("a secret").to_string();
        assert!(error.contains("https://h/a") && error.contains("export RESTOK_SOURCE"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
