//! The evaluation archive: one array of pixels in the form that `numpy.savez` gives it, written front to back.
//!
//! | Piece | What |
//! |---|---|
//! | local header | `arr_0.npy`, stored, 1980, sizes and CRC to follow (bit 3) |
//! | array header | NPY 1.0: `\|u1`, C order, `(rows, height, width, 3)` |
//! | pixels | as they are |
//! | descriptor | CRC-32 and sizes |
//! | directory | central directory, ZIP64 record and locator, end record |
//!
//! Source: APPNOTE.TXT 6.3.10 (the fields and their order), numpy.lib.format (the array header). ZIP64 whatever the size, as numpy does
//! it: so the small archive of a test has the form of the large one, which holds 50,000 images in 9.8 GB.
//!
//! Own code, because an upload cannot be sought in, its size must be known to the byte before it begins, and the bytes must outlive
//! an update of a library. `async_zip` writes a 32-bit descriptor behind a ZIP64 member; `zip` is made for outputs that seek. Of the
//! format we need one case.

use super::{NpyHeader, PIXELS};
use bytes::{BufMut, Bytes, BytesMut};
use crc_fast::CrcAlgorithm;
use schemas::SchemaError;
use sha2::{Digest, Sha256};
use std::fmt;

/// Version of the format that knows ZIP64.
const VERSION_ZIP64: u16 = 45;

/// Written by a Unix system, so that the permissions below count.
const MADE_BY: u16 = (3 << 8) | VERSION_ZIP64;

/// Readable by all, a plain file.
const PERMISSIONS: u32 = 0o100_644 << 16;

/// Flag: CRC and sizes stand behind the data.
const FLAG_DESCRIPTOR: u16 = 1 << 3;

/// 1 January 1980, 0:00: the format's first moment, since there is no "none".
const DATE: u16 = (1 << 5) | 1;

/// In the place of a size or offset: look into the ZIP64 field.
const IN_ZIP64_32: u32 = u32::MAX;

/// The same for a number of members.
const IN_ZIP64_16: u16 = u16::MAX;

/// Identifier of the ZIP64 extra field.
const EXTRA_ZIP64: u16 = 1;

/// What the archive's array is: `[rows, height, width, 3]`, 8 bits a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NpzShape {
    /// Images.
    pub rows: u64,
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
}

impl NpzShape {
    /// Bytes of one image.
    pub fn row_bytes(&self) -> usize {
        self.height * self.width * 3
    }

    /// Bytes of the whole archive.
    pub fn archive_bytes(&self) -> u64 {
        let around = local_header().len() + descriptor(0, 0).len() + directory(0, 0, 0).len();
        self.member_bytes() + around as u64
    }

    /// Bytes of the member: array header and pixels.
    fn member_bytes(&self) -> u64 {
        self.array_header().len() as u64 + self.rows * self.row_bytes() as u64
    }

    /// The header of the array.
    fn array_header(&self) -> Vec<u8> {
        NpyHeader::encode("|u1", &[self.rows, self.height as u64, self.width as u64, 3])
    }
}

/// Bytes of the archive of `rows` images of `height` by `width` pixels.
pub fn npz_size(rows: u64, height: usize, width: usize) -> u64 {
    NpzShape { rows, height, width }.archive_bytes()
}

/// Makes an archive piece by piece: [`Self::start`], then [`Self::add_rows`] around the pixels that go out as they are, then
/// [`Self::finish`]. The same pixels give the same bytes, however they are divided.
#[derive(Clone)]
pub struct NpzEncoder {
    shape: NpzShape,
    rows: u64,
    crc: crc_fast::Digest,
    /// Of the whole archive so far.
    sha256: Sha256,
}

