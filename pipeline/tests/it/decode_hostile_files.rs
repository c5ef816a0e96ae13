//! Whatever the bytes are, decoding ends with an image of the size it says or with a typed reject.

use crate::preprocessing_parity::fixtures;
use pipeline::{DecodeLimits, decode_image};
use proptest::prelude::*;
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn damaged_files_give_an_image_of_their_size_or_a_reject(
        file in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        kept in prop::option::of(any::<prop::sample::Index>()),
        appended in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = FILES[file.index(FILES.len())].clone();
        for (position, value) in damage {
            let position = position.index(bytes.len());
            bytes[position] = value;
        }
        if let Some(kept) = kept {
            bytes.truncate(kept.index(bytes.len()));
        }
        bytes.extend(appended);
        assert_image_or_reject(&bytes);
    }

    #[test]
    fn noise_behind_a_magic_number_gives_a_reject_or_an_image(
        magic in prop::sample::select(vec![
            b"\xFF\xD8\xFF".as_slice(), b"\x89PNG\r\n\x1A\n", b"GIF89a", b"BM", b"RIFF\x40\0\0\0WEBPVP8 ", b"II*\0", b"MM\0*", b"P6",
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
