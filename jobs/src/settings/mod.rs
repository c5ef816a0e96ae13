//! From what was typed, exported and written in a file to the settings of a job, once.
//!
//! A command's options are one struct, and each option is declared there once: its flag, its help, its default. Its environment variable is
//! its name in capitals behind `RESTOK_`, its key in the settings file the flag without dashes. clap lays flags over variables over defaults;
//! a settings file is read against the command line's own declaration, and its values take the place of defaults
//! ([`SettingsFile::apply`]). Each command then turns its options into settings, where nothing that is needed may be absent.

mod compare;
mod doctor;
mod error;
mod evaluate;
mod file;
mod general;
mod generate;
mod limits;
mod report;
mod sampling;
mod shared;
mod show;
mod submit;
mod sweep;
mod table_commands;
mod tokenize;
mod told;
mod train_generator;
mod train_tokenizer;
mod training;
mod values;

pub(crate) use compare::{CompareOptions, CompareSettings, ComparisonFormat, named as named_score};
pub(crate) use doctor::{DoctorOptions, DoctorSettings};
pub(crate) use error::SettingsError;
pub(crate) use evaluate::{
    EvaluateOptions, EvaluateSettings, EvaluationTask, ReconstructionTask, ScoreSelection, ScoringWork,
};
pub(crate) use file::{SettingsFile, WORKER, find_command};
pub(crate) use general::{GeneralOptions, LogFormat, ProgressStyle};
pub(crate) use generate::{ClassChoice, Codes, GenerateOptions, GenerateSettings};
pub(crate) use limits::{LimitOptions, STORAGE_HEADING, WORK_HEADING};
pub(crate) use report::{ReportOptions, ReportSettings};
pub(crate) use show::show;
pub(crate) use submit::{KubernetesOptions, KubernetesSettings, SlurmOptions, SlurmSettings, VolumeClaim};
pub(crate) use sweep::{SweepOptions, SweepPoint, SweepScoring, SweepSettings};
pub(crate) use table_commands::{
    FinalizeOptions, ImageChoice, InspectOptions, ReconstructOptions, ReconstructSettings, ReportFormat, VerifyOptions,
    WatchOptions, WatchSettings,
};
pub(crate) use tokenize::{TokenizeOptions, TokenizeSettings};
pub(crate) use told::{Told, ToldBy, told};
pub(crate) use train_generator::{TokenFacts, TrainGeneratorOptions, TrainGeneratorSettings};
pub(crate) use train_tokenizer::{TrainTokenizerOptions, TrainTokenizerSettings};
#[cfg(test)]
pub(crate) use training::Periods;
pub(crate) use training::{Batches, RunSettings, Schedule};
pub(crate) use values::{BatchSize, Devices, ModelReference, RejectRate};

/// The environment variable of an option, by its name in any spelling.
pub(crate) fn variable(name: &str) -> String {
    format!("RESTOK_{}", name.replace('-', "_").to_uppercase())
}

/// Options as a command line gives them, with the defaults of those that it leaves out. For tests.
#[cfg(test)]
fn parsed<O: clap::Args>(line: &str) -> O {
    let command = O::augment_args(clap::Command::new("options").no_binary_name(true).disable_help_flag(true));
    let matches =
        command.try_get_matches_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
    O::from_arg_matches(&matches).expect("nothing is required")
}
