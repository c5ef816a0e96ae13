//! Samples on their way to a generator.

use crate::SchemaError;

/// Samples that are to be drawn together: a number and a class each. Of one fixed size in a run; the last one of a unit is padded
/// by repeating its last sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleBatch {
    samples: Vec<u64>,
    classes: Vec<i32>,
    filled: usize,
}

impl SampleBatch {
    /// Pads `samples` and their `classes` to `rows`.
    ///
    /// # Errors
    /// When there is none, there are more than `rows`, or the two differ in length.
    pub fn try_new(mut samples: Vec<u64>, mut classes: Vec<i32>, rows: usize) -> Result<Self, SchemaError> {
        let filled = samples.len();
        let last = samples.last().copied().zip(classes.last().copied());
        let (Some((sample, class)), true) = (last, filled == classes.len() && filled <= rows) else {
            return Err(SchemaError::Shape {
                what: "sample batch",
                found: format!("{filled} samples, {} classes", classes.len()),
                expected: format!("as many samples as classes, 1 to {rows}"),
            });
        };
        samples.resize(rows, sample);
        classes.resize(rows, class);
        Ok(Self { samples, classes, filled })
    }

    /// Numbers of the samples, padding included.
    pub fn samples(&self) -> &[u64] {
        &self.samples
    }

    /// Classes of the samples, padding included.
    pub fn classes(&self) -> &[i32] {
        &self.classes
    }

    /// Samples with padding.
    pub fn rows(&self) -> usize {
        self.samples.len()
    }

    /// Samples without padding: the first ones.
    pub fn filled(&self) -> usize {
        self.filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_batch_is_padded_with_its_last_sample() {
        let batch = SampleBatch::try_new(vec![7, 8], vec![1, 2], 4).expect("fits");
        assert_eq!((batch.samples(), batch.classes()), (&[7, 8, 8, 8][..], &[1, 2, 2, 2][..]));
        assert_eq!((batch.rows(), batch.filled()), (4, 2));
        for (samples, classes, rows) in [(vec![], vec![], 4), (vec![1], vec![], 4), (vec![1, 2], vec![0, 0], 1)] {
            assert!(SampleBatch::try_new(samples, classes, rows).is_err());
        }
    }
}
