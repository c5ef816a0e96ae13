//! Scores of sets, protocol by protocol, with every deviation beside the numbers: numbers of two protocols do not compare, nor do
//! those of one that was not kept.

use super::{part, provenance, score_curves};
use crate::{
    score_difference::beside_the_lowest,
    score_lines::{columns, end_of},
    text::count,
};
use maud::{Markup, html};
use schemas::{EvaluationRecord, Protocol};

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
