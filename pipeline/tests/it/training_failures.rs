//! What ends training on images, and what it says then; and what must not go on at an old position.

use crate::{
    run_support::{memory_source, png, sample},
    sample_set::{SampleImage, SampleSet},
    training_support::{IMAGES, LAYOUTS, next, open, options, source, take},
};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use pipeline::{
    DataPosition, Limits, PipelineError, RandomCrop, Storage, TrainingCrop, TrainingImages, TrainingImagesOptions,
    testing::{Fault, FaultRule, FaultStore, Operation, wait_until},
};
use schemas::{Crop, SourceLayout};
use std::sync::Arc;

/// Batches until the error that ends them.
fn run_to_error(storage: &Storage, options: &TrainingImagesOptions) -> (usize, PipelineError) {
    let mut images = open(storage, options, DataPosition::default());
    for batches in 0.. {
        if let Err(error) = next(&mut images) {
            let after = next(&mut images).expect_err("nothing comes after an error").to_string();
            assert!(after.contains("after the error"), "{after}");
            return (batches, error);
        }
    }
    unreachable!("a test that ends")
}

fn in_memory(store: Arc<dyn ObjectStore>) -> Storage {
    Storage::from_store(store, Path::from("in"), "memory:///in")
}

#[tokio::test]
async fn more_broken_images_than_allowed_end_the_epoch_at_the_latest() {
    for layout in LAYOUTS {
        let options = TrainingImagesOptions { max_reject_rate: 0.2, ..options(layout) };
        let (batches, error) = run_to_error(&source(layout).await, &options);
        assert!(batches <= 9, "{layout}: {batches} batches");
        let PipelineError::RejectRate { rejected: 10, listed: 47, .. } = error else { panic!("{layout}: {error:?}") };
        assert!(error.to_string().contains("above the limit of 20 %: "), "{error}");
        assert!(error.to_string().contains("unsupported"), "{error}");
        // Where they are allowed, the epochs after the first begin to count anew.
        let options = TrainingImagesOptions { max_reject_rate: 0.22, ..options };
        take(&mut open(&source(layout).await, &options, DataPosition::default()), 30);
    }
}

#[tokio::test]
async fn no_position_behind_a_failed_epoch_is_ever_handed_out() {
    let layout = SourceLayout::Webdataset;
    let options = TrainingImagesOptions { max_reject_rate: 0.2, batch_size: 1, ..options(layout) };
    let source = source(layout).await;
    let mut images = open(&source, &options, DataPosition::default());
    let mut last = DataPosition::default();
    while let Ok(batch) = next(&mut images) {
        last = batch.next;
    }
    assert_eq!(last.epoch, 0);
    let mut again = open(&source, &options, last);
    assert!(matches!(next(&mut again), Err(PipelineError::RejectRate { rejected: 10, .. })));
}

#[tokio::test]
async fn a_source_of_broken_images_alone_is_an_error_whatever_is_allowed() {
    let broken = |index: usize| SampleImage {
        stem: format!("n{index:08}_0"),
        class_name: "n00000000".to_owned(),
        bytes: "<html>".into(),
    };
    let images: Vec<_> = (0..5).map(broken).collect();
    for layout in LAYOUTS {
        let options = TrainingImagesOptions { max_reject_rate: 1.0, ..options(layout) };
        let (batches, error) = run_to_error(&memory_source(&images, layout).await, &options);
        assert_eq!(batches, 0);
        assert!(error.to_string().contains("not one of its 5 images could be read: unsupported 5"), "{error}");
    }
}

#[tokio::test]
async fn an_empty_source_is_an_error() {
    for layout in LAYOUTS {
        let empty = in_memory(Arc::new(InMemory::new()));
        TrainingImages::with_storage(empty, &options(layout), DataPosition::default()).expect_err("nothing is there");
    }
    // A tar tells only when it is read.
    let store = InMemory::new();
    store.put(&Path::from("in/a.tar"), vec![0; 1024].into()).await.expect("memory");
    let (batches, error) = run_to_error(&in_memory(Arc::new(store)), &options(SourceLayout::Webdataset));
    assert_eq!(batches, 0);
    assert!(error.to_string().contains("1 inputs, but not one image in them"), "{error}");
}

#[tokio::test]
async fn an_error_of_the_store_comes_after_the_batches_before_it() {
    for layout in LAYOUTS {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let set = SampleSet::new(sample(IMAGES));
        match layout {
            SourceLayout::Folder => set.write_folder(store.as_ref(), "in").await,
            SourceLayout::Webdataset => set.write_webdataset(store.as_ref(), "in", IMAGES / 3).await,
            SourceLayout::Parquet => set.write_parquet(store.as_ref(), "in", IMAGES / 3, 4).await,
        }
        .expect("memory");
        let expected = take(&mut open(&in_memory(Arc::clone(&store)), &options(layout), DataPosition::default()), 20);
        // The object of one image that comes late in the first epoch.
        let victim = &expected[7].image_ids[0];
        let place = set.images().iter().position(|image| image.stem == *victim).expect("one of the set");
        let object = match layout {
            SourceLayout::Folder => victim.clone(),
            SourceLayout::Webdataset => format!("shard-{:04}", place / (IMAGES / 3)),
            SourceLayout::Parquet => format!("part-{:05}", place / (IMAGES / 3)),
        };
        let faults = FaultStore::new(store);
        let storage = in_memory(Arc::clone(&faults) as _);
        faults.inject(FaultRule::new(Operation::Get, Fault::Denied).on(&object).skip(footer_reads(layout)).forever());
        let mut images = open(&storage, &options(layout), DataPosition::default());
        let mut batches = 0;
        let error = loop {
            match next(&mut images) {
                Ok(batch) => assert!(batch == expected[batches], "{layout}, batch {batches}"),
                Err(error) => break error,
            }
            batches += 1;
        };
        assert!(batches <= 7, "{layout}: {batches}");
        assert!(matches!(error, PipelineError::Storage { .. }), "{layout}: {error:?}");
        assert!(error.to_string().contains(&object), "{layout}: {error}");
    }
}

