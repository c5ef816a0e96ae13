//! JPEG through libjpeg-turbo, accepting what Pillow accepts as long as all pixels are there.
//!
//! libjpeg distinguishes errors, after which there is no image, from warnings, after which there is one. Pillow ignores
//! warnings, but feeds the library from a source that can run dry, and refuses a file whose bytes end before its pixels
//! do. The library here reads from memory and makes up an end instead, with a warning. So:
//!
//! | Found | Answer |
//! |---|---|
//! | an error | [`RejectReason::Corrupt`], or [`RejectReason::Truncated`] where the bytes end without an end-of-image marker |
//! | a warning that pixels are lost: a scan cut short by a marker, bad codes, a restart marker out of place | corrupt, or truncated without an end-of-image marker; Pillow fills in grey |
//! | another warning, the end-of-image marker is there (junk before a marker, numbers that nobody uses) | decoded |
//! | a warning, no end-of-image marker, several scans | truncated |
//! | the same with one scan | decoded if a marker closes the scan, or it is whole and [`READ_AHEAD`] bytes follow; else truncated |
//! | other than 1, 3 or 4 channels, or than 8 bits | [`RejectReason::Unsupported`] |
//!
//! The library tells the first warning only: of two faults the second is not seen. Damage that leaves sound codes has no warning.

use super::{
    DecodeFailure, DecodeLimits, RgbImage, check_dimensions,
    rgb::{cmyk, grey},
};
use schemas::RejectReason;
use std::{ffi::CStr, ops::RangeInclusive};
use turbojpeg::raw;

/// Bytes that libjpeg's bit reader may ask for beyond the last one it needs: its register holds eight.
const READ_AHEAD: usize = 8;

/// Scans of a progressive image beyond which it is an attack: small files with millions of scans take hours. The library's
/// own tools draw the line here; cameras and encoders write about ten.
const MAX_SCANS: i32 = 500;

/// End-of-image marker.
const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];

/// Decodes a file that begins as a JPEG.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeFailure> {
    let mut decompressor = Decompressor::new()?;
    let (width, height) = decompressor.size(bytes)?;
    check_dimensions(width, height, limits)?;
    decode_pixels(&mut decompressor, bytes, width, height).map_err(|failure| failure.with_dimensions(width, height))
}

/// Decodes a JPEG that is a part of another image, which has said how wide the part is, how many channels it has, and how many rows there
/// may be. The first of these rows, as many as there must be, are the answer. Another JPEG is not decoded.
pub(super) fn decode_part(
    bytes: &[u8],
    width: usize,
    rows: RangeInclusive<usize>,
    channels: u8,
    limits: &DecodeLimits,
) -> Result<Vec<u8>, DecodeFailure> {
    let mut decompressor = Decompressor::new()?;
    let (found_width, found_rows) = decompressor.size(bytes)?;
    let found_channels = decompressor.channels();
    if found_width as usize != width || !rows.contains(&(found_rows as usize)) || found_channels != channels {
        let message = format!(
            "a JPEG of {found_width}x{found_rows} pixels in {found_channels} channels, expected {width}x{} in {channels}",
            rows.start()
        );
        return Err(DecodeFailure::corrupt(message));
    }
    if found_rows as usize > *rows.start() {
        check_dimensions(found_width, found_rows, limits)?;
    }
    let mut pixels = decode_pixels(&mut decompressor, bytes, found_width, found_rows)?.pixels;
    pixels.truncate(width * rows.start() * 3);
    Ok(pixels)
}

