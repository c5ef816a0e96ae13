//! One unit of a set, from its pictures to what a scorer says of them: an ordered pipeline of its own, as tokenizing has it.
//!
//! Nothing here can deadlock, for the reasons that [`crate::run`] gives: a pool job waits for nothing, and the queue is emptied by
//! devices, which wait for nothing but the queue.

use super::{
    PictureSet,
    picture::{Picture, Prepared},
};
use crate::{
    PipelineError,
    cpu_pool::CpuPool,
    device_worker::{DeviceQueue, DevicesGone},
    run::{UnitError, ViewBatcher, WaitClock},
    telemetry::{Stage, Telemetry},
};
use futures::{StreamExt, stream::FuturesOrdered};
use schemas::{PixelBatch, SchemaError, ScoredBatch, ScoredRow, ScoredUnit};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// What all units of a run share.
#[derive(Clone, Debug)]
pub(super) struct Units {
    pub(super) set: Arc<PictureSet>,
    pub(super) batch_size: usize,
    pub(super) devices: DeviceQueue<PixelBatch, ScoredBatch>,
    pub(super) cpu: CpuPool,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) decode_ahead_images: usize,
}

impl Units {
    /// Reads, decodes, crops and scores all pictures of a unit.
    pub(super) async fn score(&self, unit: u32) -> Result<ScoredUnit, UnitError> {
        let (height, width) = self.set.shape();
        let mut batcher = ViewBatcher::new(self.batch_size, height, width);
        let mut gathered = Gathered::default();
        let mut pictures = self.set.read_unit(unit);
        let mut preparing = FuturesOrdered::new();
        let mut scoring = FuturesOrdered::<oneshot::Receiver<ScoredBatch>>::new();
        let mut ended = false;
        while !ended || !preparing.is_empty() {
            let has_room = preparing.len() < self.decode_ahead_images.max(1);
            let waiting = WaitClock::start(!ended && preparing.is_empty(), !ended && !has_room);
            tokio::select! {
                // Answers first, so that a busy source never keeps rows from moving on.
                biased;
                Some(scored) = scoring.next(), if !scoring.is_empty() => {
                    waiting.stop(&self.telemetry);
                    gathered.add_scores(scored.map_err(|_| DevicesGone)?)?;
                }
                Some(prepared) = preparing.next(), if !preparing.is_empty() => {
                    waiting.stop(&self.telemetry);
                    let prepared: Result<Prepared, PipelineError> = prepared;
                    match prepared? {
                        Prepared::Ready { row, pixels } => {
                            self.telemetry.images_written(1);
                            gathered.rows.push(row);
                            if let Some(batch) = batcher.push(&pixels)? {
                                scoring.push_back(self.devices.submit(batch).await?);
                            }
                        }
                        Prepared::Rejected { image_id, source, reason, error } => {
                            self.telemetry.image_rejected();
                            gathered.rejected += 1;
                            tracing::debug!(unit, image_id, source, %reason, error, "image rejected");
                        }
                    }
                }
                picture = pictures.next(), if !ended && has_room => {
                    waiting.stop(&self.telemetry);
                    match picture {
                        Some(picture) => preparing.push_back(self.prepare(picture?)),
                        None => ended = true,
                    }
                }
            }
        }
        if let Some(batch) = batcher.finish()? {
            scoring.push_back(self.devices.submit(batch).await?);
        }
        while let Some(scored) = scoring.next().await {
            gathered.add_scores(scored.map_err(|_| DevicesGone)?)?;
        }
        Ok(gathered.finish(unit)?)
    }

    fn prepare(&self, picture: Picture) -> impl Future<Output = Result<Prepared, PipelineError>> + Send + 'static {
        self.telemetry.record(Stage::Fetch, 1, picture.body.len() as u64, Duration::ZERO);
        self.telemetry.image_listed();
        let preparation = self.set.preparation();
        let telemetry = Arc::clone(&self.telemetry);
        let in_stage = telemetry.enter(Stage::Decode);
        let queued = Instant::now();
        self.cpu.spawn_cpu(move || {
            let started = Instant::now();
            telemetry.record_wait(Stage::Decode, started - queued);
            let prepared = preparation.prepare(picture);
            let bytes = match &prepared {
                Ok(Prepared::Ready { pixels, .. }) => pixels.len() as u64,
                _ => 0,
            };
            telemetry.record(Stage::Decode, 1, bytes, started.elapsed());
            drop(in_stage);
            prepared
        })
    }
}

/// Rows as they come, in the order of the set: pictures from the decoder, scores from the devices some batches later.
#[derive(Default)]
struct Gathered {
    rows: Vec<ScoredRow>,
    scores: Option<ScoredBatch>,
    rejected: u64,
}

impl Gathered {
    fn add_scores(&mut self, more: ScoredBatch) -> Result<(), SchemaError> {
        match &mut self.scores {
            None => self.scores = Some(more),
            Some(scores) => scores.append(more)?,
        }
        Ok(())
    }

    fn finish(self, unit: u32) -> Result<ScoredUnit, PipelineError> {
        let Self { rows, scores, rejected } = self;
        if let Some(scores) = &scores {
            scores.check(rows.len())?;
            check_numbers(scores, &rows, unit)?;
        }
        let ScoredBatch { faces, tokens } = scores.unwrap_or_default();
        Ok(ScoredUnit { rows, faces, tokens, rejected })
    }
}

/// A number that is none would make every sum it enters none.
fn check_numbers(scores: &ScoredBatch, rows: &[ScoredRow], unit: u32) -> Result<(), PipelineError> {
    let images = rows.len();
    let wrong = |row: usize, what: &str, found: f64, face: usize| {
        let image_id = &rows[row].image_id;
        let problem = format!(
            "{what} is {found} in row {row} of unit {unit}, image {image_id:?}, face {face}: expected a number. A network in half \
             precision may have overflowed"
        );
        PipelineError::Encoder { device: "of a scorer".to_owned(), problem, temporary: false }
    };
    for (number, face) in scores.faces.iter().enumerate() {
        for (what, values) in [("a pool feature", &face.pool), ("a spatial feature", &face.spatial)] {
            if let Some(place) = values.iter().position(|value| !value.is_finite()) {
                return Err(wrong(place * images / values.len(), what, f64::from(values[place]), number));
            }
        }
        for (row, measures) in face.measures.iter().enumerate() {
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
