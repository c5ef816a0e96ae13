//! Bytes of an image file to RGB, 8 bits a channel, as Pillow's `Image.open(…).convert("RGB")` gives them.
//!
//! | What | How |
//! |---|---|
//! | format | by the first bytes alone; names and content types lie: [`mod@format`] |
//! | JPEG | libjpeg-turbo with the accurate DCT and smooth upsampling: Pillow's bits; see [`jpeg`] |
//! | PNG, WebP | the crates of those names, with chunks and canvas by Pillow's rules: [`png`], [`webp`] |
//! | GIF, BMP, TIFF, PNM | read here: what these formats leave open is where readers differ, and Pillow's way is the one that counts |
//! | transparency | the alpha channel is dropped, what lies under it shows |
//! | several frames or pages | the first one |
//! | orientation | TIFF's is applied, as Pillow does; EXIF's in other formats is not |
//! | colour profiles, gamma, text | not read |
//!
//! One rule says what is accepted, for all formats: an image is read when Pillow reads it and all of its pixels are in the file. Where
//! pixels are missing, or what is there for them is known to be damaged, it is a reject, also where Pillow fills in black or grey; what
//! Pillow refuses is a reject too, and so is a file whose numbers contradict each other. `docs/formats.md` lists the kinds of each format, and how close each is to Pillow.
//!
//! Whatever the bytes are, the answer is an image of the size it says or a [`DecodeFailure`] with a typed reason.

mod bmp;
mod format;
mod gif;
mod jpeg;
mod png;
mod pnm;
mod reader;
mod rgb;
mod tiff;
mod webp;

use format::Format;
use schemas::RejectReason;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Memory that a decoder may take for each pixel of the limit: 16-bit RGBA, and the same again for what it unpacks from.
const MAX_BYTES_PER_PIXEL: u64 = 16;

/// Memory that a decoder may take beside pixels, for tables and buffers, in bytes.
const MAX_OTHER_BYTES: u64 = 16 << 20;

/// What is decoded at all. Beyond it an image is rejected as too large, before memory is taken for its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest file in bytes.
    pub max_bytes: u64,
    /// Largest image in pixels.
    pub max_pixels: u64,
}

/// A decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `[height, width, 3]`: red, green, blue, 0 to 255.
    pub pixels: Vec<u8>,
}

/// Why bytes did not become an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct DecodeFailure {
    /// The reason by which the reject is counted.
    pub reason: RejectReason,
    /// What was found, for the one who looks into it.
    pub message: String,
    /// Width and height in pixels, where the header gave them.
    pub dimensions: Option<(u32, u32)>,
}

impl DecodeFailure {
    fn new(reason: RejectReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), dimensions: None }
    }

    /// The bytes end before the image does.
    fn truncated(message: impl Into<String>) -> Self {
        Self::new(RejectReason::Truncated, message)
    }

    /// What is there contradicts itself.
    fn corrupt(message: impl Into<String>) -> Self {
        Self::new(RejectReason::Corrupt, message)
    }

    /// Perhaps sound, but not read here.
    fn unsupported(message: impl Into<String>) -> Self {
        Self::new(RejectReason::Unsupported, message)
    }

    fn with_dimensions(self, width: u32, height: u32) -> Self {
        Self { dimensions: Some((width, height)), ..self }
    }
}

/// The format that a file's first bytes say, in lower case: `jpeg`, `png`, `webp`, …; `None` for what is not read.
pub(crate) fn format_name(bytes: &[u8]) -> Option<String> {
    Format::of(bytes).map(|format| format.name().to_ascii_lowercase())
}

