//! TIFF: the first page, by Pillow's table of kinds.
//!
//! | What | How |
//! |---|---|
//! | grey and palettes of 1, 2, 4, 8 bits, RGB and CMYK of 8 and 16, YCbCr of 8 without subsampling | read |
//! | grey of 16 bits | its values are cut off at 255, and white at zero is not turned round: see [`super::rgb::clipped`] |
//! | alpha that colours were multiplied by | divided out again; of grey, Pillow refuses it |
//! | further samples | left out |
//! | strips, tiles, planes; the packings of [`Compression`] | read |
//! | the orientation tag | applied, as Pillow does for this format alone |
//! | floats, signed numbers, 32 bits, L*a*b* | not read: nothing says which value is white, or it takes colour profiles |

mod compression;
mod directory;

use super::{
    DecodeFailure, DecodeLimits, RgbImage, check_dimensions,
    reader::Reader,
    rgb::{Palette, clipped, cmyk, divided_by_alpha, grey, unpacked, upper, ycbcr},
};
use compression::{Compression, JpegColours, Piece, add_up};
use directory::{ByteOrder, Directory, Tag};

/// Samples of a pixel that Pillow reads at most.
const MOST_SAMPLES: usize = 6;

/// Kinds of further samples.
const UNSPECIFIED: u64 = 0;
const MULTIPLIED_ALPHA: u64 = 1;
/// Corel's number for alpha, which Pillow knows.
const COREL_ALPHA: u64 = 999;

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
    let tags = Directory::read(bytes)?;
    let side = |tag, name: &str| {
        let side =
            tags.value(tag)?.ok_or_else(|| DecodeFailure::corrupt(format!("the tag of the {name} is missing")))?;
        u32::try_from(side).map_err(|_| DecodeFailure::corrupt(format!("a {name} of {side} pixels")))
    };
    let (width, height) = (side(Tag::Width, "width")?, side(Tag::Height, "height")?);
    check_dimensions(width, height, limits)?;
    let pixels = pixels(bytes, &tags, width as usize, height as usize);
    let pixels = pixels.map_err(|failure| failure.with_dimensions(width, height))?;
    let image = RgbImage { width, height, pixels };
    Ok(match tags.value(Tag::Orientation)? {
        Some(orientation @ 2..=8) => oriented(&image, orientation),
        _ => image,
    })
}

fn pixels(bytes: &[u8], tags: &Directory<'_>, width: usize, height: usize) -> Result<Vec<u8>, DecodeFailure> {
    let compression = Compression::new(tags.value(Tag::Compression)?.unwrap_or(1))?;
    let samples = Samples::read(tags, compression)?;
    let colours = samples.colours(tags, compression)?;
    let jpeg = match (compression, &colours) {
        (Compression::Jpeg, Colours::Grey { bits: 8, inverted: false }) => Some(JpegColours::Grey),
        (Compression::Jpeg, Colours::Rgb) if samples.count == 3 => Some(JpegColours::Rgb),
        (Compression::Jpeg, Colours::YCbCr) => Some(JpegColours::YCbCr),
        (Compression::Jpeg, _) => {
            let (count, bits) = (samples.count, samples.bits);
            let message =
                format!("JPEG of {count} samples of {bits} bits is not read, only of grey, RGB and YCbCr of 8 bits");
            return Err(DecodeFailure::unsupported(message));
        }
        _ => None,
    };
    let layout = Layout::read(tags, width, height, &samples, compression)?;
    let data = layout.assembled(bytes, tags, compression, &samples, jpeg)?;
    if jpeg.is_some() {
        return Ok(data);
    }
    Ok(match colours {
        Colours::Rgb if samples.count == 3 => data,
        colours => colours.rgb(&data, width, &samples, tags.order),
    })
}

/// The samples of a pixel.
struct Samples {
    count: usize,
    bits: u32,
    /// Kinds of the samples behind the colour's.
    extra: Vec<u64>,
    /// One plane for each sample.
    planar: bool,
    /// The lower bits of a byte come first.
    reversed: bool,
}

