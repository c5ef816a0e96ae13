//! Tokens tables of finished outputs, opened by their manifests alone.

use super::file::FileTokens;
use crate::{
    Limits, PipelineError, Storage,
    commit::{nothing_there, owning_plan},
    cpu_pool::CpuPool,
    prefetcher::OwnRuntime,
};
use futures::{StreamExt, TryStreamExt, future, stream};
use schemas::{
    FileRecord, MANIFEST_PATH, Manifest, Origin, PlanHash, SCHEMA_VERSION, SUCCESS_PATH, TokenizerIdentity,
    check_codebook_size, from_json, hex,
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::Arc};

/// Outputs opened at once: a few small requests each.
const OUTPUTS_AT_ONCE: usize = 8;

/// Files of a window that are read and decoded at once. What this many files weigh, encoded, is in memory beside the window.
const FILES_AT_ONCE: usize = 4;

/// One of the outputs that were opened, for those who tell of it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenTable {
    /// Address of the output, without credentials.
    pub url: String,
    /// Hash of the plan that owns it.
    pub plan: PlanHash,
    /// Value of its `split=` partition.
    pub split: String,
    /// How its rows were made.
    pub origin: Origin,
    /// Views (rows) an image.
    pub views: usize,
    /// Images with tokens.
    pub images: u64,
    /// Files of its tokens table.
    pub files: usize,
}

/// The tokens tables of one or many finished outputs, made by one tokenizer.
///
/// Opening reads the plan's owner and the manifest of each output, a few requests, and no table. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct TokenTables {
    pub(super) files: Arc<TokenFiles>,
    pub(super) runtime: Arc<OwnRuntime>,
}

/// The frozen list of files, and what reads them.
#[derive(Debug)]
pub(super) struct TokenFiles {
    pub(super) tokenizer: TokenizerIdentity,
    /// Those with rows, by output and unit.
    pub(super) files: Vec<TokenFile>,
    tables: Vec<TokenTable>,
    storages: Vec<Storage>,
    digest: String,
    pub(super) cpu: CpuPool,
}

/// A file of a tokens table, as its manifest has it.
#[derive(Debug)]
pub(super) struct TokenFile {
    /// Place of its output in the list.
    output: usize,
    pub(super) record: FileRecord,
    pub(super) views: usize,
    pub(super) images: u64,
    /// Images of the list in front of it.
    pub(super) first_image: u64,
}

impl TokenTables {
    /// Opens the outputs at these addresses.
    ///
    /// # Errors
    /// When an output is not finished or its manifest is damaged, one is named twice, two were made by different tokenizers, or there
    /// is no image in all of them; storage errors.
    pub fn open(urls: &[String], limits: &Limits) -> Result<Self, PipelineError> {
        let outputs = urls.iter().map(|url| Storage::open(url, limits)).collect::<Result<Vec<_>, _>>()?;
        Self::with_storages(outputs, limits)
    }

    /// The same over outputs that are already open.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_storages(outputs: Vec<Storage>, limits: &Limits) -> Result<Self, PipelineError> {
        let (runtime, cpu) = (Arc::new(OwnRuntime::start()?), CpuPool::try_new(limits.decode_threads)?);
        let reading = outputs.clone();
        let manifests = runtime.wait(async move {
            stream::iter(&reading).map(read_manifest).buffered(OUTPUTS_AT_ONCE).try_collect::<Vec<_>>().await
        })?;
        Ok(Self { files: Arc::new(TokenFiles::try_new(outputs, manifests, cpu)?), runtime })
    }

    /// The tokenizer of all tables, by the name that the first output has for it: its digest, its levels and the size of its codebook
    /// are the same in all.
    pub fn tokenizer(&self) -> &TokenizerIdentity {
        &self.files.tokenizer
    }

    /// The outputs, in the order in which they were given.
    pub fn tables(&self) -> &[TokenTable] {
        &self.files.tables
    }

    /// Images of all outputs together: an epoch. An image that is in two outputs counts twice.
    pub fn images(&self) -> u64 {
        self.files.tables.iter().map(|table| table.images).sum()
    }

    /// Rows (views) of all outputs together.
    pub fn rows(&self) -> u64 {
        self.files.files.iter().map(|file| file.record.rows).sum()
    }

    /// Bytes that all codes and labels take in memory: two a code, four an image.
    pub fn bytes(&self) -> u64 {
        self.files.sizes().map(|(_, bytes)| bytes).sum()
    }

    /// SHA-256 of the frozen list: the tokenizer, and each file's path below its output with its digest. Where the outputs lie is no
    /// part of it. A run may go on at a position only where this is what it was.
    pub fn digest(&self) -> &str {
        &self.files.digest
    }
}

