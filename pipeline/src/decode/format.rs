//! What a file is, by its first bytes alone; names and content types lie.

use super::png;

/// A format that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
    Pnm,
}

impl Format {
    /// The format's name as people write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::Pnm => "PNM",
        }
    }

    /// `None` for what is not read here, image or not.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            [0xFF, 0xD8, 0xFF, ..] => Self::Jpeg,
            _ if bytes.starts_with(png::SIGNATURE) => Self::Png,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Self::WebP,
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Self::Gif,
            [b'B', b'M', ..] => Self::Bmp,
            // TIFF and BigTIFF; some writers have the number in the other order.
            [b'I', b'I', 42, 0, ..] | [b'I', b'I', 0, 42, ..] | [b'I', b'I', 43, 0, ..] => Self::Tiff,
            [b'M', b'M', 0, 42, ..] | [b'M', b'M', 42, 0, ..] | [b'M', b'M', 0, 43, ..] => Self::Tiff,
            [b'P', b'1'..=b'7' | b'f' | b'F', b' ' | b'\t'..=b'\r', ..] => Self::Pnm,
            _ => return None,
        })
    }
}

/// The name of an image format that is not read here.
pub(super) fn name_of_unread(bytes: &[u8]) -> Option<&'static str> {
    if let Some(brand) = bytes.get(8..12).filter(|_| bytes.get(4..8) == Some(b"ftyp")) {
        return Some(match brand {
            b"avif" | b"avis" => "AVIF",
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => "HEIF",
            _ => return None,
        });
    }
    const BEGINNINGS: [(&[u8], &str); 22] = [
        (b"\0\0\0\x0CjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xFF\x4F\xFF\x51", "JPEG 2000"),
        (b"\0\0\0\x0CJXL \r\n\x87\n", "JPEG XL"),
        (b"\xFF\x0A", "JPEG XL"),
        (b"II\xBC\x01", "JPEG XR"),
        (b"\0\0\x01\0", "ICO"),
        (b"\0\0\x02\0", "TGA or CUR"),
        (b"icns", "ICNS"),
        (b"qoif", "QOI"),
        (b"8BPS", "PSD"),
        (b"DDS ", "DDS"),
        (b"\x76\x2F\x31\x01", "OpenEXR"),
        (b"#?RADIANCE", "Radiance HDR"),
        (b"#?RGBE", "Radiance HDR"),
        (b"farbfeld", "farbfeld"),
        (b"\x0A\x05\x01", "PCX"),
        (b"\x01\xDA", "SGI"),
        (b"\x59\xA6\x6A\x95", "Sun raster"),
        (b"\x8AMNG\r\n\x1A\n", "MNG"),
        (b"BPG\xFB", "BPG"),
        (b"AT&TFORM", "DjVu"),
        (b"/* XPM */", "XPM"),
    ];
    // A TGA has no number in front, but most have a footer.
    let tga = bytes.trim_ascii_end().ends_with(b"TRUEVISION-XFILE.\0").then_some("TGA");
    tga.or_else(|| BEGINNINGS.iter().find(|(beginning, _)| bytes.starts_with(beginning)).map(|&(_, name)| name))
}
