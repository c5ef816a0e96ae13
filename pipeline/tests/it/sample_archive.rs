//! The evaluation archive: what the files hold, in order, whole or not at all.

use crate::sample_files::{parquet, pixels_of, samples};
use bytes::Bytes;
use object_store::{ObjectStore, memory::InMemory, path::Path};
use pipeline::{
    AssembledNpz, Limits, NpzEncoder, NpzShape, PipelineError, SampleImage, Storage, assemble_npz, npz_size,
    testing::{Fault, FaultRule, FaultStore, Operation},
};
use schemas::{FileRecord, sha256_hex};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

const ARCHIVE: &str = "samples.npz";

fn faulty() -> (Arc<FaultStore>, Storage) {
    let faults = FaultStore::new(Arc::new(InMemory::new()));
    let store: Arc<dyn ObjectStore> = Arc::clone(&faults) as _;
    (faults, Storage::from_store(store, Path::from("out"), "memory:///out"))
}

/// Puts a file of samples, and says so as its marker would.
async fn put(output: &Storage, name: &str, samples: &[SampleImage]) -> FileRecord {
    let (path, bytes) = (format!("samples/parquet/{name}"), parquet(samples));
    output.put_create(&path, bytes.clone()).await.expect("written");
    FileRecord { path, bytes: bytes.len() as u64, sha256: sha256_hex(&bytes), rows: samples.len() as u64 }
}

/// Files of this many samples each, from 0 on.
async fn put_files(output: &Storage, rows: &[u64], size: usize) -> Vec<FileRecord> {
    let (mut files, mut first) = (Vec::new(), 0);
    for (number, rows) in rows.iter().enumerate() {
        files.push(put(output, &format!("part-{size}-{number:05}.parquet"), &samples(first..first + rows, size)).await);
        first += rows;
    }
    files
}

async fn assemble(
    output: &Storage,
    files: &[FileRecord],
    rows: u64,
    size: usize,
) -> Result<AssembledNpz, PipelineError> {
    assemble_npz(output, files, rows, size, ARCHIVE, 2, |_| ()).await
}

/// The archive made in memory, a row at a time.
fn expected(rows: u64, size: usize) -> Vec<u8> {
    let (mut encoder, front) = NpzEncoder::start(NpzShape { rows, height: size, width: size });
    let mut bytes = front.to_vec();
    for sample in 0..rows {
        let pixels = pixels_of(sample, size);
        encoder.add_rows(&pixels).expect("a row");
        bytes.extend_from_slice(&pixels);
    }
    bytes.extend_from_slice(&encoder.finish().expect("whole").0);
    bytes
}

async fn refused(output: &Storage, files: &[FileRecord], rows: u64, size: usize) -> String {
    let error = assemble(output, files, rows, size).await.expect_err("refused");
    assert!(!output.exists(ARCHIVE).await.expect("asked"), "{error}");
    error.to_string()
}

#[tokio::test]
async fn files_become_one_archive_in_their_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let local = Storage::open_output(&folder.path().display().to_string(), &Limits::default()).expect("a path opens");
    let (_, memory) = faulty();
    // Of 256 pixels, a block holds 85: blocks end within files, files within blocks, and a part holds more than one.
    for (rows, size) in [(&[100, 1, 30][..], 256), (&[3, 0, 4], 5), (&[], 8)] {
        let total = rows.iter().sum();
        for output in [&local, &memory] {
            let files = put_files(output, rows, size).await;
            let path = format!("{size}.npz");
            let seen = AtomicU64::new(0);
            let progress = |rows| seen.store(rows, Ordering::Relaxed);
            let done = assemble_npz(output, &files, total, size, &path, 2, progress).await.expect("assembled");
            let bytes = output.get(&path).await.expect("there");
            assert!(bytes == expected(total, size), "{rows:?} of {size} pixels: other bytes");
            assert_eq!(bytes.len() as u64, npz_size(total, size, size));
            let record = FileRecord { path, bytes: bytes.len() as u64, sha256: sha256_hex(&bytes), rows: total };
            assert_eq!(done, AssembledNpz { record, created: true });
            assert_eq!(seen.into_inner(), total);
        }
    }
    let staged = std::fs::read_dir(folder.path().join("_staging")).expect("a folder");
    assert_eq!(staged.count(), 0, "something stayed in the staging folder");
}

