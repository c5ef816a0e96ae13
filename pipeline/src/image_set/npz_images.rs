//! Images in an archive: one array of pixels, read from any row on.
//!
//! In memory are pieces of the archive, a few for each unit in flight, and the images that wait for their turn.

use super::image::{Body, SetImage};
use crate::{
    Limits, PipelineError,
    background_task::{joined, spawn, stream_of_task},
    npz::{Checked, Member, NpzArchive, PIXELS},
    source::ObjectChunks,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use std::{
    fmt,
    io::{self, Read},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{runtime::Handle, sync::mpsc, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

/// Bytes that are held to the checksum at once.
const CHECKED_AT_ONCE: usize = 1 << 20;

/// Images inflated ahead of the one in use.
const INFLATED_AHEAD: usize = 8;

/// Pieces kept of a stored member: what is read in sequence needs those read ahead.
const PIECES_KEPT: usize = 3;

/// The images of an archive, `[rows, height, width, 3]`, 8 bits a channel.
#[derive(Clone, Debug)]
pub(super) struct NpzImages {
    archive: Arc<NpzArchive>,
    member: Member,
    /// Bytes of the array's header.
    header_bytes: u64,
    pub(super) rows: u64,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Readers of a deflated member that stand behind the unit they were opened for: the next unit goes on with one of them, so that
    /// the member is inflated once for each unit in flight, and not anew for each unit.
    resting: Arc<Mutex<Vec<Inflating>>>,
}

/// A reader of a deflated member.
struct Inflating {
    reader: Box<dyn Read + Send>,
    /// Row that it stands in front of.
    row: u64,
}

impl fmt::Debug for Inflating {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Inflating").field("row", &self.row).finish_non_exhaustive()
    }
}

impl NpzImages {
    /// Opens the archive at `url` and reads the header of its pixels.
    ///
    /// # Errors
    /// When it is no archive, has no pixels, or has others than `uint8` of shape `[rows, height, width, 3]` in C order.
    pub(super) async fn open(url: &str, limits: &Limits) -> Result<Self, PipelineError> {
        let archive = Arc::new(NpzArchive::open(url, limits).await?);
        let Some(member) = archive.member(PIXELS)?.cloned() else {
            let problem = format!("no member {PIXELS} with the pixels; it holds {}", archive.names());
            return Err(PipelineError::Source { uri: archive.uri().to_owned(), problem });
        };
        let (handle, opened, found) = (Handle::current(), Arc::clone(&archive), member.clone());
        let header = spawn_blocking(move || {
            let mut reader = opened.reader(&found, handle)?;
            opened.header(&found, &mut reader)
        });
        let header = joined(header.await).await?;
        let wrong = |problem: String| Err(archive.wrong(PIXELS, problem));
        if header.descr != "|u1" {
            return wrong(format!("elements of type {:?}, expected \"|u1\" (uint8)", header.descr));
        }
        if header.fortran_order {
            return wrong("an array in Fortran order, expected C order".to_owned());
        }
        let [rows, height, width, 3] = header.shape[..] else {
            return wrong(format!("shape {:?}, expected [images, height, width, 3]", header.shape));
        };
        let pixels = height.checked_mul(width).filter(|&pixels| pixels > 0 && pixels <= limits.max_image_pixels);
        let Some(row_bytes) = pixels.map(|pixels| pixels * 3) else {
            return wrong(format!(
                "images of {width}x{height} pixels, expected 1 to {} pixels",
                limits.max_image_pixels
            ));
        };
        if rows == 0 {
            return wrong("it holds no images".to_owned());
        }
        let expected = rows.checked_mul(row_bytes).and_then(|bytes| bytes.checked_add(header.bytes));
        if expected != Some(member.size) {
            let shape = &header.shape;
            return wrong(format!("{} bytes, expected the {:?} of an array of shape {shape:?}", member.size, expected));
        }
        let (height, width) = (height as usize, width as usize);
        Ok(Self { archive, member, header_bytes: header.bytes, rows, height, width, resting: Arc::default() })
    }

    /// Full address of the archive, without credentials.
    pub(super) fn uri(&self) -> &str {
        self.archive.uri()
    }

    /// The archive's size in bytes and its version tag.
    pub(super) fn identity(&self) -> (u64, Option<&str>) {
        self.archive.identity()
    }

    /// Checksum of the array, as the archive's directory has it.
    pub(super) fn crc32(&self) -> u32 {
        self.member.crc32
    }

    /// Reads the whole array once and holds it to the archive's checksum, which covers all images at once: units read parts of it.
    /// To be polled in a tokio runtime; ends soon after it is dropped.
    ///
    /// # Errors
    /// When the checksum is another, the array does not end where it should, or the archive cannot be read.
    pub(super) async fn check(&self) -> Result<(), PipelineError> {
        let dropped = CancellationToken::new();
        let _guard = dropped.clone().drop_guard();
        let (images, handle, span) = (self.clone(), Handle::current(), tracing::Span::current());
        let checking = spawn_blocking(move || span.in_scope(|| images.check_all(handle, &dropped)));
        joined(checking.await).await
    }

    fn check_all(&self, handle: Handle, dropped: &CancellationToken) -> Result<(), PipelineError> {
        let mut reader = Checked::new(self.archive.reader(&self.member, handle)?);
        let (mut left, mut piece) = (self.member.size, vec![0; CHECKED_AT_ONCE]);
        while left > 0 && !dropped.is_cancelled() {
            let length = left.min(CHECKED_AT_ONCE as u64);
            reader.read_exact(&mut piece[..length as usize]).map_err(|error| self.archive.read_error(PIXELS, error))?;
            left -= length;
        }
        if left > 0 { Ok(()) } else { reader.finish(&self.archive, &self.member) }
    }

    /// The images of these rows, in order. To be polled in a tokio runtime.
    pub(super) fn read(&self, rows: Range<u64>) -> BoxStream<'static, Result<SetImage, PipelineError>> {
        if self.member.is_stored() { self.read_stored(rows) } else { self.read_deflated(rows) }
    }

    fn row_bytes(&self) -> usize {
        self.height * self.width * 3
    }

    fn read_stored(&self, rows: Range<u64>) -> BoxStream<'static, Result<SetImage, PipelineError>> {
        let images = self.clone();
        let (object, limits) = self.archive.object();
        let chunks = ObjectChunks::new(object, limits, PIECES_KEPT);
        let row_bytes = self.row_bytes() as u64;
        let first = self.member.start + self.header_bytes;
        stream::unfold((chunks, rows), move |(mut chunks, mut rows)| {
            let images = images.clone();
            async move {
                let row = rows.next()?;
                let pixels = chunks.exactly(first + row * row_bytes, row_bytes).await;
                if pixels.is_err() {
                    rows = 0..0;
                }
                Some((pixels.map(|pixels| images.image(row, pixels)), (chunks, rows)))
            }
        })
        .boxed()
    }

    fn read_deflated(&self, rows: Range<u64>) -> BoxStream<'static, Result<SetImage, PipelineError>> {
        let (sender, receiver) = mpsc::channel(INFLATED_AHEAD);
        let images = self.clone();
        let task = spawn(async move {
            let (handle, span) = (Handle::current(), tracing::Span::current());
            let inflating = spawn_blocking(move || span.in_scope(|| images.inflate(rows, handle, &sender)));
            joined(inflating.await).await
        });
        stream_of_task(task, receiver)
    }

    /// Inflates rows on a thread that may block. It ends when nobody receives any more.
    fn inflate(&self, rows: Range<u64>, handle: Handle, sender: &mpsc::Sender<SetImage>) -> Result<(), PipelineError> {
        let failed = |error: io::Error| self.archive.read_error(PIXELS, error);
        let mut inflating = match self.wake(rows.start) {
            Some(resting) => resting,
            None => {
                let mut reader = self.archive.reader(&self.member, handle)?;
                self.archive.header(&self.member, &mut reader)?;
                Inflating { reader, row: 0 }
            }
        };
        let mut row = vec![0; self.row_bytes()];
        while inflating.row < rows.end {
            if sender.is_closed() {
                return Ok(());
            }
            inflating.reader.read_exact(&mut row).map_err(failed)?;
            let number = inflating.row;
            inflating.row += 1;
            if number >= rows.start {
                let image = self.image(number, Bytes::from(std::mem::replace(&mut row, vec![0; self.row_bytes()])));
                if sender.blocking_send(image).is_err() {
                    return Ok(());
                }
            }
        }
        if inflating.row < self.rows {
            self.resting.lock().unwrap_or_else(PoisonError::into_inner).push(inflating);
        }
        Ok(())
    }

    /// The resting reader that stands closest before `row`.
    fn wake(&self, row: u64) -> Option<Inflating> {
        let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = resting.iter().enumerate().filter(|(_, reader)| reader.row <= row);
        let (closest, _) = before.max_by_key(|(_, reader)| reader.row)?;
        Some(resting.swap_remove(closest))
    }

    fn image(&self, row: u64, pixels: Bytes) -> SetImage {
        // Six digits, as the published file names have: the same set has the same keys as an archive and as PNG files.
        let (image_id, source) = (format!("{row:06}"), format!("{}#row={row}", self.uri()));
        SetImage {
            image_id,
            source,
            label: None,
            body: Body::Pixels { pixels, height: self.height, width: self.width },
        }
    }
}
