//! Whatever the bytes are, decoding ends with an image of the size it says or with a typed reject.

use crate::preprocessing_parity::fixtures;
use pipeline::{DecodeLimits, decode_image, testing::fuzz};
use proptest::prelude::*;
use schemas::RejectReason;
use std::{fs, sync::LazyLock};

/// Small, so that a size made up by chance takes no memory.
const LIMITS: DecodeLimits = DecodeLimits { max_bytes: 1 << 20, max_pixels: 1 << 20 };

/// Small files of all formats, with what is special to each.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = fs::read_dir(fixtures("extra")).expect("extra files");
    let mut paths: Vec<_> = folder.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension != "json"));
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("an extra file")).collect()
});

fn assert_image_or_reject(bytes: &[u8]) {
    match decode_image(bytes, &LIMITS) {
        Ok(image) => {
            assert!(image.width > 0 && image.height > 0);
            assert_eq!(image.pixels.len(), image.width as usize * image.height as usize * 3);
        }
        Err(failure) => assert!(!failure.message.is_empty()),
    }
}

#[test]
fn damaged_files_give_an_image_of_their_size_or_a_reject() {
    fuzz(file!(), 1500, &FILES, |bytes| {
        assert_image_or_reject(bytes);
        Ok(())
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn noise_behind_a_magic_number_gives_a_reject_or_an_image(
        magic in prop::sample::select(vec![
            b"\xFF\xD8\xFF".as_slice(), b"\x89PNG\r\n\x1A\n", b"GIF89a", b"BM", b"RIFF\x40\0\0\0WEBPVP8 ", b"II*\0", b"MM\0*",
            b"II+\0\x08\0\0\0", b"P6\n",
        ]),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        assert_image_or_reject(&[magic, &noise].concat());
    }
}

#[test]
fn files_cut_anywhere_are_answered() {
    for bytes in FILES.iter() {
        for kept in (0..bytes.len()).step_by(bytes.len().div_ceil(60)) {
            assert_image_or_reject(&bytes[..kept]);
        }
    }
}

#[test]
fn a_tile_far_beyond_its_image_takes_no_memory() {
    // Width and height, deflate, black at zero, 8 bits, tiles of 1048576x4096 pixels, of which there is one.
    let tags =
        [(256_u16, 9_u32), (257, 7), (258, 8), (259, 8), (262, 1), (322, 1 << 20), (323, 1 << 12), (324, 8), (325, 8)];
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((tags.len() as u16).to_le_bytes());
    for (tag, value) in tags {
        bytes.extend([tag, 4].map(u16::to_le_bytes).as_flattened());
        bytes.extend([1, value].map(u32::to_le_bytes).as_flattened());
    }
    bytes.extend([0; 4]);
    let failure = decode_image(&bytes, &LIMITS).expect_err("4294967296 pixels");
    assert_eq!((failure.reason, failure.dimensions), (RejectReason::TooLarge, Some((9, 7))), "{failure}");
}
