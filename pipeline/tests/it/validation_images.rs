//! Images to validate on: the source once, in its own order, cropped as for tokens, the last batch padded.

use crate::{
    run_support::sample,
    sample_set::SampleSet,
    training_support::{BROKEN, IMAGES, LAYOUTS, source},
};
use pipeline::{
    DecodeLimits, Limits, PipelineError, SourceOptions, ValidationImages, ValidationImagesOptions, crop_views,
    decode_image, testing::returns,
};
use schemas::{Crop, PixelBatch, RejectReason, SourceLayout};
use std::collections::BTreeMap;

const CROP: Crop = Crop::TorchvisionCenter { size: 8 };

fn options(layout: SourceLayout, batch_size: usize) -> ValidationImagesOptions {
    let source = SourceOptions { layout: Some(layout), ..SourceOptions::new("") };
    ValidationImagesOptions { max_reject_rate: 0.5, ..ValidationImagesOptions::new(source, CROP, batch_size) }
}

fn next(images: &mut ValidationImages) -> Result<Option<PixelBatch>, PipelineError> {
    returns("the next batch of images to validate on", || images.next())
}

fn all(images: &mut ValidationImages) -> Result<Vec<PixelBatch>, PipelineError> {
    std::iter::from_fn(|| next(images).transpose()).collect()
}

/// The views of the sample's readable images, in the order of its listing.
fn expected(images: usize) -> Vec<Vec<u8>> {
    let limits = DecodeLimits { max_bytes: 1 << 20, max_pixels: 1 << 20 };
    let set = SampleSet::new(sample(IMAGES));
    let readable = set.images().iter().take(images).filter_map(|image| decode_image(&image.bytes, &limits).ok());
    readable
        .map(|image| {
            let mut view = Vec::new();
            crop_views(&image, CROP, &mut view);
            view
        })
        .collect()
}

#[tokio::test]
async fn one_pass_gives_every_image_in_order_and_pads_the_last_batch() {
    for layout in LAYOUTS {
        let source = source(layout).await;
        for (batch_size, threads) in [(4, 1), (4, 3), (37, 2), (100, 2)] {
            let limits = Limits { decode_threads: threads, ..Limits::default() };
            let options = ValidationImagesOptions { limits, ..options(layout, batch_size) };
            let mut images = ValidationImages::with_storage(source.clone(), &options).expect("the source opens");
            let batches = all(&mut images).expect("a pass");
            let views: Vec<_> =
                batches.iter().flat_map(|batch| (0..batch.filled()).map(|row| batch.image(row).to_vec())).collect();
            assert!(views == expected(IMAGES), "{layout}, batches of {batch_size}");
            assert!(batches.iter().all(|batch| batch.rows() == batch_size));
            let last = batches.last().expect("a batch");
            assert_eq!(last.filled(), (IMAGES - BROKEN - 1) % batch_size + 1);
            assert!((last.filled()..batch_size).all(|row| last.image(row).iter().all(|&value| value == 0)));
            let rejected = BTreeMap::from([(RejectReason::Truncated, 3), (RejectReason::Unsupported, 7)]);
            assert_eq!(*images.rejected(), rejected, "{layout}");
            assert!(next(&mut images).expect("after the end").is_none());
        }
    }
}

#[tokio::test]
async fn a_limit_takes_the_first_images_of_the_listing() {
    for layout in LAYOUTS {
        let mut options = options(layout, 8);
        options.source.max_images = Some(20);
        let mut images = ValidationImages::with_storage(source(layout).await, &options).expect("the source opens");
        let batches = all(&mut images).expect("a pass");
        let filled: usize = batches.iter().map(PixelBatch::filled).sum();
        assert_eq!(filled, expected(20).len(), "{layout}");
        assert_eq!(batches[0].image(0), expected(20)[0], "{layout}");
    }
}

#[tokio::test]
async fn too_many_broken_images_are_an_error_and_not_a_lower_score() {
    for layout in LAYOUTS {
        let options = ValidationImagesOptions { max_reject_rate: 0.01, ..options(layout, 8) };
        let mut images = ValidationImages::with_storage(source(layout).await, &options).expect("the source opens");
        let error = all(&mut images).expect_err("10 of 47 are broken");
        assert!(matches!(error, PipelineError::RejectRate { .. }), "{error:?}");
    }
}
