//! Units whose rows are images: read, cropped, encoded, and joined with their codes.

use super::{EarlyDuplicates, UnitSource};
use crate::{
    DecodeLimits, PipelineError, SourceImage, SourceReader,
    commit::{UnitRows, row_counts_of},
    crop_views, decode_image,
    unique_ids::duplicate_id,
    units::{DecodedImage, ImageStages, ImageUnit, Rejection, UnitError},
};
use schemas::{
    Crop, ImageOrigin, ImageRow, Plan, RowCounts, SchemaError, SourceAccount, TokenBatch, TokenRows, sha256_hex,
};
use std::{collections::HashSet, sync::Arc};

/// What all units of a run share.
#[derive(Debug)]
pub(super) struct ImageUnits {
    pub(super) plan: Arc<Plan>,
    pub(super) images: ImageOrigin,
    pub(super) source: SourceReader,
    pub(super) stages: ImageStages<TokenBatch>,
    pub(super) duplicates: EarlyDuplicates,
}

impl UnitSource for ImageUnits {
    async fn unit_rows(&self, unit: u32) -> Result<UnitRows, UnitError> {
        let ImageOrigin { crop, max_image_bytes, max_image_pixels, .. } = self.images;
        let limits = DecodeLimits { max_bytes: max_image_bytes, max_pixels: max_image_pixels };
        let decode = move |image| Ok(decode_and_crop(image, &limits, crop));
        let mut rows = RowCollector::new(&self.plan, unit, &self.duplicates);
        let mut source = self.source.read_unit(unit);
        self.stages.run(unit, &mut source, decode, &mut rows).await?;
        Ok(rows.finish(source.left_out())?)
    }

    /// Nothing is made of the codes: the other attempt's stand, and the images are the same.
    async fn follow(&self, _unit: u32, rows: UnitRows, tokens: TokenRows) -> Result<UnitRows, UnitError> {
        Ok(UnitRows { tokens, ..rows })
    }
}

/// Hashes, decodes and crops one image. Deterministic: the same bytes give the same pixels or the same reject everywhere.
fn decode_and_crop(image: SourceImage, limits: &DecodeLimits, crop: Crop) -> DecodedImage<ImageRow> {
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
struct RowCollector<'a> {
    unit: u32,
    duplicates: &'a EarlyDuplicates,
    images: Vec<ImageRow>,
    images_started: u64,
    codes: Vec<i16>,
    views: usize,
    tokens_per_image: usize,
}

impl ImageUnit for RowCollector<'_> {
    type Image = SourceImage;
    type Row = ImageRow;
    type Answer = TokenBatch;

    fn encoded_bytes(image: &SourceImage) -> u64 {
        image.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)
    }

    fn rejection(row: &ImageRow) -> Option<Rejection<'_>> {
        let ImageRow { image_id, source, rejected, error, .. } = row;
        Some(Rejection { image_id, source, reason: (*rejected)?, error: error.as_deref().unwrap_or_default() })
    }

    fn check_image(&mut self, image: &SourceImage) -> Result<(), PipelineError> {
        self.duplicates.check(self.unit, self.images_started, &image.image_id)?;
        self.images_started += 1;
        Ok(())
    }

    fn add_row(&mut self, row: ImageRow) {
        self.images.push(row);
    }

    fn add_answer(&mut self, codes: TokenBatch) -> Result<(), SchemaError> {
        self.codes.extend_from_slice(codes.codes());
        Ok(())
    }
}

impl<'a> RowCollector<'a> {
    fn new(plan: &Plan, unit: u32, duplicates: &'a EarlyDuplicates) -> Self {
        let settings = plan.settings();
        Self {
            unit,
            duplicates,
            images: Vec::new(),
            images_started: 0,
            codes: Vec::new(),
            views: settings.origin.views(),
            tokens_per_image: settings.tokenizer.levels.tokens_per_image(),
        }
    }

    /// Joins images and codes, and checks that the row counts add up.
    fn finish(self, left_out: SourceAccount) -> Result<UnitRows, PipelineError> {
        let mut ids = HashSet::with_capacity(self.images.len());
        if let Some(image) = self.images.iter().find(|image| !ids.insert(image.image_id.as_str())) {
            return Err(duplicate_id("the source", &image.image_id, self.unit, self.unit));
        }
        let row_counts = RowCounts { listed: self.images_started, left_out, ..row_counts_of(&self.images, self.views) };
        row_counts.check(self.views)?;
        let tokens = TokenBatch::try_new(self.codes, self.tokens_per_image)?;
        if tokens.rows() as u64 != row_counts.token_rows {
            return Err(SchemaError::Shape {
                what: "codes of a unit",
                found: format!("{} rows", tokens.rows()),
                expected: format!(
                    "{} rows for {} images of {} views",
                    row_counts.token_rows, row_counts.written, self.views
                ),
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
        Ok(UnitRows { tokens, images: self.images, pictures: Vec::new(), row_counts })
    }
}
