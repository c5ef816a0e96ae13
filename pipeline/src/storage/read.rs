//! Objects and parts of them, whole or an error: what a store's client cannot mend is asked for again.

use super::{Access, Storage, StoredObject, local_files, store_error};
use crate::{PipelineError, background_task::joined};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::{Error, GetOptions, GetRange, GetResult, ObjectStoreExt, path::Path};
use std::{ops::Range, sync::Arc, time::SystemTime};
use tokio::task::spawn_blocking;

/// What came of one attempt at a read.
struct Answer {
    object: StoredObject,
    /// When it was written.
    written: SystemTime,
    /// Bytes that the body has to have.
    expected: u64,
    body: object_store::Result<Bytes>,
}

impl Storage {
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
        Ok((bytes, written))
    }

    /// The same of an object that may not be there.
    ///
    /// # Errors
    /// As [`Self::get`], but for an object that is missing.
    pub(crate) async fn get_dated_if_exists(&self, path: &str) -> Result<Option<(Bytes, SystemTime)>, PipelineError> {
        none_if_missing(self.get_dated(path).await)
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

    /// Whether there is an object.
    ///
    /// # Errors
    /// When the store fails, after all retries.
    pub async fn exists(&self, path: &str) -> Result<bool, PipelineError> {
        Ok(self.head_if_exists(path).await?.is_some())
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

    /// The same, with when the object was written.
    async fn read_dated(
        &self,
        path: &str,
        range: Option<Range<u64>>,
    ) -> Result<(Bytes, StoredObject, SystemTime), PipelineError> {
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
        let written = answer.meta.last_modified.into();
        let expected = answer.range.end - answer.range.start;
        Ok(Answer { object, written, expected, body: collect(answer, expected).await })
    }
}

fn none_if_missing<T>(result: Result<T, PipelineError>) -> Result<Option<T>, PipelineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(PipelineError::Storage { source: Error::NotFound { .. }, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// One attempt at a read of a file of this machine.
async fn read_file(
    file: Arc<std::path::Path>,
    path: String,
    range: Option<Range<u64>>,
) -> object_store::Result<Answer> {
    let asked = range.clone();
    let (bytes, object, written) = joined(spawn_blocking(move || local_files::read(&file, path, asked)).await).await?;
    let range = range.unwrap_or(0..object.size);
    let expected = range.end.min(object.size).saturating_sub(range.start);
    Ok(Answer { object, written, expected, body: Ok(bytes) })
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
