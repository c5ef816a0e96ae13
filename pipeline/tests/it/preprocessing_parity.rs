//! Decoding and crops against what Pillow 13.0.0 made of the same files: equal, value for value.
//!
//! `tests/fixtures/preprocess` holds photographs' worth of formats with their crops as PNG, and in `extra/` small files at the
//! edges of each format with digests; `make_extra.py` there makes the latter, and says how.

use pipeline::{DecodeLimits, RgbImage, crop_views, decode_image};
use proptest::prelude::*;
use schemas::{
    Crop,
    RejectReason::{self, Corrupt, Empty, TooLarge, Truncated, Unsupported},
    sha256_hex,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Pillow's own limit on pixels, at which it refuses.
pub(crate) const LIMITS: DecodeLimits = DecodeLimits { max_bytes: 64 << 20, max_pixels: 178_956_970 };

/// A folder of the fixtures.
pub(crate) fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/preprocess").join(folder)
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn decode(path: &Path) -> RgbImage {
    decode_image(&read(path), &LIMITS).unwrap_or_else(|failure| panic!("{}: {failure}", path.display()))
}

fn manifest(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).expect("the manifest is JSON")
}

fn crop(name: &str) -> Crop {
    name.parse().expect("a crop's name")
}

fn views_of(image: &RgbImage, crop: Crop) -> Vec<u8> {
    let mut views = Vec::new();
    crop_views(image, crop, &mut views);
    views
}

/// Noise by the rule of `make_extra.py`.
fn noise(width: u32, height: u32) -> RgbImage {
    let mut state = 0x9E37_79B9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let pixels = (0..width as usize * height as usize * 3).map(|_| next()).collect();
    RgbImage { width, height, pixels }
}

#[test]
fn crops_of_every_format_equal_those_of_pillow() {
    let manifest = manifest(&fixtures("manifest.json"));
    let mut compared = 0;
    for (name, entry) in manifest["files"].as_object().expect("files") {
        let image = decode(&fixtures("in").join(name));
        let size = &entry["size"];
        assert_eq!(
            (size[0].as_u64(), size[1].as_u64()),
            (Some(image.width.into()), Some(image.height.into())),
            "{name}"
        );
        let center = entry["center256"].as_str().into_iter().map(|file| (crop("adm-center-256"), 0, file));
        let ten = entry["ten_crop_1.1"].as_array().into_iter().flatten().enumerate();
        let ten = ten.map(|(view, file)| (crop("adm-ten-crop-281-256"), view, file.as_str().expect("a file")));
        for (crop, view, file) in center.chain(ten) {
            let expected = decode(&fixtures(file)).pixels;
            let views = views_of(&image, crop);
            let found = &views[view * expected.len()..][..expected.len()];
            let differing = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
            let largest = found.iter().zip(&expected).map(|(found, expected)| found.abs_diff(*expected)).max();
            assert_eq!((differing, largest), (0, Some(0)), "{name}, {crop}, view {view}");
            compared += 1;
        }
    }
    assert_eq!(compared, 38);
}

#[test]
fn crops_of_noise_equal_those_of_pillow_at_every_size_and_shape() {
    let manifest = manifest(&fixtures("extra/manifest.json"));
    let crops = manifest["crops"].as_array().expect("crops");
    assert_eq!(crops.len(), 80);
    for entry in crops {
        let side = |index: usize| entry["size"][index].as_u64().expect("a side") as u32;
        let crop = crop(entry["crop"].as_str().expect("a name"));
        let views = views_of(&noise(side(0), side(1)), crop);
        assert_eq!(sha256_hex(&views), entry["sha256"].as_str().expect("a digest"), "{crop} of {}", entry["size"]);
    }
}

