//! Markers: which units are complete, and what they say.

use crate::{PipelineError, Storage};
use futures::{StreamExt, TryStreamExt, stream};
use schemas::{Plan, SCHEMA_VERSION, UnitReport, from_json, images_path, marker_path, marker_prefix, tokens_path};
use std::collections::BTreeSet;

/// Markers read at once: they are small, latency is all they cost.
const MARKERS_AT_ONCE: usize = 32;

/// The units whose marker is there, from one listing.
///
/// # Errors
/// Storage errors.
pub async fn done_units(output: &Storage, plan: &Plan) -> Result<BTreeSet<u32>, PipelineError> {
    let prefix = marker_prefix(plan.hash());
    let listed = output.list(&prefix).await?;
    Ok(listed
        .iter()
        .filter_map(|object| {
            let unit = object.path.strip_prefix(&prefix)?.strip_suffix(".json")?.parse().ok()?;
            // Only a name that this program would give.
            (unit < plan.units() && marker_path(unit, plan.hash()) == object.path).then_some(unit)
        })
        .collect())
}

/// The markers of `units`, in their order.
///
/// # Errors
/// When a marker is missing or not what this plan's units write; storage errors.
pub async fn read_markers(
    output: &Storage,
    plan: &Plan,
    units: impl IntoIterator<Item = u32>,
) -> Result<Vec<UnitReport>, PipelineError> {
    let units: Vec<u32> = units.into_iter().collect();
    stream::iter(units).map(|unit| read_marker(output, plan, unit)).buffered(MARKERS_AT_ONCE).try_collect().await
}

/// One marker.
pub(super) async fn read_marker(output: &Storage, plan: &Plan, unit: u32) -> Result<UnitReport, PipelineError> {
    let path = marker_path(unit, plan.hash());
    let bytes = output.get(&path).await?;
    parse_marker(output, plan, unit, &bytes)
}

/// Reads a marker's bytes and checks that it speaks of this unit.
pub(super) fn parse_marker(
    output: &Storage,
    plan: &Plan,
    unit: u32,
    bytes: &[u8],
) -> Result<UnitReport, PipelineError> {
    let uri = output.uri(&marker_path(unit, plan.hash()));
    let report: UnitReport = from_json(&uri, bytes)?;
    let problem = |problem: String| Err(PipelineError::Output { uri: uri.clone(), problem });
    if report.schema_version > SCHEMA_VERSION {
        let version = report.schema_version;
        return problem(format!(
            "schema version {version}, this program reads up to {SCHEMA_VERSION}: use a newer restok"
        ));
    }
    if report.plan != *plan.hash() || report.unit != unit {
        return problem(format!("speaks of unit {} of plan {}", report.unit, report.plan.short()));
    }
    let split = &plan.settings().split;
    for (found, expected) in [
        (&report.tokens.path, tokens_path(split, unit, plan.hash())),
        (&report.images.path, images_path(split, unit, plan.hash())),
    ] {
        if *found != expected {
            return problem(format!("names the file {found}, expected {expected}"));
        }
    }
    report
        .row_counts
        .check(plan.settings().origin.views())
        .map_err(|error| PipelineError::Output { uri: uri.clone(), problem: error.to_string() })?;
    for (table, found, expected) in [
        ("tokens", report.tokens.rows, report.row_counts.token_rows),
        ("images", report.images.rows, report.row_counts.listed),
    ] {
        if found != expected {
            return problem(format!("{found} rows of the {table} table, but the row counts say {expected}"));
        }
    }
    Ok(report)
}
