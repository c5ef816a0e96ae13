//! The sets of a sweep beside each other.

use super::{part, pictures, scores};
use crate::{
    charts::{Line, LineChart, Span, significant},
    gather::{Sweep, SweepPoint},
    score_lines::{ScoreColumn, columns},
    text::{count, counted, percent},
};
use maud::{Markup, html};
use schemas::EvaluationRecord;
use std::collections::BTreeMap;

pub(super) fn section(sweep: &Sweep, records: &[EvaluationRecord]) -> Markup {
    let (scored, others) = comparable(sweep, records);
    let columns = columns(scored.iter().flatten().copied());
    let heading =
        ["guidance", "schedule", "top-p", "temperature", "samples", "codes used", "of codebook", "entropy, bits"];
    let content = html! {
        div.scroll {
            table {
                thead {
                    tr {
                        @for name in heading { th scope="col" { (name) } }
                        @for column in &columns { th scope="col" { (column.name) } }
                        @if !columns.is_empty() { th scope="col" { "protocol" } }
                    }
                }
                tbody {
                    @for (point, record) in sweep.points.iter().zip(&scored) {
                        tr {
                            @for cell in cells(point) { td { (cell) } }
                            @for column in &columns { td { (record.map_or(String::new(), |record| column.text(record))) } }
                            @if !columns.is_empty() { td { @if let Some(record) = record { (scores::protocol(record)) } } }
                        }
                    }
                }
            }
        }
        @if others > 0 { p.note { (told(&scored, others)) } }
        @for (point, record) in sweep.points.iter().zip(&scored) {
            @if let Some(record) = record { @if !record.deviations.is_empty() {
                p.warning { (point.name) ": not the protocol " (record.protocol) ". " (record.deviations.join("; ")) "." }
            } }
        }
        (charts(sweep, &scored, &columns))
        @if sweep.points.iter().any(|point| !point.pictures.is_empty()) {
            h4 { "The first pictures of each set" }
            @if sweep.left_out.total() > 0 { p.note { (pictures::left_out(sweep.left_out)) } }
            div.classes.wide {
                @for point in &sweep.points {
                    figure.class { figcaption { (title(point)) } div.samples { @for picture in &point.pictures { (pictures::sample(picture)) } } }
                }
            }
        }
    };
    part("Sets of the sweep", content)
}

/// What two lines must have in common for their numbers to be compared.
type Terms<'a> = (&'static str, [Option<&'a str>; 4], u64);

fn terms(record: &EvaluationRecord) -> Terms<'_> {
    let compared = [&record.reference, &record.reference_sha256, &record.extractor_sha256, &record.extractor_precision];
    (record.protocol.name(), compared.map(Option::as_deref), record.images)
}

/// A line for each set, all of them on the same terms: those that most sets were scored on, and of those alike the ones on which the
/// protocol was kept most often. Besides, how many other lines there are of these sets.
fn comparable<'a>(sweep: &Sweep, records: &'a [EvaluationRecord]) -> (Vec<Option<&'a EvaluationRecord>>, usize) {
    let mut groups: BTreeMap<Terms<'_>, Vec<Option<&EvaluationRecord>>> = BTreeMap::new();
    let mut lines = 0;
    // Of what was reconstructed from tokens, the set is not what was scored.
    for record in records.iter().filter(|record| record.kept_tokens.is_none()) {
        let Some(place) = sweep.points.iter().position(|point| is_of(record, point)) else { continue };
        lines += 1;
        let group = groups.entry(terms(record)).or_insert_with(|| vec![None; sweep.points.len()]);
        let preference = |record: &EvaluationRecord| (record.deviations.len(), record.evaluation.clone());
        if group[place].is_none_or(|other| preference(record) < preference(other)) {
            group[place] = Some(record);
        }
    }
    let merit = |group: &[Option<&EvaluationRecord>]| {
        let kept = group.iter().flatten().filter(|record| record.deviations.is_empty()).count();
        (group.iter().flatten().count(), kept)
    };
    // Of several alike, the first: what is shown must not depend on chance.
    let best = groups.into_values().rev().max_by_key(|group| merit(group));
    let best = best.unwrap_or_else(|| vec![None; sweep.points.len()]);
    let others = lines - best.iter().flatten().count();
    (best, others)
}

fn told(scored: &[Option<&EvaluationRecord>], others: usize) -> String {
    let Some(record) = scored.iter().flatten().next() else { return String::new() };
    let reference = record.reference.as_deref().map_or(String::new(), |reference| format!(" against {reference}"));
    format!(
        "Scores here are of {}{reference}, of {} each. {} of these sets, on other terms or besides, {} only in the table of scores below.",
        record.protocol,
        counted(record.images, "image"),
        counted(others as u64, "other line"),
        if others == 1 { "is" } else { "are" },
    )
}

/// Whether a line speaks of a set: of the output itself, or of its pictures. Both are addresses as storage shows them.
fn is_of(record: &EvaluationRecord, point: &SweepPoint) -> bool {
    let below = record.source.strip_prefix(&point.address);
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

fn cells(point: &SweepPoint) -> Vec<String> {
    let (scale, schedule, top_p, temperature) = point.sampling();
    let size = point.settings.tokenizer.codebook_size;
    vec![
        scale.to_string(),
        schedule.to_owned(),
        top_p.to_string(),
        temperature.to_string(),
        count(point.samples),
        count(point.codes_used),
        percent(point.codes_used as f64 / size.max(1) as f64),
        format!("{:.2}", point.entropy_bits),
    ]
}

fn title(point: &SweepPoint) -> String {
    let (scale, schedule, top_p, temperature) = point.sampling();
    format!("guidance {scale} ({schedule}), top-p {top_p}, temperature {temperature}")
}

/// Everything that is measured against the scale of guidance, a line for each combination of the other settings.
fn charts(sweep: &Sweep, scored: &[Option<&EvaluationRecord>], columns: &[&ScoreColumn]) -> Markup {
    let mut scales: Vec<f64> = sweep.points.iter().map(|point| point.sampling().0).collect();
    scales.sort_by(f64::total_cmp);
    scales.dedup();
    if scales.len() < 2 {
        return html! {};
    }
    let chart = |title: &str, value: &dyn Fn(usize) -> Option<f64>| {
        let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (number, point) in sweep.points.iter().enumerate() {
            let (scale, schedule, top_p, temperature) = point.sampling();
            if let Some(value) = value(number) {
                lines
                    .entry(format!("{schedule}, top-p {top_p}, temperature {temperature}"))
                    .or_default()
                    .push((scale, value));
            }
        }
        let lines = lines.into_iter().map(|(name, points)| Line { name, points }).collect();
        let chart = LineChart {
            title: title.to_owned(),
            across: "guidance",
            across_span: Span::Exact,
            span: Span::Data,
            named: false,
            lines,
        };
        chart.render()
    };
    html! {
        div.charts {
            @for column in columns { (chart(column.name, &|number| scored[number].and_then(|record| column.value(record)))) }
            (chart("Codes used", &|number| Some(sweep.points[number].codes_used as f64)))
            (chart("Entropy of the codes, bits", &|number| significant(sweep.points[number].entropy_bits, 8).parse().ok()))
        }
    }
}
