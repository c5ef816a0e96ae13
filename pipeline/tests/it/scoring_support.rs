//! A small set of pictures in each form, and runs that score it.

use crate::{
    sample_files::{parquet, pixels_of, samples},
    sample_set::tar_of,
};
use bytes::Bytes;
use pipeline::{
    ImageSet, ImageSetOptions, Limits, NpzEncoder, NpzShape, PipelineError, ProcessRank, PutOutcome, ScoreRun,
    ScoreRunReport, ScoredTables, Storage, encode_png,
    testing::{FakeScorer, arrives},
};
use schemas::ScoredUnit;
use std::{
    io::{Cursor, Write},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

pub(crate) const KEY: &str = "gfid-adm-0123";

/// A folder of this process's memory, which any address opens again.
pub(crate) fn memory(folder: &str) -> Storage {
    Storage::open_output(&format!("memory:///scoring/{folder}"), &limits()).expect("memory opens")
}

pub(crate) fn limits() -> Limits {
    Limits {
        decode_threads: 2,
        decode_ahead_images: 4,
        fetch_requests: 4,
        fetch_buffer_bytes: 256 << 10,
        max_image_bytes: 1 << 20,
        max_image_pixels: 1 << 20,
        ..Limits::default()
    }
}

/// Pictures 0 to `count` of `size` by `size` pixels.
pub(crate) fn pixels(count: u64, size: usize) -> Vec<u8> {
    (0..count).flat_map(|number| pixels_of(number, size)).collect()
}

pub(crate) async fn put(storage: &Storage, path: &str, bytes: impl Into<Bytes>) -> String {
    // Under `cargo test` all tests share this memory: two that used one name would read each other's pictures.
    assert_eq!(storage.put_create(path, bytes.into()).await.expect("written"), PutOutcome::Created, "{path}");
    storage.uri(path)
}

/// `000000.png`, …, all in one folder.
pub(crate) async fn png_folder(name: &str, count: u64, size: usize) -> String {
    let folder = memory(name);
    for number in 0..count {
        put(&folder, &format!("{number:06}.png"), png(number, size)).await;
    }
    format!("{}/", folder.display())
}

pub(crate) fn png(number: u64, size: usize) -> Vec<u8> {
    encode_png(&pixels_of(number, size), size as u32, size as u32).expect("a PNG")
}

/// Tar shards of four pictures each.
pub(crate) async fn tar_shards(name: &str, count: u64, size: usize) -> String {
    let folder = memory(name);
    for first in (0..count).step_by(4) {
        let mut members = Vec::new();
        for number in first..count.min(first + 4) {
            members.push((format!("{number:06}.cls"), (number % 3).to_string().into()));
            members.push((format!("{number:06}.png"), png(number, size).into()));
        }
        put(&folder, &format!("shard-{first:04}.tar"), tar_of(&members).await.expect("a tar")).await;
    }
    format!("{}/", folder.display())
}

/// One Parquet file.
pub(crate) async fn parquet_file(name: &str, count: u64, size: usize) -> String {
    put(&memory(name), "samples.parquet", parquet(&samples(0..count, size))).await
}

/// The evaluation archive as this project writes it.
pub(crate) fn npz_stored(count: u64, size: usize) -> Vec<u8> {
    let pixels = pixels(count, size);
    let (mut encoder, front) = NpzEncoder::start(NpzShape { rows: count, height: size, width: size });
    encoder.add_rows(&pixels).expect("whole rows");
    [&front[..], &pixels[..], &encoder.finish().expect("all rows").0[..]].concat()
}

/// An archive of these members, as `numpy.savez` or `numpy.savez_compressed` gives it.
pub(crate) fn archive(members: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).expect("a member");
        writer.write_all(bytes).expect("memory");
    }
    writer.finish().expect("an archive").into_inner()
}

/// An array file as `numpy.save` gives it.
pub(crate) fn npy(descr: &str, fortran_order: bool, shape: &[usize], elements: &[u8]) -> Vec<u8> {
    let order = if fortran_order { "True" } else { "False" };
    let shape: String = shape.iter().map(|axis| format!("{axis}, ")).collect();
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({shape}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(elements);
    bytes
}

pub(crate) async fn open(url: &str, unit_size: usize) -> Arc<ImageSet> {
    let options = ImageSetOptions { unit_size, ..ImageSetOptions::new(url) };
    Arc::new(ImageSet::open(&options, &limits()).await.expect("a set"))
}

pub(crate) async fn refused(options: &ImageSetOptions) -> String {
    ImageSet::open(options, &limits()).await.expect_err("refused").to_string()
}

/// A run over `set` into `output` on one fake device.
pub(crate) fn run_of(set: &Arc<ImageSet>, output: &Storage, scorer: &FakeScorer) -> ScoreRun {
    ScoreRun {
        set: Arc::clone(set),
        output: output.clone(),
        key: KEY.to_owned(),
        batch_size: 3,
        scorers: vec![("fake:0".to_owned(), scorer.factory())],
        libtorch: "none".to_owned(),
        process: ProcessRank::ALONE,
        limits: limits(),
        telemetry: Arc::default(),
        cancel: CancellationToken::new(),
        engine: None,
    }
}

pub(crate) async fn score_with(
    set: &Arc<ImageSet>,
    output: &Storage,
    scorer: &FakeScorer,
) -> Result<ScoreRunReport, PipelineError> {
    score(run_of(set, output, scorer)).await
}

/// [`pipeline::score`], which a test does not wait for for ever.
pub(crate) async fn score(run: ScoreRun) -> Result<ScoreRunReport, PipelineError> {
    arrives("the end of the scoring", pipeline::score(run)).await
}

/// All units of a set, read back in order.
pub(crate) async fn read_all(set: &ImageSet, output: &Storage) -> Vec<ScoredUnit> {
    let tables = ScoredTables::open(output.clone(), KEY, set.units()).expect("a key");
    let mut units = Vec::new();
    for unit in 0..set.units() {
        units.push(tables.read(unit).await.expect("scored"));
    }
    units
}

/// Units as one, whatever the division was.
pub(crate) fn joined(units: Vec<ScoredUnit>) -> ScoredUnit {
    let mut units = units.into_iter();
    let mut all = units.next().expect("a unit");
    for unit in units {
        all.rows.extend(unit.rows);
        all.rejected += unit.rejected;
        if all.variants.is_empty() {
            all.variants = unit.variants;
            continue;
        }
        for (variant, more) in all.variants.iter_mut().zip(unit.variants) {
            variant.append(more).expect("the same variant");
        }
    }
    all
}
