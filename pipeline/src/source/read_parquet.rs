//! Parquet files, page by page.
//!
//! Neither the file nor a row group is ever whole in memory: the library's blocking reader asks for one page after another, and
//! gets them from a few pieces of the object that are read ahead. A row without a path is known by its file and row.

use super::{
    FetchPermit, PinnedObject, Shared, SourceImage,
    account::SharedAccount,
    labels::FoundLabel,
    object_chunks::ObjectChunks,
    parquet_footer::{Footer, read_footer},
};
use crate::{
    PipelineError,
    background_task::{joined, spawn, stream_of_task},
    parquet_batches::{ParquetBatches, past_the_end},
};
use arrow_array::{
    Array, RecordBatch,
    cast::AsArray,
    types::{
        Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
        UInt32Type, UInt64Type,
    },
};
use arrow_schema::{ArrowError, DataType};
use bytes::{Buf, Bytes};
use futures::stream::BoxStream;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    errors::{ParquetError, Result as ParquetResult},
    file::reader::{ChunkReader, Length},
};
use schemas::{LeftOutReason, PlannedInput, RejectReason};
use std::{
    borrow::Cow,
    io::{self, BufRead, Read},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{runtime::Handle, sync::mpsc, task::spawn_blocking};

/// Pieces kept of one file: up to four columns are read in turn, each from its own place, and the first reads ahead.
const PIECES_KEPT: usize = 6;

/// Reads one range of rows.
pub(super) fn read(
    shared: Arc<Shared>,
    input: PlannedInput,
    account: SharedAccount,
) -> BoxStream<'static, Result<SourceImage, PipelineError>> {
    let (sender, receiver) = mpsc::channel(1);
    let task = spawn(async move {
        let object = PinnedObject::of_input(&shared.storage, &input)?;
        let footer = {
            let _request = shared.fetch.request().await;
            read_footer(&object, &shared.reading).await?
        };
        let rows = input.rows.clone().unwrap_or(0..u64::MAX);
        let (handle, span) = (Handle::current(), tracing::Span::current());
        let reading = spawn_blocking(move || {
            span.in_scope(|| read_rows(&shared, object, footer, rows, &account, &handle, &sender))
        });
        joined(reading.await).await
    });
    stream_of_task(task, receiver)
}

