//! One reading of labels for all layouts: a number, the name of a class, or nothing.
//!
//! | found | row |
//! |---|---|
//! | a number from 0 to 2³¹ - 1, as an integer, a float without a fraction, or text | that label, and the class list's name for it |
//! | a negative number, null, nothing | no label: "unknown", as in the test sets of the hub |
//! | a larger number | rejected: 32 bits hold a label |
//! | text that is no number, without a class list | no label, and the text as the class's name |
//! | text that is no number, with one | the label of that class; rejected where the list does not have it |
//! | a list, an object, a fraction | no label, and one more in the account of what was left out |

use schemas::RejectReason;
use serde_json::Value;

/// Longest name of a class, in bytes. More is a text about the image.
const MOST_NAME_BYTES: usize = 256;

/// What a source says of an image's class.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum FoundLabel {
    /// Nothing.
    #[default]
    Absent,
    /// A number, however it was written.
    Number(i64),
    /// The name of a class.
    Name(String),
    /// Something else, as it is shown.
    Unreadable(String),
}

/// A row's label and the name of its class.
pub(super) type RowClass = (Option<i32>, Option<String>);

impl FoundLabel {
    /// From text, such as that of a `.cls` member.
    pub(super) fn from_text(text: &str) -> Self {
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Self::Absent;
        }
        // `5.0` is a number; `12e4`, `inf` and `nan` are names.
        let whole = text
            .split_once('.')
            .filter(|(_, zeros)| zeros.bytes().all(|byte| byte == b'0'))
            .map_or(text, |(whole, _)| whole);
        let digits = whole.strip_prefix(['-', '+']).unwrap_or(whole);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            // What does not even fit here is larger than any label, or below all.
            let beyond = if whole.starts_with('-') { i64::MIN } else { i64::MAX };
            return Self::Number(whole.parse().unwrap_or(beyond));
        }
        match text.len() <= MOST_NAME_BYTES && !text.contains(char::is_control) {
            true => Self::Name(text.to_owned()),
            false => Self::Unreadable(shortened(text)),
        }
    }

    /// From a number that may have a fraction.
    pub(super) fn from_float(number: f64) -> Self {
        // Every whole number of this size is a float64 of its own.
        const MOST: f64 = (1_u64 << 53) as f64;
        match number.fract() == 0.0 && number.abs() <= MOST {
            true => Self::Number(number as i64),
            false => Self::Unreadable(number.to_string()),
        }
    }

    /// From a value of a JSON object.
    pub(super) fn from_json(value: &Value) -> Self {
        match value {
            Value::Null => Self::Absent,
            Value::String(text) => Self::from_text(text),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), ..) => Self::Number(number),
                // Larger than any label, and told so.
                (_, Some(_), _) => Self::Number(i64::MAX),
                (.., Some(number)) => Self::from_float(number),
                _ => Self::Unreadable(number.to_string()),
            },
            other => Self::Unreadable(shortened(&other.to_string())),
        }
    }

    /// What it makes of a row. `class_names` is empty where nobody names classes.
    ///
    /// # Errors
    /// Why the row is rejected.
    pub(super) fn of_row(&self, class_names: &[String]) -> Result<RowClass, (RejectReason, String)> {
        match self {
            Self::Absent | Self::Unreadable(_) => Ok((None, None)),
            Self::Number(number) if *number < 0 => Ok((None, None)),
            Self::Number(number) => match i32::try_from(*number) {
                Ok(label) => Ok((Some(label), class_names.get(label as usize).cloned())),
                Err(_) => Err((RejectReason::Unreadable, format!("the label {number} is outside of 32 bits"))),
            },
            Self::Name(name) if class_names.is_empty() => Ok((None, Some(name.clone()))),
            Self::Name(name) => match class_names.iter().position(|class| class == name) {
                Some(label) => Ok((i32::try_from(label).ok(), Some(name.clone()))),
                None => Err((RejectReason::Unreadable, format!("the class {name:?} is not in the list of classes"))),
            },
        }
    }
}

/// As much of a text as an account shows.
fn shortened(text: &str) -> String {
    /// Letters that are shown.
    const SHOWN: usize = 40;
    let shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() { format!("{}…", shown.escape_debug()) } else { shown.escape_debug().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_numbers_however_they_are_written() {
        for text in ["7", " 7\n", "\u{feff}7", "7.0", "+7"] {
            assert_eq!(FoundLabel::from_text(text), FoundLabel::Number(7), "{text:?}");
        }
        for value in [json!(7), json!(7.0), json!("7")] {
            assert_eq!(FoundLabel::from_json(&value), FoundLabel::Number(7), "{value}");
        }
        for value in [json!([7]), json!({ "label": 7 }), json!(7.5), json!(true), json!("a\u{0}b")] {
            assert!(matches!(FoundLabel::from_json(&value), FoundLabel::Unreadable(_)), "{value}");
        }
        for name in ["12e4", "inf", "nan", "5.5", "1.2.3", "-"] {
            assert_eq!(FoundLabel::from_text(name), FoundLabel::Name(name.to_owned()));
        }
        assert_eq!(FoundLabel::from_text("99999999999999999999"), FoundLabel::Number(i64::MAX));
        assert_eq!(FoundLabel::from_json(&json!(null)), FoundLabel::Absent);
        assert_eq!(FoundLabel::from_text("  "), FoundLabel::Absent);
    }

    #[test]
    fn a_row_gets_the_number_the_name_or_a_reason() {
        let classes = ["cat".to_owned(), "dog".to_owned()];
        let row = |label: FoundLabel, classes: &[String]| label.of_row(classes);
        assert_eq!(row(FoundLabel::Number(1), &classes), Ok((Some(1), Some("dog".to_owned()))));
        assert_eq!(row(FoundLabel::Number(1), &[]), Ok((Some(1), None)));
        assert_eq!(row(FoundLabel::Number(-1), &classes), Ok((None, None)));
        assert_eq!(row(FoundLabel::Name("dog".to_owned()), &classes), Ok((Some(1), Some("dog".to_owned()))));
        assert_eq!(row(FoundLabel::Name("dog".to_owned()), &[]), Ok((None, Some("dog".to_owned()))));
        for (label, told) in [
            (FoundLabel::Number(1 << 40), "1099511627776"),
            (FoundLabel::from_json(&json!(u64::MAX)), "32 bits"),
            (FoundLabel::Name("cow".to_owned()), "\"cow\" is not in the list"),
        ] {
            let (reason, message) = row(label, &classes).expect_err(told);
            assert!(reason == RejectReason::Unreadable && message.contains(told), "{message}");
        }
    }
}
