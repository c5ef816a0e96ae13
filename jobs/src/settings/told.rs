//! What somebody set, as it would be typed: the command line of a job that runs elsewhere.

use super::{
    SettingsFile,
    file::{GENERAL, LIMITS, options_of},
};
use clap::{ArgMatches, Command, parser::ValueSource};

/// An option that is not left at its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// The flag, without its dashes.
    pub(crate) flag: String,
    /// The values, as they would be typed.
    pub(crate) values: Vec<String>,
    /// What parts several values in one word.
    pub(crate) delimiter: Option<char>,
    /// What set it.
    pub(crate) by: ToldBy,
}

/// Where the value of an option is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToldBy {
    /// The command line.
    Flag,
    /// The environment.
    Variable,
    /// The settings file.
    File,
}

impl Told {
    /// The option as words of a command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let word = |value: &str| format!("--{}={value}", self.flag);
        match self.delimiter {
            Some(delimiter) => vec![word(&self.values.join(&delimiter.to_string()))],
            None => self.values.iter().map(|value| word(value)).collect(),
        }
    }

    /// Whether a value holds what parts values, so that it cannot be typed: an element of a list in a settings file.
    pub(crate) fn is_untypable(&self) -> bool {
        self.delimiter.is_some_and(|delimiter| self.values.iter().any(|value| value.contains(delimiter)))
    }
}

/// The options of a command that were typed, exported or written, with those of every command.
pub(crate) fn told(program: &Command, command: &str, matches: &ArgMatches, file: &SettingsFile) -> Vec<Told> {
    let mut all = Vec::new();
    for section in [command, LIMITS, GENERAL] {
        for option in options_of(program, section).unwrap_or_default() {
            let id = option.get_id().as_str();
            if matches.try_contains_id(id).is_err() {
                continue;
            }
            let values = option.get_long().zip(matches.get_raw(id)).zip(matches.value_source(id));
            let Some(((flag, values), source)) = values else { continue };
            let by = match source {
                ValueSource::CommandLine => ToldBy::Flag,
                ValueSource::EnvVariable => ToldBy::Variable,
                _ if file.has(section, id) => ToldBy::File,
                _ => continue,
            };
            all.push(Told {
                flag: flag.to_owned(),
                values: values.map(|value| value.to_string_lossy().into_owned()).collect(),
                delimiter: option.get_value_delimiter(),
                by,
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    #[test]
    fn what_was_set_is_typed_again_and_defaults_are_not() {
        let typed = "restok evaluate --keep 1,4 --source s3://bucket/a --log-level debug --fetch-requests 9";
        let program = cli::command();
        let matches = program.clone().try_get_matches_from(typed.split(' ')).expect("right arguments");
        let (_, matches) = matches.subcommand().expect("a command");
        let told = told(&program, "evaluate", matches, &SettingsFile::default());
        let words: Vec<String> = told.iter().flat_map(Told::words).collect();
        assert_eq!(words, ["--source=s3://bucket/a", "--keep=1,4", "--fetch-requests=9", "--log-level=debug"]);
        assert!(told.iter().all(|told| told.by == ToldBy::Flag && !told.is_untypable()));
    }
}
