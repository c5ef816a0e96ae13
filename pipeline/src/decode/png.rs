//! PNG, accepting what Pillow accepts as long as all pixels are there.
//!
//! Chunks are walked here, because which of their faults matter is Pillow's to say; the `png` crate decodes what is left of the file: a
//! header, a palette and the pixels' data.
//!
//! | Found | Answer |
//! |---|---|
//! | a checksum that is wrong, in front of the pixels | a reject |
//! | a checksum of the pixels' chunks that is wrong, and the one within their data is right or missing | decoded |
//! | the checksum within the pixels' data is wrong | a reject |
//! | the end is missing, every row is there | decoded |
//! | rows are missing | a reject, also where the data say that they are complete, of which Pillow makes black rows |
//! | a text or a profile that is broken | decoded; not if it unpacks to more than [`MAX_UNPACKED`], or all texts to more than [`MAX_TEXTS`] |
//! | an animation | the image that viewers without animation show |

use super::{
    DecodeFailure, DecodeLimits, RgbImage, check_dimensions, decoder_memory,
    reader::Reader,
    rgb::{clipped, grey, upper},
};
use crc_fast::{CrcAlgorithm, Digest};
use flate2::{Decompress, FlushDecompress, Status};
use png::{BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};
use std::{borrow::Cow, io::Cursor, iter};

/// The first bytes of each PNG.
pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Bytes beyond which Pillow refuses to unpack a text or a profile.
const MAX_UNPACKED: u64 = 1 << 20;

/// Characters beyond which Pillow refuses all texts of a file together.
const MAX_TEXTS: u64 = 64 << 20;

/// Bytes of a chunk that Pillow wants at least.
const SHORTEST: [(&[u8; 4], usize); 8] =
    [(b"IHDR", 13), (b"gAMA", 4), (b"cHRM", 32), (b"sRGB", 1), (b"pHYs", 9), (b"acTL", 8), (b"fcTL", 26), (b"fdAT", 4)];

/// First column, first row, and the steps of both, of the passes of an interlaced image.
const PASSES: [[u32; 4]; 7] =
    [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
    let mut reader = Reader::at(bytes, SIGNATURE.len());
    let mut file = File::read(&mut reader)?;
    let (width, height) = (file.header.width, file.header.height);
    check_dimensions(width, height, limits)?;
    let pixels = file.pixels(limits).map_err(|failure| failure.with_dimensions(width, height))?;
    check_chunks_behind_pixels(&mut reader, &mut file).map_err(|failure| failure.with_dimensions(width, height))?;
    Ok(RgbImage { width, height, pixels })
}

/// The header's chunk.
struct Header<'bytes> {
    width: u32,
    height: u32,
    depth: u8,
    colour: u8,
    interlaced: bool,
    chunk: &'bytes [u8],
}

/// What the pixels need.
struct File<'bytes> {
    header: Header<'bytes>,
    palette: &'bytes [u8],
    /// The data of all chunks of pixels, one zlib stream.
    data: Vec<u8>,
    seen: Seen,
    /// More than one image follows, by Pillow's count.
    animated: bool,
}

/// What was seen so far of chunks that are counted.
#[derive(Default)]
struct Seen {
    /// Characters of texts.
    texts: u64,
    /// Frames that an animation's header announces.
    frames: Option<u32>,
    /// The last number of those that count the controls and the data of an animation's frames together.
    number: Option<u32>,
}

