//! A small set of images in each layout, and runs over it with an encoder that needs no network.

use crate::sample_set::{SampleImage, SampleSet};
use bytes::Bytes;
use image::{ImageFormat, Rgb, RgbImage};
use object_store::{ObjectStore, memory::InMemory, path::Path};
use parquet::{
    arrow::ArrowWriter,
    file::{metadata::KeyValue, properties::WriterProperties},
};
use pipeline::{
    Limits, PipelineError, ProcessRank, Run, RunReport, SourceOptions, SourceReader, Storage, TableReader, TokenizeRun,
    list_storage, plan_units,
    testing::{FakeEncoder, arrives},
};
use schemas::{
    Crop, ImageIdRule, ImageOrigin, Origin, Plan, PlanSettings, SourceAccount, SourceLayout, SourceReading,
    TokenLevels, TokenRows, TokenizerIdentity,
};
use std::{collections::BTreeMap, io::Cursor, sync::Arc, time::Duration};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) const CODEBOOK_SIZE: usize = 97;
pub(crate) const TOKENS_PER_IMAGE: usize = 8;

/// `count` small images in three classes, sorted as a listing sorts them. Every seventh is no image, every eleventh ends early.
pub(crate) fn sample(count: usize) -> Vec<SampleImage> {
    let per_class = count.div_ceil(3);
    (0..count)
        .map(|index| {
            let (class, number) = (index / per_class, index % per_class);
            let mut bytes = png(10 + index as u32 % 5, 9 + index as u32 % 3, index as u8);
            if index % 7 == 3 {
                bytes = format!("<html>{index}</html>").into_bytes();
            } else if index % 11 == 5 {
                bytes.truncate(bytes.len() / 2);
            }
            let class_name = format!("n{class:08}");
            SampleImage { stem: format!("{class_name}_{number:05}"), class_name, bytes: bytes.into() }
        })
        .collect()
}

