//! Settings as names and values, whatever they are: everything that a plan or a checkpoint says, in its own words.

use crate::text::count;
use serde_json::Value;

/// Elements of a list that are written out.
const ELEMENTS: usize = 24;

/// Every setting below `value`, a name and a text each, in the order in which they stand. Names of settings within settings are joined.
pub(crate) fn settings_list(value: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect("", value, &mut found);
    found
}

fn collect(path: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let key = key.replace('_', " ");
                let path = if path.is_empty() { key } else { format!("{path} · {key}") };
                collect(&path, value, found);
            }
        }
        _ => found.push((path.to_owned(), text(value))),
    }
}

/// A setting as text; addresses without what must not be shown.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => pipeline::without_secrets(text),
        Value::Array(elements) => list(elements),
        Value::Object(fields) if fields.is_empty() => "none".to_owned(),
        other => other.to_string(),
    }
}

/// A list; numbers that follow each other as a range.
fn list(elements: &[Value]) -> String {
    if elements.is_empty() {
        return "none".to_owned();
    }
    if let (Some(first), Some(last)) = (elements[0].as_i64(), elements[elements.len() - 1].as_i64())
        && elements.len() > 3
        && (first..=last).map(Value::from).eq(elements.iter().cloned())
    {
        return format!("{first} to {last}");
    }
    let mut texts: Vec<String> = elements.iter().take(ELEMENTS).map(text).collect();
    if elements.len() > ELEMENTS {
        texts.push(format!("… {} more", count((elements.len() - ELEMENTS) as u64)));
    }
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_listed_under_its_whole_name_and_secrets_are_not() {
        let settings = serde_json::json!({
            "source": "https://user:secret@host/a?sig=secret",
            "tokenizer": { "sha256": "ab", "levels": [1, 1, 2] },
            "classes": (0..1000).collect::<Vec<_>>(),
            "names": (0..30).map(|name| format!("n{name}")).collect::<Vec<_>>(),
            "flip": true, "pictures": null, "changes": {},
        });
        let listed = settings_list(&settings);
        let value = |name: &str| listed.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        assert_eq!(value("source"), Some("https://host/a"));
        assert_eq!((value("tokenizer · sha256"), value("tokenizer · levels")), (Some("ab"), Some("1, 1, 2")));
        assert_eq!((value("classes"), value("flip")), (Some("0 to 999"), Some("yes")));
        assert_eq!((value("pictures"), value("changes")), (Some("none"), Some("none")));
        assert!(value("names").is_some_and(|names| names.ends_with("n23, … 6 more")));
    }
}