impl<'bytes> File<'bytes> {
    /// Reads up to the chunk behind the pixels.
    fn read(reader: &mut Reader<'bytes>) -> Result<Self, DecodeFailure> {
        let (mut header, mut seen) = (None, Seen::default());
        let mut palette = [].as_slice();
        let first_length = loop {
            let (kind, length) = chunk_header(reader)?;
            let chunk = match &kind {
                b"IDAT" => break length,
                b"IEND" => return Err(DecodeFailure::corrupt("the file ends without pixels")),
                _ => reader.take(length, &named(kind))?,
            };
            let checksum = reader.array(&named(kind)).map(u32::from_be_bytes)?;
            let found = checksum_of(kind, chunk);
            if found != checksum {
                let message = format!("{} has the checksum {found:08x}, but {checksum:08x} is written", named(kind));
                return Err(DecodeFailure::corrupt(message));
            }
            seen.check(kind, chunk, header.as_ref())?;
            match &kind {
                b"IHDR" => header = Some(Header::read(chunk)?),
                // What is no whole colour is none.
                b"PLTE" => palette = &chunk[..chunk.len() / 3 * 3],
                b"fcTL" => check_first_frame(chunk, header.as_ref())?,
                // Pillow takes it for the pixels, and what follows for the rest of them.
                b"fdAT" => return Err(DecodeFailure::corrupt("a frame's data come before the pixels")),
                _ => {}
            }
        };
        let header = header.ok_or_else(|| DecodeFailure::corrupt("pixels come before the header"))?;
        // Without a control in front of it, the image is one more than the frames.
        let animated = seen.frames.is_some_and(|frames| frames > 1 || seen.number.is_none());
        let mut data = Vec::new();
        let mut length = first_length;
        loop {
            let rest = reader.rest();
            data.extend(reader.take(length.min(rest.len()), "the pixels")?);
            // A checksum that is not all there is as good as none: the data have their own.
            let mut ahead = reader.clone();
            match ahead.take(4, "a checksum").and_then(|_| chunk_header(&mut ahead)) {
                Ok((kind, next)) if kind == *b"IDAT" => (*reader, length) = (ahead, next),
                _ => return Ok(Self { header, palette, data, seen, animated }),
            }
        }
    }

    fn pixels(&self, limits: &DecodeLimits) -> Result<Vec<u8>, DecodeFailure> {
        match self.decoded(&self.data, limits) {
            Err(DecodingError::Format(_) | DecodingError::IoError(_)) => {
                let rows = self.rows()?;
                self.decoded(&stored(&rows), limits).map_err(failure)
            }
            decoded => decoded.map_err(failure),
        }
    }

    /// RGB from `data`, a zlib stream.
    fn decoded(&self, data: &[u8], limits: &DecodeLimits) -> Result<Vec<u8>, DecodingError> {
        let mut file = SIGNATURE.to_vec();
        let palette = Some((*b"PLTE", self.palette)).filter(|(_, palette)| !palette.is_empty());
        let chunks = iter::once((*b"IHDR", self.header.chunk)).chain(palette);
        for (kind, chunk) in chunks.chain([(*b"IDAT", data), (*b"IEND", [].as_slice())]) {
            file.extend((chunk.len() as u32).to_be_bytes());
            file.extend(kind);
            file.extend(chunk);
            // A checksum, which the decoder does not look at.
            file.extend([0; 4]);
        }
        let mut options = DecodeOptions::default();
        options.set_ignore_adler32(false);
        options.set_ignore_crc(true);
        let mut decoder = Decoder::new_with_options(Cursor::new(file), options);
        decoder.set_limits(Limits { bytes: decoder_memory(limits) });
        decoder.set_transformations(Transformations::EXPAND);
        let mut reader = decoder.read_info()?;
        let mut values = vec![0; reader.output_buffer_size().ok_or(DecodingError::LimitsExceeded)?];
        let info = reader.next_frame(&mut values)?;
        reader.finish()?;
        values.truncate(info.buffer_size());
        Ok(rgb(info.color_type, info.bit_depth, values))
    }

    /// The filtered rows, as far as the data give them, which must be to the last one.
    fn rows(&self) -> Result<Vec<u8>, DecodeFailure> {
        let expected = self.header.unpacked_bytes();
        let mut rows = Vec::with_capacity(expected);
        let mut inflater = Decompress::new(true);
        loop {
            let read = inflater.total_in() as usize;
            // What comes behind the last row is unpacked for the checksum behind it, and no more than a block at a time.
            if rows.len() > expected {
                rows.truncate(expected);
            }
            let room = (expected - rows.len()).max(1 << 12);
            rows.reserve_exact(room);
            let before = inflater.total_out();
            let status = inflater
                .decompress_vec(&self.data[read..], &mut rows, FlushDecompress::None)
                .map_err(|error| DecodeFailure::corrupt(format!("the pixels' data: {error}")))?;
            let stuck = inflater.total_out() == before && inflater.total_in() as usize == read;
            let enough = inflater.total_out() > expected as u64 + MAX_UNPACKED;
            if status == Status::StreamEnd || stuck || enough {
                break;
            }
        }
        if rows.len() < expected {
            let message = format!("{} of {expected} bytes of the pixels' rows are there", rows.len());
            return Err(DecodeFailure::truncated(message));
        }
        rows.truncate(expected);
        Ok(rows)
    }
}

