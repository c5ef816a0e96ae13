//! Generated images as files: read back as they were, by our own readers too, and the same bytes each time.

use crate::source_support::{limits, list, plan, read_all, reader, storage};
use bytes::Bytes;
use object_store::{ObjectStore, memory::InMemory};
use parquet::{
    basic::Compression,
    file::reader::{FileReader, SerializedFileReader},
};
use pipeline::{
    DecodeLimits, PipelineError, SampleImage, decode_image, encode_png, encode_sample_parquet, encode_sample_tar,
    read_sample_parquet,
    testing::{fuzz, read_or_refused},
};
use schemas::{RandomStream, SourceLayout};
use std::{collections::BTreeMap, sync::Arc};

/// `[size, size, 3]` pixels that differ from sample to sample and are smooth, as pictures are.
pub(crate) fn pixels_of(sample: u64, size: usize) -> Vec<u8> {
    let mut random = RandomStream::new(7, "picture", sample);
    let [red, green, blue] = [(); 3].map(|()| random.next_u64() as usize % 200);
    let position = |index: usize| (index / size, index % size);
    (0..size * size)
        .map(position)
        .flat_map(|(row, column)| [red + row * 55 / size, green + column * 55 / size, blue + (row + column) % 3])
        .map(|value| value as u8)
        .collect()
}

/// Samples of these numbers, in three classes.
pub(crate) fn samples(numbers: impl IntoIterator<Item = u64>, size: usize) -> Vec<SampleImage> {
    let image = |sample: u64| SampleImage {
        sample,
        label: (sample % 3) as i32,
        png: encode_png(&pixels_of(sample, size), size as u32, size as u32).expect("a PNG").into(),
    };
    numbers.into_iter().map(image).collect()
}

pub(crate) fn parquet(samples: &[SampleImage]) -> Bytes {
    encode_sample_parquet(samples, Some(&names()), &provenance(), "samples.parquet").expect("encoded")
}

fn names() -> Vec<String> {
    ["cat", "dog", "fish \"koi\""].map(str::to_owned).to_vec()
}

fn provenance() -> BTreeMap<String, String> {
    [("restok.plan", "abc"), ("restok.unit", "3")].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn read_back(bytes: Bytes) -> Result<Vec<SampleImage>, PipelineError> {
    read_sample_parquet(bytes, "a.parquet")?.collect()
}

#[test]
fn hostile_parquet_files_of_samples_are_read_or_refused_by_name() {
    fuzz(file!(), 200, &[parquet(&samples(0..9, 4)).to_vec()], |bytes| {
        read_or_refused("a.parquet", read_back(Bytes::copy_from_slice(bytes)))
    });
}

#[test]
fn a_parquet_file_reads_back_and_has_the_same_bytes_again() {
    for count in [0, 1, 99, 100, 101, 250] {
        let samples = samples(500..500 + count, 8);
        let bytes = parquet(&samples);
        assert_eq!(bytes, parquet(&samples), "{count}");
        assert_eq!(read_back(bytes).expect("reads"), samples, "{count}");
    }
}

#[test]
fn a_parquet_file_has_the_layout_of_the_model_hub() {
    let file = SerializedFileReader::new(parquet(&samples(0..250, 8))).expect("Parquet");
    let metadata = file.metadata();
    let rows: Vec<i64> = metadata.row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(rows, [100, 100, 50]);
    let columns: Vec<String> =
        metadata.row_group(0).columns().iter().map(|column| column.column_path().string()).collect();
    assert_eq!(columns, ["image.bytes", "image.path", "label", "sample"]);
    assert!(metadata.row_group(0).columns().iter().all(|column| column.compression() == Compression::UNCOMPRESSED));
    assert!(metadata.row_group(0).column(0).statistics().is_none());
    assert_eq!(metadata.file_metadata().created_by(), Some("restok"));
    let pairs = metadata.file_metadata().key_value_metadata().expect("metadata");
    let value = |key: &str| pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone()).expect("key");
    assert_eq!((value("restok.plan").as_str(), value("restok.unit").as_str()), ("abc", "3"));
    // With it, pyarrow passes over the other keys, and `datasets` takes the images for plain structs.
    assert!(pairs.iter().all(|pair| pair.key != "ARROW:schema"));
    let described: serde_json::Value = serde_json::from_str(&value("huggingface")).expect("JSON");
    let expected = serde_json::json!({
        "image": { "_type": "Image" },
        "label": { "_type": "ClassLabel", "names": names() },
        "sample": { "_type": "Value", "dtype": "int64" },
    });
    assert_eq!(described["info"]["features"], expected);
}

