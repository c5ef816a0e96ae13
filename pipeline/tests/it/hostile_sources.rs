//! Whatever a shard, a Parquet file, an archive or a plan holds, reading it ends: with rows, or with an error that names it.
//!
//! A few hundred damaged files each in `make test`. `make fuzz SECONDS=3600` goes on for an hour; proptest keeps what failed beside this
//! file, where every later run begins with it.

use crate::{
    sample_set::{SampleSet, tar_of},
    source_support::{limits, read_all, reader, settings, storage},
};
use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use pipeline::{
    ImageSet, ImageSetOptions, PipelineError, SourceImage, SourceOptions, list_storage, plan_units,
    testing::{arrives, fuzz},
};
use proptest::{prop_assert, prop_assert_eq, test_runner::TestCaseError};
use schemas::{ImageIdRule, Plan};
use std::sync::{Arc, LazyLock};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// An error must say which of the files it is about.
fn names_the_file(error: &PipelineError) -> Result<(), TestCaseError> {
    let text = error.to_string();
    prop_assert!(text.contains("set/") || text.contains("/set"), "{text}");
    Ok(())
}

/// Reads `bytes` as the only file of a source.
async fn read_source(name: &str, bytes: &[u8]) -> Result<Vec<SourceImage>, PipelineError> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::parse(format!("set/{name}")).expect("a path");
    store.put(&path, Bytes::copy_from_slice(bytes).into()).await.expect("written");
    let storage = storage(&store, "set");
    let options = SourceOptions { image_id: ImageIdRule::Position, ..SourceOptions::new("") };
    let listing = list_storage(&storage, "", &options, &limits()).await?;
    let plan = Arc::new(plan_units(settings(4, ImageIdRule::Position), listing)?);
    read_all(&reader(&plan, &storage, &limits()), &plan).await
}

/// Reads `bytes` so, and holds what comes to what may come of them.
fn read_as(name: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
    match RUNTIME.block_on(arrives("the end of a damaged file", read_source(name, bytes))) {
        Ok(images) => {
            for image in images {
                prop_assert!(image.source.contains(name), "{}", image.source);
                prop_assert!(image.bytes.is_err() || image.bytes.is_ok_and(|found| found.len() <= bytes.len() * 1100));
            }
            Ok(())
        }
        Err(error) => names_the_file(&error),
    }
}

#[test]
fn damaged_shards_are_read_or_refused_by_name() {
    let members = [("a.jpg", "A"), ("a.cls", "1"), ("b.png", "B"), ("b.json", r#"{"label": 2}"#), ("c.1.webp", "C")];
    let members = members.map(|(name, text)| (name.to_owned(), Bytes::from(text)));
    let long = [(format!("{}.jpg", "name".repeat(40)), Bytes::from(vec![1; 700]))];
    let sound =
        RUNTIME.block_on(async { [tar_of(&members).await.expect("a tar"), tar_of(&long).await.expect("a tar")] });
    fuzz(file!(), 400, &sound, |bytes| read_as("a.tar", bytes));
}

/// A sound Parquet file of nine images.
fn parquet_file() -> Vec<u8> {
    RUNTIME.block_on(async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        SampleSet::numbered(9, 3, 40).write_parquet(store.as_ref(), "set", 9, 4).await.expect("written");
        store.get(&Path::from("set/part-00000.parquet")).await.expect("there").bytes().await.expect("read").to_vec()
    })
}

#[test]
fn damaged_parquet_files_are_read_or_refused_by_name() {
    fuzz(file!(), 400, &[parquet_file()], |bytes| read_as("a.parquet", bytes));
}

#[test]
fn a_page_header_that_goes_on_for_ever_is_refused_at_the_end_of_the_file() {
    let mut bytes = parquet_file();
    // In the place of the first page's header: a field 15, which the format does not have, a list of 2,147,483,647 doubles.
    bytes[4..11].copy_from_slice(&[0xF9, 0xF7, 0xFF, 0xFF, 0xFF, 0xFF, 0x07]);
    let refused = RUNTIME.block_on(arrives("the end of a header without end", read_source("a.parquet", &bytes)));
    let told = refused.expect_err("there is no such page").to_string();
    assert!(told.contains("a.parquet") && told.contains("past the end of the file"), "{told}");
}

#[test]
fn damaged_archives_are_opened_or_refused_by_name() {
    // One array of four pictures of two pixels, stored.
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    let header = format!("{:<117}\n", "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 1, 2, 3), }");
    array.extend((header.len() as u16).to_le_bytes());
    array.extend(header.bytes());
    array.extend(0..24_u8);
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("arr_0.npy", stored).expect("begun");
    std::io::Write::write_all(&mut archive, &array).expect("written");
    let sound = archive.finish().expect("an archive").into_inner();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("set").join("a.npz");
    std::fs::create_dir(file.parent().expect("a folder")).expect("made");
    fuzz(file!(), 200, &[sound], |bytes| {
        std::fs::write(&file, bytes).expect("written");
        let (options, limits) = (ImageSetOptions::new(file.display().to_string()), limits());
        let opening = ImageSet::open(&options, &limits);
        match RUNTIME.block_on(arrives("the end of a damaged archive", opening)) {
            Ok(_) => Ok(()),
            Err(error) => names_the_file(&error),
        }
    });
}

#[test]
fn damaged_plans_are_read_or_refused_by_line() {
    let sound = RUNTIME.block_on(async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        SampleSet::numbered(5, 2, 10).write_folder(store.as_ref(), "set").await.expect("written");
        let listing =
            list_storage(&storage(&store, "set"), "", &SourceOptions::new(""), &limits()).await.expect("listed");
        plan_units(settings(2, ImageIdRule::Stem), listing).expect("a plan").to_json_lines()
    });
    fuzz(file!(), 500, &[sound], |bytes| match Plan::from_json_lines(bytes) {
        Ok(plan) => {
            let lines = plan.to_json_lines();
            let again =
                Plan::from_json_lines(lines.as_slice()).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(again.hash(), plan.hash());
            Ok(())
        }
        Err(error) => {
            prop_assert!(error.to_string().contains("plan"), "{}", error);
            Ok(())
        }
    });
}
