//! The named crops, as Pillow computes them: equal pixels, not similar ones, because tokens depend on them.
//!
//! | Crop | Published in |
//! |---|---|
//! | `adm-center-SIZE` | ResTok `dataset/augmentation.py`, `center_crop_arr`, from ADM's `image_datasets.py` |
//! | `adm-center-SIZE-flip` | ResTok `autoregressive/train/extract_codes_c2i.py` without `--ten-crop` |
//! | `adm-ten-crop-RESIZE-SIZE` | the same with `--ten-crop`: torchvision's `TenCrop` of the centre crop at RESIZE |
//! | `torchvision-center-SIZE` | ResTok `dataset/webdataset_reader.py`: `Resize(SIZE, bicubic)` and `CenterCrop(SIZE)` |
//!
//! Training crops at random, see [`random_crop`].
//!
//! A crop is a chain of resizes and a window of the last one. The window is followed back through the chain first, so that
//! no row and no column is computed that the crop throws away.

mod random_crop;
mod resample;

pub use random_crop::RandomCrop;

use crate::RgbImage;
use resample::{Axis, CHANNELS, Filter, Window};
use schemas::Crop;
use std::ops::Range;

/// Crops `image` and appends its views to `out`: `[views, size, size, 3]`, RGB, 0 to 255.
pub fn crop_views(image: &RgbImage, crop: Crop, out: &mut Vec<u8>) {
    let (width, height) = (image.width as usize, image.height as usize);
    let size = crop.size();
    out.reserve(crop.views() * size * size * CHANNELS);
    match crop {
        Crop::AdmCenter { size } => Chain::adm(width, height, size).run(image, out),
        Crop::AdmCenterFlip { size } => {
            let plain = Square::new(Chain::adm(width, height, size), image);
            plain.append(0, 0, size, false, out);
            plain.append(0, 0, size, true, out);
        }
        Crop::AdmTenCrop { resize, size } => {
            let square = Square::new(Chain::adm(width, height, resize), image);
            let far = resize - size;
            let centre = half_rounded_to_even(far);
            // torchvision mirrors the whole square and cuts the same five windows from it: view 5 shows the mirrored top
            // **right** corner, and with an odd margin the mirrored centre lies a pixel off the plain one.
            for mirrored in [false, true] {
                for (left, top) in [(0, 0), (far, 0), (0, far), (far, far), (centre, centre)] {
                    square.append(left, top, size, mirrored, out);
                }
            }
        }
        Crop::TorchvisionCenter { size } => Chain::torchvision(width, height, size).run(image, out),
    }
}

/// torchvision's `int(round(margin / 2.0))`: Python rounds halves to the even side.
fn half_rounded_to_even(margin: usize) -> usize {
    (margin as f64 / 2.0).round_ties_even() as usize
}

/// A square image of which windows are cut.
struct Square {
    side: usize,
    pixels: Vec<u8>,
}

impl Square {
    fn new(chain: Chain, image: &RgbImage) -> Self {
        let (side, mut pixels) = (chain.columns.len(), Vec::new());
        chain.run(image, &mut pixels);
        Self { side, pixels }
    }

    /// Appends the window at (`left`, `top`) of this square, or of its mirror image.
    fn append(&self, left: usize, top: usize, size: usize, mirrored: bool, out: &mut Vec<u8>) {
        let (whole, _) = self.pixels.as_chunks::<CHANNELS>();
        for row in whole.chunks_exact(self.side).skip(top).take(size) {
            if mirrored {
                let right = self.side - left;
                out.extend(row[right - size..right].iter().rev().flatten());
            } else {
                out.extend_from_slice(row[left..left + size].as_flattened());
            }
        }
    }
}

/// A resize of a whole image, in pixels.
#[derive(Clone, Copy, Debug)]
struct Resize {
    from: (usize, usize),
    to: (usize, usize),
    filter: Filter,
}

/// How ADM brings the shorter side to `short_side`: halve by means while it is at least twice that, then bicubic. Gives the resizes
/// and the last one's size.
fn adm_resizes(width: usize, height: usize, short_side: usize) -> (Vec<Resize>, (usize, usize)) {
    let mut resizes = Vec::new();
    let (mut from_width, mut from_height) = (width, height);
    while from_width.min(from_height) >= 2 * short_side {
        let to = (from_width / 2, from_height / 2);
        resizes.push(Resize { from: (from_width, from_height), to, filter: Filter::Box });
        (from_width, from_height) = to;
    }
    let scale = short_side as f64 / from_width.min(from_height) as f64;
    // Python's `round`: halves go to the even side.
    let scaled = |side: usize| (side as f64 * scale).round_ties_even() as usize;
    let to = (scaled(from_width), scaled(from_height));
    resizes.push(Resize { from: (from_width, from_height), to, filter: Filter::Bicubic });
    (resizes, to)
}

/// Resizes one after another, and the window of the last that is kept.
#[derive(Debug)]
struct Chain {
    resizes: Vec<Resize>,
    columns: Range<usize>,
    rows: Range<usize>,
}

impl Chain {
    /// ADM's centre crop: its resizes, then the middle.
    fn adm(width: usize, height: usize, size: usize) -> Self {
        let (resizes, to) = adm_resizes(width, height, size);
        let (left, top) = ((to.0 - size) / 2, (to.1 - size) / 2);
        Self { resizes, columns: left..left + size, rows: top..top + size }
    }

    /// torchvision's `Resize(size)` of the shorter side, the longer one cut to an integer, then `CenterCrop(size)`.
    fn torchvision(width: usize, height: usize, size: usize) -> Self {
        let (short, long) = (width.min(height), width.max(height));
        let long = ((size * long) as f64 / short as f64) as usize;
        let to = if width <= height { (size, long) } else { (long, size) };
        let (left, top) = (half_rounded_to_even(to.0 - size), half_rounded_to_even(to.1 - size));
        Self {
            resizes: vec![Resize { from: (width, height), to, filter: Filter::Bicubic }],
            columns: left..left + size,
            rows: top..top + size,
        }
    }

    /// Appends the window's pixels to `out`, rows without gaps.
    fn run(self, image: &RgbImage, out: &mut Vec<u8>) {
        let (mut columns, mut rows) = (self.columns, self.rows);
        let mut axes = Vec::with_capacity(self.resizes.len());
        for Resize { from, to, filter } in self.resizes.into_iter().rev() {
            let across = Axis::new(from.0, to.0, filter, columns.clone());
            let down = Axis::new(from.1, to.1, filter, rows.clone());
            columns = across.as_ref().map_or(columns, |axis| axis.source.clone());
            rows = down.as_ref().map_or(rows, |axis| axis.source.clone());
            axes.push((across, down));
        }
        let stride = image.width as usize * CHANNELS;
        let mut window = Window {
            values: &image.pixels[rows.start * stride + columns.start * CHANNELS..],
            stride,
            row_values: columns.len() * CHANNELS,
            rows: rows.len(),
        };
        let mut pixels;
        while let Some((across, down)) = axes.pop() {
            if axes.is_empty() {
                return resample::resize(window, across.as_ref(), down.as_ref(), out);
            }
            // What this step writes is exactly what the next one reads.
            let row_values = across.as_ref().map_or(window.row_values, |axis| axis.outputs() * CHANNELS);
            let mut resized = Vec::new();
            resample::resize(window, across.as_ref(), down.as_ref(), &mut resized);
            pixels = resized;
            window = Window { values: &pixels, stride: row_values, row_values, rows: pixels.len() / row_values };
        }
    }
}
