//! What an operator runs: the binary `restok`. The only crate where `models` and `pipeline` meet.
//!
//! ```text
//! argv, environment, file ── cli, settings ── one settings struct a command ── commands/* ── report ── exit code
//!                                                                                │
//!                                        networks: what `models` computes as the encoders, samplers and decoders of `pipeline`
//! ```
//!
//! Standard output carries what a command was asked for; logs, progress and errors go to standard error.

mod cli;
mod commands;
mod contact_sheet;
mod engine_protocol;
mod environment;
mod exit_code;
mod hub;
mod logging;
mod metrics;
mod model_folder;
mod networks;
mod output;
mod process;
mod progress;
mod settings;
mod training;
mod watched;
mod workers;

use anyhow::Result;
use clap::{ArgMatches, FromArgMatches, parser::ValueSource};
use cli::{Arguments, Cli, Command, Scheduler, SharedArguments, SubmitArguments};
use commands::submit::Job;
use engine_protocol::{Conversation, RunEnd};
use models::{Device, DeviceChoice, ModelError, ProcessGroup};
use pipeline::{EngineLink, PipelineError};
use process::Stopping;
use progress::Progress;
use settings::{GeneralOptions, ProgressStyle, SettingsError, SettingsFile, show, told};
use std::{ffi::OsString, future::Future, path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use training::launch::Launch;
use workers::Workers;

/// Runs the program with the process's arguments and gives the code to leave with.
pub fn main() -> std::process::ExitCode {
    let code = match parse() {
        Err(code) => return code.into(),
        Ok((cli, line, job)) => match run(cli, &line, job) {
            Ok(()) => exit_code::ExitCode::Done,
            Err(error) => {
                let code = exit_code::of(&error);
                // Stopping because one was asked to is no error.
                let stopped = code == exit_code::ExitCode::Drained;
                let told = if stopped { format!("{error}\n") } else { output::describe(&error) };
                output::complain(&cli::with_flags(&told, &line.program, &line.command));
                // A device thread may still be at work.
                process::leave_at_once(code);
            }
        },
    };
    code.into()
}

/// What was typed, with the environment and the settings file behind it.
struct CommandLine {
    /// Whether an engine hands out the units.
    is_worker: bool,
    program: clap::Command,
    file: SettingsFile,
    /// The command's name, one within another as `submit.slurm`.
    command: String,
    /// Of the command, in which clap knows the options of every command as well.
    matches: ArgMatches,
}

/// A job behind the options of a submission, read as if it stood alone.
type SubmittedJob = (Cli, CommandLine);

/// Reads the command line, and that of a job in it.
fn parse() -> Result<(Cli, CommandLine, Option<SubmittedJob>), exit_code::ExitCode> {
    let (cli, line) = read(std::env::args_os().collect())?;
    let job = match &cli.command {
        Command::Submit(SubmitArguments { scheduler }) => Some(read(job_words(scheduler.job(), &line))?),
        _ => None,
    };
    Ok((cli, line, job))
}

/// The command line of a job that stands in another one; it takes the settings file from there.
fn job_words(job: &[String], line: &CommandLine) -> Vec<OsString> {
    let (name, options) = job.split_at(1.min(job.len()));
    let mut words: Vec<OsString> = vec![line.program.get_name().into()];
    words.extend(name.iter().map(OsString::from));
    if let Some(path) = typed_settings(&line.matches) {
        words.extend([OsString::from("--settings"), path.into_os_string()]);
    }
    words.extend(options.iter().map(OsString::from));
    words
}

/// The settings file, where it was typed.
fn typed_settings(matches: &ArgMatches) -> Option<PathBuf> {
    let is_typed = matches.value_source("settings") == Some(ValueSource::CommandLine);
    matches.get_one::<PathBuf>("settings").filter(|_| is_typed).cloned()
}

/// Reads words as a command line. Help and version are printed and end the program well; anything that does not parse is bad
/// settings, like a settings file that does not read.
fn read(mut words: Vec<OsString>) -> Result<(Cli, CommandLine), exit_code::ExitCode> {
    let typed = |error: clap::Error| {
        // Nobody is left to tell when this fails.
        drop(error.print());
        if error.use_stderr() { exit_code::ExitCode::Permanent } else { exit_code::ExitCode::Done }
    };
    let program = cli::command();
    // Once without the file, which is named in it.
    let mut matches = program.clone().try_get_matches_from(&words).map_err(typed)?;
    let is_worker = matches.subcommand_name() == Some(settings::WORKER);
    if is_worker {
        words = engine_protocol::words_of_job(words, &matches).map_err(|error| {
            output::complain(&output::describe(&error.into()));
            exit_code::ExitCode::Permanent
        })?;
        matches = program.clone().try_get_matches_from(&words).map_err(typed)?;
    }
    let path = matches.get_one::<PathBuf>("settings");
    let file = SettingsFile::read(path.map(PathBuf::as_path), &program).map_err(|error| {
        output::complain(&output::describe(&error.into()));
        exit_code::ExitCode::Permanent
    })?;
    let told = match innermost(&matches) {
        Some((command, matches)) => file.apply(program.clone(), &command, matches),
        None => program.clone(),
    };
    let matches = told.try_get_matches_from(&words).map_err(typed)?;
    let cli = Cli::from_arg_matches(&matches).map_err(typed)?;
    let (command, matches) = innermost(&matches).ok_or(exit_code::ExitCode::Permanent)?;
    let matches = matches.clone();
    Ok((cli, CommandLine { is_worker, program, file, command, matches }))
}

/// The command that was named, one within another as `submit.slurm`, and what was said of it.
fn innermost(matches: &ArgMatches) -> Option<(String, &ArgMatches)> {
    let (name, mut matches) = matches.subcommand()?;
    let mut name = name.to_owned();
    while let Some((within, of_it)) = matches.subcommand() {
        name = format!("{name}.{within}");
        matches = of_it;
    }
    Some((name, matches))
}

fn run(cli: Cli, line: &CommandLine, job: Option<SubmittedJob>) -> Result<()> {
    let SharedArguments { settings: _, show_settings, general } = cli.shared;
    if show_settings {
        // A submission reads and computes nothing itself.
        let limits = job.is_none().then_some("limits");
        let sections = [Some(line.command.as_str()), limits, Some("general")].into_iter().flatten();
        let shown = sections.map(|section| show(&line.program, section, &line.matches, &line.file));
        output::print(&shown.collect::<Vec<_>>().join("\n"))?;
        return Ok(());
    }
    // Only trainings have processes that know of each other.
    let launch = match cli.command {
        Command::TrainTokenizer(_) | Command::TrainGenerator(_) => Launch::detect(environment::lookup)?,
        _ => Launch::ALONE,
    };
    let progress = start_log(&general, line, launch.rank() == 0)?;
    let command = match (cli.command, job) {
        (Command::Submit(SubmitArguments { scheduler }), Some(job)) => return submit(scheduler, job),
        (command, _) => command,
    };
    if !line.is_worker {
        return run_command(command, launch, progress, None);
    }
    let (conversation, engine) = Conversation::begin(&line.command)?;
    let progress = Progress::of_events(conversation.speaker(), general.progress_seconds.unwrap_or_default());
    let ended = run_command(command, launch, progress, Some(engine));
    conversation.end(match &ended {
        Ok(()) => RunEnd::Done,
        Err(error) => match exit_code::of(error) {
            exit_code::ExitCode::Drained => RunEnd::Drained,
            code => RunEnd::Failed { exit_code: code as u8, problem: format!("{error:#}") },
        },
    });
    ended
}

/// Runs a command; where there is an engine, it hands out the units.
fn run_command(command: Command, launch: Launch, progress: Progress, engine: Option<EngineLink>) -> Result<()> {
    let stopping = if engine.is_some() { Stopping::WORKER } else { Stopping::TABLES };
    match command {
        Command::Tokenize(Arguments { options, limits }) => {
            let limits = limits.resolve()?;
            let settings = options.resolve()?;
            let workers = Workers::find(&settings.devices, settings.device_threads)?;
            until_stopped(stopping, |cancel| {
                commands::tokenize::run(settings, limits, workers, progress, engine, cancel)
            })
        }
        Command::TrainTokenizer(arguments) => {
            let Arguments { options, limits } = *arguments;
            let limits = launch.limits(limits.resolve()?);
            let settings = options.resolve(launch.world_size())?;
            let device = launch.device(settings.run.device, settings.run.device_threads)?;
            let timeout = settings.run.group_timeout;
            train(launch, (device, timeout), move |group, cancel| {
                commands::train_tokenizer::run(&settings, &limits, (group, device), &progress, cancel)
            })
        }
        Command::TrainGenerator(arguments) => {
            let Arguments { options, limits } = *arguments;
            let limits = launch.limits(limits.resolve()?);
            let settings = options.resolve(launch.world_size())?;
            let device = launch.device(settings.run.device, settings.run.device_threads)?;
            let timeout = settings.run.group_timeout;
            train(launch, (device, timeout), move |group, cancel| {
                commands::train_generator::run(&settings, &limits, (group, device), &progress, cancel)
            })
        }
        Command::Generate(arguments) => {
            let Arguments { options, limits } = *arguments;
            let limits = limits.resolve()?;
            let settings = options.resolve()?;
            let workers = Workers::find(&settings.devices, settings.device_threads)?;
            until_stopped(stopping, |cancel| {
                commands::generate::run(settings, limits, workers, progress, engine, cancel)
            })
        }
        Command::Sweep(arguments) => {
            let Arguments { options, limits } = *arguments;
            let limits = limits.resolve()?;
            let settings = options.resolve()?;
            let workers = Workers::find(&settings.devices, settings.device_threads)?;
            until_stopped(Stopping::TABLES, |cancel| commands::sweep::run(settings, limits, workers, progress, cancel))
        }
        Command::Evaluate(arguments) => {
            let Arguments { options, limits } = *arguments;
            let limits = limits.resolve()?;
            let settings = options.resolve()?;
            let workers = Workers::find(&settings.devices, settings.device_threads)?;
            until_stopped(stopping, |cancel| {
                commands::evaluate::run(settings, limits, workers, progress, engine, cancel)
            })
        }
        Command::Finalize(Arguments { options, limits }) => {
            let limits = limits.resolve()?;
            let output = options.output()?;
            let max_reject_rate = options.max_reject_rate.unwrap_or_default();
            block_on(commands::finalize::run(&output, max_reject_rate, options.format.unwrap_or_default(), &limits))
        }
        Command::Verify(Arguments { options, limits }) => {
            let limits = limits.resolve()?;
            let output = options.output()?;
            let fast = options.fast == Some(true);
            block_on(commands::verify::run(&output, fast, options.format.unwrap_or_default(), &limits))
        }
        Command::Inspect(Arguments { options, limits }) => {
            let limits = limits.resolve()?;
            let output = options.output()?;
            let rows = options.rows.unwrap_or_default();
            block_on(commands::inspect::run(&output, rows, options.format.unwrap_or_default(), &limits))
        }
        Command::Report(Arguments { options, limits }) => {
            let limits = limits.resolve()?;
            block_on(commands::report::run(options.resolve()?, limits))
        }
        Command::Compare(Arguments { options, limits }) => {
            let limits = limits.resolve()?;
            block_on(commands::compare::run(options.resolve()?, &limits))
        }
        Command::Watch(Arguments { options, limits }) => {
            let limits = limits.resolve()?;
            block_on(commands::watch::run(options.resolve()?, &limits, &progress))
        }
        Command::Reconstruct(Arguments { options, limits }) => {
            let limits = limits.resolve()?;
            let settings = options.resolve()?;
            let device = one_device(settings.device, None)?;
            block_on(commands::reconstruct::run(settings, limits, device))
        }
        Command::Doctor(Arguments { options, limits }) => {
            let limits = limits.resolve()?;
            block_on(commands::doctor::run(options.resolve(), &limits))
        }
        // Its words were those of its job.
        Command::Worker(_) | Command::Submit(_) => {
            unreachable!("a worker runs the command of its job, a submission none")
        }
    }
}

/// Hands a job to a scheduler.
fn submit(scheduler: Scheduler, (job, line): SubmittedJob) -> Result<()> {
    if line.is_worker {
        return Err(
            SettingsError::invalid("the job to submit", "worker", "the job itself: an engine starts workers").into()
        );
    }
    if job.shared.show_settings {
        let expected = format!("before {0}, or `restok {0} --show-settings`", line.command);
        return Err(SettingsError::invalid("--show-settings", "among the options of the job", expected).into());
    }
    let told = told(&line.program, &line.command, &line.matches, &line.file);
    // Where the job runs, a relative path may be another file.
    let file = typed_settings(&line.matches).map(std::path::absolute).transpose()?;
    match scheduler {
        Scheduler::Slurm(options) => {
            let settings = options.resolve()?;
            let processes = settings.tasks.unwrap_or(1);
            let job = Job::check(&line.command, job.command, (told, file), processes, false)?;
            commands::submit::to_slurm(&settings, &job)
        }
        Scheduler::Kubernetes(options) => {
            let settings = options.resolve()?;
            let has_secrets = !settings.secrets.is_empty();
            let job = Job::check(&line.command, job.command, (told, file), 1, has_secrets)?;
            commands::submit::to_kubernetes(&settings, &job)
        }
    }
}

/// Starts logging, and decides how progress is shown.
fn start_log(general: &GeneralOptions, line: &CommandLine, is_first: bool) -> Result<Progress, SettingsError> {
    models::use_fused_kernels(general.fused_kernels == Some(true));
    let format = general.log_format.unwrap_or_default();
    let bars = indicatif::MultiProgress::new();
    // Of several processes the first one speaks, and the others warn.
    let told = line.matches.value_source("log_level").is_some_and(|source| source != ValueSource::DefaultValue);
    let level = general.log_level.as_deref().filter(|_| is_first || told);
    logging::start(level.unwrap_or(if is_first { "info" } else { "warn" }), format, bars.clone())?;
    let typed: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let older = line.file.older_names(&line.program, &line.command, &typed);
    if !older.is_empty() {
        tracing::warn!("older names still work: {}", older.join(", "));
    }
    let style = if is_first { general.progress.unwrap_or_default() } else { ProgressStyle::None };
    Ok(Progress::new(style, general.progress_seconds.unwrap_or_default(), format, bars))
}

/// The device of a command that computes on one, found before anything else touches torch.
fn one_device(choice: DeviceChoice, threads: Option<usize>) -> Result<Device> {
    let devices = models::initialise(&[choice], threads)?;
    Ok(*devices.first().ok_or_else(|| SettingsError::invalid("--device", "none", "a device"))?)
}

/// Trains with the other processes of the launch, if there are any, as soon as all have appeared; a signal before that ends it at once.
fn train(
    launch: Launch,
    (device, timeout): (Device, Duration),
    training: impl FnOnce(Option<Arc<ProcessGroup>>, &CancellationToken) -> Result<()> + Send + 'static,
) -> Result<()> {
    until_stopped(Stopping::TRAINING, |cancel| async move {
        let meeting = tokio::task::spawn_blocking({
            let launch = launch.clone();
            move || launch.meet(device, timeout)
        });
        let group = tokio::select! {
            group = meeting => group??,
            () = cancel.cancelled() => return Err(PipelineError::Drained.into()),
        };
        let work = move || {
            let _named = launch.named();
            let own_device = group.as_ref().map_or(Ok(()), |group| group.use_device());
            let trained = own_device.map_err(Into::into).and_then(|()| training(group.clone(), &cancel));
            // Who ends because of another one is not the reason.
            let is_own = |error: &anyhow::Error| !matches!(error.downcast_ref(), Some(ModelError::ProcessGroup { .. }));
            if let (Err(error), Some(group)) = (&trained, &group)
                && is_own(error)
            {
                group.report_end(&output::describe(error));
            }
            trained
        };
        tokio::task::spawn_blocking(work).await?
    })
}

/// Runs a command to its end, or to where a signal lets it stop.
fn until_stopped<F: Future<Output = Result<()>>>(
    stopping: Stopping,
    command: impl FnOnce(CancellationToken) -> F,
) -> Result<()> {
    block_on(async {
        let cancel = CancellationToken::new();
        let _listening = process::cancel_on_signals(cancel.clone(), stopping)?;
        let ended = command(cancel).await;
        for problem in models::fused_kernels_report().problems {
            tracing::warn!("a fused kernel was not used: {problem}");
        }
        ended
    })
}

/// Runs a command to its end. What still runs in the background then, such as a read that nobody waits for, is left behind.
fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}
