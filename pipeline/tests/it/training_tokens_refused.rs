//! Tables that a generator must not be trained on, each refused by name.

use crate::{
    run_support::{CODEBOOK_SIZE, TOKENS_PER_IMAGE},
    token_support::*,
};
use pipeline::{
    DataPosition, PipelineError, Storage, TokenTables, TrainingTokens, TrainingTokensOptions, ValidationTokens,
    ValidationTokensOptions, testing::returns,
};
use schemas::{MANIFEST_PATH, SUCCESS_PATH, TokenBatch, TokenLevels, TokenRows};

fn refused(outputs: &[&Output]) -> String {
    let storages = outputs.iter().map(|output| output.storage.clone()).collect();
    let opened = returns("the manifests of all outputs", || TokenTables::with_storages(storages, &limits()));
    opened.expect_err("must be refused").to_string()
}

/// The error that ends training on an output, at the latest in its first epoch; validation must say the same.
fn training_error(output: &Output, classes: usize) -> PipelineError {
    let tables = tables(&[output]);
    let mut validation =
        ValidationTokens::start(&tables, &ValidationTokensOptions::new(1000, 4, classes)).expect("options");
    let validation_error = loop {
        match returns("the next batch to validate on", || validation.next()) {
            Ok(batch) => assert!(batch.is_some(), "validation has seen all and found nothing"),
            Err(error) => break error,
        }
    };
    let mut messages = Vec::new();
    for memory_bytes in [AMPLE, 1] {
        let options = TrainingTokensOptions { classes, ..options(2, memory_bytes) };
        let mut tokens = start(&tables, &options, DataPosition::default());
        let mut batches = 0;
        let error = loop {
            match returns("the next batch of tokens", || tokens.next()) {
                Ok(_) => batches += 1,
                Err(error) => break error,
            }
        };
        assert!(batches <= IMAGES / 2, "{batches} batches");
        let after = returns("what comes after an error", || tokens.next());
        let after = after.expect_err("nothing comes after an error").to_string();
        assert!(after.contains("after the error"), "{after}");
        messages.push(error.to_string());
    }
    assert!(messages.iter().all(|message| *message == validation_error.to_string()), "{messages:?}");
    validation_error
}

/// Changes the rows of unit 2 and gives the error, which must name the file.
async fn error_of_edited(edit: impl FnOnce(&mut TokenRows)) -> String {
    let output = Output::new("out", "adm-center-8-flip").await;
    output.edit_tokens(2, edit).await;
    let error = training_error(&output, CLASSES);
    assert!(matches!(error, PipelineError::Output { .. }), "{error:?}");
    let error = error.to_string();
    let file = output.storage.uri(&output.tokens(2));
    assert!(error.starts_with(&format!("{file}: ")), "{error}");
    error
}

fn edit_codes(rows: &mut TokenRows, edit: impl FnOnce(&mut Vec<i16>)) {
    let mut codes = rows.tokens.codes().to_vec();
    edit(&mut codes);
    rows.tokens = TokenBatch::try_new(codes, TOKENS_PER_IMAGE).expect("codes");
}

#[tokio::test]
async fn an_output_that_is_not_finished_is_refused_by_name() {
    let (whole, output) = (Output::new("whole", "adm-center-8").await, Output::new("out", "adm-center-8-flip").await);
    output.remove(SUCCESS_PATH).await;
    let error = refused(&[&whole, &output]);
    assert!(error.starts_with("memory:///out: is not finished"), "{error}");
    assert!(error.contains("restok finalize"), "{error}");

    let output = Output::new("out", "adm-center-8").await;
    output.remove(MANIFEST_PATH).await;
    let error = refused(&[&output]);
    assert!(error.contains("out/_manifest.json: is missing, but _SUCCESS is there"), "{error}");

    let empty = storage("nothing", output.store);
    let error = TokenTables::with_storages(vec![empty], &limits()).expect_err("nothing there").to_string();
    assert!(error.starts_with("memory:///nothing: no plan is here"), "{error}");
    let error = TokenTables::open(&[], &limits()).expect_err("nothing given").to_string();
    assert!(error.contains("no token tables"), "{error}");
}

