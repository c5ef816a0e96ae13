//! Text on a picture, in an 8x8 bitmap font: no font file is needed on the machine.

use image::{Rgb, RgbImage};

/// Side of a letter in pixels, at scale 1.
pub(super) const GLYPH: u32 = 8;

/// Draws `text` with its upper left corner at (`left`, `top`), each of the font's pixels `scale` pixels wide. What lies
/// outside the picture is cut off; letters that the font lacks become question marks.
pub(super) fn draw_text(picture: &mut RgbImage, left: u32, top: u32, text: &str, scale: u32, ink: Rgb<u8>) {
    for (position, letter) in text.chars().enumerate() {
        let glyph =
            font8x8::legacy::BASIC_LEGACY.get(letter as usize).unwrap_or(&font8x8::legacy::BASIC_LEGACY[b'?' as usize]);
        let glyph_left = left + position as u32 * GLYPH * scale;
        for (row, bits) in glyph.iter().enumerate() {
            for column in (0..GLYPH).filter(|column| bits & (1 << column) != 0) {
                let (x, y) = (glyph_left + column * scale, top + row as u32 * scale);
                for (x, y) in (0..scale).flat_map(|down| (0..scale).map(move |right| (x + right, y + down))) {
                    if x < picture.width() && y < picture.height() {
                        picture.put_pixel(x, y, ink);
                    }
                }
            }
        }
    }
}

/// `text`, or its beginning and end with dots between, in at most `letters` letters.
pub(super) fn fit(text: &str, letters: u32) -> String {
    const DOTS: &str = "..";
    let (count, letters) = (text.chars().count(), letters as usize);
    if count <= letters {
        return text.to_owned();
    }
    // The end of a key tells more than its beginning: keys of one class begin alike.
    let kept = letters.saturating_sub(DOTS.len());
    let front: String = text.chars().take(kept / 3).collect();
    let back: String = text.chars().skip(count - (kept - kept / 3)).collect();
    format!("{front}{DOTS}{back}").chars().take(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_keeps_its_ends() {
        assert_eq!(fit("n01440764_10026", 15), "n01440764_10026");
        assert_eq!(fit("n01440764_10026", 11), "n01.._10026");
        for letters in 0..6 {
            assert_eq!(fit("n01440764_10026", letters).len() as u32, letters);
        }
    }

    #[test]
    fn a_letter_is_drawn_as_the_font_has_it() {
        let ink = Rgb([1, 1, 1]);
        let mut picture = RgbImage::new(8, 8);
        draw_text(&mut picture, 0, 0, "-", 1, ink);
        let inked: Vec<(u32, u32)> =
            picture.enumerate_pixels().filter(|(_, _, pixel)| **pixel == ink).map(|(x, y, _)| (x, y)).collect();
        assert!(inked.len() >= 4 && inked.iter().all(|(_, y)| *y == inked[0].1), "a dash lies in one row: {inked:?}");
        // Outside the picture and outside the font nothing breaks.
        draw_text(&mut picture, 6, 6, "é-", 2, ink);
    }
}