/// Reads of an object that its listing makes.
fn footer_reads(layout: SourceLayout) -> usize {
    usize::from(layout == SourceLayout::Parquet)
}

#[tokio::test]
async fn an_image_that_changed_since_the_listing_ends_training() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let set = SampleSet::new(sample(IMAGES));
    set.write_folder(store.as_ref(), "in").await.expect("memory");
    let options = TrainingImagesOptions {
        prefetch_batches: 1,
        limits: Limits { fetch_requests: 1, decode_ahead_images: 1, ..Limits::default() },
        ..options(SourceLayout::Folder)
    };
    let mut images = open(&in_memory(Arc::clone(&store)), &options, DataPosition::default());
    for image in set.images() {
        let path = Path::from(format!("in/{}/{}.JPEG", image.class_name, image.stem));
        store.put(&path, png(30, 30, 3).into()).await.expect("memory");
    }
    let error = loop {
        if let Err(error) = next(&mut images) {
            break error;
        }
    };
    assert!(matches!(error, PipelineError::SourceChanged { .. }), "{error:?}");
}

#[tokio::test]
async fn dropping_the_images_ends_all_work_even_while_a_store_is_silent() {
    for layout in LAYOUTS {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let set = SampleSet::new(sample(IMAGES));
        match layout {
            SourceLayout::Folder => set.write_folder(store.as_ref(), "in").await,
            SourceLayout::Webdataset => set.write_webdataset(store.as_ref(), "in", IMAGES / 3).await,
            SourceLayout::Parquet => set.write_parquet(store.as_ref(), "in", IMAGES / 3, 4).await,
        }
        .expect("memory");
        // Silent from the first image on, and after the first object of the three or four (of the forty-seven) was read.
        for answered in [0, 1] {
            let faults = FaultStore::new(Arc::clone(&store));
            let listing = footer_reads(layout) * IMAGES.div_ceil(IMAGES / 3);
            faults.inject(FaultRule::new(Operation::Get, Fault::Stall).skip(listing + answered).forever());
            let images = open(&in_memory(Arc::clone(&faults) as _), &options(layout), DataPosition::default());
            wait_until("the reader to ask for what never comes", || faults.faults_met() > 0);
            drop(images);
            // Every task and thread that could still read holds the store.
            wait_until("all that reads to let go of the store", || Arc::strong_count(&faults) == 1);
        }
    }
}

#[tokio::test]
async fn another_list_of_inputs_has_another_digest() {
    let digest = |storage: &Storage, options: &TrainingImagesOptions| {
        open(storage, options, DataPosition::default()).source_digest().to_owned()
    };
    for layout in LAYOUTS {
        let options = options(layout);
        let whole = source(layout).await;
        let first = digest(&whole, &options);
        assert_eq!(first.len(), 64);
        assert_eq!(first, digest(&whole, &options), "{layout}");
        let other = TrainingImagesOptions { seed: 1, batch_size: 9, ..options.clone() };
        assert_eq!(first, digest(&whole, &other), "{layout}: it is the source's alone");
        let fewer = memory_source(&sample(IMAGES - 1), layout).await;
        assert_ne!(first, digest(&fewer, &options), "{layout}");
        let mut images = sample(IMAGES);
        images[0].bytes = png(31, 17, 1).into();
        assert_ne!(first, digest(&memory_source(&images, layout).await, &options), "{layout}");
        let limits = Limits { max_image_pixels: 100, ..options.limits.clone() };
        assert_ne!(first, digest(&whole, &TrainingImagesOptions { limits, ..options }), "{layout}");
    }
}

#[tokio::test]
async fn a_position_of_another_source_is_refused() {
    for layout in LAYOUTS {
        let source = source(layout).await;
        let position = DataPosition { input: 47, ..DataPosition::default() };
        let error = TrainingImages::with_storage(source.clone(), &options(layout), position).expect_err("47 of 47");
        assert!(error.to_string().contains("another source"), "{error}");
    }
    for position in [
        DataPosition { input: 1, row: 16, window_start: 32, ..DataPosition::default() },
        DataPosition { input: 2, row: 8, window_start: 40, taken: 7, ..DataPosition::default() },
    ] {
        let layout = SourceLayout::Webdataset;
        let mut images = open(&source(layout).await, &options(layout), position);
        let error = next(&mut images).expect_err("16 images a shard");
        assert!(error.to_string().contains("another source"), "{error}");
    }
}

#[tokio::test]
async fn options_that_contradict_themselves_are_refused() {
    let good = options(SourceLayout::Folder);
    let source = source(SourceLayout::Folder).await;
    let cases = [
        (TrainingImagesOptions { batch_size: 0, ..good.clone() }, "batch size of 0"),
        (TrainingImagesOptions { shuffle_images: 0, ..good.clone() }, "shuffle of 0"),
        (TrainingImagesOptions { max_reject_rate: f64::NAN, ..good.clone() }, "reject rate"),
        (
            TrainingImagesOptions { crop: TrainingCrop::Center(Crop::AdmCenterFlip { size: 8 }), ..good.clone() },
            "gives 2 views",
        ),
        (TrainingImagesOptions { crop: TrainingCrop::Random(RandomCrop::published(0)), ..good }, "found 0"),
    ];
    for (options, words) in cases {
        let opened = TrainingImages::with_storage(source.clone(), &options, DataPosition::default());
        let error = opened.expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
}
