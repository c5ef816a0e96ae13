//! Rows to Parquet bytes: the same rows and provenance always give the same bytes.

use crate::PipelineError;
use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties, WriterVersion},
    },
    schema::types::ColumnPath,
};
use schemas::{ImageRow, Provenance, TokenRows, image_record_batch};

/// Rows of a row group. DuckDB's own size: a unit of the default size is one group, and engines that divide work by groups
/// still can with ten views an image.
const ROW_GROUP_ROWS: usize = 122_880;

/// Rows of a page: about 213 KiB of codes, so that a look-up of one image reads little.
const PAGE_ROWS: usize = 1024;

/// A level above 1 squeezes the ids a little more; codes are close to incompressible at any level.
const ZSTD_LEVEL: i32 = 3;

/// Largest dictionary page in bytes. The largest codebook that fits 16 bits needs 128 KiB, so codes never fall back to plain
/// 32-bit values.
const DICTIONARY_PAGE_BYTES: usize = 1 << 20;

/// A part of the tokens table as the bytes of its file; `uri` is for errors.
///
/// # Errors
/// When the columns differ in length or the Parquet library fails.
pub(crate) fn encode_tokens(rows: &TokenRows, provenance: &Provenance, uri: &str) -> Result<Bytes, PipelineError> {
    let codes = ColumnPath::new(vec!["tokens".into(), "list".into(), "element".into()]);
    let views = provenance.settings.origin.views();
    let properties = properties(provenance, uri)?
        // Codes have no order worth pruning by, and their statistics would only add bytes.
        .set_column_statistics_enabled(codes, EnabledStatistics::None)
        // With one view an image every id is new: a dictionary would add an index to each. With more it saves repeats.
        .set_column_dictionary_enabled("image_id".into(), views > 1)
        .build();
    let batch = match provenance.settings.origin.samples() {
        None => rows.to_record_batch()?,
        Some(samples) => rows.to_sample_record_batch(samples.sampling.seed)?,
    };
    encode(&batch, properties, uri)
}

/// A part of the images table as the bytes of its file; `uri` is for errors.
///
/// # Errors
/// When the Parquet library fails.
pub(crate) fn encode_images(rows: &[ImageRow], provenance: &Provenance, uri: &str) -> Result<Bytes, PipelineError> {
    let mut properties = properties(provenance, uri)?;
    // Unique in every row, see above.
    for unique in ["image_id", "source", "sha256"] {
        properties = properties.set_column_dictionary_enabled(unique.into(), false);
    }
    encode(&image_record_batch(rows)?, properties.build(), uri)
}

fn properties(
    provenance: &Provenance,
    uri: &str,
) -> Result<parquet::file::properties::WriterPropertiesBuilder, PipelineError> {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(|source| parquet_error(uri, source))?;
    let metadata = provenance.to_key_values().into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
    Ok(WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_dictionary_page_size_limit(DICTIONARY_PAGE_BYTES)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        // The list's leaf is called `element`, as the specification, Iceberg and Delta want it.
        .set_coerce_types(true)
        // The library's default names its version; an update of it must not change a byte for the name alone.
        .set_created_by("restok".to_owned())
        .set_key_value_metadata(Some(metadata)))
}

fn encode(batch: &RecordBatch, properties: WriterProperties, uri: &str) -> Result<Bytes, PipelineError> {
    let wrong = |source| parquet_error(uri, source);
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).map_err(wrong)?;
    writer.write(batch).map_err(wrong)?;
    Ok(Bytes::from(writer.into_inner().map_err(wrong)?))
}