impl Samples {
    fn read(tags: &Directory<'_>, compression: Compression) -> Result<Self, DecodeFailure> {
        let unsupported = |what: String| Err(DecodeFailure::unsupported(what));
        let count = tags.value(Tag::SamplesPerPixel)?.unwrap_or(1);
        let Some(count) = usize::try_from(count).ok().filter(|count| (1..=MOST_SAMPLES).contains(count)) else {
            return unsupported(format!("{count} samples a pixel are not read, only up to {MOST_SAMPLES}"));
        };
        let mut bits = tags.values(Tag::BitsPerSample)?;
        if bits.is_empty() {
            bits.push(1);
        }
        if bits.len() == 1 {
            bits.resize(count, bits[0]);
        }
        if bits.len() < count {
            return Err(DecodeFailure::corrupt(format!("{} depths for {count} samples a pixel", bits.len())));
        }
        bits.truncate(count);
        let formats = tags.values(Tag::SampleFormat)?;
        match formats.iter().find(|&&format| format != 1) {
            None => {}
            Some(2) => return unsupported("signed samples are not read: nothing says which value is white".to_owned()),
            Some(3) => return unsupported("float samples are not read: nothing says which value is white".to_owned()),
            Some(other) => return unsupported(format!("samples of format {other} are not read")),
        }
        let depth = bits[0];
        if bits.iter().any(|&other| other != depth) || ![1, 2, 4, 8, 16].contains(&depth) {
            return unsupported(format!("samples of {bits:?} bits are not read, only of 1, 2, 4, 8 or 16, all alike"));
        }
        let planar = match tags.value(Tag::Planar)?.unwrap_or(1) {
            1 => false,
            2 => count > 1,
            other => return Err(DecodeFailure::corrupt(format!("planar configuration {other}, expected 1 or 2"))),
        };
        if planar && (compression == Compression::Jpeg || depth != 8) {
            let packing = if compression == Compression::Jpeg { " in JPEG" } else { "" };
            return unsupported(format!("planes of {depth} bits{packing} are not read"));
        }
        let reversed = match tags.value(Tag::FillOrder)?.unwrap_or(1) {
            1 => false,
            2 => true,
            other => return Err(DecodeFailure::corrupt(format!("fill order {other}, expected 1 or 2"))),
        };
        Ok(Self { count, bits: depth as u32, extra: tags.values(Tag::ExtraSamples)?, planar, reversed })
    }

    /// Samples that lie beside each other.
    fn adjacent(&self) -> usize {
        if self.planar { 1 } else { self.count }
    }

    /// Pillow's table: what the samples are together.
    fn colours(&self, tags: &Directory<'_>, compression: Compression) -> Result<Colours, DecodeFailure> {
        // A photometric interpretation is required, and left out by some; Pillow then takes white for zero.
        let photometric = tags.value(Tag::Photometric)?.unwrap_or(0);
        let (count, bits, extra) = (self.count, self.bits, self.extra.as_slice());
        let only_unspecified = extra.iter().all(|&kind| kind == UNSPECIFIED);
        let behind_alpha = extra.iter().skip(1).all(|&kind| kind == UNSPECIFIED);
        let refused = |what: &str| {
            Err(DecodeFailure::unsupported(format!(
                "{what} of {count} samples of {bits} bits, further ones of kinds {extra:?}, are not read"
            )))
        };
        // What Pillow has in its table with the lower bits first.
        let few_and_plain = extra.is_empty() && (bits <= 8 || photometric == 1 && tags.order == ByteOrder::Little);
        if self.reversed && !(few_and_plain && matches!((photometric, count), (0 | 1 | 3, 1) | (2, 3))) {
            return refused("lower bits first in pixels");
        }
        if self.planar && compression == Compression::None && extra.iter().any(|&kind| kind != 2) {
            return refused("planes");
        }
        Ok(match (photometric, count - extra.len().min(count), bits) {
            (0 | 1, 1, 16) if extra.is_empty() => match (photometric, tags.order) {
                (0, ByteOrder::Big) => return refused("big-endian pixels with white at zero"),
                _ => Colours::Grey16,
            },
            (0 | 1, 1, _) if extra.is_empty() => Colours::Grey { bits, inverted: photometric == 0 },
            (1, 1, 8) if matches!(extra, [UNSPECIFIED | 2]) => Colours::Grey { bits, inverted: false },
            (2, 3, 8) if matches!(extra, [MULTIPLIED_ALPHA, ..]) && behind_alpha => Colours::Multiplied,
            (2, 3, 8) if only_unspecified || behind_alpha && extra[0] == 2 || extra == [COREL_ALPHA] => Colours::Rgb,
            (2, 4, 8) if extra.is_empty() => Colours::Rgb,
            (2, 3, 16) if extra == [MULTIPLIED_ALPHA] => Colours::Multiplied16,
            (2, 3, 16) if matches!(extra, [] | [UNSPECIFIED | 2]) => Colours::Rgb16,
            (2, 4, 16) if extra.is_empty() => Colours::Rgb16,
            (3, 1, _) if bits <= 8 && (extra.is_empty() || bits == 8 && matches!(extra, [UNSPECIFIED | 2])) => {
                Colours::Indexed(palette(tags, bits)?)
            }
            (5, 4, 8) if only_unspecified => Colours::Cmyk,
            (5, 4, 16) if extra.is_empty() => Colours::Cmyk16,
            (6, 1, 8) if extra.is_empty() => Colours::Grey { bits, inverted: false },
            (6, 3, 8) if extra.is_empty() => match (compression, tags.values(Tag::ChromaSubsampling)?.as_slice()) {
                (Compression::Jpeg, _) | (Compression::None, [1, 1]) if !self.planar => Colours::YCbCr,
                (Compression::None, subsampling) => {
                    let message = format!("YCbCr with a subsampling of {subsampling:?} is not read, only [1, 1]");
                    return Err(DecodeFailure::unsupported(message));
                }
                _ => return Err(DecodeFailure::unsupported(format!("YCbCr packed by {compression:?} is not read"))),
            },
            (0 | 1, ..) => return refused("grey pixels"),
            (2, ..) => return refused("RGB pixels"),
            (3, ..) => return refused("indexed pixels"),
            (5, ..) => return refused("CMYK pixels"),
            (6, ..) => return refused("YCbCr pixels"),
            (8..=10, ..) => return refused("L*a*b* pixels"),
            (other, ..) => return refused(&format!("pixels of photometric interpretation {other}")),
        })
    }
}

