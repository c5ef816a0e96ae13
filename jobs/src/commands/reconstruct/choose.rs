//! Which images to reconstruct, and their tokens.

use super::{ImageChoice, NoSuchImages};
use anyhow::Result;
use futures::TryStreamExt;
use pipeline::{PipelineError, TableReader};
use schemas::{TokenRows, UnitReport};
use std::pin::pin;

/// An image to reconstruct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChosenImage {
    /// The unit that holds it.
    pub(super) unit: u32,
    /// Its key.
    pub(super) image_id: String,
    /// The codes of the wanted view.
    pub(super) tokens: Vec<i16>,
}

/// Finds the images and reads their tokens, unit by unit.
///
/// # Errors
/// When a named image has no tokens, there are no tokens at all, or the store fails.
pub(super) async fn choose(reader: &TableReader, choice: &ImageChoice, view: i8) -> Result<Vec<ChosenImage>> {
    let chosen = match choice {
        ImageChoice::Spread(count) => spread(reader, *count, view).await?,
        ImageChoice::Named(ids) => by_name(reader, ids, view).await?,
    };
    if chosen.is_empty() {
        let problem = "no complete unit with tokens; has `restok tokenize` finished one?".to_owned();
        return Err(PipelineError::Output { uri: reader.plan().settings().source.clone(), problem }.into());
    }
    Ok(chosen)
}

async fn spread(reader: &TableReader, count: usize, view: i8) -> Result<Vec<ChosenImage>> {
    let mut chosen = Vec::new();
    for (report, positions) in spread_positions(reader.reports(), count) {
        let rows = reader.tokens(report.unit).await?.rows;
        let rows_of_view: Vec<usize> = (0..rows.views.len()).filter(|&row| rows.views[row] == view).collect();
        chosen.extend(
            positions.iter().filter_map(|&position| Some(take(report.unit, &rows, *rows_of_view.get(position)?))),
        );
    }
    Ok(chosen)
}

/// `count` positions among all written images, evenly spread, as positions within each unit that has one.
fn spread_positions(reports: &[UnitReport], count: usize) -> Vec<(&UnitReport, Vec<usize>)> {
    let total: u64 = reports.iter().map(|report| report.row_counts.written).sum();
    let count = (count as u64).min(total);
    // The middle of each of `count` equal parts.
    let wanted = |number: u64| ((2 * u128::from(number) + 1) * u128::from(total) / (2 * u128::from(count))) as u64;
    let mut wanted = (0..count).map(wanted).peekable();
    let mut before = 0;
    let mut positions = Vec::new();
    for report in reports {
        let end = before + report.row_counts.written;
        let here: Vec<usize> = std::iter::from_fn(|| wanted.next_if(|&image| image < end))
            .map(|image| (image - before) as usize)
            .collect();
        if !here.is_empty() {
            positions.push((report, here));
        }
        before = end;
    }
    positions
}

async fn by_name(reader: &TableReader, ids: &[String], view: i8) -> Result<Vec<ChosenImage>> {
    let mut found: Vec<Option<ChosenImage>> = vec![None; ids.len()];
    let mut files = pin!(reader.token_files());
    while found.iter().any(Option::is_none) {
        let Some(file) = files.try_next().await? else { break };
        for row in (0..file.rows.views.len()).filter(|&row| file.rows.views[row] == view) {
            if let Some(place) = ids.iter().position(|id| *id == file.rows.image_ids[row]) {
                found[place] = Some(take(file.unit, &file.rows, row));
            }
        }
    }
    let missing: Vec<String> =
        ids.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(id, _)| id.clone()).collect();
    match missing.is_empty() {
        true => Ok(found.into_iter().flatten().collect()),
        false => Err(NoSuchImages { missing }.into()),
    }
}

fn take(unit: u32, rows: &TokenRows, row: usize) -> ChosenImage {
    let tokens = rows.tokens.iter_rows().nth(row).unwrap_or_default().to_vec();
    ChosenImage { unit, image_id: rows.image_ids[row].clone(), tokens }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use schemas::{FileRecord, RowCounts};

    fn reports(written: &[u64]) -> Vec<UnitReport> {
        let file = FileRecord { path: String::new(), bytes: 0, sha256: String::new(), rows: 0 };
        let plan: schemas::PlanHash = "0123456789abcdef".repeat(4).try_into().expect("a hash");
        written
            .iter()
            .enumerate()
            .map(|(unit, &written)| UnitReport {
                schema_version: schemas::SCHEMA_VERSION,
                plan: plan.clone(),
                unit: unit as u32,
                row_counts: RowCounts { listed: written, written, ..RowCounts::default() },
                tokens: file.clone(),
                images: file.clone(),
                pictures: Vec::new(),
                device_kind: String::new(),
                adopted: false,
                seconds: 0.0,
            })
            .collect()
    }

    proptest! {
        #[test]
        fn a_spread_has_as_many_different_images_as_asked_for_and_there(
            written in prop::collection::vec(0_u64..50, 0..6), count in 1_usize..20
        ) {
            let reports = reports(&written);
            let positions = spread_positions(&reports, count);
            let chosen: Vec<(u32, usize)> =
                positions.iter().flat_map(|(report, places)| places.iter().map(|&place| (report.unit, place))).collect();
            let total: u64 = written.iter().sum();
            prop_assert_eq!(chosen.len() as u64, total.min(count as u64));
            prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(chosen.iter().all(|&(unit, place)| (place as u64) < written[unit as usize]));
        }
    }

    #[test]
    fn a_spread_takes_the_middle_of_equal_parts() {
        let reports = reports(&[4, 0, 4]);
        let units: Vec<(u32, Vec<usize>)> =
            spread_positions(&reports, 2).into_iter().map(|(report, places)| (report.unit, places)).collect();
        assert_eq!(units, [(0, vec![2]), (2, vec![2])]);
    }
}