#[tokio::test]
async fn a_manifest_that_contradicts_itself_or_its_output_is_refused() {
    let other = Output::new("other", "adm-center-8-flip").await;
    for (words, case) in
        [("use a newer restok", 0), ("speaks of plan", 1), ("but its row counts say", 2), ("no multiple of", 3)]
    {
        let output = Output::new("out", "adm-ten-crop-11-8").await;
        output
            .edit_manifest(|manifest| match case {
                0 => manifest.schema_version = 1000,
                1 => manifest.plan = other.plan.hash().clone(),
                2 => manifest.tokens[3].rows += 10,
                _ => {
                    manifest.tokens[3].rows += 3;
                    manifest.tokens[4].rows -= 3;
                }
            })
            .await;
        let error = refused(&[&output]);
        assert!(error.contains("memory:///out/_manifest.json: ") && error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn tokens_of_two_tokenizers_are_refused_and_both_are_named() {
    let first = Output::new("first", "adm-center-8").await;
    let sha256 = Output::with_settings("second", |settings| settings.tokenizer.sha256 = "1".repeat(64)).await;
    let codebook = Output::with_settings("second", |settings| settings.tokenizer.codebook_size += 1).await;
    let levels = Output::with_settings("second", |settings| {
        settings.tokenizer.levels = TokenLevels::from_offsets(&[0, 4, TOKENS_PER_IMAGE]).expect("levels");
    })
    .await;
    for (second, found, expected) in [
        (sha256, "1".repeat(64), "0".repeat(64)),
        (codebook, format!("{} codes", CODEBOOK_SIZE + 1), format!("{CODEBOOK_SIZE} codes")),
        (levels, "levels [4, 4]".to_owned(), "levels [1, 1, 2, 4]".to_owned()),
    ] {
        let error = refused(&[&first, &second]);
        for words in ["memory:///first: ", "memory:///second: ", &found, &expected] {
            assert!(error.contains(words), "{words}: {error}");
        }
    }
    // Another name for the same tokenizer is the same tokenizer.
    let renamed = Output::with_settings("renamed", |settings| settings.tokenizer.name = "hf://a/b".to_owned()).await;
    assert_eq!(tables(&[&first, &renamed]).tables().len(), 2);
}

#[tokio::test]
async fn the_same_tables_twice_are_refused_wherever_they_lie() {
    let (output, other) = (Output::new("out", "adm-center-8").await, Output::new("other", "adm-center-8-flip").await);
    let error = refused(&[&output, &other, &output]);
    assert!(error.starts_with("memory:///out and memory:///out hold the tables of one plan"), "{error}");
    let elsewhere = Output::new("copy", "adm-center-8").await;
    let error = refused(&[&output, &elsewhere]);
    assert!(error.starts_with("memory:///out and memory:///copy hold the tables of one plan"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_not_the_one_of_the_manifest_is_refused_by_name() {
    let output = Output::new("out", "adm-center-8").await;
    let path = output.tokens(4);
    let mut bytes = output.storage.get(&path).await.expect("memory").to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    output.replace(&path, bytes.clone()).await;
    let error = training_error(&output, CLASSES).to_string();
    assert!(error.contains(&path) && error.contains("SHA-256") && error.contains("restok verify"), "{error}");
    output.replace(&path, bytes[..middle].to_vec()).await;
    let error = training_error(&output, CLASSES).to_string();
    assert!(error.contains(&path) && error.contains(&format!("{middle} bytes")), "{error}");
    output.remove(&path).await;
    let error = training_error(&output, CLASSES);
    assert!(matches!(error, PipelineError::Storage { .. }), "{error:?}");
    assert!(error.to_string().contains(&path), "{error}");
}

#[tokio::test]
async fn other_rows_than_the_manifest_says_are_refused() {
    let error = error_of_edited(|rows| {
        rows.image_ids.truncate(4);
        rows.views.truncate(4);
        rows.labels.truncate(4);
        edit_codes(rows, |codes| codes.truncate(4 * TOKENS_PER_IMAGE));
    })
    .await;
    assert!(error.contains("4 rows, but the manifest says"), "{error}");
}

#[tokio::test]
async fn an_image_without_a_label_is_refused_by_its_key() {
    let mut image_id = String::new();
    let error = error_of_edited(|rows| {
        image_id.clone_from(&rows.image_ids[2]);
        (rows.labels[2], rows.labels[3]) = (None, None);
    })
    .await;
    assert!(error.contains(&format!("image {image_id:?} has no label")), "{error}");
}

#[tokio::test]
async fn a_label_outside_the_classes_is_refused_by_its_key() {
    for label in [-1, CLASSES as i32, i32::MIN] {
        let mut image_id = String::new();
        let error = error_of_edited(|rows| {
            image_id.clone_from(&rows.image_ids[4]);
            (rows.labels[4], rows.labels[5]) = (Some(label), Some(label));
        })
        .await;
        assert!(error.contains(&format!("image {image_id:?} has label {label}, expected 0 to 2")), "{error}");
    }
    let output = Output::new("out", "adm-center-8").await;
    let error = training_error(&output, 2).to_string();
    assert!(error.contains("has label 2, expected 0 to 1"), "{error}");
}

#[tokio::test]
async fn views_with_different_labels_are_refused() {
    let error = error_of_edited(|rows| rows.labels[3] = Some(2)).await;
    assert!(error.contains("in two of its views"), "{error}");
}

#[tokio::test]
async fn a_code_outside_the_codebook_is_refused_by_its_image() {
    for code in [-1, CODEBOOK_SIZE as i16, i16::MIN, i16::MAX] {
        let mut image_id = String::new();
        let error = error_of_edited(|rows| {
            image_id.clone_from(&rows.image_ids[3]);
            edit_codes(rows, |codes| codes[3 * TOKENS_PER_IMAGE + 5] = code);
        })
        .await;
        assert!(error.contains(&format!("image {image_id:?} has code {code}, outside the codebook of 97")), "{error}");
    }
}

#[tokio::test]
async fn rows_whose_views_do_not_follow_one_another_are_refused() {
    for case in 0..3 {
        let error = error_of_edited(|rows| match case {
            0 => rows.views.swap(2, 3),
            1 => rows.image_ids.swap(1, 2),
            // One image twice.
            _ => {
                let first = rows.image_ids[0].clone();
                (rows.image_ids[2], rows.image_ids[3]) = (first.clone(), first);
            }
        })
        .await;
        assert!(error.contains("must follow one another"), "{error}");
    }
}

#[tokio::test]
async fn a_position_of_other_tables_or_of_another_memory_is_refused() {
    let output = Output::new("out", "adm-center-8").await;
    let tables = tables(&[&output]);
    let whole = options(4, AMPLE);
    let streamed = options(4, 1);
    let position = take(&mut start(&tables, &streamed, DataPosition::default()), 12)[11].next;
    assert_eq!((position.epoch, position.input > 0), (1, true), "{position:?}");
    for (options, position) in [
        (&whole, position),
        (&whole, DataPosition { input: 8, ..DataPosition::default() }),
        (&whole, DataPosition { epoch: 1, taken: IMAGES as u64, ..DataPosition::default() }),
        (&streamed, DataPosition { window_start: position.window_start + 1, ..position }),
        (&streamed, DataPosition { row: 1, ..position }),
    ] {
        let error = TrainingTokens::start(&tables, options, position).expect_err("no such place").to_string();
        assert!(error.contains("memory:///out") && error.contains("of other tables"), "{error}");
    }
}

#[tokio::test]
async fn options_that_contradict_themselves_are_refused() {
    let output = Output::new("out", "adm-center-8").await;
    let tables = tables(&[&output]);
    for (options, words) in [
        (TrainingTokensOptions::new(0, CLASSES, 1), "a batch of 0 rows"),
        (TrainingTokensOptions::new(4, 0, 1), "0 classes"),
    ] {
        let started = TrainingTokens::start(&tables, &options, DataPosition::default());
        let error = started.expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    let options = ValidationTokensOptions::new(0, 4, CLASSES);
    let error = ValidationTokens::start(&tables, &options).expect_err("nothing to see").to_string();
    assert!(error.contains("0 images"), "{error}");
}

#[test]
fn an_address_that_is_none_is_refused_without_its_secrets() {
    let urls = ["https://me:word@example.com:x/a?sig=secret".to_owned()];
    let error = TokenTables::open(&urls, &limits()).expect_err("no port").to_string();
    assert!(!error.contains("secret") && !error.contains("word"), "{error}");
    let opened = Storage::open("https://me:word@example.com/a?sig=secret", &limits()).expect("an address");
    assert_eq!(opened.display(), "https://example.com/a", "as a table tells its address");
}
