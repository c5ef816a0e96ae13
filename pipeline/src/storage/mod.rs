//! One door to every store: S3, GCS, Azure, HTTP, the local file system and memory.
//!
//! Paths are relative to the root that was opened. Reads are checked for length, lists are sorted and say what cannot be read, and the
//! way to write is [`Storage::put_create`]: once, and only if nothing is there. What is too large for memory goes through
//! [`Storage::put_stream`], what is derived and grows through [`Storage::put_replace`].
//!
//! Which answers of a store end a run and how is written in docs/storage.md.

mod access;
mod address;
mod listing;
mod listing_xml;
mod local_files;
mod open_store;
mod put;
mod put_stream;
mod read;
mod retry;
mod store_answer;
mod store_error;
mod transport;

pub use address::without_secrets;
pub(crate) use address::{Address, has_scheme};
pub(crate) use listing::{Listed, UnreachableReason};
pub(crate) use local_files::{LocalKind, local_kind};
pub use put::PutOutcome;
pub use put_stream::PutStreamOutcome;

use crate::{Limits, PipelineError};
use access::Access;
use listing::{escaped, problem_of_name};
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreScheme, path::Path};
use retry::RetryPolicy;
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, sync::Arc, time::SystemTime};
use store_error::Asked;
use transport::StoreClock;
use url::Url;

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

    /// What the store's own clock shows, going by its last answer: to compare with when its objects were written, on any machine. That
    /// of this machine for its files, and before the store has answered.
    pub fn clock(&self) -> SystemTime {
        self.clock.now()
    }

    /// Whether puts go to a file system of this machine, which always refuses to overwrite when it is to create.
    pub(crate) fn is_local(&self) -> bool {
        self.folder.is_some()
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
