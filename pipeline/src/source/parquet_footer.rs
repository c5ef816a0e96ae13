//! The footer of a Parquet file: its rows, and which of its columns hold images, labels and keys.
//!
//! Types are those of Parquet itself. What Arrow once called the column is left aside: files whose writer kept strings as views or as
//! dictionaries hold the same plain columns as any other.

use super::pinned_object::PinnedObject;
use crate::{
    PipelineError,
    error::first_few,
    parquet_batches::{check_rows, without_panic},
};
use arrow_array::{Array, RecordBatch, cast::AsArray};
use arrow_schema::{DataType, Field, Fields};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    errors::ParquetError,
    file::metadata::ParquetMetaDataReader,
};
use schemas::{LabelSource, SourceReading};
use std::{cmp, sync::Arc};

/// Enough for the footers of most files; longer ones take a second request.
const FIRST_READ_BYTES: u64 = 64 << 10;

/// The usual name of the column of images.
const IMAGE: &str = "image";
/// The usual name of the column of labels.
const LABEL: &str = "label";
/// Other names of columns of encoded images, where they are plain binary.
const BINARY_IMAGES: [&str; 9] = ["img", "jpg", "jpeg", "png", "webp", "image_bytes", "img_bytes", "bytes", "picture"];
/// Columns that an error or a warning names.
const COLUMNS_SHOWN: usize = 20;

/// The way to a column through structs, outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColumnPath(Vec<String>);

impl ColumnPath {
    fn below(&self, name: &str) -> Self {
        Self(self.0.iter().cloned().chain([name.to_owned()]).collect())
    }

    /// As Parquet writes it, parts joined by dots.
    fn dotted(&self) -> String {
        self.0.join(".")
    }

    /// Whether a leaf of these parts is the column, or lies in it.
    pub(super) fn is_above(&self, leaf: &[String]) -> bool {
        leaf.starts_with(&self.0)
    }

    /// The column's values; `None` where the batch has no such column, or the row or anything around it is null there.
    pub(super) fn at<'a>(&self, batch: &'a RecordBatch, row: usize) -> Option<&'a dyn Array> {
        let (first, rest) = self.0.split_first()?;
        let mut column = batch.column_by_name(first)?;
        for name in rest {
            let parts = column.as_struct_opt().filter(|parts| parts.is_valid(row))?;
            column = parts.column_by_name(name)?;
        }
        column.is_valid(row).then_some(column.as_ref())
    }

    /// Finds `name`, whose parts are joined by dots, among `fields`.
    fn find<'a>(fields: &'a Fields, name: &str) -> Option<(Self, &'a Field)> {
        if let Some(field) = named(fields, name) {
            return Some((Self(vec![name.to_owned()]), field));
        }
        let (first, rest) = name.split_once('.')?;
        let DataType::Struct(parts) = named(fields, first)?.data_type() else { return None };
        let (below, field) = Self::find(parts, rest)?;
        Some((Self([vec![first.to_owned()], below.0].concat()), field))
    }
}

/// Where a row's parts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// Encoded bytes.
    pub(super) bytes: ColumnPath,
    /// The file that an image was, beside its bytes.
    pub(super) path: Option<ColumnPath>,
    /// Labels.
    pub(super) label: Option<ColumnPath>,
    /// Keys.
    pub(super) id: Option<ColumnPath>,
}

impl Columns {
    /// All that are read.
    pub(super) fn all(&self) -> impl Iterator<Item = &ColumnPath> {
        [Some(&self.bytes), self.path.as_ref(), self.label.as_ref(), self.id.as_ref()].into_iter().flatten()
    }
}

/// A footer that was read and fits.
#[derive(Clone, Debug)]
pub(super) struct Footer {
    pub(super) metadata: ArrowReaderMetadata,
    pub(super) columns: Columns,
    /// What to say where no column was taken for labels, though some may hold them.
    label_advice: Option<String>,
}

