//! Scores of sets, protocol by protocol, with every deviation beside the numbers: numbers of two protocols do not compare, nor do
//! those of one that was not kept.

use super::{part, provenance, score_curves};
use crate::{charts::significant, score_difference::beside_the_lowest, text::count};
use maud::{Markup, html};
use schemas::{ConfidenceInterval, EvaluationRecord, Protocol, ScoreIntervals};

/// A number that is measured.
pub(super) struct Column {
    /// What it is called.
    pub(super) name: &'static str,
    digits: usize,
    of: fn(&EvaluationRecord) -> Option<f64>,
    interval: fn(&ScoreIntervals) -> Option<ConfidenceInterval>,
}

/// Of a number that has no interval.
const WITHOUT: fn(&ScoreIntervals) -> Option<ConfidenceInterval> = |_| None;

/// Every number of a line, in the order in which papers give them.
static COLUMNS: [Column; 19] = [
    Column { name: "FID", digits: 5, of: |record| record.scores.fid, interval: |of| of.fid },
    Column { name: "sFID", digits: 5, of: |record| record.scores.sfid, interval: |of| of.sfid },
    Column {
        name: "inception score",
        digits: 5,
        of: |record| record.scores.inception_score,
        interval: |of| of.inception_score,
    },
    Column { name: "precision", digits: 4, of: |record| record.scores.precision, interval: |of| of.precision },
    Column { name: "recall", digits: 4, of: |record| record.scores.recall, interval: |of| of.recall },
    Column { name: "KID", digits: 4, of: |record| record.scores.kid, interval: |of| of.kid },
    Column { name: "KID deviation", digits: 3, of: |record| record.scores.kid_deviation, interval: WITHOUT },
    Column { name: "MIND", digits: 5, of: |record| record.scores.mind, interval: WITHOUT },
    Column { name: "density", digits: 4, of: |record| record.scores.density, interval: |of| of.density },
    Column { name: "coverage", digits: 4, of: |record| record.scores.coverage, interval: |of| of.coverage },
    Column { name: "FID infinity", digits: 5, of: |record| record.scores.fid_infinity, interval: WITHOUT },
    Column { name: "Vendi score", digits: 5, of: |record| record.scores.vendi_score, interval: WITHOUT },
    Column { name: "AuthPct", digits: 4, of: |record| record.scores.authpct, interval: WITHOUT },
    Column { name: "PSNR, dB", digits: 4, of: |record| record.scores.psnr, interval: WITHOUT },
    Column { name: "SSIM", digits: 4, of: |record| record.scores.ssim, interval: WITHOUT },
    Column { name: "MS-SSIM", digits: 4, of: |record| record.scores.ms_ssim, interval: WITHOUT },
    Column { name: "LPIPS", digits: 4, of: |record| record.scores.lpips, interval: WITHOUT },
    Column {
        name: "codes used",
        digits: 15,
        of: |record| record.scores.codes_used.map(|codes| codes as f64),
        interval: WITHOUT,
    },
    Column { name: "entropy, bits", digits: 4, of: |record| record.scores.entropy_bits, interval: WITHOUT },
];

impl Column {
    /// The number of a line.
    pub(super) fn value(&self, record: &EvaluationRecord) -> Option<f64> {
        (self.of)(record)
    }

    /// The number as text, with its interval where it has one; empty where there is none.
    pub(super) fn text(&self, record: &EvaluationRecord) -> String {
        let Some(value) = self.value(record) else { return String::new() };
        let number = |value| significant(value, self.digits);
        match record.scores.intervals.as_ref().and_then(self.interval) {
            None => number(value),
            Some(ConfidenceInterval { lower, upper }) => {
                format!("{} [{}, {}]", number(value), number(lower), number(upper))
            }
        }
    }
}

/// The numbers that any of the lines has.
pub(super) fn columns<'a>(records: impl Iterator<Item = &'a EvaluationRecord> + Clone) -> Vec<&'static Column> {
    COLUMNS.iter().filter(|column| records.clone().any(|record| column.value(record).is_some())).collect()
}

/// The protocol, and whether it was kept.
pub(super) fn protocol(record: &EvaluationRecord) -> Markup {
    match record.deviations.is_empty() {
        true => html! { span.badge.done { (record.protocol) " kept" } },
        false => html! { span.badge.open { "not " (record.protocol) } },
    }
}

/// The lines of a scores table; nothing without any.
pub(super) fn section(records: &[EvaluationRecord]) -> Markup {
    if records.is_empty() {
        return html! {};
    }
    let content = html! {
        @for protocol in Protocol::ALL {
            @let lines: Vec<&EvaluationRecord> = records.iter().filter(|record| record.protocol == protocol).collect();
            @if !lines.is_empty() { (lines_of(protocol, &lines)) }
        }
    };
    part("Scores", content)
}

fn lines_of(protocol_: Protocol, lines: &[&EvaluationRecord]) -> Markup {
    let columns = columns(lines.iter().copied());
    let reconstructed = lines.iter().any(|record| record.kept_tokens.is_some());
    html! {
        h4 { "Protocol " code { (protocol_) } }
        div.scroll {
            table.scores {
                thead {
                    tr {
                        th scope="col" { "set" }
                        th scope="col" { "images" }
                        @if reconstructed { th scope="col" { "tokens kept" } }
                        @for column in &columns { th scope="col" { (column.name) } }
                        th scope="col" { "protocol" }
                    }
                }
                tbody {
                    @for record in lines {
                        tr {
                            td title=(record.source) { (end_of(&record.source)) }
                            td { (count(record.images)) }
                            @if reconstructed { td { (record.kept_tokens.map_or(String::new(), |kept| kept.to_string())) } }
                            @for column in &columns { td { (column.text(record)) } }
                            td { (protocol(record)) }
                        }
                        @if !record.deviations.is_empty() {
                            tr.deviation { td colspan=(columns.len() + 3 + usize::from(reconstructed)) { div { (record.deviations.join("; ")) } } }
                        }
                    }
                }
            }
        }
        @for sentence in beside_the_lowest(lines, |record| end_of(&record.source)) { p { (sentence) } }
        (score_curves::charts(lines))
        @for record in lines { (made(record)) }
    }
}

/// Everything that made a line, and all its numbers.
fn made(record: &EvaluationRecord) -> Markup {
    html! {
        details {
            summary {
                "What made " code { (record.evaluation) }
                @if let Some(kept) = record.kept_tokens { ", " (kept) " tokens kept" }
            }
            (provenance::document(&serde_json::to_value(record).unwrap_or_default()))
        }
    }
}

/// The end of an address, by which a set is known; of pictures of an output, that of the output.
pub(super) fn end_of(address: &str) -> String {
    const PARTS: usize = 2;
    let address = address.split_once("/pictures/").map_or(address, |(output, _)| output);
    let parts: Vec<&str> = address.split('/').filter(|part| !part.is_empty()).collect();
    match parts.len() > PARTS {
        true => format!("…/{}", parts[parts.len() - PARTS..].join("/")),
        false => address.to_owned(),
    }
}