impl fmt::Debug for NpzEncoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("NpzEncoder")
            .field("shape", &self.shape)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl NpzEncoder {
    /// The encoder and the archive's first bytes.
    pub fn start(shape: NpzShape) -> (Self, Bytes) {
        let mut encoder =
            Self { shape, rows: 0, crc: crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc), sha256: Sha256::new() };
        let (mut front, array_header) = (local_header(), shape.array_header());
        encoder.crc.update(&array_header);
        front.extend_from_slice(&array_header);
        encoder.sha256.update(&front);
        (encoder, front.freeze())
    }

    /// Takes account of `pixels`, `[any number of rows, height, width, 3]`, which are the archive's next bytes.
    ///
    /// # Errors
    /// When they are no whole rows or more than were announced.
    pub fn add_rows(&mut self, pixels: &[u8]) -> Result<(), SchemaError> {
        let row_bytes = self.shape.row_bytes();
        let rows = pixels.len().checked_div(row_bytes).unwrap_or(0);
        if rows * row_bytes != pixels.len() {
            return Err(SchemaError::Shape {
                what: "pixels of samples",
                found: format!("{} bytes", pixels.len()),
                expected: format!("a multiple of {row_bytes}: images of {}x{}", self.shape.width, self.shape.height),
            });
        }
        let total = self.rows + rows as u64;
        if total > self.shape.rows {
            return Err(self.wrong_rows(format!("{total} or more")));
        }
        self.rows = total;
        self.crc.update(pixels);
        self.sha256.update(pixels);
        Ok(())
    }

    /// The archive's last bytes, and the SHA-256 of all of it in lowercase hexadecimal.
    ///
    /// # Errors
    /// When fewer rows came than were announced.
    pub fn finish(mut self) -> Result<(Bytes, String), SchemaError> {
        if self.rows != self.shape.rows {
            return Err(self.wrong_rows(self.rows.to_string()));
        }
        let (crc, size) = (self.crc.finalize() as u32, self.shape.member_bytes());
        let mut end = descriptor(crc, size);
        let directory_starts = local_header().len() as u64 + size + end.len() as u64;
        end.extend_from_slice(&directory(crc, size, directory_starts));
        self.sha256.update(&end);
        Ok((end.freeze(), schemas::hex(&self.sha256.finalize())))
    }

    fn wrong_rows(&self, found: String) -> SchemaError {
        SchemaError::Shape { what: "images of the archive", found, expected: self.shape.rows.to_string() }
    }
}

/// What stands before the member. It does not depend on it: CRC and sizes follow behind.
fn local_header() -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_slice(b"PK\x03\x04");
    bytes.put_u16_le(VERSION_ZIP64);
    put_kind(&mut bytes);
    bytes.put_u32_le(0); // CRC
    bytes.put_u32_le(IN_ZIP64_32);
    bytes.put_u32_le(IN_ZIP64_32);
    bytes.put_u16_le(PIXELS.len() as u16);
    let extra = zip64_sizes(0);
    bytes.put_u16_le(extra.len() as u16);
    bytes.put_slice(PIXELS.as_bytes());
    bytes.put_slice(&extra);
    bytes
}

/// What stands behind the member.
fn descriptor(crc: u32, size: u64) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_slice(b"PK\x07\x08");
    bytes.put_u32_le(crc);
    bytes.put_u64_le(size); // stored, hence both alike
    bytes.put_u64_le(size);
    bytes
}

/// The central directory, which begins at byte `starts` of the archive, and all behind it.
fn directory(crc: u32, size: u64, starts: u64) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_slice(b"PK\x01\x02");
    bytes.put_u16_le(MADE_BY);
    bytes.put_u16_le(VERSION_ZIP64);
    put_kind(&mut bytes);
    bytes.put_u32_le(crc);
    bytes.put_u32_le(IN_ZIP64_32);
    bytes.put_u32_le(IN_ZIP64_32);
    bytes.put_u16_le(PIXELS.len() as u16);
    let extra = zip64_sizes(size);
    bytes.put_u16_le(extra.len() as u16);
    bytes.put_u16_le(0); // comment
    bytes.put_u16_le(0); // disk
    bytes.put_u16_le(0); // internal attributes
    bytes.put_u32_le(PERMISSIONS);
    bytes.put_u32_le(0); // where the local header is
    bytes.put_slice(PIXELS.as_bytes());
    bytes.put_slice(&extra);
    let length = bytes.len() as u64;

    bytes.put_slice(b"PK\x06\x06");
    bytes.put_u64_le(44); // bytes of this record from here on
    bytes.put_u16_le(MADE_BY);
    bytes.put_u16_le(VERSION_ZIP64);
    bytes.put_u32_le(0); // disk
    bytes.put_u32_le(0); // disk of the directory
    bytes.put_u64_le(1); // members on it
    bytes.put_u64_le(1); // members
    bytes.put_u64_le(length);
    bytes.put_u64_le(starts);

    bytes.put_slice(b"PK\x06\x07");
    bytes.put_u32_le(0); // disk of the record above
    bytes.put_u64_le(starts + length);
    bytes.put_u32_le(1); // disks

    bytes.put_slice(b"PK\x05\x06");
    bytes.put_u16_le(0); // disk
    bytes.put_u16_le(0); // disk of the directory
    bytes.put_u16_le(IN_ZIP64_16);
    bytes.put_u16_le(IN_ZIP64_16);
    bytes.put_u32_le(IN_ZIP64_32);
    bytes.put_u32_le(IN_ZIP64_32);
    bytes.put_u16_le(0); // comment
    bytes
}

/// Flags, method and time, which both headers have.
fn put_kind(bytes: &mut BytesMut) {
    bytes.put_u16_le(FLAG_DESCRIPTOR);
    bytes.put_u16_le(0); // stored
    bytes.put_u16_le(0); // time
    bytes.put_u16_le(DATE);
}

