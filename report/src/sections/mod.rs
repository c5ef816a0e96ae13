//! The parts of the page, each a function from what was read to what is shown. A part that has nothing to show is nothing.

mod codebook;
mod curves;
mod pictures;
mod provenance;
mod rates;
mod row_counts;
mod score_curves;
mod scores;
mod sweep;
mod training;

#[cfg(test)]
mod tests;

use super::gather::{Content, Subject};
use maud::{Markup, html};

/// Everything about one subject.
pub(super) fn subject(subject: &Subject, anchor: &str) -> Markup {
    html! {
        article id=(anchor) {
            header {
                p.kind { (subject.content.kind()) @if let Some((state, class)) = state(subject) { " " span.badge.(class) { (state) } } }
                h2 { (subject.name) }
                p.address { (subject.address) }
                @if let Content::Tables(tables) = &subject.content { p.address { "plan " (tables.inspection.plan) } }
            }
            @match &subject.content {
                Content::Tables(tables) => {
                    (row_counts::section(tables))
                    (pictures::of_a_set(tables))
                    (scores::section(&subject.scores))
                    (codebook::section(&tables.inspection))
                    (rates::section(&tables.logs))
                    (provenance::of_an_output(tables))
                }
                Content::Training(run) => {
                    (training::section(run))
                    (curves::section(&run.metrics))
                    (pictures::of_a_training(&run.sheets))
                    (scores::section(&subject.scores))
                    (provenance::of_a_training(run))
                }
                Content::Sweep(sweep) => {
                    (sweep::section(sweep, &subject.scores))
                    (scores::section(&subject.scores))
                    (provenance::of_a_sweep(sweep))
                }
                Content::Sheet(sheet) => {
                    (pictures::of_a_file(sheet))
                    (scores::section(&subject.scores))
                }
                Content::Scores => {
                    (scores::section(&subject.scores))
                    @if subject.scores.is_empty() { p { "No scores are to be read here." } }
                }
            }
        }
    }
}

/// How far a subject is, in words, and the class of its badge; `None` where that is no question.
pub(super) fn state(subject: &Subject) -> Option<(String, &'static str)> {
    match &subject.content {
        Content::Tables(tables) => {
            let (units, inspection) = (&tables.inspection.units, &tables.inspection);
            Some(match inspection.finished {
                true => ("finished".to_owned(), "done"),
                false => (format!("unfinished: {} of {} units", units.complete, units.total), "open"),
            })
        }
        Content::Training(run) => Some(match run.finished {
            true => ("finished".to_owned(), "done"),
            false => ("not finished".to_owned(), "open"),
        }),
        Content::Sweep(sweep) => {
            let finished = sweep.points.iter().filter(|point| point.finished).count();
            Some(match finished == sweep.points.len() {
                true => ("finished".to_owned(), "done"),
                false => (format!("{finished} of {} sets finished", sweep.points.len()), "open"),
            })
        }
        Content::Sheet(_) | Content::Scores => None,
    }
}

/// A part with its heading.
fn part(heading: &str, content: Markup) -> Markup {
    html! { section { h3 { (heading) } (content) } }
}

/// Names and values.
fn pairs(pairs: &[(String, String)]) -> Markup {
    html! {
        dl.pairs { @for (name, value) in pairs { div { dt { (name) } dd { (value) } } } }
    }
}

/// A table that scrolls within its own box: the first column at its left, numbers at their right.
fn table(heading: &[&str], rows: &[Vec<String>]) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { @for name in heading { th scope="col" { (name) } } } }
                tbody {
                    @for row in rows {
                        tr { @for cell in row { td { (cell) } } }
                    }
                }
            }
        }
    }
}

/// A number that stands out, and what it is of.
fn tile(value: &str, name: &str) -> Markup {
    html! { li { strong { (value) } span { (name) } } }
}
