//! Finds out early that image ids repeat across units.

use crate::{PipelineError, unique_ids::duplicate_id};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Ids remembered of each unit. Shards that each count from zero repeat from their first image on.
const IDS_OF_A_UNIT: u64 = 64;

/// Ids remembered of all units together.
const IDS_OF_ALL: usize = 1 << 20;

/// The first ids of the units that this process has begun, up to a million in all.
///
/// Finalize checks all ids exactly, but only when all work is done. This catches the usual mistake, shards that each count
/// from zero, within the first images of the second shard, in memory that grows neither with a unit nor with their number.
#[derive(Debug, Default)]
pub(super) struct EarlyDuplicates {
    units_by_id: Mutex<HashMap<String, u32>>,
}

impl EarlyDuplicates {
    /// Checks the id of image `position` of `unit`.
    ///
    /// # Errors
    /// When another unit has it.
    pub(super) fn check(&self, unit: u32, position: u64, image_id: &str) -> Result<(), PipelineError> {
        if position >= IDS_OF_A_UNIT {
            return Ok(());
        }
        let mut units = self.units_by_id.lock().unwrap_or_else(PoisonError::into_inner);
        match units.get(image_id) {
            Some(&other) if other != unit => Err(duplicate_id("the source", image_id, other, unit)),
            Some(_) => Ok(()),
            None => {
                if units.len() < IDS_OF_ALL {
                    units.insert(image_id.to_owned(), unit);
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_another_unit_is_refused_with_what_to_do() {
        let duplicates = EarlyDuplicates::default();
        duplicates.check(0, 0, "000").expect("first");
        duplicates.check(0, 1, "001").expect("another");
        let error = duplicates.check(1, 0, "000").expect_err("a shard that counts from zero").to_string();
        assert!(error.contains("\"000\" appears in units 0 and 1") && error.contains("`image_id` path"), "{error}");
        duplicates.check(1, IDS_OF_A_UNIT, "000").expect("left to finalize");
    }
}
