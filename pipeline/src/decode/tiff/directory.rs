//! The first directory of a TIFF: what its tags say.

use super::super::{DecodeFailure, reader::Reader};

/// Tags that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Tag {
    Width = 256,
    Height = 257,
    BitsPerSample = 258,
    Compression = 259,
    Photometric = 262,
    FillOrder = 266,
    StripOffsets = 273,
    Orientation = 274,
    SamplesPerPixel = 277,
    RowsPerStrip = 278,
    StripByteCounts = 279,
    Planar = 284,
    Predictor = 317,
    ColourMap = 320,
    TileWidth = 322,
    TileHeight = 323,
    TileOffsets = 324,
    TileByteCounts = 325,
    ExtraSamples = 338,
    SampleFormat = 339,
    JpegTables = 347,
    ChromaSubsampling = 530,
    Xmp = 700,
}

/// Order of the bytes of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    pub(super) fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    /// A number of any length up to 8.
    fn number(self, bytes: &[u8]) -> u64 {
        let appended = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        match self {
            Self::Little => bytes.iter().rev().fold(0, appended),
            Self::Big => bytes.iter().fold(0, appended),
        }
    }
}

/// The entries of a directory.
pub(super) struct Directory<'bytes> {
    bytes: &'bytes [u8],
    pub(super) order: ByteOrder,
    /// Bytes of an offset: 4, in a BigTIFF 8.
    offset_bytes: usize,
    entries: Vec<Entry<'bytes>>,
}

struct Entry<'bytes> {
    tag: u16,
    kind: u16,
    count: u64,
    /// The values where they fit, else where they are.
    field: &'bytes [u8],
}

impl<'bytes> Directory<'bytes> {
    pub(super) fn read(bytes: &'bytes [u8]) -> Result<Self, DecodeFailure> {
        let order = if bytes.starts_with(b"II") { ByteOrder::Little } else { ByteOrder::Big };
        let big = bytes.get(2..4).is_some_and(|version| version.contains(&43));
        if big && order == ByteOrder::Big {
            return Err(DecodeFailure::unsupported("a big-endian BigTIFF is not read, as by Pillow"));
        }
        let mut directory = Self { bytes, order, offset_bytes: if big { 8 } else { 4 }, entries: Vec::new() };
        let mut header = Reader::at(bytes, if big { 8 } else { 4 });
        let start = directory.number(&mut header, directory.offset_bytes)?;
        let mut reader = Reader::at(bytes, usize::try_from(start).unwrap_or(usize::MAX));
        let count = directory.number(&mut reader, if big { 8 } else { 2 })?;
        for _ in 0..count {
            let tag = directory.number(&mut reader, 2)? as u16;
            let kind = directory.number(&mut reader, 2)? as u16;
            let count = directory.number(&mut reader, directory.offset_bytes)?;
            let field = reader.take(directory.offset_bytes, "a tag")?;
            directory.entries.push(Entry { tag, kind, count, field });
        }
        Ok(directory)
    }

    fn number(&self, reader: &mut Reader<'_>, bytes: usize) -> Result<u64, DecodeFailure> {
        reader.take(bytes, "the directory of tags").map(|bytes| self.order.number(bytes))
    }

    /// Of tags that are there twice, the first one counts.
    fn entry(&self, tag: Tag) -> Option<&Entry<'bytes>> {
        self.entries.iter().find(|entry| entry.tag == tag as u16)
    }

    /// The number of the type that a tag's values have; `None` without the tag.
    pub(super) fn value_type(&self, tag: Tag) -> Option<u16> {
        self.entry(tag).map(|entry| entry.kind)
    }

    /// The values' bytes, and how many make one; `None` without the tag.
    fn raw(&self, tag: Tag) -> Result<Option<(&'bytes [u8], usize)>, DecodeFailure> {
        let Some(entry) = self.entry(tag) else { return Ok(None) };
        if entry.count == 0 {
            return Err(DecodeFailure::corrupt(format!("the tag {tag:?} has no values")));
        }
        let width = match entry.kind {
            // Bytes, which are no numbers to Pillow.
            1 | 7 if matches!(tag, Tag::JpegTables | Tag::Xmp) => 1,
            3 => 2,
            4 | 13 => 4,
            16 => 8,
            kind => {
                let message =
                    format!("the tag {tag:?} has values of type {kind}, expected whole numbers of 16 bits or more");
                return Err(DecodeFailure::corrupt(message));
            }
        };
        let length = usize::try_from(entry.count).unwrap_or(usize::MAX).saturating_mul(width);
        let values = match entry.field.get(..length) {
            Some(values) => values,
            None => {
                let offset = usize::try_from(self.order.number(entry.field)).unwrap_or(usize::MAX);
                Reader::at(self.bytes, offset).take(length, &format!("the tag {tag:?}"))?
            }
        };
        Ok(Some((values, width)))
    }

    /// All values of a tag; none without it.
    pub(super) fn values(&self, tag: Tag) -> Result<Vec<u64>, DecodeFailure> {
        let raw = self.raw(tag)?;
        Ok(raw.map_or_else(Vec::new, |(bytes, width)| {
            bytes.chunks_exact(width).map(|value| self.order.number(value)).collect()
        }))
    }

    /// The one value of a tag. With several, readers do not agree on which counts.
    pub(super) fn value(&self, tag: Tag) -> Result<Option<u64>, DecodeFailure> {
        match *self.values(tag)?.as_slice() {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            ref values => {
                let message = format!("the tag {tag:?} has {} values, expected one", values.len());
                Err(DecodeFailure::corrupt(message))
            }
        }
    }

    /// A tag's bytes; none without it.
    pub(super) fn data(&self, tag: Tag) -> Result<&'bytes [u8], DecodeFailure> {
        self.raw(tag).map(|raw| raw.map_or([].as_slice(), |(bytes, _)| bytes))
    }
}
