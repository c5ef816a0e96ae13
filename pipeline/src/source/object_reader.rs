//! A large object as a blocking reader that seeks, for libraries that know nothing of stores.

use super::{FetchLimits, ObjectChunks, PinnedObject};
use bytes::{Buf, Bytes};
use std::{
    fmt,
    io::{self, Read, Seek, SeekFrom},
};
use tokio::runtime::Handle;

/// Pieces kept: what is read in sequence needs those read ahead.
const PIECES_KEPT: usize = 3;

/// Reads an object in pieces of a few megabytes, a little ahead. Only for threads that may block.
///
/// What a store says is inside the errors: [`io::Error::downcast`] to [`crate::PipelineError`] gives it back.
pub(crate) struct ObjectReader {
    chunks: ObjectChunks,
    size: u64,
    /// Where the next byte comes from.
    position: u64,
    /// The bytes from there on that are here.
    current: Bytes,
    handle: Handle,
}

impl ObjectReader {
    pub(crate) fn new(object: PinnedObject, limits: FetchLimits, handle: Handle) -> Self {
        let size = object.size();
        let chunks = ObjectChunks::new(object, limits, PIECES_KEPT);
        Self { chunks, size, position: 0, current: Bytes::new(), handle }
    }
}

impl fmt::Debug for ObjectReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, position, .. } = self;
        formatter.debug_struct("ObjectReader").field("size", size).field("position", position).finish_non_exhaustive()
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && !buffer.is_empty() {
            self.current = self.handle.block_on(self.chunks.from(self.position)).map_err(io::Error::other)?;
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        self.position += length as u64;
        Ok(length)
    }
}

impl Seek for ObjectReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
        };
        let position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        match position.checked_sub(self.position) {
            Some(forward) if forward <= self.current.len() as u64 => self.current.advance(forward as usize),
            _ => self.current.clear(),
        }
        self.position = position;
        Ok(position)
    }
}
