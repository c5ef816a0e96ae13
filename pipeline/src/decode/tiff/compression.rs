//! One strip or tile of a TIFF, unpacked.

use super::super::{DecodeFailure, DecodeLimits, jpeg};
use super::directory::ByteOrder;
use fax::{
    Color,
    decoder::{DecodeStatus, Group4Decoder, pels},
};
use std::{convert::Infallible, io::Read, ops::RangeInclusive};
use weezl::{BitOrder, decode::Decoder};

/// How strips and tiles are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Fax4,
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
    Zstd,
}

impl Compression {
    pub(super) fn new(number: u64) -> Result<Self, DecodeFailure> {
        let name = match number {
            1 => return Ok(Self::None),
            4 => return Ok(Self::Fax4),
            5 => return Ok(Self::Lzw),
            7 => return Ok(Self::Jpeg),
            8 | 32946 => return Ok(Self::Deflate),
            32773 => return Ok(Self::PackBits),
            50000 => return Ok(Self::Zstd),
            2 => "CCITT modified Huffman",
            3 => "CCITT group 3 fax",
            6 => "JPEG of the old kind",
            32809 => "ThunderScan",
            33003 | 33005 | 34712 => "JPEG 2000",
            34676 | 34677 => "SGI LogLuv",
            34925 => "LZMA",
            50001 => "WebP",
            50002 | 52546 => "JPEG XL",
            _ => "an unknown method",
        };
        Err(DecodeFailure::unsupported(format!(
            "compression by {name} ({number}) is not read, only none, LZW, deflate, PackBits, Zstandard, JPEG and group 4 fax"
        )))
    }

    /// Whether a predictor in front of the packing counts; Pillow ignores it with the others.
    pub(super) fn has_predictor(self) -> bool {
        matches!(self, Self::Lzw | Self::Deflate | Self::Zstd)
    }
}

/// What is needed to unpack a piece, beside its data.
pub(super) struct Piece {
    /// Columns; the rows are those that the image needs.
    pub(super) width: usize,
    pub(super) rows: usize,
    pub(super) row_bytes: usize,
}

impl Piece {
    /// Exactly the bytes of the piece's rows.
    pub(super) fn unpacked(&self, data: &[u8], compression: Compression) -> Result<Vec<u8>, DecodeFailure> {
        let expected = self.rows * self.row_bytes;
        let corrupt = |error: &dyn std::fmt::Display| DecodeFailure::corrupt(format!("{compression:?} data: {error}"));
        let unpacked = match compression {
            Compression::None => data[..data.len().min(expected)].to_vec(),
            Compression::PackBits => packbits(data, expected),
            Compression::Lzw if matches!(data, [0, second, ..] if second & 1 == 1) => {
                return Err(DecodeFailure::unsupported("LZW of the old kind is not read"));
            }
            Compression::Lzw => {
                let mut unpacked = vec![0; expected];
                let mut decoder = Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
                let (mut read, mut written) = (0, 0);
                while written < expected {
                    let result = decoder.decode_bytes(&data[read..], &mut unpacked[written..]);
                    (read, written) = (read + result.consumed_in, written + result.consumed_out);
                    result.status.map_err(|error| corrupt(&error))?;
                    if result.consumed_in == 0 && result.consumed_out == 0 {
                        break;
                    }
                }
                unpacked.truncate(written);
                unpacked
            }
            Compression::Deflate => {
                read_up_to(flate2::read::ZlibDecoder::new(data), expected).map_err(|error| corrupt(&error))?
            }
            Compression::Zstd => {
                let decoder = zstd::Decoder::new(data).map_err(|error| corrupt(&error))?;
                read_up_to(decoder, expected).map_err(|error| corrupt(&error))?
            }
            Compression::Fax4 => self.fax(data)?,
            Compression::Jpeg => return Err(DecodeFailure::unsupported("JPEG of this kind of pixels is not read")),
        };
        if unpacked.len() < expected {
            let found = unpacked.len();
            return Err(DecodeFailure::truncated(format!("{found} of {expected} bytes of a strip or tile are there")));
        }
        Ok(unpacked)
    }

    /// Bits, black ones set.
    fn fax(&self, data: &[u8]) -> Result<Vec<u8>, DecodeFailure> {
        let width = u16::try_from(self.width).map_err(|_| {
            DecodeFailure::unsupported(format!("a fax of {} columns is not read, only up to 65535", self.width))
        })?;
        let bytes = data.iter().map(|&byte| Ok::<_, Infallible>(byte));
        let mut decoder =
            Group4Decoder::new(bytes, width).map_err(|error: Infallible| -> DecodeFailure { match error {} })?;
        let mut rows = Vec::with_capacity(self.rows * self.row_bytes);
        for row in 0..self.rows {
            match decoder.advance() {
                Ok(DecodeStatus::Incomplete) => {}
                Ok(DecodeStatus::End) => break,
                Err(_) => return Err(DecodeFailure::corrupt(format!("row {row} of a fax has invalid codes"))),
            }
            // What goes back is damage, of which readers make different things; what goes beyond the row the crate cuts off.
            let changes = decoder.transition();
            if !changes.is_sorted_by(|before, after| before < after) {
                return Err(DecodeFailure::corrupt(format!("row {row} of a fax goes back")));
            }
            let start = rows.len();
            rows.resize(start + self.row_bytes, 0);
            for (column, colour) in pels(changes, width).enumerate() {
                if colour == Color::Black {
                    rows[start + column / 8] |= 0x80 >> (column % 8);
                }
            }
        }
        Ok(rows)
    }

