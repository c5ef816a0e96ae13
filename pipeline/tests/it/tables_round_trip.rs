//! Tables on disk: bytes, sizes, types.

use crate::run_support::*;
use parquet::{
    basic::{Compression, Encoding},
    file::reader::{FileReader, SerializedFileReader},
};
use pipeline::{Stage, TableReader, TokenizeRun, testing::wait_until_async};
use proptest::prelude::*;
use schemas::{Crop, SourceLayout};
use std::sync::Arc;

#[tokio::test]
async fn a_tokens_file_has_the_layout_that_every_engine_reads() {
    let (_, output, plan) = finished_output(14).await;
    let path = schemas::tokens_path("train", 0, plan.hash());
    let file = SerializedFileReader::new(output.get(&path).await.expect("the file")).expect("Parquet");
    let metadata = file.metadata();
    assert_eq!(metadata.file_metadata().created_by(), Some("restok"));
    assert_eq!(metadata.file_metadata().version(), 1);
    assert_eq!(metadata.num_row_groups(), 1);
    let columns: Vec<String> =
        metadata.row_group(0).columns().iter().map(|column| column.column_path().string()).collect();
    assert_eq!(columns, ["image_id", "view", "label", "tokens.list.element"]);
    let codes = metadata.row_group(0).column(3);
    assert!(matches!(codes.compression(), Compression::ZSTD(_)));
    assert!(codes.encodings().any(|encoding| encoding == Encoding::RLE_DICTIONARY));
    assert!(codes.statistics().is_none());
    assert!(metadata.row_group(0).column(2).statistics().is_some());
    let keys: Vec<&str> =
        metadata.file_metadata().key_value_metadata().expect("metadata").iter().map(|pair| pair.key.as_str()).collect();
    for key in ["restok.plan", "restok.unit", "restok.level_offsets", "restok.codebook_size", "restok.tokenizer_sha256"]
    {
        assert!(keys.contains(&key), "{key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any pattern of rejects, any batch and unit size, any number of views: rows come back in plan order, with the codes of
    /// their own pixels.
    #[test]
    fn any_rejects_views_and_batches_give_rows_in_order(
        broken in prop::collection::vec(any::<bool>(), 1..24),
        batch_size in 1_usize..9,
        unit_size in 1_usize..12,
        crop in prop::sample::select(vec!["adm-center-8", "adm-center-8-flip", "adm-ten-crop-9-8"]),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut images = sample(broken.len());
            for (index, (image, &broken)) in images.iter_mut().zip(&broken).enumerate() {
                let bytes = if broken { b"no image".to_vec() } else { png(9, 9, index as u8) };
                image.bytes = bytes.into();
            }
            let source = memory_source(&images, SourceLayout::Folder).await;
            let crop: Crop = crop.parse().expect("a crop");
            let mut settings = settings(SourceLayout::Folder);
            (settings.batch_size, settings.unit_size) = (batch_size, unit_size);
            if let schemas::Origin::Images(images) = &mut settings.origin {
                images.crop = crop;
            }
            let plan = plan(&source, settings).await;
            let (_, output) = memory_output();
            let report = tokenize_with(&plan, &source, &output, &encoder()).await.expect("a run");
            let reader = TableReader::open(&output).await.expect("an output");
            let mut expected = images.iter().zip(&broken).filter(|(_, broken)| !**broken).flat_map(|(image, _)| {
                let limits = pipeline::DecodeLimits { max_bytes: 1 << 20, max_pixels: 1 << 20 };
                let mut views = Vec::new();
                pipeline::crop_views(&pipeline::decode_image(&image.bytes, &limits).expect("a picture"), crop, &mut views);
                let codes: Vec<_> = views.chunks_exact(8 * 8 * 3).map(|view| encoder().codes(view)).collect();
                codes.into_iter().enumerate().map(|(view, codes)| (image.stem.clone(), view as i8, codes))
            });
            for unit in 0..plan.units() {
                let rows = reader.tokens(unit).await.expect("a unit").rows;
                for ((image_id, view), codes) in rows.image_ids.into_iter().zip(rows.views).zip(rows.tokens.iter_rows()) {
                    assert_eq!(Some((image_id, view, codes.to_vec())), expected.next());
                }
            }
            assert_eq!(expected.next(), None);
            let rejected = broken.iter().filter(|broken| **broken).count() as u64;
            assert_eq!(report.row_counts_output.rejected_total(), rejected);
            assert_eq!(report.row_counts_output.token_rows, (broken.len() as u64 - rejected) * crop.views() as u64);
        });
    }
}

#[tokio::test]
async fn memory_holds_a_bounded_number_of_views_however_large_the_set() {
    // What may be between the source and the device: decoded images of every unit in flight, the batch each fills, the queue,
    // and the batch on the device. A device that stands still lets everything fill up that can.
    let source = memory_source(&sample(90), SourceLayout::Folder).await;
    let mut settings = settings(SourceLayout::Folder);
    settings.unit_size = 45;
    let plan = plan(&source, settings.clone()).await;
    let (_, output) = memory_output();
    let gate = pipeline::testing::Gate::default();
    let blocked = encoder().block_at(0, &gate);
    let mut run: TokenizeRun = run_of(&plan, &source, &output, &blocked);
    (
        run.common.limits.units_in_flight,
        run.common.limits.decode_ahead_images,
        run.common.limits.queued_batches_per_device,
    ) = (2, 3, 2);
    let (telemetry, limits) = (Arc::clone(&run.common.telemetry), run.common.limits.clone());
    let mut running = background(tokenize(run));
    // All that can move has moved when both units stand in front of a queue that is full.
    let waiting = (limits.queued_batches_per_device + limits.units_in_flight) as u64;
    wait_until_async("both units to wait for room in the queue", || {
        blocked.batches() == 1 && telemetry.snapshot().stages[Stage::Queue as usize].depth == waiting
    })
    .await;
    let read = telemetry.snapshot().images_listed;
    let batches = (limits.queued_batches_per_device + 1) as u64;
    let views_in_units = limits.units_in_flight as u64 * (2 * settings.batch_size as u64 + 2);
    let views = batches * settings.batch_size as u64 + views_in_units;
    // Rejected images take no room, so every seventh and eleventh may have been read beyond the bound; a third is ample.
    let bound = (views / 2 + limits.units_in_flight as u64 * limits.decode_ahead_images as u64) * 4 / 3;
    assert!(bound < 45, "the bound must say something");
    assert!((1..=bound).contains(&read), "{read} images were read, at most {bound} expected");
    gate.open();
    assert!(end_of(&mut running).await.expect("no panic").expect("a run").finalized);
}
