//! Scores as a function of how many tokens were kept, and codes by level.

use crate::{
    charts::{Bar, BarChart, Line, LineChart, Span},
    score_lines::end_of,
};
use maud::{Markup, html};
use schemas::EvaluationRecord;
use std::collections::BTreeMap;

/// What a curve is of: an evaluation, its set, and the tokenizer that reconstructed it. Two evaluations of one set are two curves: what differs
/// between them may be anything, from the crop to the extractor.
type Curve<'a> = (&'a str, &'a str, Option<&'a str>);

/// A title, and the number that is drawn.
type Measure = (&'static str, fn(&EvaluationRecord) -> Option<f64>);

const MEASURES: [Measure; 5] = [
    ("PSNR, dB", |record| record.scores.psnr),
    ("SSIM", |record| record.scores.ssim),
    ("MS-SSIM", |record| record.scores.ms_ssim),
    ("LPIPS", |record| record.scores.lpips),
    ("FID", |record| record.scores.fid),
];

/// A chart for each measure of which at least two numbers of tokens are there, a line for each evaluation of a set; and the codes by
/// level of the first line that says them.
pub(super) fn charts(lines: &[&EvaluationRecord]) -> Markup {
    let measured = MEASURES.iter().filter_map(|measure| chart(lines, *measure));
    let by_level =
        lines.iter().find(|record| !record.scores.entropy_bits_by_level.is_empty()).map(|record| levels(record));
    let all: Vec<Markup> = measured.chain(by_level).collect();
    html! { @if !all.is_empty() { div.charts { @for chart in &all { (chart) } } } }
}

fn chart(lines: &[&EvaluationRecord], (title, of): Measure) -> Option<Markup> {
    let mut curves: BTreeMap<Curve<'_>, Vec<(f64, f64)>> = BTreeMap::new();
    for record in lines {
        if let (Some(kept), Some(value)) = (record.kept_tokens, of(record)) {
            let key = (record.evaluation.as_str(), record.source.as_str(), record.tokenizer.as_deref());
            curves.entry(key).or_default().push((f64::from(kept), value));
        }
    }
    curves.values_mut().for_each(|curve| curve.sort_by(|left, right| left.0.total_cmp(&right.0)));
    curves.retain(|_, curve| curve.first().map(|point| point.0) != curve.last().map(|point| point.0));
    if curves.is_empty() {
        return None;
    }
    let name = |(evaluation, source, tokenizer): Curve<'_>| {
        let by = tokenizer.map_or(String::new(), |tokenizer| format!(" by {}", end_of(tokenizer)));
        let broken = lines.iter().find(|record| record.evaluation == evaluation && !record.deviations.is_empty());
        let kept = broken.map_or(String::new(), |record| format!(", not {}", record.protocol));
        format!("{}{by} · {evaluation}{kept}", end_of(source))
    };
    let chart = LineChart {
        title: title.to_owned(),
        across: "tokens kept",
        across_span: Span::Doubling,
        span: Span::Data,
        named: true,
        lines: curves.into_iter().map(|(key, points)| Line { name: name(key), points }).collect(),
    };
    Some(chart.render())
}

fn levels(record: &EvaluationRecord) -> Markup {
    let whole = record.codebook_size.map_or(0.0, |size| (size as f64).log2());
    let bars = record.scores.entropy_bits_by_level.iter().enumerate().map(|(level, bits)| {
        let used =
            record.scores.codes_used_by_level.get(level).map_or(String::new(), |codes| format!(", {codes} codes used"));
        Bar {
            label: format!("level {level}"),
            fraction: if whole > 0.0 { bits / whole } else { 0.0 },
            most: None,
            value: format!("{bits:.2} bits"),
            told: format!("level {level}: {bits:.3} bits{used}"),
        }
    });
    BarChart { title: "Entropy of the codes by level".to_owned(), bars: bars.collect() }.render()
}
