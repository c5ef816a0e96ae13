//! Archives of arrays, as `numpy.savez` and `numpy.savez_compressed` write them, in any store.
//!
//! The directory is read once. A member is then read from where it lies: what is stored, from any byte of it on; what is deflated, from
//! its beginning. Source: APPNOTE.TXT 6.3.10; the directory through the `zip` crate, ZIP64 included.

use super::{HeaderFault, NpyHeader};
use crate::{
    Limits, PipelineError,
    background_task::joined,
    source::{FetchLimits, ObjectChunks, ObjectReader, PinnedObject, has_wildcard, open_address},
};
use crc_fast::CrcAlgorithm;
use flate2::read::DeflateDecoder;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read, Seek, SeekFrom},
};
use tokio::{runtime::Handle, task::spawn_blocking};
use zip::{CompressionMethod, ZipArchive, result::ZipError};

/// An archive whose directory was read.
#[derive(Clone, Debug)]
pub(crate) struct NpzArchive {
    object: PinnedObject,
    etag: Option<String>,
    fetch: FetchLimits,
    members: BTreeMap<String, Member>,
}

/// A member, as the directory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    method: CompressionMethod,
    encrypted: bool,
    /// Where its bytes begin in the archive.
    pub(crate) start: u64,
    /// Bytes that it takes there.
    packed: u64,
    /// Its own bytes.
    pub(crate) size: u64,
    pub(crate) crc32: u32,
}

impl Member {
    /// Whether its bytes lie in the archive as they are.
    pub(crate) fn is_stored(&self) -> bool {
        self.method == CompressionMethod::Stored
    }
}

impl NpzArchive {
    /// Whether an address names one archive.
    pub(crate) fn is_named_by(url: &str) -> bool {
        let path = match url.contains("://") {
            true => url.split('?').next().unwrap_or_default(),
            false => url,
        };
        crate::source::extension(path).as_deref() == Some("npz") && !has_wildcard(path) && !path.contains('{')
    }

    /// Reads the directory of the archive at `url`.
    ///
    /// # Errors
    /// When it cannot be read, or is no archive.
    pub(crate) async fn open(url: &str, limits: &Limits) -> Result<Self, PipelineError> {
        let (storage, path) = open_address(url, limits)?;
        let found = storage.head(&path).await?;
        let object = PinnedObject::of_listing(&storage, &found);
        let fetch = FetchLimits::new(limits);
        let (handle, span) = (Handle::current(), tracing::Span::current());
        let (reading, limits) = (object.clone(), fetch.clone());
        let directory = spawn_blocking(move || span.in_scope(|| read_directory(reading, limits, handle)));
        let members = joined(directory.await).await?;
        Ok(Self { object, etag: found.etag, fetch, members })
    }

    /// Full address, without credentials.
    pub(crate) fn uri(&self) -> &str {
        self.object.uri()
    }

    /// The archive's name, its size in bytes and its version tag.
    pub(crate) fn identity(&self) -> (u64, Option<&str>) {
        (self.object.size(), self.etag.as_deref())
    }

    /// SHA-256 of the whole archive, lowercase hexadecimal, read in pieces.
    ///
    /// # Errors
    /// When it cannot be read, or is another one by now.
    pub(crate) async fn sha256(&self) -> Result<String, PipelineError> {
        let mut chunks = ObjectChunks::new(self.object.clone(), self.fetch.clone(), 0);
        let mut hasher = Sha256::new();
        let mut position = 0;
        while position < self.object.size() {
            let chunk = chunks.from(position).await?;
            position += chunk.len() as u64;
            hasher.update(&chunk);
        }
        Ok(schemas::hex(&hasher.finalize()))
    }

    /// The object and the limits on reading it, for members that are stored.
    pub(crate) fn object(&self) -> (PinnedObject, FetchLimits) {
        (self.object.clone(), self.fetch.clone())
    }

