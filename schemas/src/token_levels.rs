//! How the tokens of an image divide into levels, coarse to fine.

use crate::SchemaError;
use serde::{Deserialize, Serialize};

/// Sizes of the levels, coarsest first: `[1, 1, 2, 4, 8, 16, 32, 64]` for the published 128 tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenLevels(Vec<usize>);

impl TokenLevels {
    /// The published division of `tokens` tokens: halved down to one, each level as long as all levels before it together.
    ///
    /// # Errors
    /// When `tokens` is not a power of two of at least 2 (the published pooling table knows no other sizes).
    pub fn published(tokens: usize) -> Result<Self, SchemaError> {
        if tokens < 2 || !tokens.is_power_of_two() {
            return Err(SchemaError::Shape {
                what: "latent tokens",
                found: tokens.to_string(),
                expected: "a power of two, at least 2".to_owned(),
            });
        }
        let mut sizes = vec![1];
        let mut kept = 1;
        while kept < tokens {
            sizes.push(kept);
            kept *= 2;
        }
        Ok(Self(sizes))
    }

    /// Tokens of each level, coarsest first.
    pub fn sizes(&self) -> &[usize] {
        &self.0
    }

    /// Where each level starts, and the total at the end: `[0, 1, 2, 4, 8, 16, 32, 64, 128]`.
    pub fn offsets(&self) -> Vec<usize> {
        let mut total = 0;
        std::iter::once(0)
            .chain(self.0.iter().map(|size| {
                total += size;
                total
            }))
            .collect()
    }

    /// Tokens of all levels together.
    pub fn tokens_per_image(&self) -> usize {
        self.0.iter().sum()
    }

    /// Reads the offsets that a table's metadata holds.
    ///
    /// # Errors
    /// When they do not start at 0 or do not increase.
    pub fn from_offsets(offsets: &[usize]) -> Result<Self, SchemaError> {
        let increasing = offsets.windows(2).all(|pair| pair[0] < pair[1]);
        if offsets.first() != Some(&0) || offsets.len() < 2 || !increasing {
            return Err(SchemaError::Shape {
                what: "level offsets",
                found: format!("{offsets:?}"),
                expected: "increasing numbers from 0".to_owned(),
            });
        }
        Ok(Self(offsets.windows(2).map(|pair| pair[1] - pair[0]).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_levels_double_after_the_second() {
        let levels = TokenLevels::published(128).expect("128 is a power of two");
        assert_eq!(levels.sizes(), [1, 1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(levels.offsets(), [0, 1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(TokenLevels::from_offsets(&levels.offsets()).expect("round trip"), levels);
    }

    #[test]
    fn other_token_counts_are_refused() {
        for tokens in [0, 1, 3, 100] {
            assert!(TokenLevels::published(tokens).is_err(), "{tokens}");
        }
    }
}
