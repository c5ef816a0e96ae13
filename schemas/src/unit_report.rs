//! A unit's marker and the output's manifest, with their row counts.

use crate::{PlanHash, PlanSettings, RejectReason, SchemaError, SourceAccount};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What became of the images of a unit, or of a whole output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowCounts {
    /// Images that the source listed.
    pub listed: u64,
    /// Images whose tokens were written.
    pub written: u64,
    /// Images without tokens, by reason.
    pub rejected: BTreeMap<RejectReason, u64>,
    /// Rows of the tokens table: `written` times the views of the crop.
    pub token_rows: u64,
    /// Encoded bytes of all listed images that were read.
    pub bytes_read: u64,
    /// What the inputs hold beside images, such as other members of a tar.
    #[serde(default, skip_serializing_if = "SourceAccount::is_empty")]
    pub left_out: SourceAccount,
}

impl UnitReport {
    /// Every file of the unit.
    pub fn files(&self) -> impl Iterator<Item = &FileRecord> {
        [&self.tokens, &self.images].into_iter().chain(&self.pictures)
    }
}

impl<'a> std::iter::Sum<&'a Self> for RowCounts {
    fn sum<I: Iterator<Item = &'a Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |mut sum, more| {
            sum.add(more);
            sum
        })
    }
}

impl RowCounts {
    /// Images without tokens, whatever the reason.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// Fraction of listed images that were rejected, 0 to 1.
    pub fn reject_rate(&self) -> f64 {
        if self.listed == 0 { 0.0 } else { self.rejected_total() as f64 / self.listed as f64 }
    }

    /// Adds the row counts of another unit.
    pub fn add(&mut self, other: &Self) {
        self.listed += other.listed;
        self.written += other.written;
        self.token_rows += other.token_rows;
        self.bytes_read += other.bytes_read;
        for (&reason, count) in &other.rejected {
            *self.rejected.entry(reason).or_default() += count;
        }
        self.left_out.add(&other.left_out);
    }

    /// Checks that the counts add up: listed = written + rejected, and `views` rows for each written image.
    ///
    /// # Errors
    /// When they do not balance.
    pub fn check(&self, views: usize) -> Result<(), SchemaError> {
        if self.listed != self.written + self.rejected_total() {
            return Err(SchemaError::Document {
                document: "row counts".to_owned(),
                problem: format!(
                    "{} images listed, but {} written and {} rejected",
                    self.listed,
                    self.written,
                    self.rejected_total()
                ),
            });
        }
        if self.token_rows != self.written * views as u64 {
            return Err(SchemaError::Document {
                document: "row counts".to_owned(),
                problem: format!("{} token rows for {} images of {views} views", self.token_rows, self.written),
            });
        }
        Ok(())
    }
}

/// One file of a table, as it was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Path below the output.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, lowercase hexadecimal.
    pub sha256: String,
    /// Rows of the table in it.
    pub rows: u64,
}

/// A unit's marker. Written last; a unit without one does not exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitReport {
    /// [`crate::SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The plan.
    pub plan: PlanHash,
    /// The unit.
    pub unit: u32,
    /// What became of its images.
    #[serde(rename = "books")]
    pub row_counts: RowCounts,
    /// Its part of the tokens table.
    pub tokens: FileRecord,
    /// Its part of the images table.
    pub images: FileRecord,
    /// Its pictures, where tokens were turned into pictures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pictures: Vec<FileRecord>,
    /// Kind of device that encoded it, such as `cpu` or a GPU's name.
    pub device_kind: String,
    /// Whether another attempt's files, with other bytes, were there first and were kept.
    pub adopted: bool,
    /// Wall time of the unit in seconds.
    pub seconds: f64,
}

/// What a finished output holds. No clock and no rank in it: the same output always has the same manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`crate::SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The plan.
    pub plan: PlanHash,
    /// What decided the tables.
    pub settings: PlanSettings,
    /// Number of units.
    pub units: u32,
    /// Row counts of all units together.
    #[serde(rename = "books")]
    pub row_counts: RowCounts,
    /// Kinds of device that encoded them.
    pub device_kinds: BTreeSet<String>,
    /// Files of the tokens table, by unit.
    pub tokens: Vec<FileRecord>,
    /// Files of the images table, by unit.
    pub images: Vec<FileRecord>,
    /// Files of pictures, by unit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pictures: Vec<FileRecord>,
    /// The evaluation archive, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<FileRecord>,
}

/// Writes a marker or manifest as its bytes.
///
/// # Errors
/// When serialization fails.
pub fn to_json<T: Serialize>(document: &str, value: &T) -> Result<Vec<u8>, SchemaError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| SchemaError::Document { document: document.to_owned(), problem: error.to_string() })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a marker or manifest.
///
/// # Errors
/// When the bytes are no such document; `document` names it in the error.
pub fn from_json<'a, T: Deserialize<'a>>(document: &str, bytes: &'a [u8]) -> Result<T, SchemaError> {
    serde_json::from_slice(bytes)
        .map_err(|error| SchemaError::Document { document: document.to_owned(), problem: error.to_string() })
}