/// Pillow takes the upper byte of each colour.
fn palette(tags: &Directory<'_>, bits: u32) -> Result<Palette, DecodeFailure> {
    let map = tags.values(Tag::ColourMap)?;
    let colours = 1 << bits;
    if map.len() != 3 * colours {
        let message = format!("a palette of {} values, expected {} for {bits} bits", map.len(), 3 * colours);
        return Err(DecodeFailure::corrupt(message));
    }
    let value = |index: usize| (map[index] / 256) as u8;
    Ok(Palette::new((0..colours).map(|index| [value(index), value(colours + index), value(2 * colours + index)])))
}

/// What the samples of a pixel are together.
enum Colours {
    Grey { bits: u32, inverted: bool },
    Grey16,
    Indexed(Palette),
    Rgb,
    Rgb16,
    Multiplied,
    Multiplied16,
    Cmyk,
    Cmyk16,
    YCbCr,
}

impl Colours {
    /// RGB of rows of pixels whose samples lie beside each other.
    fn rgb(&self, data: &[u8], width: usize, samples: &Samples, order: ByteOrder) -> Vec<u8> {
        let count = samples.count;
        let word = |bytes: &[u8], place: usize| order.u16([bytes[2 * place], bytes[2 * place + 1]]);
        let bytes = || data.chunks_exact(count);
        let words = || data.chunks_exact(2 * count);
        let rows = || data.chunks_exact((width * count * samples.bits as usize).div_ceil(8));
        let upper_four = |pixel: &[u8]| [0, 1, 2, 3].map(|place| upper(word(pixel, place)));
        match self {
            &Self::Grey { bits, inverted } => {
                let factor = 255 / (255 >> (8 - bits)) as u8;
                let value = |value: u8| if inverted { !(value * factor) } else { value * factor };
                let row =
                    |row| unpacked(row, bits).step_by(count).take(width).flat_map(move |sample| grey(value(sample)));
                rows().flat_map(row).collect()
            }
            Self::Grey16 => words().flat_map(|pixel| grey(clipped(word(pixel, 0)))).collect(),
            Self::Indexed(palette) => {
                let row = |row| unpacked(row, samples.bits).step_by(count).take(width);
                rows().flat_map(row).flat_map(|index| palette.colour(index)).collect()
            }
            Self::Rgb => bytes().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
            Self::Rgb16 => words().flat_map(|pixel| [0, 1, 2].map(|place| upper(word(pixel, place)))).collect(),
            Self::Multiplied => {
                bytes().flat_map(|pixel| divided_by_alpha([pixel[0], pixel[1], pixel[2], pixel[3]])).collect()
            }
            Self::Multiplied16 => words().flat_map(|pixel| divided_by_alpha(upper_four(pixel))).collect(),
            Self::Cmyk => bytes().flat_map(|pixel| cmyk([pixel[0], pixel[1], pixel[2], pixel[3]])).collect(),
            Self::Cmyk16 => words().flat_map(|pixel| cmyk(upper_four(pixel))).collect(),
            Self::YCbCr => bytes().flat_map(|pixel| ycbcr([pixel[0], pixel[1], pixel[2]])).collect(),
        }
    }
}

