//! Settings, plans and readers for the tests of sources.

use futures::TryStreamExt;
use object_store::{ObjectStore, path::Path};
use pipeline::{
    Limits, PipelineError, SourceImage, SourceListing, SourceOptions, SourceReader, Storage, list_storage, plan_units,
    testing::arrives,
};
use schemas::{ImageIdRule, Plan};
use std::sync::Arc;

pub(crate) use pipeline::testing::plan_settings as settings;

/// Quick retries, and pieces as small as they get.
pub(crate) fn limits() -> Limits {
    Limits {
        fetch_requests: 4,
        fetch_buffer_bytes: 256 << 10,
        retry_attempts: 3,
        retry_pause_first_milliseconds: 1,
        retry_pause_max_seconds: 1,
        ..Limits::default()
    }
}

/// A folder of a store that is already open.
pub(crate) fn storage(store: &Arc<dyn ObjectStore>, folder: &str) -> Storage {
    Storage::from_store(Arc::clone(store), Path::from(folder), &format!("memory:///{folder}"))
}

/// Lists a folder with default options.
pub(crate) async fn list(storage: &Storage) -> SourceListing {
    list_storage(storage, "", &SourceOptions::new(""), &limits()).await.expect("the folder lists")
}

/// Plans a folder with default options.
pub(crate) async fn plan(storage: &Storage, unit_size: usize) -> Arc<Plan> {
    Arc::new(plan_units(settings(unit_size, ImageIdRule::Stem), list(storage).await).expect("a plan"))
}

/// Opens a plan's reader.
pub(crate) fn reader(plan: &Arc<Plan>, storage: &Storage, limits: &Limits) -> SourceReader {
    SourceReader::with_storage(Arc::clone(plan), storage.clone(), limits).expect("the plan's source")
}

/// Reads a unit to its end, or to its error.
pub(crate) async fn read_unit(reader: &SourceReader, unit: u32) -> Result<Vec<SourceImage>, PipelineError> {
    let images = reader.read_unit(unit).map_ok(|mut image| {
        // As a run does once the image is decoded.
        image.permit = pipeline::FetchPermit::none();
        image
    });
    arrives("the end of a unit", images.try_collect()).await
}

/// Reads all units in order.
pub(crate) async fn read_all(reader: &SourceReader, plan: &Plan) -> Result<Vec<SourceImage>, PipelineError> {
    let mut images = Vec::new();
    for unit in 0..plan.units() {
        images.extend(read_unit(reader, unit).await?);
    }
    Ok(images)
}
