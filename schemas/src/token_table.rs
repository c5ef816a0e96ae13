//! The tokens table: one row for each view of each image that was encoded.

use crate::{SchemaError, TokenBatch};
use arrow_array::{
    Array, FixedSizeListArray, Int8Array, Int16Array, Int32Array, RecordBatch, StringArray,
    cast::AsArray,
    types::{Int8Type, Int16Type, Int32Type},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// Columns of the tokens table: `image_id` string, `view` int8, `label` int32 (nullable), `tokens` list of
/// `tokens_per_image` int16.
pub fn token_schema(tokens_per_image: usize) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("image_id", DataType::Utf8, false),
        Field::new("view", DataType::Int8, false),
        Field::new("label", DataType::Int32, true),
        Field::new("tokens", tokens_type(tokens_per_image), false),
    ]))
}

fn tokens_type(tokens_per_image: usize) -> DataType {
    // "element" is the name that the Parquet specification, Iceberg and Delta use for a list's leaf.
    let element = Arc::new(Field::new("element", DataType::Int16, false));
    DataType::FixedSizeList(element, i32::try_from(tokens_per_image).unwrap_or(i32::MAX))
}

/// Rows of the tokens table, column by column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRows {
    /// Key of the image.
    pub image_ids: Vec<String>,
    /// View of the crop, from 0.
    pub views: Vec<i8>,
    /// Class, where the source gives one.
    pub labels: Vec<Option<i32>>,
    /// Codes, a row each.
    pub tokens: TokenBatch,
}

impl TokenRows {
    /// The rows as Arrow columns in [`token_schema`].
    ///
    /// # Errors
    /// When the columns differ in length.
    pub fn to_record_batch(&self) -> Result<RecordBatch, SchemaError> {
        let tokens_per_image = self.tokens.tokens_per_image();
        let DataType::FixedSizeList(element, size) = tokens_type(tokens_per_image) else { unreachable!() };
        let codes = Arc::new(Int16Array::from(self.tokens.codes().to_vec()));
        let problem = |error: arrow_schema::ArrowError| SchemaError::Document {
            document: "tokens table".to_owned(),
            problem: error.to_string(),
        };
        let tokens = FixedSizeListArray::try_new(element, size, codes, None).map_err(problem)?;
        RecordBatch::try_new(
            token_schema(tokens_per_image),
            vec![
                Arc::new(StringArray::from_iter_values(&self.image_ids)),
                Arc::new(Int8Array::from(self.views.clone())),
                Arc::new(Int32Array::from(self.labels.clone())),
                Arc::new(tokens),
            ],
        )
        .map_err(problem)
    }

    /// Reads rows back, checking columns, types, lengths and nulls.
    ///
    /// # Errors
    /// When a column is missing, of another type, or holds a null where none may be.
    pub fn from_record_batch(batch: &RecordBatch, tokens_per_image: usize) -> Result<Self, SchemaError> {
        for field in token_schema(tokens_per_image).fields() {
            check_column(batch, field)?;
        }
        let column = |name: &str| batch.column_by_name(name).map(Arc::clone).unwrap_or_else(|| unreachable!());
        let lists = column("tokens");
        let lists = lists.as_fixed_size_list();
        let codes = lists.values().as_primitive::<Int16Type>();
        // A sliced list array keeps all its values; take only those of this slice.
        let start = lists.value_offset_at(0);
        let codes = codes.values()[start..start + batch.num_rows() * tokens_per_image].to_vec();
        Ok(Self {
            image_ids: column("image_id").as_string::<i32>().iter().flatten().map(str::to_owned).collect(),
            views: column("view").as_primitive::<Int8Type>().values().to_vec(),
            labels: column("label").as_primitive::<Int32Type>().iter().collect(),
            tokens: TokenBatch::try_new(codes, tokens_per_image)?,
        })
    }
}

/// Checks one column against its field: present, of its type, without nulls unless nullable.
///
/// # Errors
/// When it is not.
pub(crate) fn check_column(batch: &RecordBatch, field: &Field) -> Result<(), SchemaError> {
    let wrong = |found: String| SchemaError::Column {
        column: field.name().clone(),
        found,
        expected: format!("{}{}", field.data_type(), if field.is_nullable() { "" } else { ", no nulls" }),
    };
    let column = batch.column_by_name(field.name()).ok_or_else(|| wrong("no such column".to_owned()))?;
    if column.data_type() != field.data_type() {
        return Err(wrong(column.data_type().to_string()));
    }
    if !field.is_nullable() && column.null_count() > 0 {
        return Err(wrong(format!("{} nulls", column.null_count())));
    }
    Ok(())
}
