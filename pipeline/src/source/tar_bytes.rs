//! A tar's bytes as one stream, with an eye on whether the tar was whole.

use super::object_chunks::ObjectChunks;
use crate::PipelineError;
use bytes::Bytes;
use futures::{Stream, stream};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio_util::io::StreamReader;

/// A block of a tar.
const BLOCK_BYTES: u64 = 512;

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct TarProgress {
    position: AtomicU64,
    /// Zero bytes at the end of what was read.
    zeros: AtomicU64,
    /// What the store said when the bytes failed. The library would bury it below errors of its own.
    failure: Mutex<Option<PipelineError>>,
}

impl TarProgress {
    /// How many bytes were read.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// What the store said, if reading ended because of it.
    pub(super) fn take_failure(&self) -> Option<PipelineError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the members ended with the archive. The library takes the end of the bytes between two members for its end.
    ///
    /// # Errors
    /// In words, when the tar was cut off.
    pub(super) fn check_end(&self) -> Result<(), String> {
        if self.zeros.load(Ordering::Relaxed) < BLOCK_BYTES {
            let position = self.position();
            return Err(format!("ends at byte {position} without the two empty blocks that end a tar: it was cut off"));
        }
        Ok(())
    }
}

/// Whether nothing but zeros follows the end of the archive in the bytes that `reader` has left. The library stops at the first archive of
/// two that are written one behind the other, and images would be lost without a word.
///
/// # Errors
/// In words, when there is more; the outer error is that of reading.
pub(super) async fn check_rest(
    mut reader: impl AsyncRead + Unpin,
    progress: &TarProgress,
) -> io::Result<Result<(), String>> {
    let end = progress.position();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Ok(Ok(()));
        }
        if let Some(at) = buffer[..count].iter().position(|&byte| byte != 0) {
            let at = progress.position() - (count - at) as u64;
            return Ok(Err(format!(
                "its archive ends before byte {end}, and there is more at byte {at}: archives one behind the other are not \
                 read; write one archive a shard"
            )));
        }
    }
}

/// Reads a tar through `chunks` from its start.
pub(super) fn tar_bytes(chunks: ObjectChunks) -> (impl AsyncRead + Send + Unpin, Arc<TarProgress>) {
    let progress = Arc::new(TarProgress::default());
    let pieces = pieces(chunks, Arc::clone(&progress));
    let reader = Watched { inner: StreamReader::new(Box::pin(pieces)), progress: Arc::clone(&progress) };
    (reader, progress)
}

fn pieces(chunks: ObjectChunks, progress: Arc<TarProgress>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((chunks, progress, 0), |(mut chunks, progress, position)| async move {
        match chunks.from(position).await {
            Ok(piece) if piece.is_empty() => Ok(None),
            Ok(piece) => {
                let next = position + piece.len() as u64;
                Ok(Some((piece, (chunks, progress, next))))
            }
            Err(error) => {
                let told = io::Error::other(error.to_string());
                *progress.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(told)
            }
        }
    })
}

struct Watched<R> {
    inner: R,
    progress: Arc<TarProgress>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        let new = &buffer.filled()[before..];
        self.progress.position.fetch_add(new.len() as u64, Ordering::Relaxed);
        match new.iter().rposition(|&byte| byte != 0) {
            Some(last) => self.progress.zeros.store((new.len() - 1 - last) as u64, Ordering::Relaxed),
            None => {
                self.progress.zeros.fetch_add(new.len() as u64, Ordering::Relaxed);
            }
        }
        polled
    }
}
