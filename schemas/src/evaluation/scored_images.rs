//! What the networks of a protocol say of images: features, and for reconstructed images how far they are from their originals.

use crate::{SchemaError, TokenBatch};

/// What is said of some images, in their order: as they are, or as they were reconstructed from their first tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoredImages {
    /// Tokens that the images were reconstructed from; absent for images as they are.
    pub kept_tokens: Option<u16>,
    /// Pool features, `[images, ScoredImages::POOL]`, row-major; empty where no extractor ran.
    pub pool: Vec<f32>,
    /// Spatial features, `[images, ScoredImages::SPATIAL]`; empty where the protocol has no use for them.
    pub spatial: Vec<f32>,
    /// How far each image is from its original; empty for images as they are.
    pub measures: Vec<ImageMeasures>,
}

impl ScoredImages {
    /// Pool features of an image (`pool_3:0` of the Inception network).
    pub const POOL: usize = 2048;
    /// Spatial features of an image: the first 7 channels of `mixed_6/conv:0`, 17 by 17, channels last.
    pub const SPATIAL: usize = 17 * 17 * 7;

    /// Takes `other`'s images behind these.
    ///
    /// # Errors
    /// When the two were made differently.
    pub fn append(&mut self, other: Self) -> Result<(), SchemaError> {
        if self.kept_tokens != other.kept_tokens {
            return Err(SchemaError::Shape {
                what: "kept tokens of a batch",
                found: format!("{:?}", other.kept_tokens),
                expected: format!("{:?}", self.kept_tokens),
            });
        }
        self.pool.extend(other.pool);
        self.spatial.extend(other.spatial);
        self.measures.extend(other.measures);
        Ok(())
    }

    /// Holds everything to a number of images.
    ///
    /// # Errors
    /// When something is there that does not fit it.
    pub fn check(&self, images: usize) -> Result<(), SchemaError> {
        let fits = |what: &'static str, found: usize, each: usize| match found == 0 || found == images * each {
            true => Ok(()),
            false => {
                let expected = format!("{}, or none", images * each);
                Err(SchemaError::Shape { what, found: found.to_string(), expected })
            }
        };
        fits("pool features", self.pool.len(), Self::POOL)?;
        fits("spatial features", self.spatial.len(), Self::SPATIAL)?;
        fits("measures of images", self.measures.len(), 1)
    }
}

/// How far a reconstructed image is from its original.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ImageMeasures {
    /// Peak signal-to-noise ratio in decibels.
    pub psnr: f64,
    /// Structural similarity, at most 1.
    pub ssim: f64,
    /// The same over five scales; absent for images too small for it.
    pub ms_ssim: Option<f64>,
    /// Learned perceptual distance (AlexNet), at least 0; absent without its network.
    pub lpips: Option<f64>,
}

/// What a scorer says of a batch: of the images as they are, and of each variant in which they were reconstructed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoredBatch {
    /// The variants, always as many and in the same order; each with all filled rows of the batch.
    pub variants: Vec<ScoredImages>,
    /// Codes of the images, where they were encoded.
    pub tokens: Option<TokenBatch>,
}

