//! Sources as people have them: every image is a row, with its bytes or with a reason, and what is no row is counted.

use crate::{
    sample_set::tar_of,
    source_support::{limits, read_all, settings, storage},
};
use arrow_array::{
    ArrayRef, BinaryArray, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    StringViewArray, StructArray, types::Int32Type,
};
use arrow_schema::{DataType, Field, Fields};
use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use parquet::{arrow::ArrowWriter, file::metadata::KeyValue};
use pipeline::{
    PipelineError, SourceImage, SourceListing, SourceOptions, SourceReader, list_source, list_storage, plan_units,
};
use schemas::{
    ColumnNames, ImageExtensions, ImageIdRule, ImageOrigin, LabelSource, LeftOutReason, Origin, PlanSettings,
    RejectReason, SourceAccount, SourceLayout, SourceReading,
};
use std::sync::Arc;
use tokio_tar::{EntryType, Header};

async fn store_of(objects: Vec<(&str, Vec<u8>)>) -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for (path, bytes) in objects {
        store.put(&Path::parse(path).expect("a path"), bytes.into()).await.expect("written");
    }
    store
}

async fn list(store: &Arc<dyn ObjectStore>, options: &SourceOptions) -> Result<SourceListing, PipelineError> {
    list_storage(&storage(store, "set"), "", options, &limits()).await
}

/// Lists, plans and reads everything below `set`; gives the images, and what listing and reading left out.
async fn read(
    store: &Arc<dyn ObjectStore>,
    options: &SourceOptions,
) -> Result<(Vec<SourceImage>, SourceAccount), PipelineError> {
    let listing = list(store, options).await?;
    let mut left_out = listing.left_out.clone();
    let PlanSettings { origin, .. } = settings(4, options.image_id);
    let Origin::Images(images) = origin else { unreachable!("these are settings of images") };
    let origin = Origin::Images(ImageOrigin { reading: options.reading.clone(), ..images });
    let plan = plan_units(PlanSettings { origin, ..settings(4, options.image_id) }, listing)?;
    let plan = Arc::new(plan);
    let reader = SourceReader::with_storage(Arc::clone(&plan), storage(store, "set"), &limits())?;
    let images = read_all(&reader, &plan).await?;
    for unit in 0..plan.units() {
        let mut stream = reader.read_unit(unit);
        while futures::TryStreamExt::try_next(&mut stream).await?.is_some() {}
        left_out.add(&stream.left_out());
    }
    Ok((images, left_out))
}

fn usual() -> SourceOptions {
    SourceOptions::new("")
}

fn with(reading: SourceReading) -> SourceOptions {
    SourceOptions { reading, ..usual() }
}

/// Id, label and class of every image.
fn rows(images: &[SourceImage]) -> Vec<(&str, Option<i32>, Option<&str>)> {
    images.iter().map(|image| (image.image_id.as_str(), image.label, image.class_name.as_deref())).collect()
}

fn ids(images: &[SourceImage]) -> Vec<&str> {
    images.iter().map(|image| image.image_id.as_str()).collect()
}

fn reason_of(image: &SourceImage) -> &str {
    match &image.bytes {
        Err((RejectReason::Unreadable, told)) => told,
        other => panic!("{}: {other:?}", image.source),
    }
}

// --- tar shards ----------------------------------------------------------------------------------------------------------------------

/// A shard of plain files.
async fn shard(members: &[(&str, &str)]) -> Arc<dyn ObjectStore> {
    let members: Vec<_> =
        members.iter().map(|(name, text)| ((*name).to_owned(), Bytes::copy_from_slice(text.as_bytes()))).collect();
    store_of(vec![("set/a.tar", tar_of(&members).await.expect("a tar"))]).await
}

/// A header of any kind, whose name is these bytes.
fn header(kind: u8, name: &[u8], size: usize) -> Header {
    // Headers of PAX are not GNU's.
    let mut header = if kind == b'x' { Header::new_ustar() } else { Header::new_gnu() };
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_entry_type(EntryType::new(kind));
    header
}