impl TokenFiles {
    fn try_new(storages: Vec<Storage>, manifests: Vec<Manifest>, cpu: CpuPool) -> Result<Self, PipelineError> {
        let Some(first) = manifests.first() else { return Err(settings_error("no token tables are given".to_owned())) };
        let tokenizer = first.settings.tokenizer.clone();
        check_codebook_size(tokenizer.codebook_size)?;
        let (mut plans, mut digest) = (BTreeMap::new(), Sha256::new());
        let sizes = tokenizer.levels.sizes();
        digest.update(format!("{} {} {sizes:?}\n", tokenizer.sha256, tokenizer.codebook_size));
        let (mut files, mut tables, mut first_image) = (Vec::new(), Vec::new(), 0);
        for (output, (storage, manifest)) in storages.iter().zip(manifests).enumerate() {
            check_same_tokenizer(&storages[0], &tokenizer, storage, &manifest.settings.tokenizer)?;
            if let Some(twice) = plans.insert(manifest.plan.clone(), output) {
                return Err(settings_error(format!(
                    "{} and {} hold the tables of one plan ({}): each image would count twice; name one of them",
                    storages[twice].display(),
                    storage.display(),
                    manifest.plan.short()
                )));
            }
            let views = manifest.settings.origin.views();
            digest.update(format!("{} {views}\n", manifest.plan));
            for record in &manifest.tokens {
                digest.update(format!("{} {} {}\n", record.path, record.sha256, record.rows));
            }
            tables.push(TokenTable {
                url: storage.display().to_owned(),
                plan: manifest.plan,
                split: manifest.settings.split,
                origin: manifest.settings.origin,
                views,
                images: manifest.row_counts.written,
                files: manifest.tokens.len(),
            });
            for record in manifest.tokens.into_iter().filter(|record| record.rows > 0) {
                let images = record.rows / views as u64;
                files.push(TokenFile { output, record, views, images, first_image });
                first_image += images;
            }
        }
        if files.is_empty() {
            let urls: Vec<_> = tables.iter().map(|table| table.url.as_str()).collect();
            return Err(settings_error(format!("no image has tokens in {}", urls.join(", "))));
        }
        Ok(Self { tokenizer, files, tables, storages, digest: hex(&digest.finalize()), cpu })
    }

    /// Images of each file, and the bytes that it takes in memory.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let tokens = self.tokenizer.levels.tokens_per_image() as u64;
        self.files.iter().map(move |file| (file.images, file.record.rows * tokens * 2 + file.images * 4))
    }

    /// Full address of a file.
    pub(super) fn uri(&self, file: &TokenFile) -> String {
        self.storages[file.output].uri(&file.record.path)
    }

    /// Reads a file and checks all that is said of it; labels must be below `classes`.
    ///
    /// # Errors
    /// Storage errors; else as [`FileTokens::decode`].
    async fn read_one(self: Arc<Self>, place: usize, classes: usize) -> Result<Arc<FileTokens>, PipelineError> {
        let file = &self.files[place];
        let bytes = self.storages[file.output].get(&file.record.path).await?;
        let files = Arc::clone(&self);
        let decoded = self.cpu.spawn_cpu(move || FileTokens::decode(bytes, &files, &files.files[place], classes));
        Ok(Arc::new(decoded.await?))
    }

    /// Reads files, a few at a time, in this order.
    ///
    /// # Errors
    /// As [`Self::read_one`].
    pub(super) async fn read(
        self: &Arc<Self>,
        places: Vec<usize>,
        classes: usize,
    ) -> Result<Vec<Arc<FileTokens>>, PipelineError> {
        let reading = places.into_iter().map(|place| Arc::clone(self).read_one(place, classes));
        stream::iter(reading).buffered(FILES_AT_ONCE).try_collect().await
    }
}

