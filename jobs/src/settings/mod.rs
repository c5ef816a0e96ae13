//! From what was typed, exported and written in a file to the settings of a job, once.
//!
//! A command's options are one struct whose every field may be absent. The command line fills one (from flags and
//! environment variables), the settings file fills another (from the section named like the command), the defaults a third.
//! [`layer`] lays them over each other, field by field, and remembers where each value came from; the command then turns the
//! result into its settings, where nothing that is needed may be absent. Since all three are the same struct, a flag cannot
//! exist without its key in the file, nor a default without its flag.

mod error;
mod evaluate;
mod file;
mod general;
mod generate;
mod limits;
mod report;
mod sampling;
mod show;
mod sweep;
mod table_commands;
mod tokenize;
mod train_generator;
mod train_tokenizer;
mod training;
mod values;

pub(crate) use error::SettingsError;
pub(crate) use evaluate::{EvaluateOptions, EvaluateSettings, EvaluationTask, ReconstructionTask, ScoringWork};
pub(crate) use file::SettingsFile;
pub(crate) use general::{GeneralOptions, LogFormat, ProgressStyle};
pub(crate) use generate::{ClassChoice, Codes, GenerateOptions, GenerateSettings};
pub(crate) use limits::{LimitOptions, STORAGE_HEADING, WORK_HEADING};
pub(crate) use report::{ReportOptions, ReportSettings};
pub(crate) use show::show;
pub(crate) use sweep::{SweepOptions, SweepPoint, SweepScoring, SweepSettings};
pub(crate) use table_commands::{
    FinalizeOptions, ImageChoice, InspectOptions, ReconstructOptions, ReconstructSettings, ReportFormat, VerifyOptions,
};
pub(crate) use tokenize::{TokenizeOptions, TokenizeSettings};
pub(crate) use train_generator::{TokenFacts, TrainGeneratorOptions, TrainGeneratorSettings};
pub(crate) use train_tokenizer::{TrainTokenizerOptions, TrainTokenizerSettings};
pub(crate) use training::RunSettings;
pub(crate) use values::{BatchSize, Devices, ModelReference, RejectRate};

use clap::parser::ValueSource;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt};

/// Options of one section: every field is an `Option`, and its serialized name is the flag's without the dashes.
pub(crate) trait Options: Serialize + DeserializeOwned {
    /// What holds where nobody says otherwise; absent where there is no default or it depends on something else.
    fn defaults() -> Self;
}

/// Where a value came from, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line.
    Flag,
    /// An environment variable.
    Environment,
    /// The settings file.
    File,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "settings file",
            Self::Default => "default",
        })
    }
}

/// Options of one section after laying all layers over each other.
#[derive(Clone, Debug)]
pub(crate) struct Layered<O> {
    /// The values.
    pub(crate) options: O,
    /// Where each value that is present came from, by key.
    pub(crate) origins: BTreeMap<String, Origin>,
}

/// Flags over environment over file over defaults, field by field.
///
/// `source_of` tells whether a typed value is a flag's or a variable's, by the field's name.
///
/// # Errors
/// When a value that serializes does not read back, which the types of the options do not give it reason to.
pub(crate) fn layer<O: Options>(
    typed: &O,
    source_of: impl Fn(&str) -> Option<ValueSource>,
    file: &O,
) -> Result<Layered<O>, SettingsError> {
    let mut values = serde_json::Map::new();
    let mut origins = BTreeMap::new();
    let mut lay = |options: &O, origin_of: &dyn Fn(&str) -> Origin| -> Result<(), SettingsError> {
        for (key, value) in fields(options)? {
            origins.insert(key.clone(), origin_of(&key));
            values.insert(key, value);
        }
        Ok(())
    };
    lay(&O::defaults(), &|_| Origin::Default)?;
    lay(file, &|_| Origin::File)?;
    lay(typed, &|key| match source_of(&key.replace('-', "_")) {
        Some(ValueSource::EnvVariable) => Origin::Environment,
        _ => Origin::Flag,
    })?;
    let options = serde_json::from_value(values.into()).map_err(SettingsError::internal)?;
    Ok(Layered { options, origins })
}

/// The fields that are present, by key.
pub(crate) fn fields<O: Options>(options: &O) -> Result<serde_json::Map<String, serde_json::Value>, SettingsError> {
    match serde_json::to_value(options).map_err(SettingsError::internal)? {
        serde_json::Value::Object(map) => Ok(map.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        other => Err(SettingsError::internal(format!("options serialize as {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(batch_size: Option<usize>, unit_size: Option<usize>) -> TokenizeOptions {
        TokenizeOptions { batch_size: batch_size.map(BatchSize::Rows), unit_size, ..TokenizeOptions::default() }
    }

    #[test]
    fn a_flag_wins_over_environment_over_file_over_default() {
        let file = TokenizeOptions { split: Some("val".to_owned()), ..with(Some(2), Some(20)) };
        let typed = with(Some(3), Some(30));
        let source_of = |name: &str| match name {
            "batch_size" => Some(ValueSource::CommandLine),
            "unit_size" => Some(ValueSource::EnvVariable),
            _ => None,
        };
        let Layered { options, origins } = layer(&typed, source_of, &file).expect("these options layer");
        assert_eq!((options.batch_size, origins["batch-size"]), (Some(BatchSize::Rows(3)), Origin::Flag));
        assert_eq!((options.unit_size, origins["unit-size"]), (Some(30), Origin::Environment));
        assert_eq!((options.split.as_deref(), origins["split"]), (Some("val"), Origin::File));
        assert_eq!((options.precision.as_deref(), origins["precision"]), (Some("fp32"), Origin::Default));
        assert!(options.source.is_none() && !origins.contains_key("source"));
    }

    #[test]
    fn a_flag_can_take_back_what_the_file_switched_on() {
        let file = TokenizeOptions { dry_run: Some(true), ..TokenizeOptions::default() };
        let typed = TokenizeOptions { dry_run: Some(false), ..TokenizeOptions::default() };
        let layered = layer(&typed, |_| Some(ValueSource::CommandLine), &file).expect("these options layer");
        assert_eq!(layered.options.dry_run, Some(false));
    }
}
