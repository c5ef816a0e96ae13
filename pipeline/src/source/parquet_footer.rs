//! The footer of a Parquet file: its rows, and whether its columns are those of a set of images.

use super::pinned_object::PinnedObject;
use crate::PipelineError;
use arrow_schema::{DataType, Field, Fields};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    errors::ParquetError,
    file::metadata::ParquetMetaDataReader,
};
use std::{cmp, sync::Arc};

/// Enough for the footers of most files; longer ones take a second request.
const FIRST_READ_BYTES: u64 = 64 << 10;

/// Column of the images.
pub(super) const IMAGE: &str = "image";
/// Column of the labels.
pub(super) const LABEL: &str = "label";

/// Reads and checks a file's footer.
///
/// # Errors
/// When it cannot be read, is no Parquet footer, or has not the columns of a set of images.
pub(super) async fn read_footer(object: &PinnedObject) -> Result<ArrowReaderMetadata, PipelineError> {
    let wrong = |source| PipelineError::Parquet { uri: object.uri().to_owned(), source };
    let size = object.size();
    let mut length = cmp::min(size, FIRST_READ_BYTES);
    let metadata = loop {
        let range = if length == size { None } else { Some(size - length..size) };
        let tail = object.read(range).await?;
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(&tail, size) {
            Ok(()) => break reader.finish().map_err(wrong)?,
            Err(ParquetError::NeedMoreData(needed)) if length < needed as u64 && needed as u64 <= size => {
                length = needed as u64
            }
            Err(error) => return Err(wrong(error)),
        }
    };
    let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new()).map_err(wrong)?;
    check_columns(metadata.schema().fields())
        .map_err(|problem| PipelineError::Source { uri: object.uri().to_owned(), problem })?;
    Ok(metadata)
}

fn check_columns(fields: &Fields) -> Result<(), String> {
    let named = |fields: &Fields, name: &str| fields.iter().find(|field| field.name() == name).cloned();
    let found =
        |field: Option<Arc<Field>>| field.map_or("no such column".to_owned(), |field| field.data_type().to_string());
    let image = named(fields, IMAGE);
    let Some(DataType::Struct(parts)) = image.as_ref().map(|field| field.data_type()) else {
        let columns: Vec<_> = fields.iter().map(|field| field.name().as_str()).collect();
        return Err(format!(
            "column {IMAGE:?}: found {}, expected struct<bytes: binary, path: string>; the columns are {}",
            found(image),
            columns.join(", ")
        ));
    };
    let bytes = named(parts, "bytes");
    if !matches!(bytes.as_ref().map(|field| field.data_type()), Some(DataType::Binary | DataType::LargeBinary)) {
        return Err(format!("column \"{IMAGE}.bytes\": found {}, expected binary", found(bytes)));
    }
    let path = named(parts, "path");
    if path.as_ref().is_some_and(|field| !matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8)) {
        return Err(format!("column \"{IMAGE}.path\": found {}, expected string", found(path)));
    }
    let label = named(fields, LABEL);
    if label.as_ref().is_some_and(|field| !field.data_type().is_integer()) {
        return Err(format!("column {LABEL:?}: found {}, expected int64", found(label)));
    }
    Ok(())
}

/// Names of the classes, where the file says so in the way of Hugging Face `datasets`.
pub(super) fn class_names(metadata: &ArrowReaderMetadata) -> Vec<String> {
    let described = metadata.metadata().file_metadata().key_value_metadata().into_iter().flatten();
    let described = described.filter(|pair| pair.key == "huggingface").find_map(|pair| pair.value.as_deref());
    let described = described.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let names = described.as_ref().and_then(|value| value.pointer("/info/features/label/names")?.as_array());
    names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
}
