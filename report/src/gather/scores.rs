//! The scores table of an output.

use anyhow::Result;
use pipeline::Storage;
use schemas::{EvaluationRecord, SCORES_PREFIX};

/// The lines of the scores table at a place; none where there is no such table.
///
/// # Errors
/// When it is damaged, or the store fails.
pub(super) async fn read(storage: &Storage) -> Result<Vec<EvaluationRecord>> {
    Ok(pipeline::read_scores(storage).await?)
}

/// Whether a place has a scores table.
///
/// # Errors
/// When the store fails.
pub(super) async fn are_there(storage: &Storage) -> Result<bool> {
    Ok(storage.list(SCORES_PREFIX).await?.iter().any(|object| object.path.ends_with(".parquet")))
}
