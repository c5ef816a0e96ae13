//! Reading: three layouts alike, order and limits kept, and every way in which a source can be broken.

use crate::{
    sample_set::{SampleSet, tar_of},
    source_support::{limits, plan, read_all, read_unit, reader, settings, storage},
};
use arrow_array::{ArrayRef, BinaryArray, Int32Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields};
use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use parquet::arrow::ArrowWriter;
use pipeline::{
    Limits, PipelineError, SourceImage, SourceOptions, list_storage, plan_units,
    testing::{Fault, FaultRule, FaultStore, Operation, arrives},
};
use schemas::{ImageIdRule, RejectReason};
use std::{sync::Arc, time::Duration};

/// The set in all three layouts, a folder each.
async fn three_layouts(set: &SampleSet) -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    set.write_folder(store.as_ref(), "folder").await.expect("written");
    set.write_webdataset(store.as_ref(), "webdataset", 9).await.expect("written");
    set.write_parquet(store.as_ref(), "parquet", 9, 4).await.expect("written");
    store
}

async fn put(store: &Arc<dyn ObjectStore>, path: &str, bytes: impl Into<Bytes>) {
    store.put(&Path::parse(path).expect("a path"), bytes.into().into()).await.expect("written");
}

/// One shard of these members below `set`.
async fn shard_of(members: &[(&str, &str)]) -> Arc<dyn ObjectStore> {
    let members: Vec<_> =
        members.iter().map(|(name, text)| ((*name).to_owned(), Bytes::copy_from_slice(text.as_bytes()))).collect();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    put(&store, "set/a.tar", tar_of(&members).await.expect("a tar")).await;
    store
}

/// Plans and reads everything below `set`.
async fn read_set(store: &Arc<dyn ObjectStore>) -> Result<Vec<SourceImage>, PipelineError> {
    let storage = storage(store, "set");
    let plan = plan(&storage, 4).await;
    read_all(&reader(&plan, &storage, &limits()), &plan).await
}

#[tokio::test]
async fn three_layouts_give_the_same_images_in_the_same_order() {
    // Larger than a piece of 64 KiB now and then, so that members and pages lie across their borders.
    let set = SampleSet::numbered(31, 4, 9_000);
    let store = three_layouts(&set).await;
    for folder in ["folder", "webdataset", "parquet"] {
        let storage = storage(&store, folder);
        let plan = plan(&storage, 5).await;
        let images = read_all(&reader(&plan, &storage, &limits()), &plan).await.expect(folder);
        assert_eq!(images.len(), 31, "{folder}");
        for (image, expected) in images.iter().zip(set.images()) {
            assert_eq!(image.image_id, expected.stem, "{folder}");
            assert_eq!(image.label, Some(set.label(expected)), "{folder}");
            assert_eq!(image.class_name.as_ref(), Some(&expected.class_name), "{folder}");
            assert_eq!(image.bytes.as_ref(), Ok(&expected.bytes), "{folder}");
            assert_eq!(image.size, 9_000, "{folder}");
        }
        let source = &images[30].source;
        let expected = match folder {
            "folder" => "memory:///folder/n00000003/n00000003_7.JPEG".to_owned(),
            "webdataset" => format!("memory:///webdataset/shard-0003.tar#{}.jpg", set.images()[30].stem),
            _ => "memory:///parquet/part-00003.parquet#row=3".to_owned(),
        };
        assert_eq!(*source, expected);
    }
}

#[tokio::test]
async fn a_row_range_reads_its_rows_across_row_groups_and_pages() {
    let set = SampleSet::numbered(29, 3, 700);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    set.write_parquet(store.as_ref(), "set", 29, 10).await.expect("written");
    let storage = storage(&store, "set");
    for unit_size in [1, 3, 7, 10, 28] {
        let plan = plan(&storage, unit_size).await;
        let reader = reader(&plan, &storage, &limits());
        let mut next = 0;
        for unit in 0..plan.units() {
            for image in read_unit(&reader, unit).await.expect("rows") {
                assert_eq!(image.source, format!("memory:///set/part-00000.parquet#row={next}"));
                assert_eq!(image.bytes.as_ref(), Ok(&set.images()[next].bytes));
                next += 1;
            }
        }
        assert_eq!(next, 29, "units of {unit_size}");
    }
}

