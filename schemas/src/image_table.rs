//! The images table: one row for **every** image that the source listed, whether it was encoded or not.

use crate::{RejectReason, SchemaError, token_table::check_column};
use arrow_array::{
    Int32Array, Int64Array, RecordBatch, StringArray,
    cast::AsArray,
    types::{Int32Type, Int64Type},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// Value of `status` for an image that was encoded.
pub const STATUS_OK: &str = "ok";

/// Columns of the images table.
pub fn image_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("image_id", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("label", DataType::Int32, true),
        Field::new("class_name", DataType::Utf8, true),
        Field::new("width", DataType::Int32, true),
        Field::new("height", DataType::Int32, true),
        Field::new("bytes", DataType::Int64, false),
        Field::new("sha256", DataType::Utf8, true),
        Field::new("status", DataType::Utf8, false),
        Field::new("error", DataType::Utf8, true),
    ]))
}

/// One image that the source listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// Key of the image.
    pub image_id: String,
    /// Address of its bytes: an object's URI, with `#member` for a tar and `#row=N` for Parquet.
    pub source: String,
    /// Class, where the source gives one.
    pub label: Option<i32>,
    /// Name of the class, where the source gives one.
    pub class_name: Option<String>,
    /// Width of the decoded image in pixels, where it is known.
    pub width: Option<i32>,
    /// Height of the decoded image in pixels, where it is known.
    pub height: Option<i32>,
    /// Size of the encoded image in bytes.
    pub bytes: i64,
    /// SHA-256 of the encoded image, lowercase hexadecimal; absent when it was too large to be read.
    pub sha256: Option<String>,
    /// Why it has no tokens; `None` when it has.
    pub rejected: Option<RejectReason>,
    /// What the decoder said of it.
    pub error: Option<String>,
}

/// The rows as Arrow columns in [`image_schema`].
///
/// # Errors
/// When Arrow refuses the columns, which rows of this type do not give it reason to.
pub fn image_record_batch(rows: &[ImageRow]) -> Result<RecordBatch, SchemaError> {
    RecordBatch::try_new(
        image_schema(),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.image_id))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.source))),
            Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.label))),
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.class_name.as_deref()))),
            Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.width))),
            Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.height))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.bytes))),
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.sha256.as_deref()))),
            Arc::new(StringArray::from_iter_values(
                rows.iter().map(|row| row.rejected.map_or(STATUS_OK, RejectReason::name)),
            )),
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.error.as_deref()))),
        ],
    )
    .map_err(|error| SchemaError::Document { document: "images table".to_owned(), problem: error.to_string() })
}

/// Reads rows back, checking columns, types, nulls and statuses.
///
/// # Errors
/// When a column is missing, of another type, or holds a null where none may be, or a status is not known.
pub fn image_rows(batch: &RecordBatch) -> Result<Vec<ImageRow>, SchemaError> {
    for field in image_schema().fields() {
        check_column(batch, field)?;
    }
    let column = |name: &str| batch.column_by_name(name).map(Arc::clone).unwrap_or_else(|| unreachable!());
    let texts = |name: &str| -> Vec<Option<String>> {
        column(name).as_string::<i32>().iter().map(|value| value.map(str::to_owned)).collect()
    };
    let integers = |name: &str| -> Vec<Option<i32>> { column(name).as_primitive::<Int32Type>().iter().collect() };
    let (image_ids, sources, class_names) = (texts("image_id"), texts("source"), texts("class_name"));
    let (digests, statuses, errors) = (texts("sha256"), texts("status"), texts("error"));
    let (labels, widths, heights) = (integers("label"), integers("width"), integers("height"));
    let bytes = column("bytes");
    let bytes = bytes.as_primitive::<Int64Type>();
    (0..batch.num_rows())
        .map(|row| {
            let status = statuses[row].as_deref().unwrap_or_default();
            Ok(ImageRow {
                image_id: image_ids[row].clone().unwrap_or_default(),
                source: sources[row].clone().unwrap_or_default(),
                label: labels[row],
                class_name: class_names[row].clone(),
                width: widths[row],
                height: heights[row],
                bytes: bytes.value(row),
                sha256: digests[row].clone(),
                rejected: if status == STATUS_OK { None } else { Some(status.parse()?) },
                error: errors[row].clone(),
            })
        })
        .collect()
}
