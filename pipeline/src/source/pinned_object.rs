//! An object of the plan: read only as long as it is the one that was planned.

use crate::{
    PipelineError,
    storage::{Storage, StoredObject},
};
use bytes::Bytes;
use object_store::Error;
use schemas::PlannedInput;
use std::ops::Range;

/// An object with the size and version that the plan froze.
#[derive(Clone, Debug)]
pub(crate) struct PinnedObject {
    storage: Storage,
    path: String,
    uri: String,
    size: u64,
    etag: Option<String>,
}

impl PinnedObject {
    /// Finds a planned input in the storage that the plan was listed from.
    ///
    /// # Errors
    /// When it lies outside.
    pub(crate) fn of_input(storage: &Storage, input: &PlannedInput) -> Result<Self, PipelineError> {
        let path = storage.path_of(&input.uri).ok_or_else(|| PipelineError::Source {
            uri: input.uri.clone(),
            problem: format!("the plan's inputs must lie in {}, where its source is", storage.display()),
        })?;
        Ok(Self { storage: storage.clone(), path, uri: input.uri.clone(), size: input.size, etag: input.etag.clone() })
    }

    /// Pins an object as it was just listed.
    pub(crate) fn of_listing(storage: &Storage, object: &StoredObject) -> Self {
        Self {
            storage: storage.clone(),
            path: object.path.clone(),
            uri: storage.uri(&object.path),
            size: object.size,
            etag: object.etag.clone(),
        }
    }

    /// Path below the source.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Full address.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the object, all of it when no range is given.
    ///
    /// # Errors
    /// `SourceChanged` when it is another object now, or gone; else what the store said.
    pub(crate) async fn read(&self, range: Option<Range<u64>>) -> Result<Bytes, PipelineError> {
        match self.storage.read(&self.path, range).await {
            Ok((bytes, found)) => match self.difference(&found) {
                None => Ok(bytes),
                Some(problem) => Err(self.changed(problem)),
            },
            Err(PipelineError::Storage { source: Error::NotFound { .. }, .. }) => {
                Err(self.changed("it is gone".to_owned()))
            }
            Err(error) => {
                // A range that is no longer there fails in a different way in every store; the object itself tells why.
                match self.storage.head(&self.path).await.ok().and_then(|found| self.difference(&found)) {
                    Some(problem) => Err(self.changed(problem)),
                    None => Err(error),
                }
            }
        }
    }

    /// Compares what a store says now with the plan. Not by `If-Match`: Azure lists tags in another form than it accepts,
    /// weak tags never match, and local files have none.
    fn difference(&self, found: &StoredObject) -> Option<String> {
        if found.size != self.size {
            return Some(format!("{} bytes, planned {}", found.size, self.size));
        }
        match (&self.etag, &found.etag) {
            (Some(planned), Some(found)) if planned != found => Some(format!("version {found}, planned {planned}")),
            _ => None,
        }
    }

    fn changed(&self, problem: String) -> PipelineError {
        PipelineError::SourceChanged { uri: self.uri.clone(), problem }
    }
}
