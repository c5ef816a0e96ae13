//! Lines of scores tables: their numbers, column by column, and what their sets are called.

use crate::charts::significant;
use schemas::{ConfidenceInterval, EvaluationRecord, ScoreDirection, ScoreIntervals, ScoreKind};

/// What a number is measured with, which decides what must be alike before two compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measured {
    /// Features of an extractor.
    Features(ScoreKind),
    /// Pixels, image by image.
    Pixels,
    /// The networks of LPIPS, image by image.
    Lpips,
    /// Codes of a codebook.
    Codes,
}

/// A number of a line.
#[derive(Debug)]
pub struct ScoreColumn {
    /// The name by which it is asked for.
    pub(crate) key: &'static str,
    /// Its column in a scores table.
    pub(crate) field: &'static str,
    /// What it is called.
    pub(crate) name: &'static str,
    pub(crate) measured: Measured,
    /// Which of two is better; absent where neither is.
    pub(crate) direction: Option<ScoreDirection>,
    /// Significant digits where it stands alone.
    digits: usize,
    /// Decimals where it stands below others, as papers have them.
    decimals: usize,
    of: fn(&EvaluationRecord) -> Option<f64>,
    interval: fn(&ScoreIntervals) -> Option<ConfidenceInterval>,
}

/// Of a number that has no interval.
const WITHOUT: fn(&ScoreIntervals) -> Option<ConfidenceInterval> = |_| None;

const LOWER: Option<ScoreDirection> = Some(ScoreDirection::Lower);
const HIGHER: Option<ScoreDirection> = Some(ScoreDirection::Higher);

/// Every number of a line, in the order in which papers give them.
static COLUMNS: [ScoreColumn; 19] = [
    ScoreColumn::of_kind(ScoreKind::Fid, ["fid", "FID"], [5, 2], |record| record.scores.fid).with(|of| of.fid),
    ScoreColumn::of_kind(ScoreKind::Sfid, ["sfid", "sFID"], [5, 2], |record| record.scores.sfid).with(|of| of.sfid),
    ScoreColumn::of_kind(ScoreKind::Is, ["inception_score", "inception score"], [5, 2], |record| {
        record.scores.inception_score
    })
    .with(|of| of.inception_score),
    ScoreColumn::of_kind(ScoreKind::Precision, ["precision", "precision"], [4, 3], |record| record.scores.precision)
        .with(|of| of.precision),
    ScoreColumn::of_kind(ScoreKind::Recall, ["recall", "recall"], [4, 3], |record| record.scores.recall)
        .with(|of| of.recall),
    ScoreColumn::of_kind(ScoreKind::Kid, ["kid", "KID"], [4, 6], |record| record.scores.kid).with(|of| of.kid),
    ScoreColumn {
        key: "kid-deviation",
        direction: None,
        ..ScoreColumn::of_kind(ScoreKind::Kid, ["kid_deviation", "KID deviation"], [3, 6], |record| {
            record.scores.kid_deviation
        })
    },
    ScoreColumn::of_kind(ScoreKind::Mind, ["mind", "MIND"], [5, 2], |record| record.scores.mind),
    ScoreColumn::of_kind(ScoreKind::Density, ["density", "density"], [4, 3], |record| record.scores.density)
        .with(|of| of.density),
    ScoreColumn::of_kind(ScoreKind::Coverage, ["coverage", "coverage"], [4, 3], |record| record.scores.coverage)
        .with(|of| of.coverage),
    ScoreColumn::of_kind(ScoreKind::FidInfinity, ["fid_infinity", "FID infinity"], [5, 2], |record| {
        record.scores.fid_infinity
    }),
    ScoreColumn::of_kind(ScoreKind::Vendi, ["vendi_score", "Vendi score"], [5, 2], |record| record.scores.vendi_score),
    ScoreColumn::of_kind(ScoreKind::Authpct, ["authpct", "AuthPct"], [4, 2], |record| record.scores.authpct),
    ScoreColumn::of_images(Measured::Pixels, HIGHER, ["psnr", "psnr", "PSNR, dB"], [4, 2], |record| record.scores.psnr),
    ScoreColumn::of_images(Measured::Pixels, HIGHER, ["ssim", "ssim", "SSIM"], [4, 4], |record| record.scores.ssim),
    ScoreColumn::of_images(Measured::Pixels, HIGHER, ["ms-ssim", "ms_ssim", "MS-SSIM"], [4, 4], |record| {
        record.scores.ms_ssim
    }),
    ScoreColumn::of_images(Measured::Lpips, LOWER, ["lpips", "lpips", "LPIPS"], [4, 4], |record| record.scores.lpips),
    ScoreColumn::of_images(Measured::Codes, None, ["codes-used", "codes_used", "codes used"], [15, 0], |record| {
        record.scores.codes_used.map(|codes| codes as f64)
    }),
    ScoreColumn::of_images(
        Measured::Codes,
        None,
        ["entropy-bits", "entropy_bits", "entropy, bits"],
        [4, 2],
        |record| record.scores.entropy_bits,
    ),
];

