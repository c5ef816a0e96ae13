//! BMP by Pillow's rules: which masks it knows, how it widens five and six bits, what run lengths leave out.

use super::{
    DecodeFailure, DecodeLimits, RgbImage, check_dimensions,
    reader::Reader,
    rgb::{Palette, grey, unpacked},
};

/// Bytes in front of the header proper.
const FILE_HEADER: usize = 14;

/// Sizes by which the versions of the header are told: OS/2 1, Windows 3 and its extensions, OS/2 2, Windows 4 and 5.
const OS2_HEADER: u32 = 12;
const HEADERS: [u32; 7] = [OS2_HEADER, 40, 52, 56, 64, 108, 124];

/// Compressions.
const NONE: u32 = 0;
const RUNS_OF_8_BITS: u32 = 1;
const RUNS_OF_4_BITS: u32 = 2;
const MASKS: u32 = 3;

/// What the header says.
struct Header {
    /// Its own bytes.
    size: u32,
    width: u32,
    height: u32,
    top_down: bool,
    bits: u16,
    compression: u32,
    /// Red, green, blue, alpha; zeros without masks.
    masks: [u32; 4],
    /// Colours of the palette; 0 for all that the bits allow.
    colours: u32,
    /// Bytes of a colour in the palette.
    colour_bytes: usize,
}

/// How a pixel lies in the file.
enum Layout {
    /// An index of `bits` into the colours.
    Indexed(u32, Palette),
    /// Run lengths of indices, of 4 bits or of 8.
    Runs { four_bits: bool, palette: Palette },
    /// Sixteen bits with 5, 5 or 6, and 5 of them for blue, green and red, from below.
    Words { green_bits: u32 },
    /// Bytes: how many, and where among them red, green and blue are.
    Bytes(usize, [usize; 3]),
}

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
    let mut reader = Reader::at(bytes, FILE_HEADER - 4);
    let mut offset = reader.u32("the file's header")? as usize;
    let header = Header::read(&mut reader)?;
    let (width, height) = (header.width, header.height);
    check_dimensions(width, height, limits)?;
    let in_pixels = |failure: DecodeFailure| failure.with_dimensions(width, height);
    let header_end = FILE_HEADER + header.size as usize;
    if offset == header_end && header.bits <= 8 {
        offset = offset.saturating_add(header.colour_bytes.saturating_mul(header.palette_length()));
    }
    let layout = header.layout(&mut reader).map_err(in_pixels)?;
    if offset == 0 {
        offset = reader.position();
    }
    let rows = header.rows(bytes, offset, &layout).map_err(in_pixels)?;
    // The file has the bottom row first.
    let bottom_up = rows.chunks_exact(width as usize * 3).rev();
    let pixels = if header.top_down { rows } else { bottom_up.flatten().copied().collect() };
    Ok(RgbImage { width, height, pixels })
}

impl Header {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeFailure> {
        let size = reader.u32("the header")?;
        if !HEADERS.contains(&size) {
            let message = format!("a header of {size} bytes is not read, only those of {HEADERS:?}");
            return Err(DecodeFailure::unsupported(message));
        }
        let mut fields = Reader::at(reader.take(size as usize - 4, "the header")?, 0);
        let what = "the header";
        let mut header = if size == OS2_HEADER {
            let (width, height) = (fields.u16(what)?.into(), fields.u16(what)?.into());
            fields.u16(what)?;
            let bits = fields.u16(what)?;
            Self {
                size,
                width,
                height,
                top_down: false,
                bits,
                compression: NONE,
                masks: [0; 4],
                colours: 0,
                colour_bytes: 3,
            }
        } else {
            let (width, height) = (fields.u32(what)?, fields.u32(what)?);
            // Pillow looks at the upper byte alone.
            let top_down = height >> 24 == 0xFF;
            fields.u16(what)?;
            let (bits, compression) = (fields.u16(what)?, fields.u32(what)?);
            fields.take(12, what)?;
            let colours = fields.u32(what)?;
            let height = if top_down { height.wrapping_neg() } else { height };
            Self { size, width, height, top_down, bits, compression, masks: [0; 4], colours, colour_bytes: 4 }
        };
        if header.compression == MASKS {
            // Headers of 40 bytes have three masks behind them, the longer ones have them within, from 56 bytes on with alpha's.
            let masks = match size {
                0..52 => reader,
                _ => {
                    fields.take(4, what)?;
                    &mut fields
                }
            };
            let named = if size >= 56 { 4 } else { 3 };
            for mask in &mut header.masks[..named] {
                *mask = masks.u32("a colour's mask")?;
            }
        }
        Ok(header)
    }

