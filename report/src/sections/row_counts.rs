//! What became of the images: written and rejected, with reasons.

use super::{part, table, tile};
use crate::{
    gather::Tables,
    text::{bytes, count, percent},
};
use maud::{Markup, html};

pub(super) fn section(tables: &Tables) -> Markup {
    let row_counts = &tables.inspection.row_counts;
    let rejected = row_counts.rejected_total();
    let reasons: Vec<Vec<String>> = row_counts
        .rejected
        .iter()
        .map(|(reason, number)| {
            let fraction = |whole: u64| percent(*number as f64 / whole.max(1) as f64);
            vec![reason.to_string(), count(*number), fraction(rejected), fraction(row_counts.listed)]
        })
        .collect();
    let named: Vec<Vec<String>> = tables
        .rejects
        .iter()
        .map(|row| {
            let reason = row.rejected.map_or(String::new(), |reason| reason.to_string());
            vec![row.image_id.clone(), reason, row.error.clone().unwrap_or_default(), bytes(row.bytes.max(0) as u64)]
        })
        .collect();
    let left_out: Vec<Vec<String>> = row_counts
        .left_out
        .iter()
        .map(|(reason, left)| vec![reason.describe().to_owned(), count(left.count), left.first.clone()])
        .collect();
    let content = html! {
        ul.tiles {
            (tile(&count(row_counts.listed), "listed"))
            (tile(&count(row_counts.written), "written"))
            (tile(&count(rejected), &format!("rejected ({})", percent(row_counts.reject_rate()))))
            (tile(&count(row_counts.token_rows), "rows of tokens"))
            @if row_counts.bytes_read > 0 { (tile(&bytes(row_counts.bytes_read), "read")) }
        }
        @if !tables.inspection.finished {
            p.note { "The output is not finished: this counts the units that are complete." }
        }
        @if !reasons.is_empty() {
            h4 { "Why images were rejected" }
            (table(&["reason", "images", "of the rejected", "of all"], &reasons))
        }
        @if !named.is_empty() {
            h4 { @if named.len() as u64 == rejected { "Every rejected image" } @else { "The first rejected images" } }
            div.words { (table(&["image", "reason", "error", "size"], &named)) }
        }
        @if !left_out.is_empty() {
            h4 { "What the source holds beside images" }
            div.words { (table(&["what", "number", "the first"], &left_out)) }
        }
    };
    part("Row counts", content)
}
