//! The random crop of training: ADM's `random_crop_arr`, as ResTok's `dataset/augmentation.py` has it, and a flip.
//!
//! The shorter side becomes a random length, by ADM's resizes, and a random window of that is kept. Smaller images are enlarged.
//! Which numbers are drawn is ours; the pixels they lead to are Pillow's.

use super::{Chain, adm_resizes, resample::CHANNELS};
use crate::{PipelineError, RgbImage};
use schemas::{Crop, RandomStream};
use std::ops::RangeInclusive;

/// A square window at random.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomCrop {
    /// Side of the window in pixels.
    pub size: usize,
    /// Smallest fraction of the shorter side that the window spans, above 0.
    pub smallest_scale: f64,
    /// Largest fraction of the shorter side that the window spans, at most 1.
    pub largest_scale: f64,
    /// Whether every second window, on average, is mirrored.
    pub flip: bool,
}

/// What was drawn for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Draw {
    /// Length that the shorter side is resized to.
    short_side: usize,
    left: usize,
    top: usize,
    mirrored: bool,
}

impl RandomCrop {
    /// The published training crop: windows over 0.8 to 1.0 of the shorter side, half of them mirrored.
    pub fn published(size: usize) -> Self {
        Self { size, smallest_scale: 0.8, largest_scale: 1.0, flip: true }
    }

    /// Checks the fields against each other.
    ///
    /// # Errors
    /// `Settings` that names what is out of bounds.
    pub fn check(&self) -> Result<(), PipelineError> {
        let settings = |problem: String| Err(PipelineError::Settings { problem });
        if !Crop::SIZES.contains(&self.size) {
            let (smallest, largest) = Crop::SIZES.into_inner();
            return settings(format!("random crops have {smallest} to {largest} pixels a side, found {}", self.size));
        }
        let (smallest, largest) = (self.smallest_scale, self.largest_scale);
        // An image is resized to size / scale: a thousandth of a side would be an image of a million pixels a side.
        if !(smallest >= 0.01 && smallest <= largest && largest <= 1.0) {
            return settings(format!(
                "random crops span 0.01 to 1 of the shorter side, the smallest first, found {smallest} to {largest}"
            ));
        }
        Ok(())
    }

    /// Crops `image` as `random` decides, and appends the window to `out`: `[size, size, 3]`, RGB, 0 to 255.
    pub(crate) fn crop(&self, image: &RgbImage, random: &mut RandomStream, out: &mut Vec<u8>) {
        let draw = self.draw(image.width as usize, image.height as usize, random);
        self.cut(image, draw, out);
    }

    /// Lengths that the shorter side may be resized to.
    fn short_sides(&self) -> RangeInclusive<usize> {
        let length = |scale: f64| (self.size as f64 / scale).ceil() as usize;
        length(self.largest_scale)..=length(self.smallest_scale)
    }

    fn draw(&self, width: usize, height: usize, random: &mut RandomStream) -> Draw {
        let mut below = |limit: usize| random.below(limit as u64) as usize;
        let short_sides = self.short_sides();
        let short_side = short_sides.start() + below(short_sides.end() - short_sides.start() + 1);
        let (_, (wide, high)) = adm_resizes(width, height, short_side);
        let (top, left) = (below(high - self.size + 1), below(wide - self.size + 1));
        // Drawn in any case, so that a setting does not move the numbers of another.
        let mirrored = below(2) == 1 && self.flip;
        Draw { short_side, left, top, mirrored }
    }