#[tokio::test]
async fn a_large_file_is_never_read_whole_for_a_few_rows() {
    let set = SampleSet::numbered(200, 3, 50_000);
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    set.write_parquet(inner.as_ref(), "set", 200, 200).await.expect("written");
    let faults = FaultStore::new(inner);
    let store: Arc<dyn ObjectStore> = Arc::clone(&faults) as _;
    let storage = storage(&store, "set");
    let plan = plan(&storage, 2).await;
    let before = faults.requests(Operation::Get);
    assert_eq!(read_unit(&reader(&plan, &storage, &limits()), 1).await.expect("rows").len(), 2);
    // 10 MB in one row group would be about 155 pieces.
    let pieces = faults.requests(Operation::Get) - before;
    assert!((1..15).contains(&pieces), "{pieces} requests");
}

#[tokio::test]
async fn each_piece_of_a_tar_is_asked_for_once() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    SampleSet::numbered(50, 3, 20_000).write_webdataset(inner.as_ref(), "set", 50).await.expect("written");
    let size = inner.head(&Path::from("set/shard-0000.tar")).await.expect("there").size;
    let faults = FaultStore::new(inner);
    let store: Arc<dyn ObjectStore> = Arc::clone(&faults) as _;
    assert_eq!(read_set(&store).await.expect("samples").len(), 50);
    assert_eq!(faults.requests(Operation::Get) as u64, size.div_ceil(64 << 10));
}