/// A tar of headers and contents as they are.
fn raw_tar(members: &[(Header, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, content) in members {
        let mut header = header.clone();
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[tokio::test]
async fn every_member_that_ends_in_an_images_extension_is_an_image() {
    let store = shard(&[
        ("1.5x.jpg", "A"),
        ("22.05.json", r#"{"label": 3}"#),
        ("22.05.png", "B"),
        ("22.06.png", "C"),
        ("b.cls", "4"),
        ("b.left.jpg", "D"),
        ("b.right.jpg", "E"),
        ("c.jpg", "F"),
        ("c.json", r#"{"label": 5}"#),
        ("c.meta.json", r#"{"label": 9}"#),
        ("c.mask.png", "G"),
        ("d.JFIF", "H"),
        ("e.heic", "I"),
    ])
    .await;
    let (images, left_out) = read(&store, &usual()).await.expect("read");
    assert_eq!(
        rows(&images),
        [
            ("1.5x", None, None),
            ("22.05", Some(3), None),
            ("22.06", None, None),
            ("b.left", Some(4), None),
            ("b.right", Some(4), None),
            ("c", Some(5), None),
            ("c.mask", Some(5), None),
            ("d", None, None),
            ("e", None, None),
        ]
    );
    assert_eq!(left_out.of(LeftOutReason::OtherMember), 1, "c.meta.json is no image's: {left_out:?}");
    let jpg = SourceReading { image_extensions: "jpg".parse().expect("a list"), ..SourceReading::default() };
    let (images, _) = read(&store, &with(jpg)).await.expect("read");
    assert_eq!(ids(&images), ["1.5x", "b.left", "b.right", "c"]);
}

#[tokio::test]
async fn what_is_no_file_is_a_row_with_a_reason_or_counted() {
    let link = |kind: u8, name: &[u8], to: &str| {
        let mut header = header(kind, name, 0);
        header.set_link_name(to).expect("a short name");
        header
    };
    let pax = |name: &str, key: &str, value: &str| {
        let line = format!(" {key}={value}\n");
        let length =
            (line.len() + 1..).find(|length| length.to_string().len() + line.len() == *length).expect("one fits");
        (header(b'x', name.as_bytes(), length), format!("{length}{line}"))
    };
    let (sparse_header, sparse_line) = pax("PaxHeaders/s.png", "GNU.sparse.map", "0,1");
    let bytes = raw_tar(&[
        (header(b'g', b"global", 0), b""),
        (header(b'5', b"folder/", 0), b""),
        (header(b'0', b"a.jpg", 1), b"A"),
        (link(b'1', b"b.jpg", "a.jpg"), b""),
        (link(b'2', b"c.jpg", "a.jpg"), b""),
        (link(b'2', b"latest", "a.jpg"), b""),
        (header(b'3', b"d.jpg", 0), b""),
        (header(b'4', b"e.jpg", 0), b""),
        (header(b'6', b"f.jpg", 0), b""),
        (header(b'7', b"g.jpg", 1), b"G"),
        (header(b'M', b"h.jpg", 1), b"H"),
        (header(b'Z', b"i.jpg", 1), b"I"),
        (sparse_header, sparse_line.as_bytes()),
        (header(b'0', b"s.png", 1), b"S"),
        (header(b'0', b"._a.jpg", 1), b"x"),
        (header(b'0', b"__MACOSX/a.jpg", 1), b"x"),
        (header(b'0', b"z.jpg", 1), b"Z"),
    ]);
    let (images, left_out) = read(&store_of(vec![("set/a.tar", bytes)]).await, &usual()).await.expect("read");
    assert_eq!(ids(&images), ["a", "b", "c", "d", "e", "f", "g", "h", "i", "s", "z"]);
    for (image, told) in images.iter().zip([
        "",
        "hard link",
        "symbolic link",
        "device",
        "device",
        "device",
        "",
        "volume",
        "kind",
        "sparse",
        "",
    ]) {
        match told {
            "" => assert!(image.bytes.is_ok(), "{}", image.source),
            told => assert!(reason_of(image).contains(told), "{}: {:?}", image.source, image.bytes),
        }
    }
    use LeftOutReason::{Folder, Hidden, Leftover, NotAFile};
    assert_eq!([Folder, Hidden, Leftover, NotAFile].map(|reason| left_out.of(reason)), [1, 1, 1, 1], "{left_out:?}");
}

#[tokio::test]
async fn names_of_other_bytes_stay_apart_and_are_shown_escaped() {
    let bytes = raw_tar(&[
        (header(b'0', b"caf\xE9.jpg", 1), b"A"),
        (header(b'0', b"caf\xE8.jpg", 1), b"B"),
        (header(b'0', b"\xD6\xD0.jpg", 1), b"C"),
        (header(b'0', b"tab\there.jpg", 1), b"D"),
    ]);
    let (images, _) = read(&store_of(vec![("set/a.tar", bytes)]).await, &usual()).await.expect("read");
    assert_eq!(ids(&images), ["caf\\xE9", "caf\\xE8", "\\xD6\\xD0", "tab\there"]);
    assert!(images.iter().all(|image| image.bytes.is_ok()));
}

#[tokio::test]
async fn whatever_follows_the_end_of_a_tar_is_no_secret() {
    let one = tar_of(&[("a.jpg".to_owned(), Bytes::from_static(b"A"))]).await.expect("a tar");
    let two = tar_of(&[("b.jpg".to_owned(), Bytes::from_static(b"B"))]).await.expect("a tar");
    for behind in [two.clone(), [vec![0; 512], two].concat(), b"x".to_vec(), [vec![0; 3 << 20], vec![1]].concat()] {
        let store = store_of(vec![("set/a.tar", [one.clone(), behind].concat())]).await;
        let error = read(&store, &usual()).await.expect_err("there is more").to_string();
        assert!(error.contains("set/a.tar") && error.contains("one archive a shard"), "{error}");
    }
    let store = store_of(vec![("set/a.tar", [one, vec![0; 3 << 20]].concat())]).await;
    assert_eq!(read(&store, &usual()).await.expect("zeros are nothing").0.len(), 1);
}

#[tokio::test]
async fn a_side_file_costs_a_label_and_never_the_run() {
    let large = format!(r#"{{"label": 1, "text": "{}"}}"#, "x".repeat(1 << 20));
    let store = shard(&[
        ("a.jpg", "A"),
        ("a.json", r#"["a caption"]"#),
        ("b.jpg", "B"),
        ("b.json", r#"{"label": 2, "score": NaN}"#),
        ("c.jpg", "C"),
        ("c.json", ""),
        ("d.jpg", "D"),
        ("d.json", "\u{feff}{\"label\": \"7\", \"filename\": 5}"),
        ("e.jpg", "E"),
        ("e.json", &large),
        ("f.cls", "tench"),
        ("f.jpg", "F"),
        ("g.jpg", "G"),
        ("g.json", r#"{"label": [1, 2], "class_name": "two"}"#),
        ("h.cls", "1099511627776"),
        ("h.jpg", "H"),
        ("i.jpg", "I"),
        ("i.json", "null"),
        ("j.cls", "5.0"),
        ("j.jpg", "J"),
    ])
    .await;
    let (images, left_out) = read(&store, &usual()).await.expect("read");
    assert_eq!(
        rows(&images),
        [
            ("a", None, None),
            ("b", None, None),
            ("c", None, None),
            ("d", Some(7), None),
            ("e", None, None),
            ("f", None, Some("tench")),
            ("g", None, Some("two")),
            ("h", None, None),
            ("i", None, None),
            ("j", Some(5), None),
        ]
    );
    assert!(reason_of(&images[7]).contains("1099511627776"), "a label that does not fit is no null");
    // a, b, c, e, i, and the name in d.
    assert_eq!((left_out.of(LeftOutReason::SideFile), left_out.of(LeftOutReason::Label)), (6, 1), "{left_out:?}");
}

#[tokio::test]
async fn labels_are_taken_from_where_it_is_said() {
    let store = shard(&[("a.cls", "1"), ("a.jpg", "A"), ("a.json", r#"{"label": 2}"#), ("b.cls", "3")]).await;
    for (labels, expected, rows_there) in [
        (LabelSource::Auto, Some(1), 2),
        (LabelSource::Cls, Some(1), 2),
        (LabelSource::Json, Some(2), 1),
        (LabelSource::None, None, 1),
    ] {
        let (images, _) =
            read(&store, &with(SourceReading { labels, ..SourceReading::default() })).await.expect("read");
        assert_eq!((images[0].label, images.len()), (expected, rows_there), "{labels:?}");
    }
    let classes = Some(["cat", "tench"].map(str::to_owned).to_vec());
    let store =
        shard(&[("a.cls", "tench"), ("a.jpg", "A"), ("b.cls", "cow"), ("b.jpg", "B"), ("c.cls", "0"), ("c.jpg", "C")])
            .await;
    let (images, _) = read(&store, &SourceOptions { classes, ..usual() }).await.expect("read");
    assert_eq!(rows(&images), [("a", Some(1), Some("tench")), ("b", None, None), ("c", Some(0), Some("cat"))]);
    assert!(reason_of(&images[1]).contains("\"cow\""));
}

#[tokio::test]
async fn a_label_behind_its_images_is_counted() {
    let store = shard(&[("a.1.jpg", "A"), ("a.2.jpg", "B"), ("a.cls", "1")]).await;
    let (images, left_out) = read(&store, &usual()).await.expect("read");
    assert_eq!(rows(&images), [("a.1", None, None), ("a.2", Some(1), None)]);
    assert_eq!(left_out.of(LeftOutReason::Label), 1, "{left_out:?}");
}

#[tokio::test]
async fn a_key_by_position_tells_any_two_images_apart() {
    let members = [("a.jpg", "A"), ("a.png", "B"), ("b.jpg", "C"), ("a.jpg", "D")]
        .map(|(name, text)| (name.to_owned(), Bytes::from(text)));
    let tar = tar_of(&members).await.expect("a tar");
    let store = store_of(vec![("set/x/s.tar", tar.clone()), ("set/y/s.tar", tar)]).await;
    for image_id in [ImageIdRule::Stem, ImageIdRule::Path] {
        let error = read(&store, &SourceOptions { image_id, ..usual() }).await.expect_err("two of one key").to_string();
        assert!(error.contains("`image_id` position"), "{error}");
    }
    let (images, _) = read(&store, &SourceOptions { image_id: ImageIdRule::Position, ..usual() }).await.expect("read");
    let expected: Vec<_> =
        ["x", "y"].iter().flat_map(|folder| (0..4).map(move |row| format!("{folder}/s/{row:08}"))).collect();
    assert_eq!(ids(&images), expected);
}

// --- Parquet -------------------------------------------------------------------------------------------------------------------------

fn image_column(paths: &[Option<&str>]) -> ArrayRef {
    let parts =
        Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)]);
    let bytes: Vec<_> = paths.iter().map(|_| Some(b"A".as_slice())).collect();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(BinaryArray::from_opt_vec(bytes)), Arc::new(StringArray::from(paths.to_vec()))];
    Arc::new(StructArray::try_new(parts, columns, None).expect("a column"))
}

fn parquet_file(columns: Vec<(&str, ArrayRef)>, class_names: Option<&str>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).expect("a table");
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    if let Some(names) = class_names {
        let text = format!(r#"{{"info": {{"features": {{"label": {{"names": {names}, "_type": "ClassLabel"}}}}}}}}"#);
        writer.append_key_value_metadata(KeyValue::new("huggingface".to_owned(), text));
    }
    writer.write(&batch).expect("rows");
    writer.into_inner().expect("a file")
}

#[tokio::test]
async fn labels_of_any_type_are_read_and_none_is_lost() {
    let three = || image_column(&[Some("a.png"), Some("b.png"), Some("c.png")]);
    let label = |labels: ArrayRef| parquet_file(vec![("image", three()), ("label", labels)], None);
    let dictionary: DictionaryArray<Int32Type> = ["cat", "dog", "cat"].into_iter().collect();
    for (labels, expected) in [
        (
            Arc::new(Int64Array::from(vec![Some(1), None, Some(-1)])) as ArrayRef,
            [(Some(1), None), (None, None), (None, None)],
        ),
        (Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0])), [(Some(1), None), (Some(2), None), (Some(3), None)]),
        (Arc::new(StringArray::from(vec!["1", "2", "cat"])), [(Some(1), None), (Some(2), None), (None, Some("cat"))]),
        (Arc::new(StringViewArray::from(vec!["4", "5", "6"])), [(Some(4), None), (Some(5), None), (Some(6), None)]),
        (Arc::new(dictionary), [(None, Some("cat")), (None, Some("dog")), (None, Some("cat"))]),
    ] {
        let kind = labels.data_type().to_string();
        let (images, _) = read(&store_of(vec![("set/a.parquet", label(labels))]).await, &usual()).await.expect(&kind);
        let found: Vec<_> = images.iter().map(|image| (image.label, image.class_name.as_deref())).collect();
        assert_eq!(found, expected, "{kind}");
    }
    let store = store_of(vec![("set/a.parquet", label(Arc::new(Int64Array::from(vec![0, 1 << 40, 2]))))]).await;
    let (images, _) = read(&store, &usual()).await.expect("read");
    assert!(reason_of(&images[1]).contains("1099511627776"), "no label is a null that the file does not have");
    let fractions = label(Arc::new(Float64Array::from(vec![0.5, 1.0, f64::NAN])));
    let (images, left_out) = read(&store_of(vec![("set/a.parquet", fractions)]).await, &usual()).await.expect("read");
    assert_eq!((images[0].label, images[1].label, left_out.of(LeftOutReason::Label)), (None, Some(1), 2));
}

#[tokio::test]
async fn columns_may_have_other_names() {
    let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(vec![b"A", b"B"]));
    let labels: ArrayRef = Arc::new(Int32Array::from(vec![3, 4]));
    let keys: ArrayRef = Arc::new(StringArray::from(vec![Some("first"), None]));
    let file = parquet_file(vec![("jpg", bytes), ("labels", labels), ("key", keys)], None);
    let store = store_of(vec![("set/a.parquet", file)]).await;
    let (images, _) = read(&store, &usual()).await.expect("the only column that can hold images");
    assert_eq!(rows(&images), [("a-row-0", None, None), ("a-row-1", None, None)]);
    let columns =
        ColumnNames { image: Some("jpg".to_owned()), label: Some("labels".to_owned()), id: Some("key".to_owned()) };
    let (images, _) =
        read(&store, &with(SourceReading { columns, ..SourceReading::default() })).await.expect("as named");
    assert_eq!(rows(&images), [("first", Some(3), None), ("a-row-1", Some(4), None)]);
    assert!(reason_of(&images[1]).contains("key"), "a row without its key");
    assert_eq!(images[0].bytes, Ok(Bytes::from("A")));
}

#[tokio::test]
async fn files_that_count_classes_in_another_way_are_read_by_name_or_refused() {
    let file = |labels: Vec<i64>, names: &str| {
        let paths: Vec<_> = labels.iter().map(|_| None).collect();
        parquet_file(vec![("image", image_column(&paths)), ("label", Arc::new(Int64Array::from(labels)))], Some(names))
    };
    let store = store_of(vec![
        ("set/a.parquet", file(vec![0, 1], r#"["cat", "dog"]"#)),
        ("set/b.parquet", file(vec![0, 1], r#"["dog", "cat"]"#)),
    ])
    .await;
    let error = read(&store, &usual()).await.expect_err("they do not agree").to_string();
    for told in ["a.parquet", "b.parquet", "\"cat\"", "\"dog\"", "`classes`"] {
        assert!(error.contains(told), "{told}: {error}");
    }
    let classes = Some(["bird", "cat", "dog"].map(str::to_owned).to_vec());
    let (images, _) = read(&store, &SourceOptions { classes, ..usual() }).await.expect("by name");
    let found: Vec<_> = images.iter().map(|image| (image.label, image.class_name.as_deref())).collect();
    assert_eq!(found, [(Some(1), Some("cat")), (Some(2), Some("dog")), (Some(2), Some("dog")), (Some(1), Some("cat"))]);
    let store = store_of(vec![
        ("set/a.parquet", file(vec![0], r#"["cat"]"#)),
        ("set/b.parquet", file(vec![1], r#"["cat", "dog"]"#)),
    ])
    .await;
    let (images, _) = read(&store, &usual()).await.expect("one list begins the other");
    assert_eq!(images[1].class_name.as_deref(), Some("dog"));
}

#[tokio::test]
async fn leftovers_are_no_rows_and_tables_with_a_log_are_refused() {
    let file = || parquet_file(vec![("image", image_column(&[Some("a.png")]))], None);
    let other = || parquet_file(vec![("x", Arc::new(Int32Array::from(vec![1])) as ArrayRef)], None);
    let store = store_of(vec![
        ("set/part-0.parquet", file()),
        ("set/_temporary/0/part-0.parquet", file()),
        ("set/_metadata.parquet", other()),
        ("set/.part-0.parquet.crc", vec![1]),
        ("set/.hidden/part-1.parquet", file()),
        ("set/_SUCCESS", Vec::new()),
    ])
    .await;
    let (images, left_out) = read(&store, &usual()).await.expect("one file holds rows");
    assert_eq!(images.len(), 1);
    use LeftOutReason::{Hidden, Leftover, OtherFile};
    assert_eq!([Leftover, Hidden, OtherFile].map(|reason| left_out.of(reason)), [2, 2, 1], "{left_out:?}");
    for (sign, kind) in [
        ("set/_delta_log/00000000000000000000.json", "a Delta table"),
        ("set/_delta_log/00000000000000000010.checkpoint.parquet", "a Delta table"),
        ("set/metadata/00000-1.metadata.json", "an Iceberg table"),
        ("set/.hoodie/hoodie.properties", "a Hudi table"),
    ] {
        let store = store_of(vec![("set/part-0.parquet", file()), (sign, vec![1])]).await;
        let error = read(&store, &usual()).await.expect_err(kind).to_string();
        assert!(error.contains(kind), "{error}");
    }
}

// --- folders -------------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_class_list_fixes_the_numbers() {
    let store = store_of(vec![("set/10/a.png", vec![1]), ("set/2/b.png", vec![1]), ("set/c.png", vec![1])]).await;
    let labels = |listing: &SourceListing| listing.inputs.iter().map(|input| input.label).collect::<Vec<_>>();
    let listing = list(&store, &usual()).await.expect("listed");
    assert_eq!(labels(&listing), [Some(0), Some(1), None], "text order");
    let classes: Vec<_> = (0..=10).map(|class| class.to_string()).collect();
    let given = SourceOptions { classes: Some(classes.clone()), ..usual() };
    let listing = list(&store, &given).await.expect("listed");
    assert_eq!((labels(&listing), listing.class_names), (vec![Some(10), Some(2), None], classes));
    let given = SourceOptions { classes: Some(vec!["2".to_owned()]), ..usual() };
    let error = list(&store, &given).await.expect_err("a folder is not in the list").to_string();
    assert!(error.contains("10"), "{error}");
    let none = with(SourceReading { labels: LabelSource::None, ..SourceReading::default() });
    let listing = list(&store, &none).await.expect("listed");
    assert_eq!((labels(&listing), listing.class_names.len()), (vec![None, None, None], 0));
}

#[tokio::test]
async fn what_a_folder_holds_beside_images_is_counted() {
    let store = store_of(vec![
        ("set/cats/a.JFIF", vec![1]),
        ("set/cats/b.avif", vec![1]),
        ("set/cats/c", vec![1]),
        ("set/cats/d.txt", vec![1]),
        ("set/cats/@eaDir/a.jpg", vec![1]),
        ("set/cats/.thumb.jpg", vec![1]),
        ("set/more.tar", vec![1]),
    ])
    .await;
    let folder = SourceOptions { layout: Some(SourceLayout::Folder), ..usual() };
    let listing = list(&store, &folder).await.expect("listed");
    assert_eq!((listing.inputs.len(), listing.class_names), (2, vec!["cats".to_owned()]));
    use LeftOutReason::{Hidden, Leftover, OtherFile, OtherLayout};
    let counted = [OtherFile, Leftover, Hidden, OtherLayout].map(|reason| listing.left_out.of(reason));
    assert_eq!(counted, [2, 1, 1, 1], "{:?}", listing.left_out);
    let any = SourceReading { image_extensions: ImageExtensions::Any, ..SourceReading::default() };
    let listing = list(&store, &SourceOptions { reading: any, ..folder.clone() }).await.expect("listed");
    assert_eq!(listing.inputs.len(), 4, "all but what is hidden or left behind");
    let store = store_of(vec![("set/a", vec![1]), ("set/b", vec![1])]).await;
    assert_eq!(list(&store, &folder).await.expect("told by their bytes").inputs.len(), 2);
    let error = list(&store, &usual()).await.expect_err("nothing says that these are images").to_string();
    assert!(error.contains("`layout` folder"), "{error}");
}

#[tokio::test]
async fn what_restok_wrote_is_never_its_own_source() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().display().to_string();
    let write = |path: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, b"x").expect("written");
    };
    write("cats/a.png");
    let options = SourceOptions { output: Some(format!("{root}/out/")), ..SourceOptions::new(&root) };
    let before = list_source(&options, &limits()).await.expect("listed");
    for path in ["_plan/owner.json", "tokens/split=train/part-0.parquet", "pictures/png/000000.png", "_SUCCESS"] {
        write(&format!("out/{path}"));
        write(&format!("older/{path}"));
    }
    let after = list_source(&options, &limits()).await.expect("listed again");
    assert_eq!((&before.inputs, &before.class_names), (&after.inputs, &after.class_names));
    assert_eq!(after.left_out.of(LeftOutReason::OwnOutput), 8, "{:?}", after.left_out);
    let into_itself = SourceOptions { output: Some(root.clone()), ..SourceOptions::new(format!("{root}/")) };
    for path in ["_plan/owner.json", "tokens/split=train/part-0.parquet", "images/split=train/part-0.parquet"] {
        write(path);
    }
    let itself = list_source(&into_itself, &limits()).await.expect("listed");
    assert_eq!(before.inputs, itself.inputs);
}

#[tokio::test]
async fn a_plain_path_that_exists_is_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["br[1] 50%", "what?", "a*b", "{x}"] {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).expect("made");
        std::fs::write(path.join("a.png"), b"x").expect("written");
        let listing = list_source(&SourceOptions::new(path.display().to_string()), &limits()).await.expect(name);
        assert_eq!(listing.inputs.len(), 1, "{name}");
        // The plan's own address is a URL, and opens as the same folder.
        let plan = Arc::new(plan_units(settings(4, ImageIdRule::Stem), listing).expect("a plan"));
        let reader = SourceReader::open(Arc::clone(&plan), &limits()).expect(name);
        assert_eq!(read_all(&reader, &plan).await.expect(name)[0].bytes, Ok(Bytes::from("x")), "{name}");
    }
    let file = folder.path().join("set.zip");
    std::fs::write(&file, b"PK").expect("written");
    let error = list_source(&SourceOptions::new(file.display().to_string()), &limits())
        .await
        .expect_err("no folder")
        .to_string();
    assert!(error.contains("set.zip") && error.contains("one file of 2 bytes") && error.contains(".tar"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn odd_names_and_links_are_read_or_counted_and_end_nothing() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &[u8]| std::fs::write(folder.path().join(OsStr::from_bytes(name)), b"x").expect("written");
    for name in [b"plain.png".as_slice(), b"a\ttab.png", b"new\nline.png", b"caf\xE9.png", b"\xFFnotes.txt"] {
        file(name);
    }
    std::os::unix::fs::symlink("nothing", folder.path().join("dangling.png")).expect("linked");
    std::os::unix::fs::symlink(".", folder.path().join("loop")).expect("linked");
    let listing =
        list_source(&SourceOptions::new(folder.path().display().to_string()), &limits()).await.expect("listed");
    assert_eq!(listing.inputs.len(), 3, "{:?}", listing.inputs);
    assert_eq!(listing.left_out.of(LeftOutReason::Unreachable), 4, "{:?}", listing.left_out);
}
