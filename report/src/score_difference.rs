//! Whether two sets' scores differ by more than chance, in a sentence.

use crate::charts::significant;
use schemas::{ConfidenceInterval, Estimate, EvaluationRecord, ScoreDifference};

/// Digits of a difference: it is known to no more.
const DIGITS: usize = 3;

/// What the difference of a score of two sets says: `score` is its name, `sets` are theirs, and `confidence` is in percent.
///
/// The sets' images must have been drawn independently, such as with two seeds.
pub fn sentence(score: &str, sets: [&str; 2], estimates: [Estimate; 2], confidence: f64) -> String {
    let [first, second] = sets;
    let found = ScoreDifference::of(estimates[0], estimates[1]);
    let ConfidenceInterval { lower, upper } = found.interval;
    let number = |value| significant(value, DIGITS);
    if !found.is_more_than_chance() {
        return format!(
            "{score} of {first} and of {second} differ by {}, which may be chance ({confidence} % interval of the difference: {} to {}).",
            number(found.difference.abs()),
            number(lower),
            number(upper)
        );
    }
    // The bounds of how much, whichever is more.
    let (than, least, most) = match found.difference < 0.0 {
        true => ("lower", -upper, -lower),
        false => ("higher", lower, upper),
    };
    format!(
        "{score} of {first} is {} {than} than that of {second}, more than chance ({confidence} % interval of the difference: {} to {}).",
        number(found.difference.abs()),
        number(least),
        number(most)
    )
}

/// A sentence on the FID of each line beside that of the lowest, where both have intervals of one confidence, one reference and one
/// network; `name` says what a line is called.
pub(crate) fn beside_the_lowest(
    lines: &[&EvaluationRecord],
    name: impl Fn(&EvaluationRecord) -> String,
) -> Vec<String> {
    let of = |record: &EvaluationRecord| {
        let (score, intervals) = (record.scores.fid?, record.scores.intervals.as_ref()?);
        Some((Estimate { score, interval: intervals.fid? }, intervals.confidence))
    };
    let known = || lines.iter().filter_map(|record| Some((*record, of(record)?)));
    let Some((lowest, (least, confidence))) = known().min_by(|one, other| one.1.0.score.total_cmp(&other.1.0.score))
    else {
        return Vec::new();
    };
    let comparable = |record: &EvaluationRecord, other: f64| {
        record.reference_sha256 == lowest.reference_sha256
            && record.extractor_sha256 == lowest.extractor_sha256
            && record.extractor_precision == lowest.extractor_precision
            && other == confidence
    };
    let others = known().filter(|(record, (_, other))| !std::ptr::eq(*record, lowest) && comparable(record, *other));
    others
        .map(|(record, (estimate, _))| sentence("FID", [&name(lowest), &name(record)], [least, estimate], confidence))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::{Protocol, ScoreIntervals, Scores};

    fn estimate(score: f64, half: f64) -> Estimate {
        Estimate { score, interval: ConfidenceInterval { lower: score - half, upper: score + half } }
    }

    #[test]
    fn a_difference_is_more_than_chance_or_may_be_chance() {
        let said = |second| sentence("FID", ["a", "b"], [estimate(2.34, 0.03), estimate(second, 0.04)], 95.0);
        assert_eq!(
            said(2.44),
            "FID of a is 0.1 lower than that of b, more than chance (95 % interval of the difference: 0.05 to 0.15)."
        );
        assert_eq!(
            said(2.14),
            "FID of a is 0.2 higher than that of b, more than chance (95 % interval of the difference: 0.15 to 0.25)."
        );
        assert_eq!(
            said(2.36),
            "FID of a and of b differ by 0.02, which may be chance (95 % interval of the difference: -0.07 to 0.03)."
        );
    }

    #[test]
    fn lines_are_compared_with_the_lowest_of_their_reference() {
        let record = |source: &str, fid: f64, reference: &str, confidence| {
            let intervals =
                ScoreIntervals { confidence, fid: Some(estimate(fid, 0.01).interval), ..ScoreIntervals::default() };
            EvaluationRecord {
                reference_sha256: Some(reference.to_owned()),
                scores: Scores { fid: Some(fid), intervals: Some(intervals), ..Scores::default() },
                ..EvaluationRecord::new(Protocol::GfidAdm, source)
            }
        };
        let without = EvaluationRecord::new(Protocol::GfidAdm, "without");
        let lines = [
            record("high", 3.0, "r", 95.0),
            record("low", 2.0, "r", 95.0),
            record("another reference", 2.5, "s", 95.0),
            record("another confidence", 2.5, "r", 90.0),
            without,
        ];
        let said = beside_the_lowest(&lines.iter().collect::<Vec<_>>(), |record| record.source.clone());
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("FID of low is 1 lower than that of high, more than chance"), "{said:?}");
        assert!(beside_the_lowest(&[], |record| record.source.clone()).is_empty());
    }
}
