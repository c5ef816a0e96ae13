//! A unit of a generated set, from its numbers to its rows and pictures: an ordered pipeline of its own.
//!
//! ```text
//! numbers ─▶ batches ─▶ queue ─▶ sampler ─▶ codes ─▶ queue ─▶ decoder ─▶ pixels ─▶ PNG (pool) ─▶ files
//!                    or: the tokens table ─▶ codes ─▶ …
//! ```
//!
//! Batches are cut from the numbers of the unit, so a sample's batch, and with it the last bits of its logits, follows from the
//! plan. At most [`BATCHES_AHEAD`] of them are drawn ahead of those that are decoded, and as many decoded ahead of those that
//! are compressed.

use super::UnitSource;
use crate::{
    PipelineError, TableReader,
    commit::{PictureFile, UnitRows},
    cpu_pool::CpuPool,
    device_worker::{DeviceQueue, DevicesGone},
    samples::{NO_LABEL, SampleImage, encode_png, encode_sample_parquet, encode_sample_tar},
    telemetry::{Stage, Telemetry},
    units::UnitError,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use schemas::{
    ImageRow, Origin, PictureFormat, PixelBatch, Plan, Provenance, RowCounts, SampleBatch, TokenBatch, TokenRows,
    WriterInfo, picture_path, unit_pictures_path,
};
use std::{ops::Range, sync::Arc, time::Instant};

/// Batches that a unit has between two stages: one that is ready while the next is made.
const BATCHES_AHEAD: usize = 2;

/// Where codes come from.
#[derive(Clone, Debug)]
pub(super) enum CodeQueue {
    Drawn(DeviceQueue<SampleBatch, TokenBatch>),
    There(TableReader),
}

/// Units whose rows are samples or the tokens of another output: what all of them share.
#[derive(Clone, Debug)]
pub(super) struct SampleUnits {
    pub(super) plan: Arc<Plan>,
    pub(super) codes: CodeQueue,
    pub(super) decoders: Option<DeviceQueue<TokenBatch, PixelBatch>>,
    pub(super) cpu: CpuPool,
    pub(super) writer_info: WriterInfo,
    pub(super) telemetry: Arc<Telemetry>,
}

/// Who the rows of a unit are.
#[derive(Clone, Debug)]
struct UnitKeys {
    /// Numbers of the pictures, over the whole output.
    numbers: Range<u64>,
    image_ids: Vec<String>,
    sources: Vec<String>,
    labels: Vec<Option<i32>>,
}

/// A batch on its way to its codes.
enum Batch {
    ToDraw(SampleBatch),
    There(TokenBatch),
}

impl UnitSource for SampleUnits {
    async fn unit_rows(&self, unit: u32) -> Result<UnitRows, UnitError> {
        let (keys, batches) = self.batches(unit).await?;
        let keys = Arc::new(keys);
        let (codes, images) = self.run_batches(&keys, batches).await?;
        let tokens_per_image = self.plan.settings().tokenizer.levels.tokens_per_image();
        let tokens = TokenRows {
            image_ids: keys.image_ids.clone(),
            views: vec![0; keys.image_ids.len()],
            labels: keys.labels.clone(),
            tokens: TokenBatch::try_new(codes, tokens_per_image)?,
        };
        let pictures = self.picture_files(unit, images).await?;
        let rows = keys.image_ids.len() as u64;
        let row_counts = RowCounts { listed: rows, written: rows, token_rows: rows, ..RowCounts::default() };
        row_counts.check(1)?;
        Ok(UnitRows { tokens, images: self.image_rows(&keys), pictures, row_counts })
    }

    async fn follow(&self, unit: u32, rows: UnitRows, tokens: TokenRows) -> Result<UnitRows, UnitError> {
        let (keys, _) = self.batches(unit).await?;
        let batches = cut(&tokens.tokens, self.plan.settings().batch_size)?.into_iter().map(Batch::There).collect();
        let (_, images) = self.run_batches(&Arc::new(keys), batches).await?;
        let pictures = self.picture_files(unit, images).await?;
        Ok(UnitRows { tokens, pictures, ..rows })
    }
}

impl SampleUnits {
    /// The rows of a unit and their batches, in order.
    async fn batches(&self, unit: u32) -> Result<(UnitKeys, Vec<Batch>), UnitError> {
        let settings = self.plan.settings();
        let numbers = self.plan.unit_inputs(unit).iter().find_map(|input| input.rows.clone()).unwrap_or_default();
        match (&settings.origin, &self.codes) {
            (Origin::Samples(samples), _) => {
                let all: Vec<u64> = numbers.clone().collect();
                let classes: Vec<i32> = all.iter().map(|&sample| samples.class_of(sample)).collect();
                let batches = all
                    .chunks(settings.batch_size)
                    .zip(classes.chunks(settings.batch_size))
                    .map(|(numbers, classes)| {
                        SampleBatch::try_new(numbers.to_vec(), classes.to_vec(), settings.batch_size).map(Batch::ToDraw)
                    })
                    .collect::<Result<_, _>>()?;
                let keys = UnitKeys {
                    numbers,
                    image_ids: all.iter().map(|&sample| samples.image_id(sample)).collect(),
                    sources: all.iter().map(|sample| format!("{}#{sample}", settings.source)).collect(),
                    labels: classes.into_iter().map(Some).collect(),
                };
                Ok((keys, batches))
            }
            (_, CodeQueue::There(tables)) => {
                let unit = tables.reports().get(unit as usize).map_or(unit, |report| report.unit);
                let rows = first_views(tables.tokens(unit).await?.rows)?;
                let found = rows.tokens.rows() as u64;
                if found != numbers.end - numbers.start {
                    let problem =
                        format!("unit {unit} has {found} images, the plan says {}", numbers.end - numbers.start);
                    return Err(PipelineError::Source { uri: settings.source.clone(), problem }.into());
                }
                let batches = cut(&rows.tokens, settings.batch_size)?.into_iter().map(Batch::There).collect();
                let sources = rows.image_ids.iter().map(|image_id| format!("{}#{image_id}", settings.source)).collect();
                Ok((UnitKeys { numbers, image_ids: rows.image_ids, sources, labels: rows.labels }, batches))
            }
            (_, CodeQueue::Drawn(_)) => Err(PipelineError::Source {
                uri: settings.source.clone(),
                problem: "this plan has no samples to draw".to_owned(),
            }
            .into()),
        }
    }

    /// All batches of a unit through the networks; codes and pictures in order.
    async fn run_batches(
        &self,
        keys: &Arc<UnitKeys>,
        batches: Vec<Batch>,
    ) -> Result<(Vec<i16>, Vec<SampleImage>), UnitError> {
        let batch_size = self.plan.settings().batch_size;
        let units = self.clone();
        let codes = move |(position, batch): (usize, Batch)| {
            let units = units.clone();
            async move { Ok::<_, UnitError>((position * batch_size, units.draw(batch).await?)) }
        };
        let (units, keys) = (self.clone(), Arc::clone(keys));
        let pictures = move |drawn: Result<(usize, TokenBatch), UnitError>| {
            let (units, keys) = (units.clone(), Arc::clone(&keys));
            async move {
                let (first, codes) = drawn?;
                let pictures = units.render(&keys, first, &codes).await?;
                units.telemetry.images_written(codes.rows() as u64);
                Ok::<_, UnitError>((codes, pictures))
            }
        };
        let rendered = stream::iter(batches.into_iter().enumerate())
            .map(codes)
            .buffered(BATCHES_AHEAD)
            .map(pictures)
            .buffered(BATCHES_AHEAD);
        let all: Vec<_> = rendered.try_collect().await?;
        let (mut codes, mut images) = (Vec::new(), Vec::new());
        for (batch, pictures) in all {
            codes.extend_from_slice(batch.codes());
            images.extend(pictures);
        }
        Ok((codes, images))
    }

    /// The codes of a batch.
    async fn draw(&self, batch: Batch) -> Result<TokenBatch, UnitError> {
        let codes = match (batch, &self.codes) {
            (Batch::There(codes), _) => codes,
            (Batch::ToDraw(samples), CodeQueue::Drawn(queue)) => {
                queue.submit(samples).await?.await.map_err(|_| DevicesGone)?
            }
            (Batch::ToDraw(_), CodeQueue::There(_)) => return Err(DevicesGone.into()),
        };
        (0..codes.rows()).for_each(|_| self.telemetry.image_listed());
        Ok(codes)
    }

    /// The pictures of a batch whose first row is row `first` of the unit.
    async fn render(
        &self,
        keys: &Arc<UnitKeys>,
        first: usize,
        codes: &TokenBatch,
    ) -> Result<Vec<SampleImage>, UnitError> {
        let Some(decoders) = &self.decoders else { return Ok(Vec::new()) };
        let pixels = decoders.submit(codes.clone()).await?.await.map_err(|_| DevicesGone)?;
        let (keys, telemetry) = (Arc::clone(keys), Arc::clone(&self.telemetry));
        let compress = move || {
            let started = Instant::now();
            let (width, height) = (pixels.width() as u32, pixels.height() as u32);
            let images = (0..pixels.filled())
                .map(|row| {
                    let png = encode_png(pixels.image(row), width, height)?;
                    let label = keys.labels.get(first + row).copied().flatten().unwrap_or(NO_LABEL);
                    let sample = keys.numbers.start + (first + row) as u64;
                    Ok(SampleImage { sample, label, png: Bytes::from(png) })
                })
                .collect::<Result<Vec<_>, PipelineError>>();
            telemetry.record_busy(Stage::Write, started.elapsed());
            images
        };
        Ok(self.cpu.spawn_cpu(compress).await?)
    }

    /// The files of a unit's pictures, in every form that the plan asks for.
    async fn picture_files(&self, unit: u32, images: Vec<SampleImage>) -> Result<Vec<PictureFile>, UnitError> {
        let Some(pictures) = self.plan.settings().origin.pictures() else { return Ok(Vec::new()) };
        let formats = pictures.formats.clone();
        let key_values = Provenance {
            plan: self.plan.hash().clone(),
            unit,
            settings: self.plan.settings().clone(),
            writer_info: self.writer_info.clone(),
        }
        .to_key_values();
        let (plan, telemetry) = (Arc::clone(&self.plan), Arc::clone(&self.telemetry));
        let part = |format: PictureFormat| unit_pictures_path(format.name(), unit, self.plan.hash());
        let (parquet, tar) = (part(PictureFormat::Parquet), part(PictureFormat::Webdataset));
        let encode = move || {
            let started = Instant::now();
            let rows = images.len() as u64;
            let names = Some(plan.class_names()).filter(|names| !names.is_empty());
            let mut files = Vec::new();
            // The archive is made at the end of what Parquet holds.
            if formats.contains(&PictureFormat::Parquet) || formats.contains(&PictureFormat::Npz) {
                let bytes = encode_sample_parquet(&images, names, &key_values, &parquet)?;
                files.push(PictureFile { path: parquet, bytes, rows });
            }
            if formats.contains(&PictureFormat::Webdataset) {
                let seed = plan.settings().origin.samples().map(|samples| samples.sampling.seed);
                let bytes = encode_sample_tar(&images, names, seed, &tar)?;
                files.push(PictureFile { path: tar, bytes, rows });
            }
            if formats.contains(&PictureFormat::Png) {
                files.extend(images.into_iter().map(|image| PictureFile {
                    path: picture_path(image.sample),
                    bytes: image.png,
                    rows: 1,
                }));
            }
            telemetry.record_busy(Stage::Write, started.elapsed());
            Ok::<_, PipelineError>(files)
        };
        Ok(self.cpu.spawn_cpu(encode).await?)
    }

    /// A row for each sample; nothing was read, so there is neither size nor digest.
    fn image_rows(&self, keys: &UnitKeys) -> Vec<ImageRow> {
        let side = self.plan.settings().origin.pictures().and_then(|pictures| i32::try_from(pictures.side).ok());
        let class_name = |label: Option<i32>| {
            let name = self.plan.class_names().get(usize::try_from(label?).ok()?);
            name.cloned()
        };
        keys.image_ids
            .iter()
            .zip(&keys.sources)
            .zip(&keys.labels)
            .map(|((image_id, source), &label)| ImageRow {
                image_id: image_id.clone(),
                source: source.clone(),
                label,
                class_name: class_name(label),
                width: side,
                height: side,
                bytes: 0,
                sha256: None,
                rejected: None,
                error: None,
            })
            .collect()
    }
}

/// Codes in batches of `rows`, the last one shorter.
fn cut(tokens: &TokenBatch, rows: usize) -> Result<Vec<TokenBatch>, schemas::SchemaError> {
    let tokens_per_image = tokens.tokens_per_image();
    tokens
        .codes()
        .chunks(rows.max(1) * tokens_per_image)
        .map(|codes| TokenBatch::try_new(codes.to_vec(), tokens_per_image))
        .collect()
}

/// The first view of each image.
fn first_views(rows: TokenRows) -> Result<TokenRows, schemas::SchemaError> {
    if rows.views.iter().all(|&view| view == 0) {
        return Ok(rows);
    }
    let tokens_per_image = rows.tokens.tokens_per_image();
    let (mut image_ids, mut labels, mut codes) = (Vec::new(), Vec::new(), Vec::new());
    for (row, code_row) in rows.tokens.iter_rows().enumerate().filter(|(row, _)| rows.views[*row] == 0) {
        image_ids.push(rows.image_ids[row].clone());
        labels.push(rows.labels[row]);
        codes.extend_from_slice(code_row);
    }
    let views = vec![0; image_ids.len()];
    Ok(TokenRows { image_ids, views, labels, tokens: TokenBatch::try_new(codes, tokens_per_image)? })
}
