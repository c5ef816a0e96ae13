//! A file with the names of the classes, in the order of their labels.

use crate::settings::SettingsError;
use serde_json::Value;
use std::{collections::HashSet, fs, path::Path};

/// Reads one name a line, or a JSON list of names, or a JSON object from labels to names.
///
/// # Errors
/// When the file cannot be read, names no class, or names one twice.
pub(super) fn read(file: &Path) -> Result<Vec<String>, SettingsError> {
    const FLAG: &str = "--classes";
    const EXPECTED: &str = "a file with one name a line, a JSON list of names, or a JSON object from labels to names";
    let invalid = |problem: String| SettingsError::invalid(FLAG, format!("{}: {problem}", file.display()), EXPECTED);
    let text = fs::read_to_string(file).map_err(|error| invalid(error.to_string()))?;
    let text = text.trim_start_matches('\u{feff}');
    let names = match text.trim_start().starts_with(['[', '{']) {
        true => from_json(text).map_err(invalid)?,
        false => text.trim_end().lines().map(|line| line.trim().to_owned()).collect(),
    };
    // A line that was left out would give all behind it other numbers.
    if let Some(blank) = names.iter().position(String::is_empty) {
        return Err(invalid(format!("no name for label {blank}")));
    }
    if names.is_empty() {
        return Err(invalid("no names".to_owned()));
    }
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(invalid(format!("{twice:?} is there twice"))),
        None => Ok(names),
    }
}

fn from_json(text: &str) -> Result<Vec<String>, String> {
    let text_of = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| format!("{value} is no name"));
    match serde_json::from_str(text).map_err(|error| error.to_string())? {
        Value::Array(values) => values.iter().map(text_of).collect(),
        Value::Object(names) => {
            let numbered = names.iter().map(|(label, name)| {
                let label: usize = label.parse().map_err(|_| format!("{label:?} is no label"))?;
                Ok((label, text_of(name)?))
            });
            let mut numbered = numbered.collect::<Result<Vec<_>, String>>()?;
            numbered.sort();
            match numbered.iter().enumerate().find(|(place, (label, _))| place != label) {
                Some((place, _)) => Err(format!("there is no label {place}")),
                None => Ok(numbered.into_iter().map(|(_, name)| name).collect()),
            }
        }
        other => Err(format!("found {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("classes");
        fs::write(&file, text).expect("written");
        read(&file).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_read_from_lines_and_from_json() {
        for text in [
            "cat\nsea lion\n",
            "\u{feff}cat\r\nsea lion\r\n\r\n",
            "[\"cat\", \"sea lion\"]",
            "{\"1\": \"sea lion\", \"0\": \"cat\"}",
        ] {
            assert_eq!(read_text(text).expect(text), ["cat", "sea lion"], "{text:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_classes_is_refused_by_its_file() {
        for (text, told) in [
            ("", "no names"),
            ("cat\n\ndog\n", "no name for label 1"),
            ("cat\ndog\ncat\n", "\"cat\" is there twice"),
            ("[1, 2]", "1 is no name"),
            ("{\"0\": \"cat\", \"2\": \"dog\"}", "there is no label 1"),
            ("[\"cat\"", "EOF"),
        ] {
            let error = read_text(text).expect_err(told);
            assert!(error.contains(told) && error.contains("classes"), "{error}");
        }
    }
}
