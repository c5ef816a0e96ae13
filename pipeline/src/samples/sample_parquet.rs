//! Samples as Parquet of PNG bytes: the layout that Hugging Face `datasets` reads as an image column.
//!
//! | Column | Type | |
//! |---|---|---|
//! | `image` | `struct<bytes: binary, path: string>` | the PNG and its published file name |
//! | `label` | `int64` | the class; a `ClassLabel` where names are known |
//! | `sample` | `int64` | the number in the set |
//!
//! All nullable, as that library writes them and compares them with its description under the key `huggingface`; none is null.
//! Source: `datasets`, `Features.from_arrow_schema`.

use super::{SampleImage, class_name};
use crate::{
    PipelineError,
    parquet_batches::{self, ParquetBatches},
};
use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, StructArray, builder::BinaryBuilder, cast::AsArray,
    types::Int64Type,
};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::Compression,
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties, WriterVersion},
    },
    schema::types::ColumnPath,
};
use schemas::{SchemaError, picture_name};
use std::{collections::BTreeMap, fmt, sync::Arc, vec};

/// Rows of a row group, as `datasets` writes images: some 10 MB, what a viewer fetches to show any of them.
const ROW_GROUP_ROWS: usize = 100;

/// Rows between two looks at whether a page is full (1 MiB): at the library's own 1024 a page would be the whole group.
const WRITE_BATCH_ROWS: usize = 8;

/// Rows read at once, a few megabytes of PNG bytes.
const READ_BATCH_ROWS: usize = 32;

/// Samples as the bytes of a Parquet file. The same samples and `key_values` always give the same bytes.
///
/// `class_names`, by label, become part of the description of the columns; `key_values` are put into the file's metadata beside it;
/// `uri` is for errors.
///
/// # Errors
/// When a label has no name among those given, a number is beyond 63 bits, or the Parquet library fails.
pub fn encode_sample_parquet(
    samples: &[SampleImage],
    class_names: Option<&[String]>,
    key_values: &BTreeMap<String, String>,
    uri: &str,
) -> Result<Bytes, PipelineError> {
    let wrong = |source| parquet_error(uri, source);
    if let Some(names) = class_names {
        samples.iter().try_for_each(|sample| class_name(names, sample.label).map(drop))?;
    }
    let properties = properties(class_names, key_values);
    // Without Arrow's own copy of the schema: beside it pyarrow, and with it `datasets`, passes over the keys of the file.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), sample_schema(), options).map_err(wrong)?;
    // A group at a time, so that the columns' copy of the images is never more than that.
    for rows in samples.chunks(ROW_GROUP_ROWS) {
        writer.write(&record_batch(rows)?).map_err(wrong)?;
    }
    Ok(Bytes::from(writer.into_inner().map_err(wrong)?))
}

/// Reads a file of [`encode_sample_parquet`] back, a few rows at a time; `uri` is for errors.
///
/// # Errors
/// When the bytes are no Parquet file, or a column is missing or of another type. Each row may fail in its turn.
pub fn read_sample_parquet(bytes: Bytes, uri: &str) -> Result<SampleRows, PipelineError> {
    let builder = parquet_batches::open(bytes).map_err(|source| parquet_error(uri, source))?;
    for expected in sample_schema().fields() {
        let found = builder.schema().field_with_name(expected.name()).ok().map(Field::data_type);
        if found != Some(expected.data_type()) {
            let error = SchemaError::Column {
                column: expected.name().clone(),
                found: found.map_or("none".to_owned(), DataType::to_string),
                expected: expected.data_type().to_string(),
            };
            return Err(PipelineError::Output { uri: uri.to_owned(), problem: error.to_string() });
        }
    }
    let batches = ParquetBatches::build(|| builder.with_batch_size(READ_BATCH_ROWS).build())
        .map_err(|source| parquet_error(uri, source))?;
    Ok(SampleRows { reader: batches, uri: uri.to_owned(), batch: Vec::new().into_iter() })
}

/// The samples of a Parquet file, in the order of its rows.
pub struct SampleRows {
    reader: ParquetBatches,
    uri: String,
    batch: vec::IntoIter<SampleImage>,
}

