//! The lines of evaluations: written once, a text of them all, read back as they were.

use crate::run_support::{contents, memory_output, storage_over};
use object_store::{ObjectStore, memory::InMemory};
use pipeline::{
    Limits, Storage, read_scores,
    testing::{Fault, FaultRule, FaultStore, Operation},
    write_scores,
};
use schemas::{EvaluationRecord, Protocol, Scores};
use std::sync::Arc;

fn record(evaluation: &str) -> EvaluationRecord {
    EvaluationRecord {
        evaluation: evaluation.to_owned(),
        deviations: vec![
            "count: 50 images, the protocol says 50000".to_owned(),
            "order: \"sorted\", by class".to_owned(),
        ],
        source_digest: "ab".repeat(32),
        images: 50,
        height: 256,
        width: 256,
        tokenizer: Some("hf://xushu-me/restok".to_owned()),
        codebook_size: Some(8192),
        guidance: Some(4.5),
        guidance_schedule: Some("step".to_owned()),
        top_p: Some(1.0),
        top_k: Some(0),
        temperature: Some(0.1 + 0.2),
        seed: Some(u64::MAX),
        classes: Some(1000),
        sampling: Some("{\"seed\":7}".to_owned()),
        network_precision: Some("bf16".to_owned()),
        reference: Some("VIRTUAL_imagenet256_labeled.npz".to_owned()),
        extractor_sha256: Some("cd".repeat(32)),
        extractor_precision: Some("float32".to_owned()),
        batch_size: 32,
        device_kind: "cpu".to_owned(),
        libtorch: "2.13.0".to_owned(),
        restok: "0.1.0".to_owned(),
        scores: Scores { fid: Some(2.34), sfid: Some(1e-12), inception_score: Some(250.125), ..Scores::default() },
        ..EvaluationRecord::new(Protocol::GfidAdm, "s3://sets/a, b/")
    }
}

/// An evaluation of reconstructed images: a line for each number of kept tokens.
fn curve(evaluation: &str) -> Vec<EvaluationRecord> {
    let line = |kept: u16| EvaluationRecord {
        protocol: Protocol::Rfid,
        deviations: Vec::new(),
        kept_tokens: Some(kept),
        scores: Scores {
            psnr: Some(f64::from(kept)),
            codes_used: Some(97),
            codes_used_by_level: vec![1, 2, 94],
            entropy_bits_by_level: vec![0.0, 1.0, 6.5],
            ..Scores::default()
        },
        ..record(evaluation)
    };
    vec![line(1), line(128)]
}

async fn csv(output: &Storage) -> Vec<Vec<String>> {
    let bytes = output.get("scores.csv").await.expect("there");
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&bytes[..]);
    reader.records().map(|row| row.expect("a row").iter().map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn every_evaluation_is_written_once_and_the_text_holds_all_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let local = Storage::open_output(&folder.path().display().to_string(), &Limits::default()).expect("a path opens");
    let (_, memory) = memory_output();
    for output in [local, memory] {
        assert_eq!(read_scores(&output).await.expect("none yet"), []);
        let written = write_scores(&output, &curve("bbb")).await.expect("written");
        assert_eq!(
            (written.parquet_path.as_str(), written.csv_path.as_str()),
            ("scores/score-bbb.parquet", "scores.csv")
        );
        write_scores(&output, &[record("aaa")]).await.expect("written");
        let before = contents(&output).await;
        write_scores(&output, &curve("bbb")).await.expect("there already");
        assert_eq!(contents(&output).await, before, "twice is once");

        let all: Vec<_> = [record("aaa")].into_iter().chain(curve("bbb")).collect();
        assert_eq!(read_scores(&output).await.expect("reads"), all);
        let rows = csv(&output).await;
        assert_eq!(rows.len(), 1 + 3);
        let cell = |row: usize, name: &str| {
            let column = rows[0].iter().position(|column| column == name).expect(name);
            rows[row][column].as_str()
        };
        assert_eq!((cell(1, "evaluation"), cell(1, "protocol"), cell(1, "fid")), ("aaa", "gfid-adm", "2.34"));
        assert_eq!(cell(1, "deviations"), "count: 50 images, the protocol says 50000;order: \"sorted\", by class");
        assert_eq!((cell(1, "kept_tokens"), cell(1, "psnr"), cell(1, "seed")), ("", "", "18446744073709551615"));
        assert_eq!(cell(1, "temperature").parse(), Ok(0.1 + 0.2));
        assert_eq!((cell(3, "evaluation"), cell(3, "kept_tokens"), cell(3, "psnr")), ("bbb", "128", "128.0"));
        assert_eq!((cell(3, "codes_used_by_level"), cell(3, "entropy_bits_by_level")), ("1;2;94", "0.0;1.0;6.5"));
    }
    let staged = std::fs::read_dir(folder.path().join("_staging")).expect("a folder");
    assert_eq!(staged.count(), 0, "something stayed in the staging folder");
}

#[tokio::test]
async fn other_scores_under_the_same_name_are_refused_and_nothing_is_changed() {
    let (_, output) = memory_output();
    write_scores(&output, &[record("aaa")]).await.expect("written");
    let before = contents(&output).await;
    let mut other = record("aaa");
    other.scores.fid = Some(2.35);
    let told = write_scores(&output, &[other]).await.expect_err("other numbers").to_string();
    assert!(told.contains("score-aaa.parquet: other scores are there") && told.contains("Delete the file"), "{told}");
    assert_eq!(contents(&output).await, before);
}

#[tokio::test]
async fn scores_that_are_none_are_refused() {
    let (_, output) = memory_output();
    let mut infinite = record("aaa");
    infinite.scores.psnr = Some(f64::INFINITY);
    let mixed = vec![record("aaa"), record("bbb")];
    for (records, words) in [
        (vec![], "no scores to write"),
        (mixed, "two evaluations, \"aaa\" and \"bbb\""),
        (vec![record("../a")], "the evaluation \"../a\""),
        (vec![infinite], "psnr: found inf, expected a number"),
    ] {
        let told = write_scores(&output, &records).await.expect_err(words).to_string();
        assert!(told.contains(words), "{told}");
    }
    assert!(contents(&output).await.is_empty());
}

#[tokio::test]
async fn a_damaged_file_of_scores_is_named() {
    let (_, output) = memory_output();
    write_scores(&output, &[record("aaa")]).await.expect("written");
    output.put_create("scores/score-bbb.parquet", "half a file".into()).await.expect("memory");
    let told = read_scores(&output).await.expect_err("damaged").to_string();
    assert!(told.starts_with("memory:///out/scores/score-bbb.parquet") && told.contains("delete it"), "{told}");
}

#[tokio::test]
async fn the_text_is_written_again_when_the_store_hiccups_and_made_good_by_the_next_evaluation() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let faulty = FaultStore::new(memory);
    let store: Arc<dyn ObjectStore> = Arc::clone(&faulty) as _;
    let output = storage_over(store);
    faulty.inject(FaultRule::new(Operation::Put, Fault::Unavailable).on("scores.csv").times(2));
    write_scores(&output, &[record("aaa")]).await.expect("mended");
    faulty.inject(FaultRule::new(Operation::Put, Fault::Denied).on("scores.csv"));
    write_scores(&output, &[record("bbb")]).await.expect_err("refused");
    assert_eq!(csv(&output).await.len(), 2, "it lacks the evaluation whose text could not be written");
    write_scores(&output, &[record("ccc")]).await.expect("written");
    assert_eq!(csv(&output).await.len(), 4);
}
