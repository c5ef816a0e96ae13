//! From images in every layout to tables that read back.

use crate::{run_support::*, sample_set::SampleSet};
use bytes::Bytes;
use futures::TryStreamExt;
use pipeline::{
    DecodeLimits, PipelineError, ProcessRank, RankOrigin, RgbImage, Stage, Storage, TableReader, VerifyOptions,
    crop_views, decode_image, finalize, verify,
};
use schemas::{Crop, ImageRow, RejectReason, SourceLayout, sha256_hex};
use std::{collections::BTreeMap, sync::Arc};

/// Rows of both tables of an output, in order.
type TokenRow = (String, i8, Option<i32>, Vec<i16>);

async fn read_back(output: &Storage) -> (Vec<TokenRow>, Vec<ImageRow>) {
    let reader = TableReader::open(output).await.expect("an output");
    let files: Vec<_> = reader.token_files().try_collect().await.expect("tokens read back");
    let rows = files.iter().flat_map(|file| {
        let rows = &file.rows;
        (0..rows.tokens.rows()).map(|row| {
            let codes = rows.tokens.iter_rows().nth(row).expect("a row").to_vec();
            (rows.image_ids[row].clone(), rows.views[row], rows.labels[row], codes)
        })
    });
    let rows = rows.collect();
    let images: Vec<_> = reader.image_files().try_collect().await.expect("images read back");
    (rows, images.into_iter().flat_map(|file| file.rows).collect())
}

#[tokio::test]
async fn every_layout_gives_the_rows_that_decoding_cropping_and_encoding_one_image_gives() {
    let sample = sample(23);
    let set = SampleSet::new(sample.clone());
    let limits = DecodeLimits { max_bytes: 1 << 20, max_pixels: 1 << 20 };
    let crop = Crop::AdmCenterFlip { size: 8 };
    let decoded: BTreeMap<String, Result<RgbImage, RejectReason>> = sample
        .iter()
        .map(|image| (image.stem.clone(), decode_image(&image.bytes, &limits).map_err(|failure| failure.reason)))
        .collect();
    let mut expected = Vec::new();
    for image in &sample {
        let Ok(pixels) = &decoded[&image.stem] else { continue };
        let mut views = Vec::new();
        crop_views(pixels, crop, &mut views);
        for (view, pixels) in views.chunks_exact(8 * 8 * 3).enumerate() {
            expected.push((image.stem.clone(), view as i8, Some(set.label(image)), encoder().codes(pixels)));
        }
    }
    for layout in SourceLayout::ALL {
        let source = memory_source(&sample, layout).await;
        let plan = plan(&source, settings(layout)).await;
        let (_, output) = memory_output();
        let report = tokenize_with(&plan, &source, &output, &encoder()).await.expect("a run");
        assert!(report.finalized, "{layout}");
        let (tokens, images) = read_back(&output).await;
        assert_eq!(tokens, expected, "{layout}");
        assert_eq!(images.len(), sample.len(), "{layout}: one row for every image");
        for (row, image) in images.iter().zip(&sample) {
            assert_eq!((&row.image_id, row.label), (&image.stem, Some(set.label(image))), "{layout}");
            assert_eq!(row.rejected, decoded[&image.stem].as_ref().err().copied(), "{layout}: {}", image.stem);
            assert_eq!(row.sha256.as_deref(), Some(sha256_hex(&image.bytes).as_str()), "{layout}");
            assert_eq!(row.bytes, image.bytes.len() as i64, "{layout}");
            if let Ok(decoded) = &decoded[&image.stem] {
                assert_eq!((row.width, row.height), (Some(decoded.width as i32), Some(decoded.height as i32)));
            }
        }
        let row_counts = &report.row_counts_output;
        assert_eq!((row_counts.listed, row_counts.token_rows), (23, expected.len() as u64), "{layout}");
        assert_eq!(row_counts.written + row_counts.rejected_total(), 23, "{layout}");
        assert!(row_counts.rejected_total() >= 4, "{layout}: the sample has broken images");
        let verified = verify(&output, &VerifyOptions::default()).await.expect("verify reads");
        assert!(verified.is_sound() && verified.finished, "{layout}: {:?}", verified.findings);
        assert_eq!(verified.row_counts, *row_counts, "{layout}");
    }
}

#[tokio::test]
async fn the_report_counts_every_stage() {
    let source = memory_source(&sample(23), SourceLayout::Folder).await;
    let plan = plan(&source, settings(SourceLayout::Folder)).await;
    let (_, output) = memory_output();
    let report = tokenize_with(&plan, &source, &output, &encoder()).await.expect("a run");
    let snapshot = &report.snapshot;
    let items = |stage: Stage| snapshot.stages[stage as usize].items;
    assert_eq!((items(Stage::Fetch), items(Stage::Decode)), (23, 23));
    assert_eq!(items(Stage::Encode), report.row_counts_output.token_rows);
    // Two files and a marker for each of the five units.
    assert_eq!((plan.units(), items(Stage::Write)), (5, 15));
    assert_eq!((snapshot.units_total, snapshot.units_done), (5, 5));
    assert_eq!((snapshot.images_total, snapshot.images_listed), (Some(23), 23));
    assert_eq!(snapshot.images_written + snapshot.images_rejected, 23);
    assert!(snapshot.stages.iter().all(|stage| stage.depth == 0), "{}", snapshot.describe_stages());
    assert!(snapshot.limiting_stage().is_some());
}