#[tokio::test]
async fn an_archive_that_is_there_is_held_to_the_pictures_and_kept() {
    let (faults, output) = faulty();
    let files = put_files(&output, &[4, 2], 8).await;
    let first = assemble(&output, &files, 6, 8).await.expect("assembled");
    let puts = faults.requests(Operation::Put);
    let again = assemble(&output, &files, 6, 8).await.expect("there");
    assert_eq!(again, AssembledNpz { created: false, ..first });
    assert_eq!(faults.requests(Operation::Put), puts);
    // What cannot be compared is not believed.
    faults.inject(FaultRule::new(Operation::Get, Fault::Denied).on("parquet").forever());
    assemble(&output, &files, 6, 8).await.expect_err("pictures that cannot be read");
}

#[tokio::test]
async fn an_archive_of_another_size_is_never_replaced() {
    let (_, output) = faulty();
    let files = put_files(&output, &[4], 8).await;
    output.put_create(ARCHIVE, Bytes::from("something else")).await.expect("written");
    let error = assemble(&output, &files, 4, 8).await.expect_err("not ours").to_string();
    assert!(error.starts_with("memory:///out/samples.npz: 14 bytes are there, expected"), "{error}");
    assert_eq!(output.get(ARCHIVE).await.expect("still there"), "something else");
}

#[tokio::test]
async fn samples_out_of_order_are_refused_by_name_of_their_file() {
    let (_, output) = faulty();
    let first = put(&output, "a", &samples(0..5, 8)).await;
    let second = put(&output, "b", &samples(5..9, 8)).await;
    let gap = put(&output, "c", &samples(6..10, 8)).await;
    let swapped = put(&output, "d", &samples([5, 7, 6, 8], 8)).await;
    assemble(&output, &[first.clone(), second.clone()], 9, 8).await.expect("in order");
    let (_, elsewhere) = faulty();
    for file in ["a", "b", "c", "d"] {
        let path = format!("samples/parquet/{file}");
        elsewhere.put_create(&path, output.get(&path).await.expect("there")).await.expect("copied");
    }
    for (files, words) in [
        ([second.clone(), first.clone()], "parquet/b: sample 5 where sample 0 must come"),
        ([first.clone(), gap], "parquet/c: sample 6 where sample 5 must come"),
        ([first.clone(), swapped], "parquet/d: sample 7 where sample 6 must come"),
        ([first.clone(), FileRecord { rows: 4, ..first.clone() }], "parquet/a: sample 0 where sample 5 must come"),
    ] {
        let error = refused(&elsewhere, &files, 9, 8).await;
        assert!(error.ends_with(words), "{error}");
    }
}

