//! One door to every store: S3, GCS, Azure, HTTP, the local file system and memory.
//!
//! Paths are relative to the root that was opened. Reads are checked for length, lists are sorted, and the way to write is
//! [`Storage::put_create`]: once, and only if nothing is there. What is too large for memory goes through [`Storage::put_stream`], what
//! is derived and grows through [`Storage::put_replace`].

mod address;
mod open_store;
mod put_stream;
mod retry;
mod store_error;

pub use address::without_secrets;
pub(crate) use address::{Address, has_scheme};
pub use put_stream::PutStreamOutcome;

use crate::{Limits, PipelineError};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::{
    Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode,
    PutOptions, PutPayload, RenameOptions, RenameTargetMode, path::Path,
};
use retry::RetryPolicy;
use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    ops::Range,
    sync::Arc,
};
use url::Url;

/// A place in a store. Cloning is cheap and shares its connections.
#[derive(Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    root: Path,
    shown: Arc<Url>,
    retry: RetryPolicy,
    /// Local version tags start with the inode, which differs from mount to mount.
    local: bool,
}

impl fmt::Debug for Storage {
    /// The address alone: stores print their credentials' sources, and some their URLs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Storage").field(&self.display()).finish()
    }
}

/// An object, as a store lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredObject {
    /// Path below the root of the [`Storage`].
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// The store's version tag, without quotes and without what differs between two listings of the same object.
    pub etag: Option<String>,
}

/// What became of a create-only write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// This call wrote the object.
    Created,
    /// It was there already, with the same bytes: perhaps by an attempt of ours whose answer was lost.
    Same,
    /// It was there already, with these bytes.
    Different(Bytes),
}

impl Storage {
    /// Opens the place that a URL or a plain path names, for reading. No request is made yet.
    ///
    /// # Errors
    /// When the address is none, or its store cannot be set up.
    pub fn open(url: &str, limits: &Limits) -> Result<Self, PipelineError> {
        let address = Address::parse(url)?;
        let store = open_store::open_store(&address, limits).map_err(|error| PipelineError::Address {
            url: address.shown_url.to_string(),
            problem: store_error::without_queries(error).to_string(),
        })?;
        let local = address.scheme == ObjectStoreScheme::Local;
        let retry = RetryPolicy::new(limits);
        Ok(Self { store, root: address.root, shown: Arc::new(address.shown_url), retry, local })
    }

    /// Opens a place to write to.
    ///
    /// # Errors
    /// As [`Self::open`], and for stores that cannot write create-only.
    pub fn open_output(url: &str, limits: &Limits) -> Result<Self, PipelineError> {
        if Address::parse(url)?.scheme == ObjectStoreScheme::Http {
            return Err(PipelineError::Address {
                url: without_secrets(url),
                problem: "plain HTTP cannot create an object only if it is not there, which outputs need; \
                          use s3://, gs://, az:// or a path"
                    .to_owned(),
            });
        }
        Self::open(url, limits)
    }

    /// A place in a store that is already open, shown as `display`. Retries a few times with hardly any pause.
    pub fn from_store(store: Arc<dyn ObjectStore>, root: Path, display: &str) -> Self {
        let shown = Url::parse(display).or_else(|_| Url::parse("memory:///")).unwrap_or_else(|_| unreachable!());
        Self { store, root, shown: Arc::new(shown), retry: RetryPolicy::BRIEF, local: false }
    }

    /// The address, without credentials and query.
    pub fn display(&self) -> &str {
        self.shown.as_str()
    }

    /// Full address of `path` below the root.
    pub fn uri(&self, path: &str) -> String {
        address::join_url(&self.shown, path)
    }

    /// The path below the root that [`Self::uri`] made `uri` from; `None` when it lies elsewhere.
    pub(crate) fn path_of(&self, uri: &str) -> Option<String> {
        let below = uri.strip_prefix(self.uri("").trim_end_matches('/'))?.strip_prefix('/')?;
        Path::from_url_path(below).ok().map(String::from)
    }

    /// A whole object.
    ///
    /// # Errors
    /// When it is not there or cannot be read, after all retries.
    pub async fn get(&self, path: &str) -> Result<Bytes, PipelineError> {
        Ok(self.read(path, None).await?.0)
    }

    /// A whole object, or `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read, after all retries.
    pub async fn get_if_exists(&self, path: &str) -> Result<Option<Bytes>, PipelineError> {
        none_if_missing(self.get(path).await)
    }