/// What follows the start of an image or of its tables, without the segments of applications in front of the first scan, which say what
/// the channels are.
pub(super) fn without_application_data(bytes: &[u8]) -> Vec<u8> {
    let (mut kept, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some((code, segment)) = next_segment(&mut rest) {
        if !matches!(code, 0xE0..=0xEF) {
            kept.extend(segment);
        }
    }
    kept.extend(rest);
    kept
}

/// Horizontal and vertical sampling of each channel, as the frame's header says; empty without one.
pub(super) fn samplings(bytes: &[u8]) -> Vec<[u64; 2]> {
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let Some((code, segment)) = next_segment(&mut rest) {
        // Start-of-frame markers, less those of tables and conditions that lie among them.
        if matches!(code, 0xC0..=0xCF) && !matches!(code, 0xC4 | 0xC8 | 0xCC) {
            let count = segment.get(9).copied().unwrap_or_default();
            let channels = segment.get(10..).unwrap_or_default().as_chunks::<3>().0.iter().take(count.into());
            return channels.map(|[_, sampling, _]| [sampling >> 4, sampling & 15].map(u64::from)).collect();
        }
    }
    Vec::new()
}

/// Takes the next segment in front of the first scan off `rest`, without what fills the space before it: its marker's code, and all of it.
fn next_segment<'bytes>(rest: &mut &'bytes [u8]) -> Option<(u8, &'bytes [u8])> {
    while rest.starts_with(&[0xFF, 0xFF]) {
        *rest = &rest[1..];
    }
    let [0xFF, code, high, low, ..] = **rest else { return None };
    if code == 0xDA {
        return None;
    }
    let (segment, after) = rest.split_at_checked(2 + usize::from(u16::from_be_bytes([high, low])))?;
    *rest = after;
    Some((code, segment))
}

fn decode_pixels(
    decompressor: &mut Decompressor,
    bytes: &[u8],
    width: u32,
    height: u32,
) -> Result<RgbImage, DecodeFailure> {
    let precision = decompressor.get(raw::TJPARAM_TJPARAM_PRECISION);
    if precision != 8 {
        return Err(DecodeFailure::unsupported(format!("{precision} bits a channel, only 8 are read")));
    }
    let channels = decompressor.channels();
    let layout = match channels {
        4 => Layout::Cmyk,
        // The library converts no colours of lossless files, grey to RGB included.
        1 if decompressor.get(raw::TJPARAM_TJPARAM_LOSSLESS) == 1 => Layout::Grey,
        _ => Layout::Rgb,
    };
    let mut pixels = vec![0; width as usize * height as usize * layout.channels()];
    match decompressor.decompress(bytes, layout, &mut pixels) {
        Outcome::Done => {}
        Outcome::Failed(message) => return Err(failed(bytes, message)),
        Outcome::Warned(message) if pixels_are_lost(&message) => {
            let message = format!("{message}: pixels are lost, of which other readers make grey or noise");
            return Err(DecodeFailure::new(reason_of_failure(bytes), message));
        }
        Outcome::Warned(message) => {
            let structure = Structure::read(bytes);
            let one_scan =
                structure.first_scan_channels == channels && decompressor.get(raw::TJPARAM_TJPARAM_PROGRESSIVE) == 0;
            let scan_whole = |decompressor, pixels| {
                structure.first_scan_closed || scan_is_whole_before_its_last_bytes(decompressor, bytes, layout, pixels)
            };
            let complete = structure.ended || one_scan && scan_whole(decompressor, &mut pixels);
            if !complete {
                let message = format!("{message}; no end-of-image marker in {} bytes", bytes.len());
                return Err(DecodeFailure::new(RejectReason::Truncated, message));
            }
            tracing::debug!(warning = message, "decoded in spite of it, as Pillow does");
        }
    }
    match layout {
        Layout::Rgb => {}
        Layout::Grey => pixels = pixels.into_iter().flat_map(grey).collect(),
        Layout::Cmyk => pixels = inverted_cmyk_to_rgb(&pixels),
    }
    Ok(RgbImage { width, height, pixels })
}

/// The library has given up on a file.
fn failed(bytes: &[u8], message: String) -> DecodeFailure {
    let reason = if is_unsupported(&message) { RejectReason::Unsupported } else { reason_of_failure(bytes) };
    DecodeFailure::new(reason, message)
}

/// A file that the library gives up on is cut short where its end is missing, and damaged where it is there.
fn reason_of_failure(bytes: &[u8]) -> RejectReason {
    let ended = bytes.ends_with(&END_OF_IMAGE) || Structure::read(bytes).ended;
    if ended { RejectReason::Corrupt } else { RejectReason::Truncated }
}