/// Files that Pillow reads and that are refused on purpose, with the reason and words of the message.
const STRICTER_THAN_PILLOW: [(&str, RejectReason, &str); 47] = [
    // Pixels are missing, or damaged.
    ("broken_profile_and_end_marker_in_scan.jpg", Corrupt, "pixels are lost"),
    ("end_marker_in_scan.jpg", Corrupt, "pixels are lost"),
    ("first_restart_marker_lost.jpg", Corrupt, "pixels are lost"),
    ("restart_marker_out_of_place.jpg", Corrupt, "pixels are lost"),
    ("segment_marker_in_scan.jpg", Corrupt, "pixels are lost"),
    ("segment_marker_without_segment_in_scan.jpg", Corrupt, "pixels are lost"),
    ("rows_missing.png", Truncated, "57 of 95 bytes"),
    ("strip_missing.tiff", Corrupt, "2 offsets and 2 byte counts of strips or tiles, expected 3"),
    // The file says two things, or not what its numbers mean.
    ("frame_in_front_of_pixels.png", Corrupt, "a frame's data come before the pixels"),
    ("frame_of_another_size.webp", Corrupt, "the headers do not agree"),
    ("orientation_of_type_float.tiff", Corrupt, "the tag Orientation has values of type 11"),
    ("orientation_of_type_signed.tiff", Corrupt, "the tag Orientation has values of type 8"),
    ("two_orientations.tiff", Corrupt, "the tag Orientation has 2 values"),
    ("palette_missing.png", Corrupt, "palette"),
    ("packed_without_lengths.tiff", Corrupt, "1 offsets and 0 byte counts"),
    ("two_widths.tiff", Corrupt, "the tag Width has 2 values"),
    ("unknown_compression.png", Unsupported, "compression 1"),
    ("palette_short.tiff", Corrupt, "a palette of 300 values, expected 768"),
    ("palette_8_black_and_white.bmp", Unsupported, "a palette of 2 shades of grey"),
    ("ycbcr_subsampled.tiff", Unsupported, "a subsampling of [2, 2]"),
    ("floats.pfm", Unsupported, "float images"),
    ("floats.tiff", Unsupported, "float samples"),
    ("grey_32.tiff", Unsupported, "samples of [32] bits"),
    ("signed_8.tiff", Unsupported, "signed samples"),
    ("signed_16.tiff", Unsupported, "signed samples"),
    // Kinds that nobody trains on.
    ("codes_of_eleven_bits.gif", Unsupported, "codes of 11 bits"),
    ("grey_12.tiff", Unsupported, "samples of [12] bits"),
    ("group_3_fax.tiff", Unsupported, "CCITT group 3 fax (3)"),
    ("run_length_fax.tiff", Unsupported, "CCITT modified Huffman (2)"),
    ("jpeg_of_cmyk.tiff", Unsupported, "JPEG of 4 samples of 8 bits"),
    ("jpeg_of_grey_white_is_zero.tiff", Unsupported, "JPEG of grey with white at zero"),
    ("lab.tiff", Unsupported, "L*a*b* pixels"),
    ("lzw_of_the_old_kind.tiff", Unsupported, "LZW of the old kind"),
    ("planes_16.tiff", Unsupported, "planes of 16 bits"),
    ("planes_of_one_white_is_zero.tiff", Unsupported, "a plane of one sample of 8 bits with white at zero"),
    ("ycbcr_packed.tiff", Unsupported, "YCbCr packed by Deflate"),
    ("ycbcr_planes_packed.tiff", Unsupported, "planes of YCbCr"),
    // Formats of their own.
    ("avif.bin", Unsupported, "AVIF images are not read"),
    ("dds.bin", Unsupported, "DDS images are not read"),
    ("icns.bin", Unsupported, "ICNS images are not read"),
    ("ico.bin", Unsupported, "ICO images are not read"),
    ("jpeg_2000.bin", Unsupported, "JPEG 2000 images are not read"),
    ("jpeg_2000_stream.bin", Unsupported, "JPEG 2000 images are not read"),
    ("pcx.bin", Unsupported, "PCX images are not read"),
    ("psd.bin", Unsupported, "PSD images are not read"),
    ("qoi.bin", Unsupported, "QOI images are not read"),
    ("sgi.bin", Unsupported, "SGI images are not read"),
];

