//! Parquet bytes back to rows, with every column checked against its schema.

use super::encode::parquet_error;
use crate::{
    PipelineError,
    parquet_batches::{self, ParquetBatches},
};
use arrow_array::RecordBatch;
use bytes::Bytes;
use schemas::{ImageRow, TokenBatch, TokenColumns, TokenRows, image_rows};
use std::collections::BTreeMap;

/// Rows decoded at once; bounds the copies that Arrow makes on the way.
const BATCH_ROWS: usize = 8192;

/// Metadata and rows of a part of the tokens table; `uri` is for errors.
///
/// # Errors
/// When the bytes are no Parquet file, or a column is not what the schema says.
pub(crate) fn decode_tokens(
    bytes: Bytes,
    tokens_per_image: usize,
    uri: &str,
) -> Result<(BTreeMap<String, String>, TokenRows), PipelineError> {
    let (metadata, empty, reader) = open(bytes, uri)?;
    let mut rows = checked(uri, TokenRows::from_record_batch(&empty, tokens_per_image))?;
    let mut codes = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| parquet_error(uri, error.into()))?;
        let part = checked(uri, TokenRows::from_record_batch(&batch, tokens_per_image))?;
        rows.image_ids.extend(part.image_ids);
        rows.views.extend(part.views);
        rows.labels.extend(part.labels);
        codes.extend_from_slice(part.tokens.codes());
    }
    rows.tokens = checked(uri, TokenBatch::try_new(codes, tokens_per_image))?;
    Ok((metadata, rows))
}

/// Shows the rows of a part of the tokens table to `each`, some thousands at a time, without a copy; `uri` is for errors.
///
/// # Errors
/// As [`decode_tokens`], and those of `each`.
pub(crate) fn visit_tokens(
    bytes: Bytes,
    tokens_per_image: usize,
    uri: &str,
    mut each: impl FnMut(&TokenColumns) -> Result<(), PipelineError>,
) -> Result<(), PipelineError> {
    let (_, empty, reader) = open(bytes, uri)?;
    checked(uri, TokenColumns::from_record_batch(&empty, tokens_per_image))?;
    for batch in reader {
        let batch = batch.map_err(|error| parquet_error(uri, error.into()))?;
        each(&checked(uri, TokenColumns::from_record_batch(&batch, tokens_per_image))?)?;
    }
    Ok(())
}

/// Metadata and rows of a part of the images table; `uri` is for errors.
///
/// # Errors
/// When the bytes are no Parquet file, or a column is not what the schema says.
pub(crate) fn decode_images(
    bytes: Bytes,
    uri: &str,
) -> Result<(BTreeMap<String, String>, Vec<ImageRow>), PipelineError> {
    let (metadata, empty, reader) = open(bytes, uri)?;
    let mut rows = checked(uri, image_rows(&empty))?;
    for batch in reader {
        let batch = batch.map_err(|error| parquet_error(uri, error.into()))?;
        rows.extend(checked(uri, image_rows(&batch))?);
    }
    Ok((metadata, rows))
}

/// The file's `restok.*` metadata, a batch without rows in its schema (so that a file without rows is checked too), and a
/// reader of the rest.
fn open(bytes: Bytes, uri: &str) -> Result<(BTreeMap<String, String>, RecordBatch, ParquetBatches), PipelineError> {
    let builder = parquet_batches::open(bytes).map_err(|source| parquet_error(uri, source))?;
    let metadata = builder
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .into_iter()
        .flatten()
        .filter(|pair| pair.key.starts_with("restok."))
        .filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?)))
        .collect();
    let empty = RecordBatch::new_empty(std::sync::Arc::clone(builder.schema()));
    let batches = ParquetBatches::build(|| builder.with_batch_size(BATCH_ROWS).build())
        .map_err(|source| parquet_error(uri, source))?;
    Ok((metadata, empty, batches))
}

/// Says in which file the data do not fit their schema.
fn checked<T>(uri: &str, result: Result<T, schemas::SchemaError>) -> Result<T, PipelineError> {
    result.map_err(|error| PipelineError::Output { uri: uri.to_owned(), problem: error.to_string() })
}