    fn palette_length(&self) -> usize {
        match self.colours {
            0 => 1 << self.bits,
            colours => colours as usize,
        }
    }

    /// Reads the palette where there is one.
    fn layout(&self, reader: &mut Reader<'_>) -> Result<Layout, DecodeFailure> {
        let unsupported = |what: String| Err(DecodeFailure::unsupported(what));
        match (self.compression, self.bits) {
            (NONE | RUNS_OF_8_BITS | RUNS_OF_4_BITS, 1 | 4 | 8) => self.indexed(reader),
            (NONE, 16) => Ok(Layout::Words { green_bits: 5 }),
            (NONE, 24) => Ok(Layout::Bytes(3, [2, 1, 0])),
            (NONE, 32) => Ok(Layout::Bytes(4, [2, 1, 0])),
            (MASKS, 16 | 24 | 32) => self.masked(),
            (NONE | MASKS, bits) => unsupported(format!("{bits} bits a pixel are not read")),
            (RUNS_OF_8_BITS | RUNS_OF_4_BITS, bits) => {
                unsupported(format!("run lengths with {bits} bits a pixel are not read"))
            }
            (4, _) => unsupported("a JPEG within a BMP is not read".to_owned()),
            (5, _) => unsupported("a PNG within a BMP is not read".to_owned()),
            (other, _) => unsupported(format!("compression {other} is not read, only 0 (none) to 3 (masks)")),
        }
    }

    fn masked(&self) -> Result<Layout, DecodeFailure> {
        let [red, green, blue, alpha] = self.masks;
        Ok(match (self.bits, [red, green, blue], alpha) {
            (16, [0xF800, 0x07E0, 0x001F], _) => Layout::Words { green_bits: 6 },
            (16, [0x7C00, 0x03E0, 0x001F], _) => Layout::Words { green_bits: 5 },
            (24, [0xFF_0000, 0xFF00, 0xFF], _) => Layout::Bytes(3, [2, 1, 0]),
            (32, [0xFF_0000, 0xFF00, 0xFF], 0 | 0xFF00_0000) | (32, [0, 0, 0], 0) => Layout::Bytes(4, [2, 1, 0]),
            (32, [0xFF00_0000, 0xFF_0000, 0xFF00], 0 | 0xFF) => Layout::Bytes(4, [3, 2, 1]),
            (32, [0xFF00_0000, 0xFF00, 0xFF], 0 | 0xFF_0000) => Layout::Bytes(4, [3, 1, 0]),
            (32, [0xFF, 0xFF00, 0xFF_0000], 0xFF00_0000) => Layout::Bytes(4, [0, 1, 2]),
            (bits, ..) => {
                let masks = self.masks.map(|mask| format!("{mask:#x}")).join(", ");
                let message = format!("{bits} bits a pixel with the masks {masks} are not read");
                return Err(DecodeFailure::unsupported(message));
            }
        })
    }

    /// Pillow drops a palette of nothing but grey, and with it the number of bits: it then reads a byte a pixel, or with two
    /// colours a bit. Where that is not what the file holds, its pixels are noise, and the file is refused here.
    fn indexed(&self, reader: &mut Reader<'_>) -> Result<Layout, DecodeFailure> {
        let colours = self.palette_length();
        if colours > 256 {
            return Err(DecodeFailure::unsupported(format!(
                "a palette of {colours} colours is not read, only up to 256"
            )));
        }
        let table = reader.take(self.colour_bytes * colours, "the palette")?;
        let table = table.chunks_exact(self.colour_bytes).map(|colour| [colour[2], colour[1], colour[0]]);
        let shades = [0, if colours == 2 { 255 } else { 1 }].into_iter().chain(2..=u8::MAX);
        let only_grey = table.clone().zip(shades).all(|(colour, shade)| colour == grey(shade));
        let runs = self.compression != NONE;
        let (palette, bits_in_pillow) = match (only_grey, colours) {
            (false, _) => (Palette::new(table), None),
            (true, 0..=2) => (Palette::new([grey(0), grey(255)].into_iter()), Some(1)),
            (true, _) => (Palette::ramp(), Some(8)),
        };
        let misread = match bits_in_pillow {
            Some(bits) if runs => bits != 8,
            Some(bits) => bits != self.bits,
            None => false,
        };
        if misread {
            let message = format!("{} bits a pixel with a palette of {colours} shades of grey are not read", self.bits);
            return Err(DecodeFailure::unsupported(message));
        }
        Ok(match self.compression {
            NONE => Layout::Indexed(self.bits.into(), palette),
            compression => Layout::Runs { four_bits: compression == RUNS_OF_4_BITS, palette },
        })
    }

