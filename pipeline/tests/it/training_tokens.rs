//! Batches of tokens follow from the files, the seed and the memory; whoever goes on at a position gets what would have come.

use crate::{
    run_support::{TOKENS_PER_IMAGE, contents},
    token_support::*,
};
use pipeline::{
    DataPosition, Limits, Storage, TokenTables, TrainingTokensOptions, ValidationTokens, ValidationTokensOptions,
    testing::{Fault, FaultRule, FaultStore, Operation, returns, wait_until},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const TEN_CROP: &str = "adm-ten-crop-11-8";

/// Memory for everything, for windows of a few files, and for not even one file.
const MEMORIES: [u64; 3] = [AMPLE, 3000, 1];

#[tokio::test]
async fn every_image_comes_once_an_epoch_with_one_of_its_views_whatever_fits_in_memory() {
    let (one, ten) = (Output::new("one", "adm-center-8").await, Output::new("ten", TEN_CROP).await);
    let by_codes = rows_by_codes(&[&one, &ten]).await;
    let tables = tables(&[&one, &ten]);
    assert_eq!((tables.images(), tables.rows()), (2 * IMAGES as u64, 11 * IMAGES as u64));
    assert_eq!(tables.bytes(), (11 * TOKENS_PER_IMAGE * 2 + 2 * 4) as u64 * IMAGES as u64);
    for memory_bytes in MEMORIES {
        let mut tokens = start(&tables, &options(5, memory_bytes), DataPosition::default());
        assert_eq!(tokens.is_in_memory(), memory_bytes == AMPLE);
        assert_eq!(tokens.images_an_epoch(), 2 * IMAGES as u64);
        let batches = take(&mut tokens, 3 * 2 * IMAGES / 5 + 1);
        assert!(batches.iter().all(|batch| batch.tokens.rows() == 5 && batch.labels.len() == 5));
        let rows = found(&batches, &by_codes);
        let epochs: Vec<_> = rows.chunks_exact(2 * IMAGES).collect();
        assert_eq!(epochs.len(), 3);
        for epoch in &epochs {
            let images: BTreeSet<_> = epoch.iter().map(|row| (row.output, &row.image_id)).collect();
            assert_eq!(images.len(), 2 * IMAGES, "{memory_bytes} bytes");
        }
        let order = |epoch: usize| epochs[epoch].iter().map(|row| (row.output, &row.image_id)).collect::<Vec<_>>();
        assert!(order(0) != order(1) && order(1) != order(2), "{memory_bytes} bytes");
        // An epoch's number is that of a batch's first image.
        let starts: Vec<_> = (0..batches.len()).map(|batch| (batch * 5 / (2 * IMAGES)) as u64).collect();
        assert_eq!(batches.iter().map(|batch| batch.epoch).collect::<Vec<_>>(), starts);
    }
}

#[tokio::test]
async fn images_of_all_files_mix_where_all_fit() {
    let output = Output::new("out", "adm-center-8").await;
    let by_codes = rows_by_codes(&[&output]).await;
    let rows =
        found(&take(&mut start(&tables(&[&output]), &options(IMAGES, AMPLE), DataPosition::default()), 2), &by_codes);
    let changes = |rows: &[Row]| rows.windows(2).filter(|pair| pair[0].unit != pair[1].unit).count();
    // The second epoch is one window; unshuffled, its eight files would change seven times.
    assert!(changes(&rows[IMAGES..]) > 20, "{:?}", &rows[IMAGES..]);
    // The first begins with one file alone.
    assert_eq!(rows[..3].iter().map(|row| row.unit).collect::<BTreeSet<_>>().len(), 1, "{:?}", &rows[..3]);
}

#[tokio::test]
async fn views_are_drawn_evenly_and_anew_for_every_image_and_epoch() {
    const EPOCHS: usize = 60;
    let output = Output::new("out", TEN_CROP).await;
    let by_codes = rows_by_codes(&[&output]).await;
    let mut tokens = start(&tables(&[&output]), &options(IMAGES, AMPLE), DataPosition::default());
    let rows = found(&take(&mut tokens, EPOCHS), &by_codes);
    let (mut counts, mut by_image) = ([0_usize; 10], BTreeMap::<_, BTreeSet<_>>::new());
    for row in &rows {
        counts[row.view as usize] += 1;
        by_image.entry(&row.image_id).or_default().insert(row.view);
    }
    // Five standard deviations of a binomial count of 1,860 / 10.
    assert!(counts.iter().all(|&count| count.abs_diff(EPOCHS * IMAGES / 10) < 65), "{counts:?}");
    assert!(by_image.len() == IMAGES && by_image.values().all(|views| views.len() >= 7), "{by_image:?}");
    for epoch in rows.chunks_exact(IMAGES) {
        assert!(epoch.iter().map(|row| row.view).collect::<BTreeSet<_>>().len() >= 5, "{epoch:?}");
    }
}

#[tokio::test]
async fn going_on_at_any_batch_gives_what_would_have_come() {
    let (one, ten) = (Output::new("one", "adm-center-8").await, Output::new("ten", TEN_CROP).await);
    let tables = tables(&[&one, &ten]);
    // More than two epochs, in batches that divide neither a file nor an epoch.
    const BATCHES: usize = 22;
    for memory_bytes in MEMORIES {
        let options = options(7, memory_bytes);
        let expected = take(&mut start(&tables, &options, DataPosition::default()), BATCHES);
        assert!(expected[BATCHES - 1].next.epoch == 2, "{:?}", expected[BATCHES - 1].next);
        for start_at in 0..BATCHES - 1 {
            let json = serde_json::to_string(&expected[start_at].next).expect("plain data");
            let position = serde_json::from_str(&json).expect("plain data");
            let found = take(&mut start(&tables, &options, position), BATCHES - 1 - start_at);
            assert!(found == expected[start_at + 1..], "{memory_bytes} bytes, from {position:?}");
        }
    }
}

#[tokio::test]
async fn neither_threads_nor_queues_nor_memory_to_spare_change_a_batch_but_the_seed_does() {
    let output = Output::new("out", TEN_CROP).await;
    let expected = take(&mut start(&tables(&[&output]), &options(4, AMPLE), DataPosition::default()), 20);
    for (decode_threads, prefetch_batches, memory_bytes) in [(1, 1, AMPLE), (4, 30, 2 * AMPLE)] {
        let limits = Limits { decode_threads, ..limits() };
        let tables = returns("the manifest", || TokenTables::with_storages(vec![output.storage.clone()], &limits))
            .expect("an output");
        let options = TrainingTokensOptions { prefetch_batches, ..options(4, memory_bytes) };
        assert!(take(&mut start(&tables, &options, DataPosition::default()), 20) == expected);
    }
    let reseeded = TrainingTokensOptions { seed: 12, ..options(4, AMPLE) };
    assert!(take(&mut start(&tables(&[&output]), &reseeded, DataPosition::default()), 20) != expected);
}

/// An output behind a store that counts and fails.
fn behind_faults(output: &Output) -> (Arc<FaultStore>, Storage) {
    let faults = FaultStore::new(Arc::clone(&output.store) as _);
    let storage = storage("out", Arc::clone(&faults) as _);
    (faults, storage)
}

#[tokio::test]
async fn the_first_batches_come_while_every_other_file_is_silent() {
    let output = Output::new("out", TEN_CROP).await;
    let (faults, storage) = behind_faults(&output);
    faults.inject(FaultRule::new(Operation::Get, Fault::Stall).on("tokens/").skip(1).forever());
    let tables = tables_over(vec![storage]);
    let mut tokens = start(&tables, &options(3, AMPLE), DataPosition::default());
    // One reader, which asks for its second file when it has the first: that one is enough.
    let batch = next(&mut tokens);
    assert_eq!((batch.epoch, batch.tokens.rows()), (0, 3));
    assert!(!tokens.waited().is_zero(), "the first batch is never there at once");
}

#[tokio::test]
async fn opening_asks_for_three_documents_an_output_and_lists_nothing() {
    let output = Output::new("out", TEN_CROP).await;
    let (faults, storage) = behind_faults(&output);
    let tables = tables_over(vec![storage]);
    let requests = [Operation::Get, Operation::Head, Operation::List].map(|operation| faults.requests(operation));
    assert_eq!(requests, [2, 1, 0], "owner and manifest, and whether there is a _SUCCESS");
    assert_eq!(tables.tables()[0].files, 8);
}

#[tokio::test]
async fn files_that_fit_in_memory_are_read_once_and_others_in_every_epoch() {
    let output = Output::new("out", TEN_CROP).await;
    let (faults, storage) = behind_faults(&output);
    let tables = tables_over(vec![storage]);
    let opened = faults.requests(Operation::Get);
    take(&mut start(&tables, &options(IMAGES, AMPLE), DataPosition::default()), 5);
    assert_eq!(faults.requests(Operation::Get) - opened, 8);
    let before = faults.requests(Operation::Get);
    take(&mut start(&tables, &options(IMAGES, 1), DataPosition::default()), 5);
    assert!(faults.requests(Operation::Get) - before >= 5 * 8);
}

#[tokio::test]
async fn no_more_than_the_window_in_use_and_the_next_one_are_ever_read() {
    let output = Output::new("out", "adm-center-8").await;
    let by_codes = rows_by_codes(&[&output]).await;
    // Windows of one file; of 40 batches of one row, the units in the order in which they come.
    let options = TrainingTokensOptions { prefetch_batches: 1, ..options(1, 1) };
    let rows = found(&take(&mut start(&tables(&[&output]), &options, DataPosition::default()), 40), &by_codes);
    let mut files = vec![1];
    for (row, pair) in rows.windows(2).enumerate() {
        // An epoch may begin with the file that the one before has ended with: it is read again.
        let another = pair[0].unit != pair[1].unit || row + 1 == IMAGES;
        files.push(files[row] + usize::from(another));
    }
    let (faults, storage) = behind_faults(&output);
    let tables = tables_over(vec![storage]);
    let opened = faults.requests(Operation::Get);
    let mut tokens = start(&tables, &options, DataPosition::default());
    for taken in 0..rows.len() - 2 {
        next(&mut tokens);
        // One batch waits in the queue and one in front of it; the file after theirs is read, and none after that.
        let most = files[taken + 2] + 1;
        let read = || faults.requests(Operation::Get) - opened;
        wait_until("the reader to have read ahead", || read() >= most);
        assert_eq!(read(), most, "files after {taken} images");
    }
}

#[tokio::test]
async fn dropping_the_tokens_ends_all_work_even_while_a_store_is_silent() {
    let output = Output::new("out", TEN_CROP).await;
    let by_codes = rows_by_codes(&[&output]).await;
    for (memory_bytes, files) in [(AMPLE, 0), (AMPLE, 3), (1, 1)] {
        // The first files that training comes to. They are answered whoever asks: validation reads the same ones in another order.
        let undisturbed = start(&tables(&[&output]), &options(2, memory_bytes), DataPosition::default());
        let mut answered = Vec::new();
        for row in found(&take(&mut { undisturbed }, IMAGES / 2), &by_codes) {
            if !answered.contains(&row.unit) {
                answered.push(row.unit);
            }
        }
        let silence = FaultRule::new(Operation::Get, Fault::Stall).on("tokens/").forever();
        let (faults, storage) = behind_faults(&output);
        faults.inject(answered[..files].iter().fold(silence, |rule, &unit| rule.except(&output.tokens(unit))));
        let tables = tables_over(vec![storage]);
        let mut tokens = start(&tables, &options(2, memory_bytes), DataPosition::default());
        let evaluation =
            ValidationTokens::start(&tables, &ValidationTokensOptions::new(9, 4, CLASSES)).expect("options");
        if files > 0 {
            next(&mut tokens);
        }
        wait_until("a reader to ask for a file that never comes", || faults.faults_met() > 0);
        drop((tokens, evaluation, tables));
        // Every task and thread that could still read holds the store.
        wait_until("all that reads to let go of the store", || Arc::strong_count(&faults) == 1);
    }
}

#[tokio::test]
async fn validation_takes_the_first_images_in_order_with_their_first_view_and_reads_no_more() {
    let (ten, one) = (Output::new("ten", TEN_CROP).await, Output::new("one", "adm-center-8").await);
    let expected: Vec<_> = rows(&[&ten, &one]).await.into_iter().filter(|(_, row)| row.view == 0).collect();
    let tables = tables(&[&ten, &one]);
    for (images, batch_rows) in [(1, 4), (8, 4), (IMAGES, 5), (IMAGES + 3, 100), (1000, 7)] {
        let options = ValidationTokensOptions::new(images as u64, batch_rows, CLASSES);
        for _ in 0..2 {
            let mut tokens = ValidationTokens::start(&tables, &options).expect("options");
            let mut found = Vec::new();
            while let Some(batch) = next_evaluation(&mut tokens) {
                assert!(found.len().is_multiple_of(batch_rows), "only the last batch is short");
                assert_eq!(batch.tokens.rows(), batch.labels.len());
                found.extend(batch.tokens.iter_rows().map(<[i16]>::to_vec).zip(batch.labels));
            }
            let expected = expected.iter().take(images).map(|(codes, row)| (codes.clone(), row.label));
            assert!(found == expected.collect::<Vec<_>>(), "{images} images in batches of {batch_rows}");
            assert!(next_evaluation(&mut tokens).is_none(), "after the end");
        }
    }
    let (faults, storage) = behind_faults(&Output::new("out", TEN_CROP).await);
    faults.inject(FaultRule::new(Operation::Get, Fault::Denied).on("tokens/").skip(1).forever());
    let tables = tables_over(vec![storage]);
    let mut tokens = ValidationTokens::start(&tables, &ValidationTokensOptions::new(3, 4, CLASSES)).expect("options");
    assert_eq!(next_evaluation(&mut tokens).expect("one file is enough").labels.len(), 3);
    assert!(next_evaluation(&mut tokens).is_none(), "the end");
}

#[tokio::test]
async fn tables_tell_what_they_are_and_their_digest_does_not_depend_on_where_they_lie() {
    let output = Output::new("out", TEN_CROP).await;
    let folder = tempfile::tempdir().expect("a folder");
    let url = folder.path().to_str().expect("a path").to_owned();
    let copy = Storage::open_output(&url, &limits()).expect("a folder");
    for (path, bytes) in contents(&output.storage).await {
        copy.put_create(&path, bytes).await.expect("a disk");
    }
    let there = returns("the manifest", || TokenTables::open(&[url], &limits())).expect("a finished output");
    let here = tables(&[&output]);
    assert_eq!(there.digest(), here.digest());
    assert_eq!(here.digest().len(), 64);
    let table = &here.tables()[0];
    assert_eq!((table.url.as_str(), table.split.as_str()), ("memory:///out", "train"));
    assert_eq!((&table.plan, table.views, table.images), (output.plan.hash(), 10, IMAGES as u64));
    assert_eq!(here.tokenizer(), &output.plan.settings().tokenizer);

    let order = |tables: &TokenTables, memory_bytes| {
        start(tables, &options(4, memory_bytes), DataPosition::default()).order_digest().to_owned()
    };
    assert_eq!(order(&here, AMPLE), order(&there, 2 * AMPLE), "where all fits, more memory changes nothing");
    assert_ne!(order(&here, AMPLE), order(&here, 3000));
    let other = Output::new("other", "adm-center-8").await;
    assert_ne!(tables(&[&output, &other]).digest(), here.digest());
    assert_ne!(tables(&[&output, &other]).digest(), tables(&[&other, &output]).digest());
    assert!(
        take(&mut start(&there, &options(4, AMPLE), DataPosition::default()), 9)
            == take(&mut start(&here, &options(4, AMPLE), DataPosition::default()), 9)
    );
}
