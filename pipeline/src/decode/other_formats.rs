//! PNG, WebP, GIF, BMP, TIFF and PNM through the `image` crate, made 8-bit RGB by Pillow's rules.

use super::{DecodeFailure, DecodeLimits, RgbImage, check_dimensions};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use schemas::RejectReason;
use std::{
    io::{Cursor, ErrorKind},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Memory that a decoder may take for each pixel of the limit: 16-bit RGBA, and the same again for what it unpacks from.
const MAX_BYTES_PER_PIXEL: u64 = 16;

/// Memory that a decoder may take beside pixels, for tables and buffers, in bytes.
const MAX_OTHER_BYTES: u64 = 16 << 20;

/// Decodes a file that begins as `format`.
pub(super) fn decode(bytes: &[u8], format: ImageFormat, limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
    // These decoders are written not to panic, and are fed whatever lies in a bucket. A panic in one of them is that
    // image's fault; let through, it would end the run, and again at each restart.
    catch_unwind(AssertUnwindSafe(|| decode_or_panic(bytes, format, limits))).unwrap_or_else(|_| {
        Err(DecodeFailure::new(RejectReason::Corrupt, format!("the {format:?} decoder panicked on these bytes")))
    })
}

/// The chunk that ends a PNG.
const PNG_END: [u8; 12] = *b"\0\0\0\0IEND\xAE\x42\x60\x82";

fn decode_or_panic(bytes: &[u8], format: ImageFormat, limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
    let decoded = decode_once(bytes, format, limits);
    match decoded {
        // Pillow does not look for a PNG's end once it has the pixels.
        Err(DecodeFailure { reason: RejectReason::Truncated, .. }) if format == ImageFormat::Png => {
            decode_once(&[bytes, &PNG_END].concat(), format, limits).or(decoded)
        }
        _ => decoded,
    }
}

fn decode_once(bytes: &[u8], format: ImageFormat, limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut memory = Limits::no_limits();
    memory.max_alloc = Some(limits.max_pixels.saturating_mul(MAX_BYTES_PER_PIXEL).saturating_add(MAX_OTHER_BYTES));
    reader.limits(memory);
    let decoder = reader.into_decoder().map_err(failure)?;
    let (width, height) = decoder.dimensions();
    check_dimensions(width, height, limits)?;
    if let ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16 = decoder.original_color_type() {
        // The decoder would convert them, by another formula than Pillow's.
        let failure = DecodeFailure::new(RejectReason::Unsupported, format!("{format:?} images in CMYK are not read"));
        return Err(failure.with_dimensions(width, height));
    }
    // A PNG's header: depth and kind of colour.
    let grey_16_png = format == ImageFormat::Png && bytes.get(24..26) == Some(&[16, 0]);
    let image = DynamicImage::from_decoder(decoder).map_err(|error| failure(error).with_dimensions(width, height))?;
    let pixels = to_rgb(image, grey_16_png).map_err(|failure| failure.with_dimensions(width, height))?;
    Ok(RgbImage { width, height, pixels })
}

/// Pillow's `convert("RGB")` from the mode in which it opens such a file.
///
/// `grey_16_png`: the file holds 16-bit grey without alpha, whatever transparency the decoder has made an alpha channel of.
fn to_rgb(image: DynamicImage, grey_16_png: bool) -> Result<Vec<u8>, DecodeFailure> {
    /// The upper byte, as Pillow reads 16-bit colour.
    fn upper(value: u16) -> u8 {
        (value >> 8) as u8
    }
    /// The value cut off at 255: Pillow opens 16-bit grey as `I;16`, whose conversion clips where one would expect it to
    /// scale. The tokens that the published code makes of such an image are those of its clipped pixels.
    fn clipped(value: u16) -> u8 {
        value.min(255) as u8
    }
    Ok(match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => without_alpha(image.as_raw(), |value| value),
        DynamicImage::ImageRgb16(image) => image.as_raw().iter().copied().map(upper).collect(),
        DynamicImage::ImageRgba16(image) => without_alpha(image.as_raw(), upper),
        DynamicImage::ImageLuma8(image) => replicated(image.as_raw(), 1, |value| value),
        DynamicImage::ImageLumaA8(image) => replicated(image.as_raw(), 2, |value| value),
        DynamicImage::ImageLuma16(image) => replicated(image.as_raw(), 1, clipped),
        DynamicImage::ImageLumaA16(image) => replicated(image.as_raw(), 2, if grey_16_png { clipped } else { upper }),
        other => {
            let message = format!("pixels of kind {:?} are not read", other.color());
            return Err(DecodeFailure::new(RejectReason::Unsupported, message));
        }
    })
}

/// The first of each `channels` values, three times.
fn replicated<Value: Copy>(pixels: &[Value], channels: usize, eight_bits: impl Fn(Value) -> u8) -> Vec<u8> {
    pixels.iter().step_by(channels).flat_map(|&grey| [eight_bits(grey); 3]).collect()
}

fn without_alpha<Value: Copy>(pixels: &[Value], eight_bits: impl Fn(Value) -> u8) -> Vec<u8> {
    pixels.as_chunks::<4>().0.iter().flat_map(|&[red, green, blue, _]| [red, green, blue].map(&eight_bits)).collect()
}

fn failure(error: ImageError) -> DecodeFailure {
    let reason = match &error {
        ImageError::Limits(_) => RejectReason::TooLarge,
        ImageError::Unsupported(_) => RejectReason::Unsupported,
        error if ends_early(error) => RejectReason::Truncated,
        _ => RejectReason::Corrupt,
    };
    DecodeFailure::new(reason, error.to_string())
}

/// Whether the decoder wanted more bytes than there are.
fn ends_early(error: &ImageError) -> bool {
    // This variant passes for its own cause, which the chain of causes therefore leaves out.
    if let ImageError::IoError(error) = error {
        return error.kind() == ErrorKind::UnexpectedEof;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = error.source();
    }
    false
}
