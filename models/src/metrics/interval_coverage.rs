//! How often intervals hold what they should, over sets that are drawn again and again.

use schemas::ConfidenceInterval;

/// Fraction of the intervals that hold what the scores are on average.
pub(super) fn held(runs: &[(f64, ConfidenceInterval)]) -> f64 {
    let truth = runs.iter().map(|(score, _)| score).sum::<f64>() / runs.len() as f64;
    runs.iter().filter(|(_, interval)| interval.holds(truth)).count() as f64 / runs.len() as f64
}

/// Holds intervals of 95 % to hold the truth 93 to 97 times in 100.
pub(super) fn check(what: &str, runs: &[(f64, ConfidenceInterval)]) {
    let held = held(runs);
    assert!((0.93..=0.97).contains(&held), "{what}: {:.1} % of intervals hold the truth", 100.0 * held);
}
