//! Objects too large for memory: written piece by piece, there whole or not at all.
//!
//! | Store | How |
//! |---|---|
//! | S3, GCS, Azure, memory | a multipart upload; the object appears when it is completed |
//! | local files | an upload below `_staging/`, linked into place create-only, as [`Storage::put_create`] does and for the same reason |
//!
//! Uploads are not completed create-only (`object_store` asks that of no store), so two writers at once both write, and the last
//! one's object stays. Hence what is streamed must follow from its name: the same bytes, whoever writes them.

use super::Storage;
use crate::{PipelineError, background_task::joined};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use object_store::{MultipartUpload, PutMultipartOptions, PutPayloadMut, path::Path};
use sha2::{Digest, Sha256};
use std::{mem, pin::pin};
use tokio::task::JoinSet;

/// Least size of a part in bytes. S3 wants 5 MiB; larger parts are fewer requests.
const LEAST_PART_BYTES: u64 = 16 << 20;

/// Parts that an upload may have: 10,000 on S3 and GCS, more on Azure.
const MOST_PARTS: u64 = 10_000;

/// Parts on their way at once: with the one being filled, all that is in memory of an object.
const PARTS_AT_ONCE: usize = 4;

/// Bytes of a read by which an object is hashed.
const HASH_READ_BYTES: u64 = 16 << 20;

/// What became of a streamed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutStreamOutcome {
    /// This call wrote the object.
    Created,
    /// An object of the right size is there, and not for certain by this call. It was not read.
    SameSize,
}

impl Storage {
    /// Writes an object of `size` bytes from its pieces, in bounded memory: four parts of 16 MiB (of a 10,000th of the object,
    /// if that is more) and two pieces.
    ///
    /// When an object of that size is there already, no piece is asked for. On any failure the upload is aborted and nothing is
    /// there under this name. A process that is killed, and elsewhere than on a local disk a future that is dropped, leaves its parts
    /// behind: in `_staging/` of a local output, in other stores out of sight until their rule for unfinished uploads removes them.
    ///
    /// # Errors
    /// The first error of the pieces; [`PipelineError::Output`] when they are not `size` bytes in all, or when an object of
    /// another size is there; when the store refuses or fails, after its client's retries.
    pub async fn put_stream(
        &self,
        path: &str,
        size: u64,
        pieces: impl Stream<Item = Result<Bytes, PipelineError>> + Send,
    ) -> Result<PutStreamOutcome, PipelineError> {
        if self.is_there_with(path, size).await? {
            return Ok(PutStreamOutcome::SameSize);
        }
        let location = self.location(path)?;
        let target = if self.is_local() {
            self.staging_path().map_err(|error| self.write_error(path, error))?
        } else {
            location.clone()
        };
        let options = PutMultipartOptions::default();
        let upload = self.store.put_multipart_opts(&target, options).await;
        let upload = upload.map_err(|error| self.write_error(path, error))?;
        let mut parts = Parts::new(upload, part_bytes(size));
        let error = match self.send(&mut parts, path, size, pieces).await {
            Ok(()) => match self.complete(&mut parts, &target, &location).await {
                Ok(()) => return Ok(PutStreamOutcome::Created),
                Err(error) => {
                    let error = self.write_error(path, error);
                    tracing::warn!(uri = self.uri(path), %error, "write failed; looking whether it happened all the same");
                    if let Ok(true) = self.is_there_with(path, size).await {
                        return Ok(PutStreamOutcome::SameSize);
                    }
                    error
                }
            },
            Err(error) => error,
        };
        if let Err(left_behind) = parts.abort().await {
            let problem = self.write_error(path, left_behind);
            tracing::warn!(%problem, "the parts of an upload that failed could not be removed");
        }
        Err(error)
    }