#[tokio::test]
async fn tables_do_not_depend_on_devices_units_in_flight_or_threads() {
    let source = memory_source(&sample(31), SourceLayout::Webdataset).await;
    let plan = plan(&source, settings(SourceLayout::Webdataset)).await;
    let (_, reference) = memory_output();
    tokenize_with(&plan, &source, &reference, &encoder()).await.expect("a run");
    for (devices, units_in_flight, threads, ahead) in [(3, 1, 1, 1), (1, 4, 3, 16), (2, 0, 2, 2)] {
        let (_, output) = memory_output();
        let mut run = run_of(&plan, &source, &output, &encoder());
        run.encoders = (0..devices).map(|device| (format!("fake:{device}"), encoder().factory())).collect();
        run.common.limits.units_in_flight = units_in_flight;
        run.common.limits.decode_threads = threads;
        run.common.limits.decode_ahead_images = ahead;
        run.common.limits.queued_batches_per_device = 1;
        tokenize(run).await.expect("a run");
        assert_eq!(contents(&output).await, contents(&reference).await);
    }
}

#[tokio::test]
async fn a_unit_of_rejects_alone_has_files_that_read_back() {
    let mut sample = sample(15);
    for image in &mut sample[5..10] {
        image.bytes = Bytes::from_static(b"not an image");
    }
    let source = memory_source(&sample, SourceLayout::Folder).await;
    let plan = plan(&source, settings(SourceLayout::Folder)).await;
    let (_, output) = memory_output();
    tokenize_with(&plan, &source, &output, &encoder()).await.expect("a run");
    let reader = TableReader::open(&output).await.expect("an output");
    let tokens = reader.tokens(1).await.expect("a file without rows");
    assert_eq!(tokens.rows.tokens.rows(), 0);
    assert_eq!(tokens.metadata["restok.unit"], "1");
    assert_eq!(reader.images(1).await.expect("its images").rows.len(), 5);
    assert!(verify(&output, &VerifyOptions::default()).await.expect("verify reads").is_sound());
}

#[tokio::test]
async fn several_processes_share_the_units_and_the_last_one_finalizes() {
    let source = memory_source(&sample(40), SourceLayout::Folder).await;
    let plan = plan(&source, settings(SourceLayout::Folder)).await;
    let (_, reference) = memory_output();
    tokenize_with(&plan, &source, &reference, &encoder()).await.expect("a run");
    let (_, output) = memory_output();
    let runs = (0..3).map(|rank| {
        let mut run = run_of(&plan, &source, &output, &encoder());
        run.common.process = ProcessRank { rank, world_size: 3, origin: RankOrigin::Options };
        tokenize(run)
    });
    let reports = futures::future::try_join_all(runs).await.expect("three runs at once");
    assert!(reports.iter().any(|report| report.finalized));
    assert_eq!(contents(&output).await, contents(&reference).await);
}

#[tokio::test]
async fn a_finished_output_is_left_alone_and_no_device_is_started() {
    let (_, output, plan) = finished_output(12).await;
    let before = contents(&output).await;
    let source = memory_source(&sample(12), SourceLayout::Folder).await;
    let idle = encoder();
    // The same objects, so the same plan: memory stores count their etags alike.
    let mut run = run_of(&plan, &source, &output, &idle);
    run.encoders = Vec::new();
    let report = tokenize(run).await.expect("nothing to do");
    assert_eq!((report.units_here, report.units_already_done, report.finalized), (0, plan.units(), true));
    assert_eq!(contents(&output).await, before);
    finalize(&output, 1.0).await.expect("finalizing twice is harmless");
    assert_eq!(contents(&output).await, before);
}

#[tokio::test]
async fn ids_that_repeat_across_shards_are_found_while_the_second_shard_is_read() {
    let mut sample = sample(9);
    for (index, image) in sample.iter_mut().enumerate() {
        image.stem = format!("{:05}", index % 3);
    }
    let source = memory_source(&sample, SourceLayout::Webdataset).await;
    let plan = plan(&source, settings(SourceLayout::Webdataset)).await;
    let (_, output) = memory_output();
    let error = tokenize_with(&plan, &source, &output, &encoder()).await.expect_err("ids repeat");
    assert!(matches!(&error, PipelineError::Source { .. }), "{error}");
    assert!(error.to_string().contains("`image_id` path"), "{error}");
    assert!(!output.exists("_SUCCESS").await.expect("memory"));
}

#[tokio::test]
async fn the_budget_of_fetched_bytes_may_be_smaller_than_any_image() {
    let source = memory_source(&sample(23), SourceLayout::Webdataset).await;
    let plan = plan(&source, settings(SourceLayout::Webdataset)).await;
    let (_, output) = memory_output();
    let mut run = run_of(&plan, &source, &output, &encoder());
    run.common.limits.fetch_buffer_bytes = 1;
    run.common.limits.units_in_flight = 3;
    run.common.limits.decode_ahead_images = 1;
    run.common.limits.queued_batches_per_device = 1;
    run.source =
        pipeline::SourceReader::with_storage(Arc::clone(&plan), source.clone(), &run.common.limits).expect("a source");
    assert!(tokenize(run).await.expect("a run").finalized);
}

#[tokio::test]
async fn a_local_folder_holds_the_same_tables_as_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Storage::open(folder.path().to_str().expect("a path"), &pipeline::Limits::default()).expect("opens");
    let source = memory_source(&sample(12), SourceLayout::Parquet).await;
    let plan = plan(&source, settings(SourceLayout::Parquet)).await;
    tokenize_with(&plan, &source, &output, &encoder()).await.expect("a run");
    let (_, memory) = memory_output();
    tokenize_with(&plan, &source, &memory, &encoder()).await.expect("a run");
    assert_eq!(contents(&output).await, contents(&memory).await);
}