    /// RGB of a JPEG that shares its `tables` with others: of as many rows as it must have, of the `rows` that it may have. As for libtiff,
    /// its first channel has the `sampling` that the TIFF's tag says, or without the tag the first JPEG; the other channels have 1 by 1.
    pub(super) fn jpeg(
        &self,
        data: &[u8],
        tables: &[u8],
        colours: JpegColours,
        rows: RangeInclusive<usize>,
        sampling: &mut Option<[u64; 2]>,
        limits: &DecodeLimits,
    ) -> Result<Vec<u8>, DecodeFailure> {
        let marker = |transform: u8| [b"\xFF\xEE\x00\x0EAdobe\0\x64\0\0\0\0".as_slice(), &[transform]].concat();
        let mut file = b"\xFF\xD8".to_vec();
        match colours {
            JpegColours::Grey => {}
            JpegColours::Rgb => file.extend(marker(0)),
            JpegColours::YCbCr => file.extend(marker(1)),
        }
        let start = b"\xFF\xD8";
        let tables = tables.strip_suffix(b"\xFF\xD9").unwrap_or(tables);
        for part in [tables, data].iter().filter(|part| !part.is_empty()) {
            let part =
                part.strip_prefix(start).ok_or_else(|| DecodeFailure::corrupt("no JPEG where one is expected"))?;
            file.extend(jpeg::without_application_data(part));
        }
        if let [first, others @ ..] = jpeg::samplings(&file).as_slice() {
            let expected = sampling.get_or_insert(*first);
            if first != expected || others.iter().any(|&other| other != [1, 1]) {
                let message = format!("a JPEG with a sampling of {first:?} and {others:?}, expected {expected:?}");
                return Err(DecodeFailure::corrupt(message));
            }
        }
        jpeg::decode_part(&file, self.width, rows, colours.channels(), limits)
    }
}

/// What the channels of a JPEG are, which within a TIFF its tags say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JpegColours {
    Grey,
    Rgb,
    YCbCr,
}

impl JpegColours {
    fn channels(self) -> u8 {
        match self {
            Self::Grey => 1,
            Self::Rgb | Self::YCbCr => 3,
        }
    }
}

/// Up to `expected` bytes, and with all of them there a look at what follows, where checksums are.
fn read_up_to(mut reader: impl Read, expected: usize) -> std::io::Result<Vec<u8>> {
    let mut unpacked = Vec::with_capacity(expected);
    let end_is_missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::UnexpectedEof;
    match reader.by_ref().take(expected as u64).read_to_end(&mut unpacked).and_then(|_| reader.read(&mut [0])) {
        Err(error) if !end_is_missing(&error) => Err(error),
        _ => Ok(unpacked),
    }
}

/// Run lengths of bytes.
fn packbits(data: &[u8], expected: usize) -> Vec<u8> {
    let mut unpacked = Vec::with_capacity(expected);
    let mut rest = data;
    while unpacked.len() < expected {
        match *rest {
            [count @ 0..128, ref bytes @ ..] => {
                let count = usize::from(count) + 1;
                unpacked.extend(&bytes[..count.min(bytes.len())]);
                rest = bytes.get(count..).unwrap_or_default();
            }
            [128, ref bytes @ ..] => rest = bytes,
            [count, byte, ref bytes @ ..] => {
                unpacked.resize(unpacked.len() + 257 - usize::from(count), byte);
                rest = bytes;
            }
            _ => break,
        }
    }
    unpacked.truncate(expected);
    unpacked
}

/// Undoes differences between a sample and the one of the pixel before it, in place.
pub(super) fn add_up(rows: &mut [u8], row_bytes: usize, samples: usize, bits: u32, order: ByteOrder) {
    for row in rows.chunks_exact_mut(row_bytes) {
        if bits == 8 {
            for place in samples..row.len() {
                row[place] = row[place].wrapping_add(row[place - samples]);
            }
        } else {
            let words = row.as_chunks_mut::<2>().0;
            for place in samples..words.len() {
                let sum = order.u16(words[place]).wrapping_add(order.u16(words[place - samples]));
                words[place] = match order {
                    ByteOrder::Little => sum.to_le_bytes(),
                    ByteOrder::Big => sum.to_be_bytes(),
                };
            }
        }
    }
}