/// Where the strips or tiles are, and what they cover.
struct Layout {
    width: usize,
    height: usize,
    piece_width: usize,
    piece_height: usize,
    tiled: bool,
    /// Bytes of a row of the image, and of a piece, of one plane.
    row_bytes: usize,
    piece_row_bytes: usize,
    planes: usize,
    offsets: Vec<u64>,
    /// None where the file does not say.
    lengths: Vec<u64>,
}

impl Layout {
    fn read(
        tags: &Directory<'_>,
        width: usize,
        height: usize,
        samples: &Samples,
        compression: Compression,
    ) -> Result<Self, DecodeFailure> {
        let strips = tags.values(Tag::StripOffsets)?;
        let tiled = strips.is_empty();
        let size = |tag, whole: usize| -> Result<usize, DecodeFailure> {
            let value = tags.value(tag)?.unwrap_or(whole as u64);
            let value = usize::try_from(value).unwrap_or(usize::MAX);
            if value == 0 { Err(DecodeFailure::corrupt(format!("the tag {tag:?} is 0"))) } else { Ok(value) }
        };
        let (piece_width, piece_height, offsets, lengths) = if tiled {
            let lengths = tags.values(Tag::TileByteCounts)?;
            (size(Tag::TileWidth, width)?, size(Tag::TileHeight, height)?, tags.values(Tag::TileOffsets)?, lengths)
        } else {
            let rows = size(Tag::RowsPerStrip, height)?.min(height);
            (width, rows, strips, tags.values(Tag::StripByteCounts)?)
        };
        let bits = if compression == Compression::Jpeg { 24 } else { samples.adjacent() * samples.bits as usize };
        // A tile beyond the image is read whole: none is larger than this.
        if tiled && (piece_width > width.next_multiple_of(1 << 12) || piece_height > height.next_multiple_of(1 << 12)) {
            let message = format!("tiles of {piece_width}x{piece_height} pixels for {width}x{height} are not read");
            return Err(DecodeFailure::unsupported(message));
        }
        if tiled && piece_width * bits % 8 != 0 {
            let message = format!("tiles of {piece_width} pixels of {bits} bits do not end with a byte");
            return Err(DecodeFailure::corrupt(message));
        }
        let planes = if samples.planar { samples.count } else { 1 };
        let expected = width.div_ceil(piece_width) * height.div_ceil(piece_height) * planes;
        let lengths_are_wrong = match lengths.len() {
            // Without packing, the rows say how long it is.
            0 => compression != Compression::None,
            found => found != expected,
        };
        if offsets.len() != expected || lengths_are_wrong {
            let (offsets, lengths) = (offsets.len(), lengths.len());
            let message = format!("{offsets} places and {lengths} lengths of strips or tiles, expected {expected}");
            return Err(DecodeFailure::corrupt(message));
        }
        Ok(Self {
            width,
            height,
            piece_width,
            piece_height,
            tiled,
            row_bytes: (width * bits).div_ceil(8),
            piece_row_bytes: (piece_width * bits).div_ceil(8),
            planes,
            offsets,
            lengths,
        })
    }

