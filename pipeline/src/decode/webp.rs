//! WebP: of an animation the first frame upon its canvas, as by libwebp's own animation decoder, which Pillow uses.
//!
//! The canvas begins black and transparent, whatever background the file names, and nothing is blended onto it. Chunks are walked here;
//! the `image-webp` crate decodes the one image that is looked for.

use super::{DecodeFailure, DecodeLimits, RgbImage, check_dimensions, decoder_memory, reader::Reader};
use image_webp::{DecodingError, WebPDecoder};
use std::{io::Cursor, ops::Range};

/// Bytes of the header of the file, and of a chunk.
const FILE_HEADER: usize = 12;
const CHUNK_HEADER: usize = 8;

/// Bytes that the header of an animation has: a background and a number of repetitions.
const ANIMATION_HEADER: usize = 6;

/// Flags of an extended file, and of the one that is made here.
const ANIMATED: u8 = 0x02;
const ALPHA: u8 = 0x10;

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
    let length = Reader::at(bytes, 4).u32("the file's header")? as usize;
    if length < FILE_HEADER - CHUNK_HEADER {
        return Err(DecodeFailure::corrupt(format!("the header says that {length} bytes follow")));
    }
    let Some(body) = bytes.get(FILE_HEADER..CHUNK_HEADER.saturating_add(length)) else {
        let message =
            format!("the header promises {length} bytes behind its first 8, but the file has {}", bytes.len());
        return Err(DecodeFailure::truncated(message));
    };
    let mut chunks = Chunks { reader: Reader::at(body, 0), within_frame: false };
    let mut ahead = chunks.clone();
    let (kind, first) = ahead.following()?.ok_or_else(|| DecodeFailure::truncated("the file has no chunks"))?;
    match &kind {
        b"VP8 " | b"VP8L" => {
            let image = Image::read(&mut chunks)?;
            let canvas = image.size;
            return image.decode(Place { left: 0, top: 0, canvas }, limits);
        }
        b"VP8X" => {}
        other => return Err(DecodeFailure::corrupt(format!("it begins with the chunk {}", other.escape_ascii()))),
    }
    let mut fields = Reader::at(first, 0);
    let [flags, ..]: [u8; 4] = fields.array("the extended header")?;
    let canvas = (u24(&mut fields)? + 1, u24(&mut fields)? + 1);
    if flags & ANIMATED == 0 {
        let image = Image::read(&mut ahead)?;
        if image.size != canvas {
            return Err(mismatch(image.size, canvas));
        }
        return image.decode(Place { left: 0, top: 0, canvas }, limits);
    }
    let (mut first_frame, mut controlled) = (None, false);
    // Later frames are not decoded; that they fit is looked at, as by libwebp.
    while let Some((kind, frame)) = ahead.following()? {
        controlled |= kind == *b"ANIM" && frame.len() >= ANIMATION_HEADER;
        if kind != *b"ANMF" {
            continue;
        }
        if !controlled {
            return Err(DecodeFailure::corrupt("a frame comes before the animation's header"));
        }
        let mut fields = Reader::at(frame, 0);
        let (left, top) = (u24(&mut fields)? * 2, u24(&mut fields)? * 2);
        let size = (u24(&mut fields)? + 1, u24(&mut fields)? + 1);
        // A duration and flags of blending, which the first frame has no use for.
        fields.take(4, "a frame's header")?;
        let image = Image::read(&mut Chunks { reader: fields, within_frame: true })?;
        if image.size != size || left + size.0 > canvas.0 || top + size.1 > canvas.1 {
            return Err(mismatch(image.size, canvas));
        }
        first_frame.get_or_insert((image, Place { left, top, canvas }));
    }
    let (image, place) = first_frame.ok_or_else(|| DecodeFailure::corrupt("an animation without frames"))?;
    image.decode(place, limits)
}

fn mismatch(image: (u32, u32), canvas: (u32, u32)) -> DecodeFailure {
    let message = format!("the headers do not agree: an image of {image:?} pixels upon a canvas of {canvas:?}");
    DecodeFailure::corrupt(message)
}

/// Three bytes, little-endian.
fn u24(fields: &mut Reader<'_>) -> Result<u32, DecodeFailure> {
    let [low, middle, high] = fields.array("a header")?;
    Ok(u32::from_le_bytes([low, middle, high, 0]))
}

fn lossless_size(data: &[u8]) -> Result<(u32, u32), DecodeFailure> {
    let mut header = Reader::at(data, 0);
    let what = "the image's header";
    let (signature, packed) = (header.u8(what)?, header.u32(what)?);
    // The upper bits are the version.
    if signature != 0x2F || packed >> 29 != 0 {
        return Err(DecodeFailure::corrupt(format!("a lossless image begins with {signature:02x} and {packed:08x}")));
    }
    Ok(((packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1))
}

fn lossy_size(data: &[u8]) -> Result<(u32, u32), DecodeFailure> {
    let mut header = Reader::at(data, 3);
    let what = "the image's header";
    let signature: [u8; 3] = header.array(what)?;
    let mut side = || header.u16(what).map(|side| u32::from(side & 0x3FFF));
    let size = (side()?, side()?);
    if signature != [0x9D, 0x01, 0x2A] || size.0 == 0 || size.1 == 0 {
        return Err(DecodeFailure::corrupt(format!(
            "a lossy image has the signature {signature:02x?} and the size {size:?}"
        )));
    }
    Ok(size)
}

/// Kind and data.
type Chunk<'bytes> = ([u8; 4], &'bytes [u8]);