pub(super) fn parquet_error(uri: &str, source: ParquetError) -> PipelineError {
    PipelineError::Parquet { uri: uri.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{decode_images, decode_tokens};
    use proptest::{prelude::*, test_runner::TestRng};
    use schemas::{
        Crop, ImageIdRule, ImageOrigin, Origin, Plan, PlanSettings, PlannedInput, RejectReason, SourceLayout,
        TokenBatch, TokenLevels, TokenizerIdentity, WriterInfo,
    };

    fn provenance(crop: &str, tokens: usize) -> Provenance {
        let settings = PlanSettings {
            source: "s3://imagenet/train/".to_owned(),
            split: "train".to_owned(),
            tokenizer: TokenizerIdentity {
                name: "hf://xushu-me/restok_l_128.r256_in1k".to_owned(),
                sha256: "0123456789abcdef".repeat(4),
                codebook_size: 8192,
                levels: TokenLevels::published(tokens).expect("a power of two"),
            },
            precision: "fp32".to_owned(),
            batch_size: 32,
            unit_size: 16_384,
            origin: Origin::Images(ImageOrigin {
                layout: SourceLayout::Folder,
                image_id: ImageIdRule::Stem,
                crop: crop.parse::<Crop>().expect("a crop"),
                max_image_bytes: 1 << 26,
                max_image_pixels: 1 << 27,
                reading: schemas::SourceReading::default(),
            }),
        };
        let input = PlannedInput { uri: "a".to_owned(), size: 1, etag: None, rows: None, label: None, unit: 0 };
        let plan = Plan::try_new(settings.clone(), Vec::new(), vec![input]).expect("a plan");
        let writer_info = WriterInfo {
            device_kind: "NVIDIA H100 80GB HBM3".to_owned(),
            libtorch: "2.13.0".to_owned(),
            decoder: crate::decoder_versions().to_owned(),
            version: "0.1.0".to_owned(),
        };
        Provenance { plan: plan.hash().clone(), unit: 0, settings, writer_info }
    }

    /// Rows as ImageNet's first classes give them: some 1,300 images a class, numbered with gaps, in sorted order; codes as
    /// incompressible as codes can be.
    fn imagenet_rows(images: usize, views: usize) -> TokenRows {
        let mut random = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
        let mut ids: Vec<String> = (0..images)
            .map(|image| format!("n0{}_{}", 1_440_764 + image / 1300 * 6783, random.next_u32() % 30_000))
            .collect();
        ids.sort();
        let rows = images * views;
        let codes = (0..rows * 128).map(|_| (random.next_u32() % 8192) as i16).collect();
        TokenRows {
            image_ids: (0..rows).map(|row| ids[row / views].clone()).collect(),
            views: (0..rows).map(|row| (row % views) as i8).collect(),
            labels: (0..rows).map(|row| Some((row / views / 1300) as i32)).collect(),
            tokens: TokenBatch::try_new(codes, 128).expect("codes"),
        }
    }

    #[test]
    fn a_unit_of_random_codes_takes_at_most_fourteen_bits_a_token() {
        for (crop, images, views) in
            [("adm-center-256", 16_384, 1), ("adm-center-256-flip", 8_192, 2), ("adm-ten-crop-281-256", 16_384, 10)]
        {
            let rows = imagenet_rows(images, views);
            let bytes = encode_tokens(&rows, &provenance(crop, 128), "a").expect("bytes");
            let bits = bytes.len() as f64 * 8.0 / rows.tokens.codes().len() as f64;
            eprintln!("{crop}: {bits:.3} bits a token");
            // Thirteen bits are in the codes themselves: less would mean that some were lost.
            assert!((13.0..=14.0).contains(&bits), "{crop}: {bits:.3} bits a token");
            let (_, there) = decode_tokens(bytes, 128, "a").expect("reads back");
            assert!(there == rows, "{crop}: rows read back otherwise");
        }
    }

    fn image_row() -> impl Strategy<Value = ImageRow> {
        let reason = prop::option::of(prop::sample::select(RejectReason::ALL.to_vec()));
        let text = "[a-zé/_\" ]{0,12}";
        let dimensions = (prop::option::of(1..i32::MAX), prop::option::of(1..i32::MAX));
        (
            text,
            text,
            any::<Option<i32>>(),
            prop::option::of(text),
            dimensions,
            0..i64::MAX,
            reason,
            prop::option::of(text),
        )
            .prop_map(|(image_id, source, label, class_name, (width, height), bytes, rejected, error)| {
                ImageRow {
                    image_id,
                    source,
                    label,
                    class_name: class_name.clone(),
                    width,
                    height,
                    bytes,
                    sha256: class_name,
                    rejected,
                    error,
                }
            })
    }

    proptest! {
        #[test]
        fn both_tables_read_back_as_they_were_and_give_the_same_bytes_again(
            rows in prop::collection::vec(("[a-z0-9_é]{0,9}", 0_i8..10, any::<Option<i32>>(), prop::collection::vec(0_i16..8192, 4)), 0..50),
            images in prop::collection::vec(image_row(), 0..50),
        ) {
            let provenance = provenance("adm-ten-crop-281-256", 4);
            let rows = TokenRows {
                image_ids: rows.iter().map(|row| row.0.clone()).collect(),
                views: rows.iter().map(|row| row.1).collect(),
                labels: rows.iter().map(|row| row.2).collect(),
                tokens: TokenBatch::try_new(rows.into_iter().flat_map(|row| row.3).collect(), 4).expect("codes"),
            };
            let bytes = encode_tokens(&rows, &provenance, "a").expect("bytes");
            prop_assert_eq!(&bytes, &encode_tokens(&rows, &provenance, "a").expect("bytes"));
            let (metadata, there) = decode_tokens(bytes, 4, "a").expect("reads back");
            prop_assert_eq!(there, rows);
            prop_assert_eq!(metadata, provenance.to_key_values());
            let bytes = encode_images(&images, &provenance, "a").expect("bytes");
            prop_assert_eq!(&bytes, &encode_images(&images, &provenance, "a").expect("bytes"));
            let (metadata, there) = decode_images(bytes, "a").expect("reads back");
            prop_assert_eq!(there, images);
            prop_assert_eq!(metadata, provenance.to_key_values());
        }
    }

    #[test]
    fn hostile_tables_are_read_or_refused_by_name() {
        let provenance = provenance("adm-center-256", 128);
        let tokens = encode_tokens(&imagenet_rows(9, 1), &provenance, "a").expect("bytes").to_vec();
        crate::testing::fuzz(file!(), 200, &[tokens], |bytes| {
            crate::testing::read_or_refused("a.parquet", decode_tokens(Bytes::copy_from_slice(bytes), 128, "a.parquet"))
        });
        let row = |number: i64| ImageRow {
            image_id: format!("n01440764_{number}"),
            source: format!("n01440764/n01440764_{number}.JPEG"),
            label: Some(0),
            class_name: Some("n01440764".to_owned()),
            width: Some(500),
            height: None,
            bytes: number,
            sha256: None,
            rejected: (number % 3 == 0).then_some(RejectReason::Truncated),
            error: None,
        };
        let images = encode_images(&(0..9).map(row).collect::<Vec<_>>(), &provenance, "a").expect("bytes").to_vec();
        crate::testing::fuzz(file!(), 200, &[images], |bytes| {
            crate::testing::read_or_refused("a.parquet", decode_images(Bytes::copy_from_slice(bytes), "a.parquet"))
        });
    }

    #[test]
    fn another_number_of_codes_a_row_is_refused() {
        let bytes = encode_tokens(&imagenet_rows(3, 1), &provenance("adm-center-256", 128), "a").expect("bytes");
        let error = decode_tokens(bytes, 64, "tokens.parquet").expect_err("128 codes").to_string();
        assert!(error.starts_with("tokens.parquet: column \"tokens\""), "{error}");
    }
}
