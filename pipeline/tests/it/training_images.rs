//! Batches to train on follow from inputs, options and seed; whoever goes on at a position gets what would have come.

use crate::{
    run_support::{memory_source, sample},
    sample_set::SampleSet,
    training_support::{BROKEN, IMAGES, LAYOUTS, ids, next, open, options, source, take},
};
use object_store::{ObjectStore, memory::InMemory, path::Path};
use pipeline::{
    DataPosition, DecodeLimits, Limits, SourceOptions, Storage, TrainingCrop, TrainingImages, TrainingImagesOptions,
    crop_views, decode_image,
    testing::{Fault, FaultRule, FaultStore, Operation, returns},
};
use schemas::{Crop, RejectReason, SourceLayout};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// Batches of more than two epochs of the sample.
const BATCHES: usize = 22;

const LIMITS: DecodeLimits = DecodeLimits { max_bytes: 1 << 20, max_pixels: 1 << 20 };

#[tokio::test]
async fn neither_threads_nor_queues_move_or_change_an_image() {
    for layout in LAYOUTS {
        let source = source(layout).await;
        let expected = take(&mut open(&source, &options(layout), DataPosition::default()), BATCHES);
        for (threads, ahead, requests, prefetch_batches) in [(1, 1, 1, 1), (4, 16, 8, 30)] {
            let limits = Limits {
                decode_threads: threads,
                decode_ahead_images: ahead,
                fetch_requests: requests,
                ..Limits::default()
            };
            let options = TrainingImagesOptions { prefetch_batches, limits, ..options(layout) };
            let found = take(&mut open(&source, &options, DataPosition::default()), BATCHES);
            assert!(found == expected, "{layout} with {threads} threads");
        }
        let reseeded = TrainingImagesOptions { seed: 12, ..options(layout) };
        assert_ne!(ids(&take(&mut open(&source, &reseeded, DataPosition::default()), 4)), ids(&expected[..4]));
    }
}

