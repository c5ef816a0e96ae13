//! From the images of a unit to the answers of devices: an ordered pipeline of its own.
//!
//! ```text
//! source ─▶ decode and crop (pool, at most `decode_ahead_images` at once) ─▶ batches ─▶ queue ─▶ device ─▶ answers
//!        in order                                              in order          full: wait         in order
//! ```
//!
//! Nothing here can deadlock: a pool job waits for nothing; the bytes of an image are given back as soon as it is decoded,
//! whether or not anybody asks for the result; the queue is emptied by devices, which wait for nothing but the queue; and
//! answers wait in their own channels without holding anything that another unit needs.

use super::UnitError;
use crate::{
    Limits, PipelineError,
    cpu_pool::CpuPool,
    device_worker::{DeviceQueue, DevicesGone},
    telemetry::{Stage, Telemetry},
    view_batcher::ViewBatcher,
};
use futures::{Stream, StreamExt, stream::FuturesOrdered};
use schemas::{PixelBatch, RejectReason, SchemaError};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// One unit that is being made of images: takes rows and answers as they come, both in the order of the source.
pub(crate) trait ImageUnit {
    /// An image as it was fetched.
    type Image: Send + 'static;
    /// What is kept of a decoded image besides its pixels.
    type Row: Send + 'static;
    /// What a device gives for a batch.
    type Answer: Send + 'static;

    /// Encoded bytes of an image.
    fn encoded_bytes(image: &Self::Image) -> u64;

    /// Why an image has no views, if it was rejected.
    fn rejection(row: &Self::Row) -> Option<Rejection<'_>>;

    /// Looks at an image before it is decoded.
    ///
    /// # Errors
    /// When it cannot be part of this unit.
    fn check_image(&mut self, _image: &Self::Image) -> Result<(), PipelineError> {
        Ok(())
    }

    /// Takes the row of the next image.
    fn add_row(&mut self, row: Self::Row);

    /// Takes the answer for the next batch.
    ///
    /// # Errors
    /// When it does not go with the answers before.
    fn add_answer(&mut self, answer: Self::Answer) -> Result<(), SchemaError>;
}

/// An image that was decoded, or was not.
#[derive(Debug)]
pub(crate) struct DecodedImage<R> {
    pub(crate) row: R,
    /// All its views, `[views, height, width, 3]`; empty when it was rejected.
    pub(crate) views: Vec<u8>,
}

/// Why an image was rejected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rejection<'a> {
    pub(crate) image_id: &'a str,
    pub(crate) source: &'a str,
    pub(crate) reason: RejectReason,
    pub(crate) error: &'a str,
}

/// The stages that all units of a run share.
#[derive(Debug)]
pub(crate) struct ImageStages<A> {
    devices: DeviceQueue<PixelBatch, A>,
    cpu: CpuPool,
    telemetry: Arc<Telemetry>,
    decode_ahead_images: usize,
    /// Rows of a batch, and height and width of a view.
    shape: [usize; 3],
}

impl<A: Send + 'static> ImageStages<A> {
    /// Stages whose batches have `shape`: rows, height and width.
    pub(crate) fn new(
        devices: DeviceQueue<PixelBatch, A>,
        shape: [usize; 3],
        cpu: &CpuPool,
        telemetry: &Arc<Telemetry>,
        limits: &Limits,
    ) -> Self {
        telemetry.set_capacity(Stage::Decode, cpu.threads());
        let (cpu, telemetry) = (cpu.clone(), Arc::clone(telemetry));
        Self { devices, cpu, telemetry, decode_ahead_images: limits.decode_ahead_images.max(1), shape }
    }

    /// Takes all `images` of `unit` through `decode` and the devices, and gives `rows` what comes of them.
    pub(crate) async fn run<U: ImageUnit<Answer = A>>(
        &self,
        unit: u32,
        mut images: impl Stream<Item = Result<U::Image, PipelineError>> + Unpin,
        decode: impl Fn(U::Image) -> Result<DecodedImage<U::Row>, PipelineError> + Clone + Send + 'static,
        rows: &mut U,
    ) -> Result<(), UnitError> {
        let [batch_rows, height, width] = self.shape;
        let mut batcher = ViewBatcher::new(batch_rows, height, width);
        let mut decoding = FuturesOrdered::new();
        let mut answers = FuturesOrdered::<oneshot::Receiver<A>>::new();
        let mut ended = false;
        while !ended || !decoding.is_empty() {
            let has_room = decoding.len() < self.decode_ahead_images;
            let (starved, full) = (!ended && decoding.is_empty(), !ended && !has_room);
            let waiting = Instant::now();
            // Charges the time that the unit stood still to the stage that it stood still for.
            let waited = || {
                if starved {
                    self.telemetry.record_busy(Stage::Fetch, waiting.elapsed());
                }
                if full {
                    self.telemetry.record_wait(Stage::Fetch, waiting.elapsed());
                }
            };
            tokio::select! {
                // Answers first, so that a busy source never keeps rows from moving on.
                biased;
                Some(answer) = answers.next(), if !answers.is_empty() => {
                    waited();
                    rows.add_answer(answer.map_err(|_| DevicesGone)?)?;
                }
                Some(decoded) = decoding.next(), if !decoding.is_empty() => {
                    waited();
                    let decoded: Result<DecodedImage<U::Row>, PipelineError> = decoded;
                    let DecodedImage { row, views } = decoded?;
                    for view in views.chunks(batcher.view_bytes()) {
                        if let Some(batch) = batcher.push(view)? {
                            answers.push_back(self.devices.submit(batch).await?);
                        }
                    }
                    self.count(unit, U::rejection(&row));
                    rows.add_row(row);
                }
                image = images.next(), if !ended && has_room => {
                    waited();
                    match image {
                        Some(image) => {
                            let image = image?;
                            rows.check_image(&image)?;
                            self.telemetry.record(Stage::Fetch, 1, U::encoded_bytes(&image), Duration::ZERO);
                            self.telemetry.image_listed();
                            decoding.push_back(self.decode(image, decode.clone()));
                        }
                        None => ended = true,
                    }
                }
            }
        }
        if let Some(batch) = batcher.finish()? {
            answers.push_back(self.devices.submit(batch).await?);
        }
        while let Some(answer) = answers.next().await {
            rows.add_answer(answer.map_err(|_| DevicesGone)?)?;
        }
        Ok(())
    }

    /// Decodes an image on the pool; it is gone, and with it its part of the fetch budget, when that returns.
    fn decode<I: Send + 'static, R: Send + 'static>(
        &self,
        image: I,
        decode: impl Fn(I) -> Result<DecodedImage<R>, PipelineError> + Send + 'static,
    ) -> impl Future<Output = Result<DecodedImage<R>, PipelineError>> + Send + 'static {
        let telemetry = Arc::clone(&self.telemetry);
        let in_stage = telemetry.enter(Stage::Decode);
        let queued = Instant::now();
        self.cpu.spawn_cpu(move || {
            let started = Instant::now();
            telemetry.record_wait(Stage::Decode, started - queued);
            let decoded = decode(image);
            let bytes = decoded.as_ref().map_or(0, |decoded| decoded.views.len());
            telemetry.record(Stage::Decode, 1, bytes as u64, started.elapsed());
            drop(in_stage);
            decoded
        })
    }

    fn count(&self, unit: u32, rejection: Option<Rejection<'_>>) {
        let Some(Rejection { image_id, source, reason, error }) = rejection else {
            self.telemetry.images_written(1);
            return;
        };
        self.telemetry.image_rejected(reason);
        tracing::debug!(unit, %image_id, %source, %reason, error, "image rejected");
    }
}