#[test]
fn files_at_the_edges_of_their_formats_decode_as_in_pillow_or_are_refused() {
    let manifest = manifest(&fixtures("extra/manifest.json"));
    let files = manifest["files"].as_object().expect("files");
    let mut wrong = Vec::new();
    for (name, entry) in files {
        let found = decode_image(&read(&fixtures("extra").join(name)), &LIMITS);
        let stricter = STRICTER_THAN_PILLOW.iter().find(|(file, ..)| file == name);
        let as_stated = match (&found, entry["sha256"].as_str(), stricter) {
            (Ok(image), Some(digest), None) => {
                let size = [image.width, image.height].map(u64::from);
                sha256_hex(&image.pixels) == digest && entry["size"] == serde_json::json!(size)
            }
            (Err(failure), Some(_), Some((_, reason, words))) => {
                failure.reason == *reason && failure.message.contains(words)
            }
            (Err(_), None, None) => true,
            _ => false,
        };
        if !as_stated {
            let found =
                found.map(|image| (image.width, image.height, image.pixels[..image.pixels.len().min(24)].to_vec()));
            wrong.push(format!("{name}: found {found:?}, Pillow: {entry}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), files.len(), wrong.join("\n"));
    for (name, ..) in STRICTER_THAN_PILLOW {
        assert!(files.contains_key(name), "{name} is no file");
    }
}

#[test]
fn a_refusal_begins_with_the_name_of_the_format() {
    let names = [
        ("jpg", "JPEG: "),
        ("png", "PNG: "),
        ("webp", "WebP: "),
        ("gif", "GIF: "),
        ("bmp", "BMP: "),
        ("tiff", "TIFF: "),
        ("pbm", "PNM: "),
        ("pgm", "PNM: "),
        ("ppm", "PNM: "),
        ("pam", "PNM: "),
        ("pfm", "PNM: "),
    ];
    let mut refused = 0;
    for entry in fs::read_dir(fixtures("extra")).expect("extra files") {
        let path = entry.expect("an entry").path();
        let extension = path.extension().and_then(|extension| extension.to_str()).expect("an extension");
        let Some((_, name)) = names.iter().find(|(other, _)| *other == extension) else { continue };
        let Err(failure) = decode_image(&read(&path), &LIMITS) else { continue };
        // What does not begin as a PNM is text.
        let text = path.ends_with("no_white_space.ppm");
        assert!(failure.message.starts_with(name) || text, "{}: {failure}", path.display());
        refused += 1;
    }
    assert!(refused > 100, "{refused} files were refused");
}

#[test]
fn a_refusal_names_its_reason() {
    let cases = [
        ("bad/bomb_60000x60000.png", TooLarge),
        ("bad/corrupt_scan.jpg", Corrupt),
        ("bad/empty.jpg", Empty),
        ("bad/header_only.jpg", Truncated),
        ("bad/html_error_page.jpg", Unsupported),
        ("bad/short_idat.png", Truncated),
        ("bad/text.jpg", Unsupported),
        ("bad/truncated_half.jpg", Truncated),
        ("bad/truncated_last_100.jpg", Truncated),
        ("bad/zero_width.png", Corrupt),
        ("extra/any_map.pam", Unsupported),
        ("extra/code_that_is_none.gif", Corrupt),
        ("extra/cut.bmp", Truncated),
        ("extra/cut.ppm", Truncated),
        ("extra/cut.webp", Truncated),
        ("extra/cut_in_data.gif", Truncated),
        ("extra/end_marker_halved.jpg", Truncated),
        ("extra/end_marker_missing.jpg", Truncated),
        ("extra/end_marker_replaced_by_fill.jpg", Truncated),
        ("extra/hierarchical.jpg", Unsupported),
        ("extra/jpeg_ls.jpg", Unsupported),
        ("extra/jpeg_within.bmp", Unsupported),
        ("extra/no_pixels.png", Corrupt),
        ("extra/progressive_end_marker_missing.jpg", Truncated),
        ("extra/progressive_end_marker_replaced.jpg", Truncated),
        ("extra/runs_8_end_early.bmp", Truncated),
        ("extra/second_scan_header_in_scan.jpg", Corrupt),
        ("extra/segment_longer_than_file.jpg", Corrupt),
        ("extra/seven_samples.tiff", Unsupported),
        ("extra/strip_short.tiff", Truncated),
        ("extra/text_bomb.png", TooLarge),
        ("extra/texts_of_64_mebibytes_and_a_letter.png", TooLarge),
        ("extra/truncated.png", Truncated),
        ("extra/truncated_in_scan.jpg", Truncated),
        ("extra/truncated_in_tables.jpg", Truncated),
        ("extra/twelve_bits.jpg", Unsupported),
        ("extra/two_channels.jpg", Unsupported),
        ("extra/two_start_markers.jpg", Corrupt),
        ("extra/zero_height.jpg", Corrupt),
    ];
    for (file, reason) in cases {
        let failure = decode_image(&read(&fixtures(file)), &LIMITS).expect_err(file);
        assert_eq!(failure.reason, reason, "{file}: {failure}");
        assert!(!failure.message.is_empty(), "{file}");
    }
    let bad = fs::read_dir(fixtures("bad")).expect("bad files").count();
    assert_eq!(bad, cases.iter().filter(|(file, _)| file.starts_with("bad/")).count());
}

#[test]
fn an_image_above_the_limit_is_refused_with_its_size_whatever_its_format() {
    let cases = [
        ("in/rgb_420_q85.jpg", (600, 400)),
        ("in/rgba.png", (310, 280)),
        ("in/lossless.webp", (300, 301)),
        ("extra/animated.gif", (52, 39)),
        ("extra/rgb.bmp", (52, 39)),
        ("extra/rgb.ppm", (52, 39)),
        ("extra/rgb.tiff", (52, 39)),
    ];
    for (file, size) in cases {
        let limits = DecodeLimits { max_pixels: 1000, ..LIMITS };
        let failure = decode_image(&read(&fixtures(file)), &limits).expect_err(file);
        assert_eq!((failure.reason, failure.dimensions), (TooLarge, Some(size)), "{file}");
    }
}

/// Pillow gives what was in memory before for the rows that are missing, so that there is no digest of it.
#[test]
fn a_jpeg_with_fewer_rows_than_its_strip_is_refused() {
    let mut bytes = read(&fixtures("extra/jpeg_strip_taller_alone.tiff"));
    let height = [257_u16, 3, 1, 0, 24].map(u16::to_le_bytes).concat();
    let place = bytes.windows(height.len()).position(|window| window == height).expect("the tag of the height");
    bytes[place + 8] = 40;
    let failure = decode_image(&bytes, &LIMITS).expect_err("32 rows");
    assert_eq!((failure.reason, failure.dimensions), (Corrupt, Some((32, 40))), "{failure}");
    assert!(failure.message.contains("a JPEG of 32x32 pixels in 3 channels, expected 32x40 in 3"), "{failure}");
}

/// One view as rows of pixels.
fn rows(view: &[u8], side: usize) -> Vec<Vec<[u8; 3]>> {
    view.as_chunks::<3>().0.chunks_exact(side).map(<[_]>::to_vec).collect()
}

fn mirrored(mut rows: Vec<Vec<[u8; 3]>>) -> Vec<Vec<[u8; 3]>> {
    rows.iter_mut().for_each(|row| row.reverse());
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_size_gives_whole_views_and_the_views_belong_together(
        width in 1_u32..=600,
        height in 1_u32..=600,
        resize in 32_usize..=90,
        cut in 0_usize..=20,
    ) {
        let image = noise(width, height);
        let side = (resize - cut).max(32);
        let square = views_of(&image, Crop::AdmCenter { size: resize });
        prop_assert_eq!(square.len(), resize * resize * 3);
        let square = rows(&square, resize);

        let flip = views_of(&image, Crop::AdmCenterFlip { size: resize });
        prop_assert_eq!(flip.len(), 2 * resize * resize * 3);
        let (plain, flipped) = flip.split_at(flip.len() / 2);
        prop_assert_eq!(&rows(plain, resize), &square);
        prop_assert_eq!(mirrored(rows(flipped, resize)), square.clone());

        let ten = views_of(&image, Crop::AdmTenCrop { resize, size: side });
        prop_assert_eq!(ten.len(), 10 * side * side * 3);
        let far = resize - side;
        let centre = (far as f64 / 2.0).round_ties_even() as usize;
        let corners = [(0, 0), (far, 0), (0, far), (far, far), (centre, centre)];
        let squares = [square.clone(), mirrored(square)];
        for (view, pixels) in ten.chunks_exact(side * side * 3).enumerate() {
            let (left, top) = corners[view % 5];
            let window: Vec<Vec<[u8; 3]>> =
                squares[view / 5][top..top + side].iter().map(|row| row[left..left + side].to_vec()).collect();
            prop_assert_eq!(rows(pixels, side), window, "view {}", view);
        }

        let evaluation = views_of(&image, Crop::TorchvisionCenter { size: side });
        prop_assert_eq!(evaluation.len(), side * side * 3);
    }
}