#[tokio::test]
async fn going_on_at_any_position_gives_what_would_have_come() {
    for layout in LAYOUTS {
        let source = source(layout).await;
        // Windows by number; windows that bytes make smaller; one window for everything.
        for (shuffle_images, shuffle_bytes) in [(7, 1 << 20), (7, 3 << 10), (1000, 1 << 20)] {
            let options = TrainingImagesOptions { shuffle_images, shuffle_bytes, ..options(layout) };
            let expected = take(&mut open(&source, &options, DataPosition::default()), BATCHES);
            for start in [0, 1, 2, 3, 7, 8, 9, 12, 16, 18] {
                let json = serde_json::to_string(&expected[start].next).expect("plain data");
                let position = serde_json::from_str(&json).expect("plain data");
                let found = take(&mut open(&source, &options, position), BATCHES - 1 - start);
                assert!(found == expected[start + 1..], "{layout}, {shuffle_images} images, from {position:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_readable_image_comes_once_an_epoch_and_never_in_the_same_order_or_crop() {
    let good = IMAGES - BROKEN;
    for layout in LAYOUTS {
        let source = source(layout).await;
        let mut images = open(&source, &options(layout), DataPosition::default());
        let batches = take(&mut images, 3 * good / 4);
        let order = ids(&batches);
        let epochs: Vec<_> = order.chunks_exact(good).collect();
        assert_eq!(epochs.len(), 2, "of batches of 4, and {good} images, one spans two epochs");
        let unique = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(unique(epochs[0]).len(), good, "{layout}");
        assert_eq!(unique(epochs[0]), unique(epochs[1]), "{layout}");
        assert_ne!(epochs[0], epochs[1], "{layout}");

        let mut views: HashMap<&str, HashSet<&[u8]>> = HashMap::new();
        for batch in &batches {
            assert_eq!((batch.pixels.rows(), batch.pixels.filled()), (4, 4));
            for (row, id) in batch.image_ids.iter().enumerate() {
                views.entry(id).or_default().insert(batch.pixels.image(row));
            }
        }
        let recropped = order[..good].iter().filter(|id| views[**id].len() > 1).count();
        assert!(recropped > good / 2, "{layout}: {recropped} of {good} images have a new crop in the second epoch");
        assert_eq!(images.images_an_epoch(), Some(IMAGES as u64), "{layout}, known after an epoch at the latest");
        // An epoch's number is that of a batch's first image.
        let starts: Vec<_> = order.chunks(4).enumerate().map(|(batch, _)| (batch * 4 / good) as u64).collect();
        assert_eq!(batches.iter().map(|batch| batch.epoch).collect::<Vec<_>>(), starts, "{layout}");
    }
}

#[tokio::test]
async fn broken_images_are_counted_by_reason_the_same_in_every_epoch() {
    let expected = BTreeMap::from([(RejectReason::Truncated, 3), (RejectReason::Unsupported, 7)]);
    for layout in LAYOUTS {
        let source = source(layout).await;
        // A batch is an epoch, so that what is counted can only lag behind by what lies between two readable images.
        let options = TrainingImagesOptions { batch_size: IMAGES - BROKEN, ..options(layout) };
        let mut images = open(&source, &options, DataPosition::default());
        for _ in 0..4 {
            let batch = next(&mut images).expect("a batch");
            let counted: u64 = images.rejected().values().sum();
            assert_eq!(counted, batch.next.epoch * BROKEN as u64 + batch.next.rejected, "{layout}");
        }
        for (reason, count) in &expected {
            let counted = images.rejected()[reason];
            assert!((3 * count..=4 * count).contains(&counted), "{layout}: {counted} of {reason}");
        }
    }
}

#[tokio::test]
async fn a_window_of_one_image_leaves_shards_as_they_are_and_only_changes_their_order() {
    let shard_of = |id: &str| id[..9].to_owned();
    let source = memory_source(&sample(IMAGES), SourceLayout::Webdataset).await;
    let options =
        TrainingImagesOptions { shuffle_images: 1, batch_size: IMAGES - BROKEN, ..options(SourceLayout::Webdataset) };
    let batches = take(&mut open(&source, &options, DataPosition::default()), 6);
    let mut orders = BTreeSet::new();
    for batch in &batches {
        let mut shards: Vec<_> = batch.image_ids.iter().map(|id| shard_of(id)).collect();
        shards.dedup();
        assert_eq!(shards.len(), 3, "each shard in one piece: {:?}", batch.image_ids);
        for ids in batch.image_ids.chunk_by(|one, other| shard_of(one) == shard_of(other)) {
            assert!(ids.is_sorted(), "{ids:?}");
        }
        orders.insert(shards);
    }
    assert!(orders.len() > 1, "{orders:?}");
}

#[tokio::test]
async fn a_centre_crop_is_the_one_that_is_tokenized() {
    let layout = SourceLayout::Parquet;
    let crop = Crop::AdmCenter { size: 8 };
    let options = TrainingImagesOptions { crop: TrainingCrop::Center(crop), ..options(layout) };
    let files: HashMap<_, _> = sample(IMAGES).into_iter().map(|image| (image.stem, image.bytes)).collect();
    for batch in take(&mut open(&source(layout).await, &options, DataPosition::default()), 4) {
        for (row, id) in batch.image_ids.iter().enumerate() {
            let mut view = Vec::new();
            crop_views(&decode_image(&files[id], &LIMITS).expect("a readable image"), crop, &mut view);
            assert_eq!(batch.pixels.image(row), view, "{id}");
        }
    }
}

#[tokio::test]
async fn going_on_reads_no_object_that_was_used_up_before_the_window() {
    let set = SampleSet::new(sample(100));
    for (layout, images_an_object) in [(SourceLayout::Folder, 1), (SourceLayout::Webdataset, 25)] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        match layout {
            SourceLayout::Folder => set.write_folder(store.as_ref(), "in").await.expect("memory"),
            _ => set.write_webdataset(store.as_ref(), "in", images_an_object).await.expect("memory"),
        }
        let storage = |store| Storage::from_store(store, Path::from("in"), "memory:///in");
        let expected = take(&mut open(&storage(Arc::clone(&store)), &options(layout), DataPosition::default()), 16);
        let (before, after) = expected.split_at(12);
        let position = before[11].next;
        assert_eq!((position.epoch, position.input > 0), (0, true), "{position:?}");

        // An object whose images were all taken, none of them in the open window, must not be asked for before the next epoch.
        let used: HashSet<_> = ids(before).into_iter().collect();
        let open_window: HashSet<_> = ids(before).into_iter().rev().take(position.taken as usize).collect();
        let faults = FaultStore::new(store);
        let mut spent = 0;
        for (number, object) in set.images().chunks(images_an_object).enumerate() {
            let readable: Vec<_> = object
                .iter()
                .filter(|image| decode_image(&image.bytes, &LIMITS).is_ok())
                .map(|image| image.stem.as_str())
                .collect();
            if !readable.is_empty() && readable.iter().all(|stem| used.contains(stem) && !open_window.contains(stem)) {
                let name = match layout {
                    SourceLayout::Folder => format!("{}.JPEG", object[0].stem),
                    _ => format!("shard-{number:04}.tar"),
                };
                faults.inject(FaultRule::new(Operation::Get, Fault::Denied).on(&name).forever());
                spent += 1;
            }
        }
        assert!(spent > 0, "{layout}: nothing is used up at {position:?}");
        let found = take(&mut open(&storage(faults), &options(layout), position), after.len());
        assert!(found == after, "{layout}");
    }
}

#[test]
fn the_built_in_sample_is_the_same_set_in_all_three_layouts() {
    let mut sets = Vec::new();
    for folder in ["folder", "webdataset", "parquet"] {
        let url = format!("{}/../samples/{folder}/", env!("CARGO_MANIFEST_DIR"));
        let options = TrainingImagesOptions {
            source: SourceOptions::new(url),
            max_reject_rate: 0.1,
            ..options(SourceLayout::Folder)
        };
        let open = |from| returns("the list of the sample", || TrainingImages::open(&options, from)).expect("it opens");
        let mut images = open(DataPosition::default());
        let batches = take(&mut images, 9);
        assert!(!images.waited().is_zero(), "the first batch is never there at once");
        sets.push(ids(&batches).into_iter().map(str::to_owned).collect::<BTreeSet<_>>());
        let again = open(batches[3].next);
        assert_eq!(again.source_digest(), images.source_digest());
    }
    assert_eq!(sets[0].len(), 36);
    assert!(sets.iter().all(|set| *set == sets[0]));
}
