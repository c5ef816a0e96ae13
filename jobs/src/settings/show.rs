//! `--show-settings`: what a command would run with, as a settings file, and where each value came from.

use super::{Layered, Options, SettingsError};

/// Key whose value may hold credentials (a presigned URL, a user and password), which are never shown.
const ADDRESS_KEYS: [&str; 3] = ["source", "output", "tokens"];

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
                let value = match value.as_str() {
                    Some(address) if ADDRESS_KEYS.contains(&key.as_str()) => without_credentials(address).into(),
                    _ => value,
                };
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

/// An address without user, password and query: presigned URLs and SAS tokens keep their secrets there.
pub(crate) fn without_credentials(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let rest = match scheme {
        // Only these have queries; elsewhere a question mark is a letter of a pattern.
        "http" | "https" => rest.split(['?', '#']).next().unwrap_or(rest),
        _ => rest,
    };
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    // `container@account` of an Azure address is no secret; `user:password@host` is.
    let host = match host.rsplit_once('@') {
        Some((user, host)) if user.contains(':') || matches!(scheme, "http" | "https") => host,
        _ => host,
    };
    match path {
        Some(path) => format!("{scheme}://{host}/{path}"),
        None => format!("{scheme}://{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{SettingsFile, TokenizeOptions, layer};

    #[test]
    fn what_is_shown_is_a_settings_file_with_origins() {
        let typed = TokenizeOptions { source: Some("s3://bucket/a \"b\"".to_owned()), ..TokenizeOptions::default() };
        let layered = layer(&typed, |_| None, &TokenizeOptions::default()).expect("layers");
        let text = show("tokenize", &layered).expect("shows");
        assert!(text.lines().any(|line| line.starts_with("batch-size = 32 ") && line.ends_with("# default")), "{text}");
        assert!(text.lines().any(|line| line.starts_with("# crop =") && line.ends_with("# not set")), "{text}");
        let file: SettingsFile = toml::from_str(&text).expect("it is a settings file");
        assert_eq!(file.tokenize.source.as_deref(), Some("s3://bucket/a \"b\""));
        assert_eq!(file.tokenize.batch_size, Some(32));
    }

    #[test]
    fn credentials_are_never_shown() {
        for (address, shown) in [
            ("https://user:secret@host/a/b?sig=secret", "https://host/a/b"),
            ("https://token@host/a", "https://host/a"),
            ("s3://key:secret@bucket/a", "s3://bucket/a"),
            ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
            ("s3://bucket/img-?.tar", "s3://bucket/img-?.tar"),
            ("/data/a?b", "/data/a?b"),
            ("https://host", "https://host"),
        ] {
            assert_eq!(without_credentials(address), shown);
        }
    }
}