    /// The rows of the image, samples of a pixel beside each other; of JPEG as RGB.
    fn assembled(
        &self,
        bytes: &[u8],
        tags: &Directory<'_>,
        compression: Compression,
        samples: &Samples,
        jpeg: Option<JpegColours>,
    ) -> Result<Vec<u8>, DecodeFailure> {
        let tables = tags.data(Tag::JpegTables)?;
        let summed = compression.has_predictor() && self.predictor(tags, samples)?;
        let mut image = vec![0; self.row_bytes * self.height * self.planes];
        let (across, down) = (self.width.div_ceil(self.piece_width), self.height.div_ceil(self.piece_height));
        for (index, &offset) in self.offsets.iter().enumerate() {
            let (plane, row, column) = (index / (across * down), index / across % down, index % across);
            let top = row * self.piece_height;
            let kept_rows = self.piece_height.min(self.height - top);
            // Tiles are whole, also where the image has ended; Pillow's own reader asks for no more of them than it needs.
            let rows = if self.tiled && compression != Compression::None { self.piece_height } else { kept_rows };
            let piece = Piece { width: self.piece_width, rows, row_bytes: self.piece_row_bytes };
            let what = if self.tiled { "tile" } else { "strip" };
            let place = |failure: DecodeFailure| DecodeFailure {
                message: format!("{what} {index} of {}: {}", self.offsets.len(), failure.message),
                ..failure
            };
            let mut data = self.piece(bytes, index, offset, compression).map_err(place)?;
            let reversed: Vec<u8>;
            if samples.reversed && jpeg.is_none() {
                reversed = data.iter().map(|byte| byte.reverse_bits()).collect();
                data = &reversed;
            }
            let mut unpacked = match jpeg {
                Some(colours) => piece.jpeg(data, tables, colours),
                None => piece.unpacked(data, compression),
            }
            .map_err(place)?;
            if summed {
                add_up(&mut unpacked, self.piece_row_bytes, samples.adjacent(), samples.bits, tags.order);
            }
            let left = column * self.piece_row_bytes;
            let kept = self.piece_row_bytes.min(self.row_bytes - left);
            let target = &mut image[(plane * self.height + top) * self.row_bytes..];
            for (to, from) in
                target.chunks_exact_mut(self.row_bytes).zip(unpacked.chunks_exact(self.piece_row_bytes).take(kept_rows))
            {
                to[left..left + kept].copy_from_slice(&from[..kept]);
            }
        }
        Ok(if self.planes > 1 { interleaved(&image, self.planes) } else { image })
    }

    /// The data of one strip or tile. Uncompressed ones are as long as their rows, whatever the file says.
    fn piece<'bytes>(
        &self,
        bytes: &'bytes [u8],
        index: usize,
        offset: u64,
        compression: Compression,
    ) -> Result<&'bytes [u8], DecodeFailure> {
        let mut reader = Reader::at(bytes, usize::try_from(offset).unwrap_or(usize::MAX));
        match self.lengths.get(index) {
            Some(&length) if compression != Compression::None => {
                reader.take(usize::try_from(length).unwrap_or(usize::MAX), "its data")
            }
            _ => Ok(reader.rest()),
        }
    }

    fn predictor(&self, tags: &Directory<'_>, samples: &Samples) -> Result<bool, DecodeFailure> {
        match tags.value(Tag::Predictor)?.unwrap_or(1) {
            1 => Ok(false),
            2 if samples.bits >= 8 => Ok(true),
            other => {
                Err(DecodeFailure::unsupported(format!("predictor {other} with {} bits is not read", samples.bits)))
            }
        }
    }
}

/// Planes of bytes as pixels.
fn interleaved(planes: &[u8], count: usize) -> Vec<u8> {
    let pixels = planes.len() / count;
    (0..pixels).flat_map(|pixel| (0..count).map(move |plane| planes[plane * pixels + pixel])).collect()
}

/// Pillow's `exif_transpose`: the image as it is to be looked at.
fn oriented(image: &RgbImage, orientation: u64) -> RgbImage {
    let (width, height) = (image.width as usize, image.height as usize);
    let turned = orientation >= 5;
    let (new_width, new_height) = if turned { (height, width) } else { (width, height) };
    let source = |column: usize, row: usize| {
        let (across, down) = if turned { (row, column) } else { (column, row) };
        let mirrored = matches!(orientation, 2 | 3 | 7 | 8);
        let upside_down = matches!(orientation, 3 | 4 | 6 | 7);
        (if mirrored { width - 1 - across } else { across }, if upside_down { height - 1 - down } else { down })
    };
    let stored = image.pixels.as_chunks::<3>().0;
    let mut pixels = Vec::with_capacity(image.pixels.len());
    for row in 0..new_height {
        for column in 0..new_width {
            let (across, down) = source(column, row);
            pixels.extend(stored[down * width + across]);
        }
    }
    RgbImage { width: new_width as u32, height: new_height as u32, pixels }
}
