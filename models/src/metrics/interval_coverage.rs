//! How often intervals hold what they should, over sets that are drawn again and again.

use schemas::ConfidenceInterval;

/// Holds intervals of 95 % to hold the truth, what the scores are on average, 93 to 97 times in 100.
pub(super) fn check(what: &str, runs: &[(f64, ConfidenceInterval)]) {
    let truth = runs.iter().map(|(score, _)| score).sum::<f64>() / runs.len() as f64;
    let held = runs.iter().filter(|(_, interval)| interval.holds(truth)).count() as f64 / runs.len() as f64;
    assert!((0.93..=0.97).contains(&held), "{what}: {:.1} % of intervals hold the truth", 100.0 * held);
}
