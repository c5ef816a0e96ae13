//! Pillow's ways from the values that files hold to 8-bit RGB, shared by the formats.

use std::iter;

/// Grey three times.
pub(super) fn grey(value: u8) -> [u8; 3] {
    [value; 3]
}

/// The upper byte, as Pillow reads 16-bit colour.
pub(super) fn upper(value: u16) -> u8 {
    (value >> 8) as u8
}

/// The value cut off at 255: Pillow opens 16-bit grey as `I;16` or `I`, whose conversion clips where one would expect it to
/// scale. The tokens that the published code makes of such an image are those of its clipped pixels.
pub(super) fn clipped(value: u16) -> u8 {
    value.min(255) as u8
}

/// Values of `bits` (1, 2, 4 or 8) each, the upper bits of a byte first.
pub(super) fn unpacked(row: &[u8], bits: u32) -> impl Iterator<Item = u8> {
    let mask = ((1_u32 << bits) - 1) as u8;
    row.iter().flat_map(move |&byte| {
        let mut shift = 8;
        iter::from_fn(move || {
            (shift > 0).then(|| {
                shift -= bits;
                byte >> shift & mask
            })
        })
    })
}

/// Colours by index; an index beyond them is black, as in Pillow.
#[derive(Clone, Debug)]
pub(super) struct Palette {
    colours: Box<[[u8; 3]; 256]>,
}

impl Palette {
    /// Indices that are themselves shades of grey.
    pub(super) fn ramp() -> Self {
        let mut ramp = Self::new(iter::empty());
        ramp.colours.iter_mut().zip(0..=u8::MAX).for_each(|(colour, value)| *colour = grey(value));
        ramp
    }

    /// Takes the first 256 colours.
    pub(super) fn new(colours: impl Iterator<Item = [u8; 3]>) -> Self {
        let mut palette = Self { colours: Box::new([[0; 3]; 256]) };
        palette.colours.iter_mut().zip(colours).for_each(|(colour, given)| *colour = given);
        palette
    }

    pub(super) fn colour(&self, index: u8) -> [u8; 3] {
        self.colours[usize::from(index)]
    }
}

/// Pillow's `cmyk2rgb`: what `ink` of one colour leaves of the `light` that black ink leaves, which is 255 less the black.
fn light_through(ink: u8, light: u8) -> u8 {
    let product = u32::from(ink) * u32::from(light) + 128;
    let absorbed = ((product >> 8) + product) >> 8;
    u32::from(light).saturating_sub(absorbed) as u8
}

/// Pillow's `CMYK` to `RGB`.
pub(super) fn cmyk([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    [cyan, magenta, yellow].map(|ink| light_through(ink, 255 - black))
}

/// Pillow's `RGBa`: colour that was multiplied by its alpha, divided again; where alpha is 0 there is no colour.
pub(super) fn divided_by_alpha([red, green, blue, alpha]: [u8; 4]) -> [u8; 3] {
    [red, green, blue].map(|value| {
        let quotient = (u32::from(value) * 255).checked_div(u32::from(alpha));
        quotient.map_or(0, |quotient| quotient.min(255) as u8)
    })
}

/// Pillow's `YCbCr` to `RGB`: factors in 64ths, each product rounded by adding a half and dropping the fraction.
pub(super) fn ycbcr([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    let product = |factor: f64, chroma: u8| (factor * f64::from(i32::from(chroma) - 128) * 64.0 + 0.5) as i32;
    let sum = |difference: i32| (i32::from(luma) + (difference >> 6)).clamp(0, 255) as u8;
    [sum(product(1.402, red)), sum(product(-0.34414, blue) + product(-0.71414, red)), sum(product(1.772, blue))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_give_what_pillow_13_gives() {
        let inks = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]];
        let light = [[252, 251, 250], [244, 243, 242], [236, 235, 234], [229, 228, 227]];
        assert_eq!(inks.map(cmyk), light);
        let premultiplied = [[1, 2, 4, 77], [1, 0, 9, 1], [7, 8, 9, 0], [128, 129, 3, 128], [5, 6, 7, 255]];
        let divided = [[3, 6, 13], [255, 0, 255], [0, 0, 0], [255, 255, 5], [5, 6, 7]];
        assert_eq!(premultiplied.map(divided_by_alpha), divided);
        let luma_chroma = [[128, 0, 0], [128, 255, 255], [128, 128, 127], [0, 127, 129], [255, 1, 254], [90, 200, 77]];
        let rgb = [[0, 255, 0], [255, 0, 255], [126, 128, 128], [1, 0, 0], [255, 208, 29], [18, 101, 217]];
        assert_eq!(luma_chroma.map(ycbcr), rgb);
    }

    #[test]
    fn bits_come_upper_first() {
        let of = |bits| unpacked(&[0x1B, 0xA5], bits).collect::<Vec<_>>();
        assert_eq!(of(1), [0, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0, 0, 1, 0, 1]);
        assert_eq!(of(2), [0, 1, 2, 3, 2, 2, 1, 1]);
        assert_eq!(of(4), [1, 11, 10, 5]);
        assert_eq!(of(8), [0x1B, 0xA5]);
    }
}
