//! Decoding and crops against what Pillow 13.0.0 made of the same files: equal, value for value.
//!
//! `tests/fixtures/preprocess` holds photographs' worth of formats with their crops as PNG, and in `extra/` small files at the
//! edges of each format with digests; `make_extra.py` there makes the latter, and says how.

use pipeline::{DecodeLimits, RgbImage, crop_views, decode_image};
use proptest::prelude::*;
use schemas::{Crop, RejectReason, sha256_hex};
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

/// Files at the edges of their formats where the answer is knowingly not Pillow's, with the reason. `None`: the pixels differ.
const NOT_AS_PILLOW: [(&str, Option<RejectReason>); 4] = [
    // The TIFF decoder turns ink into light by another formula.
    ("cmyk.tiff", Some(RejectReason::Unsupported)),
    // The TIFF decoder has no palettes.
    ("packbits_palette.tiff", Some(RejectReason::Unsupported)),
    // What a GIF's first frame leaves uncovered is black here; there it has the colour of index 0, or of the transparent one.
    ("partial_frame.gif", None),
    ("partial_frame_transparent.gif", None),
];

#[test]
fn files_at_the_edges_of_their_formats_decode_as_in_pillow_or_are_refused_as_by_pillow() {
    let manifest = manifest(&fixtures("extra/manifest.json"));
    let files = manifest["files"].as_object().expect("files");
    let mut wrong = Vec::new();
    for (name, entry) in files {
        let found = decode_image(&read(&fixtures("extra").join(name)), &LIMITS);
        let equal = match (&found, entry["sha256"].as_str()) {
            (Ok(image), Some(digest)) => {
                let size = [image.width, image.height].map(u64::from);
                sha256_hex(&image.pixels) == digest && entry["size"] == serde_json::json!(size)
            }
            (Err(_), None) => true,
            _ => false,
        };
        let known = NOT_AS_PILLOW.iter().find(|(file, _)| file == name);
        let as_stated = match (known, &found) {
            (None, _) => equal,
            (Some((_, None)), Ok(_)) => !equal,
            (Some((_, Some(reason))), Err(failure)) => failure.reason == *reason,
            _ => false,
        };
        if !as_stated {
            let found =
                found.map(|image| (image.width, image.height, image.pixels[..image.pixels.len().min(24)].to_vec()));
            wrong.push(format!("{name}: found {found:?}, Pillow: {entry}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), files.len(), wrong.join("\n"));
}

#[test]
fn a_refusal_names_its_reason() {
    use RejectReason::{Corrupt, Empty, TooLarge, Truncated, Unsupported};
    let cases = [
        ("bad/bomb_60000x60000.png", TooLarge),
        ("bad/corrupt_scan.jpg", Corrupt),
        ("bad/empty.jpg", Empty),
        ("bad/header_only.jpg", Truncated),
        ("bad/html_error_page.jpg", Unsupported),
        ("bad/short_idat.png", Corrupt),
        ("bad/text.jpg", Unsupported),
        ("bad/truncated_half.jpg", Truncated),
        ("bad/truncated_last_100.jpg", Truncated),
        ("bad/zero_width.png", Corrupt),
        ("extra/end_marker_halved.jpg", Truncated),
        ("extra/end_marker_missing.jpg", Truncated),
        ("extra/end_marker_replaced_by_fill.jpg", Truncated),
        ("extra/no_pixels.png", Corrupt),
        ("extra/progressive_end_marker_missing.jpg", Truncated),
        ("extra/progressive_end_marker_replaced.jpg", Truncated),
        ("extra/second_scan_header_in_scan.jpg", Corrupt),
        ("extra/segment_longer_than_file.jpg", Corrupt),
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
    for (file, size) in
        [("in/rgb_420_q85.jpg", (600, 400)), ("in/rgba.png", (310, 280)), ("in/lossless.webp", (300, 301))]
    {
        let limits = DecodeLimits { max_pixels: 1000, ..LIMITS };
        let failure = decode_image(&read(&fixtures(file)), &limits).expect_err(file);
        assert_eq!((failure.reason, failure.dimensions), (RejectReason::TooLarge, Some(size)), "{file}");
    }
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
