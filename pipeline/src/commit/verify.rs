//! Holds a finished or unfinished output to everything it claims, and tells all that is wrong rather than the first.

use super::{
    claim::{nothing_there, read_plan},
    finalize::{file_sizes, manifest, missing_units, size_problem},
    markers::{done_units, read_marker},
    table_check::{metadata_problems, row_problems},
};
use crate::{
    PipelineError, Storage,
    tables::{decode_images, decode_tokens},
    unique_ids::IdHashes,
    units::describe_units,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use schemas::{
    FileRecord, ImageRow, MANIFEST_PATH, Manifest, NPZ_PATH, PictureFormat, Plan, PlanHash, RowCounts, SUCCESS_PATH,
    UnitReport, from_json, sha256_hex,
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// How thoroughly to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Whether to read every file: digests, schemas, codes, ids and row counts. Otherwise only presence and sizes.
    pub read_files: bool,
    /// Units read at once; each holds both its files in memory.
    pub units_at_once: usize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { read_files: true, units_at_once: 2 }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The object, below the output.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.problem)
    }
}

/// What verifying found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The plan that owns the output.
    pub plan: PlanHash,
    /// Units of the plan.
    pub units_total: u32,
    /// Units with a marker.
    pub units_done: u32,
    /// Whether the output was finalized.
    pub finished: bool,
    /// Row counts of all units with a readable marker.
    #[serde(rename = "books")]
    pub row_counts: RowCounts,
    /// Files of both tables that markers name.
    pub files: u64,
    /// Their bytes, as markers say.
    pub bytes: u64,
    /// Everything that is wrong, by path.
    pub findings: Vec<Finding>,
    /// Files of the tables that no marker names: units in progress, or left by a process that was killed. Not wrong.
    pub leftovers: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong. An unfinished output can be sound.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Checks markers, sizes, and (unless told otherwise) every row of every file against the plan.
///
/// # Errors
/// When nothing was ever written there, the plan is damaged, or the store fails. What is wrong with the output itself is in
/// the report.
pub async fn verify(output: &Storage, options: &VerifyOptions) -> Result<VerifyReport, PipelineError> {
    let plan = read_plan(output).await?.ok_or_else(|| nothing_there(output))?;
    let done = done_units(output, &plan).await?;
    let mut findings = Vec::new();
    let mut reports = Vec::new();
    for &unit in &done {
        match as_finding(read_marker(output, &plan, unit).await)? {
            Ok(report) => reports.push(report),
            Err(problem) => findings.push(Finding { path: schemas::marker_path(unit, plan.hash()), problem }),
        }
    }
    let mut sizes = file_sizes(output, &plan).await?;
    let records = || reports.iter().flat_map(UnitReport::files);
    for record in records() {
        findings.extend(finding(record, size_problem(record, sizes.get(&record.path).copied(), "its marker")));
    }
    if options.read_files {
        findings.extend(verify_rows(output, &plan, &reports, options.units_at_once).await?);
    }
    let finished = output.exists(SUCCESS_PATH).await?;
    findings.extend(verify_manifest(output, &plan, &reports, finished).await?);
    findings.extend(verify_archive(output, &sizes, options.read_files).await?);
    let mut report = VerifyReport {
        plan: plan.hash().clone(),
        units_total: plan.units(),
        units_done: done.len() as u32,
        finished,
        row_counts: reports.iter().map(|unit| &unit.row_counts).sum(),
        files: records().count() as u64,
        bytes: records().map(|record| record.bytes).sum(),
        findings,
        leftovers: Vec::new(),
    };
    for record in records() {
        sizes.remove(&record.path);
    }
    // Not a unit's: the manifest speaks of it.
    sizes.remove(NPZ_PATH);
    report.leftovers = sizes.into_keys().collect();
    report.findings.sort();
    Ok(report)
}