impl Footer {
    /// Rows of the file.
    pub(super) fn rows(&self) -> u64 {
        u64::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// What to say where no column was taken for labels, though some may hold them.
    pub(super) fn label_advice(&self) -> Option<&str> {
        self.label_advice.as_deref()
    }

    /// Names of the classes, where the file says so in the way of Hugging Face `datasets`.
    pub(super) fn class_names(&self) -> Vec<String> {
        let Some(label) = &self.columns.label else { return Vec::new() };
        let described = self.metadata.metadata().file_metadata().key_value_metadata().into_iter().flatten();
        let described = described.filter(|pair| pair.key == "huggingface").find_map(|pair| pair.value.as_deref());
        let described = described.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        let features = described.as_ref().and_then(|value| value.pointer("/info/features"));
        let feature = label.0.iter().try_fold(features, |feature, part| Some(feature?.get(part)));
        let names = feature.flatten().and_then(|feature| feature.get("names")?.as_array());
        names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    }
}

/// Reads a file's footer and finds its columns.
///
/// # Errors
/// When it cannot be read, is no Parquet footer, or has not the columns of a set of images.
pub(super) async fn read_footer(object: &PinnedObject, reading: &SourceReading) -> Result<Footer, PipelineError> {
    let wrong = |source| PipelineError::Parquet { uri: object.uri().to_owned(), source };
    let size = object.size();
    let mut length = cmp::min(size, FIRST_READ_BYTES);
    let metadata = loop {
        let range = if length == size { None } else { Some(size - length..size) };
        let tail = object.read(range).await?;
        let mut reader = ParquetMetaDataReader::new();
        match without_panic(|| reader.try_parse_sized(&tail, size)) {
            Ok(()) => break reader.finish().map_err(wrong)?,
            Err(ParquetError::NeedMoreData(needed)) if length < needed as u64 && needed as u64 <= size => {
                length = needed as u64
            }
            Err(error) => return Err(wrong(error)),
        }
    };
    check_rows(&metadata).map_err(wrong)?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = without_panic(|| ArrowReaderMetadata::try_new(Arc::new(metadata), options)).map_err(wrong)?;
    let (columns, label_advice) = find_columns(metadata.schema().fields(), reading)
        .map_err(|problem| PipelineError::Source { uri: object.uri().to_owned(), problem })?;
    Ok(Footer { metadata, columns, label_advice })
}

fn find_columns(fields: &Fields, reading: &SourceReading) -> Result<(Columns, Option<String>), String> {
    let given = &reading.columns;
    let (image, field) = find_image(fields, given.image.as_deref())?;
    let (bytes, path) = match field.data_type() {
        DataType::Struct(parts) => {
            let bytes = named(parts, "bytes");
            if !bytes.is_some_and(|bytes| is_binary(bytes.data_type())) {
                let found = bytes.map_or("no such part".to_owned(), |bytes| bytes.data_type().to_string());
                return Err(format!(
                    "column \"{}.bytes\": found {found}, expected binary; {}",
                    image.dotted(),
                    columns_are(fields)
                ));
            }
            let path = named(parts, "path").filter(|path| is_text(path.data_type()));
            (image.below("bytes"), path.map(|_| image.below("path")))
        }
        _ => (image, None),
    };
    let named_by_option = |name: &Option<String>, option: &str| match name {
        None => Ok(None),
        Some(name) => match ColumnPath::find(fields, name) {
            Some((path, _)) => Ok(Some(path)),
            None => Err(format!("{option} {name}: no such column; {}", columns_are(fields))),
        },
    };
    let id = named_by_option(&given.id, "`id_column`")?;
    let (label, advice) = match (reading.labels, named_by_option(&given.label, "`label_column`")?) {
        (LabelSource::None, _) => (None, None),
        (_, Some(label)) => (Some(label), None),
        (_, None) => match ColumnPath::find(fields, LABEL) {
            Some((label, _)) => (Some(label), None),
            None => (None, advice_on_labels(fields)),
        },
    };
    Ok((Columns { bytes, path, label, id }, advice))
}

/// The column of images: the one that was named, else `image`, else the only one that looks like it.
fn find_image<'a>(fields: &'a Fields, given: Option<&str>) -> Result<(ColumnPath, &'a Field), String> {
    let holds_images = |field: &Field| match field.data_type() {
        DataType::Struct(parts) => named(parts, "bytes").is_some_and(|bytes| is_binary(bytes.data_type())),
        kind => is_binary(kind),
    };
    const EXPECTED: &str = "expected binary, or struct<bytes: binary, path: string>";
    if let Some(name) = given {
        let (path, field) = ColumnPath::find(fields, name)
            .ok_or_else(|| format!("`image_column` {name}: no such column; {}", columns_are(fields)))?;
        return match field.data_type() {
            kind if matches!(kind, DataType::Struct(_)) || is_binary(kind) => Ok((path, field)),
            kind => Err(format!("`image_column` {name}: found {kind}, {EXPECTED}")),
        };
    }
    if let Some((path, field)) = ColumnPath::find(fields, IMAGE).filter(|(_, field)| holds_images(field)) {
        return Ok((path, field));
    }
    let looks_like_it = |field: &&'a Arc<Field>| {
        let is_struct = matches!(field.data_type(), DataType::Struct(_));
        holds_images(field) && (is_struct || BINARY_IMAGES.contains(&field.name().to_ascii_lowercase().as_str()))
    };
    let candidates: Vec<_> = fields.iter().filter(looks_like_it).collect();
    match candidates[..] {
        [only] => Ok((ColumnPath(vec![only.name().clone()]), only.as_ref())),
        [] => {
            let found = named(fields, IMAGE).map_or("no such column".to_owned(), |field| field.data_type().to_string());
            Err(format!(
                "column {IMAGE:?}: found {found}, {EXPECTED}; {}; `image_column` names the one with the images",
                columns_are(fields)
            ))
        }
        _ => {
            let names: Vec<_> = candidates.iter().map(|field| field.name().as_str()).collect();
            Err(format!("several columns may hold the images, {}: `image_column` names the one", names.join(", ")))
        }
    }
}

