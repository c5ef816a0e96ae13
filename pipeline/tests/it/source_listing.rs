//! Listing: patterns that must be whole, layouts, labels, keys, and what is passed over.

use crate::{
    sample_set::SampleSet,
    source_support::{limits, list, storage},
};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use pipeline::{
    SourceListing, SourceOptions, list_source, list_storage,
    testing::{FaultStore, Operation},
};
use schemas::{ImageIdRule, SourceLayout};
use std::sync::Arc;

async fn store_of(paths: &[&str]) -> Arc<dyn ObjectStore> {
    let store = InMemory::new();
    for path in paths {
        store.put(&Path::parse(path).expect("a path"), "bytes".into()).await.expect("written");
    }
    Arc::new(store)
}

async fn problem(store: &Arc<dyn ObjectStore>, pattern: &str, options: &SourceOptions) -> String {
    list_storage(&storage(store, "set"), pattern, options, &limits()).await.expect_err(pattern).to_string()
}

fn names(listing: &SourceListing) -> Vec<String> {
    listing.inputs.iter().map(|input| input.uri.trim_start_matches("memory:///set/").to_owned()).collect()
}

#[tokio::test]
async fn a_folder_gives_labels_by_sorted_class_and_passes_over_other_files() {
    let store = store_of(&[
        "set/dog/2.JPEG",
        "set/dog/1.png",
        "set/cat/3.jpg",
        "set/cat/deep/er/4.webp",
        "set/5.gif",
        "set/LICENSE",
        "set/cat/notes.txt",
        "set/.cache/6.png",
        "set/dog/_DSC7.JPG",
        "set/_SUCCESS",
        "set/cat/._8.png",
    ])
    .await;
    let listing = list(&storage(&store, "set")).await;
    assert_eq!(listing.layout, SourceLayout::Folder);
    assert_eq!(listing.class_names, ["cat", "dog"]);
    assert_eq!(
        names(&listing),
        ["5.gif", "cat/3.jpg", "cat/deep/er/4.webp", "dog/1.png", "dog/2.JPEG", "dog/_DSC7.JPG"]
    );
    assert_eq!(
        listing.inputs.iter().map(|input| input.label).collect::<Vec<_>>(),
        [None, Some(0), Some(0), Some(1), Some(1), Some(1)]
    );
    assert_eq!((listing.images, listing.source.as_str()), (Some(6), "memory:///set/"));

    let few = SourceOptions { max_images: Some(4), ..SourceOptions::new("") };
    let few = list_storage(&storage(&store, "set"), "", &few, &limits()).await.expect("listed");
    assert_eq!(names(&few), names(&listing)[..4]);
    assert_eq!((few.class_names, few.images), (listing.class_names, Some(4)));
}

#[tokio::test]
async fn a_range_that_is_not_whole_names_what_is_missing() {
    let store = store_of(&["set/s-0000.tar", "set/s-0001.tar", "set/s-0003.tar"]).await;
    let told = problem(&store, "s-{0000..0020}.tar", &SourceOptions::new("")).await;
    assert!(told.contains("18 of the names"), "{told}");
    assert!(told.contains("s-0002.tar, s-0004.tar") && told.contains("and 8 more"), "{told}");
    assert!(!told.contains("s-0003.tar,"), "{told}");

    let some = list_storage(&storage(&store, "set"), "s-{0000..0001}.tar", &SourceOptions::new(""), &limits()).await;
    assert_eq!(names(&some.expect("both are there")), ["s-0000.tar", "s-0001.tar"]);
}

#[tokio::test]
async fn a_wildcard_that_matches_nothing_is_an_error_even_beside_one_that_does() {
    let store = store_of(&["set/train/1.tar", "set/train/deep/2.tar"]).await;
    let told = problem(&store, "{train,val}/*.tar", &SourceOptions::new("")).await;
    assert!(
        told.contains("1 of the names in the pattern match nothing: val/*.tar") && !told.contains("train/*.tar,"),
        "{told}"
    );
    let told = problem(&store, "", &SourceOptions { max_images: Some(0), ..SourceOptions::new("") }).await;
    assert!(told.contains("limit of 0"), "{told}");
    let listed = |pattern: &'static str| {
        let store = Arc::clone(&store);
        async move {
            let listing = list_storage(&storage(&store, "set"), pattern, &SourceOptions::new(""), &limits())
                .await
                .expect(pattern);
            listing.inputs.len()
        }
    };
    assert_eq!((listed("train/*.tar").await, listed("**/*.tar").await, listed("*/?.tar").await), (1, 2, 1));
    let told = problem(&store, "train.tar", &SourceOptions::new("")).await;
    assert!(told.contains("end the address with a slash"), "{told}");
    let nothing = problem(&store_of(&[]).await, "", &SourceOptions::new("")).await;
    assert!(nothing.contains("nothing is there"), "{nothing}");
}

