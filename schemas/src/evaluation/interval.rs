//! How far a score may be from what it estimates, and whether two scores differ by more than that.

use crate::SchemaError;
use serde::{Deserialize, Serialize};

/// Bounds within which what a score estimates lies with the confidence that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfidenceInterval {
    /// The lower bound.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
}

impl ConfidenceInterval {
    /// Takes bounds.
    ///
    /// # Errors
    /// When one is no number, or the lower is above the upper.
    pub fn try_new(lower: f64, upper: f64) -> Result<Self, SchemaError> {
        if lower.is_finite() && upper.is_finite() && lower <= upper {
            return Ok(Self { lower, upper });
        }
        Err(SchemaError::Shape {
            what: "confidence interval",
            found: format!("{lower} to {upper}"),
            expected: "two numbers, the lower first".to_owned(),
        })
    }

    /// Whether `value` lies between the bounds or on one.
    pub fn holds(&self, value: f64) -> bool {
        (self.lower..=self.upper).contains(&value)
    }
}

/// A score with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The score.
    pub score: f64,
    /// Its interval.
    pub interval: ConfidenceInterval,
}

/// By how much one set's score is above another's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreDifference {
    /// The first score less the second.
    pub difference: f64,
    /// Its interval, of the confidence that the two scores' have.
    pub interval: ConfidenceInterval,
}

impl ScoreDifference {
    /// The difference of the scores of two sets whose images were drawn independently, such as with two seeds.
    ///
    /// The bounds are those of Zou and Donner ("Construction of confidence limits about effect measures", 2008): each side takes
    /// the halves of the two intervals that speak against it, as the sides of a right triangle. Intervals need not be symmetric.
    pub fn of(first: Estimate, second: Estimate) -> Self {
        let difference = first.score - second.score;
        // Not `f64::hypot`: it alone would have the program ask for glibc 2.35.
        let hypotenuse = |one: f64, other: f64| (one * one + other * other).sqrt();
        let below = hypotenuse(first.score - first.interval.lower, second.interval.upper - second.score);
        let above = hypotenuse(first.interval.upper - first.score, second.score - second.interval.lower);
        Self { difference, interval: ConfidenceInterval { lower: difference - below, upper: difference + above } }
    }

    /// Whether the interval leaves out 0: the two sets differ by more than chance.
    pub fn is_more_than_chance(&self) -> bool {
        !self.interval.holds(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(score: f64, lower: f64, upper: f64) -> Estimate {
        Estimate { score, interval: ConfidenceInterval::try_new(lower, upper).expect("bounds") }
    }

    #[test]
    fn a_difference_is_as_wide_as_both_intervals_at_right_angles() {
        let (first, second) = (estimate(3.0, 2.7, 3.3), estimate(2.0, 1.6, 2.4));
        let found = ScoreDifference::of(first, second);
        assert!((found.interval.lower - 0.5).abs() < 1e-12 && (found.interval.upper - 1.5).abs() < 1e-12, "{found:?}");
        assert!(found.is_more_than_chance());
        let reversed = ScoreDifference::of(second, first);
        assert!((reversed.interval.upper + found.interval.lower).abs() < 1e-12);
        assert!(!ScoreDifference::of(first, first).is_more_than_chance());
        // The side that speaks against it counts, not the other one.
        let skewed = ScoreDifference::of(estimate(3.0, 2.9, 9.0), estimate(2.5, 0.0, 2.6));
        assert!(skewed.is_more_than_chance() && skewed.interval.upper > 6.0, "{skewed:?}");
    }

    #[test]
    fn bounds_that_cannot_be_are_refused() {
        for (lower, upper) in [(2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
            let error = ConfidenceInterval::try_new(lower, upper).expect_err("refused").to_string();
            assert!(error.contains("the lower first"), "{error}");
        }
    }
}
