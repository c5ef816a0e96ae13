//! The tables as any Parquet reader sees them: opened by name, not through the pipeline's own reader.

use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use schemas::{ImageRow, TokenRows, image_rows};
use std::collections::BTreeMap;

/// The tokens of an output, by image and view, with their labels.
pub type Tokens = BTreeMap<(String, i8), (Option<i32>, Vec<i16>)>;

/// Every row of the tokens table; a row that is there twice fails the test.
pub fn tokens(files: &BTreeMap<String, Vec<u8>>) -> Tokens {
    let mut all = Tokens::new();
    for (path, bytes) in files.iter().filter(|(path, _)| is_part(path, "tokens/")) {
        for batch in record_batches(bytes) {
            let tokens_per_image = list_size(&batch);
            let rows = TokenRows::from_record_batch(&batch, tokens_per_image)
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            let keys = rows.image_ids.into_iter().zip(rows.views);
            for ((key, label), codes) in keys.zip(rows.labels).zip(rows.tokens.iter_rows()) {
                let before = all.insert(key.clone(), (label, codes.to_vec()));
                assert!(before.is_none(), "{path}: {key:?} is there twice");
            }
        }
    }
    all
}

/// Every row of the images table, by image; a row that is there twice fails the test.
pub fn images(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, ImageRow> {
    let mut all = BTreeMap::new();
    for (path, bytes) in files.iter().filter(|(path, _)| is_part(path, "images/")) {
        for batch in record_batches(bytes) {
            for row in image_rows(&batch).unwrap_or_else(|error| panic!("{path}: {error}")) {
                let before = all.insert(row.image_id.clone(), row);
                assert!(before.is_none(), "{path}: {before:?} is there twice");
            }
        }
    }
    all
}

/// Rewrites a tokens file with `change` made to its codes, keeping rows, schema and metadata.
pub fn with_changed_codes(file: &[u8], change: impl FnOnce(&mut Vec<i16>)) -> Vec<u8> {
    let metadata = {
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(file)).expect("a Parquet file");
        reader.metadata().file_metadata().key_value_metadata().cloned()
    };
    let batches = record_batches(file);
    let [batch] = batches.as_slice() else { panic!("{} batches in a unit's file", batches.len()) };
    let tokens_per_image = list_size(batch);
    let mut rows = TokenRows::from_record_batch(batch, tokens_per_image).expect("rows of tokens");
    let mut codes = rows.tokens.codes().to_vec();
    change(&mut codes);
    rows.tokens = schemas::TokenBatch::try_new(codes, tokens_per_image).expect("as many codes as before");
    let batch = rows.to_record_batch().expect("the same columns");
    let properties = parquet::file::properties::WriterProperties::builder()
        // The Arrow schema is written again by the writer.
        .set_key_value_metadata(
            metadata.map(|pairs| pairs.into_iter().filter(|pair| pair.key != "ARROW:schema").collect()),
        )
        .set_coerce_types(true)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("rows in memory");
    writer.into_inner().expect("a file in memory")
}

fn is_part(path: &str, table: &str) -> bool {
    path.starts_with(table) && path.ends_with(".parquet")
}

fn list_size(batch: &RecordBatch) -> usize {
    match batch.column_by_name("tokens").map(|column| column.data_type().clone()) {
        Some(arrow_schema::DataType::FixedSizeList(_, size)) => size as usize,
        other => panic!("tokens are {other:?}, expected a list of fixed size"),
    }
}

fn record_batches(bytes: &[u8]) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes))
        .and_then(|builder| builder.with_batch_size(1 << 20).build())
        .expect("a Parquet file");
    reader.collect::<Result<_, _>>().expect("rows of a Parquet file")
}
