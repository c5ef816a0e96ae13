//! From a set of complete units to an output that is whole.

use super::{
    claim::{nothing_there, read_plan},
    markers::{done_units, read_markers},
};
use crate::{
    PipelineError, PutOutcome, Storage,
    samples::assemble_npz,
    tables::decode_images,
    telemetry::describe_rejects,
    unique_ids::{IdHashes, duplicate_id},
    units::describe_units,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use schemas::{
    FileRecord, MANIFEST_PATH, Manifest, NPZ_PATH, PICTURES_PREFIX, PictureFormat, Plan, RowCounts, SCHEMA_VERSION,
    SUCCESS_PATH, UnitReport, from_json, marker_path, sha256_hex, to_json, unit_pictures_path,
};
use std::collections::{BTreeMap, BTreeSet};

/// Images files read at once.
const FILES_AT_ONCE: usize = 4;

/// Checks every unit against the store, then writes the manifest and, last, `_SUCCESS`. Any process may do it, any number of
/// times.
///
/// Sizes of all files are checked from one listing of each table; the images table is read, for its digests and for ids that
/// appear twice. [`super::verify()`] reads the tokens too.
///
/// # Errors
/// [`PipelineError::Unfinished`] when units are missing; [`PipelineError::Output`] when a file is not what its marker says;
/// [`PipelineError::Source`] when two images have one id or there is no image at all; [`PipelineError::RejectRate`] when more
/// than `max_reject_rate`, 0 to 1, of all images were rejected; storage errors.
pub async fn finalize(output: &Storage, max_reject_rate: f64) -> Result<Manifest, PipelineError> {
    let plan = read_plan(output).await?.ok_or_else(|| nothing_there(output))?;
    let done = done_units(output, &plan).await?;
    let reports = read_markers(output, &plan, done).await?;
    if missing_units(&plan, &reports).is_empty() {
        check_row_counts(&plan, &manifest(&plan, &reports).row_counts, max_reject_rate)?;
    }
    finalize_units(output, &plan, &reports).await
}

/// [`finalize`], with the markers already read.
pub(crate) async fn finalize_units(
    output: &Storage,
    plan: &Plan,
    reports: &[UnitReport],
) -> Result<Manifest, PipelineError> {
    let missing = missing_units(plan, reports);
    if !missing.is_empty() {
        return Err(PipelineError::Unfinished {
            output: output.display().to_owned(),
            count: missing.len() as u32,
            missing: describe_units(missing),
        });
    }
    let sizes = file_sizes(output, plan).await?;
    for record in reports.iter().flat_map(UnitReport::files) {
        if let Some(problem) = size_problem(record, sizes.get(&record.path).copied(), "its marker") {
            return Err(PipelineError::Output { uri: output.uri(&record.path), problem });
        }
    }
    check_unique_ids(output, reports).await?;
    let archive = assemble_archive(output, plan, reports).await?;
    let manifest = Manifest { archive, ..manifest(plan, reports) };
    put_final(output, MANIFEST_PATH, Bytes::from(to_json(MANIFEST_PATH, &manifest)?)).await?;
    put_final(output, SUCCESS_PATH, Bytes::new()).await?;
    tracing::info!(
        units = manifest.units,
        images = manifest.row_counts.listed,
        rows = manifest.row_counts.token_rows,
        "output is finished"
    );
    Ok(manifest)
}

/// The evaluation archive of all pictures, made of the units' Parquet files or there already; `None` where none was asked for.
async fn assemble_archive(
    output: &Storage,
    plan: &Plan,
    reports: &[UnitReport],
) -> Result<Option<FileRecord>, PipelineError> {
    let Some(pictures) =
        plan.settings().origin.pictures().filter(|pictures| pictures.formats.contains(&PictureFormat::Npz))
    else {
        return Ok(None);
    };
    let parquet = |report: &UnitReport| {
        let path = unit_pictures_path(PictureFormat::Parquet.name(), report.unit, plan.hash());
        report.pictures.iter().find(|file| file.path == path).cloned().ok_or_else(|| PipelineError::Output {
            uri: output.uri(&marker_path(report.unit, plan.hash())),
            problem: format!("names no file {path}, of which the archive is made"),
        })
    };
    let files = reports.iter().map(parquet).collect::<Result<Vec<_>, _>>()?;
    // A manifest is written after the archive was checked against the pictures: once is enough.
    if let Some(bytes) = output.get_if_exists(MANIFEST_PATH).await? {
        let there: Manifest = from_json(MANIFEST_PATH, &bytes)?;
        if let Some(record) = there.archive.filter(|_| there.plan == *plan.hash()) {
            // Not by the listing: another process may have put it since.
            let now = output.head_if_exists(&record.path).await?.map(|object| object.size);
            let problem = size_problem(&record, now, "the manifest");
            return match problem {
                None => Ok(Some(record)),
                Some(problem) => Err(PipelineError::Output { uri: output.uri(&record.path), problem }),
            };
        }
    }
    let rows = files.iter().map(|file| file.rows).sum();
    tracing::info!(pictures = rows, path = NPZ_PATH, "assembling the evaluation archive");
    let archive = assemble_npz(output, &files, rows, pictures.side, NPZ_PATH, 0, |_| ()).await?;
    Ok(Some(archive.record))
}

/// Units without a marker.
pub(super) fn missing_units(plan: &Plan, reports: &[UnitReport]) -> BTreeSet<u32> {
    let done: BTreeSet<u32> = reports.iter().map(|report| report.unit).collect();
    (0..plan.units()).filter(|unit| !done.contains(unit)).collect()
}

/// The manifest that follows from the markers.
pub(super) fn manifest(plan: &Plan, reports: &[UnitReport]) -> Manifest {
    Manifest {
        schema_version: SCHEMA_VERSION,
        plan: plan.hash().clone(),
        settings: plan.settings().clone(),
        units: plan.units(),
        row_counts: reports.iter().map(|report| &report.row_counts).sum(),
        device_kinds: reports.iter().map(|report| report.device_kind.clone()).collect(),
        tokens: reports.iter().map(|report| report.tokens.clone()).collect(),
        images: reports.iter().map(|report| report.images.clone()).collect(),
        pictures: reports.iter().flat_map(|report| report.pictures.clone()).collect(),
        archive: None,
    }
}

/// Sizes of all files of both tables of the plan's split, and of its pictures, by path.
pub(super) async fn file_sizes(output: &Storage, plan: &Plan) -> Result<BTreeMap<String, u64>, PipelineError> {
    let split = &plan.settings().split;
    let mut sizes = BTreeMap::new();
    let tables = ["tokens", "images"].map(|table| format!("{table}/split={split}/"));
    let pictures = plan.settings().origin.pictures().map(|_| PICTURES_PREFIX.to_owned());
    for prefix in tables.into_iter().chain(pictures) {
        let objects = output.list(&prefix).await?;
        sizes.extend(objects.into_iter().map(|object| (object.path, object.size)));
    }
    Ok(sizes)
}

/// What is wrong with the size of a file that `document` names.
pub(super) fn size_problem(record: &FileRecord, size: Option<u64>, document: &str) -> Option<String> {
    match size {
        None => Some(format!("is missing, but {document} names it")),
        Some(size) if size != record.bytes => Some(format!("{size} bytes, but {document} says {}", record.bytes)),
        Some(_) => None,
    }
}

async fn check_unique_ids(output: &Storage, reports: &[UnitReport]) -> Result<(), PipelineError> {
    let mut hashes = IdHashes::default();
    let mut files = std::pin::pin!(image_ids(output, reports));
    while let Some((_, image_ids)) = files.try_next().await? {
        hashes.add(image_ids.iter().map(String::as_str));
    }
    let mut repeated = hashes.into_repeated();
    if repeated.is_empty() {
        return Ok(());
    }
    let mut files = std::pin::pin!(image_ids(output, reports));
    while let Some((unit, image_ids)) = files.try_next().await? {
        if let Some((image_id, first)) = repeated.add(&unit, image_ids.iter().map(String::as_str)).into_iter().next() {
            return Err(duplicate_id(output.display(), &image_id, first, unit));
        }
    }
    Ok(())
}

/// The ids of every images file, whose digest is checked on the way; a few files in memory at once.
fn image_ids<'a>(
    output: &'a Storage,
    reports: &'a [UnitReport],
) -> impl futures::Stream<Item = Result<(u32, Vec<String>), PipelineError>> + 'a {
    stream::iter(reports)
        .map(move |report| async move {
            let record = &report.images;
            let uri = output.uri(&record.path);
            let bytes = output.get(&record.path).await?;
            let digest = sha256_hex(&bytes);
            if digest != record.sha256 {
                let problem = format!("its SHA-256 is {digest}, but its marker says {}", record.sha256);
                return Err(PipelineError::Output { uri, problem });
            }
            let (_, rows) = decode_images(bytes, &uri)?;
            Ok((report.unit, rows.into_iter().map(|row| row.image_id).collect()))
        })
        .buffered(FILES_AT_ONCE)
}

/// Puts a document that every process writes with the same bytes.
async fn put_final(output: &Storage, path: &str, bytes: Bytes) -> Result<(), PipelineError> {
    match output.put_create(path, bytes).await? {
        PutOutcome::Created | PutOutcome::Same => Ok(()),
        PutOutcome::Different(_) => Err(PipelineError::Output {
            uri: output.uri(path),
            problem: "another document is there than follows from the markers; `restok verify` says what differs"
                .to_owned(),
        }),
    }
}

/// What must be true of the row counts of a whole output before it is called finished.
pub(crate) fn check_row_counts(plan: &Plan, row_counts: &RowCounts, max_reject_rate: f64) -> Result<(), PipelineError> {
    if row_counts.listed == 0 {
        return Err(PipelineError::Source {
            uri: plan.settings().source.clone(),
            problem: format!("{} inputs, but not one image in them", plan.inputs().len()),
        });
    }
    if row_counts.reject_rate() > max_reject_rate {
        return Err(PipelineError::RejectRate {
            rejected: row_counts.rejected_total(),
            listed: row_counts.listed,
            limit_percent: max_reject_rate * 100.0,
            reasons: describe_rejects(&row_counts.rejected),
        });
    }
    Ok(())
}