#[tokio::test]
async fn other_numbers_of_samples_than_were_promised_are_refused() {
    let (_, output) = faulty();
    let files = put_files(&output, &[5, 4], 8).await;
    let error = refused(&output, &files, 10, 8).await;
    assert!(error.contains("9 samples in 2 files, expected 10"), "{error}");
    // The records agree with the set, the files do not agree with their records.
    for (rows, words) in [([6, 4], "00000.parquet: 5 samples, but its marker says 6"), ([4, 4], "says 4")] {
        let claimed: Vec<_> = files.iter().zip(rows).map(|(file, rows)| FileRecord { rows, ..file.clone() }).collect();
        let error = refused(&output, &claimed, rows.iter().sum(), 8).await;
        assert!(error.contains(words) && error.contains("00000.parquet"), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_file_and_a_wrong_image_are_named() {
    let (_, output) = faulty();
    let whole = put(&output, "a", &samples(0..5, 8)).await;
    let other = FileRecord { sha256: "0".repeat(64), ..whole.clone() };
    let error = refused(&output, &[other], 5, 8).await;
    assert!(error.contains("parquet/a: its SHA-256 is") && error.contains("marker says 000"), "{error}");

    let error = refused(&output, std::slice::from_ref(&whole), 5, 16).await;
    assert!(error.contains("parquet/a: sample 0: 8x8 pixels, expected 16x16"), "{error}");
    let error = refused(&output, std::slice::from_ref(&whole), 5, 4).await;
    assert!(error.contains("parquet/a: sample 0: too_large"), "{error}");

    let mut images = samples(0..5, 8);
    images[3].png = images[3].png.slice(..images[3].png.len() / 2);
    let cut = put(&output, "b", &images).await;
    let error = refused(&output, &[cut], 5, 8).await;
    assert!(error.contains("parquet/b: sample 3: "), "{error}");

    let missing = FileRecord { path: "samples/parquet/none".to_owned(), ..whole };
    let error = refused(&output, &[missing], 5, 8).await;
    assert!(error.contains("read memory:///out/samples/parquet/none"), "{error}");
}

/// Three parts of 16 MiB.
const LARGE: (u64, usize) = (180, 256);

#[tokio::test]
async fn a_failure_in_the_middle_leaves_nothing_and_another_attempt_succeeds() {
    let (faults, output) = faulty();
    let (rows, size) = LARGE;
    let files = put_files(&output, &[90, 90], size).await;
    for (operation, path, skip) in [
        (Operation::Put, ARCHIVE, 0),
        (Operation::Part, ARCHIVE, 0),
        (Operation::Part, ARCHIVE, 2),
        (Operation::Complete, ARCHIVE, 0),
        (Operation::Get, "00001.parquet", 0),
    ] {
        let aborts = faults.requests(Operation::Abort);
        faults.inject(FaultRule::new(operation, Fault::Denied).on(path).skip(skip).forever());
        let error = refused(&output, &files, rows, size).await;
        assert!(error.contains("403 by order"), "{operation:?}: {error}");
        let begun = usize::from(operation != Operation::Put);
        assert_eq!(faults.requests(Operation::Abort) - aborts, begun, "{operation:?}");
        faults.heal();
    }
    // What could not be removed is a warning; the error is the one that came first.
    faults.inject(FaultRule::new(Operation::Part, Fault::Unavailable).on(ARCHIVE));
    faults.inject(FaultRule::new(Operation::Abort, Fault::Denied).on(ARCHIVE));
    let error = refused(&output, &files, rows, size).await;
    assert!(error.contains("503 Slow Down"), "{error}");
    let done = assemble(&output, &files, rows, size).await.expect("assembled");
    assert!(done.created);
    assert_eq!(done.record.bytes, npz_size(rows, size, size));
}

#[tokio::test]
async fn an_upload_whose_last_answer_was_lost_is_found_to_have_happened() {
    let (faults, output) = faulty();
    let files = put_files(&output, &[6], 8).await;
    faults.inject(FaultRule::new(Operation::Complete, Fault::CommitThenError));
    let done = assemble(&output, &files, 6, 8).await.expect("there");
    assert_eq!(done.record.sha256, sha256_hex(&expected(6, 8)));
}

#[tokio::test]
async fn a_local_archive_that_fails_leaves_no_half_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Storage::open_output(&folder.path().display().to_string(), &Limits::default()).expect("a path opens");
    let (rows, size) = LARGE;
    let mut files = put_files(&output, &[90, 90], size).await;
    files[1].sha256 = "0".repeat(64);
    let error = refused(&output, &files, rows, size).await;
    assert!(error.contains("00001.parquet: its SHA-256"), "{error}");
    let left: Vec<_> = std::fs::read_dir(folder.path().join("_staging")).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}