    /// Bytes `range` of an object.
    ///
    /// # Errors
    /// As [`Self::get`], and when the object ends before the range does.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, PipelineError> {
        Ok(self.read(path, Some(range)).await?.0)
    }

    /// Size and version of an object.
    ///
    /// # Errors
    /// When it is not there or the store fails, after all retries.
    pub async fn head(&self, path: &str) -> Result<StoredObject, PipelineError> {
        let location = self.location(path)?;
        let meta = self.store.head(&location).await.map_err(|error| self.error("read", path, error))?;
        Ok(self.stored_object(path.to_owned(), &meta))
    }

    /// Size and version of an object, or `None` when there is none.
    ///
    /// # Errors
    /// When the store fails, after all retries.
    pub async fn head_if_exists(&self, path: &str) -> Result<Option<StoredObject>, PipelineError> {
        none_if_missing(self.head(path).await)
    }

    /// Whether puts go to a file system of this machine, which always refuses to overwrite when it is to create.
    pub(crate) fn is_local(&self) -> bool {
        self.local
    }

    /// Whether there is an object.
    ///
    /// # Errors
    /// When the store fails, after all retries.
    pub async fn exists(&self, path: &str) -> Result<bool, PipelineError> {
        Ok(self.head_if_exists(path).await?.is_some())
    }

    /// One attempt at creating an object.
    ///
    /// The local store writes beside its target and links the whole file into place; a process that is killed in between leaves
    /// that half behind, and tools that read a folder of a table would take it for a part. So the half is written below
    /// `_staging/`, where nobody looks, and linked from there.
    async fn create(&self, location: &Path, payload: PutPayload) -> object_store::Result<()> {
        if !self.local {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            return self.store.put_opts(location, payload, options).await.map(drop);
        }
        let staged = self.staging_path();
        self.store.put_opts(&staged, payload, PutOptions::default()).await?;
        self.link_into_place(&staged, location).await
    }

    /// A name below `_staging/` that nobody else has.
    fn staging_path(&self) -> Path {
        let name = format!("{:016x}", RandomState::new().build_hasher().finish());
        self.root.clone().join("_staging").join(name)
    }

    /// Moves a whole local file to its name, if that is free.
    async fn link_into_place(&self, staged: &Path, location: &Path) -> object_store::Result<()> {
        let options = RenameOptions::new().with_target_mode(RenameTargetMode::Create);
        let created = self.store.rename_opts(staged, location, options).await;
        if created.is_err() {
            // The first error is the one to tell; what stays behind is never read.
            drop(self.store.delete(staged).await);
        }
        created
    }

    /// All objects below the folder `prefix` (empty: below the root), however deep, sorted by path.
    ///
    /// # Errors
    /// When the store fails, after all retries. A folder that is not there is an empty list.
    pub async fn list(&self, prefix: &str) -> Result<Vec<StoredObject>, PipelineError> {
        let location = self.location(prefix)?;
        let listed: Vec<ObjectMeta> =
            self.store.list(Some(&location)).try_collect().await.map_err(|error| self.error("list", prefix, error))?;
        let mut objects: Vec<_> = listed
            .iter()
            .filter_map(|meta| {
                let path = meta.location.as_ref().strip_prefix(self.root.as_ref())?;
                Some(self.stored_object(path.trim_start_matches('/').to_owned(), meta))
            })
            .collect();
        objects.sort_unstable();
        Ok(objects)
    }

    /// Writes an object in one put, only if nothing is there, and finds out what happened when the store does not say.
    ///
    /// A store may answer "already there" because an attempt of ours succeeded and its answer was lost, or, under load, though
    /// nothing is there (S3 answers 409 to two writers at once); and a timeout says nothing at all. Each time we read
    /// back: equal bytes are success, nothing there means to try again.
    ///
    /// # Errors
    /// When the store refuses or fails, after all retries. The error says what to do about a full disk or a closed folder.
    pub async fn put_create(&self, path: &str, bytes: Bytes) -> Result<PutOutcome, PipelineError> {
        let location = self.location(path)?;
        let mut attempts = self.retry.start();
        loop {
            let error = match self.create(&location, PutPayload::from_bytes(bytes.clone())).await {
                Ok(()) => return Ok(PutOutcome::Created),
                Err(error @ (Error::AlreadyExists { .. } | Error::Precondition { .. })) => error,
                Err(error) => {
                    let error = self.write_error(path, error);
                    // A local disk does not get better by asking again, and a refusal stays one.
                    if self.local || !error.is_temporary() {
                        return Err(error);
                    }
                    tracing::warn!(uri = self.uri(path), %error, "write failed; looking whether it happened all the same");
                    match self.get_if_exists(path).await {
                        Ok(Some(found)) => return Ok(compare(&bytes, found)),
                        Ok(None) | Err(_) if attempts.pause().await => continue,
                        Ok(None) | Err(_) => return Err(error),
                    }
                }
            };
            match self.get_if_exists(path).await? {
                Some(found) => return Ok(compare(&bytes, found)),
                None if attempts.pause().await => {}
                None => return Err(self.write_error(path, error)),
            }
        }
    }

    /// Writes an object whole, in the place of one that may be there.
    ///
    /// Only for what can be made again from other objects: when two write at once, the last one's bytes stay, and they may be the older
    /// ones.
    ///
    /// # Errors
    /// When the store refuses or fails, after all retries. The error says what to do about a full disk or a closed folder.
    pub async fn put_replace(&self, path: &str, bytes: Bytes) -> Result<(), PipelineError> {
        let location = self.location(path)?;
        let mut attempts = self.retry.start();
        loop {
            let error = match self.replace(&location, PutPayload::from_bytes(bytes.clone())).await {
                Ok(()) => return Ok(()),
                Err(error) => self.write_error(path, error),
            };
            if self.local || !error.is_temporary() || !attempts.pause().await {
                return Err(error);
            }
            tracing::warn!(uri = self.uri(path), %error, "write failed; writing again");
        }
    }

    /// One attempt at [`Self::put_replace`]; local files are staged as those of [`Self::create`] are.
    async fn replace(&self, location: &Path, payload: PutPayload) -> object_store::Result<()> {
        if !self.local {
            return self.store.put_opts(location, payload, PutOptions::default()).await.map(drop);
        }
        let staged = self.staging_path();
        self.store.put_opts(&staged, payload, PutOptions::default()).await?;
        let options = RenameOptions::new().with_target_mode(RenameTargetMode::Overwrite);
        let replaced = self.store.rename_opts(&staged, location, options).await;
        if replaced.is_err() {
            // The first error is the one to tell; what stays behind is never read.
            drop(self.store.delete(&staged).await);
        }
        replaced
    }

    /// Reads an object or a range of it, and what the store said of the object then.
    ///
    /// The store's client retries requests, and resumes bodies for as long as one request may take in all. What it cannot mend
    /// (a body that breaks after that, or ends early without a word) is asked for again here.
    pub(crate) async fn read(
        &self,
        path: &str,
        range: Option<Range<u64>>,
    ) -> Result<(Bytes, StoredObject), PipelineError> {
        let location = self.location(path)?;
        let mut attempts = self.retry.start();
        loop {
            let options = GetOptions { range: range.clone().map(GetRange::Bounded), ..GetOptions::default() };
            let answer =
                self.store.get_opts(&location, options).await.map_err(|error| self.error("read", path, error))?;
            let object = self.stored_object(path.to_owned(), &answer.meta);
            let expected = answer.range.end - answer.range.start;
            if let Some(range) = &range
                && expected != range.end - range.start
            {
                return Err(self.error("read", path, ended_early(expected, range.end - range.start)));
            }
            let error = match collect(answer, expected).await {
                Ok(bytes) if bytes.len() as u64 == expected => return Ok((bytes, object)),
                Ok(bytes) => ended_early(bytes.len() as u64, expected),
                Err(error) => error,
            };
            let error = self.error("read", path, error);
            if !error.is_temporary() || !attempts.pause().await {
                return Err(error);
            }
            tracing::warn!(uri = self.uri(path), %error, "body broke off; asking again");
        }
    }

    fn location(&self, path: &str) -> Result<Path, PipelineError> {
        // Not `Path::child`, which escapes what it thinks unusual: objects keep the names they have.
        Path::parse(format!("{}/{path}", self.root)).map_err(|error| self.error("read", path, error.into()))
    }

    fn stored_object(&self, path: String, meta: &ObjectMeta) -> StoredObject {
        // Azure quotes its tags in answers and not in lists; `W/` says weak, not other.
        let etag = meta.e_tag.as_deref().map(|tag| tag.trim_start_matches("W/").trim_matches('"'));
        let etag = match etag.and_then(|tag| tag.split_once('-')) {
            Some((_inode, modified_and_size)) if self.local => Some(modified_and_size),
            _ => etag,
        };
        StoredObject { path, size: meta.size, etag: etag.map(str::to_owned) }
    }

    fn error(&self, action: &'static str, path: &str, error: Error) -> PipelineError {
        let uri = self.uri(path);
        let source = store_error::as_refusal(&uri, store_error::without_queries(error));
        PipelineError::Storage { action, uri, source }
    }

    fn write_error(&self, path: &str, error: Error) -> PipelineError {
        let uri = self.uri(path);
        let error = store_error::write_error(&uri, error);
        self.error("write", path, error)
    }
}

fn compare(ours: &Bytes, found: Bytes) -> PutOutcome {
    if *ours == found { PutOutcome::Same } else { PutOutcome::Different(found) }
}

fn none_if_missing<T>(result: Result<T, PipelineError>) -> Result<Option<T>, PipelineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(PipelineError::Storage { source: Error::NotFound { .. }, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn ended_early(found: u64, expected: u64) -> Error {
    let problem = format!("the body ended after {found} of {expected} bytes");
    Error::Generic { store: "object store", source: problem.into() }
}

/// The body in one piece. Unlike the library's own, it does not trust the announced length with an allocation beyond it.
async fn collect(answer: GetResult, expected: u64) -> object_store::Result<Bytes> {
    let mut stream = answer.into_stream();
    let Some(first) = stream.next().await.transpose()? else { return Ok(Bytes::new()) };
    if first.len() as u64 >= expected {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(usize::try_from(expected).unwrap_or(0));
    whole.extend_from_slice(&first);
    while let Some(piece) = stream.next().await.transpose()? {
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}