/// Reads rows on a thread that may block. It ends when nobody receives any more.
fn read_rows(
    shared: &Shared,
    object: PinnedObject,
    footer: Footer,
    rows: Range<u64>,
    account: &SharedAccount,
    handle: &Handle,
    sender: &mpsc::Sender<SourceImage>,
) -> Result<(), PipelineError> {
    let in_file = footer.rows();
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
    let (names, plan) = (footer.class_names(), &shared.class_names);
    let other_classes = !names.starts_with(plan) && !plan.starts_with(&names);
    let other_classes = other_classes.then_some(names);
    let file = ImageFile { shared, object: &object, footer: &footer, other_classes, account };
    let batches = ParquetBatches::build(|| open_rows(Arc::clone(&pages), &footer, &rows)).map_err(failed)?;
    let mut next = rows.start;
    for batch in batches {
        let batch = batch.map_err(|error| failed(arrow_to_parquet(error)))?;
        for index in 0..batch.num_rows() {
            let image = handle.block_on(async {
                tokio::select! {
                    // Else a run that ends would wait here for bytes that it holds itself.
                    () = sender.closed() => None,
                    image = file.image(&batch, index, next) => Some(image),
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
fn open_rows(pages: Arc<PageSource>, footer: &Footer, rows: &Range<u64>) -> ParquetResult<ParquetRecordBatchReader> {
    let mut groups = Vec::new();
    let (mut group_starts, mut skipped) = (0_u64, None);
    for (index, group) in footer.metadata.metadata().row_groups().iter().enumerate() {
        let group_ends = group_starts.saturating_add(u64::try_from(group.num_rows()).unwrap_or(0));
        if group_starts < rows.end && rows.start < group_ends {
            skipped.get_or_insert(rows.start - group_starts.min(rows.start));
            groups.push(index);
        }
        group_starts = group_ends;
    }
    // By the parts of their paths: a name may hold a dot.
    let schema = footer.metadata.parquet_schema();
    let wanted = |leaf: &usize| footer.columns.all().any(|column| column.is_above(schema.column(*leaf).path().parts()));
    let columns = ProjectionMask::leaves(schema, (0..schema.num_columns()).filter(wanted));
    ParquetRecordBatchReaderBuilder::new_with_metadata(PageReader(pages), footer.metadata.clone())
        .with_projection(columns)
        .with_row_groups(groups)
        .with_offset(usize::try_from(skipped.unwrap_or(0)).unwrap_or(usize::MAX))
        .with_limit(usize::try_from(rows.end - rows.start).unwrap_or(usize::MAX))
        .with_batch_size(1)
        .build()
}

/// What the rows of one file have in common.
struct ImageFile<'a> {
    shared: &'a Shared,
    object: &'a PinnedObject,
    footer: &'a Footer,
    /// Names of the classes as this file counts them, where the plan counts them otherwise: neither list begins the other.
    other_classes: Option<Vec<String>>,
    account: &'a SharedAccount,
}

impl ImageFile<'_> {
    /// Row `row` of the file, which is row `index` of `batch`.
    async fn image(&self, batch: &RecordBatch, index: usize, row: u64) -> SourceImage {
        let (shared, columns) = (self.shared, &self.footer.columns);
        let value: Option<&[u8]> = columns.bytes.at(batch, index).map(|column| match column.data_type() {
            DataType::LargeBinary => column.as_binary::<i64>().value(index),
            _ => column.as_binary::<i32>().value(index),
        });
        let size = value.map_or(0, |value| value.len() as u64);
        let path = columns.path.as_ref().and_then(|path| text(path.at(batch, index)?, index));
        let id = columns.id.as_ref().map(|id| id.at(batch, index).and_then(|column| text(column, index)));
        let source = format!("{}#row={row}", self.object.uri());
        let mut rejected = match (value, &id) {
            (None, _) => Some((RejectReason::Unreadable, "the row has no bytes".to_owned())),
            (_, Some(None)) => Some((RejectReason::Unreadable, "the row has no text or number as its key".to_owned())),
            _ => shared.check_size(size).err(),
        };
        let found = self.label(batch, index);
        if let FoundLabel::Unreadable(label) = &found {
            self.account.count(LeftOutReason::Label, || format!("{source}: {label}"));
        }
        let (label, class_name) = found.of_row(&shared.class_names).unwrap_or_else(|problem| {
            rejected.get_or_insert(problem);
            (None, None)
        });
        let (bytes, permit) = match (rejected, value) {
            (None, Some(value)) => {
                let permit = shared.fetch.hold(size).await;
                (Ok(Bytes::copy_from_slice(value)), permit)
            }
            (None, None) => (Ok(Bytes::new()), FetchPermit::none()),
            (Some(rejected), _) => (Err(rejected), FetchPermit::none()),
        };
        let image_id = match id.flatten() {
            Some(id) => id.into_owned(),
            None => shared.image_id.of_row(self.object.path(), row, path.as_deref()),
        };
        SourceImage { image_id, source, label, class_name, size, bytes, permit }
    }

    /// The row's label as the plan counts classes.
    fn label(&self, batch: &RecordBatch, index: usize) -> FoundLabel {
        let Some(column) = self.footer.columns.label.as_ref().and_then(|label| label.at(batch, index)) else {
            return FoundLabel::Absent;
        };
        match (found_label(column, index), &self.other_classes) {
            (FoundLabel::Number(number @ 0..), Some(names)) => {
                match usize::try_from(number).ok().and_then(|label| names.get(label)) {
                    Some(name) => FoundLabel::Name(name.clone()),
                    None => FoundLabel::Unreadable(format!("{number}, of the file's {} classes", names.len())),
                }
            }
            (found, _) => found,
        }
    }
}

/// A valid value as text, if it is text or a whole number.
fn text(column: &dyn Array, index: usize) -> Option<Cow<'_, str>> {
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(index).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(index).into(),
        DataType::Binary => String::from_utf8_lossy(column.as_binary::<i32>().value(index)),
        DataType::LargeBinary => String::from_utf8_lossy(column.as_binary::<i64>().value(index)),
        kind if kind.is_integer() => whole_number(column, index)?.to_string().into(),
        _ => return None,
    })
}

/// A valid value as a label.
fn found_label(column: &dyn Array, index: usize) -> FoundLabel {
    match column.data_type() {
        kind if kind.is_integer() => match whole_number(column, index) {
            // Larger than any label, and told so.
            Some(number) => FoundLabel::Number(i64::try_from(number).unwrap_or(i64::MAX)),
            None => FoundLabel::Absent,
        },
        DataType::Boolean => FoundLabel::Number(i64::from(column.as_boolean().value(index))),
        DataType::Float16 => FoundLabel::from_float(column.as_primitive::<Float16Type>().value(index).into()),
        DataType::Float32 => FoundLabel::from_float(column.as_primitive::<Float32Type>().value(index).into()),
        DataType::Float64 => FoundLabel::from_float(column.as_primitive::<Float64Type>().value(index)),
        kind => match text(column, index) {
            Some(text) => FoundLabel::from_text(&text),
            None => FoundLabel::Unreadable(format!("a value of type {kind}")),
        },
    }
}

/// A valid value of an integer column.
fn whole_number(column: &dyn Array, index: usize) -> Option<i128> {
    Some(match column.data_type() {
        DataType::Int8 => column.as_primitive::<Int8Type>().value(index).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(index).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(index).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(index).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(index).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(index).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(index).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(index).into(),
        _ => return None,
    })
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
                "a page ends at byte {}, past the end of the file",
                start.saturating_add(length as u64)
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
            if self.position >= self.pages.size {
                return Err(past_the_end());
            }
            self.current = self.pages.from(self.position).map_err(io::Error::other)?;
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count);
        self.position += count as u64;
    }
}
