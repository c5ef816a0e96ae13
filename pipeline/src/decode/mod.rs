//! Bytes of an image file to RGB, 8 bits a channel, as Pillow's `Image.open(…).convert("RGB")` gives them.
//!
//! | What | How |
//! |---|---|
//! | format | by the first bytes alone; names and content types lie |
//! | JPEG | libjpeg-turbo with the accurate DCT and smooth upsampling: Pillow's bits; see [`jpeg`] |
//! | everything else | the `image` crate, and Pillow's rules for depth, palette and alpha; see [`other_formats`] |
//! | transparency | the alpha channel is dropped, what lies under it shows |
//! | several frames | the first one |
//! | EXIF orientation, colour profiles, text | not read, as in the published pre-processing, so they can neither turn an image nor fail it |
//!
//! Whatever the bytes are, the answer is an image of the size it says or a [`DecodeFailure`] with a typed reason.

mod jpeg;
mod other_formats;

use image::ImageFormat;
use schemas::RejectReason;

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

    fn with_dimensions(self, width: u32, height: u32) -> Self {
        Self { dimensions: Some((width, height)), ..self }
    }
}

/// The format that a file's first bytes say, in lower case: `jpeg`, `png`, `webp`, …; `None` for what is no image.
pub(crate) fn format_name(bytes: &[u8]) -> Option<String> {
    image::guess_format(bytes).ok().map(|format| format!("{format:?}").to_ascii_lowercase())
}

/// Decodes one image file.
///
/// # Errors
/// A reason for any bytes that are not an image within `limits`; see [`RejectReason`].
pub fn decode_image(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
    if bytes.is_empty() {
        return Err(DecodeFailure::new(RejectReason::Empty, "no bytes"));
    }
    if bytes.len() as u64 > limits.max_bytes {
        let message = format!("{} bytes, the limit is {}", bytes.len(), limits.max_bytes);
        return Err(DecodeFailure::new(RejectReason::TooLarge, message));
    }
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => jpeg::decode(bytes, limits),
        Ok(
            format @ (ImageFormat::Bmp
            | ImageFormat::Gif
            | ImageFormat::Png
            | ImageFormat::Pnm
            | ImageFormat::Tiff
            | ImageFormat::WebP),
        ) => other_formats::decode(bytes, format, limits),
        Ok(format) => Err(DecodeFailure::new(RejectReason::Unsupported, format!("{format:?} images are not read"))),
        Err(_) => Err(DecodeFailure::new(RejectReason::Unsupported, describe_unknown(bytes))),
    }
}

/// Fails when an image of this size is empty or above the limit.
fn check_dimensions(width: u32, height: u32, limits: &DecodeLimits) -> Result<(), DecodeFailure> {
    let pixels = u64::from(width) * u64::from(height);
    let failure = if pixels == 0 {
        DecodeFailure::new(RejectReason::Corrupt, format!("a size of {width}x{height} pixels"))
    } else if pixels > limits.max_pixels {
        let message = format!("{width}x{height} is {pixels} pixels, the limit is {}", limits.max_pixels);
        DecodeFailure::new(RejectReason::TooLarge, message)
    } else {
        return Ok(());
    };
    Err(failure.with_dimensions(width, height))
}

/// What bytes are that begin like no image, as far as that helps the one who has to find out how they got there.
fn describe_unknown(bytes: &[u8]) -> String {
    /// Bytes that are shown.
    const SHOWN: usize = 24;
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
            (b"\x00\x00\x00\x20ftypavif\x00\x00\x00\x00", RejectReason::Unsupported, "Avif images are not read"),
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
