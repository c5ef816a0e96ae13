//! The files of a scored set: which are there, and what they say.

use super::scored_rows::{damaged, decode};
use crate::{PipelineError, PutOutcome, Storage, TableFile, background_task::joined};
use bytes::Bytes;
use schemas::{ScoredRow, ScoredUnit, features_path, features_prefix};
use std::collections::{BTreeMap, BTreeSet};
use tokio::task::spawn_blocking;

/// What scorers said of a set, under one key, unit by unit.
#[derive(Clone, Debug)]
pub struct ScoredTables {
    output: Storage,
    key: String,
    units: u32,
}

impl ScoredTables {
    /// The files below `features/<key>/` of a set of `units` units. Makes no request.
    ///
    /// # Errors
    /// When the key is empty or holds something else than letters, digits, `-`, `_` and `.`.
    pub fn open(output: Storage, key: &str, units: u32) -> Result<Self, PipelineError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if key.is_empty() || key.starts_with('.') || !key.bytes().all(plain) {
            let problem = format!("the key {key:?}: expected letters, digits, `-`, `_` and `.`, a point not in front");
            return Err(PipelineError::Settings { problem });
        }
        Ok(Self { output, key: key.to_owned(), units })
    }

    /// Units that have no file yet, ascending.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn missing(&self) -> Result<Vec<u32>, PipelineError> {
        let stored = self.stored().await?;
        Ok((0..self.units).filter(|unit| !stored.contains(unit)).collect())
    }

    /// Units that have a file.
    pub(super) async fn stored(&self) -> Result<BTreeSet<u32>, PipelineError> {
        let listed = self.output.list(features_prefix(&self.key).trim_end_matches('/')).await?;
        let there: BTreeSet<String> = listed.into_iter().map(|object| object.path).collect();
        Ok((0..self.units).filter(|&unit| there.contains(&features_path(&self.key, unit))).collect())
    }

    /// What was said of a unit.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub async fn read(&self, unit: u32) -> Result<ScoredUnit, PipelineError> {
        Ok(self.file(unit).await?.rows)
    }

    /// The file of a unit, with its own account of its making: `restok.device_kind`, `restok.libtorch` and the like.
    ///
    /// # Errors
    /// When it is not there yet; when it is damaged or not of this evaluation, which the error says with what to do; storage errors.
    pub async fn file(&self, unit: u32) -> Result<TableFile<ScoredUnit>, PipelineError> {
        let path = features_path(&self.key, unit);
        let Some(bytes) = self.output.get_if_exists(&path).await? else {
            let problem = format!("unit {unit} of {} is not scored yet", self.units);
            return Err(PipelineError::Output { uri: self.output.uri(&path), problem });
        };
        let size = bytes.len() as u64;
        let tables = self.clone();
        let (metadata, rows) = joined(spawn_blocking(move || tables.decode(unit, bytes)).await).await?;
        Ok(TableFile { unit, path, metadata, bytes: size, rows })
    }

    /// Number of units of the set.
    pub fn units(&self) -> u32 {
        self.units
    }

    pub(super) fn uri(&self, unit: u32) -> String {
        self.output.uri(&features_path(&self.key, unit))
    }

    pub(super) async fn is_there(&self, unit: u32) -> Result<bool, PipelineError> {
        self.output.exists(&features_path(&self.key, unit)).await
    }

    pub(super) async fn put(&self, unit: u32, bytes: Bytes) -> Result<PutOutcome, PipelineError> {
        self.output.put_create(&features_path(&self.key, unit), bytes).await
    }

    /// Fails unless the file that another attempt put is about the same images.
    pub(super) fn check_same(
        &self,
        unit: u32,
        found: Bytes,
        rows: &[ScoredRow],
        rejected: u64,
    ) -> Result<(), PipelineError> {
        let (_, there) = self.decode(unit, found)?;
        if there.rows == rows && there.rejected == rejected {
            return Ok(());
        }
        let first = there.rows.iter().zip(rows).find(|(found, ours)| found != ours);
        let problem = match first {
            Some((found, ours)) => format!("it is about other images: {found:?} in the place of {ours:?}"),
            None => format!(
                "it is about {} images and {} broken ones, expected {} and {rejected}",
                there.rows.len(),
                there.rejected,
                rows.len()
            ),
        };
        Err(damaged(&self.uri(unit), &problem))
    }

    fn decode(&self, unit: u32, bytes: Bytes) -> Result<(BTreeMap<String, String>, ScoredUnit), PipelineError> {
        decode(bytes, (&self.key, unit, self.units), &self.uri(unit))
    }
}
