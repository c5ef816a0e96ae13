//! One unit, from its inputs to its rows: an ordered pipeline of its own.
//!
//! ```text
//! source ─▶ decode and crop (pool, at most `decode_ahead_images` at once) ─▶ batches ─▶ queue ─▶ device ─▶ codes ─▶ rows
//!        in order                                              in order          full: wait            in order
//! ```
//!
//! Nothing here can deadlock: a pool job waits for nothing; the bytes of an image are given back as soon as it is decoded,
//! whether or not anybody asks for the result; the queue is emptied by devices, which wait for nothing but the queue; and
//! codes wait in their own channels without holding anything that another unit needs.

use super::{EarlyDuplicates, UnitError, UnitRows, UnitSource, batcher::ViewBatcher, duplicate_id};
use crate::{
    DecodeLimits, PipelineError, SourceImage, SourceReader,
    cpu_pool::CpuPool,
    crop_views, decode_image,
    device_worker::{DeviceQueue, DevicesGone},
    telemetry::{Stage, Telemetry},
};
use futures::{StreamExt, stream::FuturesOrdered};
use schemas::{Books, Crop, ImageOrigin, ImageRow, PixelBatch, Plan, SourceAccount, TokenBatch, TokenRows, sha256_hex};
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Units whose rows are images that are read, cropped and encoded: what all of them share.
#[derive(Clone, Debug)]
pub(super) struct ImageUnits {
    pub(super) plan: Arc<Plan>,
    pub(super) images: ImageOrigin,
    pub(super) source: SourceReader,
    pub(super) devices: DeviceQueue<PixelBatch, TokenBatch>,
    pub(super) cpu: CpuPool,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) decode_ahead_images: usize,
    pub(super) duplicates: Arc<EarlyDuplicates>,
}

/// An image that was decoded, or was not.
#[derive(Debug)]
struct DecodedImage {
    row: ImageRow,
    /// All its views, `[views, size, size, 3]`; empty when it was rejected.
    views: Vec<u8>,
}

impl UnitSource for ImageUnits {
    /// Reads, decodes, crops and encodes all images of a unit.
    async fn unit_rows(&self, unit: u32) -> Result<UnitRows, UnitError> {
        let size = self.images.crop.size();
        let mut batcher = ViewBatcher::new(self.plan.settings().batch_size, size, size);
        let mut rows = RowCollector::new(&self.plan);
        let mut source = std::pin::pin!(self.source.read_unit(unit));
        let mut decoding = FuturesOrdered::new();
        let mut encoding = FuturesOrdered::<oneshot::Receiver<TokenBatch>>::new();
        let mut source_ended = false;
        while !source_ended || !decoding.is_empty() {
            let has_room = decoding.len() < self.decode_ahead_images.max(1);
            let waiting = WaitClock::start(!source_ended && decoding.is_empty(), !source_ended && !has_room);
            tokio::select! {
                // Answers first, so that a busy source never keeps rows from moving on.
                biased;
                Some(codes) = encoding.next(), if !encoding.is_empty() => {
                    waiting.stop(&self.telemetry);
                    rows.add_codes(&codes.map_err(|_| DevicesGone)?);
                }
                Some(decoded) = decoding.next(), if !decoding.is_empty() => {
                    waiting.stop(&self.telemetry);
                    let DecodedImage { row, views } = decoded;
                    for view in views.chunks_exact(batcher.view_bytes()) {
                        if let Some(batch) = batcher.push(view)? {
                            encoding.push_back(self.devices.submit(batch).await?);
                        }
                    }
                    self.count(&row, unit);
                    rows.add_image(row);
                }
                image = source.next(), if !source_ended && has_room => {
                    waiting.stop(&self.telemetry);
                    match image {
                        Some(image) => {
                            let image = image?;
                            self.duplicates.check(unit, rows.images_started, &image.image_id)?;
                            rows.images_started += 1;
                            decoding.push_back(self.decode(image));
                        }
                        None => source_ended = true,
                    }
                }
            }
        }
        if let Some(batch) = batcher.finish()? {
            encoding.push_back(self.devices.submit(batch).await?);
        }
        while let Some(codes) = encoding.next().await {
            rows.add_codes(&codes.map_err(|_| DevicesGone)?);
        }
        Ok(rows.finish(unit, source.left_out())?)
    }

    /// Nothing is made of the codes: the other attempt's stand, and the images are the same.
    async fn follow(&self, _unit: u32, rows: UnitRows, tokens: TokenRows) -> Result<UnitRows, UnitError> {
        Ok(UnitRows { tokens, ..rows })
    }
}

impl ImageUnits {
    fn count(&self, row: &ImageRow, unit: u32) {
        match row.rejected {
            None => self.telemetry.images_written(1),
            Some(reason) => {
                self.telemetry.image_rejected();
                tracing::debug!(
                    unit,
                    image_id = %row.image_id,
                    source = %row.source,
                    %reason,
                    error = row.error.as_deref().unwrap_or_default(),
                    "image rejected"
                );
            }
        }
    }