/// A picture of noise that `seed` decides.
pub(crate) fn png(width: u32, height: u32, seed: u8) -> Vec<u8> {
    let image = RgbImage::from_fn(width, height, |x, y| {
        let value = (x * 31 + y * 57 + u32::from(seed) * 101) % 251;
        Rgb([value as u8, (value * 3 % 256) as u8, seed])
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).expect("a PNG in memory");
    bytes.into_inner()
}

/// A source with the sample in it, in memory.
pub(crate) async fn memory_source(images: &[SampleImage], layout: SourceLayout) -> Storage {
    let store = InMemory::new();
    let set = SampleSet::new(images.to_vec());
    let written = match layout {
        SourceLayout::Folder => set.write_folder(&store, "in").await,
        SourceLayout::Webdataset => set.write_webdataset(&store, "in", images.len().div_ceil(3)).await,
        SourceLayout::Parquet => set.write_parquet(&store, "in", images.len().div_ceil(2), 4).await,
    };
    written.expect("memory");
    Storage::from_store(Arc::new(store), Path::from("in"), "memory:///in")
}

/// An empty output in memory.
pub(crate) fn memory_output() -> (Arc<InMemory>, Storage) {
    let store = Arc::new(InMemory::new());
    (Arc::clone(&store), storage_over(store))
}

pub(crate) fn storage_over(store: Arc<dyn ObjectStore>) -> Storage {
    Storage::from_store(store, Path::from("out"), "memory:///out")
}

pub(crate) fn settings(layout: SourceLayout) -> PlanSettings {
    PlanSettings {
        source: String::new(),
        split: "train".to_owned(),
        tokenizer: TokenizerIdentity {
            name: "fake".to_owned(),
            sha256: "0".repeat(64),
            codebook_size: CODEBOOK_SIZE,
            levels: TokenLevels::published(TOKENS_PER_IMAGE).expect("a power of two"),
        },
        precision: "fp32".to_owned(),
        batch_size: 3,
        unit_size: 5,
        origin: Origin::Images(ImageOrigin {
            layout,
            image_id: ImageIdRule::Stem,
            crop: Crop::AdmCenterFlip { size: 8 },
            max_image_bytes: 1 << 20,
            max_image_pixels: 1 << 20,
            reading: SourceReading::default(),
        }),
    }
}

pub(crate) async fn plan(source: &Storage, settings: PlanSettings) -> Arc<Plan> {
    let options =
        SourceOptions { layout: settings.origin.images().map(|images| images.layout), ..SourceOptions::new("") };
    let listing = list_storage(source, "", &options, &Limits::default()).await.expect("the sample lists");
    Arc::new(plan_units(settings, listing).expect("the sample plans"))
}

pub(crate) fn encoder() -> FakeEncoder {
    FakeEncoder::new(TOKENS_PER_IMAGE, CODEBOOK_SIZE)
}

/// A run over `source` into `output` on one fake device, allowing any number of rejects.
pub(crate) fn run_of(plan: &Arc<Plan>, source: &Storage, output: &Storage, encoder: &FakeEncoder) -> TokenizeRun {
    let limits = Limits { decode_threads: 2, decode_ahead_images: 4, fetch_requests: 4, ..Limits::default() };
    TokenizeRun {
        source: SourceReader::with_storage(Arc::clone(plan), source.clone(), &limits).expect("the plan's source"),
        encoders: vec![("fake:0".to_owned(), encoder.factory())],
        common: run_into(plan, output, limits),
    }
}

/// A run of `plan` into `output`, alone and undisturbed.
pub(crate) fn run_into(plan: &Arc<Plan>, output: &Storage, limits: Limits) -> Run {
    Run {
        plan: Arc::clone(plan),
        output: output.clone(),
        libtorch: "none".to_owned(),
        limits,
        process: ProcessRank::ALONE,
        max_reject_rate: 1.0,
        start_jitter: Duration::ZERO,
        finalize: true,
        cancel: CancellationToken::new(),
        telemetry: Arc::default(),
        left_out: SourceAccount::default(),
        engine: None,
    }
}

/// Runs the whole plan on one fake device.
pub(crate) async fn tokenize_with(
    plan: &Arc<Plan>,
    source: &Storage,
    output: &Storage,
    encoder: &FakeEncoder,
) -> Result<RunReport, PipelineError> {
    tokenize(run_of(plan, source, output, encoder)).await
}

/// [`pipeline::tokenize`], which a test does not wait for for ever.
pub(crate) async fn tokenize(run: TokenizeRun) -> Result<RunReport, PipelineError> {
    arrives("the end of the run", pipeline::tokenize(run)).await
}

/// A task beside the test; aborted when the set is dropped.
pub(crate) fn background<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinSet<T> {
    let mut set = JoinSet::new();
    set.spawn(task);
    set
}

/// How a task beside the test ends.
pub(crate) async fn end_of<T: 'static>(task: &mut JoinSet<T>) -> Result<T, JoinError> {
    arrives("the end of the run beside the test", task.join_next()).await.expect("a task")
}

/// Everything below an output, by path, but for the markers' clocks and what processes that share it tell each other.
pub(crate) async fn contents(output: &Storage) -> BTreeMap<String, Bytes> {
    let mut contents = BTreeMap::new();
    for object in output.list("").await.expect("the output lists") {
        if object.path.starts_with("_state/leases-") {
            continue;
        }
        let mut bytes = output.get(&object.path).await.expect("the output reads");
        if object.path.starts_with("_state/") {
            let mut marker: serde_json::Value = serde_json::from_slice(&bytes).expect("a marker");
            marker["seconds"] = 0.into();
            bytes = marker.to_string().into();
        }
        contents.insert(object.path, bytes);
    }
    contents
}

/// An output of the sample in a folder layout, finished.
pub(crate) async fn finished_output(images: usize) -> (Arc<InMemory>, Storage, Arc<Plan>) {
    let source = memory_source(&sample(images), SourceLayout::Folder).await;
    let plan = plan(&source, settings(SourceLayout::Folder)).await;
    let (store, output) = memory_output();
    tokenize_with(&plan, &source, &output, &encoder()).await.expect("an undisturbed run");
    (store, output, plan)
}

/// A tokens file of an output as an undisturbed run would write it, changed.
pub(crate) async fn rewritten_tokens(output: &Storage, unit: u32, edit: impl FnOnce(&mut TokenRows)) -> Bytes {
    let reader = TableReader::open(output).await.expect("an output");
    let mut file = reader.tokens(unit).await.expect("a unit");
    edit(&mut file.rows);
    let metadata = file.metadata.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
    let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
    let batch = file.rows.to_record_batch().expect("columns");
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.into_inner().expect("a footer").into()
}
