//! Objects that fit in memory, written in one put: only if nothing is there, or in the place of what can be made again.

use super::Storage;
use crate::PipelineError;
use bytes::Bytes;
use object_store::{
    Error, ObjectStoreExt, PutMode, PutOptions, PutPayload, RenameOptions, RenameTargetMode, path::Path,
};
use std::hash::{BuildHasher, Hasher, RandomState};

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
    pub(super) fn staging_path(&self) -> object_store::Result<Path> {
        let name = format!("{:016x}", RandomState::new().build_hasher().finish());
        Ok(Path::parse(format!("{}/_staging/{name}", self.root))?)
    }

    /// Moves a whole local file to its name, if that is free.
    pub(super) async fn link_into_place(&self, staged: &Path, location: &Path) -> object_store::Result<()> {
        let options = RenameOptions::new().with_target_mode(RenameTargetMode::Create);
        let created = self.store.rename_opts(staged, location, options).await;
        if created.is_err() {
            // The first error is the one to tell; what stays behind is never read.
            drop(self.store.delete(staged).await);
        }
        created
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
}

fn compare(ours: &Bytes, found: Bytes) -> PutOutcome {
    if *ours == found { PutOutcome::Same } else { PutOutcome::Different(found) }
}