/// Reads both files of every unit, a few units at once.
async fn verify_rows(
    output: &Storage,
    plan: &Plan,
    reports: &[UnitReport],
    units_at_once: usize,
) -> Result<Vec<Finding>, PipelineError> {
    let mut findings = Vec::new();
    let mut hashes = IdHashes::default();
    let mut units = std::pin::pin!(
        stream::iter(reports).map(|report| verify_unit(output, plan, report)).buffered(units_at_once.max(1))
    );
    while let Some((problems, images)) = units.try_next().await? {
        findings.extend(problems);
        hashes.add(images.iter().map(|row| row.image_id.as_str()));
    }
    let mut repeated = hashes.into_repeated();
    if !repeated.is_empty() {
        for report in reports {
            let Ok(images) = read_images(output, &report.images).await? else { continue };
            for (image_id, first) in repeated.add(&report.unit, images.1.iter().map(|row| row.image_id.as_str())) {
                // Within one unit it was found above.
                if first != report.unit {
                    let problem = format!("image id {image_id:?} is also in unit {first}");
                    findings.extend(finding(&report.images, Some(problem)));
                }
            }
        }
    }
    Ok(findings)
}

type Metadata = std::collections::BTreeMap<String, String>;

/// All that is wrong with one unit's files, and the rows of its images.
async fn verify_unit(
    output: &Storage,
    plan: &Plan,
    report: &UnitReport,
) -> Result<(Vec<Finding>, Vec<ImageRow>), PipelineError> {
    let mut findings = Vec::new();
    let tokens_per_image = plan.settings().tokenizer.levels.tokens_per_image();
    let tokens = match read_checked(output, &report.tokens).await? {
        Ok(bytes) => as_finding(decode_tokens(bytes, tokens_per_image, &report.tokens.path))?,
        Err(problem) => Err(problem),
    };
    let images = read_images(output, &report.images).await?;
    for record in &report.pictures {
        findings.extend(finding(record, read_checked(output, record).await?.err()));
    }
    let mut metadata_findings = |record: &FileRecord, metadata: &Metadata| {
        let problems = metadata_problems(metadata, plan, report.unit);
        findings.extend(problems.into_iter().filter_map(|problem| finding(record, Some(problem))));
    };
    if let Ok((metadata, _)) = &tokens {
        metadata_findings(&report.tokens, metadata);
    }
    if let Ok((metadata, _)) = &images {
        metadata_findings(&report.images, metadata);
    }
    match (tokens, images) {
        (Ok((_, tokens)), Ok((_, images))) => {
            let problems = row_problems(&tokens, &images, &report.row_counts, plan);
            findings.extend(problems.tokens.into_iter().filter_map(|problem| finding(&report.tokens, Some(problem))));
            findings.extend(problems.images.into_iter().filter_map(|problem| finding(&report.images, Some(problem))));
            Ok((findings, images))
        }
        (tokens, images) => {
            findings.extend(finding(&report.tokens, tokens.err()));
            findings.extend(finding(&report.images, images.as_ref().err().cloned()));
            Ok((findings, images.map(|(_, rows)| rows).unwrap_or_default()))
        }
    }
}

async fn read_images(
    output: &Storage,
    record: &FileRecord,
) -> Result<Result<(Metadata, Vec<ImageRow>), String>, PipelineError> {
    match read_checked(output, record).await? {
        Ok(bytes) => as_finding(decode_images(bytes, &record.path)),
        Err(problem) => Ok(Err(problem)),
    }
}

/// A file's bytes, if they have the digest that its marker says.
async fn read_checked(output: &Storage, record: &FileRecord) -> Result<Result<Bytes, String>, PipelineError> {
    let Some(bytes) = output.get_if_exists(&record.path).await? else {
        return Ok(Err("cannot be read: it is missing".to_owned()));
    };
    let digest = sha256_hex(&bytes);
    if digest != record.sha256 {
        return Ok(Err(format!("its SHA-256 is {digest}, but its marker says {}", record.sha256)));
    }
    Ok(Ok(bytes))
}