/// Whether the scan of a file without an end is complete even when the file's last bytes are replaced by one: whether the
/// decoder finds nothing odd, or nothing but bytes between the scan and that end.
fn scan_is_whole_before_its_last_bytes(
    decompressor: &mut Decompressor,
    bytes: &[u8],
    layout: Layout,
    pixels: &mut [u8],
) -> bool {
    // Trailing FF are fill bytes in front of a marker that never came.
    let data = bytes.iter().rposition(|&byte| byte != 0xFF).map_or(0, |last| last + 1);
    let mut ended = bytes[..data.saturating_sub(READ_AHEAD)].to_vec();
    ended.extend(END_OF_IMAGE);
    // A cut into the header would make another image of it, for which `pixels` may be too small.
    let dimensions = decompressor.dimensions();
    if matches!(decompressor.read_header(&ended), Outcome::Failed(_)) || decompressor.dimensions() != dimensions {
        return false;
    }
    match decompressor.decompress(&ended, layout, pixels) {
        Outcome::Done => true,
        Outcome::Warned(first) => first.ends_with("extraneous bytes before marker 0xd9"),
        Outcome::Failed(_) => false,
    }
}

/// Pillow's `CMYK;I` and `cmyk2rgb`: Adobe writes ink inverted, and Pillow takes every four-channel JPEG for Adobe's.
fn inverted_cmyk_to_rgb(stored: &[u8]) -> Vec<u8> {
    stored.as_chunks::<4>().0.iter().flat_map(|stored| cmyk(stored.map(|value| 255 - value))).collect()
}

/// Whether a warning says that pixels are not those of the file.
fn pixels_are_lost(warning: &str) -> bool {
    // Between two restart markers there is nothing but pixels.
    let restart = |marker: u8| warning.ends_with(&format!("extraneous bytes before marker {marker:#04x}"));
    PIXELS_LOST.iter().any(|words| warning.starts_with(words)) || (0xD0..=0xD7).any(restart)
}

fn is_unsupported(message: &str) -> bool {
    UNSUPPORTED.iter().any(|words| message.contains(words))
}

/// What the markers of a file say, without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Structure {
    /// The end-of-image marker is where libjpeg would meet it.
    ended: bool,
    /// Channels in the first scan; 0 when there is none.
    first_scan_channels: u8,
    /// A marker comes after the first scan's data, whether what it announces is there or not.
    first_scan_closed: bool,
}

impl Structure {
    /// Walks the markers as libjpeg does: junk before a marker, fill bytes, stuffed zeros and restart markers are stepped
    /// over, and entropy-coded data look like junk.
    fn read(bytes: &[u8]) -> Self {
        let mut structure = Self { ended: false, first_scan_channels: 0, first_scan_closed: false };
        let mut rest = bytes.get(2..).unwrap_or_default();
        while let Some(position) = rest.iter().position(|&byte| byte == 0xFF) {
            rest = &rest[position + 1..];
            let Some(&code) = rest.first() else { break };
            match code {
                // Stuffing; fill, of which the last FF may begin a marker; markers without a length: TEM, RST and SOI.
                0xFF => continue,
                0x00 | 0x01 | 0xD0..=0xD8 => rest = &rest[1..],
                0xD9 => {
                    return Self { ended: true, first_scan_closed: structure.first_scan_channels != 0, ..structure };
                }
                _ => {
                    structure.first_scan_closed = structure.first_scan_channels != 0;
                    let [_, high, low, ..] = *rest else { break };
                    if let (0xDA, 0, Some(&channels)) = (code, structure.first_scan_channels, rest.get(3)) {
                        structure.first_scan_channels = channels;
                    }
                    // The length counts its own two bytes; libjpeg takes less for none.
                    let length = usize::from(u16::from_be_bytes([high, low])).max(2);
                    let Some(after) = rest.get(1 + length..) else { break };
                    rest = after;
                }
            }
        }
        structure
    }
}

/// Order of the channels in the decoder's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Grey,
    Rgb,
    Cmyk,
}

impl Layout {
    fn channels(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
            Self::Cmyk => 4,
        }
    }

    fn pixel_format(self) -> i32 {
        match self {
            Self::Grey => raw::TJPF_TJPF_GRAY,
            Self::Rgb => raw::TJPF_TJPF_RGB,
            Self::Cmyk => raw::TJPF_TJPF_CMYK,
        }
    }
}

/// What the library said of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Done, with something odd on the way; the first such thing.
    Warned(String),
    Failed(String),
}

