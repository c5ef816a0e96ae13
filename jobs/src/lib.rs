//! What an operator runs: the binary `restok`. The only room where `models` and `pipeline` meet.
//!
//! ```text
//! argv, environment, file ── cli, settings ── one settings struct a command ── commands/* ── report ── exit code
//!                                                                                │
//!                                        networks: what `models` computes as the encoders, samplers and decoders of `pipeline`
//! ```
//!
//! Standard output carries what a command was asked for; logs, progress and errors go to standard error.

mod aligned;
mod cli;
mod commands;
mod contact_sheet;
mod environment;
mod exit_code;
mod hub;
mod logging;
mod model_folder;
mod networks;
mod output;
mod process;
mod progress;
mod report;
mod run_log;
mod settings;
mod training;
mod workers;

use anyhow::Result;
use clap::{ArgMatches, FromArgMatches};
use cli::{Arguments, Cli, Command};
use models::{Device, DeviceChoice};
use pipeline::Limits;
use process::Stopping;
use progress::Progress;
use settings::{GeneralOptions, Layered, LimitOptions, Options, SettingsError, SettingsFile, layer, show};
use std::future::Future;
use tokio_util::sync::CancellationToken;
use workers::Workers;

/// Runs the program with the process's arguments and gives the code to leave with.
pub fn main() -> std::process::ExitCode {
    let code = match parse() {
        Err(code) => return code.into(),
        Ok((cli, matches)) => match run(cli, &matches) {
            Ok(()) => exit_code::ExitCode::Done,
            Err(error) => {
                let code = exit_code::of(&error);
                // Stopping because one was asked to is no error.
                let stopped = code == exit_code::ExitCode::Drained;
                output::complain(&if stopped { format!("{error}\n") } else { output::describe(&error) });
                // A device thread may still be at work.
                process::leave_at_once(code);
            }
        },
    };
    code.into()
}

/// Reads the command line. Help and version are printed and end the program well; anything that does not parse is bad
/// settings, like a settings file that does not read.
fn parse() -> Result<(Cli, ArgMatches), exit_code::ExitCode> {
    let command = cli::command().map_err(|error| {
        output::complain(&output::describe(&error.into()));
        exit_code::ExitCode::Permanent
    })?;
    let parsed = command.try_get_matches().and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    parsed.map_err(|error| {
        // Nobody is left to tell when this fails.
        drop(error.print());
        if error.use_stderr() { exit_code::ExitCode::Permanent } else { exit_code::ExitCode::Done }
    })
}

/// What every command starts from.
struct Start<'a> {
    file: SettingsFile,
    matches: &'a ArgMatches,
    general: Layered<GeneralOptions>,
    show_settings: bool,
}