async fn verify_manifest(
    output: &Storage,
    plan: &Plan,
    reports: &[UnitReport],
    finished: bool,
) -> Result<Vec<Finding>, PipelineError> {
    let wrong = |path: &str, problem: String| vec![Finding { path: path.to_owned(), problem }];
    let Some(bytes) = output.get_if_exists(MANIFEST_PATH).await? else {
        return Ok(if finished {
            wrong(SUCCESS_PATH, format!("is there without {MANIFEST_PATH}"))
        } else {
            Vec::new()
        });
    };
    let there: Manifest = match from_json(MANIFEST_PATH, &bytes) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(wrong(MANIFEST_PATH, error.to_string())),
    };
    let missing = missing_units(plan, reports);
    if !missing.is_empty() {
        let units = describe_units(missing);
        return Ok(wrong(MANIFEST_PATH, format!("is there, but units have no readable marker: {units}")));
    }
    // The archive was checked against the pictures before the manifest was written; `verify_archive` holds it to its digest.
    let pictures = plan.settings().origin.pictures();
    let wanted = pictures.is_some_and(|pictures| pictures.formats.contains(&PictureFormat::Npz));
    if wanted != there.archive.as_ref().is_some_and(|record| record.path == NPZ_PATH) {
        let expected = if wanted { NPZ_PATH } else { "none" };
        return Ok(wrong(MANIFEST_PATH, format!("names another archive than the plan asks for, which is {expected}")));
    }
    let expected = Manifest { archive: there.archive.clone(), ..manifest(plan, reports) };
    Ok(if there == expected { Vec::new() } else { wrong(MANIFEST_PATH, manifest_difference(&there, &expected)) })
}

/// What is wrong with the evaluation archive that the manifest names; it is read in pieces, for it may be larger than memory.
async fn verify_archive(
    output: &Storage,
    sizes: &BTreeMap<String, u64>,
    read: bool,
) -> Result<Option<Finding>, PipelineError> {
    let Some(bytes) = output.get_if_exists(MANIFEST_PATH).await? else { return Ok(None) };
    // A manifest that does not read was found before.
    let manifest = from_json::<Manifest>(MANIFEST_PATH, &bytes).ok();
    let Some(record) = manifest.and_then(|manifest| manifest.archive) else { return Ok(None) };
    let mut problem = size_problem(&record, sizes.get(&record.path).copied(), "the manifest");
    if problem.is_none() && read {
        let (_, digest) = output.sha256(&record.path).await?;
        problem = (digest != record.sha256)
            .then(|| format!("its SHA-256 is {digest}, but the manifest says {}", record.sha256));
    }
    Ok(finding(&record, problem))
}

fn manifest_difference(there: &Manifest, expected: &Manifest) -> String {
    let parts = [
        ("plan", there.plan != expected.plan || there.settings != expected.settings),
        ("units", there.units != expected.units),
        ("row counts", there.row_counts != expected.row_counts),
        ("device kinds", there.device_kinds != expected.device_kinds),
        ("tokens files", there.tokens != expected.tokens),
        ("images files", there.images != expected.images),
        ("pictures", there.pictures != expected.pictures),
    ];
    let parts: Vec<&str> = parts.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    format!("does not say what the markers say: {} differ", parts.join(", "))
}

fn finding(record: &FileRecord, problem: Option<String>) -> Option<Finding> {
    Some(Finding { path: record.path.clone(), problem: problem? })
}

/// Tells what is wrong with the output from what is wrong with the store.
fn as_finding<T>(result: Result<T, PipelineError>) -> Result<Result<T, String>, PipelineError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(PipelineError::Storage { source: object_store::Error::NotFound { .. }, .. }) => {
            Ok(Err("is missing".to_owned()))
        }
        Err(error @ PipelineError::Storage { .. }) => Err(error),
        Err(error) => Ok(Err(error.to_string())),
    }
}
