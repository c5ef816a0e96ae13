//! PBM, PGM and PPM, plain and raw, with any maximum, by Pillow's rules.

use super::{
    DecodeFailure, DecodeLimits, RgbImage, check_dimensions,
    reader::Reader,
    rgb::{clipped, grey, unpacked},
};

/// Characters that a number may have; Pillow's limit.
const LONGEST_NUMBER: usize = 10;

/// What the second letter says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bits,
    Grey,
    Rgb,
}

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
    let mut reader = Reader::at(bytes, 1);
    let letter = reader.u8("the kind of image")?;
    let (kind, plain) = match letter {
        b'1' | b'4' => (Kind::Bits, letter == b'1'),
        b'2' | b'5' => (Kind::Grey, letter == b'2'),
        b'3' | b'6' => (Kind::Rgb, letter == b'3'),
        b'7' => return Err(DecodeFailure::unsupported("PAM (P7) is not read, only P1 to P6")),
        // Pf and PF; no other letter is taken for a PNM.
        _ => {
            let message = "float images (PFM) are not read: nothing says which value is white";
            return Err(DecodeFailure::unsupported(message));
        }
    };
    // White space, without which it is taken for no PNM.
    reader.u8("the header")?;
    let (width, height) = (number(&mut reader, "the width")?, number(&mut reader, "the height")?);
    check_dimensions(width, height, limits)?;
    let image = Image { kind, width: width as usize, height: height as usize, maximum: 1 };
    let pixels = image.pixels(reader, plain).map_err(|failure| failure.with_dimensions(width, height))?;
    Ok(RgbImage { width, height, pixels })
}

struct Image {
    kind: Kind,
    width: usize,
    height: usize,
    maximum: u16,
}

impl Image {
    fn pixels(mut self, mut reader: Reader<'_>, plain: bool) -> Result<Vec<u8>, DecodeFailure> {
        if self.kind != Kind::Bits {
            let maximum = number(&mut reader, "the largest value")?;
            self.maximum = u16::try_from(maximum)
                .ok()
                .filter(|&maximum| maximum > 0)
                .ok_or_else(|| DecodeFailure::corrupt(format!("a largest value of {maximum}, expected 1 to 65535")))?;
        }
        let pixels = self.width * self.height;
        match (self.kind, plain) {
            (Kind::Bits, true) => self.plain_bits(reader.rest()),
            (Kind::Bits, false) => {
                let row_bytes = self.width.div_ceil(8);
                let data = reader.take(row_bytes * self.height, "the pixels")?;
                let bits = data.chunks_exact(row_bytes).flat_map(|row| unpacked(row, 1).take(self.width));
                Ok(bits.flat_map(black_or_white).collect())
            }
            (Kind::Grey, true) => Ok(self.grey(self.plain_values(reader.rest(), pixels)?.into_iter())),
            (Kind::Grey, false) => Ok(self.grey(self.raw_values(&mut reader, pixels)?)),
            (Kind::Rgb, true) => Ok(self.rgb(self.plain_values(reader.rest(), pixels * 3)?.into_iter())),
            (Kind::Rgb, false) => Ok(self.rgb(self.raw_values(&mut reader, pixels * 3)?)),
        }
    }

    /// Pillow makes grey of more than 8 bits an image of 16 bits, and clips that.
    fn grey(&self, values: impl Iterator<Item = u16>) -> Vec<u8> {
        if self.maximum > 255 {
            values.flat_map(|value| grey(clipped(self.scaled(value, u16::MAX)))).collect()
        } else {
            values.flat_map(|value| grey(self.scaled(value, 255) as u8)).collect()
        }
    }

    fn rgb(&self, values: impl Iterator<Item = u16>) -> Vec<u8> {
        values.map(|value| self.scaled(value, 255) as u8).collect()
    }

    /// Pillow's arithmetic in floats, rounded to even.
    fn scaled(&self, value: u16, white: u16) -> u16 {
        if self.maximum == white {
            return value;
        }
        let fraction = f64::from(value) / f64::from(self.maximum) * f64::from(white);
        fraction.round_ties_even().min(white.into()) as u16
    }

    fn raw_values<'bytes>(
        &self,
        reader: &mut Reader<'bytes>,
        count: usize,
    ) -> Result<impl Iterator<Item = u16> + use<'bytes>, DecodeFailure> {
        let width = if self.maximum > 255 { 2 } else { 1 };
        let data = reader.take(count * width, "the pixels")?;
        let value = |bytes: &[u8]| bytes.iter().fold(0, |value, &byte| value << 8 | u16::from(byte));
        Ok(data.chunks_exact(width).map(value))
    }

    fn plain_values(&self, text: &[u8], count: usize) -> Result<Vec<u16>, DecodeFailure> {
        let text = without_comments(text);
        let mut values = Vec::with_capacity(count.min(text.len()));
        for word in text.split(|&byte| is_space(byte)).filter(|word| !word.is_empty()).take(count) {
            values.push(parsed(word)?.try_into().ok().filter(|&value: &u16| value <= self.maximum).ok_or_else(
                || {
                    DecodeFailure::corrupt(format!(
                        "a value of {}, but the largest is said to be {}",
                        word.escape_ascii(),
                        self.maximum
                    ))
                },
            )?);
        }
        if values.len() < count {
            return Err(DecodeFailure::truncated(format!("{} of {count} values are there", values.len())));
        }
        Ok(values)
    }

    fn plain_bits(&self, text: &[u8]) -> Result<Vec<u8>, DecodeFailure> {
        let count = self.width * self.height;
        let mut text = without_comments(text);
        text.retain(|&byte| !is_space(byte));
        if let Some(other) = text.iter().find(|&&byte| !matches!(byte, b'0' | b'1')) {
            return Err(DecodeFailure::corrupt(format!("{:?} among bits", *other as char)));
        }
        if text.len() < count {
            return Err(DecodeFailure::truncated(format!("{} of {count} bits are there", text.len())));
        }
        Ok(text[..count].iter().flat_map(|byte| black_or_white(byte - b'0')).collect())
    }
}

/// 1 is black.
fn black_or_white(bit: u8) -> [u8; 3] {
    grey(if bit == 0 { 255 } else { 0 })
}

/// White space as C has it; Rust's has no vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0B | 0x0C | b'\r')
}

fn ends_line(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Text without what stands between a `#` and the end of its line, the end included.
fn without_comments(text: &[u8]) -> Vec<u8> {
    let mut comment = false;
    let kept = |&byte: &u8| {
        let begins = byte == b'#';
        let kept = !comment && !begins;
        comment = begins || comment && !ends_line(byte);
        kept
    };
    text.iter().copied().filter(kept).collect()
}

/// The next number of the header, and the one character behind it.
fn number(reader: &mut Reader<'_>, what: &str) -> Result<u32, DecodeFailure> {
    let mut word = Vec::new();
    loop {
        match reader.u8(what)? {
            byte if is_space(byte) && word.is_empty() => {}
            byte if is_space(byte) => return parsed(&word),
            b'#' => while !ends_line(reader.u8(what)?) {},
            byte => word.push(byte),
        }
        if word.len() > LONGEST_NUMBER {
            return Err(DecodeFailure::corrupt(format!("{what} begins with {}", word.escape_ascii())));
        }
    }
}

fn parsed(word: &[u8]) -> Result<u32, DecodeFailure> {
    let digits = word.len() <= LONGEST_NUMBER && word.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(word).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| DecodeFailure::corrupt(format!("{} where a number is expected", word.escape_ascii())))
}
