//! Pictures within the page: small enough, and not too many.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use image::{RgbImage, imageops};
use pipeline::{DecodeLimits, decode_image, encode_png};
use schemas::RejectReason;

/// Bytes of all pictures of a page together: what a browser opens without a pause and a mail still carries.
const PAGE_BYTES: usize = 12 << 20;
/// Bytes of one picture.
const PICTURE_BYTES: usize = 2 << 20;
/// What is not even decoded.
const LIMITS: DecodeLimits = DecodeLimits { max_bytes: 64 << 20, max_pixels: 64 << 20 };

/// A picture of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// The PNG as a `data:` address.
    pub(crate) address: String,
    /// In pixels.
    pub(crate) width: u32,
    /// In pixels.
    pub(crate) height: u32,
    /// What it shows, in words.
    pub(crate) told: String,
}

/// What became of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It is on the page.
    Taken(Picture),
    /// It has more bytes or pixels than are read for a page.
    TooLarge,
    /// The page has no room left for it.
    PageIsFull,
}

/// Pictures that are not on the page, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Those that were too large to be read.
    pub(crate) too_large: usize,
    /// Those that the page had no room for.
    pub(crate) page_is_full: usize,
}

impl LeftOut {
    /// How many.
    pub(crate) fn total(self) -> usize {
        self.too_large + self.page_is_full
    }

    /// The picture, or one more that is left out.
    pub(crate) fn taken(&mut self, added: Added) -> Option<Picture> {
        match added {
            Added::Taken(picture) => return Some(picture),
            Added::TooLarge => self.too_large += 1,
            Added::PageIsFull => self.page_is_full += 1,
        }
        None
    }
}

impl std::ops::AddAssign for LeftOut {
    fn add_assign(&mut self, other: Self) {
        self.too_large += other.too_large;
        self.page_is_full += other.page_is_full;
    }
}

/// All pictures of a page, counted.
#[derive(Debug)]
pub struct Album {
    room: usize,
}

impl Default for Album {
    fn default() -> Self {
        Self { room: PAGE_BYTES }
    }
}

impl Album {
    /// Takes a picture in, reduced where a side is longer than `longest` pixels, and by half again as often as it takes for its bytes
    /// to be few enough for one picture.
    ///
    /// # Errors
    /// When it is no picture; `place` is named in the error.
    pub(crate) fn add(&mut self, png: &[u8], longest: u32, told: String, place: &str) -> Result<Added> {
        let decoded = match decode_image(png, &LIMITS) {
            Ok(decoded) => decoded,
            Err(failure) if failure.reason == RejectReason::TooLarge => return Ok(Added::TooLarge),
            Err(failure) => return Err(failure).with_context(|| format!("{place} cannot be read as a picture")),
        };
        let whole = RgbImage::from_raw(decoded.width, decoded.height, decoded.pixels)
            .context("a picture has all its pixels")?;
        let side = whole.width().max(whole.height());
        let mut longest = longest.min(side);
        let mut shown = Encoded { width: whole.width(), height: whole.height(), png: png.to_vec() };
        if longest < side {
            let reduced = Encoded::of(&whole, longest)?;
            // What was enlarged before may be smaller as it is.
            if reduced.png.len() < shown.png.len() {
                shown = reduced;
            }
        }
        while shown.png.len() > PICTURE_BYTES && longest > 1 {
            longest /= 2;
            shown = Encoded::of(&whole, longest)?;
        }
        if shown.png.len() > self.room {
            return Ok(Added::PageIsFull);
        }
        self.room -= shown.png.len();
        let address = format!("data:image/png;base64,{}", STANDARD.encode(&shown.png));
        Ok(Added::Taken(Picture { address, width: shown.width, height: shown.height, told }))
    }
}

/// A picture as a PNG file.
struct Encoded {
    width: u32,
    height: u32,
    png: Vec<u8>,
}

impl Encoded {
    /// `whole`, reduced so that its longer side is of `longest` pixels.
    fn of(whole: &RgbImage, longest: u32) -> Result<Self> {
        let scale = f64::from(longest) / f64::from(whole.width().max(whole.height()));
        let reduced = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
        let (width, height) = (reduced(whole.width()), reduced(whole.height()));
        let pixels = imageops::resize(whole, width, height, imageops::FilterType::Triangle);
        let png = encode_png(pixels.as_raw(), width, height)?;
        Ok(Self { width, height, png })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(added: Result<Added>) -> Picture {
        match added.expect("a picture") {
            Added::Taken(picture) => picture,
            other => panic!("{other:?}"),
        }
    }

    /// Pixels that no compression makes fewer bytes of.
    fn noise(width: u32, height: u32) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..width * height * 3).map(|_| next()).collect()
    }

    #[test]
    fn a_sheet_of_photographs_is_halved_until_it_fits() {
        let sheet = encode_png(&noise(2304, 2048), 2304, 2048).expect("a picture");
        assert!(sheet.len() > 6 * PICTURE_BYTES, "{}", sheet.len());
        let picture = taken(Album::default().add(&sheet, 1_600, "sheet".to_owned(), "here"));
        assert_eq!((picture.width, picture.height), (800, 711));
        assert!(picture.address.len() < PICTURE_BYTES * 4 / 3 + 64, "{}", picture.address.len());
    }

    #[test]
    fn too_large_is_told_apart_from_a_full_page() {
        // Only the header says how large it is; it is not read further.
        let mut huge = encode_png(&[0; 3], 1, 1).expect("a picture");
        huge[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &huge[12..29]) as u32;
        huge[29..33].copy_from_slice(&crc.to_be_bytes());
        let mut left_out = LeftOut::default();
        assert_eq!(left_out.taken(Album::default().add(&huge, 20, String::new(), "here").expect("a header")), None);
        assert_eq!(left_out.taken(Added::PageIsFull), None);
        assert_eq!((left_out.too_large, left_out.page_is_full, left_out.total()), (1, 1, 2));
    }

    #[test]
    fn a_picture_is_reduced_to_the_longest_side_and_a_full_page_takes_no_more() {
        let pixels: Vec<u8> = (0..60 * 30 * 3_u32).map(|byte| (byte * 7919 % 251) as u8).collect();
        let png = encode_png(&pixels, 60, 30).expect("a picture");
        let mut album = Album::default();
        let picture = taken(album.add(&png, 20, "noise".to_owned(), "here"));
        assert_eq!((picture.width, picture.height), (20, 10));
        let coded = picture.address.strip_prefix("data:image/png;base64,").expect("a data address");
        let back = decode_image(&STANDARD.decode(coded).expect("base 64"), &LIMITS).expect("a picture");
        assert_eq!((back.width, back.height), (20, 10));
        let mut full = Album { room: 10 };
        assert_eq!(full.add(&png, 20, String::new(), "here").expect("a picture"), Added::PageIsFull);
        let error = album.add(b"no picture", 20, String::new(), "sheets/step-1.png").expect_err("no picture");
        assert!(error.to_string().contains("sheets/step-1.png"), "{error}");
    }

    #[test]
    fn a_small_picture_stays_as_it_is() {
        let png = encode_png(&[9; 12], 2, 2).expect("a picture");
        let picture = taken(Album::default().add(&png, 20, String::new(), "here"));
        assert_eq!(picture.address, format!("data:image/png;base64,{}", STANDARD.encode(&png)));
    }
}