impl ScoreColumn {
    /// A score of features: its column and what it is called, significant digits and decimals.
    const fn of_kind(
        kind: ScoreKind,
        [field, name]: [&'static str; 2],
        [digits, decimals]: [usize; 2],
        of: fn(&EvaluationRecord) -> Option<f64>,
    ) -> Self {
        Self {
            key: kind.name(),
            field,
            name,
            measured: Measured::Features(kind),
            direction: Some(kind.direction()),
            digits,
            decimals,
            of,
            interval: WITHOUT,
        }
    }

    /// A number of reconstructed images, likewise; the name by which it is asked for comes first.
    const fn of_images(
        measured: Measured,
        direction: Option<ScoreDirection>,
        [key, field, name]: [&'static str; 3],
        [digits, decimals]: [usize; 2],
        of: fn(&EvaluationRecord) -> Option<f64>,
    ) -> Self {
        Self { key, field, name, measured, direction, digits, decimals, of, interval: WITHOUT }
    }

    /// The same with an interval.
    const fn with(self, interval: fn(&ScoreIntervals) -> Option<ConfidenceInterval>) -> Self {
        Self { interval, ..self }
    }

    /// Every column, in the order in which papers give them.
    pub fn all() -> &'static [Self] {
        &COLUMNS
    }

    /// The name by which it is asked for.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// The number of a line.
    pub fn value(&self, record: &EvaluationRecord) -> Option<f64> {
        (self.of)(record)
    }

    /// The interval of the number of a line.
    pub(crate) fn interval(&self, record: &EvaluationRecord) -> Option<ConfidenceInterval> {
        record.scores.intervals.as_ref().and_then(self.interval)
    }

    /// The number as text, with its interval where it has one; empty where there is none.
    pub(crate) fn text(&self, record: &EvaluationRecord) -> String {
        let Some(value) = self.value(record) else { return String::new() };
        let number = |value| significant(value, self.digits);
        match self.interval(record) {
            None => number(value),
            Some(ConfidenceInterval { lower, upper }) => {
                format!("{} [{}, {}]", number(value), number(lower), number(upper))
            }
        }
    }

    /// A number with as many decimals as those above and below it. What rounds to 0 has no sign.
    pub(crate) fn rounded(&self, value: f64) -> String {
        let text = format!("{value:.0$}", self.decimals);
        match text.strip_prefix('-') {
            Some(size) if size.bytes().all(|byte| matches!(byte, b'0' | b'.')) => size.to_owned(),
            _ => text,
        }
    }
}

/// The numbers that any of the lines has.
pub fn columns<'a>(records: impl Iterator<Item = &'a EvaluationRecord> + Clone) -> Vec<&'static ScoreColumn> {
    COLUMNS.iter().filter(|column| records.clone().any(|record| column.value(record).is_some())).collect()
}

/// The end of an address, by which a set is known; of pictures of an output, that of the output.
pub(crate) fn end_of(address: &str) -> String {
    const PARTS: usize = 2;
    let address = address.split_once("/pictures/").map_or(address, |(output, _)| output);
    let parts: Vec<&str> = address.split('/').filter(|part| !part.is_empty()).collect();
    match parts.len() > PARTS {
        true => format!("…/{}", parts[parts.len() - PARTS..].join("/")),
        false => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_score_that_can_be_asked_for_has_a_column() {
        let keys: BTreeSet<&str> = COLUMNS.iter().map(ScoreColumn::key).collect();
        assert_eq!(keys.len(), COLUMNS.len(), "no key is that of two");
        assert!(ScoreKind::ALL.iter().all(|kind| keys.contains(kind.name())));
    }

    #[test]
    fn numbers_below_each_other_have_as_many_decimals() {
        let fid = &COLUMNS[0];
        assert_eq!(
            [2.3, 12.0, -1e-9, -0.004, -0.01].map(|value| fid.rounded(value)),
            ["2.30", "12.00", "0.00", "0.00", "-0.01"]
        );
    }
}