fn run(cli: Cli, matches: &ArgMatches) -> Result<()> {
    let file = SettingsFile::read(cli.shared.settings.as_deref())?;
    // Options that hold for every command may stand before or after its name; clap knows them in the command's matches.
    let (_, matches) =
        matches.subcommand().ok_or_else(|| SettingsError::invalid("command", "none", "one of --help"))?;
    let general = layer(&cli.shared.general, |name| matches.value_source(name), &file.general)?;
    let start = Start { file, matches, general, show_settings: cli.shared.show_settings };
    match cli.command {
        Command::Tokenize(arguments) => {
            let Some((options, limits)) = start.prepare("tokenize", &arguments, |file| &file.tokenize)? else {
                return Ok(());
            };
            let progress = start.log()?;
            let settings = options.resolve()?;
            let workers = Workers::find(&settings.devices, settings.device_threads)?;
            until_stopped(Stopping::TABLES, |cancel| {
                commands::tokenize::run(settings, limits, workers, progress, cancel)
            })
        }
        Command::TrainTokenizer(arguments) => {
            let Some((options, limits)) = start.prepare("train-tokenizer", &arguments, |file| &file.train_tokenizer)?
            else {
                return Ok(());
            };
            let progress = start.log()?;
            let settings = options.resolve()?;
            let device = one_device(settings.run.device, settings.run.device_threads)?;
            until_stopped(Stopping::TRAINING, |cancel| async move {
                let training = move || commands::train_tokenizer::run(settings, &limits, device, &progress, &cancel);
                tokio::task::spawn_blocking(training).await?
            })
        }
        Command::TrainGenerator(arguments) => {
            let Some((options, limits)) = start.prepare("train-generator", &arguments, |file| &file.train_generator)?
            else {
                return Ok(());
            };
            let progress = start.log()?;
            let settings = options.resolve()?;
            let device = one_device(settings.run.device, settings.run.device_threads)?;
            until_stopped(Stopping::TRAINING, |cancel| async move {
                let training = move || commands::train_generator::run(settings, &limits, device, &progress, &cancel);
                tokio::task::spawn_blocking(training).await?
            })
        }
        Command::Generate(arguments) => {
            let Some((options, limits)) = start.prepare("generate", &arguments, |file| &file.generate)? else {
                return Ok(());
            };
            let progress = start.log()?;
            let settings = options.resolve()?;
            let workers = Workers::find(&settings.devices, settings.device_threads)?;
            until_stopped(Stopping::TABLES, |cancel| {
                commands::generate::run(settings, limits, workers, progress, cancel)
            })
        }
        Command::Sweep(arguments) => {
            let Some((options, limits)) = start.prepare("sweep", &arguments, |file| &file.sweep)? else {
                return Ok(());
            };
            let progress = start.log()?;
            let settings = options.resolve()?;
            let workers = Workers::find(&settings.devices, settings.device_threads)?;
            until_stopped(Stopping::TABLES, |cancel| commands::sweep::run(settings, limits, workers, progress, cancel))
        }
        Command::Evaluate(arguments) => {
            let Some((options, limits)) = start.prepare("evaluate", &arguments, |file| &file.evaluate)? else {
                return Ok(());
            };
            let progress = start.log()?;
            let settings = options.resolve()?;
            let workers = Workers::find(&settings.devices, settings.device_threads)?;
            until_stopped(Stopping::TABLES, |cancel| {
                commands::evaluate::run(settings, limits, workers, progress, cancel)
            })
        }
        Command::Finalize(arguments) => {
            let Some((options, limits)) = start.prepare("finalize", &arguments, |file| &file.finalize)? else {
                return Ok(());
            };
            start.log()?;
            let output = options.output()?;
            let max_reject_rate = options.max_reject_rate.unwrap_or_default();
            block_on(commands::finalize::run(&output, max_reject_rate, options.format.unwrap_or_default(), &limits))
        }
        Command::Verify(arguments) => {
            let Some((options, limits)) = start.prepare("verify", &arguments, |file| &file.verify)? else {
                return Ok(());
            };
            start.log()?;
            let output = options.output()?;
            let fast = options.fast == Some(true);
            block_on(commands::verify::run(&output, fast, options.format.unwrap_or_default(), &limits))
        }
        Command::Inspect(arguments) => {
            let Some((options, limits)) = start.prepare("inspect", &arguments, |file| &file.inspect)? else {
                return Ok(());
            };
            start.log()?;
            let output = options.output()?;
            let rows = options.rows.unwrap_or_default();
            block_on(commands::inspect::run(&output, rows, options.format.unwrap_or_default(), &limits))
        }
        Command::Report(arguments) => {
            let Some((options, limits)) = start.prepare("report", &arguments, |file| &file.report)? else {
                return Ok(());
            };
            start.log()?;
            block_on(commands::report::run(options.resolve()?, limits))
        }
        Command::Reconstruct(arguments) => {
            let Some((options, limits)) = start.prepare("reconstruct", &arguments, |file| &file.reconstruct)? else {
                return Ok(());
            };
            start.log()?;
            let settings = options.resolve()?;
            let device = one_device(settings.device, None)?;
            block_on(commands::reconstruct::run(settings, limits, device))
        }
    }
}

impl Start<'_> {
    /// Lays a command's options over each other. With `--show-settings` prints them instead, and gives nothing.
    fn prepare<O: Options + clap::Args>(
        &self,
        section: &str,
        arguments: &Arguments<O>,
        of_file: impl Fn(&SettingsFile) -> &O,
    ) -> Result<Option<(O, Limits)>> {
        let source_of = |name: &str| self.matches.value_source(name);
        let options = layer(&arguments.options, source_of, of_file(&self.file))?;
        let limits: Layered<LimitOptions> = layer(&arguments.limits, source_of, &self.file.limits)?;
        if self.show_settings {
            let sections = [show(section, &options)?, show("limits", &limits)?, show("general", &self.general)?];
            output::print(&sections.join("\n"))?;
            return Ok(None);
        }
        Ok(Some((options.options, limits.options.resolve()?)))
    }

    /// Starts logging, and decides how progress is shown.
    fn log(&self) -> Result<Progress, SettingsError> {
        let general = &self.general.options;
        models::use_fused_kernels(general.fused_kernels == Some(true));
        let format = general.log_format.unwrap_or_default();
        let bars = indicatif::MultiProgress::new();
        logging::start(general.log_level.as_deref().unwrap_or("info"), format, bars.clone())?;
        Ok(Progress::new(
            general.progress.unwrap_or_default(),
            general.progress_seconds.unwrap_or_default(),
            format,
            bars,
        ))
    }
}

/// The device of a command that computes on one, found before anything else touches torch.
fn one_device(choice: DeviceChoice, threads: Option<usize>) -> Result<Device> {
    let devices = models::initialise(&[choice], threads)?;
    Ok(*devices.first().ok_or_else(|| SettingsError::invalid("--device", "none", "a device"))?)
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