/// The manifest of a finished output, its files checked against its row counts.
async fn read_manifest(output: &Storage) -> Result<Manifest, PipelineError> {
    let (owner, finished, manifest) =
        future::try_join3(owning_plan(output), output.exists(SUCCESS_PATH), output.get_if_exists(MANIFEST_PATH))
            .await?;
    let Some(owner) = owner else { return Err(nothing_there(output)) };
    if !finished {
        return Err(PipelineError::Output {
            uri: output.display().to_owned(),
            problem: format!(
                "is not finished ({SUCCESS_PATH} is missing): run `restok finalize`, or `restok tokenize` with the same settings if \
                 it says that units are missing"
            ),
        });
    }
    let uri = output.uri(MANIFEST_PATH);
    let wrong = |problem: String| Err(PipelineError::Output { uri: uri.clone(), problem });
    let Some(bytes) = manifest else { return wrong(format!("is missing, but {SUCCESS_PATH} is there")) };
    let manifest: Manifest = from_json(&uri, &bytes)?;
    if manifest.schema_version > SCHEMA_VERSION {
        let version = manifest.schema_version;
        return wrong(format!(
            "schema version {version}, this program reads up to {SCHEMA_VERSION}: use a newer restok"
        ));
    }
    if manifest.plan != owner {
        return wrong(format!("speaks of plan {}, but the output belongs to {}", manifest.plan.short(), owner.short()));
    }
    let views = manifest.settings.origin.views();
    if let Err(error) = manifest.row_counts.check(views) {
        return wrong(error.to_string());
    }
    let rows: u64 = manifest.tokens.iter().map(|record| record.rows).sum();
    if rows != manifest.row_counts.token_rows {
        return wrong(format!("files of {rows} rows, but its row counts say {}", manifest.row_counts.token_rows));
    }
    if let Some(record) = manifest.tokens.iter().find(|record| !record.rows.is_multiple_of(views as u64)) {
        return wrong(format!("{} with {} rows, no multiple of {views} views", record.path, record.rows));
    }
    Ok(manifest)
}

fn check_same_tokenizer(
    first: &Storage,
    expected: &TokenizerIdentity,
    output: &Storage,
    found: &TokenizerIdentity,
) -> Result<(), PipelineError> {
    fn key(tokenizer: &TokenizerIdentity) -> impl PartialEq {
        (&tokenizer.sha256, tokenizer.codebook_size, &tokenizer.levels)
    }
    if key(expected) == key(found) {
        return Ok(());
    }
    let describe = |output: &Storage, tokenizer: &TokenizerIdentity| {
        let TokenizerIdentity { name, sha256, codebook_size, levels } = tokenizer;
        format!("{}: {name} (sha256 {sha256}), {codebook_size} codes, levels {:?}", output.display(), levels.sizes())
    };
    Err(settings_error(format!(
        "tokens of two tokenizers do not mix:\n  {}\n  {}\nTokenize with one of them, or train on one output alone",
        describe(first, expected),
        describe(output, found)
    )))
}

pub(super) fn settings_error(problem: String) -> PipelineError {
    PipelineError::Settings { problem }
}