    /// The pixels in the order of the file.
    fn rows(&self, bytes: &[u8], offset: usize, layout: &Layout) -> Result<Vec<u8>, DecodeFailure> {
        let (width, height) = (self.width as usize, self.height as usize);
        if let Layout::Runs { four_bits, palette } = layout {
            let indices = Runs { reader: Reader::at(bytes, offset), width, four_bits: *four_bits }.indices(height)?;
            return Ok(indices.into_iter().flat_map(|index| palette.colour(index)).collect());
        }
        let row_bytes = (width * usize::from(self.bits)).div_ceil(8);
        let mut reader = Reader::at(bytes, offset);
        let mut pixels = Vec::with_capacity(width * height * 3);
        for row in 0..height {
            // Rows are padded to four bytes; the last one need not be.
            let padded = if row + 1 < height { row_bytes.next_multiple_of(4) } else { row_bytes };
            let line = &reader.take(padded, &format!("row {row} of {height} in the file"))?[..row_bytes];
            match layout {
                Layout::Indexed(bits, palette) => {
                    pixels.extend(unpacked(line, *bits).take(width).flat_map(|index| palette.colour(index)));
                }
                Layout::Words { green_bits } => {
                    let words = line.as_chunks::<2>().0.iter().map(|&word| u16::from_le_bytes(word));
                    pixels.extend(words.flat_map(|word| widened(word, *green_bits)));
                }
                Layout::Bytes(length, places) => {
                    pixels.extend(line.chunks_exact(*length).flat_map(|pixel| places.map(|place| pixel[place])));
                }
                Layout::Runs { .. } => {}
            }
        }
        Ok(pixels)
    }
}

/// Red, green and blue of 16 bits, widened as Pillow does: by 255 over the largest value, rounded down.
fn widened(word: u16, green_bits: u32) -> [u8; 3] {
    let channel = |shift: u32, bits: u32| {
        let largest = (1_u32 << bits) - 1;
        ((u32::from(word) >> shift & largest) * 255 / largest) as u8
    };
    [channel(5 + green_bits, 5), channel(5, green_bits), channel(0, 5)]
}

/// Run lengths. What they step over is index 0, as in Pillow.
struct Runs<'bytes> {
    reader: Reader<'bytes>,
    width: usize,
    four_bits: bool,
}

impl Runs<'_> {
    fn indices(mut self, height: usize) -> Result<Vec<u8>, DecodeFailure> {
        let total = self.width * height;
        let mut indices = Vec::with_capacity(total);
        let mut column = 0;
        while indices.len() < total {
            let what = "a run of pixels";
            let [count, value] = self.reader.array(what)?;
            match (count, value) {
                (0, 0) => {
                    indices.resize(indices.len().next_multiple_of(self.width), 0);
                    column = 0;
                }
                (0, 1) => {
                    let message = format!("the run lengths end after {} of {total} pixels", indices.len());
                    return Err(DecodeFailure::truncated(message));
                }
                (0, 2) => {
                    let [right, up] = self.reader.array(what)?.map(usize::from);
                    indices.resize(total.min(indices.len() + right + up * self.width), 0);
                    column = indices.len() % self.width;
                }
                (0, literal) => {
                    let pixels = usize::from(literal).min(total - indices.len());
                    if self.four_bits {
                        let packed = self.reader.take(pixels.div_ceil(2), what)?;
                        indices.extend(unpacked(packed, 4).take(pixels));
                    } else {
                        indices.extend(self.reader.take(pixels, what)?);
                    }
                    column += usize::from(literal);
                    if indices.len() < total && !self.reader.position().is_multiple_of(2) {
                        self.reader.u8(what)?;
                    }
                }
                (count, value) => {
                    // What goes beyond the row is dropped.
                    let pixels = usize::from(count).min(self.width.saturating_sub(column));
                    let pair = if self.four_bits { [value >> 4, value & 15] } else { [value; 2] };
                    indices.extend(pair.iter().cycle().take(pixels));
                    column += pixels;
                }
            }
        }
        indices.truncate(total);
        Ok(indices)
    }
}
