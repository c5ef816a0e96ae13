//! Why an image has no tokens.

use crate::SchemaError;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The reasons, as they stand in the `status` column of the images table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// No bytes at all.
    Empty,
    /// The bytes end before the image does.
    Truncated,
    /// More bytes or pixels than the limits allow.
    TooLarge,
    /// No image format that is read here, by its magic bytes.
    Unsupported,
    /// An image format, but its data contradict it.
    Corrupt,
    /// The entry is listed, but its bytes could not be had (a Parquet row without bytes, a member without data).
    Unreadable,
}

impl RejectReason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Empty, Self::Truncated, Self::TooLarge, Self::Unsupported, Self::Corrupt, Self::Unreadable];

    /// The reason as it stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Truncated => "truncated",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::Corrupt => "corrupt",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for RejectReason {
    type Err = SchemaError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|reason| reason.name() == name).ok_or_else(|| SchemaError::UnknownName {
            what: "status",
            found: name.to_owned(),
            expected: format!("ok, {}", Self::ALL.map(Self::name).join(", ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back_from_its_name_and_from_json() {
        for reason in RejectReason::ALL {
            assert_eq!(reason.name().parse::<RejectReason>().expect("a name"), reason);
            let json = serde_json::to_string(&reason).expect("a word");
            assert_eq!(json, format!("\"{reason}\""));
            assert_eq!(serde_json::from_str::<RejectReason>(&json).expect("a word"), reason);
        }
    }

    #[test]
    fn another_word_is_refused_with_the_words_there_are() {
        let error = "ok".parse::<RejectReason>().expect_err("not a reason").to_string();
        assert!(error.contains("too_large") && error.contains("truncated"), "{error}");
    }
}