impl ScoredBatch {
    /// Holds everything to a number of images.
    ///
    /// # Errors
    /// When nothing is said, or something is there that does not fit it.
    pub fn check(&self, images: usize) -> Result<(), SchemaError> {
        if self.variants.is_empty() {
            let expected = "at least one".to_owned();
            return Err(SchemaError::Shape { what: "variants of scored images", found: "none".to_owned(), expected });
        }
        self.variants.iter().try_for_each(|variant| variant.check(images))?;
        match &self.tokens {
            Some(tokens) if tokens.rows() != images => Err(SchemaError::Shape {
                what: "codes of scored images",
                found: format!("{} rows", tokens.rows()),
                expected: images.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Takes `other`'s images behind these.
    ///
    /// # Errors
    /// When the two were made differently.
    pub fn append(&mut self, other: Self) -> Result<(), SchemaError> {
        let different =
            |found: String, expected: String| SchemaError::Shape { what: "variants of a batch", found, expected };
        if self.variants.len() != other.variants.len() {
            return Err(different(other.variants.len().to_string(), self.variants.len().to_string()));
        }
        for (variant, more) in self.variants.iter_mut().zip(other.variants) {
            variant.append(more)?;
        }
        self.tokens = match (self.tokens.take(), other.tokens) {
            (None, None) => None,
            (Some(codes), Some(more)) if codes.tokens_per_image() == more.tokens_per_image() => {
                let tokens_per_image = codes.tokens_per_image();
                let mut all = codes.into_codes();
                all.extend_from_slice(more.codes());
                Some(TokenBatch::try_new(all, tokens_per_image)?)
            }
            (codes, more) => {
                let said = |codes: &Option<TokenBatch>| match codes {
                    Some(codes) => format!("{} codes an image", codes.tokens_per_image()),
                    None => "no codes".to_owned(),
                };
                return Err(different(said(&more), said(&codes)));
            }
        };
        Ok(())
    }
}

/// An image of a scored set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoredRow {
    /// Its key: that of its source, or its number in an archive.
    pub image_id: String,
    /// Its class, where the set says it.
    pub label: Option<i32>,
    /// How its bytes lay in the set: `jpeg`, `png`, …, or `pixels` in an array.
    pub format: String,
}

/// The scored images of a unit, in the order of the set.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredUnit {
    /// The images.
    pub rows: Vec<ScoredRow>,
    /// As they are, and in each reconstructed variant; each with all rows. None where the unit has no rows.
    pub variants: Vec<ScoredImages>,
    /// Their codes, where they were encoded.
    pub tokens: Option<TokenBatch>,
    /// Images of the unit that could not be read.
    pub rejected: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(kept: &[Option<u16>], images: usize, tokens: Option<usize>) -> ScoredBatch {
        let variant = |&kept_tokens| ScoredImages {
            kept_tokens,
            pool: vec![1.0; images * ScoredImages::POOL],
            ..ScoredImages::default()
        };
        let codes = |tokens| TokenBatch::try_new(vec![0; images * tokens], tokens).expect("whole rows");
        ScoredBatch { variants: kept.iter().map(variant).collect(), tokens: tokens.map(codes) }
    }

    #[test]
    fn batches_made_alike_become_one() {
        let mut scored = batch(&[None, Some(4)], 3, Some(2));
        scored.append(batch(&[None, Some(4)], 2, Some(2))).expect("made alike");
        assert!(scored == batch(&[None, Some(4)], 5, Some(2)));
        scored.check(5).expect("five images");
        let told = scored.check(4).expect_err("five images").to_string();
        assert!(told.contains("pool features: found 10240, expected 8192"), "{told}");
        let told = ScoredBatch::default().check(0).expect_err("nothing is said").to_string();
        assert!(told.contains("found none, expected at least one"), "{told}");
        let codes = ScoredBatch { tokens: batch(&[None], 2, Some(2)).tokens, ..batch(&[None], 3, None) };
        let told = codes.check(3).expect_err("codes of two images").to_string();
        assert!(told.contains("codes of scored images: found 2 rows, expected 3"), "{told}");
    }

    #[test]
    fn batches_made_differently_are_refused() {
        for (other, words) in [
            (batch(&[None], 1, None), "variants of a batch: found 1, expected 2"),
            (batch(&[None, Some(8)], 1, None), "kept tokens of a batch: found Some(8), expected Some(4)"),
            (batch(&[None, Some(4)], 1, None), "found no codes, expected 2 codes an image"),
            (batch(&[None, Some(4)], 1, Some(3)), "found 3 codes an image, expected 2 codes an image"),
        ] {
            let mut scored = batch(&[None, Some(4)], 3, Some(2));
            let told = scored.append(other).expect_err(words).to_string();
            assert!(told.contains(words), "{told}");
        }
    }
}
