//! Codes that come back from a tokenizer, and codes on their way to a decoder.

use crate::SchemaError;

/// The codes of a batch of images: `[rows, tokens_per_image]`, row-major, padding rows already removed.
///
/// A code is an `i16`: codebooks of up to 32,768 entries fit, every table engine reads it, and half the memory of `i32`
/// keeps ten-crop ImageNet in 3.3 GB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatch {
    codes: Vec<i16>,
    tokens_per_image: usize,
}

impl TokenBatch {
    /// Narrows `codes` (`[rows, tokens_per_image]`, as a device returns them) after checking each against the codebook.
    ///
    /// # Errors
    /// When the length is no multiple of `tokens_per_image`, the codebook is too large for 16 bits, or a code lies outside
    /// `0..codebook_size`.
    pub fn try_from_codes(codes: &[i64], tokens_per_image: usize, codebook_size: usize) -> Result<Self, SchemaError> {
        check_codebook_size(codebook_size)?;
        let narrowed = codes
            .iter()
            .enumerate()
            .map(|(position, &code)| match i16::try_from(code) {
                Ok(narrow) if narrow >= 0 && (narrow as usize) < codebook_size => Ok(narrow),
                _ => Err(SchemaError::CodeOutOfRange { row: position / tokens_per_image.max(1), code, codebook_size }),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::try_new(narrowed, tokens_per_image)
    }

    /// Takes codes that are already 16 bits wide.
    ///
    /// # Errors
    /// When the length is no multiple of `tokens_per_image`.
    pub fn try_new(codes: Vec<i16>, tokens_per_image: usize) -> Result<Self, SchemaError> {
        if tokens_per_image == 0 || !codes.len().is_multiple_of(tokens_per_image) {
            return Err(SchemaError::Shape {
                what: "token batch",
                found: format!("{} codes", codes.len()),
                expected: format!("a multiple of {tokens_per_image}"),
            });
        }
        Ok(Self { codes, tokens_per_image })
    }

    /// All codes, `[rows, tokens_per_image]`.
    pub fn codes(&self) -> &[i16] {
        &self.codes
    }

    /// All codes, without a copy.
    pub fn into_codes(self) -> Vec<i16> {
        self.codes
    }

    /// The codes of each image in turn.
    pub fn iter_rows(&self) -> impl ExactSizeIterator<Item = &[i16]> {
        self.codes.chunks_exact(self.tokens_per_image)
    }

    /// Number of images.
    pub fn rows(&self) -> usize {
        self.codes.len() / self.tokens_per_image
    }

    /// Codes an image.
    pub fn tokens_per_image(&self) -> usize {
        self.tokens_per_image
    }
}

/// Codes are stored in 16 signed bits; a larger codebook has no column type yet.
///
/// # Errors
/// When `codebook_size` exceeds 32,768.
pub fn check_codebook_size(codebook_size: usize) -> Result<(), SchemaError> {
    const LARGEST: usize = 1 << 15;
    if codebook_size == 0 || codebook_size > LARGEST {
        return Err(SchemaError::Shape {
            what: "codebook",
            found: format!("{codebook_size} codes"),
            expected: format!("1 to {LARGEST}, because tokens are stored as int16"),
        });
    }
    Ok(())
}
