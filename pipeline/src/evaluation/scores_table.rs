//! The lines of evaluations as columns: every field of a record and of its scores, flat.
//!
//! The record's own serialisation gives and takes the values, so that a field and its column have one name. What a column is of must
//! be said here; a test holds the two lists together.

use crate::{
    PipelineError,
    parquet_batches::{self, ParquetBatches},
};
use arrow_array::{
    Array, ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array,
    builder::{Float64Builder, ListBuilder, StringBuilder, UInt64Builder},
    cast::AsArray,
    types::{Float64Type, UInt64Type},
};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{WriterProperties, WriterVersion},
    },
};
use schemas::{EvaluationRecord, KEY_SCHEMA_VERSION, SCHEMA_VERSION};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The field of a record whose own fields are columns too.
const SCORES: &str = "scores";
/// The field of scores whose own fields, but for the confidence, are two columns each.
const INTERVALS: &str = "intervals";
const CONFIDENCE: &str = "confidence";
/// What is added to the name of a score for the bounds of its interval.
const BOUNDS: [&str; 2] = ["lower", "upper"];

/// What a column is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Count,
    Number,
    Texts,
    Counts,
    Numbers,
}
use Kind::{Count, Counts, Number, Numbers, Text, Texts};

/// What was scored.
const SET_COLUMNS: [(&str, Kind); 6] = [
    ("evaluation", Text),
    ("protocol", Text),
    ("deviations", Texts),
    ("source", Text),
    ("images", Count),
    ("kept_tokens", Count),
];

/// Fields of the scores.
const SCORE_COLUMNS: [(&str, Kind); 13] = [
    ("fid", Number),
    ("sfid", Number),
    ("inception_score", Number),
    ("precision", Number),
    ("recall", Number),
    ("psnr", Number),
    ("ssim", Number),
    ("ms_ssim", Number),
    ("lpips", Number),
    ("codes_used", Count),
    ("entropy_bits", Number),
    ("codes_used_by_level", Counts),
    ("entropy_bits_by_level", Numbers),
];

/// What made them.
const PROVENANCE_COLUMNS: [(&str, Kind); 30] = [
    ("source_digest", Text),
    ("height", Count),
    ("width", Count),
    ("max_images", Count),
    ("crop", Text),
    ("tokenizer", Text),
    ("tokenizer_sha256", Text),
    ("codebook_size", Count),
    ("generator", Text),
    ("generator_sha256", Text),
    ("guidance", Number),
    ("guidance_schedule", Text),
    ("top_p", Number),
    ("top_k", Count),
    ("temperature", Number),
    ("seed", Count),
    ("classes", Count),
    ("sampling", Text),
    ("network_precision", Text),
    ("decoder_precision", Text),
    ("reference", Text),
    ("reference_sha256", Text),
    ("reference_images", Count),
    ("extractor_sha256", Text),
    ("extractor_precision", Text),
    ("lpips_sha256", Text),
    ("batch_size", Count),
    ("device_kind", Text),
    ("libtorch", Text),
    ("restok", Text),
];

/// Fields of the scores that later versions added: at the end, so that earlier columns keep their places.
const ADDED_SCORE_COLUMNS: [(&str, Kind); 8] = [
    ("kid", Number),
    ("kid_deviation", Number),
    ("mind", Number),
    ("density", Number),
    ("coverage", Number),
    ("fid_infinity", Number),
    ("vendi_score", Number),
    ("authpct", Number),
];

/// Confidence and bounds of the intervals.
const INTERVAL_COLUMNS: [(&str, Kind); 17] = [
    (CONFIDENCE, Number),
    ("fid_lower", Number),
    ("fid_upper", Number),
    ("sfid_lower", Number),
    ("sfid_upper", Number),
    ("inception_score_lower", Number),
    ("inception_score_upper", Number),
    ("kid_lower", Number),
    ("kid_upper", Number),
    ("precision_lower", Number),
    ("precision_upper", Number),
    ("recall_lower", Number),
    ("recall_upper", Number),
    ("density_lower", Number),
    ("density_upper", Number),
    ("coverage_lower", Number),
    ("coverage_upper", Number),
];

/// What made them, added by later versions.
const ADDED_PROVENANCE_COLUMNS: [(&str, Kind); 1] = [("score_settings", Text)];

/// Records as the bytes of a Parquet file. The same records always give the same bytes; `uri` is for errors.
pub(super) fn encode(records: &[EvaluationRecord], uri: &str) -> Result<Bytes, PipelineError> {
    let wrong = |source: ParquetError| PipelineError::Parquet { uri: uri.to_owned(), source };
    let flat = records.iter().map(flatten).collect::<Result<Vec<_>, _>>()?;
    let columns: Vec<(Field, ArrayRef)> = columns().map(|(name, kind)| column(&flat, name, kind)).collect();
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| wrong(error.into()))?;
    let version = KeyValue::new(KEY_SCHEMA_VERSION.to_owned(), SCHEMA_VERSION.to_string());
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::UNCOMPRESSED)
        .set_coerce_types(true)
        .set_created_by("restok".to_owned())
        .set_key_value_metadata(Some(vec![version]))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).map_err(wrong)?;
    writer.write(&batch).map_err(wrong)?;
    Ok(Bytes::from(writer.into_inner().map_err(wrong)?))
}

