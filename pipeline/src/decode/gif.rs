//! GIF: the first frame upon its canvas, as Pillow shows it before anybody asks for the next.
//!
//! | What | How |
//! |---|---|
//! | canvas | the logical screen, made larger where the frame leaves it |
//! | what the frame leaves uncovered | the transparent index where the frame has one, else index 0; never the background |
//! | colours | those of the frame, else those of the file, else grey; an index beyond them is black |
//! | transparency | no part of the answer: the transparent index shows its colour |
//! | pixels missing | a reject |

use super::{
    DecodeFailure, DecodeLimits, RgbImage, check_dimensions,
    reader::Reader,
    rgb::{Palette, grey},
};
use weezl::{BitOrder, LzwStatus, decode::Decoder};

/// First rows and steps of the passes of an interlaced frame.
const PASSES: [(usize, usize); 4] = [(0, 8), (4, 8), (2, 4), (1, 2)];

/// Block types.
const EXTENSION: u8 = b'!';
const IMAGE: u8 = b',';
const END: u8 = b';';

/// Label of the extension that holds a frame's transparent index.
const GRAPHIC_CONTROL: u8 = 0xF9;

/// Label of the extension that holds a comment.
const COMMENT: u8 = 0xFE;

/// Bit of packed fields that says that a table of colours follows.
const HAS_TABLE: u8 = 0x80;

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
    let mut reader = Reader::at(bytes, "GIF89a".len());
    let screen = (reader.u16("the screen's width")?, reader.u16("the screen's height")?);
    let packed = reader.u8("the screen's descriptor")?;
    reader.take(2, "the screen's descriptor")?;
    let global = table(&mut reader, packed)?;
    let mut transparent = None;
    // Pillow steps over bytes that begin no block.
    loop {
        match reader.u8("the first frame")? {
            END => return Err(DecodeFailure::corrupt("the file ends without a frame")),
            EXTENSION => {
                let label = reader.u8("an extension")?;
                let block = sub_block(&mut reader)?;
                if let (GRAPHIC_CONTROL, &[flags, _, _, index, ..]) = (label, block)
                    && flags & 1 != 0
                {
                    transparent = Some(index);
                }
                // Behind an extension that is empty Pillow wants one more block, unless it is a comment.
                if label != COMMENT || !block.is_empty() {
                    while !sub_block(&mut reader)?.is_empty() {}
                }
            }
            IMAGE => break,
            _ => {}
        }
    }
    let what = "the frame's descriptor";
    let (left, top) = (reader.u16(what)?, reader.u16(what)?);
    let (frame_width, frame_height) = (reader.u16(what)?, reader.u16(what)?);
    let packed = reader.u8(what)?;
    let local = table(&mut reader, packed)?;
    let size = |screen: u16, start: u16, length: u16| u32::from(screen).max(u32::from(start) + u32::from(length));
    let (width, height) = (size(screen.0, left, frame_width), size(screen.1, top, frame_height));
    check_dimensions(width, height, limits)?;
    let frame = Frame {
        left: left.into(),
        top: top.into(),
        width: frame_width.into(),
        height: frame_height.into(),
        interlaced: packed & 0x40 != 0,
    };
    let indices = frame.indices(&mut reader).map_err(|failure| failure.with_dimensions(width, height))?;
    let palette = local.or(global).unwrap_or_else(Palette::ramp);
    let mut pixels: Vec<u8> = palette.colour(transparent.unwrap_or(0)).repeat(width as usize * height as usize);
    for (row, indices) in frame.rows().zip(indices.chunks_exact(frame.width)) {
        let start = ((frame.top + row) * width as usize + frame.left) * 3;
        let line = &mut pixels[start..start + frame.width * 3];
        line.as_chunks_mut::<3>().0.iter_mut().zip(indices).for_each(|(pixel, &index)| *pixel = palette.colour(index));
    }
    Ok(RgbImage { width, height, pixels })
}

/// Place and size of the first frame in its canvas.
struct Frame {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    interlaced: bool,
}

impl Frame {
    /// Rows in the order of the file.
    fn rows(&self) -> impl Iterator<Item = usize> {
        let passes: &[(usize, usize)] = if self.interlaced { &PASSES } else { &[(0, 1)] };
        passes.iter().flat_map(|&(first, step)| (first..self.height).step_by(step))
    }

    /// The palette's index of each pixel, in the order of the file.
    fn indices(&self, reader: &mut Reader<'_>) -> Result<Vec<u8>, DecodeFailure> {
        if self.width == 0 || self.height == 0 {
            return Err(DecodeFailure::corrupt(format!("the first frame has {}x{} pixels", self.width, self.height)));
        }
        let bits = reader.u8("the frame's code size")?;
        if !(1..=8).contains(&bits) {
            return Err(DecodeFailure::unsupported(format!("codes of {bits} bits are not read, only of 1 to 8")));
        }
        let mut decoder = Decoder::new(BitOrder::Lsb, bits);
        let mut indices = vec![0; self.width * self.height];
        let (mut done, mut first) = (0, true);
        let (mut ended, mut ended_by_code) = (false, false);
        while done < indices.len() && !ended && !ended_by_code {
            let mut block = sub_block(reader)?;
            if first && !block.is_empty() {
                // The decoder would begin without it; Pillow does not.
                let second = block.get(1).or_else(|| reader.rest().get(1)).copied();
                let code = u16::from_le_bytes([block[0], second.unwrap_or(0)]);
                let clear = 1 << bits;
                if code & (2 * clear - 1) != clear {
                    return Err(DecodeFailure::corrupt("the frame's data do not begin with a clear code"));
                }
                first = false;
            }
            ended = block.is_empty();
            // Without further data the decoder still has codes of the last ones to give.
            while done < indices.len() && !ended_by_code {
                let result = decoder.decode_bytes(block, &mut indices[done..]);
                block = &block[result.consumed_in..];
                done += result.consumed_out;
                match result.status {
                    Ok(LzwStatus::Done) => ended_by_code = true,
                    Ok(_) if result.consumed_in == 0 && result.consumed_out == 0 => break,
                    Ok(_) => {}
                    Err(error) => return Err(DecodeFailure::corrupt(format!("the frame's data: {error}"))),
                }
            }
        }
        if done < indices.len() {
            let message = format!("the frame's data end after {done} of {} pixels", indices.len());
            return Err(DecodeFailure::truncated(message));
        }
        Ok(indices)
    }
}

/// The table of colours that `packed` announces; `None` where there is none, or where it says of each index that it is grey of its
/// own value, which Pillow takes for none.
fn table(reader: &mut Reader<'_>, packed: u8) -> Result<Option<Palette>, DecodeFailure> {
    if packed & HAS_TABLE == 0 {
        return Ok(None);
    }
    let colours = reader.take(3 << ((packed & 7) + 1), "a table of colours")?.as_chunks::<3>().0;
    let ramp = colours.iter().zip(0..=u8::MAX).all(|(&colour, value)| colour == grey(value));
    Ok((!ramp).then(|| Palette::new(colours.iter().copied())))
}

/// The next piece of a block's data; empty after the last one.
fn sub_block<'bytes>(reader: &mut Reader<'bytes>) -> Result<&'bytes [u8], DecodeFailure> {
    let length = reader.u8("a block's data")?;
    reader.take(length.into(), "a block's data")
}