/// What to say of a file without a column of labels; nothing where no column could hold them.
fn advice_on_labels(fields: &Fields) -> Option<String> {
    let may = |field: &&Arc<Field>| field.data_type().is_integer() || is_text(field.data_type());
    let names: Vec<_> = fields.iter().filter(may).map(|field| field.name()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "there is no column {LABEL:?}, so its images have no labels; `label_column` names one, such as {}, and `labels` none \
             says that this is meant",
            first_few(&names, COLUMNS_SHOWN)
        )
    })
}

fn named<'a>(fields: &'a Fields, name: &str) -> Option<&'a Field> {
    fields.iter().find(|field| field.name() == name).map(AsRef::as_ref)
}

fn columns_are(fields: &Fields) -> String {
    let names: Vec<_> = fields.iter().map(|field| field.name()).collect();
    format!("the columns are {}", first_few(&names, COLUMNS_SHOWN))
}

fn is_binary(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary)
}

/// Old writers do not say that bytes are text.
fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8) || is_binary(kind)
}

/// What a plan takes from the footer of a Parquet file.
#[derive(Debug)]
pub(super) struct FileFooter {
    pub(super) path: String,
    pub(super) rows: u64,
    /// Often the same in all files, and then once in memory.
    pub(super) class_names: Arc<[String]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::ColumnNames;

    fn fields(columns: &[(&str, DataType)]) -> Fields {
        columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect()
    }

    fn image() -> DataType {
        DataType::Struct(fields(&[("bytes", DataType::Binary), ("path", DataType::Utf8)]))
    }

    fn reading(image: Option<&str>, label: Option<&str>, id: Option<&str>) -> SourceReading {
        let name = |name: Option<&str>| name.map(str::to_owned);
        SourceReading {
            columns: ColumnNames { image: name(image), label: name(label), id: name(id) },
            ..SourceReading::default()
        }
    }

    fn found(columns: &[(&str, DataType)], reading: &SourceReading) -> (Vec<String>, Option<String>) {
        let (columns, advice) = find_columns(&fields(columns), reading).expect("found");
        (columns.all().map(ColumnPath::dotted).collect(), advice)
    }

    #[test]
    fn the_usual_columns_are_found_and_others_where_only_one_can_be_meant() {
        let usual = reading(None, None, None);
        for (columns, expected) in [
            (vec![("image", image()), ("label", DataType::Int64)], vec!["image.bytes", "image.path", "label"]),
            (
                vec![("image", DataType::Binary), ("text", DataType::Utf8), ("label", DataType::Int32)],
                vec!["image", "label"],
            ),
            (vec![("jpg", DataType::Binary), ("label", DataType::Utf8)], vec!["jpg", "label"]),
            (vec![("photo", image()), ("label", DataType::Int64)], vec!["photo.bytes", "photo.path", "label"]),
        ] {
            assert_eq!(found(&columns, &usual), (expected.into_iter().map(str::to_owned).collect(), None));
        }
    }

    #[test]
    fn columns_may_be_named_nested_ones_too() {
        let nested = DataType::Struct(fields(&[("picture", image()), ("class", DataType::Int8)]));
        let columns = [("image", image()), ("sample", nested), ("a.b", DataType::Utf8)];
        let named = reading(Some("sample.picture"), Some("sample.class"), Some("a.b"));
        let expected = ["sample.picture.bytes", "sample.picture.path", "sample.class", "a.b"].map(str::to_owned);
        assert_eq!(found(&columns, &named), (expected.to_vec(), None));
    }

    #[test]
    fn what_is_missing_is_said_with_the_columns_there_are() {
        let problem = |columns: &[(&str, DataType)], reading: &SourceReading| {
            find_columns(&fields(columns), reading).expect_err("something is missing")
        };
        let usual = reading(None, None, None);
        let two = [("jpg", DataType::Binary), ("png", DataType::Binary)];
        assert!(problem(&two, &usual).contains("jpg, png: `image_column`"), "two candidates");
        let told = problem(&[("image", DataType::Utf8), ("label", DataType::Int64)], &usual);
        assert!(told.contains("found Utf8") && told.contains("image, label"), "{told}");
        for wrong in [reading(Some("x"), None, None), reading(None, Some("x"), None), reading(None, None, Some("x"))] {
            let told = problem(&[("image", image())], &wrong);
            assert!(told.contains("_column` x: no such column; the columns are image"), "{told}");
        }
    }

    #[test]
    fn a_file_without_labels_says_which_columns_may_hold_them() {
        let columns = [("image", image()), ("labels", DataType::Int64), ("caption", DataType::Utf8)];
        let (_, advice) = found(&columns, &reading(None, None, None));
        let advice = advice.expect("two may");
        assert!(advice.contains("labels, caption") && advice.contains("`label_column`"), "{advice}");
        let without = SourceReading { labels: LabelSource::None, ..SourceReading::default() };
        assert_eq!(found(&columns, &without).1, None);
    }
}