#[tokio::test]
async fn many_units_at_once_with_hardly_any_budget_do_not_deadlock() {
    let set = SampleSet::numbered(60, 3, 20_000);
    let store = three_layouts(&set).await;
    let narrow = Limits { fetch_requests: 2, fetch_buffer_bytes: 10_000, ..limits() };
    for folder in ["folder", "webdataset", "parquet"] {
        let storage = storage(&store, folder);
        let plan = plan(&storage, 6).await;
        let reader = reader(&plan, &storage, &narrow);
        let units = (0..plan.units()).map(|unit| {
            let reader = reader.clone();
            async move {
                let mut images = reader.read_unit(unit);
                let mut count = 0;
                while let Some(image) = images.next().await {
                    // Held while something slower happens, as decoding does.
                    let image = image.expect("an image");
                    tokio::task::yield_now().await;
                    drop(image);
                    count += 1;
                }
                count
            }
        });
        let counts = arrives("the end of all units", join_all(units)).await;
        assert_eq!(counts.iter().sum::<usize>(), 60, "{folder}");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_ahead_of_a_consumer_stay_within_the_budget() {
    let set = SampleSet::numbered(40, 1, 10_240);
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    set.write_folder(inner.as_ref(), "set").await.expect("written");
    let faults = FaultStore::new(inner);
    let store: Arc<dyn ObjectStore> = Arc::clone(&faults) as _;
    let storage = storage(&store, "set");
    let plan = plan(&storage, 40).await;
    // Three images of 10 KiB fit.
    let narrow = Limits { fetch_requests: 30, fetch_buffer_bytes: 30 << 10, ..limits() };
    let mut images = reader(&plan, &storage, &narrow).read_unit(0);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(arrives("an image within the budget", images.next()).await.expect("more").expect("an image"));
    }
    // The clock is paused, and nothing here has a thread of its own: it moves only once no task can.
    assert!(
        tokio::time::timeout(Duration::from_millis(50), images.next()).await.is_err(),
        "a fourth would exceed the budget"
    );
    assert_eq!(faults.requests(Operation::Get), 3);
    held.clear();
    let rest = images.map(|image| drop(image.expect("an image"))).count();
    assert_eq!(arrives("the other images", rest).await, 37);
}

#[tokio::test]
async fn an_image_above_the_limit_is_a_reject_and_never_held() {
    let set = SampleSet::numbered(3, 1, 5_000);
    let store = three_layouts(&set).await;
    for folder in ["folder", "webdataset", "parquet"] {
        let storage = storage(&store, folder);
        let listing = crate::source_support::list(&storage).await;
        let mut small = settings(2, ImageIdRule::Stem);
        if let schemas::Origin::Images(images) = &mut small.origin {
            images.max_image_bytes = 4_999;
        }
        let plan = Arc::new(plan_units(small, listing).expect("a plan"));
        let images = read_all(&reader(&plan, &storage, &limits()), &plan).await.expect(folder);
        assert_eq!(images.len(), 3);
        for image in images {
            let (reason, told) = image.bytes.expect_err("too large");
            assert_eq!((reason, image.size), (RejectReason::TooLarge, 5_000), "{folder}");
            assert!(told.contains("5000") && told.contains("4999"), "{told}");
        }
    }
}

#[tokio::test]
async fn empty_images_are_handed_on_for_the_decoder_to_refuse() {
    let store = three_layouts(&SampleSet::numbered(2, 1, 0)).await;
    for folder in ["folder", "webdataset", "parquet"] {
        let storage = storage(&store, folder);
        let plan = plan(&storage, 2).await;
        let images = read_all(&reader(&plan, &storage, &limits()), &plan).await.expect(folder);
        assert!(images.iter().all(|image| image.size == 0 && image.bytes == Ok(Bytes::new())), "{folder}");
    }
}

#[tokio::test]
async fn an_object_that_changed_or_went_since_the_plan_is_an_error_that_says_so() {
    for folder in ["folder", "webdataset", "parquet"] {
        // Other sizes, the same size with other bytes, and nothing at all.
        for (other, hint) in [
            (SampleSet::numbered(9, 1, 3_001), "planned"),
            (SampleSet::numbered(9, 1, 3_000), "version"),
            (SampleSet::new(vec![]), "gone"),
        ] {
            let store = three_layouts(&SampleSet::numbered(9, 1, 3_000)).await;
            let storage = storage(&store, folder);
            let plan = plan(&storage, 9).await;
            let listed = storage.list("").await.expect("listed");
            for object in &listed {
                store
                    .delete(&Path::parse(format!("{folder}/{}", object.path)).expect("a path"))
                    .await
                    .expect("deleted");
            }
            match folder {
                "folder" => other.write_folder(store.as_ref(), folder).await,
                "webdataset" => other.write_webdataset(store.as_ref(), folder, 9).await,
                _ => other.write_parquet(store.as_ref(), folder, 9, 4).await,
            }
            .expect("written");
            let error = read_all(&reader(&plan, &storage, &limits()), &plan).await.expect_err("changed");
            assert!(matches!(error, PipelineError::SourceChanged { .. }), "{folder}: {error}");
            assert!(
                error.to_string().contains(hint) && error.to_string().contains(folder),
                "{folder}, {hint}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn a_passing_fault_of_the_store_loses_nothing_and_a_lasting_one_ends_the_unit() {
    for folder in ["folder", "webdataset", "parquet"] {
        let set = SampleSet::numbered(12, 2, 30_000);
        let faults = FaultStore::new(three_layouts(&set).await);
        let store: Arc<dyn ObjectStore> = Arc::clone(&faults) as _;
        let storage = storage(&store, folder);
        let plan = plan(&storage, 12).await;
        for fault in [Fault::TruncatedBody(100), Fault::BrokenBody(100)] {
            faults.inject(FaultRule::new(Operation::Get, fault).skip(1).times(2));
            let images = read_all(&reader(&plan, &storage, &limits()), &plan).await.expect(folder);
            assert!(
                images.iter().zip(set.images()).all(|(image, expected)| image.bytes.as_ref() == Ok(&expected.bytes)),
                "{folder}"
            );
        }
        faults.inject(FaultRule::new(Operation::Get, Fault::Unavailable).skip(1).forever());
        let error = read_unit(&reader(&plan, &storage, &limits()), 0).await.expect_err("unavailable");
        assert!(
            matches!(error, PipelineError::Storage { action: "read", .. }) && error.is_temporary(),
            "{folder}: {error}"
        );
    }
}

#[tokio::test]
async fn dropping_a_stream_stops_its_fetching() {
    let set = SampleSet::numbered(40, 1, 1_000);
    let store = three_layouts(&set).await;
    for folder in ["folder", "webdataset", "parquet"] {
        let storage = storage(&store, folder);
        let plan = plan(&storage, 40).await;
        let narrow = Limits { fetch_buffer_bytes: 2 << 10, ..limits() };
        let reader = reader(&plan, &storage, &narrow);
        let mut images = reader.read_unit(0);
        let first = arrives("the first image", images.next()).await.expect("more").expect("an image");
        drop(images);
        drop(first);
        // What the dropped stream held is there again.
        assert!(!read_unit(&reader, 0).await.expect(folder).is_empty(), "{folder}");
    }
}

#[tokio::test]
async fn samples_come_with_label_json_or_neither() {
    let store = shard_of(&[
        ("a.jpg", "A"),
        ("a.cls", "7\n"),
        (
            "dir/b.json",
            r#"{"filename": "train/n01440764/n01440764_10026.JPEG", "label": 3, "class_name": "tench", "width": 1}"#,
        ),
        ("dir/b.PNG", "B"),
        ("c.webp", "C"),
        ("d.cls", "2"),
        ("d.txt", "no image"),
        ("e.txt", "no sample"),
        ("._f.jpg", "hidden"),
        ("g.cls", "-1"),
        ("g.jpeg", "G"),
    ])
    .await;
    let images = read_set(&store).await.expect("samples");
    let rows: Vec<_> =
        images.iter().map(|image| (image.image_id.as_str(), image.label, image.class_name.as_deref())).collect();
    assert_eq!(
        rows,
        [
            ("a", Some(7), None),
            ("n01440764_10026", Some(3), Some("tench")),
            ("c", None, None),
            ("d", Some(2), None),
            ("g", None, None)
        ]
    );
    assert_eq!(images[1].source, "memory:///set/a.tar#dir/b.PNG");
    assert!(matches!(&images[3].bytes, Err((RejectReason::Unreadable, told)) if told.contains("no image")));
    assert!(images.iter().enumerate().all(|(row, image)| row == 3 || image.bytes.is_ok()));
}

#[tokio::test]
async fn keys_by_path_keep_shard_and_folder_apart() {
    let store = shard_of(&[("x/1.jpg", "A"), ("y/1.jpg", "B")]).await;
    let storage = storage(&store, "set");
    let listing = crate::source_support::list(&storage).await;
    let plan = Arc::new(plan_units(settings(4, ImageIdRule::Path), listing).expect("a plan"));
    let images = read_all(&reader(&plan, &storage, &limits()), &plan).await.expect("samples");
    assert_eq!(images.iter().map(|image| image.image_id.as_str()).collect::<Vec<_>>(), ["a/x/1", "a/y/1"]);
}

#[tokio::test]
async fn samples_that_are_not_clear_are_refused_by_name() {
    for (members, hint) in [
        (vec![("a.jpg", "A"), ("b.jpg", "B"), ("a.cls", "1")], "a.cls: it lies apart"),
        (vec![("a.jpg", "A"), ("a.png", "B")], "a.png: a second image beside a.jpg"),
        (vec![("a.jpg", "A"), ("b.jpg", "B"), ("a.jpg", "C")], "a.jpg: it lies apart"),
    ] {
        let error = read_set(&shard_of(&members).await).await.expect_err(hint).to_string();
        assert!(error.contains(hint) && error.contains("memory:///set/a.tar"), "{error}");
    }
}

#[tokio::test]
async fn a_tar_that_was_cut_anywhere_is_never_read_as_whole() {
    let set = SampleSet::numbered(4, 1, 1_500);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    set.write_webdataset(store.as_ref(), "set", 4).await.expect("written");
    let path = Path::from("set/shard-0000.tar");
    let whole = store.get(&path).await.expect("there").bytes().await.expect("read");
    assert_eq!(read_set(&store).await.expect("whole").len(), 4);
    let content = whole.len() - 1024;
    for length in (0..content).step_by(256).chain([content]) {
        put(&store, path.as_ref(), whole.slice(..length)).await;
        let Err(error) = read_set(&store).await else {
            panic!("{length} of {} bytes were taken for whole", whole.len())
        };
        let error = error.to_string();
        assert!(error.contains("shard-0000.tar") && error.contains("byte"), "{length}: {error}");
    }
    let mut broken = whole.to_vec();
    // The third block is the header of the first image.
    broken[2 * 512 + 20] ^= 1;
    put(&store, path.as_ref(), broken).await;
    let error = read_set(&store).await.expect_err("a broken header").to_string();
    assert!(error.contains("shard-0000.tar") && error.contains("checksum"), "{error}");
    put(&store, path.as_ref(), [whole.clone(), Bytes::from(vec![0; 9 << 10])].concat()).await;
    assert_eq!(read_set(&store).await.expect("padded as tar does").len(), 4);
}

#[tokio::test]
async fn a_second_archive_behind_the_first_is_not_passed_over() {
    let large: Vec<_> = (0..3).map(|at| (format!("{at}.jpg"), Bytes::from(vec![1; 600 << 10]))).collect();
    let one = tar_of(&large).await.expect("a tar");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    put(&store, "set/a.tar", [one.clone(), one].concat()).await;
    let error = read_set(&store).await.expect_err("two archives").to_string();
    assert!(error.contains("one archive a shard"), "{error}");
}

#[tokio::test]
async fn long_names_are_whole() {
    let name = format!("{}/{}.jpg", "folder".repeat(20), "name".repeat(30));
    let images = read_set(&shard_of(&[(&name, "A"), ("b.jpg", "B")]).await).await.expect("samples");
    assert_eq!(images[0].image_id, "name".repeat(30));
    assert_eq!(images[0].source, format!("memory:///set/a.tar#{name}"));
}

#[tokio::test]
async fn rows_without_bytes_or_path_and_other_types_of_columns_are_read() {
    let parts =
        Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BinaryArray::from_opt_vec(vec![Some(b"A"), None, Some(b"C")])),
        Arc::new(StringArray::from(vec![Some("x/n_1.JPEG"), Some("n_2.JPEG"), None])),
    ];
    let image = StructArray::try_new(parts, columns, None).expect("a column");
    let labels: ArrayRef = Arc::new(Int32Array::from(vec![Some(5), Some(-1), None]));
    let batch =
        RecordBatch::try_from_iter([("label", labels), ("image", Arc::new(image) as ArrayRef)]).expect("a table");
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows");
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    put(&store, "set/train-0.parquet", writer.into_inner().expect("a file")).await;
    let images = read_set(&store).await.expect("rows");
    let rows: Vec<_> = images.iter().map(|image| (image.image_id.as_str(), image.label)).collect();
    assert_eq!(rows, [("n_1", Some(5)), ("n_2", None), ("train-0-row-2", None)]);
    assert!(matches!(images[1].bytes, Err((RejectReason::Unreadable, _))));
    assert_eq!(images[2].bytes, Ok(Bytes::from("C")));
}

#[tokio::test]
async fn a_sampled_shard_is_read_as_far_as_planned() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let set = SampleSet::numbered(25, 3, 400);
    set.write_webdataset(store.as_ref(), "set", 10).await.expect("written");
    let storage = storage(&store, "set");
    let options = SourceOptions { max_images: Some(12), ..SourceOptions::new("") };
    let listing = list_storage(&storage, "", &options, &limits()).await.expect("listed");
    let plan = Arc::new(plan_units(settings(4, ImageIdRule::Stem), listing).expect("a plan"));
    let images = read_all(&reader(&plan, &storage, &limits()), &plan).await.expect("samples");
    assert!(images.iter().map(|image| &image.image_id).eq(set.images()[..12].iter().map(|image| &image.stem)));
}