/// Beginnings of libjpeg's warnings (`JWRN_…` in its `jerror.h`). The library's own code for this reports a failure that
/// follows a warning as a warning, but its message is always that of the failure.
const WARNINGS: [&str; 7] = [
    "Application transferred too many scanlines",
    "Corrupt JPEG data: ",
    "Inconsistent progression sequence",
    "Invalid SOS parameters for sequential JPEG",
    "Premature end of JPEG file",
    "Unknown Adobe color transform code",
    "Warning: ",
];

/// Beginnings of those warnings after which pixels are not those of the file: a marker in the middle of a scan, invalid codes, a
/// restart marker that is not the next one.
const PIXELS_LOST: [&str; 4] = [
    "Corrupt JPEG data: premature end of data segment",
    "Corrupt JPEG data: bad Huffman code",
    "Corrupt JPEG data: bad arithmetic code",
    "Corrupt JPEG data: found marker",
];

/// Words of what the library says of sound files that it, or Pillow, does not read: other numbers of channels, other
/// depths, hierarchical coding, JPEG-LS by its marker, lossless coding of other colours than those wanted.
const UNSUPPORTED: [&str; 4] = [
    "Could not determine colorspace",
    "Unsupported JPEG",
    "Unsupported marker type 0xf7",
    "Unsupported color conversion request",
];

/// A decompressor of libjpeg-turbo. The `turbojpeg` crate's own wrapper stops at warnings in the header, so that it cannot
/// decode a file with junk between two markers; this one goes on.
struct Decompressor {
    handle: raw::tjhandle,
}

impl Decompressor {
    fn new() -> Result<Self, DecodeFailure> {
        let out_of_memory = || DecodeFailure::new(RejectReason::TooLarge, "no memory for the JPEG decoder");
        #[expect(unsafe_code, reason = "takes a number and gives a handle or null, which is checked")]
        let handle = unsafe { raw::tj3Init(raw::TJINIT_TJINIT_DECOMPRESS as i32) };
        if handle.is_null() {
            return Err(out_of_memory());
        }
        let decompressor = Self { handle };
        #[expect(unsafe_code, reason = "the handle is live; the parameter takes any number from 0 up")]
        let refused = unsafe { raw::tj3Set(handle, raw::TJPARAM_TJPARAM_SCANLIMIT as i32, MAX_SCANS) } != 0;
        if refused { Err(out_of_memory()) } else { Ok(decompressor) }
    }