impl<'bytes> Header<'bytes> {
    fn read(chunk: &'bytes [u8]) -> Result<Self, DecodeFailure> {
        let mut fields = Reader::at(chunk, 0);
        let what = "the header";
        let (width, height) = (u32::from_be_bytes(fields.array(what)?), u32::from_be_bytes(fields.array(what)?));
        let [depth, colour, compression, filter, interlace] = fields.array(what)?;
        let known = match colour {
            0 => [1, 2, 4, 8, 16].contains(&depth),
            3 => [1, 2, 4, 8].contains(&depth),
            2 | 4 | 6 => [8, 16].contains(&depth),
            _ => false,
        };
        if !known || compression != 0 || filter != 0 || interlace > 1 {
            return Err(DecodeFailure::unsupported(format!(
                "colour type {colour} with {depth} bits, compression {compression}, filter {filter} and interlace \
                 {interlace} is no combination that exists"
            )));
        }
        Ok(Self { width, height, depth, colour, interlaced: interlace == 1, chunk: &chunk[..13] })
    }

    /// Bytes of all filtered rows.
    fn unpacked_bytes(&self) -> usize {
        let channels = match self.colour {
            0 | 3 => 1,
            4 => 2,
            2 => 3,
            _ => 4,
        };
        let bits = channels * usize::from(self.depth);
        let bytes = |width: u32, height: u32| match width {
            0 => 0,
            width => height as usize * (1 + (width as usize * bits).div_ceil(8)),
        };
        if !self.interlaced {
            return bytes(self.width, self.height);
        }
        let passed = |size: u32, first: u32, step: u32| size.saturating_sub(first).div_ceil(step);
        let passes = PASSES
            .iter()
            .map(|&[left, top, right, down]| bytes(passed(self.width, left, right), passed(self.height, top, down)));
        passes.sum()
    }
}

/// Length and kind of the next chunk.
fn chunk_header(reader: &mut Reader<'_>) -> Result<([u8; 4], usize), DecodeFailure> {
    let length = reader.array("a chunk's header").map(u32::from_be_bytes)?;
    let kind: [u8; 4] = reader.array("a chunk's header")?;
    if kind.iter().all(|&letter| letter.is_ascii_alphanumeric() || letter == b'_') {
        Ok((kind, length as usize))
    } else {
        Err(DecodeFailure::corrupt(format!("a chunk named {}", kind.escape_ascii())))
    }
}

fn named(kind: [u8; 4]) -> String {
    format!("the chunk {}", kind.escape_ascii())
}

fn checksum_of(kind: [u8; 4], chunk: &[u8]) -> u32 {
    let mut checksum = Digest::new(CrcAlgorithm::Crc32IsoHdlc);
    checksum.update(&kind);
    checksum.update(chunk);
    checksum.finalize() as u32
}

