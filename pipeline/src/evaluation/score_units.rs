//! The units of a set, from images to a file of what a scorer says of them.

use super::{
    ScoredTables,
    scored_file::{FileIdentity, encode},
};
use crate::{
    ImageSet, PipelineError, PutOutcome,
    cpu_pool::CpuPool,
    image_set::{PreparedRow, RejectedImage, SetImage},
    telemetry::{Stage, Telemetry},
    units::{ImageStages, ImageUnit, Rejection, UnitCounts, UnitError, UnitTask},
};
use schemas::{RejectReason, SchemaError, ScoredBatch, ScoredRow, ScoredUnit};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// What all units of a run share.
#[derive(Debug)]
pub(super) struct ScoreTask {
    pub(super) set: Arc<ImageSet>,
    pub(super) stages: ImageStages<ScoredBatch>,
    pub(super) tables: ScoredTables,
    pub(super) identity: Arc<FileIdentity>,
    pub(super) cpu: CpuPool,
    pub(super) telemetry: Arc<Telemetry>,
}

/// A unit that this run scored.
#[derive(Clone, Debug)]
pub(super) struct UnitScored {
    pub(super) images: u64,
    pub(super) rejected: BTreeMap<RejectReason, u64>,
    /// Another attempt's file was there first.
    pub(super) adopted: bool,
    /// Wall time in seconds.
    pub(super) seconds: f64,
}

impl UnitTask for ScoreTask {
    /// With why images were rejected.
    type Output = (ScoredUnit, BTreeMap<RejectReason, u64>);
    type Stored = UnitScored;

    async fn is_stored(&self, unit: u32) -> Result<bool, PipelineError> {
        self.tables.is_there(unit).await
    }

    async fn stored(&self) -> Result<BTreeSet<u32>, PipelineError> {
        self.tables.stored().await
    }

    async fn duration_of(&self, _: u32) -> Result<Option<Duration>, PipelineError> {
        // Files of scores hold no clock.
        Ok(None)
    }

    async fn make(&self, unit: u32) -> Result<Self::Output, UnitError> {
        let preparation = self.set.preparation();
        let prepare = move |image| preparation.prepare(image);
        let mut gathered = Gathered::default();
        self.stages.run(unit, self.set.read_unit(unit), prepare, &mut gathered).await?;
        Ok(gathered.finish(unit)?)
    }

    async fn commit(
        &self,
        unit: u32,
        (scored, reasons): Self::Output,
        started: Instant,
    ) -> Result<UnitScored, UnitError> {
        let (images, rejected) = (scored.rows.len() as u64, scored.rejected);
        let (identity, uri) = (Arc::clone(&self.identity), self.tables.uri(unit));
        let writing = Instant::now();
        let encode = move || {
            let bytes = encode(&scored, unit, &identity, &uri)?;
            Ok::<_, PipelineError>((scored.rows, bytes))
        };
        let (rows, bytes) = self.cpu.spawn_cpu(encode).await?;
        let size = bytes.len() as u64;
        let adopted = match self.tables.put(unit, bytes).await? {
            PutOutcome::Created | PutOutcome::Same => false,
            PutOutcome::Different(found) => {
                // Of another kind of device, whose last bits differ. The first writer wins.
                self.tables.check_same(unit, found, &rows, rejected)?;
                true
            }
        };
        self.telemetry.record(Stage::Write, 1, size, writing.elapsed());
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(images, rejected, bytes = size, seconds = format!("{seconds:.1}"), "unit complete");
        Ok(UnitScored { images, rejected: reasons, adopted, seconds })
    }

    fn counts(stored: &UnitScored) -> UnitCounts {
        let UnitScored { images: rows, ref rejected, seconds, .. } = *stored;
        UnitCounts { images: rows + rejected.values().sum::<u64>(), rejected: rejected.clone(), rows, seconds }
    }
}

/// Rows as they come, in the order of the set: images from the decoder, scores from the devices some batches later.
#[derive(Default)]
struct Gathered {
    rows: Vec<ScoredRow>,
    scores: Option<ScoredBatch>,
    rejected: BTreeMap<RejectReason, u64>,
}

impl ImageUnit for Gathered {
    type Image = SetImage;
    type Row = PreparedRow;
    type Answer = ScoredBatch;

    fn encoded_bytes(image: &SetImage) -> u64 {
        image.fetched_bytes()
    }

    fn rejection(row: &PreparedRow) -> Option<Rejection<'_>> {
        let RejectedImage { image_id, source, reason, error } = row.as_ref().err()?;
        Some(Rejection { image_id, source, reason: *reason, error })
    }

    fn add_row(&mut self, row: PreparedRow) {
        match row {
            Ok(row) => self.rows.push(row),
            Err(rejected) => *self.rejected.entry(rejected.reason).or_default() += 1,
        }
    }

    fn add_answer(&mut self, more: ScoredBatch) -> Result<(), SchemaError> {
        match &mut self.scores {
            None => self.scores = Some(more),
            Some(scores) => scores.append(more)?,
        }
        Ok(())
    }
}

impl Gathered {
    fn finish(self, unit: u32) -> Result<(ScoredUnit, BTreeMap<RejectReason, u64>), PipelineError> {
        let Self { rows, scores, rejected: reasons } = self;
        let rejected = reasons.values().sum();
        if let Some(scores) = &scores {
            scores.check(rows.len())?;
            check_numbers(scores, &rows, unit)?;
        }
        let ScoredBatch { variants, tokens } = scores.unwrap_or_default();
        Ok((ScoredUnit { rows, variants, tokens, rejected }, reasons))
    }
}

/// A number that is none would make every sum it enters none.
fn check_numbers(scores: &ScoredBatch, rows: &[ScoredRow], unit: u32) -> Result<(), PipelineError> {
    let images = rows.len();
    let wrong = |row: usize, what: &str, found: f64, variant: usize| {
        let image_id = &rows[row].image_id;
        let problem = format!(
            "{what} is {found} in row {row} of unit {unit}, image {image_id:?}, variant {variant}: expected a number. A network in half \
             precision may have overflowed"
        );
        PipelineError::Encoder { device: "of a scorer".to_owned(), problem, temporary: false }
    };
    for (number, variant) in scores.variants.iter().enumerate() {
        for (what, values) in [("a pool feature", &variant.pool), ("a spatial feature", &variant.spatial)] {
            if let Some(place) = values.iter().position(|value| !value.is_finite()) {
                return Err(wrong(place * images / values.len(), what, f64::from(values[place]), number));
            }
        }
        for (row, measures) in variant.measures.iter().enumerate() {
            // Two equal images are infinitely many decibels apart from noise: that is a number here.
            let said = [Some(measures.psnr), Some(measures.ssim), measures.ms_ssim, measures.lpips];
            for (what, value) in ["psnr", "ssim", "ms_ssim", "lpips"].into_iter().zip(said) {
                if let Some(value) = value.filter(|value| value.is_nan()) {
                    return Err(wrong(row, what, value, number));
                }
            }
        }
    }
    Ok(())
}
