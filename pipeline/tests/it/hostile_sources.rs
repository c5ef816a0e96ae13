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
    PictureSet, PictureSetOptions, PipelineError, SourceOptions, list_storage, plan_units, testing::arrives,
};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{FileFailurePersistence, TestCaseError, TestRunner},
};
use schemas::{ImageIdRule, Plan};
use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// One thing that happens to a file.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, Index),
    Insert(Index, Vec<u8>),
    /// A part of the file once more, somewhere else.
    Copy(Index, Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, value)| Damage::Set(at, value)),
        4 => (at(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => at().prop_map(Damage::Cut),
        1 => (at(), at()).prop_map(|(from, to)| Damage::Remove(from, to)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..24)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (at(), at(), at()).prop_map(|(from, to, at)| Damage::Copy(from, to, at)),
    ]
}

fn damaged(mut bytes: Vec<u8>, all: &[Damage]) -> Vec<u8> {
    let part = |bytes: &[u8], from: &Index, to: &Index| {
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        from.min(to)..from.max(to)
    };
    for one in all {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        match one {
            Damage::Set(at, value) => bytes[at.index(length)] = *value,
            Damage::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Damage::Cut(at) => bytes.truncate(at.index(length)),
            Damage::Remove(from, to) => drop(bytes.drain(part(&bytes, from, to))),
            Damage::Insert(at, more) => {
                let at = at.index(length);
                drop(bytes.splice(at..at, more.iter().copied()));
            }
            Damage::Copy(from, to, at) => {
                let (more, at) = (bytes[part(&bytes, from, to)].to_vec(), at.index(length));
                drop(bytes.splice(at..at, more));
            }
        }
    }
    bytes
}

/// Damages `sound` in many ways; `check` says what must hold of each.
fn hold(cases: u32, sound: &[Vec<u8>], check: impl Fn(&[u8]) -> Result<(), TestCaseError>) {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the program")]
    let seconds = std::env::var("RESTOK_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let began = Instant::now();
    loop {
        let persistence = FileFailurePersistence::SourceParallel("proptest-regressions");
        let config = ProptestConfig {
            cases,
            source_file: Some(file!()),
            failure_persistence: Some(Box::new(persistence)),
            ..ProptestConfig::default()
        };
        let strategy = (0..sound.len(), prop::collection::vec(damage(), 1..6));
        let test = |(file, all): (usize, Vec<Damage>)| check(&damaged(sound[file].clone(), &all));
        TestRunner::new(config).run(&strategy, test).unwrap_or_else(|failure| panic!("{failure}"));
        if seconds.is_none_or(|seconds| began.elapsed() >= seconds) {
            return;
        }
    }
}

/// An error must say which of the files it is about.
fn names_the_file(error: &PipelineError) -> Result<(), TestCaseError> {
    let text = error.to_string();
    prop_assert!(text.contains("set/") || text.contains("/set"), "{text}");
    Ok(())
}

/// Reads `bytes` as the only file of a source.
fn read_as(name: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
    let reading = async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::parse(format!("set/{name}")).expect("a path");
        store.put(&path, Bytes::copy_from_slice(bytes).into()).await.expect("written");
        let storage = storage(&store, "set");
        let options = SourceOptions { image_id: ImageIdRule::Position, ..SourceOptions::new("") };
        let listing = list_storage(&storage, "", &options, &limits()).await?;
        let plan = Arc::new(plan_units(settings(4, ImageIdRule::Position), listing)?);
        read_all(&reader(&plan, &storage, &limits()), &plan).await
    };
    match RUNTIME.block_on(arrives("the end of a damaged file", reading)) {
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
    hold(400, &sound, |bytes| read_as("a.tar", bytes));
}

#[test]
fn damaged_parquet_files_are_read_or_refused_by_name() {
    let sound = RUNTIME.block_on(async {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        SampleSet::numbered(9, 3, 40).write_parquet(store.as_ref(), "set", 9, 4).await.expect("written");
        store.get(&Path::from("set/part-00000.parquet")).await.expect("there").bytes().await.expect("read").to_vec()
    });
    hold(400, &[sound], |bytes| read_as("a.parquet", bytes));
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
    hold(200, &[sound], |bytes| {
        std::fs::write(&file, bytes).expect("written");
        let (options, limits) = (PictureSetOptions::new(file.display().to_string()), limits());
        let opening = PictureSet::open(&options, &limits);
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
    hold(500, &[sound], |bytes| match Plan::from_json_lines(bytes) {
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