impl fmt::Debug for SampleRows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SampleRows").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl Iterator for SampleRows {
    type Item = Result<SampleImage, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(sample) = self.batch.next() {
                return Some(Ok(sample));
            }
            let batch = self.reader.next()?.map_err(|error| parquet_error(&self.uri, error.into()));
            let samples = batch.and_then(|batch| {
                samples_of(&batch).map_err(|problem| PipelineError::Output { uri: self.uri.clone(), problem })
            });
            match samples {
                Ok(samples) => self.batch = samples.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn sample_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("image", DataType::Struct(image_fields()), true),
        Field::new("label", DataType::Int64, true),
        Field::new("sample", DataType::Int64, true),
    ]))
}

fn image_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

fn record_batch(samples: &[SampleImage]) -> Result<RecordBatch, SchemaError> {
    let refused = |problem: String| SchemaError::Document { document: "columns of samples".to_owned(), problem };
    let mut pngs = BinaryBuilder::with_capacity(samples.len(), samples.iter().map(|sample| sample.png.len()).sum());
    let mut numbers = Vec::with_capacity(samples.len());
    for sample in samples {
        pngs.append_value(&sample.png);
        numbers.push(i64::try_from(sample.sample).map_err(|error| refused(error.to_string()))?);
    }
    let paths = StringArray::from_iter_values(samples.iter().map(|sample| picture_name(sample.sample)));
    let labels = Int64Array::from_iter_values(samples.iter().map(|sample| i64::from(sample.label)));
    let parts: Vec<ArrayRef> = vec![Arc::new(pngs.finish()), Arc::new(paths)];
    let images = StructArray::try_new(image_fields(), parts, None).map_err(|error| refused(error.to_string()))?;
    let columns: Vec<ArrayRef> = vec![Arc::new(images), Arc::new(labels), Arc::new(Int64Array::from(numbers))];
    RecordBatch::try_new(sample_schema(), columns).map_err(|error| refused(error.to_string()))
}

fn samples_of(batch: &RecordBatch) -> Result<Vec<SampleImage>, String> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no column {name:?}"));
    // Types were compared when the file was opened.
    let pngs = column("image")?.as_struct().column(0).as_binary::<i32>();
    let labels = column("label")?.as_primitive::<Int64Type>();
    let numbers = column("sample")?.as_primitive::<Int64Type>();
    let rows = pngs.iter().zip(labels).zip(numbers);
    rows.map(|((png, label), number)| {
        let (Some(png), Some(label), Some(number)) = (png, label, number) else {
            return Err(format!("a null in the row of sample {number:?}"));
        };
        Ok(SampleImage {
            sample: u64::try_from(number).map_err(|_| format!("sample number {number}"))?,
            label: i32::try_from(label).map_err(|_| format!("sample {number}: label {label}"))?,
            png: Bytes::copy_from_slice(png),
        })
    })
    .collect()
}

fn properties(class_names: Option<&[String]>, key_values: &BTreeMap<String, String>) -> WriterProperties {
    let described = KeyValue::new("huggingface".to_owned(), hub_features(class_names));
    let pairs = key_values.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        // PNG bytes are compressed already, and beside them the rest is nothing.
        .set_compression(Compression::UNCOMPRESSED)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_write_batch_size(WRITE_BATCH_ROWS)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_dictionary_enabled(false)
        // As for the other tables.
        .set_created_by("restok".to_owned())
        .set_key_value_metadata(Some(std::iter::once(described).chain(pairs).collect()));
    for unordered in ["bytes", "path"] {
        // The least and the greatest PNG say nothing.
        let column = ColumnPath::new(vec!["image".into(), unordered.into()]);
        builder = builder.set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    builder.build()
}

/// What `datasets` finds under the key `huggingface`: the kind of each column beyond its storage.
fn hub_features(class_names: Option<&[String]>) -> String {
    let integer = serde_json::json!({ "dtype": "int64", "_type": "Value" });
    let label = match class_names {
        Some(names) => serde_json::json!({ "names": names, "_type": "ClassLabel" }),
        None => integer.clone(),
    };
    let features = serde_json::json!({ "image": { "_type": "Image" }, "label": label, "sample": integer });
    serde_json::json!({ "info": { "features": features } }).to_string()
}

fn parquet_error(uri: &str, source: ParquetError) -> PipelineError {
    PipelineError::Parquet { uri: uri.to_owned(), source }
}
