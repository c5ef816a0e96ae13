//! A large object, read in pieces of a few megabytes, a little ahead.
//!
//! Not one long body: a tar is read at the speed of the devices, which may take an hour, and no server keeps a half-read body open
//! that long, nor does a client resume one for longer than a request may take in all. Each piece is a request of its
//! own, complete within seconds, with its own retries, however slowly it is used.

use super::{FetchLimits, PinnedObject};
use crate::{
    PipelineError,
    background_task::{joined, spawn},
};
use bytes::Bytes;
use std::collections::VecDeque;
use tokio_util::task::AbortOnDropHandle;

/// Pieces fetched ahead of the one in use.
const READ_AHEAD: u64 = 2;

/// The pieces of one object that are held or on their way. Beside the budget for images: `kept` pieces for each unit in flight.
#[derive(Debug)]
pub(crate) struct ObjectChunks {
    object: PinnedObject,
    limits: FetchLimits,
    kept: usize,
    /// Least recently used first.
    chunks: VecDeque<(u64, Chunk)>,
}

#[derive(Debug)]
enum Chunk {
    Coming(AbortOnDropHandle<Result<Bytes, PipelineError>>),
    Here(Bytes),
}

impl ObjectChunks {
    /// Reads `object`, keeping up to `kept` pieces: a few more than are read ahead where reading jumps to and fro.
    pub(crate) fn new(object: PinnedObject, limits: FetchLimits, kept: usize) -> Self {
        Self { object, limits, kept: kept.max(READ_AHEAD as usize + 1), chunks: VecDeque::new() }
    }

    /// The bytes from `start` to the end of the piece that holds it; empty at the end of the object.
    ///
    /// # Errors
    /// As [`PinnedObject::read`].
    pub(crate) async fn from(&mut self, start: u64) -> Result<Bytes, PipelineError> {
        if start >= self.object.size() {
            return Ok(Bytes::new());
        }
        let chunk = self.chunk(start / self.limits.chunk_bytes).await?;
        // A piece has at most 4 MiB, so the remainder fits.
        Ok(chunk.slice((start % self.limits.chunk_bytes) as usize..))
    }

    /// Exactly the bytes `start..start + length`.
    ///
    /// # Errors
    /// As [`PinnedObject::read`].
    pub(crate) async fn exactly(&mut self, start: u64, length: u64) -> Result<Bytes, PipelineError> {
        // Longer than a piece: one request for all of it, kept by nobody but the caller.
        if length > self.limits.chunk_bytes {
            let _request = self.limits.request().await;
            return self.object.read(Some(start..start + length)).await;
        }
        let mut found = self.from(start).await?;
        if (found.len() as u64) < length {
            let rest = self.from(start + found.len() as u64).await?;
            found = [found, rest].concat().into();
        }
        found.truncate(length as usize);
        Ok(found)
    }

    async fn chunk(&mut self, index: u64) -> Result<Bytes, PipelineError> {
        let in_sequence = index == 0 || self.position(index - 1).is_some();
        let ahead = if in_sequence { READ_AHEAD } else { 0 };
        let count = self.object.size().div_ceil(self.limits.chunk_bytes);
        for wanted in index..(index + ahead + 1).min(count) {
            if self.position(wanted).is_none() {
                self.start(wanted);
            }
        }
        let position = self.position(index).unwrap_or_else(|| unreachable!("it was just started"));
        let (_, chunk) = self.chunks.remove(position).unwrap_or_else(|| unreachable!("it has this position"));
        let bytes = match chunk {
            Chunk::Here(bytes) => bytes,
            Chunk::Coming(task) => match task.await {
                // The runtime has ended. The reader of pages waits on a thread of its own, which does not end with it.
                Err(error) if error.is_cancelled() => return Err(PipelineError::Drained),
                result => joined(result).await?,
            },
        };
        self.chunks.push_back((index, Chunk::Here(bytes.clone())));
        // What lies ahead will be used last of all; it must not make room for what was used just now.
        for ahead in index + 1..index + 1 + READ_AHEAD {
            if let Some(chunk) = self.position(ahead).and_then(|position| self.chunks.remove(position)) {
                self.chunks.push_back(chunk);
            }
        }
        while self.chunks.len() > self.kept {
            self.chunks.pop_front();
        }
        Ok(bytes)
    }

    fn position(&self, index: u64) -> Option<usize> {
        self.chunks.iter().position(|&(found, _)| found == index)
    }

    fn start(&mut self, index: u64) {
        let (object, limits) = (self.object.clone(), self.limits.clone());
        let start = index * limits.chunk_bytes;
        let end = (start + limits.chunk_bytes).min(object.size());
        // A small object is one piece, and whole reads work with servers that know no ranges.
        let range = if end - start == object.size() { None } else { Some(start..end) };
        let task = async move {
            let _request = limits.request().await;
            object.read(range).await
        };
        self.chunks.push_back((index, Chunk::Coming(spawn(task))));
    }
}
