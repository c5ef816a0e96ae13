//! The evaluation archive from the samples' Parquet files: read, decoded and sent on block by block.
//!
//! ```text
//! file (one ahead) ─▶ digest ─▶ rows ─▶ decode, all threads ─▶ order, CRC, SHA-256 ─▶ parts of the upload
//! ```
//! In memory at once: the file in use and the next, two blocks of pixels, and what [`Storage::put_stream`] holds.

use super::{
    SampleImage,
    sample_parquet::{SampleRows, read_sample_parquet},
};
use crate::{
    DecodeLimits, NpzEncoder, NpzShape, PipelineError, PutStreamOutcome, Storage,
    background_task::{joined, spawn},
    cpu_pool::CpuPool,
    decode_image,
};
use bytes::Bytes;
use futures::{future::try_join_all, stream};
use schemas::{FileRecord, sha256_hex};
use std::slice;
use tokio_util::task::AbortOnDropHandle;

/// Pixels of a block in bytes: a part of the upload, and enough images for every thread.
const BLOCK_BYTES: usize = 16 << 20;

/// A PNG may be larger than its pixels, by its chunks and where nothing could be compressed; not by more than this in bytes.
const PNG_OVERHEAD_BYTES: usize = 64 << 10;

/// The archive, as it lies in the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssembledNpz {
    /// Path, size, SHA-256, and a row for each image.
    pub record: FileRecord,
    /// Whether this call wrote it. Otherwise it was there already, with the same bytes.
    pub created: bool,
}

/// Writes the pixels of all samples, in the order of `files` and of their rows, to one NPZ archive at `path`: `arr_0`, uint8,
/// `[rows, size, size, 3]`. Sample 0 must come first, and so on.
///
/// `decode_threads` of 0 means one a core. `progress` is told the images done so far, again and again.
///
/// # Errors
/// [`PipelineError::Output`], naming the file, when it is not the one of its record, its samples are not the next ones or not
/// `size` by `size` pixels, or the files do not hold `rows` in all, or another archive is at `path` already; storage errors. Nothing new
/// is then at `path`.
pub async fn assemble_npz(
    output: &Storage,
    files: &[FileRecord],
    rows: u64,
    size: usize,
    path: &str,
    decode_threads: usize,
    progress: impl Fn(u64) + Send + Sync,
) -> Result<AssembledNpz, PipelineError> {
    let listed: u64 = files.iter().map(|file| file.rows).sum();
    if listed != rows {
        let problem = format!("{listed} samples in {} files, expected {rows}", files.len());
        return Err(PipelineError::Output { uri: output.uri(path), problem });
    }
    let shape = NpzShape { rows, height: size, width: size };
    let cpu = CpuPool::try_new(decode_threads)?;
    let new_assembly = || Assembly {
        output: output.clone(),
        cpu: cpu.clone(),
        shape,
        files: files.iter(),
        ahead: None,
        current: None,
        encoder: None,
        sha256: None,
        rows: 0,
        progress: &progress,
    };
    let mut assembly = new_assembly();
    let pieces = stream::try_unfold(&mut assembly, |assembly| async move {
        let piece = assembly.next_piece().await?;
        Ok(piece.map(|piece| (piece, assembly)))
    });
    let outcome = output.put_stream(path, shape.archive_bytes(), pieces).await?;
    let created = outcome == PutStreamOutcome::Created;
    if !created {
        // Something of the right size is there. Whether it is this archive, only its bytes tell.
        assembly = new_assembly();
        while assembly.next_piece().await?.is_some() {}
    }
    let bytes = shape.archive_bytes();
    let sha256 = assembly.sha256.unwrap_or_else(|| unreachable!("the last piece was made"));
    if !created {
        let (_, there) = output.sha256(path).await?;
        if there != sha256 {
            let problem = format!(
                "another archive stands here: its SHA-256 is {there}, that of the pictures' is {sha256}; remove it and finalize again"
            );
            return Err(PipelineError::Output { uri: output.uri(path), problem });
        }
    }
    Ok(AssembledNpz { record: FileRecord { path: path.to_owned(), bytes, sha256, rows }, created })
}

/// Where the making of an archive stands.
struct Assembly<'a, Progress> {
    output: Storage,
    cpu: CpuPool,
    shape: NpzShape,
    files: slice::Iter<'a, FileRecord>,
    /// The file that is being read.
    ahead: Option<AbortOnDropHandle<Result<OpenFile, PipelineError>>>,
    current: Option<OpenFile>,
    /// Absent before the first piece.
    encoder: Option<NpzEncoder>,
    /// Of the whole archive, from the last piece on.
    sha256: Option<String>,
    /// Samples whose pixels went out.
    rows: u64,
    progress: Progress,
}

/// A file whose digest is right, and its samples that were not yet used.
#[derive(Debug)]
struct OpenFile {
    uri: String,
    samples: SampleRows,
    /// How many samples its record promises, and how many came.
    expected: u64,
    taken: u64,
}

