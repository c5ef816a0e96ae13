//! One picture of many: a grid of views, labelled above and at its left.

mod label;

use anyhow::{Context, Result};
use image::{Rgb, RgbImage, imageops};
use label::{GLYPH, draw_text, fit};
use schemas::PixelBatch;

/// A row of the sheet.
#[derive(Clone, Debug)]
pub(crate) struct SheetRow {
    /// What stands at its left.
    pub(crate) label: String,
    /// A square image a column, all of one size; `None` where there is none to show.
    pub(crate) images: Vec<Option<RgbImage>>,
}

/// Small views are enlarged by whole numbers until they are at least this large, so that they can be seen and labelled.
const SMALLEST_CELL: u32 = 128;
/// Space around everything.
const GAP: u32 = 8;
/// Height of a line of text, with its space.
const LINE: u32 = 2 * GLYPH + GAP;
/// Labels are drawn at twice the font's size.
const LABEL_SCALE: u32 = 2;

const PAPER: Rgb<u8> = Rgb([250, 250, 248]);
const INK: Rgb<u8> = Rgb([40, 40, 44]);
const FAINT_INK: Rgb<u8> = Rgb([120, 120, 126]);
const NO_IMAGE: Rgb<u8> = Rgb([226, 226, 224]);

/// Draws the sheet: `title` above, a caption above each column, a label left of each row. At most `beside` columns, at least 1,
/// stand beside each other; further ones start a new block below.
pub(crate) fn contact_sheet(title: &str, captions: &[String], rows: &[SheetRow], beside: usize) -> RgbImage {
    let beside = beside.max(1);
    let side =
        rows.iter().flat_map(|row| row.images.iter().flatten()).map(RgbImage::width).max().unwrap_or(SMALLEST_CELL);
    let enlarged = SMALLEST_CELL.div_ceil(side.max(1));
    let cell = side * enlarged;
    let label_width =
        rows.iter().map(|row| row.label.chars().count() as u32).max().unwrap_or(0) * GLYPH * LABEL_SCALE + 2 * GAP;
    // Fifteen letters, an ImageNet key, fit over a view of 256 pixels at the larger size.
    let caption_scale = if cell >= 16 * GLYPH * LABEL_SCALE { LABEL_SCALE } else { 1 };
    let columns = captions.len().clamp(1, beside) as u32;
    let blocks = captions.len().div_ceil(beside).max(1) as u32;
    let block_height = LINE + rows.len() as u32 * (cell + GAP) + GAP;
    let width = label_width + columns * (cell + GAP) + GAP;
    let mut sheet = RgbImage::from_pixel(width, GAP + LINE + blocks * block_height, PAPER);
    draw_text(&mut sheet, GAP, GAP, &fit(title, (width - 2 * GAP) / (GLYPH * LABEL_SCALE)), LABEL_SCALE, INK);
    for (image, caption) in captions.iter().enumerate() {
        let (column, block) = ((image % beside) as u32, (image / beside) as u32);
        let left = label_width + column * (cell + GAP);
        let top = GAP + LINE + block * block_height;
        let fitted = fit(caption, cell / (GLYPH * caption_scale));
        draw_text(&mut sheet, left, top + GAP / 2, &fitted, caption_scale, FAINT_INK);
        for (row, content) in rows.iter().enumerate() {
            let top = top + LINE + row as u32 * (cell + GAP);
            if column == 0 {
                let centred = top + (cell - GLYPH * LABEL_SCALE) / 2;
                draw_text(&mut sheet, GAP, centred, &content.label, LABEL_SCALE, INK);
            }
            match content.images.get(image).and_then(Option::as_ref) {
                Some(view) => {
                    let view = imageops::resize(view, cell, cell, imageops::FilterType::Nearest);
                    imageops::replace(&mut sheet, &view, left.into(), top.into());
                }
                None => {
                    let blank = RgbImage::from_pixel(cell, cell, NO_IMAGE);
                    imageops::replace(&mut sheet, &blank, left.into(), top.into());
                    draw_text(&mut sheet, left + GAP, top + GAP, "not there", 1, FAINT_INK);
                }
            }
        }
    }
    sheet
}

/// A row of a batch as a picture.
///
/// # Errors
/// When a side has no place in 32 bits.
pub(crate) fn picture(pixels: &PixelBatch, row: usize) -> Result<RgbImage> {
    let (width, height) = (u32::try_from(pixels.width())?, u32::try_from(pixels.height())?);
    RgbImage::from_raw(width, height, pixels.image(row).to_vec()).context("a view has as many bytes as its size says")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, colours: &[Option<[u8; 3]>]) -> SheetRow {
        let images =
            colours.iter().map(|colour| colour.map(|colour| RgbImage::from_pixel(64, 64, Rgb(colour)))).collect();
        SheetRow { label: label.to_owned(), images }
    }

    #[test]
    fn every_image_stands_in_its_column_and_row() {
        let captions: Vec<String> = (0..9).map(|image| format!("image {image}")).collect();
        let colour = |row: u8, image: u8| Some([row * 100, image * 20, 255]);
        let rows = [
            row("original", &(0..9).map(|image| colour(0, image)).collect::<Vec<_>>()),
            row("1 token", &(0..9).map(|image| colour(1, image)).collect::<Vec<_>>()),
        ];
        let sheet = contact_sheet("title", &captions, &rows, 8);
        let label_width = 8 * GLYPH * LABEL_SCALE + 2 * GAP;
        let block_height = LINE + 2 * (SMALLEST_CELL + GAP) + GAP;
        assert_eq!(sheet.width(), label_width + 8 * (SMALLEST_CELL + GAP) + GAP);
        for (image, row) in [(0, 0), (7, 1), (8, 0), (8, 1)] {
            let (column, block) = (image % 8, image / 8);
            let x = label_width + column * (SMALLEST_CELL + GAP) + SMALLEST_CELL / 2;
            let y = GAP + LINE + block * block_height + LINE + row * (SMALLEST_CELL + GAP) + SMALLEST_CELL / 2;
            assert_eq!(Some(sheet.get_pixel(x, y).0), colour(row as u8, image as u8), "image {image}, row {row}");
        }
    }

    #[test]
    fn an_image_that_is_not_there_leaves_its_place() {
        let rows = [row("original", &[None, Some([1, 2, 3])])];
        let sheet = contact_sheet("title", &["a".to_owned(), "b".to_owned()], &rows, 8);
        assert!(sheet.pixels().any(|pixel| *pixel == NO_IMAGE) && sheet.pixels().any(|pixel| pixel.0 == [1, 2, 3]));
    }
}
