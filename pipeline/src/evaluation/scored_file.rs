//! What a scorer said of a unit, as one Parquet file: a row for each variant and image, variants after each other, images in order.
//!
//! | Column | Type | |
//! |---|---|---|
//! | `image_id` | string | |
//! | `label` | int32, nullable | |
//! | `format` | string | how its bytes lay in the set |
//! | `kept_tokens` | int16, nullable | absent for images as they are |
//! | `pool` | list of 2,048 float32, nullable | |
//! | `spatial` | list of 2,023 float32, nullable | |
//! | `psnr`, `ssim`, `ms_ssim`, `lpips` | float64, nullable | |
//! | `tokens` | list of int16, nullable | on rows of the first variant; no such column where nothing was encoded |
//!
//! Nothing is compressed and features have no dictionary. Their mantissas are noise to a codec; LZ4, Snappy and Zstandard find a quarter
//! to a third in the signs and zeros, and take twice to three times as long to write the file, which is read once or twice.

use crate::PipelineError;
use arrow_array::{
    ArrayRef, FixedSizeListArray, Float32Array, Float64Array, Int16Array, Int32Array, RecordBatch, StringArray,
    new_null_array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties, WriterVersion},
    },
};
use schemas::{ImageMeasures, KEY_DEVICE_KIND, KEY_SCHEMA_VERSION, KEY_UNIT, SCHEMA_VERSION, ScoredImages, ScoredUnit};
use std::{collections::BTreeMap, sync::Arc};

/// Metadata key of the evaluation's key.
pub(super) const KEY_SCORING: &str = "restok.scoring";
/// Metadata key of the number of units that the set is divided into.
pub(super) const KEY_UNITS: &str = "restok.units";
/// Metadata key of the number of images that could not be read.
pub(super) const KEY_REJECTED: &str = "restok.rejected";
/// Metadata key of the variants: a JSON list of the tokens that each was reconstructed from, null for images as they are.
pub(super) const KEY_VARIANTS: &str = "restok.faces";

/// Rows of a page, so that none of features is much above the usual 1 MiB.
const PAGE_ROWS: usize = 128;

/// What a file says of itself besides its unit.
#[derive(Clone, Debug)]
pub(super) struct FileIdentity {
    pub(super) key: String,
    pub(super) units: u32,
    pub(super) device_kind: String,
    pub(super) libtorch: String,
}

/// Columns of the file; those of `tokens` where there are `tokens_per_image` of them.
pub(super) fn scored_schema(tokens_per_image: Option<usize>) -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    let mut fields = vec![
        Field::new("image_id", DataType::Utf8, false),
        Field::new("label", DataType::Int32, true),
        Field::new("format", DataType::Utf8, false),
        Field::new("kept_tokens", DataType::Int16, true),
        Field::new("pool", list_of(DataType::Float32, ScoredImages::POOL), true),
        Field::new("spatial", list_of(DataType::Float32, ScoredImages::SPATIAL), true),
        number("psnr"),
        number("ssim"),
        number("ms_ssim"),
        number("lpips"),
    ];
    fields.extend(tokens_per_image.map(|tokens| Field::new("tokens", list_of(DataType::Int16, tokens), true)));
    Arc::new(Schema::new(fields))
}

fn list_of(element: DataType, length: usize) -> DataType {
    let element = Arc::new(Field::new("element", element, false));
    DataType::FixedSizeList(element, i32::try_from(length).unwrap_or(i32::MAX))
}

