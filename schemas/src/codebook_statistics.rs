//! How much of the codebook each level uses, and how evenly. What `inspect` says of tables, and validation of a tokenizer.

use crate::{SchemaError, TokenBatch, TokenLevels};
use serde::Serialize;

/// Counts of codes, level by level. Bounded: a counter for each code of each level, however many images.
#[derive(Clone, Debug)]
pub struct CodebookStatistics {
    levels: TokenLevels,
    codebook_size: usize,
    /// `[levels, codebook_size]`.
    counts: Vec<u64>,
    out_of_range: u64,
}

/// Use of the codebook by one level, or by all together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CodebookUse {
    /// Number of the level from 0; absent for all levels together.
    pub level: Option<usize>,
    /// First token of the level in an image's row.
    pub first_token: usize,
    /// Tokens of the level in an image.
    pub tokens_per_image: usize,
    /// Codes counted.
    pub codes: u64,
    /// Codes of the codebook that occur.
    pub distinct: u64,
    /// `distinct` as a fraction of the codebook.
    pub fraction: f64,
    /// Entropy of the codes in bits; 13 is the most that 8,192 codes can have.
    pub entropy_bits: f64,
}

impl CodebookStatistics {
    /// Nothing counted.
    pub fn new(levels: TokenLevels, codebook_size: usize) -> Self {
        let counts = vec![0; levels.sizes().len() * codebook_size];
        Self { levels, codebook_size, counts, out_of_range: 0 }
    }

    /// Takes over what a device has counted: `counts` is `[levels, codebook_size]`, row-major.
    ///
    /// # Errors
    /// When there is not a counter for each code of each level.
    pub fn from_counts(
        levels: TokenLevels,
        codebook_size: usize,
        counts: Vec<u64>,
        out_of_range: u64,
    ) -> Result<Self, SchemaError> {
        let expected = levels.sizes().len() * codebook_size;
        if counts.len() != expected {
            return Err(SchemaError::Shape {
                what: "counts of codes",
                found: counts.len().to_string(),
                expected: format!("{expected}: {} levels of {codebook_size} codes", levels.sizes().len()),
            });
        }
        Ok(Self { levels, codebook_size, counts, out_of_range })
    }

    /// Counts the codes of a batch. Rows of another length than the levels' are cut or end early.
    pub fn add(&mut self, tokens: &TokenBatch) {
        let offsets = self.levels.offsets();
        for row in tokens.iter_rows() {
            for (level, bounds) in offsets.windows(2).enumerate() {
                let counts = &mut self.counts[level * self.codebook_size..(level + 1) * self.codebook_size];
                for &code in row.get(bounds[0]..bounds[1]).unwrap_or_default() {
                    match usize::try_from(code).ok().and_then(|code| counts.get_mut(code)) {
                        Some(count) => *count += 1,
                        None => self.out_of_range += 1,
                    }
                }
            }
        }
    }

    /// Codes that the codebook does not have; none in a sound table.
    pub fn out_of_range(&self) -> u64 {
        self.out_of_range
    }

    /// Use of the codebook, level by level.
    pub fn levels(&self) -> Vec<CodebookUse> {
        let offsets = self.levels.offsets();
        self.counts
            .chunks_exact(self.codebook_size)
            .zip(offsets.windows(2))
            .enumerate()
            .map(|(level, (counts, bounds))| self.describe(Some(level), bounds[0], bounds[1] - bounds[0], counts))
            .collect()
    }

    /// Use of the codebook by all levels together.
    pub fn all(&self) -> CodebookUse {
        let mut sums = vec![0; self.codebook_size];
        for counts in self.counts.chunks_exact(self.codebook_size) {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        self.describe(None, 0, self.levels.tokens_per_image(), &sums)
    }

    fn describe(
        &self,
        level: Option<usize>,
        first_token: usize,
        tokens_per_image: usize,
        counts: &[u64],
    ) -> CodebookUse {
        let codes: u64 = counts.iter().sum();
        let used = counts.iter().filter(|count| **count > 0);
        // max(0.0) turns the -0.0 of a single code, or of none, into 0.
        let entropy_bits = used
            .clone()
            .map(|count| {
                let probability = *count as f64 / codes as f64;
                -probability * probability.log2()
            })
            .sum::<f64>()
            .max(0.0);
        let distinct = used.count() as u64;
        CodebookUse {
            level,
            first_token,
            tokens_per_image,
            codes,
            distinct,
            fraction: distinct as f64 / self.codebook_size as f64,
            entropy_bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn statistics(rows: &[[i16; 4]], codebook_size: usize) -> CodebookStatistics {
        let levels = TokenLevels::published(4).expect("1, 1, 2");
        let mut statistics = CodebookStatistics::new(levels, codebook_size);
        let codes = rows.iter().flatten().copied().collect();
        statistics.add(&TokenBatch::try_new(codes, 4).expect("rows of four"));
        statistics
    }

    #[test]
    fn levels_are_counted_apart() {
        let statistics = statistics(&[[0, 1, 2, 3], [0, 2, 2, 3], [0, 1, 2, 3], [0, 2, 2, 3]], 8);
        let levels = statistics.levels();
        assert_eq!(levels.iter().map(|level| level.distinct).collect::<Vec<_>>(), [1, 2, 2]);
        assert_eq!(levels.iter().map(|level| level.codes).collect::<Vec<_>>(), [4, 4, 8]);
        assert_eq!(levels.iter().map(|level| level.entropy_bits).collect::<Vec<_>>(), [0.0, 1.0, 1.0]);
        assert_eq!((levels[2].first_token, levels[2].tokens_per_image, levels[2].fraction), (2, 2, 0.25));
        assert_eq!((statistics.all().distinct, statistics.all().codes), (4, 16));
    }

    #[test]
    fn codes_outside_the_codebook_are_counted_as_such() {
        let statistics = statistics(&[[-1, 8, 0, 0]], 8);
        assert_eq!((statistics.out_of_range(), statistics.all().codes), (2, 2));
    }

    #[test]
    fn nothing_has_no_entropy() {
        let all = statistics(&[], 8).all();
        assert_eq!((all.codes, all.distinct, all.entropy_bits), (0, 0, 0.0));
    }

    #[test]
    fn counts_from_elsewhere_say_the_same() {
        let here = statistics(&[[0, 1, 2, 3], [0, 2, 2, 3]], 4);
        let counts = vec![2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 2, 2];
        let levels = TokenLevels::published(4).expect("1, 1, 2");
        let taken = CodebookStatistics::from_counts(levels.clone(), 4, counts, 0).expect("a counter for each code");
        assert_eq!((taken.levels(), taken.all()), (here.levels(), here.all()));
        assert!(CodebookStatistics::from_counts(levels, 4, vec![0; 11], 0).is_err());
    }

    proptest! {
        #[test]
        fn entropy_lies_between_nothing_and_what_the_distinct_codes_allow(rows in prop::collection::vec(prop::array::uniform4(0_i16..16), 1..40)) {
            let statistics = statistics(&rows, 16);
            for level in statistics.levels().iter().chain([&statistics.all()]) {
                prop_assert!(level.entropy_bits >= 0.0);
                prop_assert!(level.entropy_bits <= (level.distinct as f64).log2() + 1e-9);
                prop_assert!(level.distinct <= level.codes.min(16));
            }
        }
    }
}
