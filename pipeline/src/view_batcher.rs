//! Views to batches of one fixed shape.

use schemas::{PixelBatch, SchemaError};

/// Gathers the views of a unit, in table order, into batches of `rows` views. The views of one image may straddle two batches;
/// only the last batch of a unit is padded, with zeros, because kernels, and with them the last bits of a latent, depend on
/// the shape.
#[derive(Debug)]
pub(crate) struct ViewBatcher {
    rows: usize,
    height: usize,
    width: usize,
    pixels: Vec<u8>,
}

impl ViewBatcher {
    /// Batches of `rows` views of `height` by `width` pixels.
    pub(crate) fn new(rows: usize, height: usize, width: usize) -> Self {
        Self { rows, height, width, pixels: Vec::new() }
    }

    /// Bytes of a view.
    pub(crate) fn view_bytes(&self) -> usize {
        self.height * self.width * PixelBatch::CHANNELS
    }

    /// Takes one view, shape `[height, width, 3]`; gives a batch when that filled it.
    ///
    /// # Errors
    /// When the view has another size.
    pub(crate) fn push(&mut self, view: &[u8]) -> Result<Option<PixelBatch>, SchemaError> {
        if view.len() != self.view_bytes() {
            return Err(SchemaError::Shape {
                what: "view",
                found: format!("{} bytes", view.len()),
                expected: format!("{} bytes for [{}, {}, 3]", self.view_bytes(), self.height, self.width),
            });
        }
        if self.pixels.is_empty() {
            self.pixels.reserve_exact(self.rows * self.view_bytes());
        }
        self.pixels.extend_from_slice(view);
        if self.pixels.len() == self.rows * self.view_bytes() { self.take(self.rows).map(Some) } else { Ok(None) }
    }

    /// The last batch, padded; `None` when the views came out even.
    ///
    /// # Errors
    /// None that this type gives reason to.
    pub(crate) fn finish(mut self) -> Result<Option<PixelBatch>, SchemaError> {
        let filled = self.pixels.len() / self.view_bytes();
        if filled == 0 {
            return Ok(None);
        }
        self.pixels.resize(self.rows * self.view_bytes(), 0);
        self.take(filled).map(Some)
    }

    fn take(&mut self, filled: usize) -> Result<PixelBatch, SchemaError> {
        PixelBatch::try_new(std::mem::take(&mut self.pixels), self.rows, filled, self.height, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the number of views and the size of a batch: every view comes out once, in order; every batch has the
        /// same shape; only the last is padded, and with zeros.
        #[test]
        fn batches_hold_every_view_once_in_order(views in 0_usize..70, rows in 1_usize..9) {
            let size = 2;
            let mut batcher = ViewBatcher::new(rows, size, size);
            let mut batches = Vec::new();
            for view in 0..views {
                batches.extend(batcher.push(&[view as u8 + 1; 12]).expect("a view of this size"));
            }
            batches.extend(batcher.finish().expect("the last batch"));
            prop_assert_eq!(batches.len(), views.div_ceil(rows));
            let mut seen = 0;
            for (number, batch) in batches.iter().enumerate() {
                prop_assert_eq!((batch.rows(), batch.height(), batch.width()), (rows, size, size));
                prop_assert!(batch.filled() == rows || number + 1 == batches.len());
                for row in 0..rows {
                    let expected = if row < batch.filled() { seen += 1; seen as u8 } else { 0 };
                    prop_assert!(batch.image(row).iter().all(|&value| value == expected));
                }
            }
            prop_assert_eq!(seen, views);
        }
    }

    #[test]
    fn a_view_of_another_size_is_refused() {
        let error = ViewBatcher::new(2, 4, 4).push(&[0; 12]).expect_err("a 2x2 view").to_string();
        assert!(error.contains("12 bytes, expected 48 bytes"), "{error}");
    }
}