#[tokio::test]
async fn a_range_asks_for_its_names_and_a_wildcard_lists_once() {
    let inner = store_of(&["set/0.tar", "set/1.tar"]).await;
    let faults = FaultStore::new(inner);
    let store: Arc<dyn ObjectStore> = Arc::clone(&faults) as _;
    for pattern in ["{0..1}.tar", "*.tar"] {
        list_storage(&storage(&store, "set"), pattern, &SourceOptions::new(""), &limits()).await.expect(pattern);
    }
    assert_eq!(
        (faults.requests(Operation::Head), faults.requests(Operation::List), faults.requests(Operation::Get)),
        (2, 1, 0)
    );
}

#[tokio::test]
async fn mixed_layouts_and_shared_keys_say_which_option_decides() {
    let store = store_of(&["set/a.tar", "set/b/1.png", "set/c/1.png"]).await;
    let told = problem(&store, "", &SourceOptions::new("")).await;
    assert!(told.contains("`layout`"), "{told}");
    let folder = SourceOptions { layout: Some(SourceLayout::Folder), ..SourceOptions::new("") };
    let told = problem(&store, "", &folder).await;
    assert!(told.contains("b/1.png and c/1.png") && told.contains("`image_id` path"), "{told}");
    let paths = SourceOptions { image_id: ImageIdRule::Path, ..folder };
    let listing = list_storage(&storage(&store, "set"), "", &paths, &limits()).await.expect("paths differ");
    assert_eq!(listing.inputs.len(), 2);
}

#[tokio::test]
async fn parquet_is_counted_by_its_footers_and_checked_by_its_columns() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let set = SampleSet::numbered(25, 3, 400);
    set.write_parquet(store.as_ref(), "set", 10, 4).await.expect("written");
    let listing = list(&storage(&store, "set")).await;
    assert_eq!(listing.layout, SourceLayout::Parquet);
    assert_eq!(listing.inputs.iter().map(|input| input.rows).collect::<Vec<_>>(), [Some(10), Some(10), Some(5)]);
    assert_eq!((listing.class_names, listing.images), (set.class_names(), Some(25)));

    let few = SourceOptions { max_images: Some(12), ..SourceOptions::new("") };
    let few = list_storage(&storage(&store, "set"), "", &few, &limits()).await.expect("listed");
    assert_eq!(few.inputs.iter().map(|input| input.rows).collect::<Vec<_>>(), [Some(10), Some(2)]);

    let tokens = schemas::TokenRows {
        image_ids: vec!["a".to_owned()],
        views: vec![0],
        labels: vec![None],
        tokens: schemas::TokenBatch::try_new(vec![1, 2], 2).expect("two tokens"),
    };
    let batch = tokens.to_record_batch().expect("a table");
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("a row");
    let table = writer.into_inner().expect("a file");
    store.put(&Path::from("set/part-00001.parquet"), table.into()).await.expect("written");
    let told = problem(&store, "", &SourceOptions::new("")).await;
    assert!(told.contains("part-00001.parquet") && told.contains("column \"image\": found no such column"), "{told}");
    assert!(
        told.contains("struct<bytes: binary, path: string>") && told.contains("image_id, view, label, tokens"),
        "{told}"
    );

    store.put(&Path::from("set/part-00001.parquet"), "not a table at all".into()).await.expect("written");
    let told = problem(&store, "", &SourceOptions::new("")).await;
    assert!(told.contains("part-00001.parquet"), "{told}");
}

#[tokio::test]
async fn a_trial_of_a_few_images_reads_only_the_first_shards() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    SampleSet::numbered(25, 3, 400).write_webdataset(store.as_ref(), "set", 10).await.expect("written");
    let options = SourceOptions { max_images: Some(12), ..SourceOptions::new("") };
    let listing = list_storage(&storage(&store, "set"), "", &options, &limits()).await.expect("listed");
    assert_eq!(listing.inputs.iter().map(|input| input.rows).collect::<Vec<_>>(), [None, Some(2)]);
    assert_eq!(listing.images, Some(12));
    let all = list(&storage(&store, "set")).await;
    assert_eq!((all.images, all.inputs.len()), (None, 3));
}

#[tokio::test]
async fn local_folders_files_and_patterns_open_by_their_paths() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in ["a/1.png", "a/2.png", "b/3.png"] {
        let path = folder.path().join("set").join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, "pixels").expect("written");
    }
    let base = folder.path().join("set").display().to_string();
    for (address, count) in [
        (base.clone(), 3),
        (format!("{base}/"), 3),
        (format!("file://{base}"), 3),
        (format!("{base}/a/*.png"), 2),
        (format!("{base}/b/3.png"), 1),
    ] {
        let listing = list_source(&SourceOptions::new(&address), &limits()).await.expect(&address);
        assert_eq!(listing.inputs.len(), count, "{address}");
        assert!(
            listing.inputs.iter().all(|input| input.uri.starts_with("file:///") && input.etag.is_some()),
            "{address}"
        );
        // What the plan keeps opens as the same source.
        let again = list_source(&SourceOptions::new(&listing.source), &limits()).await.expect(&listing.source);
        assert_eq!(again, listing);
    }
    let error = list_source(&SourceOptions::new(format!("{base}/nothing")), &limits()).await.expect_err("not there");
    assert!(error.to_string().contains("nothing is there"), "{error}");
}