    /// Names of all members.
    pub(crate) fn names(&self) -> String {
        if self.members.is_empty() {
            return "nothing".to_owned();
        }
        self.members.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// The member of this name, if there is one.
    ///
    /// # Errors
    /// When it is packed in a way that is not read.
    pub(crate) fn member(&self, name: &str) -> Result<Option<&Member>, PipelineError> {
        let Some(member) = self.members.get(name) else { return Ok(None) };
        let method = match member.method {
            _ if member.encrypted => "encrypted".to_owned(),
            CompressionMethod::Stored | CompressionMethod::Deflated => return Ok(Some(member)),
            other => format!("packed by {other}"),
        };
        Err(self.wrong(name, format!("it is {method}, expected stored or deflated")))
    }

    /// The bytes of a member, for a thread that may block.
    pub(crate) fn reader(&self, member: &Member, handle: Handle) -> Result<Box<dyn Read + Send>, PipelineError> {
        let mut reader = ObjectReader::new(self.object.clone(), self.fetch.clone(), handle);
        reader.seek(SeekFrom::Start(member.start)).map_err(|error| self.read_error(&member.name, error))?;
        let packed = reader.take(member.packed);
        Ok(match member.is_stored() {
            true => Box::new(packed),
            false => Box::new(DeflateDecoder::new(packed).take(member.size)),
        })
    }

    /// The header of an array, for a thread that may block.
    pub(crate) fn header(&self, member: &Member, reader: &mut impl Read) -> Result<NpyHeader, PipelineError> {
        NpyHeader::read(reader).map_err(|fault| match fault {
            HeaderFault::Read(error) => self.read_error(&member.name, error),
            HeaderFault::Wrong(problem) => self.wrong(&member.name, problem),
        })
    }

    /// What was found in a member and what was expected.
    pub(crate) fn wrong(&self, member: &str, problem: String) -> PipelineError {
        PipelineError::Source { uri: self.uri().to_owned(), problem: format!("{member}: {problem}") }
    }

    /// What ended the reading of a member: the store's own error, or a damage.
    pub(crate) fn read_error(&self, member: &str, error: io::Error) -> PipelineError {
        let damage = match error.kind() {
            io::ErrorKind::UnexpectedEof => "its bytes end before it does".to_owned(),
            _ => error.to_string(),
        };
        error.downcast::<PipelineError>().unwrap_or_else(|_| self.wrong(member, format!("it is damaged: {damage}")))
    }
}

/// Every member, by name.
fn read_directory(
    object: PinnedObject,
    limits: FetchLimits,
    handle: Handle,
) -> Result<BTreeMap<String, Member>, PipelineError> {
    let (uri, size) = (object.uri().to_owned(), object.size());
    let wrong = |problem: String| PipelineError::Source { uri: uri.clone(), problem };
    let failed = |error: ZipError| match error {
        ZipError::Io(error) => {
            let told = error.to_string();
            error.downcast::<PipelineError>().unwrap_or_else(|_| wrong(format!("not a whole archive: {told}")))
        }
        error => wrong(format!("not a whole archive (.npz): {error}")),
    };
    let mut archive = ZipArchive::new(ObjectReader::new(object, limits, handle)).map_err(failed)?;
    let mut members = BTreeMap::new();
    for index in 0..archive.len() {
        let file = archive.by_index_raw(index).map_err(failed)?;
        let entry = file.entry();
        let name = entry.name().map_err(failed)?.into_owned();
        let start = file.data_start().ok_or_else(|| wrong(format!("{name}: nobody knows where it begins")))?;
        let member = Member {
            name: name.clone(),
            method: entry.compression(),
            encrypted: entry.encrypted(),
            start,
            packed: entry.compressed_size(),
            size: entry.size(),
            crc32: entry.crc32(),
        };
        if start.checked_add(member.packed).is_none_or(|end| end > size)
            || member.is_stored() && member.packed != member.size
        {
            return Err(wrong(format!(
                "{name}: {} bytes from byte {start} on do not fit the archive's {size}",
                member.packed
            )));
        }
        members.insert(name, member);
    }
    Ok(members)
}

/// A reader that sums up what it gives, to hold a whole member to the directory's CRC-32.
pub(crate) struct Checked<R> {
    reader: R,
    crc: crc_fast::Digest,
}

impl<R> fmt::Debug for Checked<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Checked").finish_non_exhaustive()
    }
}

impl<R: Read> Checked<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, crc: crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc) }
    }

    /// Fails when more is left, or what was read is not what the directory says.
    pub(crate) fn finish(mut self, archive: &NpzArchive, member: &Member) -> Result<(), PipelineError> {
        let left = self.reader.read(&mut [0]).map_err(|error| archive.read_error(&member.name, error))?;
        if left > 0 {
            return Err(archive.wrong(&member.name, "it goes on behind the array's end".to_owned()));
        }
        if self.crc.finalize() as u32 != member.crc32 {
            return Err(archive.wrong(&member.name, "it is damaged: its CRC-32 is not the directory's".to_owned()));
        }
        Ok(())
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.crc.update(&buffer[..length]);
        Ok(length)
    }
}