    /// Size and SHA-256 (lowercase hexadecimal) of an object, read in pieces.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn sha256(&self, path: &str) -> Result<(u64, String), PipelineError> {
        let size = self.head(path).await?.size;
        let mut hasher = Sha256::new();
        let mut start = 0;
        while start < size {
            let end = size.min(start + HASH_READ_BYTES);
            hasher.update(self.get_range(path, start..end).await?);
            start = end;
        }
        Ok((size, schemas::hex(&hasher.finalize())))
    }

    /// Sends all pieces, and waits until they arrived.
    async fn send(
        &self,
        parts: &mut Parts,
        path: &str,
        size: u64,
        pieces: impl Stream<Item = Result<Bytes, PipelineError>> + Send,
    ) -> Result<(), PipelineError> {
        let mut pieces = pin!(pieces);
        let mut sent = 0;
        while let Some(piece) = pieces.try_next().await? {
            sent += piece.len() as u64;
            if sent > size {
                break;
            }
            parts.add(piece).await.map_err(|error| self.write_error(path, error))?;
        }
        if sent != size {
            let found = if sent > size { "more".to_owned() } else { sent.to_string() };
            let problem = format!("its pieces are {found} bytes, expected {size}; nothing was written");
            return Err(PipelineError::Output { uri: self.uri(path), problem });
        }
        parts.flush().await.map_err(|error| self.write_error(path, error))
    }

    /// Makes the object of its parts.
    async fn complete(&self, parts: &mut Parts, target: &Path, location: &Path) -> object_store::Result<()> {
        parts.upload.complete().await?;
        if self.is_local() { self.link_into_place(target, location).await } else { Ok(()) }
    }

    /// Whether an object of this size is there; one of another size is an error.
    async fn is_there_with(&self, path: &str, size: u64) -> Result<bool, PipelineError> {
        match self.head_if_exists(path).await? {
            None => Ok(false),
            Some(there) if there.size == size => Ok(true),
            Some(there) => Err(PipelineError::Output {
                uri: self.uri(path),
                problem: format!("{} bytes are there, expected {size}: not what this run writes", there.size),
            }),
        }
    }
}

/// The parts of an upload. Not the library's `WriteMultipart`, which tells a failed abort in place of the failure before it.
#[derive(Debug)]
struct Parts {
    upload: Box<dyn MultipartUpload>,
    part_bytes: usize,
    filling: PutPayloadMut,
    on_their_way: JoinSet<object_store::Result<()>>,
}

impl Parts {
    fn new(upload: Box<dyn MultipartUpload>, part_bytes: u64) -> Self {
        let filling = PutPayloadMut::new();
        Self { upload, part_bytes: part_bytes as usize, filling, on_their_way: JoinSet::new() }
    }

    /// Takes the next bytes, and waits while too many parts are on their way.
    async fn add(&mut self, mut piece: Bytes) -> object_store::Result<()> {
        while !piece.is_empty() {
            let room = self.part_bytes - self.filling.content_length();
            self.filling.push(piece.split_to(room.min(piece.len())));
            if self.filling.content_length() == self.part_bytes {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Sends the last part, and waits for all of them.
    async fn flush(&mut self) -> object_store::Result<()> {
        if !self.filling.is_empty() {
            self.send().await?;
        }
        self.wait_for_fewer_than(1).await
    }

    async fn send(&mut self) -> object_store::Result<()> {
        self.wait_for_fewer_than(PARTS_AT_ONCE).await?;
        let part = mem::take(&mut self.filling).freeze();
        self.on_their_way.spawn(self.upload.put_part(part));
        Ok(())
    }

    async fn wait_for_fewer_than(&mut self, parts: usize) -> object_store::Result<()> {
        while self.on_their_way.len() >= parts
            && let Some(sent) = self.on_their_way.join_next().await
        {
            joined(sent).await?;
        }
        Ok(())
    }

    /// Stops what is on its way and has the store forget the rest.
    async fn abort(&mut self) -> object_store::Result<()> {
        self.on_their_way.shutdown().await;
        self.upload.abort().await
    }
}

/// Bytes of a part of an object of `size` bytes: whole MiB, and all parts but the last alike, as R2 wants them.
fn part_bytes(size: u64) -> u64 {
    size.div_ceil(MOST_PARTS).next_multiple_of(1 << 20).max(LEAST_PART_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_any_size_fits_the_parts_that_stores_allow() {
        for size in [0, 1, 16 << 20, 9_830_400_368, 160 << 30, 5 << 40] {
            let part = part_bytes(size);
            assert!(
                size.div_ceil(part) <= MOST_PARTS && part >= LEAST_PART_BYTES && part.is_multiple_of(1 << 20),
                "{size}"
            );
        }
        assert_eq!(part_bytes(9_830_400_368), LEAST_PART_BYTES);
    }
}
