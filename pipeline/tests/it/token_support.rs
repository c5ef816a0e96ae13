//! Finished outputs with many small files, and their rows by codes.

use crate::run_support::{
    CODEBOOK_SIZE, encoder, memory_source, plan, rewritten_tokens, sample, settings, tokenize_with,
};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, memory::InMemory, path::Path};
use pipeline::{
    DataPosition, Limits, Storage, TableReader, TokenEvaluationBatch, TokenTables, TokenTrainingBatch, TrainingTokens,
    TrainingTokensOptions, ValidationTokens, testing::returns,
};
use schemas::{MANIFEST_PATH, Manifest, Plan, PlanSettings, SourceLayout, TokenRows, sha256_hex, tokens_path};
use std::{collections::HashMap, sync::Arc};

/// Images that are listed, and how many of them have tokens: a file holds three to five.
pub(crate) const LISTED: usize = 40;
pub(crate) const IMAGES: usize = 31;
pub(crate) const CLASSES: usize = 3;

/// Enough for every file of the tests.
pub(crate) const AMPLE: u64 = 1 << 20;

pub(crate) fn limits() -> Limits {
    Limits { decode_threads: 2, ..Limits::default() }
}

/// An output in memory, at `memory:///<name>`.
pub(crate) struct Output {
    pub(crate) store: Arc<InMemory>,
    pub(crate) storage: Storage,
    pub(crate) plan: Arc<Plan>,
    name: &'static str,
}

impl Output {
    /// The sample's tokens, finished: units of five images.
    pub(crate) async fn new(name: &'static str, crop: &str) -> Self {
        Self::with_settings(name, |settings| {
            if let schemas::Origin::Images(images) = &mut settings.origin {
                images.crop = crop.parse().expect("a crop");
            }
        })
        .await
    }

    pub(crate) async fn with_settings(name: &'static str, edit: impl FnOnce(&mut PlanSettings)) -> Self {
        let source = memory_source(&sample(LISTED), SourceLayout::Folder).await;
        let mut settings = settings(SourceLayout::Folder);
        edit(&mut settings);
        let plan = plan(&source, settings).await;
        let store = Arc::new(InMemory::new());
        let storage = storage(name, Arc::clone(&store) as _);
        tokenize_with(&plan, &source, &storage, &encoder()).await.expect("an undisturbed run");
        Self { store, storage, plan, name }
    }

    pub(crate) fn tokens(&self, unit: u32) -> String {
        tokens_path("train", unit, self.plan.hash())
    }

    pub(crate) async fn replace(&self, path: &str, bytes: impl Into<PutPayload>) {
        self.store.put(&Path::from(format!("{}/{path}", self.name)), bytes.into()).await.expect("memory");
    }

    pub(crate) async fn remove(&self, path: &str) {
        self.store.delete(&Path::from(format!("{}/{path}", self.name))).await.expect("memory");
    }

    pub(crate) async fn edit_manifest(&self, edit: impl FnOnce(&mut Manifest)) {
        let bytes = self.storage.get(MANIFEST_PATH).await.expect("memory");
        let mut manifest = schemas::from_json(MANIFEST_PATH, &bytes).expect("a manifest");
        edit(&mut manifest);
        self.replace(MANIFEST_PATH, schemas::to_json(MANIFEST_PATH, &manifest).expect("JSON")).await;
    }

    /// Changes the rows of a file, and makes the manifest agree.
    pub(crate) async fn edit_tokens(&self, unit: u32, edit: impl FnOnce(&mut TokenRows)) {
        let bytes = rewritten_tokens(&self.storage, unit, edit).await;
        self.replace(&self.tokens(unit), bytes.clone()).await;
        self.edit_manifest(|manifest| {
            let record = &mut manifest.tokens[unit as usize];
            (record.bytes, record.sha256) = (bytes.len() as u64, sha256_hex(&bytes));
        })
        .await;
    }
}

pub(crate) fn storage(name: &str, store: Arc<dyn ObjectStore>) -> Storage {
    Storage::from_store(store, Path::from(name), &format!("memory:///{name}"))
}

/// A row of a table, without its codes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) output: usize,
    pub(crate) unit: u32,
    pub(crate) image_id: String,
    pub(crate) view: i8,
    pub(crate) label: i32,
}

/// All rows of some outputs, in order, with their codes.
pub(crate) async fn rows(outputs: &[&Output]) -> Vec<(Vec<i16>, Row)> {
    let mut all = Vec::new();
    for (output, opened) in outputs.iter().enumerate() {
        let reader = TableReader::open(&opened.storage).await.expect("an output");
        let files: Vec<_> = reader.token_files().try_collect().await.expect("files");
        for file in files {
            let TokenRows { image_ids, views, labels, tokens } = file.rows;
            let columns = image_ids.into_iter().zip(views).zip(labels).zip(tokens.iter_rows());
            all.extend(columns.map(|(((image_id, view), label), codes)| {
                assert!(codes.iter().all(|&code| (code as usize) < CODEBOOK_SIZE));
                (codes.to_vec(), Row { output, unit: file.unit, image_id, view, label: label.expect("a label") })
            }));
        }
    }
    all
}

/// The same by their codes, which no two rows share.
pub(crate) async fn rows_by_codes(outputs: &[&Output]) -> HashMap<Vec<i16>, Row> {
    let all = rows(outputs).await;
    let (count, by_codes) = (all.len(), all.into_iter().collect::<HashMap<_, _>>());
    assert_eq!(by_codes.len(), count, "codes that two rows share would prove nothing");
    by_codes
}

pub(crate) fn tables(outputs: &[&Output]) -> TokenTables {
    tables_over(outputs.iter().map(|output| output.storage.clone()).collect())
}

pub(crate) fn tables_over(storages: Vec<Storage>) -> TokenTables {
    returns("the manifests of all outputs", || TokenTables::with_storages(storages, &limits()))
        .expect("finished outputs")
}

pub(crate) fn options(batch_rows: usize, memory_bytes: u64) -> TrainingTokensOptions {
    TrainingTokensOptions { memory_bytes, prefetch_batches: 2, ..TrainingTokensOptions::new(batch_rows, CLASSES, 11) }
}

pub(crate) fn start(tables: &TokenTables, options: &TrainingTokensOptions, from: DataPosition) -> TrainingTokens {
    TrainingTokens::start(tables, options, from).expect("a position of these tables")
}

/// The next `count` batches.
pub(crate) fn take(tokens: &mut TrainingTokens, count: usize) -> Vec<TokenTrainingBatch> {
    (0..count).map(|_| next(tokens)).collect()
}

pub(crate) fn next(tokens: &mut TrainingTokens) -> TokenTrainingBatch {
    returns("the next batch of tokens", || tokens.next()).expect("a batch")
}

pub(crate) fn next_evaluation(tokens: &mut ValidationTokens) -> Option<TokenEvaluationBatch> {
    returns("the next batch of tokens to validate on", || tokens.next()).expect("a batch or the end")
}

/// What the rows of some batches are; their labels must be those of the table.
pub(crate) fn found(batches: &[TokenTrainingBatch], by_codes: &HashMap<Vec<i16>, Row>) -> Vec<Row> {
    let rows = batches.iter().flat_map(|batch| batch.tokens.iter_rows().zip(&batch.labels));
    rows.map(|(codes, &label)| {
        let row = by_codes.get(codes).expect("codes of the table").clone();
        assert_eq!(row.label, label, "{row:?}");
        row
    })
    .collect()
}
