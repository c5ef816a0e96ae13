//! The originals of the chosen images, read again from the source through the same crop.

use super::ChosenImage;
use futures::TryStreamExt;
use image::RgbImage;
use pipeline::{DecodeLimits, Limits, PipelineError, SourceReader, TableReader, crop_views, decode_image};
use schemas::PlanSettings;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// The wanted view of each original, by key, as far as the source still has them. What cannot be had is left out with a word:
/// the reconstructions are worth showing without.
pub(super) async fn read(
    reader: &TableReader,
    chosen: &[ChosenImage],
    view: i8,
    limits: &Limits,
) -> HashMap<String, RgbImage> {
    let mut originals = HashMap::new();
    let mut wanted: HashSet<&str> = chosen.iter().map(|image| image.image_id.as_str()).collect();
    if let Err(error) = read_into(reader, chosen, view, limits, &mut wanted, &mut originals).await {
        tracing::warn!("{} originals are left out: {error}", wanted.len());
    }
    originals
}

async fn read_into<'a>(
    reader: &TableReader,
    chosen: &'a [ChosenImage],
    view: i8,
    limits: &Limits,
    wanted: &mut HashSet<&'a str>,
    originals: &mut HashMap<String, RgbImage>,
) -> Result<(), PipelineError> {
    let source = SourceReader::open(Arc::clone(reader.plan()), limits)?;
    let units: BTreeSet<u32> = chosen.iter().map(|image| image.unit).collect();
    for unit in units {
        let mut left = chosen.iter().filter(|image| image.unit == unit).count();
        let mut images = source.read_unit(unit);
        // The stream ends with the last one that is wanted: the rest of a shard is not read.
        while left > 0 {
            let Some(image) = images.try_next().await? else { break };
            if !wanted.remove(image.image_id.as_str()) {
                continue;
            }
            left -= 1;
            let bytes = image.bytes.as_ref().ok();
            if let Some(picture) = bytes.and_then(|bytes| crop_one(bytes, view, reader.plan().settings())) {
                originals.insert(image.image_id.clone(), picture);
            }
        }
    }
    Ok(())
}

/// One view of an encoded image.
fn crop_one(bytes: &[u8], view: i8, settings: &PlanSettings) -> Option<RgbImage> {
    let images = settings.origin.images()?;
    let limits = DecodeLimits { max_bytes: images.max_image_bytes, max_pixels: images.max_image_pixels };
    let mut views = Vec::new();
    crop_views(&decode_image(bytes, &limits).ok()?, images.crop, &mut views);
    let side = images.crop.size();
    let pixels = views.chunks_exact(side * side * schemas::PixelBatch::CHANNELS).nth(usize::try_from(view).ok()?)?;
    RgbImage::from_raw(u32::try_from(side).ok()?, u32::try_from(side).ok()?, pixels.to_vec())
}
