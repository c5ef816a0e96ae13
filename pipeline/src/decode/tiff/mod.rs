//! TIFF: the first page, by Pillow's table of kinds.
//!
//! | What | How |
//! |---|---|
//! | grey and palettes of 1, 2, 4, 8 bits, RGB and CMYK of 8 and 16, YCbCr of 8 without subsampling | read |
//! | grey of 16 bits | its values are cut off at 255, and WhiteIsZero is not inverted: see [`super::rgb::clipped`] |
//! | alpha that colours were multiplied by | divided out again; of grey, Pillow refuses it |
//! | extra samples | left out |
//! | strips, tiles, planes; the packings of [`Compression`] | read |
//! | the orientation tag, or where it is missing that of the XMP | applied, as Pillow does for this format alone |
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
use schemas::RejectReason;

/// Samples of a pixel that Pillow reads at most.
const MOST_SAMPLES: usize = 6;

/// Kinds of extra samples.
const UNSPECIFIED: u64 = 0;
const ASSOCIATED_ALPHA: u64 = 1;
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
    let pixels = pixels(bytes, &tags, width as usize, height as usize, limits);
    let image = pixels.and_then(|pixels| {
        let image = RgbImage { width, height, pixels };
        Ok(match orientation(&tags)? {
            orientation @ 2..=8 => oriented(&image, orientation),
            _ => image,
        })
    });
    image.map_err(|failure| failure.with_dimensions(width, height))
}

