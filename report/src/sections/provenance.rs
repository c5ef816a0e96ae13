//! What made it: every setting, and what the files say of their making.

use super::{pairs, part};
use crate::{
    gather::{Sweep, Tables, TrainingRun},
    settings_list::{settings_list, text},
    text::{bytes, counted},
};
use maud::{Markup, html};
use schemas::PlanSettings;
use serde_json::Value;

pub(super) fn of_an_output(tables: &Tables) -> Markup {
    let inspection = &tables.inspection;
    let mut made = vec![("plan".to_owned(), inspection.plan.clone())];
    made.extend(inspection.made_with().map(|(name, value)| (name.to_owned(), value)));
    let files = &inspection.files;
    let bits = files.bits_a_token.map_or(String::new(), |bits| format!(", {bits:.2} bits a token"));
    made.push((
        "tokens".to_owned(),
        format!("{}, {}{bits}", counted(files.tokens as u64, "file"), bytes(files.tokens_bytes)),
    ));
    made.push((
        "images".to_owned(),
        format!("{}, {}", counted(files.images as u64, "file"), bytes(files.images_bytes)),
    ));
    if inspection.units.adopted > 0 {
        let units = counted(inspection.units.adopted as u64, "unit");
        made.push(("adopted".to_owned(), format!("{units} of which another attempt's files were there first")));
    }
    let content = html! {
        h4 { "Settings" }
        (pairs(&plan_settings(&inspection.settings)))
        h4 { "Made with" }
        (pairs(&made))
    };
    part("Provenance", content)
}

pub(super) fn of_a_training(run: &TrainingRun) -> Markup {
    if run.settings.is_null() {
        return html! {};
    }
    let content = html! {
        (pairs(&settings_list(&run.settings)))
        @if !run.changes.is_empty() {
            h4 { "Changed on the way" }
            ul { @for (step, lines) in &run.changes { @for line in lines { li { "after step " (step) ": " (line) } } } }
        }
    };
    part("Provenance", content)
}

/// What all sets of a sweep have in common.
pub(super) fn of_a_sweep(sweep: &Sweep) -> Markup {
    let mut lists = sweep.points.iter().map(|point| plan_settings(&point.settings));
    let Some(mut common) = lists.next() else { return html! {} };
    lists.for_each(|list| common.retain(|pair| list.contains(pair)));
    part("Provenance", html! { p.note { "What all sets have in common." } (pairs(&common)) })
}

/// Everything that a plan says besides its inputs: first what it is of, then what made it, then how.
fn plan_settings(settings: &PlanSettings) -> Vec<(String, String)> {
    const FIRST: [&str; 11] = [
        "source",
        "layout",
        "split",
        "image id",
        "crop",
        "tokens plan",
        "generator",
        "tokenizer",
        "sampling",
        "count",
        "classes",
    ];
    let mut listed = settings_list(&serde_json::to_value(settings).unwrap_or_default());
    let place =
        |name: &str| FIRST.iter().position(|first| name.split(" · ").next() == Some(first)).unwrap_or(FIRST.len());
    // A stable sort: what belongs together stays together.
    listed.sort_by_key(|(name, _)| place(name));
    listed
}

/// A document as names and values, with the scores of a training among them.
pub(super) fn document(value: &Value) -> Markup {
    match value {
        Value::Object(_) => pairs(&settings_list(value)),
        other => html! { p { (text(other)) } },
    }
}
