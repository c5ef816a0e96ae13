//! The tokens table: one row for each view of each image that was encoded, or for each sample that was drawn.

use crate::{SchemaError, TokenBatch};
use arrow_array::{
    Array, FixedSizeListArray, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
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

    /// The rows of samples that were drawn under `seed`: [`Self::to_record_batch`], and behind it `sample`, the number of each, and
    /// `seed`, both int64. Whoever reads the tokens of images reads these too.
    ///
    /// # Errors
    /// When a key is no number, or a number has no place in 63 bits.
    pub fn to_sample_record_batch(&self, seed: u64) -> Result<RecordBatch, SchemaError> {
        let problem = |problem: String| SchemaError::Document { document: "tokens table".to_owned(), problem };
        let seed = i64::try_from(seed).map_err(|error| problem(format!("seed {seed}: {error}")))?;
        let number = |key: &String| key.parse().map_err(|error| problem(format!("sample {key:?}: {error}")));
        let samples = self.image_ids.iter().map(number).collect::<Result<Vec<i64>, _>>()?;
        let batch = self.to_record_batch()?;
        let seeds = vec![seed; samples.len()];
        let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
        fields.extend(["sample", "seed"].map(|name| Arc::new(Field::new(name, DataType::Int64, false))));
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(Int64Array::from(samples)));
        columns.push(Arc::new(Int64Array::from(seeds)));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| problem(error.to_string()))
    }

    /// Reads rows back, checking columns, types, lengths and nulls. Columns that it does not know are passed over.
    ///
    /// # Errors
    /// When a column is missing, of another type, or holds a null where none may be.
    pub fn from_record_batch(batch: &RecordBatch, tokens_per_image: usize) -> Result<Self, SchemaError> {
        let columns = TokenColumns::from_record_batch(batch, tokens_per_image)?;
        Ok(Self {
            image_ids: columns.image_ids.iter().flatten().map(str::to_owned).collect(),
            views: columns.views().to_vec(),
            labels: columns.labels.iter().collect(),
            tokens: TokenBatch::try_new(columns.codes().to_vec(), tokens_per_image)?,
        })
    }
}

/// The columns of some rows where Arrow has them, for readers that keep less than all of it.
#[derive(Clone, Debug)]
pub struct TokenColumns {
    image_ids: StringArray,
    views: Int8Array,
    labels: Int32Array,
    codes: Int16Array,
}

impl TokenColumns {
    /// Checks columns, types, lengths and nulls, and copies nothing.
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
        Ok(Self {
            image_ids: column("image_id").as_string::<i32>().clone(),
            views: column("view").as_primitive::<Int8Type>().clone(),
            labels: column("label").as_primitive::<Int32Type>().clone(),
            codes: codes.slice(start, batch.num_rows() * tokens_per_image),
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.views.len()
    }

    /// Key of a row's image.
    pub fn image_id(&self, row: usize) -> &str {
        self.image_ids.value(row)
    }

    /// View of each row.
    pub fn views(&self) -> &[i8] {
        self.views.values()
    }

    /// Class of a row, where its source gives one.
    pub fn label(&self, row: usize) -> Option<i32> {
        self.labels.is_valid(row).then(|| self.labels.value(row))
    }

    /// All codes, `[rows, tokens_per_image]`.
    pub fn codes(&self) -> &[i16] {
        self.codes.values()
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
