//! Parquet files, page by page.
//!
//! Neither the file nor a row group is ever whole in memory: the library's blocking reader asks for one page after another, and
//! gets them from a few pieces of the object that are read ahead. A row without a path is known by its file and row.

use super::{
    FetchPermit, PinnedObject, Shared, SourceImage, SourceImages,
    object_chunks::ObjectChunks,
    parquet_footer::{IMAGE, LABEL, read_footer},
    spawn, stream_of_task,
};
use crate::PipelineError;
use arrow_array::{
    Array, RecordBatch,
    cast::AsArray,
    types::{Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};
use arrow_schema::{ArrowError, DataType};
use bytes::{Buf, Bytes};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    errors::{ParquetError, Result as ParquetResult},
    file::reader::{ChunkReader, Length},
};
use schemas::{PlannedInput, RejectReason};
use std::{
    io::{self, BufRead, Read},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{runtime::Handle, sync::mpsc, task::spawn_blocking};

/// Pieces kept of one file: three columns are read in turn, each from its own place, and the first reads ahead.
const PIECES_KEPT: usize = 6;

/// Reads one range of rows.
pub(super) fn read(shared: Arc<Shared>, input: PlannedInput) -> SourceImages {
    let (sender, receiver) = mpsc::channel(1);
    let task = spawn(async move {
        let object = PinnedObject::of_input(&shared.storage, &input)?;
        let footer = {
            let _request = shared.fetch.request().await;
            read_footer(&object).await?
        };
        let rows = input.rows.clone().unwrap_or(0..u64::MAX);
        let (handle, span) = (Handle::current(), tracing::Span::current());
        let reading =
            spawn_blocking(move || span.in_scope(|| read_rows(&shared, object, footer, rows, &handle, &sender)));
        super::joined(reading.await).await
    });
    stream_of_task(task, receiver)
}

/// Reads rows on a thread that may block. It ends when nobody receives any more.
fn read_rows(
    shared: &Shared,
    object: PinnedObject,
    footer: ArrowReaderMetadata,
    rows: Range<u64>,
    handle: &Handle,
    sender: &mpsc::Sender<SourceImage>,
) -> Result<(), PipelineError> {
    let in_file = u64::try_from(footer.metadata().file_metadata().num_rows()).unwrap_or(0);
    let rows = rows.start..if rows.end == u64::MAX { in_file } else { rows.end };
    if rows.end > in_file {
        let problem = format!("it has {in_file} rows, planned up to {}", rows.end);
        return Err(PipelineError::Source { uri: object.uri().to_owned(), problem });
    }
    let chunks = ObjectChunks::new(object.clone(), shared.fetch.clone(), PIECES_KEPT);
    let pages = Arc::new(PageSource {
        size: object.size(),
        chunks: Mutex::new(chunks),
        failure: Mutex::default(),
        handle: handle.clone(),
    });
    let failed = |source| {
        pages.take_failure().unwrap_or_else(|| PipelineError::Parquet { uri: object.uri().to_owned(), source })
    };
    let reader = open_rows(Arc::clone(&pages), footer, &rows).map_err(failed)?;
    let mut next = rows.start;
    for batch in reader {
        let batch = batch.map_err(|error| failed(arrow_to_parquet(error)))?;
        for index in 0..batch.num_rows() {
            let image = handle.block_on(async {
                tokio::select! {
                    // Else a run that ends would wait here for bytes that it holds itself.
                    () = sender.closed() => None,
                    image = image_of_row(shared, &object, &batch, index, next) => Some(image),
                }
            });
            let Some(image) = image else { return Ok(()) };
            if sender.blocking_send(image).is_err() {
                return Ok(());
            }
            next += 1;
        }
    }
    if next != rows.end {
        let problem = format!("its pages end at row {next}, its footer promises {}", rows.end);
        return Err(PipelineError::Source { uri: object.uri().to_owned(), problem });
    }
    Ok(())
}

/// A reader of `rows`, one row at a time: an image is large, and a row's overhead is nothing beside it.
fn open_rows(
    pages: Arc<PageSource>,
    footer: ArrowReaderMetadata,
    rows: &Range<u64>,
) -> ParquetResult<ParquetRecordBatchReader> {
    let mut groups = Vec::new();
    let (mut group_starts, mut skipped) = (0_u64, None);
    for (index, group) in footer.metadata().row_groups().iter().enumerate() {
        let group_ends = group_starts + u64::try_from(group.num_rows()).unwrap_or(0);
        if group_starts < rows.end && rows.start < group_ends {
            skipped.get_or_insert(rows.start - group_starts.min(rows.start));
            groups.push(index);
        }
        group_starts = group_ends;
    }
    let columns = ProjectionMask::columns(footer.parquet_schema(), ["image.bytes", "image.path", LABEL]);
    ParquetRecordBatchReaderBuilder::new_with_metadata(PageReader(pages), footer)
        .with_projection(columns)
        .with_row_groups(groups)
        .with_offset(usize::try_from(skipped.unwrap_or(0)).unwrap_or(usize::MAX))
        .with_limit(usize::try_from(rows.end - rows.start).unwrap_or(usize::MAX))
        .with_batch_size(1)
        .build()
}

async fn image_of_row(
    shared: &Shared,
    object: &PinnedObject,
    batch: &RecordBatch,
    index: usize,
    row: u64,
) -> SourceImage {
    let image = batch.column_by_name(IMAGE).and_then(|column| column.as_struct_opt());
    let part = |name: &str| {
        let image = image?;
        let column = image.column_by_name(name)?;
        (image.is_valid(index) && column.is_valid(index)).then_some(column)
    };
    let value: Option<&[u8]> = part("bytes").map(|column| match column.data_type() {
        DataType::LargeBinary => column.as_binary::<i64>().value(index),
        _ => column.as_binary::<i32>().value(index),
    });
    let path: Option<&str> = part("path").map(|column| match column.data_type() {
        DataType::LargeUtf8 => column.as_string::<i64>().value(index),
        _ => column.as_string::<i32>().value(index),
    });
    let size = value.map_or(0, |value| value.len() as u64);
    let bytes = match value {
        Some(_) => shared.check_size(size),
        None => Err((RejectReason::Unreadable, "the row has no bytes".to_owned())),
    };
    let (bytes, permit) = match (bytes, value) {
        (Ok(()), Some(value)) => {
            let permit = shared.fetch.hold(size).await;
            (Ok(Bytes::copy_from_slice(value)), permit)
        }
        (Ok(()), None) => (Ok(Bytes::new()), FetchPermit::none()),
        (Err(rejected), _) => (Err(rejected), FetchPermit::none()),
    };
    let label = batch.column_by_name(LABEL).and_then(|column| label(column, index));
    SourceImage {
        image_id: match path {
            Some(path) => shared.image_id.image_id(&format!("{}/{path}", object.stem())),
            None => format!("{}-row-{row}", object.stem()),
        },
        source: format!("{}#row={row}", object.uri()),
        label,
        class_name: shared.class_name(label),
        size,
        bytes,
        permit,
    }
}

/// A label; negative ones stand for "unknown", as in the test sets of the hub.
fn label(column: &dyn Array, index: usize) -> Option<i32> {
    if column.is_null(index) {
        return None;
    }
    let wide = match column.data_type() {
        DataType::Int8 => i64::from(column.as_primitive::<Int8Type>().value(index)),
        DataType::Int16 => i64::from(column.as_primitive::<Int16Type>().value(index)),
        DataType::Int32 => i64::from(column.as_primitive::<Int32Type>().value(index)),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(index),
        DataType::UInt8 => i64::from(column.as_primitive::<UInt8Type>().value(index)),
        DataType::UInt16 => i64::from(column.as_primitive::<UInt16Type>().value(index)),
        DataType::UInt32 => i64::from(column.as_primitive::<UInt32Type>().value(index)),
        DataType::UInt64 => i64::try_from(column.as_primitive::<UInt64Type>().value(index)).ok()?,
        _ => return None,
    };
    i32::try_from(wide).ok().filter(|&label| label >= 0)
}

fn arrow_to_parquet(error: ArrowError) -> ParquetError {
    match error {
        ArrowError::ParquetError(text) => ParquetError::General(text),
        error => ParquetError::ArrowError(error.to_string()),
    }
}

/// The object's bytes for the library's blocking reader.
#[derive(Debug)]
struct PageSource {
    size: u64,
    /// Only the one reading thread takes it.
    chunks: Mutex<ObjectChunks>,
    /// What the store said when reading failed. The library would turn it into text.
    failure: Mutex<Option<PipelineError>>,
    handle: Handle,
}

impl PageSource {
    fn take_failure(&self) -> Option<PipelineError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep_failure(&self, error: PipelineError) -> ParquetError {
        let told = ParquetError::General(error.to_string());
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        told
    }

    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.block_on(chunks.from(start)).map_err(|error| self.keep_failure(error))
    }
}

#[derive(Debug)]
struct PageReader(Arc<PageSource>);

impl Length for PageReader {
    fn len(&self) -> u64 {
        self.0.size
    }
}

impl ChunkReader for PageReader {
    type T = BytesFrom;

    fn get_read(&self, start: u64) -> ParquetResult<BytesFrom> {
        Ok(BytesFrom { pages: Arc::clone(&self.0), position: start, current: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        if start.saturating_add(length as u64) > self.0.size {
            return Err(ParquetError::EOF(format!(
                "a page ends at byte {}, behind the file's end",
                start + length as u64
            )));
        }
        let mut chunks = self.0.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.handle.block_on(chunks.exactly(start, length as u64)).map_err(|error| self.0.keep_failure(error))
    }
}

/// The bytes from one position on.
#[derive(Debug)]
struct BytesFrom {
    pages: Arc<PageSource>,
    position: u64,
    current: Bytes,
}

impl Read for BytesFrom {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for BytesFrom {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() {
            self.current = self.pages.from(self.position).map_err(io::Error::other)?;
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count);
        self.position += count as u64;
    }
}
