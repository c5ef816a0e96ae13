//! `--show-settings`: what a command would run with, as a settings file, and where each value came from.

use super::{
    SettingsFile,
    file::{is_list, key_of, options_of},
};
use clap::{Arg, ArgMatches, Command, builder::StyledStr, parser::ValueSource};
use std::{any::TypeId, path::PathBuf};

/// One section as TOML, each line with where its value came from; what has no value stands there as a comment.
pub(crate) fn show(program: &Command, section: &str, matches: &ArgMatches, file: &SettingsFile) -> String {
    let mut options = options_of(program, section).unwrap_or_default();
    options.sort_by_key(key_of);
    let line = |option: &Arg| {
        let (key, id) = (key_of(option), option.get_id().as_str());
        let Some((values, source)) = matches.get_raw(id).zip(matches.value_source(id)) else {
            // A list that the file leaves empty, which a default would not be.
            return match file.has(section, id) {
                true => (format!("{key} = []"), "settings file".to_owned()),
                false => (format!("# {key} ="), unset(option)),
            };
        };
        let values = values.map(|value| value.to_string_lossy().into_owned());
        let values: Vec<toml::Value> = values.map(|value| shown(option, value)).collect();
        let value = match <[_; 1]>::try_from(values) {
            Ok([value]) if !is_list(option) => value,
            Ok(values) => toml::Value::Array(values.into()),
            Err(values) => toml::Value::Array(values),
        };
        let origin = match source {
            ValueSource::CommandLine => "flag",
            ValueSource::EnvVariable => "environment",
            _ if file.has(section, id) => "settings file",
            _ => "default",
        };
        (format!("{key} = {value}"), origin.to_owned())
    };
    let lines: Vec<_> = options.iter().map(line).collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
    let lines = lines.into_iter().map(|(line, origin)| format!("{line:width$}  # {origin}\n"));
    format!("[{section}]\n{}", lines.collect::<String>())
}

/// What an option that was not set stands for, as far as its help says: a default that follows from other values, or that comes from a preset.
fn unset(option: &Arg) -> String {
    let text = |help: Option<&StyledStr>| help.map(ToString::to_string).unwrap_or_default();
    let (short, long) = (text(option.get_help()), text(option.get_long_help()));
    let in_brackets =
        short.split_once("(default: ").and_then(|(_, rest)| rest.split_once(')')).map(|(default, _)| default);
    let sentence =
        long.split_once("Defaults to ").map(|(_, rest)| rest.split(". ").next().unwrap_or(rest).trim_end_matches('.'));
    match in_brackets.or(sentence) {
        Some(default) => format!("not set: {}", default.split_whitespace().collect::<Vec<_>>().join(" ")),
        None => "not set".to_owned(),
    }
}

/// A value as a settings file writes it. A text may be an address with credentials (a presigned URL, a user and a password), which
/// are never shown.
fn shown(option: &Arg, value: String) -> toml::Value {
    let kind = option.get_value_parser().type_id();
    let is_text = kind == TypeId::of::<String>() || kind == TypeId::of::<PathBuf>();
    if is_text {
        return pipeline::without_secrets(&value).into();
    }
    value.parse::<toml::Value>().ok().filter(|read| !read.is_table()).unwrap_or_else(|| value.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    fn shown(line: &str) -> String {
        let section = line.split(' ').next().expect("a command");
        let program = cli::command();
        let matches = program.clone().try_get_matches_from(["restok"].into_iter().chain(line.split(' ')));
        let matches = matches.expect("right arguments");
        let (_, matches) = matches.subcommand().expect("a command");
        show(&program, section, matches, &SettingsFile::default())
    }

    #[test]
    fn what_is_shown_is_a_settings_file_with_origins() {
        let text = shown("tokenize --source s3://bucket/a\"b\" --max-reject-rate 2%");
        for (key, value, origin) in [
            ("batch-size", "32", "default"),
            ("devices", "\"auto\"", "default"),
            ("dry-run", "false", "default"),
            ("max-reject-rate", "\"2%\"", "flag"),
            ("source", "'s3://bucket/a\"b\"'", "flag"),
        ] {
            let line = text.lines().find(|line| line.starts_with(&format!("{key} = {value} ")));
            assert!(line.is_some_and(|line| line.ends_with(&format!("# {origin}"))), "{key} in {text}");
        }
        assert!(
            text.lines().any(|line| line.starts_with("# crop =") && line.contains("  # not set: adm-center")),
            "{text}"
        );
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), &text).expect("it can be written");
        let read = SettingsFile::read(Some(file.path()), &cli::command()).expect("it is a settings file");
        assert!(read.has("tokenize", "source") && !read.has("tokenize", "crop"));
    }

    #[test]
    fn what_is_not_set_says_what_it_follows_from() {
        let text = shown("train-tokenizer --preset tiny --steps 30");
        for (key, expected) in [
            ("validate-every", "# not set: 5000, or a fifth of the training if that is less"),
            ("warmup-steps", "# not set: the preset's, or a tenth of the training if that is less"),
            ("vgg16", "# not set"),
        ] {
            let line = text.lines().find(|line| line.starts_with(&format!("# {key} ="))).expect(key);
            assert!(line.ends_with(expected), "{line}");
        }
    }

    #[test]
    fn a_list_is_shown_as_one_and_no_address_of_it_shows_its_secrets() {
        let text = shown("train-generator --source https://user:secret@host/a,s3://bucket/b");
        assert!(!text.contains("secret") && text.contains("\"s3://bucket/b\"]"), "{text}");
        let text = shown("train-generator --source s3://bucket/b --sheet-guidance 2");
        assert!(text.contains("source = [\"s3://bucket/b\"]"), "{text}");
    }
}