fn pixels(
    bytes: &[u8],
    tags: &Directory<'_>,
    width: usize,
    height: usize,
    limits: &DecodeLimits,
) -> Result<Vec<u8>, DecodeFailure> {
    let compression = Compression::new(tags.value(Tag::Compression)?.unwrap_or(1))?;
    let samples = Samples::read(tags, compression)?;
    let colours = samples.colours(tags, compression)?;
    let jpeg = match (compression, &colours) {
        (Compression::Jpeg, Colours::Grey { bits: 8, inverted: false }) => Some(JpegColours::Grey),
        (Compression::Jpeg, Colours::Rgb) if samples.count == 3 && samples.bits == 8 => Some(JpegColours::Rgb),
        (Compression::Jpeg, Colours::YCbCr) => Some(JpegColours::YCbCr),
        (Compression::Jpeg, colours) => {
            let what = match colours {
                Colours::Grey { bits: 8, inverted: true } => "grey with white at zero".to_owned(),
                _ => format!("{} samples of {} bits", samples.count, samples.bits),
            };
            let message = format!("JPEG of {what} is not read, only of grey, RGB and YCbCr of 8 bits");
            return Err(DecodeFailure::unsupported(message));
        }
        _ => None,
    };
    let layout = Layout::read(tags, width, height, &samples, compression, limits)?;
    let data = layout.assembled(bytes, tags, compression, &samples, jpeg)?;
    if jpeg.is_some() {
        return Ok(data);
    }
    Ok(match colours {
        Colours::Rgb if samples.count == 3 && samples.bits == 8 => data,
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
        if compression == Compression::Fax4 && (count, depth) != (1, 1) {
            return unsupported(format!("group 4 fax of {count} samples of {depth} bits is not read"));
        }
        let extra = tags.values(Tag::ExtraSamples)?;
        if extra.len() > MOST_SAMPLES {
            return unsupported(format!("{} extra samples are not read", extra.len()));
        }
        let planar = match tags.value(Tag::Planar)?.unwrap_or(1) {
            1 => false,
            // Pillow takes the one plane for what its table has without planes: never inverted, and only of 1 or 8 bits.
            2 if count == 1 && compression == Compression::None => {
                let inverted = tags.value(Tag::Photometric)?.unwrap_or(0) == 0;
                if inverted || ![1, 8].contains(&depth) {
                    let which = if inverted { " with white at zero" } else { "" };
                    return unsupported(format!("a plane of one sample of {depth} bits{which} is not read"));
                }
                false
            }
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
        Ok(Self { count, bits: depth as u32, extra, planar, reversed })
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
                "{what} of {count} samples of {bits} bits, extra samples of kinds {extra:?}, are not read"
            )))
        };
        // What Pillow has in its table with the lower bits first.
        let few_and_plain = extra.is_empty() && (bits <= 8 || photometric == 1 && tags.order == ByteOrder::Little);
        if self.reversed && !(few_and_plain && matches!((photometric, count), (0 | 1 | 3, 1) | (2, 3))) {
            return refused("lower bits first in pixels");
        }
        if self.planar && compression == Compression::None && extra.iter().any(|&kind| !matches!(kind, 2 | COREL_ALPHA))
        {
            return refused("planes");
        }
        Ok(match (photometric, count - extra.len().min(count), bits) {
            (0 | 1, 1, 16) if extra.is_empty() => match (photometric, tags.order) {
                (0, ByteOrder::Big) => return refused("big-endian pixels with white at zero"),
                _ => Colours::Grey16,
            },
            (0 | 1, 1, _) if extra.is_empty() => Colours::Grey { bits, inverted: photometric == 0 },
            (1, 1, 8) if matches!(extra, [UNSPECIFIED | 2]) => Colours::Grey { bits, inverted: false },
            (2, 3, 8) if matches!(extra, [ASSOCIATED_ALPHA, ..]) && behind_alpha => Colours::Premultiplied,
            (2, 3, 8) if only_unspecified || behind_alpha && extra[0] == 2 || extra == [COREL_ALPHA] => Colours::Rgb,
            (2, 3, 16) if extra == [ASSOCIATED_ALPHA] => Colours::Premultiplied,
            (2, 3, 16) if matches!(extra, [] | [UNSPECIFIED | 2]) => Colours::Rgb,
            (2, 4, 8 | 16) if extra.is_empty() => Colours::Rgb,
            (3, 1, _) if bits <= 8 && (extra.is_empty() || bits == 8 && matches!(extra, [UNSPECIFIED | 2])) => {
                Colours::Indexed(palette(tags, bits)?)
            }
            (5, 4, 8) if only_unspecified => Colours::Cmyk,
            (5, 4, 16) if extra.is_empty() => Colours::Cmyk,
            // Packed, libtiff has no size for it.
            (6, 1, 8) if extra.is_empty() && compression == Compression::None => {
                Colours::Grey { bits, inverted: false }
            }
            (6, 3, 8) if extra.is_empty() => match (compression, tags.values(Tag::ChromaSubsampling)?.as_slice()) {
                _ if self.planar => return refused("planes of YCbCr"),
                (Compression::Jpeg, _) | (Compression::None, [1, 1, ..]) => Colours::YCbCr,
                (Compression::None, subsampling) => {
                    let subsampling = &subsampling[..subsampling.len().min(2)];
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
    Premultiplied,
    Cmyk,
    YCbCr,
}

impl Colours {
    /// RGB of rows of pixels whose samples lie beside each other.
    fn rgb(&self, data: &[u8], width: usize, samples: &Samples, order: ByteOrder) -> Vec<u8> {
        let upper;
        let data = match self {
            Self::Grey16 => data,
            _ if samples.bits == 16 => {
                upper = upper_bytes(data, order);
                &upper
            }
            _ => data,
        };
        let count = samples.count;
        let pixels = || data.chunks_exact(count);
        let rows = || data.chunks_exact((width * count * samples.bits as usize).div_ceil(8));
        match self {
            &Self::Grey { bits, inverted } => {
                let factor = 255 / (255 >> (8 - bits)) as u8;
                let value = |value: u8| if inverted { !(value * factor) } else { value * factor };
                let row =
                    |row| unpacked(row, bits).step_by(count).take(width).flat_map(move |sample| grey(value(sample)));
                rows().flat_map(row).collect()
            }
            Self::Grey16 => data.as_chunks::<2>().0.iter().flat_map(|&value| grey(clipped(order.u16(value)))).collect(),
            Self::Indexed(palette) => {
                let row = |row| unpacked(row, samples.bits).step_by(count).take(width);
                rows().flat_map(row).flat_map(|index| palette.colour(index)).collect()
            }
            Self::Rgb => pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
            Self::Premultiplied => {
                pixels().flat_map(|pixel| divided_by_alpha([pixel[0], pixel[1], pixel[2], pixel[3]])).collect()
            }
            Self::Cmyk => pixels().flat_map(|pixel| cmyk([pixel[0], pixel[1], pixel[2], pixel[3]])).collect(),
            Self::YCbCr => pixels().flat_map(|pixel| ycbcr([pixel[0], pixel[1], pixel[2]])).collect(),
        }
    }
}

/// The upper byte of each value of 16 bits.
fn upper_bytes(values: &[u8], order: ByteOrder) -> Vec<u8> {
    values.as_chunks::<2>().0.iter().map(|&value| upper(order.u16(value))).collect()
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
    limits: DecodeLimits,
}

impl Layout {
    fn read(
        tags: &Directory<'_>,
        width: usize,
        height: usize,
        samples: &Samples,
        compression: Compression,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeFailure> {
        let strips = tags.values(Tag::StripOffsets)?;
        let tiled = strips.is_empty();
        let size = |tag, unsaid: Option<u64>| -> Result<usize, DecodeFailure> {
            match tags.value(tag)?.or(unsaid) {
                None => Err(DecodeFailure::corrupt(format!("the tag {tag:?} is missing"))),
                Some(0) => Err(DecodeFailure::corrupt(format!("the tag {tag:?} is 0"))),
                Some(value) => Ok(usize::try_from(value).unwrap_or(usize::MAX)),
            }
        };
        let (piece_width, piece_height, offsets, lengths) = if tiled {
            let lengths = tags.values(Tag::TileByteCounts)?;
            (size(Tag::TileWidth, None)?, size(Tag::TileHeight, None)?, tags.values(Tag::TileOffsets)?, lengths)
        } else {
            let rows = size(Tag::RowsPerStrip, Some(height as u64))?.min(height);
            (width, rows, strips, tags.values(Tag::StripByteCounts)?)
        };
        let bits = if compression == Compression::Jpeg { 24 } else { samples.adjacent() * samples.bits as usize };
        // What a tile has beyond the image takes memory as well.
        let sides = [width.div_ceil(piece_width), piece_width, height.div_ceil(piece_height), piece_height];
        let covered = sides.iter().fold(1_u64, |area, &side| area.saturating_mul(side as u64));
        if covered > limits.max_pixels.max(1 << 20).saturating_mul(2) {
            let message = format!("tiles of {piece_width}x{piece_height} pixels for {width}x{height}");
            return Err(DecodeFailure::new(RejectReason::TooLarge, message));
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
            let message =
                format!("{offsets} offsets and {lengths} byte counts of strips or tiles, expected {expected}");
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
            limits: *limits,
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
        let mut sampling = stated_sampling(tags, jpeg)?;
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
                Some(colours) => {
                    let jpeg_rows = match (self.tiled, row + 1 == down) {
                        (true, _) => kept_rows..=self.piece_height,
                        // The last strip of some files is as high as the others.
                        (false, true) => kept_rows..=usize::MAX,
                        (false, false) => kept_rows..=kept_rows,
                    };
                    piece.jpeg(data, tables, colours, jpeg_rows, &mut sampling, &self.limits)
                }
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

/// The sampling of the first channel of JPEGs; `None` where the first one of them says it.
fn stated_sampling(tags: &Directory<'_>, jpeg: Option<JpegColours>) -> Result<Option<[u64; 2]>, DecodeFailure> {
    if jpeg != Some(JpegColours::YCbCr) {
        return Ok(Some([1, 1]));
    }
    match *tags.values(Tag::ChromaSubsampling)?.as_slice() {
        [] => Ok(None),
        [across, down] => Ok(Some([across, down])),
        ref values => {
            let message = format!("the tag ChromaSubsampling has {} values, expected 2", values.len());
            Err(DecodeFailure::corrupt(message))
        }
    }
}

/// How the image is to be turned: as the tag says, or where it is missing the XMP.
fn orientation(tags: &Directory<'_>) -> Result<u64, DecodeFailure> {
    /// No turn.
    const UPRIGHT: u64 = 1;
    match tags.value_type(Tag::Orientation) {
        // Bytes, text and bytes of no type are no numbers to Pillow.
        Some(1 | 2 | 7) => return Ok(UPRIGHT),
        Some(3..=13 | 16) => return Ok(tags.value(Tag::Orientation)?.unwrap_or(UPRIGHT)),
        // A type that it does not know is no tag.
        _ => {}
    }
    let xmp = match tags.value_type(Tag::Xmp) {
        // One that is not in the file changes nothing.
        Some(1 | 7) => tags.data(Tag::Xmp).unwrap_or_default(),
        Some(kind @ (2..=13 | 16)) => {
            return Err(DecodeFailure::corrupt(format!("the tag Xmp has values of type {kind}, expected bytes")));
        }
        _ => return Ok(UPRIGHT),
    };
    // Pillow's `tiff:Orientation(="|>)([0-9])`.
    let digit = |place: usize| {
        let value = xmp[place..].strip_prefix(b"tiff:Orientation")?;
        let value = value.strip_prefix(b"=\"").or_else(|| value.strip_prefix(b">"))?;
        value.first().filter(|digit| digit.is_ascii_digit()).map(|digit| u64::from(digit - b'0'))
    };
    Ok((0..xmp.len()).find_map(digit).unwrap_or(UPRIGHT))
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