    fn read_header(&mut self, bytes: &[u8]) -> Outcome {
        #[expect(
            unsafe_code,
            reason = "the handle is live, pointer and length are those of one slice, which is only read"
        )]
        let status = unsafe { raw::tj3DecompressHeader(self.handle, bytes.as_ptr(), bytes.len() as raw::size_t) };
        match self.outcome(status) {
            // A file of tables alone has a header and no image, of which the library says nothing.
            Outcome::Done | Outcome::Warned(_) if self.get(raw::TJPARAM_TJPARAM_JPEGWIDTH) < 0 => {
                Outcome::Failed("JPEG datastream contains no image".to_owned())
            }
            outcome => outcome,
        }
    }

    /// Reads the header, and gives width and height.
    fn size(&mut self, bytes: &[u8]) -> Result<(u32, u32), DecodeFailure> {
        match self.read_header(bytes) {
            Outcome::Failed(message) => Err(failed(bytes, message)),
            Outcome::Done | Outcome::Warned(_) => Ok(self.dimensions()),
        }
    }

    /// Decodes the file whose header was just read from the same `bytes` into `pixels` in `layout`.
    fn decompress(&mut self, bytes: &[u8], layout: Layout, pixels: &mut [u8]) -> Outcome {
        let (width, height) = self.dimensions();
        let row_bytes = width as usize * layout.channels();
        assert_eq!(pixels.len(), row_bytes * height as usize, "the buffer is that of the image");
        #[expect(
            unsafe_code,
            reason = "the handle is live, pointers and lengths are those of two slices; the library reads the header again, \
                      finds the same size in the same bytes, and writes height rows of the pitch, which was just checked"
        )]
        let status = unsafe {
            let pitch = row_bytes as i32;
            let format = layout.pixel_format();
            let size = bytes.len() as raw::size_t;
            raw::tj3Decompress8(self.handle, bytes.as_ptr(), size, pixels.as_mut_ptr(), pitch, format)
        };
        self.outcome(status)
    }

    /// Width and height of the header that was read last.
    fn dimensions(&self) -> (u32, u32) {
        let side = |parameter| u32::try_from(self.get(parameter)).unwrap_or(0);
        (side(raw::TJPARAM_TJPARAM_JPEGWIDTH), side(raw::TJPARAM_TJPARAM_JPEGHEIGHT))
    }

    /// Channels by the header that was read last.
    fn channels(&self) -> u8 {
        let colourspace = self.get(raw::TJPARAM_TJPARAM_COLORSPACE);
        match u32::try_from(colourspace) {
            Ok(raw::TJCS_TJCS_CMYK | raw::TJCS_TJCS_YCCK) => 4,
            Ok(raw::TJCS_TJCS_GRAY) => 1,
            _ => 3,
        }
    }

    fn get(&self, parameter: raw::TJPARAM) -> i32 {
        #[expect(unsafe_code, reason = "the handle is live; an unknown parameter gives -1")]
        unsafe {
            raw::tj3Get(self.handle, parameter as i32)
        }
    }

    fn outcome(&self, status: i32) -> Outcome {
        if status == 0 {
            return Outcome::Done;
        }
        #[expect(
            unsafe_code,
            reason = "the handle is live; the library gives a string that ends in zero and is its own"
        )]
        let message = unsafe { CStr::from_ptr(raw::tj3GetErrorStr(self.handle)) };
        let message = message.to_string_lossy().into_owned();
        let warned = WARNINGS.iter().any(|warning| message.starts_with(warning));
        if warned { Outcome::Warned(message) } else { Outcome::Failed(message) }
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "the handle is live, and nobody has it after this")]
        unsafe {
            raw::tj3Destroy(self.handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_of_applications_go_with_what_fills_the_space_before_them() {
        let table = b"\xFF\xDB\x00\x03q";
        let frame = b"\xFF\xC0\x00\x0B\x08\x00\x01\x00\x01\x01\x01\x21\x00";
        let scan = b"\xFF\xDA\xFF\xE0";
        let bytes = [b"\xFF\xFF\xFF\xE0\x00\x04JF", &table[..], b"\xFF\xEE\x00\x02", frame, scan].concat();
        assert_eq!(without_application_data(&bytes), [&table[..], frame, scan].concat());
        assert_eq!(samplings(&[b"\xFF\xD8", &bytes[..]].concat()), [[2, 1]]);
    }

    #[test]
    fn the_end_is_found_behind_junk_fill_stuffing_and_restart_markers() {
        let structure = |bytes: &[u8]| Structure::read(bytes);
        let scan =
            b"\xFF\xD8\xFF\xE0\x00\x04ab junk \xFF\xFF\xDA\x00\x03\x03 data \xFF\x00 more \xFF\xD3 and \xFF\xFF\xD9";
        let whole = Structure { ended: true, first_scan_channels: 3, first_scan_closed: true };
        assert_eq!(structure(scan), whole);
        let cut = &scan[..scan.len() - 1];
        assert_eq!(structure(cut), Structure { ended: false, first_scan_closed: false, ..whole });
        assert_eq!(structure(&[cut, b"\xE1\x00\x20"].concat()), Structure { ended: false, ..whole });
        // A marker that claims more bytes than there are hides the end.
        assert!(!structure(b"\xFF\xD8\xFF\xE1\x00\x20\xFF\xD9").ended);
        // Inside a segment there are no markers.
        assert!(!structure(b"\xFF\xD8\xFF\xE1\x00\x04\xFF\xD9").ended);
        assert!(!structure(b"").ended);
    }

    #[test]
    fn inverted_ink_becomes_light() {
        let cases: [([u8; 4], [u8; 3]); 4] = [
            ([255, 255, 255, 255], [255, 255, 255]),
            ([255, 255, 255, 0], [0, 0, 0]),
            ([0, 255, 255, 255], [0, 255, 255]),
            ([128, 128, 128, 128], [64, 64, 64]),
        ];
        for (stored, rgb) in cases {
            assert_eq!(inverted_cmyk_to_rgb(&stored), rgb, "{stored:?}");
        }
    }
}