/// A unit as the bytes of its file. The same unit and identity always give the same bytes; `uri` is for errors.
///
/// # Errors
/// When a variant does not fit the rows, or the Parquet library fails.
pub(super) fn encode(
    scored: &ScoredUnit,
    unit: u32,
    identity: &FileIdentity,
    uri: &str,
) -> Result<Bytes, PipelineError> {
    let wrong = |source: ParquetError| PipelineError::Parquet { uri: uri.to_owned(), source };
    let kept: Vec<Option<u16>> = scored.variants.iter().map(|variant| variant.kept_tokens).collect();
    let metadata = metadata(&kept, unit, scored.rejected, identity);
    let tokens_per_image = scored.tokens.as_ref().map(schemas::TokenBatch::tokens_per_image);
    let schema = scored_schema(tokens_per_image);
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_coerce_types(true)
        .set_created_by("restok".to_owned())
        .set_key_value_metadata(Some(metadata.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect()))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties)).map_err(wrong)?;
    // A variant at a time, so that the columns' copy of the features is never more than that.
    for number in 0..scored.variants.len() {
        let columns = face_columns(scored, number, &schema)?;
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|error| wrong(error.into()))?;
        writer.write(&batch).map_err(wrong)?;
    }
    Ok(Bytes::from(writer.into_inner().map_err(wrong)?))
}

fn metadata(kept: &[Option<u16>], unit: u32, rejected: u64, identity: &FileIdentity) -> BTreeMap<String, String> {
    let variants: Vec<String> =
        kept.iter().map(|kept| kept.map_or("null".to_owned(), |kept| kept.to_string())).collect();
    [
        (KEY_SCHEMA_VERSION, SCHEMA_VERSION.to_string()),
        (KEY_SCORING, identity.key.clone()),
        (KEY_UNIT, unit.to_string()),
        (KEY_UNITS, identity.units.to_string()),
        (KEY_REJECTED, rejected.to_string()),
        (KEY_VARIANTS, format!("[{}]", variants.join(","))),
        (KEY_DEVICE_KIND, identity.device_kind.clone()),
        ("restok.libtorch", identity.libtorch.clone()),
        ("restok.decoder", crate::decoder_versions().to_owned()),
        ("restok.version", env!("CARGO_PKG_VERSION").to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The columns of one variant, in the order of the schema.
fn face_columns(scored: &ScoredUnit, number: usize, schema: &Schema) -> Result<Vec<ArrayRef>, PipelineError> {
    let (rows, variant) = (&scored.rows, &scored.variants[number]);
    variant.check(rows.len())?;
    let kept = variant.kept_tokens.map(i16::try_from).transpose().map_err(|_| schemas::SchemaError::Shape {
        what: "kept tokens",
        found: format!("{:?}", variant.kept_tokens),
        expected: format!("at most {}", i16::MAX),
    })?;
    let measures = |value: fn(&ImageMeasures) -> Option<f64>| -> ArrayRef {
        match variant.measures.is_empty() {
            true => Arc::new(Float64Array::new_null(rows.len())),
            false => Arc::new(Float64Array::from_iter(variant.measures.iter().map(value))),
        }
    };
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.image_id))),
        Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.label))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.format))),
        Arc::new(Int16Array::from(vec![kept; rows.len()])),
        list(schema, "pool", Float32Array::from(variant.pool.clone()), rows.len())?,
        list(schema, "spatial", Float32Array::from(variant.spatial.clone()), rows.len())?,
        measures(|measures| Some(measures.psnr)),
        measures(|measures| Some(measures.ssim)),
        measures(|measures| measures.ms_ssim),
        measures(|measures| measures.lpips),
    ];
    if let Some(tokens) = &scored.tokens {
        let codes = if number == 0 { tokens.codes().to_vec() } else { Vec::new() };
        columns.push(list(schema, "tokens", Int16Array::from(codes), rows.len())?);
    }
    Ok(columns)
}

/// A column of lists; all null when there are no values for the rows.
fn list(
    schema: &Schema,
    name: &str,
    values: impl arrow_array::Array + 'static,
    rows: usize,
) -> Result<ArrayRef, PipelineError> {
    let wrong = |error: ArrowError| schemas::SchemaError::Document {
        document: format!("column {name:?} of scored images"),
        problem: error.to_string(),
    };
    let data_type = schema.field_with_name(name).map_err(wrong)?.data_type();
    let DataType::FixedSizeList(element, length) = data_type else { unreachable!("the schema has lists there") };
    if values.is_empty() && rows > 0 {
        return Ok(new_null_array(data_type, rows));
    }
    let list = FixedSizeListArray::try_new(Arc::clone(element), *length, Arc::new(values), None).map_err(wrong)?;
    Ok(Arc::new(list))
}