#[derive(Clone, Debug)]
struct Chunks<'bytes> {
    reader: Reader<'bytes>,
    within_frame: bool,
}

impl<'bytes> Chunks<'bytes> {
    /// The next chunk; `None` at the end.
    fn following(&mut self) -> Result<Option<Chunk<'bytes>>, DecodeFailure> {
        let reader = &mut self.reader;
        if reader.rest().len() < CHUNK_HEADER {
            return Ok(None);
        }
        let kind: [u8; 4] = reader.array("a chunk's header")?;
        let length = reader.u32("a chunk's header")? as usize;
        let data = reader.take(length, &format!("the chunk {}", kind.escape_ascii()))?;
        // Chunks are padded to an even length; the last one of a frame has the frame's own padding where it has none.
        let padded_by_frame = self.within_frame && reader.rest().is_empty();
        if !length.is_multiple_of(2) && !padded_by_frame {
            reader.u8("a chunk's padding")?;
        }
        Ok(Some((kind, data)))
    }
}

/// Where the image lies.
struct Place {
    left: u32,
    top: u32,
    canvas: (u32, u32),
}

/// The chunks of one image.
struct Image<'bytes> {
    alpha: Option<&'bytes [u8]>,
    kind: [u8; 4],
    data: &'bytes [u8],
    /// Width and height by the image's own header.
    size: (u32, u32),
}

impl<'bytes> Image<'bytes> {
    /// The first image among the chunks, and the alpha channel in front of it.
    fn read(chunks: &mut Chunks<'bytes>) -> Result<Self, DecodeFailure> {
        let mut alpha = None;
        while let Some((kind, data)) = chunks.following()? {
            match &kind {
                b"ALPH" => alpha = Some(data),
                b"VP8L" => return Ok(Self { alpha: None, kind, data, size: lossless_size(data)? }),
                b"VP8 " => return Ok(Self { alpha, kind, data, size: lossy_size(data)? }),
                _ => {}
            }
        }
        Err(DecodeFailure::corrupt("there is no image in it"))
    }

    fn decode(&self, place: Place, limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
        let (width, height) = place.canvas;
        check_dimensions(width, height, limits)?;
        let image = self.pixels(limits).map_err(|error| failure(error).with_dimensions(width, height))?;
        let size = self.size;
        if size == place.canvas {
            return Ok(RgbImage { width, height, pixels: image });
        }
        let mut pixels = vec![0; width as usize * height as usize * 3];
        let columns = |columns: Range<u32>| columns.start as usize * 3..columns.end as usize * 3;
        let rows = pixels.chunks_exact_mut(width as usize * 3).skip(place.top as usize);
        for (row, line) in rows.zip(image.chunks_exact(size.0 as usize * 3)) {
            row[columns(place.left..place.left + size.0)].copy_from_slice(line);
        }
        Ok(RgbImage { width, height, pixels })
    }

    /// RGB of the image by itself.
    fn pixels(&self, limits: &DecodeLimits) -> Result<Vec<u8>, DecodingError> {
        let (width, height) = self.size;
        let mut header = vec![if self.alpha.is_some() { ALPHA } else { 0 }, 0, 0, 0];
        for side in [width, height] {
            header.extend(&(side - 1).to_le_bytes()[..3]);
        }
        let alpha = self.alpha.map(|alpha| (*b"ALPH", alpha));
        let mut body = b"WEBP".to_vec();
        for (kind, data) in [Some((*b"VP8X", header.as_slice())), alpha, Some((self.kind, self.data))].iter().flatten()
        {
            body.extend(kind);
            body.extend((data.len() as u32).to_le_bytes());
            body.extend(*data);
            body.resize(body.len().next_multiple_of(2), 0);
        }
        let file = [b"RIFF".as_slice(), &(body.len() as u32).to_le_bytes(), &body].concat();
        let mut decoder = WebPDecoder::new(Cursor::new(file))?;
        decoder.set_memory_limit(decoder_memory(limits));
        let mut values = vec![0; decoder.output_buffer_size().ok_or(DecodingError::ImageTooLarge)?];
        decoder.read_image(&mut values)?;
        Ok(match decoder.has_alpha() {
            true => values.as_chunks::<4>().0.iter().flat_map(|&[red, green, blue, _]| [red, green, blue]).collect(),
            false => values,
        })
    }
}

fn failure(error: DecodingError) -> DecodeFailure {
    let message = error.to_string();
    match error {
        DecodingError::MemoryLimitExceeded | DecodingError::ImageTooLarge => {
            DecodeFailure::new(schemas::RejectReason::TooLarge, message)
        }
        DecodingError::UnsupportedFeature(_) => DecodeFailure::unsupported(message),
        DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            DecodeFailure::truncated("the image's data end too early")
        }
        _ => DecodeFailure::corrupt(message),
    }
}