/// The extra field with both sizes.
fn zip64_sizes(size: u64) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u16_le(EXTRA_ZIP64);
    bytes.put_u16_le(16);
    bytes.put_u64_le(size);
    bytes.put_u64_le(size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: NpzShape = NpzShape { rows: 5, height: 2, width: 3 };

    fn archive(shape: NpzShape, pixels: &[u8], rows_each: usize) -> (Vec<u8>, String) {
        let (mut encoder, front) = NpzEncoder::start(shape);
        let mut bytes = front.to_vec();
        for rows in pixels.chunks((rows_each * shape.row_bytes()).max(1)) {
            encoder.add_rows(rows).expect("whole rows");
            bytes.extend_from_slice(rows);
        }
        let (end, sha256) = encoder.finish().expect("all rows");
        bytes.extend_from_slice(&end);
        (bytes, sha256)
    }

    fn pixels(shape: NpzShape) -> Vec<u8> {
        (0..shape.rows as usize * shape.row_bytes()).map(|index| (index * 7 % 251) as u8).collect()
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    #[test]
    fn the_archive_is_what_pythons_zipfile_writes_to_a_pipe() {
        // `zipfile` 3.11 with `force_zip64` on an output that cannot seek, the array header from numpy 2.4 (`numpy.save`). Beside these
        // front bytes, the tests in Python open the whole.
        let (_, front) = NpzEncoder::start(SMALL);
        assert_eq!(
            front[..59],
            *b"PK\x03\x04\x2d\x00\x08\x00\x00\x00\x00\x00\x21\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x09\x00\x14\x00arr_0.npy\
               \x01\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        );
        let header = "\u{1}\0v\0{'descr': '|u1', 'fortran_order': False, 'shape': (5, 2, 3, 3), }";
        assert_eq!(front[59..65], *b"\x93NUMPY");
        assert_eq!(front[65..65 + header.len()], *header.as_bytes());
        assert!(front[65 + header.len()..].iter().all(|&byte| byte == b' ' || byte == b'\n'));
        assert_eq!(front.len(), 59 + 128);
    }

    #[test]
    fn large_sizes_stand_in_the_64_bit_fields() {
        let paper = NpzShape { rows: 50_000, height: 256, width: 256 };
        let member = 9_830_400_128;
        assert_eq!(paper.member_bytes(), member);
        assert_eq!(paper.archive_bytes(), npz_size(50_000, 256, 256));
        let tail = descriptor(0x0123_4567, member);
        assert_eq!((u64_at(&tail, 8), u64_at(&tail, 16), tail.len()), (member, member, 24));
        let starts = 59 + member + 24;
        let directory = directory(0x0123_4567, member, starts);
        assert_eq!((u64_at(&directory, 59), u64_at(&directory, 67)), (member, member));
        let (record, locator, end) = (75, 75 + 56, 75 + 56 + 20);
        assert_eq!(directory[record..record + 4], *b"PK\x06\x06");
        assert_eq!((u64_at(&directory, record + 40), u64_at(&directory, record + 48)), (75, starts));
        assert_eq!(directory[locator..locator + 4], *b"PK\x06\x07");
        assert_eq!(u64_at(&directory, locator + 8), starts + 75);
        assert_eq!(directory[end..end + 4], *b"PK\x05\x06");
        assert_eq!(starts + directory.len() as u64, paper.archive_bytes());
    }

    #[test]
    fn other_numbers_of_rows_and_halves_of_rows_are_refused() {
        let (mut encoder, _) = NpzEncoder::start(SMALL);
        let pixels = pixels(SMALL);
        let half = encoder.add_rows(&pixels[..17]).expect_err("half a row").to_string();
        assert!(half.contains("multiple of 18"), "{half}");
        encoder.add_rows(&pixels[..18 * 4]).expect("four rows");
        let short = encoder.clone().finish().expect_err("one is missing").to_string();
        assert!(short.contains("found 4, expected 5"), "{short}");
        let long = encoder.add_rows(&pixels[..36]).expect_err("one too many").to_string();
        assert!(long.contains("found 6 or more, expected 5"), "{long}");
    }

    proptest! {
        #[test]
        fn an_archive_has_the_size_it_says_and_the_same_bytes_however_its_rows_come(
            rows in 0..12_u64, height in 1..5_usize, width in 1..5_usize, rows_each in 1..12_usize,
        ) {
            let shape = NpzShape { rows, height, width };
            let pixels = pixels(shape);
            let (bytes, sha256) = archive(shape, &pixels, rows_each);
            prop_assert_eq!(bytes.len() as u64, shape.archive_bytes());
            prop_assert_eq!(&sha256, &schemas::sha256_hex(&bytes));
            prop_assert_eq!(&archive(shape, &pixels, 1).0, &bytes);
            let data = 59 + shape.array_header().len();
            prop_assert_eq!(&bytes[data..data + pixels.len()], &pixels[..]);
            let crc = crc_fast::crc32_iso_hdlc(&bytes[59..data + pixels.len()]);
            prop_assert_eq!(&bytes[data + pixels.len() + 4..][..4], &crc.to_le_bytes()[..]);
        }
    }
}