/// Records of a file of [`encode`]; `uri` is for errors. Columns that are not known are passed over, those that are missing are absent.
pub(super) fn decode(bytes: Bytes, uri: &str) -> Result<Vec<EvaluationRecord>, PipelineError> {
    let wrong = |problem: String| PipelineError::Output { uri: uri.to_owned(), problem };
    let damaged = |error: ParquetError| wrong(format!("no whole file of scores ({error}): delete it"));
    let builder = parquet_batches::open(bytes).map_err(damaged)?;
    let batches = ParquetBatches::build(|| builder.build()).map_err(damaged)?;
    let mut records = Vec::new();
    for batch in batches {
        let batch = batch.map_err(|error| damaged(error.into()))?;
        for row in 0..batch.num_rows() {
            let record = record(&batch, row).map_err(|problem| wrong(format!("row {row}: {problem}")))?;
            records.push(record);
        }
    }
    Ok(records)
}

/// Records as a text table with a header; lists are joined by `;`.
pub(super) fn to_csv(records: &[EvaluationRecord], uri: &str) -> Result<Bytes, PipelineError> {
    let wrong = |problem: String| PipelineError::Output { uri: uri.to_owned(), problem };
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns().map(|(name, _)| name)).map_err(|error| wrong(error.to_string()))?;
    for record in records {
        let flat = flatten(record)?;
        let cells = columns().map(|(name, _)| cell(flat.get(name).unwrap_or(&Value::Null)));
        writer.write_record(cells).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(Bytes::from(writer.into_inner().map_err(|error| wrong(error.to_string()))?))
}

/// All columns, in their order.
fn columns() -> impl Iterator<Item = (&'static str, Kind)> {
    let first = SET_COLUMNS.into_iter().chain(SCORE_COLUMNS).chain(PROVENANCE_COLUMNS);
    first.chain(ADDED_SCORE_COLUMNS).chain(INTERVAL_COLUMNS).chain(ADDED_PROVENANCE_COLUMNS)
}

/// Every field of a record and of its scores, by name.
fn flatten(record: &EvaluationRecord) -> Result<Map<String, Value>, PipelineError> {
    record.scores.check()?;
    let wrong = |problem: String| schemas::SchemaError::Document { document: "scores".to_owned(), problem };
    let Value::Object(mut flat) = serde_json::to_value(record).map_err(|error| wrong(error.to_string()))? else {
        unreachable!("a struct is an object")
    };
    if let Some(Value::Object(mut scores)) = flat.remove(SCORES) {
        if let Some(Value::Object(intervals)) = scores.remove(INTERVALS) {
            for (name, value) in intervals {
                match value {
                    Value::Object(bounds) => {
                        flat.extend(bounds.into_iter().map(|(bound, value)| (format!("{name}_{bound}"), value)));
                    }
                    Value::Null => {}
                    confidence => drop(flat.insert(name, confidence)),
                }
            }
        }
        flat.extend(scores);
    }
    Ok(flat)
}

fn column(records: &[Map<String, Value>], name: &str, kind: Kind) -> (Field, ArrayRef) {
    let values = || records.iter().map(|record| record.get(name).unwrap_or(&Value::Null));
    let lists = || values().map(|value| value.as_array().map(Vec::as_slice).unwrap_or_default());
    let array: ArrayRef = match kind {
        Text => Arc::new(StringArray::from_iter(values().map(Value::as_str))),
        Count => Arc::new(UInt64Array::from_iter(values().map(Value::as_u64))),
        Number => Arc::new(Float64Array::from_iter(values().map(Value::as_f64))),
        Texts => {
            let mut builder = ListBuilder::new(StringBuilder::new()).with_field(element(DataType::Utf8));
            lists().for_each(|list| builder.append_value(list.iter().map(Value::as_str)));
            Arc::new(builder.finish())
        }
        Counts => {
            let mut builder = ListBuilder::new(UInt64Builder::new()).with_field(element(DataType::UInt64));
            lists().for_each(|list| builder.append_value(list.iter().map(Value::as_u64)));
            Arc::new(builder.finish())
        }
        Numbers => {
            let mut builder = ListBuilder::new(Float64Builder::new()).with_field(element(DataType::Float64));
            lists().for_each(|list| builder.append_value(list.iter().map(Value::as_f64)));
            Arc::new(builder.finish())
        }
    };
    (Field::new(name, array.data_type().clone(), true), array)
}

fn element(data_type: DataType) -> Field {
    Field::new("element", data_type, false)
}

