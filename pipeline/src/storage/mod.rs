//! One door to every store: S3, GCS, Azure, HTTP, the local file system and memory.
//!
//! Paths are relative to the root that was opened. Reads are checked for length, lists are sorted and say what cannot be read, and the
//! way to write is [`Storage::put_create`]: once, and only if nothing is there. What is too large for memory goes through
//! [`Storage::put_stream`], what is derived and grows through [`Storage::put_replace`].
//!
//! Which answers of a store end a run and how is written in docs/storage.md.

mod address;
mod listing;
mod listing_xml;
mod local_files;
mod open_store;
mod put_stream;
mod retry;
mod store_answer;
mod store_error;
mod transport;

pub use address::without_secrets;
pub(crate) use address::{Address, has_scheme};
pub(crate) use listing::{Listed, Listing, UnreachableReason};
pub(crate) use local_files::{LocalKind, local_kind};
pub use put_stream::PutStreamOutcome;

use crate::{
    Limits, PipelineError,
    background_task::{joined, spawn, stream_of_task},
    error::first_few,
};
use bytes::{Bytes, BytesMut};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use listing::{Unreachable, escaped, problem_of_name};
use object_store::{
    Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode,
    PutOptions, PutPayload, RenameOptions, RenameTargetMode, path::Path,
};
use retry::RetryPolicy;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    ops::Range,
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};
use store_error::Asked;
use tokio::{sync::mpsc, task::spawn_blocking};
use transport::StoreClock;
use url::Url;

/// Entries of a local listing that may wait to be taken.
const LISTED_AHEAD: usize = 1024;

/// Names shown in a warning before the rest is only counted.
const NAMES_SHOWN: usize = 5;

/// A place in a store. Cloning is cheap and shares its connections.
#[derive(Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    /// Path of the root below the store, without slashes at its ends.
    root: Arc<str>,
    shown: Arc<Url>,
    retry: RetryPolicy,
    access: Access,
    /// The root, where it is a folder of this machine.
    folder: Option<Arc<std::path::Path>>,
    clock: StoreClock,
}

/// How a store knows who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// By AWS's credentials.
    Aws,
    /// By Google's credentials.
    Google,
    /// By Azure's credentials.
    Azure,
    /// By the query of each address.
    Signed,
    /// A web server, which lets anybody read or asks for a password.
    Web,
    /// It does not ask: files, memory.
    Local,
}

impl Access {
    /// What to call the store in an error.
    fn name(self) -> &'static str {
        match self {
            Self::Aws => "S3",
            Self::Google => "GCS",
            Self::Azure => "Azure",
            Self::Signed | Self::Web => "HTTP",
            Self::Local => "local",
        }
    }

    /// The variables that hold the credentials; `aws` are those of AWS for the matter at hand.
    fn variables(self, aws: &'static str) -> &'static str {
        match self {
            Self::Aws => aws,
            Self::Google => "GOOGLE_APPLICATION_CREDENTIALS",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_CLIENT_ID and the like",
            Self::Signed | Self::Web | Self::Local => "user and password in the address",
        }
    }

    /// What helps where no credentials were found and the machine's own service was asked in vain.
    fn no_credentials(self) -> &'static str {
        match self {
            Self::Google => {
                "no credentials were found, and this machine has no metadata service: set GOOGLE_APPLICATION_CREDENTIALS"
            }
            Self::Azure => {
                "no credentials were found, and this machine has no metadata service: set AZURE_STORAGE_ACCOUNT_NAME and \
                 AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN"
            }
            _ => {
                "no credentials were found, and this machine has no metadata service: set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
            }
        }
    }
}

impl fmt::Debug for Storage {
    /// The address alone: stores print their credentials' sources, and some their URLs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Storage").field(&self.display()).finish()
    }
}

