//! Pixels on their way to a tokenizer, and pixels that come back from one.

use crate::SchemaError;

/// A batch of RGB images of one size, 8 bits a channel, rows in table order.
///
/// The shape is fixed for a whole run: the last batch of a unit is padded with zero rows, so that every batch runs the
/// same kernels and a code never depends on how many neighbours its image had. Only the first `filled` rows mean something.
#[derive(Clone, PartialEq, Eq)]
pub struct PixelBatch {
    pixels: Vec<u8>,
    rows: usize,
    filled: usize,
    height: usize,
    width: usize,
}

impl PixelBatch {
    /// Channels of a pixel: red, green, blue.
    pub const CHANNELS: usize = 3;

    /// Takes `pixels`, shape `[rows, height, width, 3]`, of which the first `filled` rows are images and the rest padding.
    ///
    /// # Errors
    /// When the buffer does not hold exactly `rows` images of that size, or `filled` exceeds `rows`.
    pub fn try_new(
        pixels: Vec<u8>,
        rows: usize,
        filled: usize,
        height: usize,
        width: usize,
    ) -> Result<Self, SchemaError> {
        let expected = rows * height * width * Self::CHANNELS;
        if pixels.len() != expected {
            return Err(SchemaError::Shape {
                what: "pixel batch",
                found: format!("{} bytes", pixels.len()),
                expected: format!("{expected} bytes for [{rows}, {height}, {width}, 3]"),
            });
        }
        if filled > rows {
            return Err(SchemaError::Shape {
                what: "pixel batch",
                found: format!("{filled} filled rows"),
                expected: format!("at most {rows}"),
            });
        }
        Ok(Self { pixels, rows, filled, height, width })
    }

    /// All pixels, shape `[rows, height, width, 3]`, padding included.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels of one row, shape `[height, width, 3]`.
    ///
    /// # Panics
    /// When `row` is not below [`Self::rows`].
    pub fn image(&self, row: usize) -> &[u8] {
        let size = self.height * self.width * Self::CHANNELS;
        &self.pixels[row * size..(row + 1) * size]
    }

    /// The first `count` of the filled rows, or all of them, as a batch without padding.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn first(&self, count: usize) -> Result<Self, SchemaError> {
        let rows = count.min(self.filled);
        let bytes = rows * self.height * self.width * Self::CHANNELS;
        Self::try_new(self.pixels[..bytes].to_vec(), rows, rows, self.height, self.width)
    }

    /// Rows of the fixed shape, padding included.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that hold an image.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }
}

impl std::fmt::Debug for PixelBatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PixelBatch([{}, {}, {}, 3], {} filled)", self.rows, self.height, self.width, self.filled)
    }
}
