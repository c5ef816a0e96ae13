//! What turns features into scores, over numbers that every machine makes alike, so that the scores compare too.

use crate::{
    Fallible,
    timing::{print, unix_seconds},
};
use models::{Device, FeatureDistribution, FeatureStatistics, frechet_distance, precision_recall};
use serde_json::json;
use std::time::Instant;

const NEIGHBOURS: usize = 3;

/// Statistics, distance and neighbours of two sets of `rows` features of `dimensions` numbers, 2,048 in every protocol.
pub(crate) fn scores(device: Device, rows: usize, dimensions: usize) -> Fallible<()> {
    let (left, right) = (features(rows, dimensions, 1), features(rows, dimensions, 2));
    let distribution = |features: &[f32]| -> Fallible<FeatureDistribution> {
        let mut statistics = FeatureStatistics::new(dimensions, device)?;
        statistics.add(features)?;
        Ok(statistics.finish()?)
    };
    let (left_distribution, right_distribution) =
        timed(rows, "statistics of two sets", || Ok((distribution(&left)?, distribution(&right)?)), |_| json!(null))?;
    timed(
        rows,
        "Fréchet distance",
        || Ok(frechet_distance(&left_distribution, &right_distribution, device)?),
        |&distance| json!(distance),
    )?;
    timed(
        rows,
        "precision and recall",
        || Ok(precision_recall(&left, &right, dimensions, NEIGHBOURS, device)?),
        |found| json!(format!("{found:?}")),
    )?;
    Ok(())
}

fn timed<T>(
    rows: usize,
    what: &str,
    body: impl FnOnce() -> Fallible<T>,
    result: impl FnOnce(&T) -> serde_json::Value,
) -> Fallible<T> {
    let (start, began) = (unix_seconds(), Instant::now());
    let found = body()?;
    print(&json!({
        "kind": "time", "what": what, "batch": rows, "value": began.elapsed().as_secs_f64(), "unit": "s",
        "result": result(&found), "start": start,
    }));
    Ok(found)
}

/// Numbers between 0 and 1, with variances that differ between features.
fn features(rows: usize, dimensions: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let numbers = (0..rows * dimensions).map(|place| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1_u32 << 24) as f32 / (1 + place % dimensions % 50) as f32
    });
    numbers.collect()
}
