//! How many latent tokens an image keeps in a training step (modeling/modules/blocks.py, the decoder's constructor).
//!
//! Keeping all is the most likely; of the shorter lengths each is half as likely as the next. So the first tokens learn to say
//! the most.

use crate::{ModelError, TokenizerConfig};
use schemas::RandomStream;

/// The lengths that may be kept, and how likely each is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NestedDropout {
    lengths: Vec<usize>,
    probabilities: Vec<f64>,
}

impl NestedDropout {
    /// As `config` says, if it drops tokens at all.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn of(config: &TokenizerConfig) -> Result<Option<Self>, ModelError> {
        let new =
            |drop_probability| Self::new(config.levels().tokens_per_image(), config.fewest_tokens(), drop_probability);
        config.nested_dropout().map(new).transpose()
    }

    /// Lengths are `latent_tokens`, a half of it, a quarter and so on, but none below `fewest_tokens` (`num_min_tokens`).
    ///
    /// With `drop_probability` p, all tokens are kept with a probability of 1 - 1 / floor(1 / p), which is 1 - p where 1 / p is a
    /// whole number. With 0, all lengths are equally likely, as in the published code.
    ///
    /// # Errors
    /// When `drop_probability` is not between 0 and 1, or no length is left.
    pub(crate) fn new(latent_tokens: usize, fewest_tokens: usize, drop_probability: f64) -> Result<Self, ModelError> {
        if !(0.0..=1.0).contains(&drop_probability) {
            return Err(ModelError::setting("drop_prob", drop_probability, "a probability between 0 and 1"));
        }
        let halves = std::iter::successors(Some(latent_tokens), |&length| (length > 1).then_some(length / 2));
        let mut lengths: Vec<_> = halves.filter(|&length| length >= fewest_tokens.max(1)).collect();
        lengths.reverse();
        let Some(shorter) = lengths.len().checked_sub(1) else {
            let expected = format!("at most num_latent_tokens, which is {latent_tokens}");
            return Err(ModelError::setting("num_min_tokens", fewest_tokens, expected));
        };
        let weights: Vec<f64> = if shorter == 0 || drop_probability == 0.0 {
            vec![1.0; lengths.len()]
        } else {
            let mut weights: Vec<f64> = (0..shorter).map(|length| (length as f64).exp2()).collect();
            weights.push(weights.iter().sum::<f64>() * ((1.0 / drop_probability).floor() - 1.0));
            weights
        };
        let sum: f64 = weights.iter().sum();
        Ok(Self { lengths, probabilities: weights.iter().map(|weight| weight / sum).collect() })
    }

    /// The lengths, shortest first.
    #[cfg(test)]
    pub(crate) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// How likely each length is.
    #[cfg(test)]
    pub(crate) fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// The length that one image keeps.
    pub(crate) fn draw(&self, stream: &mut RandomStream) -> usize {
        let mut rest = stream.uniform();
        for (&length, &probability) in self.lengths.iter().zip(&self.probabilities) {
            if rest < probability {
                return length;
            }
            rest -= probability;
        }
        // What rounding leaves of the sum of probabilities; the last length is always there.
        self.lengths[self.lengths.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_setting_keeps_all_tokens_of_four_images_in_five() {
        let dropout = NestedDropout::new(128, 4, 0.2).expect("published");
        assert_eq!(dropout.lengths(), [4, 8, 16, 32, 64, 128]);
        let expected = [1.0, 2.0, 4.0, 8.0, 16.0, 124.0].map(|weight| weight / 155.0);
        for (found, expected) in dropout.probabilities().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
    }

    #[test]
    fn lengths_are_drawn_as_often_as_they_are_likely() {
        let dropout = NestedDropout::new(128, 4, 0.2).expect("published");
        let mut counts = [0_f64; 6];
        for image in 0..40_000 {
            let length = dropout.draw(&mut RandomStream::new(11, "nested dropout", image));
            counts[dropout.lengths().iter().position(|&known| known == length).expect("a known length")] += 1.0;
        }
        for (count, probability) in counts.iter().zip(dropout.probabilities()) {
            let deviation = (40_000.0 * probability * (1.0 - probability)).sqrt();
            assert!((count - 40_000.0 * probability).abs() < 5.0 * deviation, "{counts:?}");
        }
    }

    #[test]
    fn settings_at_the_ends_work_or_are_refused() {
        let never_all = NestedDropout::new(8, 2, 1.0).expect("a probability");
        assert_eq!(never_all.probabilities(), [1.0 / 3.0, 2.0 / 3.0, 0.0]);
        let only_all = NestedDropout::new(8, 8, 0.2).expect("one length");
        assert_eq!((only_all.lengths(), only_all.probabilities()), (&[8][..], &[1.0][..]));
        assert_eq!(only_all.draw(&mut RandomStream::new(0, "", 0)), 8);
        for (fewest, probability, named) in
            [(9, 0.2, "num_min_tokens"), (4, 1.5, "drop_prob"), (4, f64::NAN, "drop_prob")]
        {
            let error = NestedDropout::new(8, fewest, probability).expect_err("cannot be").to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
