//! From a listing to a plan: pure, so that the same listing always gives the same plan.

use crate::{
    PipelineError,
    source::{ListedInput, SourceListing},
};
use schemas::{ImageOrigin, Origin, Plan, PlanBuilder, PlanSettings, PlannedInput, SchemaError, SourceLayout};
use std::ops::Range;

/// Divides the listed inputs into units, in their order.
///
/// Of a folder, `unit_size` images make a unit. A tar shard is one unit, however many images it turns out to hold, and a Parquet
/// file becomes as few equal ranges of rows as `unit_size` allows: a unit never spans two of them, so that each is read once.
/// The plan's `source` and `layout` are the listing's, whatever `settings` says.
///
/// # Errors
/// When `unit_size` is 0, there is no input, or there are more units than names for them.
pub fn plan_units(settings: PlanSettings, listing: SourceListing) -> Result<Plan, PipelineError> {
    let SourceListing { source, layout, inputs, class_names, .. } = listing;
    let origin = match settings.origin {
        Origin::Images(images) => Origin::Images(ImageOrigin { layout, ..images }),
        other => other,
    };
    let settings = PlanSettings { source, origin, ..settings };
    let unit_size = settings.unit_size;
    if unit_size == 0 {
        let expected = "at least 1 image".to_owned();
        return Err(SchemaError::Shape { what: "unit size", found: "0".to_owned(), expected }.into());
    }
    let mut plan = PlanBuilder::new(settings, class_names);
    for input in divide(layout, inputs, unit_size) {
        plan.push(&input?)?;
    }
    Ok(plan.finish()?)
}

/// Gives each input its unit, as [`plan_units`] says it. `unit_size` is at least 1.
pub(crate) fn divide(
    layout: SourceLayout,
    inputs: impl IntoIterator<Item = ListedInput>,
    unit_size: usize,
) -> impl Iterator<Item = Result<PlannedInput, PipelineError>> {
    let mut next = 0;
    inputs.into_iter().enumerate().flat_map(move |(index, input)| {
        let (rows, most) = (input.rows, unit_size as u64);
        let end = next as u64 + rows.unwrap_or(0).div_ceil(most);
        let parts: Vec<_> = match layout {
            // Refused by its last unit: a damaged footer may say more rows than units have numbers.
            SourceLayout::Parquet if end > u64::from(u32::MAX) => {
                next = end as usize;
                vec![None]
            }
            SourceLayout::Parquet => equal_ranges(rows.unwrap_or(0), most).map(Some).collect(),
            _ => vec![rows.map(|rows| 0..rows)],
        };
        let first = if layout == SourceLayout::Folder { index / unit_size } else { next };
        next += parts.len();
        parts.into_iter().zip(first..).map(move |(rows, unit)| plan_input(input.clone(), rows, unit))
    })
}

fn plan_input(input: ListedInput, rows: Option<Range<u64>>, unit: usize) -> Result<PlannedInput, PipelineError> {
    let unit = u32::try_from(unit).map_err(|_| SchemaError::Shape {
        what: "plan",
        found: format!("{unit} units"),
        expected: format!("at most {}: use larger units", u32::MAX),
    })?;
    let ListedInput { uri, size, etag, label, .. } = input;
    Ok(PlannedInput { uri, size, etag, rows, label, unit })
}

/// As few ranges as possible of at most `most` rows, as equal as they can be.
pub(crate) fn equal_ranges(rows: u64, most: u64) -> impl Iterator<Item = Range<u64>> {
    let count = rows.div_ceil(most);
    let start = move |part: u64| (u128::from(rows) * u128::from(part) / u128::from(count.max(1))) as u64;
    (0..count).map(move |part| start(part)..start(part + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_cover_all_rows_in_order_and_differ_by_one_at_most(rows in 0_u64..100_000, most in 1_u64..20_000) {
            let ranges: Vec<_> = equal_ranges(rows, most).collect();
            prop_assert_eq!(ranges.iter().map(|range| range.end - range.start).sum::<u64>(), rows);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            let lengths: Vec<_> = ranges.iter().map(|range| range.end - range.start).collect();
            if let (Some(shortest), Some(longest)) = (lengths.iter().min(), lengths.iter().max()) {
                prop_assert!(*longest <= most && *longest - *shortest <= 1 && *shortest > 0);
                prop_assert_eq!(lengths.len() as u64, rows.div_ceil(most));
            }
        }
    }
}