/// An object, as a store lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
        let (store, clock) = open_store::open_store(&address, limits).map_err(|error| PipelineError::Address {
            url: address.shown_url.to_string(),
            problem: store_error::without_credentials(&error.to_string()),
        })?;
        let local = address.scheme == ObjectStoreScheme::Local;
        let folder = local.then(|| PathBuf::from(format!("/{}", address.root)).into());
        let Address { shown_url, root, access, .. } = address;
        Ok(Self {
            store,
            root: root.into(),
            shown: Arc::new(shown_url),
            retry: RetryPolicy::new(limits),
            access,
            folder,
            clock,
        })
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
        let storage = Self::open(url, limits)?;
        match Path::parse(&*storage.root) {
            Ok(_) => Ok(storage),
            Err(_) => Err(PipelineError::Address {
                url: storage.display().to_owned(),
                problem:
                    "a folder whose name has control characters can be read and not written to; choose another output"
                        .to_owned(),
            }),
        }
    }

    /// A place in a store that is already open, shown as `display`. Retries a few times with hardly any pause.
    pub fn from_store(store: Arc<dyn ObjectStore>, root: Path, display: &str) -> Self {
        let shown = Url::parse(display).or_else(|_| Url::parse("memory:///")).unwrap_or_else(|_| unreachable!());
        let root = root.as_ref().into();
        Self {
            store,
            root,
            shown: Arc::new(shown),
            retry: RetryPolicy::BRIEF,
            access: Access::Local,
            folder: None,
            clock: StoreClock::default(),
        }
    }

    /// The same place, whose clock shows `now` and goes on as tokio's does: for tests whose time passes by itself.
    #[cfg(test)]
    pub(crate) fn with_clock(self, now: SystemTime) -> Self {
        Self { clock: StoreClock::of(now), ..self }
    }

    /// An address as [`Self::display`] would show the place it names.
    ///
    /// # Errors
    /// When the address is none.
    pub(crate) fn shown_address(url: &str) -> Result<String, PipelineError> {
        Ok(Address::parse(url)?.shown_url.into())
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
        let path = address::path_below(&self.shown, uri)?;
        problem_of_name(&path, self.is_local()).is_none().then_some(path)
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

    /// A whole object with when it was written, by the clock that [`Self::clock`] shows.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_dated(&self, path: &str) -> Result<(Bytes, SystemTime), PipelineError> {
        let (bytes, _, written) = self.read_dated(path, None).await?;
        let written = match (written, self.local_file(path)?) {
            (Some(written), _) => written,
            (None, Some(file)) => {
                let asked = joined(spawn_blocking(move || local_files::written(&file)).await).await;
                asked.map_err(|error| self.error("read", path, error))?
            }
            (None, None) => self.clock(),
        };
        Ok((bytes, written))
    }

    /// The same of an object that may not be there.
    ///
    /// # Errors
    /// As [`Self::get`], but for an object that is missing.
    pub(crate) async fn get_dated_if_exists(&self, path: &str) -> Result<Option<(Bytes, SystemTime)>, PipelineError> {
        none_if_missing(self.get_dated(path).await)
    }

    /// What the store's own clock shows, going by its last answer: to compare with when its objects were written, on any machine. That
    /// of this machine for its files, and before the store has answered.
    pub fn clock(&self) -> SystemTime {
        self.clock.now()
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
        if let Some(file) = self.local_file(path)? {
            let path_of_object = path.to_owned();
            let found = joined(spawn_blocking(move || local_files::head(&file, path_of_object)).await).await;
            return found.map_err(|error| self.error("read", path, error));
        }
        let location = self.location(path)?;
        // A signed URL is good for GET alone.
        if self.access != Access::Signed {
            match self.store.head(&location).await {
                Ok(meta) => return Ok(self.stored_object(path.to_owned(), &meta)),
                Err(error @ Error::NotFound { .. }) => return Err(self.error("read", path, error)),
                Err(error) => {
                    let error = self.error("read", path, error);
                    if error.is_temporary() {
                        return Err(error);
                    }
                    // Some servers answer GET alone; and an answer to HEAD has no body, which would say why it was refused.
                    tracing::debug!(uri = self.uri(path), %error, "HEAD was refused; asking by GET");
                }
            }
        }
        self.head_by_get(path, &location).await
    }

    /// Size and version by GET: of the first byte, which an empty object does not have and some servers do not give alone, else of all
    /// of it, whose body is left there.
    async fn head_by_get(&self, path: &str, location: &Path) -> Result<StoredObject, PipelineError> {
        let first_byte = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
        let refused = match self.store.get_opts(location, first_byte).await {
            Ok(answer) => return Ok(self.stored_object(path.to_owned(), &answer.meta)),
            Err(error) => self.error("read", path, error),
        };
        let final_word = match &refused {
            PipelineError::Storage { source, .. } => matches!(
                source,
                Error::NotFound { .. } | Error::PermissionDenied { .. } | Error::Unauthenticated { .. }
            ),
            _ => true,
        };
        if final_word || refused.is_temporary() {
            return Err(refused);
        }
        match self.store.get_opts(location, GetOptions::default()).await {
            Ok(answer) => Ok(self.stored_object(path.to_owned(), &answer.meta)),
            Err(error) => Err(self.error("read", path, error)),
        }
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
        self.folder.is_some()
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
        if !self.is_local() {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            return self.store.put_opts(location, payload, options).await.map(drop);
        }
        let staged = self.staging_path()?;
        self.store.put_opts(&staged, payload, PutOptions::default()).await?;
        self.link_into_place(&staged, location).await
    }

    /// A name below `_staging/` that nobody else has.
    fn staging_path(&self) -> object_store::Result<Path> {
        let name = format!("{:016x}", RandomState::new().build_hasher().finish());
        Ok(Path::parse(format!("{}/_staging/{name}", self.root))?)
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

    /// All objects below the folder `prefix` (empty: below the root), however deep, sorted by path. What lies there and cannot be read
    /// is a warning: for places where only restok writes.
    ///
    /// # Errors
    /// When the store fails, after all retries, or a folder may not be read. A folder that is not there is an empty list.
    pub async fn list(&self, prefix: &str) -> Result<Vec<StoredObject>, PipelineError> {
        let Listing { objects, unreachable } = self.list_all(prefix).await?;
        if let Some(closed) = unreachable.iter().find(|entry| entry.reason == UnreachableReason::Closed) {
            let source = closed.reason.to_string().into();
            return Err(self.error("list", prefix, Error::PermissionDenied { path: closed.shown.clone(), source }));
        }
        if !unreachable.is_empty() {
            tracing::warn!(
                folder = self.uri(prefix),
                count = unreachable.len(),
                "what cannot be read is left out: {}",
                first_few(&unreachable, NAMES_SHOWN)
            );
        }
        Ok(objects)
    }

    /// Asks for a listing of the root, and counts its entries up to `most`: whether a place can be reached, without listing all of it.
    ///
    /// # Errors
    /// When the store fails, after all retries. A folder that is not there has no entry.
    pub async fn count_up_to(&self, most: usize) -> Result<usize, PipelineError> {
        let counted = self.list_stream("").take(most).try_fold(0, |count, _| std::future::ready(Ok(count + 1)));
        counted.await
    }

    /// Everything below the folder `prefix` (empty: below the root), however deep, sorted: objects, and what cannot be read.
    ///
    /// # Errors
    /// When the store fails, after all retries. A folder that is not there is an empty listing.
    pub(crate) async fn list_all(&self, prefix: &str) -> Result<Listing, PipelineError> {
        let mut listing = Listing::default();
        let mut entries = self.list_stream(prefix);
        while let Some(entry) = entries.try_next().await? {
            match entry {
                Listed::Object(object) => listing.objects.push(object),
                Listed::Unreachable(entry) => listing.unreachable.push(entry),
            }
        }
        listing.objects.sort_unstable();
        listing.unreachable.sort_unstable();
        Ok(listing)
    }

    /// What [`Self::list_all`] gives, as it comes: a page of a store or a folder of a disk at a time. To be called and polled in a tokio runtime.
    ///
    /// By the bytes of the paths, from local disks, S3, GCS, Azure and memory; WebDAV servers have an order of their own, and so have
    /// directory buckets of S3. Empty objects that a store keeps as marks of folders are left out.
    ///
    /// After an error there is nothing more.
    pub(crate) fn list_stream(&self, prefix: &str) -> BoxStream<'static, Result<Listed, PipelineError>> {
        match self.open_listing(prefix) {
            Ok(entries) => entries,
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn open_listing(&self, prefix: &str) -> Result<BoxStream<'static, Result<Listed, PipelineError>>, PipelineError> {
        let (storage, folder) = (self.clone(), prefix.to_owned());
        let failed = move |error| storage.error("list", &folder, error);
        if let Some(folder) = self.local_file(prefix)? {
            let (sender, receiver) = mpsc::channel(LISTED_AHEAD);
            // In a folder below the root, names begin with the folder's.
            let prefix = match prefix.trim_matches('/') {
                "" => String::new(),
                prefix => format!("{prefix}/"),
            };
            let task = spawn(async move {
                let walking = spawn_blocking(move || local_files::walk(&folder, &prefix, &sender));
                joined(walking.await).await.map_err(failed)
            });
            return Ok(stream_of_task(task, receiver));
        }
        let storage = self.clone();
        let listed = self.store.list(Some(&self.location(prefix)?)).map_err(failed);
        Ok(listed.try_filter_map(move |meta| std::future::ready(Ok(storage.listed(&meta)))).boxed())
    }

    /// An entry of a store's own listing; `None` for a folder's mark, which is no object.
    fn listed(&self, meta: &ObjectMeta) -> Option<Listed> {
        let location = meta.location.as_ref();
        let name = listing_xml::original(location).unwrap_or_else(|| location.as_bytes().to_vec());
        let below = name.strip_prefix(self.root.as_bytes())?;
        let below = if self.root.is_empty() { below } else { below.strip_prefix(b"/")? };
        if meta.size == 0 && (below.is_empty() || below.ends_with(b"/")) {
            return None;
        }
        let reason = match std::str::from_utf8(below) {
            Err(_) => UnreachableReason::NotUtf8,
            Ok("") => UnreachableReason::TrailingSlash,
            Ok(path) => match problem_of_name(path, false) {
                None => return Some(Listed::Object(self.stored_object(path.to_owned(), meta))),
                Some(reason) => reason,
            },
        };
        Some(Listed::Unreachable(Unreachable { shown: escaped(below), reason, size: Some(meta.size) }))
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
                    if self.is_local() || !error.is_temporary() {
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
            if self.is_local() || !error.is_temporary() || !attempts.pause().await {
                return Err(error);
            }
            tracing::warn!(uri = self.uri(path), %error, "write failed; writing again");
        }
    }

    /// One attempt at [`Self::put_replace`]; local files are staged as those of [`Self::create`] are.
    async fn replace(&self, location: &Path, payload: PutPayload) -> object_store::Result<()> {
        if !self.is_local() {
            return self.store.put_opts(location, payload, PutOptions::default()).await.map(drop);
        }
        let staged = self.staging_path()?;
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
        let (bytes, object, _) = self.read_dated(path, range).await?;
        Ok((bytes, object))
    }

    /// The same, with when the object was written, where the answer says so: files of this machine are asked for it apart.
    async fn read_dated(
        &self,
        path: &str,
        range: Option<Range<u64>>,
    ) -> Result<(Bytes, StoredObject, Option<SystemTime>), PipelineError> {
        let file = self.local_file(path)?;
        let mut attempts = self.retry.start();
        loop {
            let answer = match &file {
                Some(file) => read_file(Arc::clone(file), path.to_owned(), range.clone()).await,
                None => self.ask(path, range.clone()).await,
            };
            let Answer { object, written, expected, body } = answer.map_err(|error| self.error("read", path, error))?;
            if let Some(range) = &range
                && expected != range.end - range.start
            {
                let problem =
                    format!("it has {} bytes, and {}..{} were asked for", object.size, range.start, range.end);
                return Err(self.error("read", path, store_error::of_ours(problem, false)));
            }
            let error = match body {
                Ok(bytes) if bytes.len() as u64 == expected => return Ok((bytes, object, written)),
                Ok(bytes) => {
                    let problem = format!("the body ended after {} of {expected} bytes", bytes.len());
                    store_error::of_ours(problem, true)
                }
                Err(error) => error,
            };
            let error = self.error("read", path, error);
            if !error.is_temporary() || !attempts.pause().await {
                return Err(error);
            }
            tracing::warn!(uri = self.uri(path), %error, "body broke off; asking again");
        }
    }

    /// One attempt at a read of a store that is not this machine.
    async fn ask(&self, path: &str, range: Option<Range<u64>>) -> object_store::Result<Answer> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let answer = self.store.get_opts(&self.checked_location(path)?, options).await?;
        let object = self.stored_object(path.to_owned(), &answer.meta);
        let written = Some(answer.meta.last_modified.into());
        let expected = answer.range.end - answer.range.start;
        Ok(Answer { object, written, expected, body: collect(answer, expected).await })
    }

    fn location(&self, path: &str) -> Result<Path, PipelineError> {
        self.checked_location(path).map_err(|error| self.error("read", path, error))
    }

    fn checked_location(&self, path: &str) -> object_store::Result<Path> {
        // Not `Path::child`, which escapes what it thinks unusual: objects keep the names they have.
        Ok(Path::parse(format!("{}/{path}", self.root))?)
    }

    /// The file or folder of this machine by that path; `None` where the root is elsewhere.
    fn local_file(&self, path: &str) -> Result<Option<Arc<std::path::Path>>, PipelineError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let path = path.strip_suffix('/').unwrap_or(path);
        match problem_of_name(path, true) {
            None if path.is_empty() => Ok(Some(Arc::clone(folder))),
            None => Ok(Some(folder.join(path).into())),
            Some(reason) => {
                let problem = format!("{}: {reason}", escaped(path.as_bytes()));
                Err(self.error("read", path, store_error::of_ours(problem, false)))
            }
        }
    }

    fn stored_object(&self, path: String, meta: &ObjectMeta) -> StoredObject {
        // Azure quotes its tags in answers and not in lists; `W/` says weak, not other.
        let etag = meta.e_tag.as_deref().map(|tag| tag.trim_start_matches("W/").trim_matches('"'));
        StoredObject { path, size: meta.size, etag: etag.map(str::to_owned) }
    }

    fn error(&self, action: &'static str, path: &str, error: Error) -> PipelineError {
        let uri = self.uri(path);
        let asked = Asked { uri: &uri, write: action == "write", access: self.access };
        let source = store_error::told(asked, error);
        PipelineError::Storage { action, uri, temporary: store_error::heals(&source), source }
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

/// What came of one attempt at a read.
struct Answer {
    object: StoredObject,
    /// When it was written, where that was not to be asked for apart.
    written: Option<SystemTime>,
    /// Bytes that the body has to have.
    expected: u64,
    body: object_store::Result<Bytes>,
}

/// One attempt at a read of a file of this machine.
async fn read_file(
    file: Arc<std::path::Path>,
    path: String,
    range: Option<Range<u64>>,
) -> object_store::Result<Answer> {
    let asked = range.clone();
    let (bytes, object) = joined(spawn_blocking(move || local_files::read(&file, path, asked)).await).await?;
    let range = range.unwrap_or(0..object.size);
    let expected = range.end.min(object.size).saturating_sub(range.start);
    Ok(Answer { object, written: None, expected, body: Ok(bytes) })
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