    fn cut(&self, image: &RgbImage, draw: Draw, out: &mut Vec<u8>) {
        let Draw { short_side, left, top, mirrored } = draw;
        let (resizes, _) = adm_resizes(image.width as usize, image.height as usize, short_side);
        let start = out.len();
        Chain { resizes, columns: left..left + self.size, rows: top..top + self.size }.run(image, out);
        if mirrored {
            let (pixels, _) = out[start..].as_chunks_mut::<CHANNELS>();
            pixels.chunks_exact_mut(self.size).for_each(<[_]>::reverse);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use schemas::sha256_hex;
    use std::collections::HashSet;

    /// Noise from a linear congruential generator: every pixel of a resize shows in the digest.
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
    fn windows_equal_those_that_pillow_cuts_for_the_same_numbers() {
        // `random_crop_arr` with these numbers in place of its own, Pillow 12.3.0, then a flip. Not version 13, which resizes images
        // that are made smaller and are some twice as high as wide in the other order (`(61, 173)` here): the published system
        // and its tokens are of the time before it.
        let cases = [
            (
                (500, 375),
                256,
                Draw { short_side: 256, left: 25, top: 0, mirrored: false },
                "93b3cb567861c07ff4a7c2c0dce1b7c04c12c350c5b9a004fe9508d2ecb5e40a",
            ),
            (
                (500, 375),
                256,
                Draw { short_side: 320, left: 119, top: 25, mirrored: true },
                "70a3975895252ebdb9182983fb6827eb47cc33952c10e31cb82a66feda2e78bc",
            ),
            (
                (1300, 900),
                256,
                Draw { short_side: 291, left: 82, top: 35, mirrored: false },
                "85cf4d8ca3ef1b9e563d045f831866781965ba38d3a48cd66685357786cff98f",
            ),
            (
                (200, 120),
                256,
                Draw { short_side: 300, left: 244, top: 11, mirrored: true },
                "f3d3b4ff2323b5a3dd80f319c2c8a51c9bbe3482ecfe0661582fa6bd29ac0960",
            ),
            (
                (28, 28),
                32,
                Draw { short_side: 40, left: 8, top: 4, mirrored: false },
                "0f4fdb3fe782ba5d1df7148a0d200acc3373a9f278e135ac18133627e77ddc5b",
            ),
            (
                (28, 28),
                32,
                Draw { short_side: 32, left: 0, top: 0, mirrored: true },
                "6536c4c2d76ac218ec77fa959d36057d1c362b470c9a61c7d3e8a8f89d0b4d8a",
            ),
            (
                (61, 173),
                32,
                Draw { short_side: 37, left: 3, top: 65, mirrored: false },
                "33628f057ed5942c9747f9395986028033cdf014519ed7fa565288bbbf081350",
            ),
            (
                (40, 40),
                32,
                Draw { short_side: 40, left: 4, top: 8, mirrored: true },
                "4ed62f040d8a4c85efab386793ee5b353cda5ecdd39616880c7d9decb35a25f2",
            ),
            (
                (3, 2),
                32,
                Draw { short_side: 33, left: 3, top: 1, mirrored: false },
                "80819eef5ecf611e1831c178a0960d3d1c834fda0855592f245f5249fd51b310",
            ),
            (
                (640, 128),
                32,
                Draw { short_side: 32, left: 115, top: 0, mirrored: false },
                "0e99d29b63a2a82df37b906f67d343959ded491720db68055bca72c45eebf62a",
            ),
        ];
        for ((width, height), size, draw, digest) in cases {
            let mut pixels = Vec::new();
            RandomCrop::published(size).cut(&noise(width, height), draw, &mut pixels);
            assert_eq!(pixels.len(), size * size * CHANNELS);
            assert_eq!(sha256_hex(&pixels), digest, "{draw:?} of {width}x{height}");
        }
    }

    #[test]
    fn numbers_reach_all_that_the_published_crop_reaches_and_nothing_else() {
        // randrange(256, 321) for the shorter side, then every offset from 0 to what is left over.
        let crop = RandomCrop::published(256);
        assert_eq!(crop.short_sides(), 256..=320);
        assert_eq!(RandomCrop { largest_scale: 0.9, ..crop }.short_sides(), 285..=320);
        let draws: Vec<_> =
            (0..20_000).map(|index| crop.draw(400, 300, &mut RandomStream::new(1, "crop", index))).collect();
        let distinct = |value: fn(&Draw) -> usize| draws.iter().map(value).collect::<HashSet<_>>().len();
        assert_eq!(distinct(|draw| draw.short_side), 65);
        // A shorter side of 320 leaves 64 rows; its longer side, 427, leaves 171 columns.
        assert_eq!(distinct(|draw| draw.top), 65);
        assert_eq!(draws.iter().map(|draw| draw.left).max(), Some(171));
        let mirrored = draws.iter().filter(|draw| draw.mirrored).count();
        assert!(mirrored.abs_diff(10_000) < 400, "{mirrored}");
        for (index, draw) in (0..).zip(&draws) {
            let plain = RandomCrop { flip: false, ..crop }.draw(400, 300, &mut RandomStream::new(1, "crop", index));
            assert_eq!(plain, Draw { mirrored: false, ..*draw }, "the flip must not move the window");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn an_image_of_any_size_gives_a_whole_window(
            width in 1_u32..=300,
            height in 1_u32..=300,
            size in 8_usize..=64,
            smallest in 0.3_f64..=1.0,
            index in any::<u64>(),
        ) {
            let crop = RandomCrop { size, smallest_scale: smallest, largest_scale: 1.0, flip: true };
            crop.check().expect("settings within bounds");
            let mut pixels = vec![7];
            crop.crop(&noise(width, height), &mut RandomStream::new(0, "any", index), &mut pixels);
            prop_assert_eq!(pixels.len(), 1 + size * size * CHANNELS);
            prop_assert_eq!(pixels[0], 7);
        }
    }

    #[test]
    fn settings_out_of_bounds_are_named() {
        let good = RandomCrop::published(32);
        good.check().expect("the published ones");
        for (bad, word) in [
            (RandomCrop { size: 4, ..good }, "found 4"),
            (RandomCrop { smallest_scale: 0.0, ..good }, "found 0 to 1"),
            (RandomCrop { smallest_scale: 0.9, largest_scale: 0.8, ..good }, "found 0.9 to 0.8"),
            (RandomCrop { largest_scale: 1.5, ..good }, "found 0.8 to 1.5"),
            (RandomCrop { smallest_scale: f64::NAN, ..good }, "NaN"),
        ] {
            let error = bad.check().expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
