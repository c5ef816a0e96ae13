//! The line of the scores table, as far as all evaluations have it in common.

use super::{extractors::Extractors, scoring::Scoring, totals::SetTotals};
use anyhow::Result;
use pipeline::ImageSet;
use schemas::{Crop, Deviation, EvaluationRecord, sha256_hex};

/// Digits of a digest that name an evaluation.
const NAME_DIGITS: usize = 12;

/// What is known of every evaluation of a set, without scores and without a name.
pub(super) fn begin(
    scoring: &Scoring,
    set: &ImageSet,
    max_images: Option<u64>,
    crop: Option<Crop>,
    totals: &SetTotals,
    extractors: Option<&Extractors>,
) -> EvaluationRecord {
    let (height, width) = set.shape();
    EvaluationRecord {
        source_digest: set.digest().to_owned(),
        images: totals.images,
        height: height as u64,
        width: width as u64,
        max_images,
        crop: crop.map(|crop| crop.to_string()),
        extractor_sha256: extractors.map(|extractors| extractors.sha256().to_owned()),
        extractor_precision: extractors.map(|extractors| extractors.precision().name().to_owned()),
        batch_size: scoring.work.batch_size as u64,
        device_kind: totals.device_kinds.iter().cloned().collect::<Vec<_>>().join(", "),
        libtorch: models::libtorch_version(),
        restok: env!("CARGO_PKG_VERSION").to_owned(),
        ..EvaluationRecord::new(scoring.protocol, set.display())
    }
}

/// Writes down how the protocol was not kept.
pub(super) fn note(record: &mut EvaluationRecord, deviations: &[Deviation]) {
    record.deviations = deviations.iter().map(ToString::to_string).collect();
}

/// Names an evaluation, of one record or of several, by everything in it, numbers included: done again with the same result it is the
/// same line.
///
/// # Errors
/// When a record does not serialize, which its type does not give it reason to.
pub(super) fn name(records: &mut [EvaluationRecord]) -> Result<()> {
    let mut digest = sha256_hex(&serde_json::to_vec(&records)?);
    digest.truncate(NAME_DIGITS);
    for record in records {
        record.evaluation.clone_from(&digest);
    }
    Ok(())
}