/// Decodes one image file.
///
/// # Errors
/// A reason for any bytes that are not an image within `limits`; see [`RejectReason`]. The message begins with the format's name.
pub fn decode_image(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
    if bytes.is_empty() {
        return Err(DecodeFailure::new(RejectReason::Empty, "no bytes"));
    }
    if bytes.len() as u64 > limits.max_bytes {
        let message = format!("{} bytes, the limit is {}", bytes.len(), limits.max_bytes);
        return Err(DecodeFailure::new(RejectReason::TooLarge, message));
    }
    let format = Format::of(bytes).ok_or_else(|| DecodeFailure::unsupported(describe_unread(bytes)))?;
    let decode = match format {
        Format::Jpeg => jpeg::decode,
        Format::Png => png::decode,
        Format::WebP => webp::decode,
        Format::Gif => gif::decode,
        Format::Bmp => bmp::decode,
        Format::Tiff => tiff::decode,
        Format::Pnm => pnm::decode,
    };
    // Decoders are written not to panic, and are fed whatever lies in a bucket. A panic in one of them is that image's fault; let
    // through, it would end the run, and again at each restart.
    catch_unwind(AssertUnwindSafe(|| decode(bytes, limits)))
        .unwrap_or_else(|_| Err(DecodeFailure::corrupt("the decoder panicked on these bytes")))
        .map_err(|failure| DecodeFailure { message: format!("{}: {}", format.name(), failure.message), ..failure })
}

/// Bytes of memory that a decoder may take.
fn decoder_memory(limits: &DecodeLimits) -> usize {
    let bytes = limits.max_pixels.saturating_mul(MAX_BYTES_PER_PIXEL).saturating_add(MAX_OTHER_BYTES);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Fails when an image of this size is empty or above the limit.
fn check_dimensions(width: u32, height: u32, limits: &DecodeLimits) -> Result<(), DecodeFailure> {
    let pixels = u64::from(width) * u64::from(height);
    let failure = if pixels == 0 {
        DecodeFailure::corrupt(format!("a size of {width}x{height} pixels"))
    } else if pixels > limits.max_pixels {
        let message = format!("{width}x{height} is {pixels} pixels, the limit is {}", limits.max_pixels);
        DecodeFailure::new(RejectReason::TooLarge, message)
    } else {
        return Ok(());
    };
    Err(failure.with_dimensions(width, height))
}

/// What bytes are that begin like no image that is read, as far as that helps the one who has to find out how they got there.
fn describe_unread(bytes: &[u8]) -> String {
    /// Bytes that are shown.
    const SHOWN: usize = 24;
    if let Some(format) = format::name_of_unread(bytes) {
        return format!("{format} images are not read: convert them, for example to PNG, before they are tokenized");
    }
    let start = &bytes[..bytes.len().min(SHOWN)];
    if bytes.starts_with(&[0x1F, 0x8B]) {
        return "gzip data: unpack the files before they are tokenized".to_owned();
    }
    if start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        return format!("text, not an image: {:?}", String::from_utf8_lossy(start));
    }
    let digits: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("no known image format; it begins with {}", digits.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DecodeLimits = DecodeLimits { max_bytes: 1 << 20, max_pixels: 1 << 20 };

    fn refusal(bytes: &[u8]) -> DecodeFailure {
        decode_image(bytes, &LIMITS).expect_err("not an image")
    }

    #[test]
    fn what_is_no_image_is_named() {
        let cases: [(&[u8], RejectReason, &str); 6] = [
            (b"", RejectReason::Empty, "no bytes"),
            (b"<html>404</html>", RejectReason::Unsupported, "text, not an image: \"<html>404</html>\""),
            (b"\x1F\x8B\x08\x00", RejectReason::Unsupported, "gzip data"),
            (b"\x00\x01\x02\x03\xFF", RejectReason::Unsupported, "begins with 00 01 02 03 ff"),
            (b"\x00\x00\x00\x20ftypavif\x00\x00\x00\x00", RejectReason::Unsupported, "AVIF images are not read"),
            (b"\xFF\xD8\xFF", RejectReason::Truncated, ""),
        ];
        for (bytes, reason, words) in cases {
            let failure = refusal(bytes);
            assert_eq!(failure.reason, reason, "{failure}");
            assert!(failure.message.contains(words), "{failure}");
        }
    }

    #[test]
    fn a_file_above_the_limit_is_too_large_whatever_it_holds() {
        let limits = DecodeLimits { max_bytes: 3, ..LIMITS };
        let failure = decode_image(b"text", &limits).expect_err("four bytes");
        assert_eq!((failure.reason, failure.message.as_str()), (RejectReason::TooLarge, "4 bytes, the limit is 3"));
    }
}
