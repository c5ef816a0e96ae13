//! One set of images, written in any of the three layouts.

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    file::{metadata::KeyValue, properties::WriterProperties},
};
use std::{collections::BTreeSet, error::Error, sync::Arc};

/// Whatever goes wrong while a test's input is made.
type Made = Result<(), Box<dyn Error + Send + Sync>>;

/// One image of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SampleImage {
    /// File name without extension, and key.
    pub(crate) stem: String,
    /// Name of its class.
    pub(crate) class_name: String,
    /// Its bytes, of an image or not.
    pub(crate) bytes: Bytes,
}

/// A set of images, in the order of folders: by class, then by stem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SampleSet {
    images: Vec<SampleImage>,
}

impl SampleSet {
    /// Sorts the images as a listing of folders would.
    pub(crate) fn new(mut images: Vec<SampleImage>) -> Self {
        images.sort_by(|one, other| (&one.class_name, &one.stem).cmp(&(&other.class_name, &other.stem)));
        Self { images }
    }

    /// `count` "images" in `classes` classes, with bytes that differ; `size` bytes each.
    pub(crate) fn numbered(count: usize, classes: usize, size: usize) -> Self {
        let image = |index: usize| SampleImage {
            stem: format!("n{:08}_{index}", index % classes),
            class_name: format!("n{:08}", index % classes),
            bytes: noise(index as u64, size),
        };
        Self::new((0..count).map(image).collect())
    }

    /// The images in order.
    pub(crate) fn images(&self) -> &[SampleImage] {
        &self.images
    }

    /// Names of the classes, by label.
    pub(crate) fn class_names(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.images.iter().map(|image| image.class_name.clone()).collect();
        names.into_iter().collect()
    }

    /// Label of an image.
    pub(crate) fn label(&self, image: &SampleImage) -> i32 {
        self.class_names().iter().position(|name| *name == image.class_name).map_or(-1, |label| label as i32)
    }

    /// Writes `<folder>/<class>/<stem>.JPEG`.
    pub(crate) async fn write_folder(&self, store: &dyn ObjectStore, folder: &str) -> Made {
        for image in &self.images {
            let path = Path::parse(format!("{folder}/{}/{}.JPEG", image.class_name, image.stem))?;
            store.put(&path, image.bytes.clone().into()).await?;
        }
        Ok(())
    }

    /// Writes `<folder>/shard-<number>.tar`, `images_each` images in each.
    pub(crate) async fn write_webdataset(&self, store: &dyn ObjectStore, folder: &str, images_each: usize) -> Made {
        for (number, images) in self.images.chunks(images_each).enumerate() {
            let mut members = Vec::new();
            for image in images {
                members.push((format!("{}.cls", image.stem), self.label(image).to_string().into()));
                members.push((format!("{}.jpg", image.stem), image.bytes.clone()));
                let json = serde_json::json!({ "class_name": image.class_name, "label": self.label(image) });
                members.push((format!("{}.json", image.stem), json.to_string().into()));
            }
            let path = Path::parse(format!("{folder}/shard-{number:04}.tar"))?;
            store.put(&path, tar_of(&members).await?.into()).await?;
        }
        Ok(())
    }

    /// Writes `<folder>/part-<number>.parquet` as the model hub does, `images_each` images in each, in row groups and pages of
    /// few rows.
    pub(crate) async fn write_parquet(
        &self,
        store: &dyn ObjectStore,
        folder: &str,
        images_each: usize,
        rows_a_group: usize,
    ) -> Made {
        let names = serde_json::json!({ "info": { "features": { "label": { "names": self.class_names(), "_type": "ClassLabel" } } } });
        for (number, images) in self.images.chunks(images_each).enumerate() {
            let bytes = BinaryArray::from_iter_values(images.iter().map(|image| &image.bytes));
            let paths = images.iter().map(|image| format!("{}_{}.JPEG", image.stem, image.class_name));
            let labels = Int64Array::from_iter_values(images.iter().map(|image| i64::from(self.label(image))));
            let parts = Fields::from(vec![
                Field::new("bytes", DataType::Binary, true),
                Field::new("path", DataType::Utf8, true),
            ]);
            let columns: Vec<ArrayRef> = vec![Arc::new(bytes), Arc::new(StringArray::from_iter_values(paths))];
            let image = StructArray::try_new(parts.clone(), columns, None)?;
            let schema = Schema::new(vec![
                Field::new("image", DataType::Struct(parts), true),
                Field::new("label", DataType::Int64, true),
            ]);
            let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(image), Arc::new(labels)])?;
            let properties = WriterProperties::builder()
                .set_compression(Compression::SNAPPY)
                .set_max_row_group_row_count(Some(rows_a_group))
                .set_data_page_row_count_limit(2)
                .set_write_batch_size(1)
                .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_owned(), names.to_string())]))
                .build();
            let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
            writer.write(&batch)?;
            let path = Path::parse(format!("{folder}/part-{number:05}.parquet"))?;
            store.put(&path, writer.into_inner()?.into()).await?;
        }
        Ok(())
    }
}

/// Bytes that no codec makes smaller, and none of them zero.
fn noise(seed: u64, size: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 255) as u8 + 1
    };
    (0..size).map(next).collect()
}

/// A tar of these members, in this order.
pub(crate) async fn tar_of(members: &[(String, Bytes)]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let mut builder = tokio_tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tokio_tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tokio_tar::EntryType::Regular);
        header.set_cksum();
        builder.append_data(&mut header, name, bytes.as_ref()).await?;
    }
    Ok(builder.into_inner().await?)
}