/// One row as a record.
fn record(batch: &RecordBatch, row: usize) -> Result<EvaluationRecord, String> {
    let mut flat = Map::new();
    for (name, kind) in columns() {
        let Some(column) = batch.column_by_name(name) else { continue };
        let fits = match (kind, column.data_type()) {
            (Text, DataType::Utf8) | (Count, DataType::UInt64) | (Number, DataType::Float64) => true,
            (Texts, DataType::List(element)) => *element.data_type() == DataType::Utf8,
            (Counts, DataType::List(element)) => *element.data_type() == DataType::UInt64,
            (Numbers, DataType::List(element)) => *element.data_type() == DataType::Float64,
            _ => false,
        };
        if !fits {
            return Err(format!("column {name:?}: found {}, expected {kind:?}", column.data_type()));
        }
        flat.insert(name.to_owned(), value(column, row, kind));
    }
    let intervals = intervals(&mut flat);
    let is_score = |name: &str| SCORE_COLUMNS.iter().chain(&ADDED_SCORE_COLUMNS).any(|(score, _)| *score == name);
    let (mut scores, mut record): (Map<_, _>, Map<_, _>) = flat.into_iter().partition(|(name, _)| is_score(name));
    scores.insert(INTERVALS.to_owned(), intervals);
    record.insert(SCORES.to_owned(), Value::Object(scores));
    serde_json::from_value(Value::Object(record)).map_err(|error| error.to_string())
}

/// Takes the intervals out of a row; null where it has none.
fn intervals(flat: &mut Map<String, Value>) -> Value {
    let mut take = |name: &str| flat.remove(name).unwrap_or(Value::Null);
    let confidence = take(CONFIDENCE);
    let mut intervals = Map::from_iter([(CONFIDENCE.to_owned(), confidence.clone())]);
    let names = INTERVAL_COLUMNS.iter().filter_map(|(name, _)| name.strip_suffix("_lower"));
    for name in names {
        let bounds = BOUNDS.map(|bound| (bound.to_owned(), take(&format!("{name}_{bound}"))));
        // Half an interval is damage, which its type refuses.
        if bounds.iter().any(|(_, value)| !value.is_null()) {
            intervals.insert(name.to_owned(), Value::Object(bounds.into_iter().collect()));
        }
    }
    if confidence.is_null() && intervals.len() == 1 { Value::Null } else { Value::Object(intervals) }
}

fn value(column: &ArrayRef, row: usize, kind: Kind) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let list = |kind: Kind| {
        let values = column.as_list::<i32>().value(row);
        Value::Array((0..values.len()).map(|index| value(&values, index, kind)).collect())
    };
    match kind {
        Text => column.as_string::<i32>().value(row).into(),
        Count => column.as_primitive::<UInt64Type>().value(row).into(),
        Number => column.as_primitive::<Float64Type>().value(row).into(),
        Texts => list(Text),
        Counts => list(Count),
        Numbers => list(Number),
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(";"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::{ConfidenceInterval, Protocol, ScoreIntervals, Scores};
    use std::collections::BTreeSet;

    #[test]
    fn hostile_scores_are_read_or_refused_by_name() {
        let records = [Protocol::Rfid, Protocol::GfidAdm].map(|protocol| EvaluationRecord::new(protocol, "a set"));
        let sound = encode(&records, "a").expect("bytes").to_vec();
        crate::testing::fuzz(file!(), 200, &[sound], |bytes| {
            crate::testing::read_or_refused("a.parquet", decode(Bytes::copy_from_slice(bytes), "a.parquet"))
        });
    }

    /// A record whose scores are all there.
    fn whole() -> EvaluationRecord {
        let interval = Some(ConfidenceInterval { lower: 0.25, upper: 0.75 });
        let scores = Scores {
            fid: Some(1.0),
            sfid: Some(2.0),
            inception_score: Some(3.0),
            precision: Some(4.0),
            recall: Some(5.0),
            kid: Some(6.0),
            kid_deviation: Some(7.0),
            mind: Some(8.0),
            density: Some(9.0),
            coverage: Some(10.0),
            fid_infinity: Some(11.0),
            vendi_score: Some(12.0),
            authpct: Some(13.0),
            intervals: Some(ScoreIntervals {
                confidence: 95.0,
                fid: interval,
                sfid: interval,
                inception_score: interval,
                kid: interval,
                precision: interval,
                recall: interval,
                density: interval,
                coverage: interval,
            }),
            psnr: Some(14.0),
            ssim: Some(15.0),
            ms_ssim: Some(16.0),
            lpips: Some(17.0),
            codes_used: Some(18),
            entropy_bits: Some(19.0),
            codes_used_by_level: vec![20],
            entropy_bits_by_level: vec![21.0],
        };
        let score_settings = Some("{}".to_owned());
        EvaluationRecord { scores, score_settings, ..EvaluationRecord::new(Protocol::Rfid, "") }
    }

    #[test]
    fn every_field_of_a_record_has_its_column() {
        let record = whole();
        let fields: BTreeSet<String> = flatten(&record).expect("a record").into_iter().map(|(name, _)| name).collect();
        let named: BTreeSet<String> = columns().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(fields, named);
        assert_eq!(named.len(), columns().count(), "no column has the name of another");
        // Back from its columns it is the same record.
        let bytes = encode(std::slice::from_ref(&record), "a").expect("bytes");
        assert_eq!(decode(bytes, "a").expect("read"), [record]);
    }
}
