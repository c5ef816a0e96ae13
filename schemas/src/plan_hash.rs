//! The hash that names a plan, and digests in hexadecimal.

use crate::SchemaError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// SHA-256 of a plan, lowercase hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlanHash(String);

impl TryFrom<String> for PlanHash {
    type Error = SchemaError;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        if digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(digits));
        }
        Err(SchemaError::Shape {
            what: "plan hash",
            found: format!("{digits:?}"),
            expected: "64 lowercase hexadecimal digits".to_owned(),
        })
    }
}

impl From<PlanHash> for String {
    fn from(hash: PlanHash) -> Self {
        hash.0
    }
}

impl PlanHash {
    /// That of a plan whose lines went into `digest`.
    pub(crate) fn of(digest: Sha256) -> Self {
        Self(hex(&digest.finalize()))
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The eight digits that appear in file names.
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl fmt::Display for PlanHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Lowercase hexadecimal digits of a digest.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of some bytes, lowercase hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
