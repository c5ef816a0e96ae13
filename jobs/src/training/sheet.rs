//! What is shown of a network in training, as a picture. Of a tokenizer: a row an image, on its left the original, then what is
//! reconstructed from more and more of its tokens.

use crate::contact_sheet::{SheetRow, contact_sheet, picture};
use anyhow::{Context, Result, ensure};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use report::text::counted;
use schemas::PixelBatch;
use std::path::Path;

/// A sheet, encoded once for the disk and for TensorBoard.
#[derive(Debug)]
pub(crate) struct Sheet {
    /// RGB, 8 bits a channel.
    pub(crate) png: Vec<u8>,
    /// In pixels.
    pub(crate) width: u32,
    /// In pixels.
    pub(crate) height: u32,
}

impl Sheet {
    /// Draws the `filled` rows of `originals`, labelled `labels`, and beside them the same rows of each of `reconstructed`: the number
    /// of tokens that it is reconstructed from, and the images.
    ///
    /// # Errors
    /// When there are not as many labels and reconstructed images as originals.
    pub(crate) fn draw(
        title: &str,
        labels: &[String],
        originals: &PixelBatch,
        reconstructed: &[(usize, PixelBatch)],
    ) -> Result<Self> {
        let images = originals.filled();
        for found in reconstructed.iter().map(|(_, batch)| batch.filled()).chain([labels.len()]) {
            ensure!(found == images, "a sheet of {images} images has {found} labels or reconstructed images");
        }
        let columns = || std::iter::once(originals).chain(reconstructed.iter().map(|(_, batch)| batch));
        let captions: Vec<String> = std::iter::once("original".to_owned())
            .chain(reconstructed.iter().map(|&(tokens, _)| counted(tokens as u64, "token")))
            .collect();
        let rows = labels
            .iter()
            .enumerate()
            .map(|(row, label)| {
                let images = columns().map(|batch| picture(batch, row).map(Some)).collect::<Result<_>>()?;
                Ok(SheetRow { label: label.clone(), images })
            })
            .collect::<Result<Vec<_>>>()?;
        Self::of(title, &captions, &rows)
    }

    /// Draws rows of images, all beside each other, with a caption above each column.
    ///
    /// # Errors
    /// When the picture cannot be encoded.
    pub(crate) fn of(title: &str, captions: &[String], rows: &[SheetRow]) -> Result<Self> {
        // A row's columns stay in one line, however many there are.
        let drawn = contact_sheet(title, captions, rows, captions.len());
        let (width, height) = drawn.dimensions();
        let mut png = Vec::new();
        PngEncoder::new(&mut png).write_image(drawn.as_raw(), width, height, ExtendedColorType::Rgb8)?;
        Ok(Self { png, width, height })
    }

    /// Writes the sheet to `path`, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let partial = path.with_extension("png.partial");
        std::fs::write(&partial, &self.png).with_context(|| format!("{} cannot be written", partial.display()))?;
        std::fs::rename(&partial, path).with_context(|| format!("{} cannot be written", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 32;

    /// Images of one colour each, and a row of padding.
    fn batch(colours: &[[u8; 3]]) -> PixelBatch {
        let mut pixels: Vec<u8> = colours.iter().flat_map(|colour| colour.repeat(SIDE * SIDE)).collect();
        pixels.resize((colours.len() + 1) * SIDE * SIDE * 3, 0);
        PixelBatch::try_new(pixels, colours.len() + 1, colours.len(), SIDE, SIDE).expect("a batch")
    }

    #[test]
    fn a_sheet_shows_every_image_in_the_row_of_its_original() {
        let labels = ["a".to_owned(), "b".to_owned()];
        let reconstructed =
            (0..10).map(|level: u8| (1_usize << level, batch(&[[level, 200, 1], [level, 200, 2]]))).collect::<Vec<_>>();
        let sheet =
            Sheet::draw("step 100", &labels, &batch(&[[255, 0, 1], [255, 0, 2]]), &reconstructed).expect("drawn");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sheet.png");
        sheet.write(&path).expect("written");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
        let drawn = image::open(&path).expect("a PNG").to_rgb8();
        assert_eq!(drawn.dimensions(), (sheet.width, sheet.height));
        // Cells of 32 pixels are enlarged to 128.
        let places = |colour| {
            let found: Vec<(u32, u32)> =
                drawn.enumerate_pixels().filter(|(_, _, pixel)| pixel.0 == colour).map(|(x, y, _)| (x, y)).collect();
            assert_eq!(found.len(), 128 * 128, "{colour:?}");
            found[0]
        };
        for row in [1, 2] {
            let (mut left, top) = places([255, 0, row]);
            for level in 0..10 {
                let (x, y) = places([level, 200, row]);
                assert!(x > left && y == top, "level {level} at {x}, {y}");
                left = x;
            }
        }
        assert!(places([255, 0, 2]).1 > places([255, 0, 1]).1);
    }

    #[test]
    fn images_without_a_label_are_refused() {
        let originals = batch(&[[1, 1, 1], [2, 2, 2]]);
        assert!(Sheet::draw("", &["a".to_owned()], &originals, &[]).is_err());
        let labels = ["a".to_owned(), "b".to_owned()];
        assert!(Sheet::draw("", &labels, &originals, &[(4, batch(&[[1, 1, 1]]))]).is_err());
    }
}
