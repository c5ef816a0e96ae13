//! `--show-settings`: what a command would run with, as a settings file, and where each value came from.

use super::{Layered, Options, SettingsError};

/// Key whose value may hold credentials (a presigned URL, a user and password), which are never shown.
const ADDRESS_KEYS: [&str; 4] = ["source", "validation-source", "output", "tokens"];

/// One section as TOML, each line with where its value came from; what has no value stands there as a comment.
///
/// # Errors
/// When a value has no form in TOML, which the types of the options do not give it reason to.
pub(crate) fn show<O: Options>(section: &str, layered: &Layered<O>) -> Result<String, SettingsError> {
    let mut text = format!("[{section}]\n");
    let all = match serde_json::to_value(&layered.options).map_err(SettingsError::internal)? {
        serde_json::Value::Object(all) => all,
        other => return Err(SettingsError::internal(format!("options serialize as {other}"))),
    };
    let lines: Vec<(String, String)> = all
        .into_iter()
        .map(|(key, value)| match (layered.origins.get(&key), value) {
            (Some(origin), value) if !value.is_null() => {
                let value = if ADDRESS_KEYS.contains(&key.as_str()) { without_secrets(value) } else { value };
                let value = toml::Value::try_from(value).map_err(SettingsError::internal)?;
                Ok((format!("{key} = {value}"), origin.to_string()))
            }
            _ => Ok((format!("# {key} ="), "not set".to_owned())),
        })
        .collect::<Result<_, SettingsError>>()?;
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
    for (line, origin) in lines {
        text.push_str(&format!("{line:width$}  # {origin}\n"));
    }
    Ok(text)
}

/// An address, or a list of them, without what must not be shown.
fn without_secrets(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::String(address) => pipeline::without_secrets(&address).into(),
        serde_json::Value::Array(addresses) => addresses.into_iter().map(without_secrets).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{BatchSize, SettingsFile, TokenizeOptions, TrainGeneratorOptions, layer};

    #[test]
    fn what_is_shown_is_a_settings_file_with_origins() {
        let typed = TokenizeOptions { source: Some("s3://bucket/a \"b\"".to_owned()), ..TokenizeOptions::default() };
        let layered = layer(&typed, |_| None, &TokenizeOptions::default()).expect("layers");
        let text = show("tokenize", &layered).expect("shows");
        assert!(text.lines().any(|line| line.starts_with("batch-size = 32 ") && line.ends_with("# default")), "{text}");
        assert!(text.lines().any(|line| line.starts_with("# crop =") && line.ends_with("# not set")), "{text}");
        let file: SettingsFile = toml::from_str(&text).expect("it is a settings file");
        assert_eq!(file.tokenize.source.as_deref(), Some("s3://bucket/a \"b\""));
        assert_eq!(file.tokenize.batch_size, Some(BatchSize::Rows(32)));
    }

    #[test]
    fn no_address_of_a_list_shows_its_secrets() {
        let sources = ["https://user:secret@host/a", "s3://bucket/b"].map(str::to_owned).to_vec();
        let typed = TrainGeneratorOptions { source: Some(sources), ..TrainGeneratorOptions::default() };
        let layered = layer(&typed, |_| None, &TrainGeneratorOptions::default()).expect("layers");
        let text = show("train-generator", &layered).expect("shows");
        assert!(!text.contains("secret") && text.contains("s3://bucket/b"), "{text}");
    }
}
