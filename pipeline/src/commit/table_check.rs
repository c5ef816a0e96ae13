//! What must be true of a file of a table, whoever wrote it.

use super::unit_rows::row_counts_of;
use crate::PipelineError;
use schemas::{
    ImageRow, KEY_PLAN, KEY_SCHEMA_VERSION, KEY_UNIT, Plan, Provenance, RowCounts, SCHEMA_VERSION, TokenRows,
    WRITER_KEYS, read_key,
};
use std::collections::{BTreeMap, HashSet};

/// Checks that a file says it is this unit of this plan.
///
/// # Errors
/// When it says something else, or nothing.
pub(super) fn check_metadata(
    metadata: &BTreeMap<String, String>,
    plan: &Plan,
    unit: u32,
    uri: &str,
) -> Result<(), PipelineError> {
    let expected = [
        (KEY_SCHEMA_VERSION, SCHEMA_VERSION.to_string()),
        (KEY_PLAN, plan.hash().to_string()),
        (KEY_UNIT, unit.to_string()),
    ];
    for (key, expected) in expected {
        let found = read_key(metadata, key).map_err(|error| wrong(uri, error.to_string()))?;
        if found != expected {
            return Err(wrong(uri, format!("another file stands here: its {key} is {found}, expected {expected}")));
        }
    }
    Ok(())
}

/// Everything in which a file's metadata differs from what the plan demands. What made it (device, versions) is free.
pub(super) fn metadata_problems(metadata: &BTreeMap<String, String>, plan: &Plan, unit: u32) -> Vec<String> {
    let missing = |key: &str| Some(format!("metadata {key} is missing"));
    let of_plan = Provenance::plan_key_values(plan.hash(), unit, plan.settings());
    let of_plan = of_plan.iter().filter_map(|(key, expected)| match metadata.get(key) {
        None => missing(key),
        Some(found) if found == expected => None,
        Some(found) => Some(format!("metadata {key} is {found}, expected {expected}")),
    });
    let of_writer = WRITER_KEYS.into_iter().filter(|key| !metadata.contains_key(*key)).filter_map(missing);
    of_plan.chain(of_writer).collect()
}

/// Checks that two attempts at a unit's tokens speak of the same views in the same order. Codes may differ: the last bits of a
/// latent depend on the device.
///
/// # Errors
/// When they do not.
pub(super) fn same_tokens(there: &TokenRows, ours: &TokenRows, uri: &str) -> Result<(), PipelineError> {
    if (&there.image_ids, &there.views, &there.labels) == (&ours.image_ids, &ours.views, &ours.labels) {
        return Ok(());
    }
    Err(wrong(uri, format!("holds other rows ({}) than this attempt ({})", there.tokens.rows(), ours.tokens.rows())))
}

/// Checks that two attempts at a unit's images list the same images and reject the same ones. The words of an error may differ.
///
/// # Errors
/// When they do not.
pub(super) fn same_images(there: &[ImageRow], ours: &[ImageRow], uri: &str) -> Result<(), PipelineError> {
    fn key(row: &ImageRow) -> impl PartialEq {
        (&row.image_id, &row.source, row.label, &row.sha256, row.rejected)
    }
    if there.len() == ours.len() && there.iter().map(key).eq(ours.iter().map(key)) {
        return Ok(());
    }
    Err(wrong(uri, format!("holds other rows ({}) than this attempt ({})", there.len(), ours.len())))
}

/// Everything that is wrong with the rows of a unit: codes out of range, ids twice, tables that disagree, row counts that do not
/// follow from them.
pub(super) fn row_problems(
    tokens: &TokenRows,
    images: &[ImageRow],
    row_counts: &RowCounts,
    plan: &Plan,
) -> RowProblems {
    let settings = plan.settings();
    let mut problems = RowProblems::default();
    let codebook_size = settings.tokenizer.codebook_size;
    let outside = |codes: &[i16]| codes.iter().copied().find(|&code| code < 0 || code as usize >= codebook_size);
    let damaged: Vec<(usize, i16)> =
        tokens.tokens.iter_rows().enumerate().filter_map(|(row, codes)| Some((row, outside(codes)?))).collect();
    if let Some((row, code)) = damaged.first() {
        problems.tokens.push(format!(
            "{} rows hold codes outside the codebook of {codebook_size}, first row {row} ({}) with code {code}",
            damaged.len(),
            tokens.image_ids[*row]
        ));
    }
    let mut seen = HashSet::with_capacity(images.len());
    if let Some(twice) = images.iter().find(|row| !seen.insert(row.image_id.as_str())) {
        problems.images.push(format!("image id {:?} appears twice", twice.image_id));
    }
    let read = settings.origin.images().is_some();
    if let Some(row) = images
        .iter()
        .filter(|_| read)
        .find(|row| row.rejected.is_none() && (row.width.is_none() || row.height.is_none() || row.sha256.is_none()))
    {
        problems.images.push(format!("image {:?} is ok, but has no width, height or sha256", row.image_id));
    }
    let views = settings.origin.views();
    let expected = images
        .iter()
        .filter(|row| row.rejected.is_none())
        .flat_map(|row| (0..views).map(move |view| (row.image_id.as_str(), view as i8, row.label)));
    let found = tokens.image_ids.iter().zip(&tokens.views).zip(&tokens.labels);
    let found = found.map(|((image_id, &view), &label)| (image_id.as_str(), view, label));
    if !found.eq(expected) {
        problems.tokens.push("image ids, views or labels are not those of the images table".to_owned());
    }
    // What was left out stands in no table.
    let counted = RowCounts { left_out: row_counts.left_out.clone(), ..row_counts_of(images, views) };
    if counted != *row_counts {
        problems.images.push(format!("its rows count {counted:?}, its marker says {row_counts:?}"));
    }
    problems
}

/// Problems of a unit's rows, by table.
#[derive(Debug, Default)]
pub(super) struct RowProblems {
    pub(super) tokens: Vec<String>,
    pub(super) images: Vec<String>,
}

fn wrong(uri: &str, problem: String) -> PipelineError {
    PipelineError::Output { uri: uri.to_owned(), problem }
}