impl Seen {
    /// Fails where Pillow refuses a chunk for its content: too short, or unpacking to too much.
    fn check(&mut self, kind: [u8; 4], chunk: &[u8], header: Option<&Header<'_>>) -> Result<(), DecodeFailure> {
        if let Some((_, shortest)) = SHORTEST.iter().find(|(name, shortest)| **name == kind && chunk.len() < *shortest)
        {
            let message = format!("{} has {} bytes, expected at least {shortest}", named(kind), chunk.len());
            return Err(DecodeFailure::corrupt(message));
        }
        match &kind {
            b"tRNS" => check_transparency(chunk, header),
            b"iCCP" => check_profile(chunk),
            b"tEXt" | b"zTXt" | b"iTXt" => {
                self.texts += characters(kind, chunk)? as u64;
                if self.texts <= MAX_TEXTS {
                    return Ok(());
                }
                let message = format!("all texts together have more than {MAX_TEXTS} characters");
                Err(DecodeFailure::new(schemas::RejectReason::TooLarge, message))
            }
            b"acTL" => {
                let frames = Reader::at(chunk, 0).array("the animation's header").map(u32::from_be_bytes)?;
                // Of two headers Pillow takes none.
                self.frames = Some(frames).filter(|frames| self.frames.is_none() && (1..=1 << 31).contains(frames));
                Ok(())
            }
            b"fcTL" | b"fdAT" => {
                let number = Reader::at(chunk, 0).array("a frame's number").map(u32::from_be_bytes)?;
                let expected = match self.number {
                    None => (kind == *b"fcTL").then_some(0),
                    Some(last) => last.checked_add(1),
                };
                if expected != Some(number) {
                    let expected = expected.map_or("a control in front of it".to_owned(), |number| number.to_string());
                    let message = format!("{} has the number {number}, expected {expected}", named(kind));
                    return Err(DecodeFailure::corrupt(message));
                }
                self.number = expected;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Of grey and RGB, the transparent colour is one value of 16 bits a channel.
fn check_transparency(chunk: &[u8], header: Option<&Header<'_>>) -> Result<(), DecodeFailure> {
    let shortest = match header.map(|header| header.colour) {
        Some(0) => 2,
        Some(2) => 6,
        _ => 0,
    };
    if chunk.len() < shortest {
        let message = format!("the transparent colour has {} bytes, expected {shortest}", chunk.len());
        return Err(DecodeFailure::corrupt(message));
    }
    Ok(())
}

/// A name, a zero, a method and packed data.
fn check_profile(chunk: &[u8]) -> Result<(), DecodeFailure> {
    match *name_and_rest(chunk).1 {
        [0, ref packed @ ..] => unpacked(*b"iCCP", packed).map(|_| ()),
        [method, ..] => Err(unknown_method(*b"iCCP", method)),
        [] => Err(DecodeFailure::corrupt("the colour profile ends with its name")),
    }
}

/// What is in front of the first zero, and what behind it.
fn name_and_rest(chunk: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = chunk.splitn(2, |&byte| byte == 0);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn unknown_method(kind: [u8; 4], method: u8) -> DecodeFailure {
    DecodeFailure::corrupt(format!("{} is packed by the unknown method {method}", named(kind)))
}

/// Characters of a text, as Pillow counts them: none of what it does not keep.
fn characters(kind: [u8; 4], chunk: &[u8]) -> Result<usize, DecodeFailure> {
    let (name, rest) = name_and_rest(chunk);
    if kind == *b"iTXt" {
        return international_characters(rest);
    }
    let length = match (&kind, rest) {
        (b"zTXt", &[0, ref packed @ ..]) => unpacked(kind, packed)?.map_or(0, |text| text.len()),
        (b"zTXt", &[method, ..]) => return Err(unknown_method(kind, method)),
        (_, text) => text.len(),
    };
    Ok(if name.is_empty() { 0 } else { length })
}

/// Behind the name: a flag that says whether the text is packed, a method, a language, the name in that language, and the text.
fn international_characters(rest: &[u8]) -> Result<usize, DecodeFailure> {
    let &[flag, method, ref rest @ ..] = rest else { return Ok(0) };
    let mut parts = rest.splitn(3, |&byte| byte == 0);
    let (Some(language), Some(name), Some(text)) = (parts.next(), parts.next(), parts.next()) else { return Ok(0) };
    let text = match (flag, method) {
        (0, _) => Some(Cow::Borrowed(text)),
        (_, 0) => unpacked(*b"iTXt", text)?.map(Cow::Owned),
        _ => None,
    };
    let letters = |part: &[u8]| str::from_utf8(part).ok().map(|part| part.chars().count());
    let kept = letters(language).is_some() && letters(name).is_some();
    Ok(text.and_then(|text| letters(&text)).filter(|_| kept).unwrap_or(0))
}

/// What `packed` holds, as far as it is there; `None` where it is broken, which Pillow leaves alone.
fn unpacked(kind: [u8; 4], packed: &[u8]) -> Result<Option<Vec<u8>>, DecodeFailure> {
    let mut inflater = Decompress::new(true);
    let mut unpacked = Vec::new();
    loop {
        // No further than a byte beyond the limit: what is broken behind that is too large all the same.
        unpacked.reserve_exact((MAX_UNPACKED as usize + 1 - unpacked.len()).min(1 << 16));
        let (read, written) = (inflater.total_in(), inflater.total_out());
        let Ok(status) = inflater.decompress_vec(&packed[read as usize..], &mut unpacked, FlushDecompress::None) else {
            return Ok(None);
        };
        if inflater.total_out() > MAX_UNPACKED {
            let message = format!("{} unpacks to more than {MAX_UNPACKED} bytes", named(kind));
            return Err(DecodeFailure::new(schemas::RejectReason::TooLarge, message));
        }
        if status == Status::StreamEnd || (inflater.total_in(), inflater.total_out()) == (read, written) {
            return Ok(Some(unpacked));
        }
    }
}

/// Width, height, left and top of a frame by its control.
fn frame_place(chunk: &[u8]) -> Result<[u32; 4], DecodeFailure> {
    let mut fields = Reader::at(chunk, 4);
    let mut next = || fields.array("a frame's place").map(u32::from_be_bytes);
    Ok([next()?, next()?, next()?, next()?])
}

fn misplaced(which: &str, [width, height, left, top]: [u32; 4]) -> DecodeFailure {
    DecodeFailure::corrupt(format!("{which} is {width}x{height} pixels at {left}, {top}"))
}

/// Fails where the first frame of an animation is not the whole image, which the format forbids.
fn check_first_frame(chunk: &[u8], header: Option<&Header<'_>>) -> Result<(), DecodeFailure> {
    let place = frame_place(chunk)?;
    match header {
        Some(header) if place == [header.width, header.height, 0, 0] => Ok(()),
        _ => Err(misplaced("the first frame", place)),
    }
}

/// Pillow reads on behind the pixels, in an animation up to the next frame: what is there must be whole, its checksums may be wrong.
fn check_chunks_behind_pixels<'bytes>(
    reader: &mut Reader<'bytes>,
    file: &mut File<'bytes>,
) -> Result<(), DecodeFailure> {
    loop {
        let Ok((kind, length)) = reader.take(4, "a checksum").and_then(|_| chunk_header(reader)) else {
            return Ok(());
        };
        let control = kind == *b"fcTL";
        if kind == *b"IEND" || control && file.animated {
            return Ok(());
        }
        let chunk = reader.take(length, &named(kind))?;
        file.seen.check(kind, chunk, Some(&file.header))?;
        if control {
            let place = frame_place(chunk)?;
            let [width, height, left, top] = place.map(u64::from);
            if left + width > file.header.width.into() || top + height > file.header.height.into() {
                return Err(misplaced("a frame", place));
            }
        }
    }
}

/// A zlib stream of bytes as they are.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut stream = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::none());
    // Writing to memory does not fail; if it did, the decoder would say that rows are missing.
    let written = std::io::Write::write_all(&mut stream, bytes).and_then(|()| stream.finish());
    written.unwrap_or_default()
}

/// Pillow's `convert("RGB")` from the mode in which it opens such a file.
fn rgb(colour: ColorType, depth: BitDepth, values: Vec<u8>) -> Vec<u8> {
    let wide = depth == BitDepth::Sixteen;
    let channels = colour.samples();
    if !wide {
        return match channels {
            1 | 2 => values.chunks_exact(channels).flat_map(|pixel| grey(pixel[0])).collect(),
            3 => values,
            _ => values.as_chunks::<4>().0.iter().flat_map(|&[red, green, blue, _]| [red, green, blue]).collect(),
        };
    }
    let words = values.as_chunks::<2>().0.iter().map(|&word| u16::from_be_bytes(word));
    match channels {
        1 => words.flat_map(|value| grey(clipped(value))).collect(),
        2 => words.step_by(2).flat_map(|value| grey(upper(value))).collect(),
        3 => words.map(upper).collect(),
        _ => words.enumerate().filter(|(place, _)| place % 4 != 3).map(|(_, value)| upper(value)).collect(),
    }
}

fn failure(error: DecodingError) -> DecodeFailure {
    match error {
        DecodingError::LimitsExceeded => DecodeFailure::new(schemas::RejectReason::TooLarge, error.to_string()),
        error => DecodeFailure::corrupt(error.to_string()),
    }
}