#[test]
fn labels_without_a_name_are_refused_and_without_names_are_numbers() {
    let mut samples = samples(0..3, 8);
    samples[1].label = 3;
    let error = encode_sample_parquet(&samples, Some(&names()), &provenance(), "a").expect_err("no fourth class");
    assert!(error.to_string().contains("label: found 3"), "{error}");
    let error = encode_sample_tar(&samples, Some(&names()), None, "a").expect_err("no fourth class");
    assert!(error.to_string().contains("label: found 3"), "{error}");
    samples[1].label = -1;
    let bytes = encode_sample_parquet(&samples, None, &BTreeMap::new(), "a").expect("encoded");
    assert_eq!(read_back(bytes).expect("reads"), samples);
}

#[test]
fn another_table_is_refused_by_name_and_column() {
    let tokens_like = {
        use arrow_array::{Int64Array, RecordBatch};
        let columns = [("label", Arc::new(Int64Array::from(vec![1])) as _)];
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("written");
        Bytes::from(writer.into_inner().expect("bytes"))
    };
    let error = read_back(tokens_like).expect_err("no images").to_string();
    assert!(error.starts_with("a.parquet: column \"image\": found none"), "{error}");
    let error = read_back(Bytes::from_static(b"no parquet")).expect_err("nonsense").to_string();
    assert!(error.starts_with("a.parquet: "), "{error}");
}

#[tokio::test]
async fn our_own_source_reader_reads_shards_and_parquet_files_of_samples() {
    let samples = samples(95..120, 16);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let tar = encode_sample_tar(&samples, Some(&names()), Some(11), "a.tar").expect("encoded");
    assert_eq!(tar, encode_sample_tar(&samples, Some(&names()), Some(11), "a.tar").expect("encoded"));
    storage(&store, "tar").put_create("samples-00000.tar", tar).await.expect("written");
    storage(&store, "parquet").put_create("samples-00000.parquet", parquet(&samples)).await.expect("written");
    for (folder, layout) in [("tar", SourceLayout::Webdataset), ("parquet", SourceLayout::Parquet)] {
        let storage = storage(&store, folder);
        assert_eq!(list(&storage).await.layout, layout);
        let plan = plan(&storage, 40).await;
        let images = read_all(&reader(&plan, &storage, &limits()), &plan).await.expect(folder);
        assert_eq!(images.len(), samples.len(), "{folder}");
        for (image, sample) in images.iter().zip(&samples) {
            assert_eq!(image.bytes.as_ref(), Ok(&sample.png), "{folder}");
            assert_eq!(image.label, Some(sample.label), "{folder}");
            assert_eq!(image.class_name.as_ref(), Some(&names()[sample.label as usize]), "{folder}");
            let digits = if folder == "tar" { 8 } else { 6 };
            assert_eq!(image.image_id, format!("{:0digits$}", sample.sample), "{folder}");
        }
    }
}

#[test]
fn a_shard_says_sample_label_class_and_seed_and_nothing_of_when_and_who() {
    let samples = samples(7..8, 8);
    let tar = encode_sample_tar(&samples, Some(&names()), Some(11), "a.tar").expect("encoded");
    let text = String::from_utf8_lossy(&tar).into_owned();
    assert!(text.contains(r#"{"sample":7,"label":1,"class_name":"dog","seed":11}"#), "{text}");
    assert_eq!(tar.len() % 512, 0);
    for header in [0, 512 + samples[0].png.len().next_multiple_of(512)] {
        let number = |range: std::ops::Range<usize>| {
            let digits = String::from_utf8_lossy(&tar[header + range.start..header + range.end]).into_owned();
            u64::from_str_radix(digits.trim_matches(['\0', ' ']), 8).expect("octal digits")
        };
        assert_eq!((number(108..116), number(116..124), number(136..148)), (0, 0, 0));
    }
    let plain = encode_sample_tar(&samples, None, None, "a.tar").expect("encoded");
    assert!(String::from_utf8_lossy(&plain).contains(r#"{"sample":7,"label":1}"#));
}

#[test]
fn the_png_in_a_file_holds_the_pixels_that_went_in() {
    let samples = samples(3..5, 32);
    for sample in read_back(parquet(&samples)).expect("reads") {
        let image = decode_image(&sample.png, &DecodeLimits { max_bytes: 1 << 20, max_pixels: 1024 }).expect("decodes");
        assert_eq!(image.pixels, pixels_of(sample.sample, 32));
    }
}
