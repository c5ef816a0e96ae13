//! Options and streams for the tests of training images.

use crate::run_support::{memory_source, sample};
use pipeline::{
    DataPosition, Limits, PipelineError, RandomCrop, SourceOptions, Storage, TrainingBatch, TrainingCrop,
    TrainingImages, TrainingImagesOptions, testing::returns,
};
use schemas::SourceLayout;

pub(crate) const LAYOUTS: [SourceLayout; 3] = [SourceLayout::Folder, SourceLayout::Webdataset, SourceLayout::Parquet];

/// Images of the source, and how many of them are broken.
pub(crate) const IMAGES: usize = 47;
pub(crate) const BROKEN: usize = 10;

/// The sample in memory: three tar shards, or two Parquet files, or a folder.
pub(crate) async fn source(layout: SourceLayout) -> Storage {
    memory_source(&sample(IMAGES), layout).await
}

/// Small random crops in small batches, from windows that are smaller than a shard and no divisor of it.
pub(crate) fn options(layout: SourceLayout) -> TrainingImagesOptions {
    TrainingImagesOptions {
        shuffle_images: 7,
        prefetch_batches: 2,
        max_reject_rate: 0.5,
        limits: Limits { decode_threads: 2, fetch_requests: 4, ..Limits::default() },
        ..TrainingImagesOptions::new(
            SourceOptions { layout: Some(layout), ..SourceOptions::new("") },
            TrainingCrop::Random(RandomCrop::published(8)),
            4,
            11,
        )
    }
}

/// Opens the images of a storage.
pub(crate) fn open(storage: &Storage, options: &TrainingImagesOptions, from: DataPosition) -> TrainingImages {
    returns("the list of the source", || TrainingImages::with_storage(storage.clone(), options, from))
        .expect("the source opens")
}

/// The next `count` batches.
pub(crate) fn take(images: &mut TrainingImages, count: usize) -> Vec<TrainingBatch> {
    (0..count).map(|_| next(images).expect("a batch")).collect()
}

/// The next batch, or the error that ends them.
pub(crate) fn next(images: &mut TrainingImages) -> Result<TrainingBatch, PipelineError> {
    returns("the next batch of images", || images.next())
}

/// The keys of all images in some batches.
pub(crate) fn ids(batches: &[TrainingBatch]) -> Vec<&str> {
    batches.iter().flat_map(|batch| &batch.image_ids).map(String::as_str).collect()
}