    fn decode(&self, image: SourceImage) -> impl Future<Output = DecodedImage> + Send + 'static {
        self.telemetry.record(
            Stage::Fetch,
            1,
            image.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Duration::ZERO,
        );
        self.telemetry.image_listed();
        let ImageOrigin { crop, max_image_bytes, max_image_pixels, .. } = self.images.clone();
        let limits = DecodeLimits { max_bytes: max_image_bytes, max_pixels: max_image_pixels };
        let telemetry = Arc::clone(&self.telemetry);
        let in_stage = telemetry.enter(Stage::Decode);
        let queued = Instant::now();
        self.cpu.spawn_cpu(move || {
            let started = Instant::now();
            telemetry.record_wait(Stage::Decode, started - queued);
            // The image, and with it its share of the fetch budget, is gone when this returns.
            let decoded = decode_and_crop(image, &limits, crop);
            telemetry.record(Stage::Decode, 1, decoded.views.len() as u64, started.elapsed());
            drop(in_stage);
            decoded
        })
    }
}

/// Time that a unit stands still, booked to the stage it stands still for.
pub(crate) struct WaitClock {
    started: Instant,
    starved: bool,
    full: bool,
}

impl WaitClock {
    pub(crate) fn start(starved: bool, full: bool) -> Self {
        Self { started: Instant::now(), starved, full }
    }

    pub(crate) fn stop(self, telemetry: &Telemetry) {
        if self.starved {
            telemetry.record_busy(Stage::Fetch, self.started.elapsed());
        }
        if self.full {
            telemetry.record_wait(Stage::Fetch, self.started.elapsed());
        }
    }
}

/// Hashes, decodes and crops one image. Deterministic: the same bytes give the same pixels or the same reject everywhere.
fn decode_and_crop(image: SourceImage, limits: &DecodeLimits, crop: Crop) -> DecodedImage {
    let SourceImage { image_id, source, label, class_name, size, bytes, permit } = image;
    let mut row = ImageRow {
        image_id,
        source,
        label,
        class_name,
        width: None,
        height: None,
        bytes: i64::try_from(size).unwrap_or(i64::MAX),
        sha256: None,
        rejected: None,
        error: None,
    };
    let mut views = Vec::new();
    match bytes {
        Err((reason, message)) => {
            row.rejected = Some(reason);
            row.error = Some(message);
        }
        Ok(bytes) => {
            row.sha256 = Some(sha256_hex(&bytes));
            let dimension = |pixels: u32| i32::try_from(pixels).ok();
            match decode_image(&bytes, limits) {
                Ok(decoded) => {
                    (row.width, row.height) = (dimension(decoded.width), dimension(decoded.height));
                    // Nothing reads the encoded bytes any more; the next fetch may have their room before the crop is done.
                    drop((bytes, permit));
                    crop_views(&decoded, crop, &mut views);
                }
                Err(failure) => {
                    if let Some((width, height)) = failure.dimensions {
                        (row.width, row.height) = (dimension(width), dimension(height));
                    }
                    row.rejected = Some(failure.reason);
                    row.error = Some(failure.message);
                }
            }
        }
    }
    DecodedImage { row, views }
}

/// Rows as they come, in plan order: images from the decoder, codes from the devices some batches later.
struct RowCollector {
    images: Vec<ImageRow>,
    images_started: u64,
    codes: Vec<i16>,
    views: usize,
    tokens_per_image: usize,
}

impl RowCollector {
    fn new(plan: &Plan) -> Self {
        let settings = plan.settings();
        Self {
            images: Vec::new(),
            images_started: 0,
            codes: Vec::new(),
            views: settings.origin.views(),
            tokens_per_image: settings.tokenizer.levels.tokens_per_image(),
        }
    }

    fn add_image(&mut self, row: ImageRow) {
        self.images.push(row);
    }

    fn add_codes(&mut self, codes: &TokenBatch) {
        self.codes.extend_from_slice(codes.codes());
    }

    /// Joins images and codes, and balances the books.
    fn finish(self, unit: u32, left_out: SourceAccount) -> Result<UnitRows, PipelineError> {
        let mut ids = HashSet::with_capacity(self.images.len());
        if let Some(image) = self.images.iter().find(|image| !ids.insert(image.image_id.as_str())) {
            return Err(duplicate_id("the source", &image.image_id, unit, unit));
        }
        let books = Books { listed: self.images_started, left_out, ..books_of(&self.images, self.views) };
        books.check(self.views)?;
        let tokens = TokenBatch::try_new(self.codes, self.tokens_per_image)?;
        if tokens.rows() as u64 != books.token_rows {
            return Err(schemas::SchemaError::Shape {
                what: "codes of a unit",
                found: format!("{} rows", tokens.rows()),
                expected: format!("{} rows for {} images of {} views", books.token_rows, books.written, self.views),
            }
            .into());
        }
        let rows = tokens.rows();
        let mut image_ids = Vec::with_capacity(rows);
        let mut views = Vec::with_capacity(rows);
        let mut labels = Vec::with_capacity(rows);
        for image in self.images.iter().filter(|image| image.rejected.is_none()) {
            for view in 0..self.views {
                image_ids.push(image.image_id.clone());
                views.push(view as i8);
                labels.push(image.label);
            }
        }
        let tokens = TokenRows { image_ids, views, labels, tokens };
        Ok(UnitRows { tokens, images: self.images, pictures: Vec::new(), books })
    }
}

/// The books that follow from the rows of an images table whose crop has `views` views.
pub(crate) fn books_of(images: &[ImageRow], views: usize) -> Books {
    let mut books = Books { listed: images.len() as u64, ..Books::default() };
    for image in images {
        match image.rejected {
            Some(reason) => *books.rejected.entry(reason).or_default() += 1,
            None => {
                books.written += 1;
                books.token_rows += views as u64;
            }
        }
        // An image that was not read has no digest.
        if image.sha256.is_some() {
            books.bytes_read += u64::try_from(image.bytes).unwrap_or(0);
        }
    }
    books
}