impl<Progress: Fn(u64)> Assembly<'_, Progress> {
    /// The archive's next bytes.
    async fn next_piece(&mut self) -> Result<Option<Bytes>, PipelineError> {
        if self.sha256.is_some() {
            return Ok(None);
        }
        let Some(mut encoder) = self.encoder.take() else {
            let (encoder, front) = NpzEncoder::start(self.shape);
            self.encoder = Some(encoder);
            self.ahead = self.read_ahead();
            return Ok(Some(front));
        };
        let Some(images) = self.next_images().await? else {
            let (end, sha256) = encoder.finish()?;
            self.sha256 = Some(sha256);
            return Ok(Some(end));
        };
        let hashed = self.cpu.spawn_cpu(move || {
            let pixels = images.concat();
            encoder.add_rows(&pixels)?;
            Ok::<_, PipelineError>((encoder, pixels))
        });
        let (encoder, pixels) = hashed.await?;
        self.encoder = Some(encoder);
        (self.progress)(self.rows);
        Ok(Some(Bytes::from(pixels)))
    }

    /// The pixels of the next few samples, `[size, size, 3]` each.
    async fn next_images(&mut self) -> Result<Option<Vec<Vec<u8>>>, PipelineError> {
        let count = (BLOCK_BYTES / self.shape.row_bytes().max(1)).max(1);
        loop {
            let file = match (self.current.take(), self.ahead.take()) {
                (Some(file), ahead) => {
                    self.ahead = ahead;
                    file
                }
                (None, Some(ahead)) => {
                    let file = joined(ahead.await).await?;
                    self.ahead = self.read_ahead();
                    file
                }
                (None, None) => return Ok(None),
            };
            let first = self.rows;
            let (file, samples) = self.cpu.spawn_cpu(move || file.take(count, first)).await?;
            if samples.is_empty() {
                continue;
            }
            self.rows += samples.len() as u64;
            let decoding = samples.into_iter().map(|sample| {
                let (size, uri) = (self.shape.width, file.uri.clone());
                self.cpu.spawn_cpu(move || decode_sample(&sample, size, &uri))
            });
            let images = try_join_all(decoding).await?;
            self.current = Some(file);
            return Ok(Some(images));
        }
    }

    /// Begins to read the next file, so that it is there when it is needed.
    fn read_ahead(&mut self) -> Option<AbortOnDropHandle<Result<OpenFile, PipelineError>>> {
        let record = self.files.next()?.clone();
        Some(spawn(open_file(self.output.clone(), self.cpu.clone(), record)))
    }
}

impl OpenFile {
    /// At most `count` samples, which must be number `first` and those after it; none at the file's end.
    fn take(mut self, count: usize, first: u64) -> Result<(Self, Vec<SampleImage>), PipelineError> {
        let samples = self.samples.by_ref().take(count).collect::<Result<Vec<_>, _>>()?;
        if let Some((found, expected)) =
            samples.iter().map(|sample| sample.sample).zip(first..).find(|(found, expected)| found != expected)
        {
            return Err(self.wrong(format!("sample {found} where sample {expected} must come")));
        }
        self.taken += samples.len() as u64;
        if self.taken > self.expected || (samples.is_empty() && self.taken < self.expected) {
            let more = if samples.is_empty() { "" } else { " or more" };
            return Err(self.wrong(format!("{}{more} samples, but its marker says {}", self.taken, self.expected)));
        }
        Ok((self, samples))
    }

    fn wrong(&self, problem: String) -> PipelineError {
        PipelineError::Output { uri: self.uri.clone(), problem }
    }
}

/// Reads a file whole and holds it to its digest.
async fn open_file(output: Storage, cpu: CpuPool, record: FileRecord) -> Result<OpenFile, PipelineError> {
    let uri = output.uri(&record.path);
    let bytes = output.get(&record.path).await?;
    let opened = cpu.spawn_cpu(move || {
        let digest = sha256_hex(&bytes);
        if digest != record.sha256 {
            let problem = format!("its SHA-256 is {digest}, but its marker says {}", record.sha256);
            return Err(PipelineError::Output { uri, problem });
        }
        let samples = read_sample_parquet(bytes, &uri)?;
        Ok(OpenFile { uri, samples, expected: record.rows, taken: 0 })
    });
    opened.await
}

/// A sample's pixels, `[size, size, 3]`.
fn decode_sample(sample: &SampleImage, size: usize, uri: &str) -> Result<Vec<u8>, PipelineError> {
    let wrong = |problem: String| {
        let problem = format!("sample {}: {problem}", sample.sample);
        PipelineError::Output { uri: uri.to_owned(), problem }
    };
    let pixels = size * size;
    let limits = DecodeLimits { max_bytes: (4 * pixels + PNG_OVERHEAD_BYTES) as u64, max_pixels: pixels as u64 };
    let image = decode_image(&sample.png, &limits).map_err(|failure| wrong(failure.to_string()))?;
    if (image.width as usize, image.height as usize) != (size, size) {
        return Err(wrong(format!("{}x{} pixels, expected {size}x{size}", image.width, image.height)));
    }
    Ok(image.pixels)
}
