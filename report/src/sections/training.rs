//! How far a training is, and what it has come to.

use super::{part, provenance, table, tile};
use crate::{
    text::count,
    {charts::significant, gather::TrainingRun},
};
use maud::{Markup, html};
use serde_json::Value;

pub(super) fn section(run: &TrainingRun) -> Markup {
    let steps = match run.steps_planned {
        Some(planned) => format!("of {} steps", count(planned)),
        None => "steps".to_owned(),
    };
    let checkpoints: Vec<String> = run.checkpoints.iter().map(|step| count(*step)).collect();
    let content = html! {
        ul.tiles {
            (tile(&count(run.steps), &steps))
            @if let Some(best) = &run.best {
                (tile(&significant(best.score, 4), &format!("best validation, at step {}", count(best.step))))
            }
        }
        dl.pairs {
            @if !checkpoints.is_empty() { div { dt { "checkpoints" } dd { "at steps " (checkpoints.join(" · ")) } } }
            @if !run.machine.is_empty() { div { dt { "ran last on" } dd { (run.machine) } } }
        }
        @if run.scores.is_object() {
            h4 { "Scores of the finished weights" }
            (scores(&run.scores))
        }
    };
    part("State", content)
}

/// Single scores as names and values, scores by level or by number of tokens as tables.
fn scores(scores: &Value) -> Markup {
    let Value::Object(fields) = scores else { return html! {} };
    let is_table =
        |value: &Value| value.as_array().is_some_and(|rows| !rows.is_empty() && rows.iter().all(Value::is_object));
    let single: serde_json::Map<String, Value> =
        fields.iter().filter(|(_, value)| !is_table(value)).map(|(key, value)| (key.clone(), rounded(value))).collect();
    html! {
        (provenance::document(&Value::Object(single)))
        @for (name, value) in fields.iter().filter(|(_, value)| is_table(value)) {
            p.note { (name.replace('_', " ")) }
            (rows(value))
        }
    }
}

fn rows(value: &Value) -> Markup {
    let rows: Vec<&serde_json::Map<String, Value>> =
        value.as_array().into_iter().flatten().filter_map(Value::as_object).collect();
    let mut columns: Vec<&str> = Vec::new();
    for key in rows.iter().flat_map(|row| row.keys()) {
        if !columns.contains(&key.as_str())
            && !rows.iter().any(|row| row.get(key).is_some_and(|cell| cell.is_object() || cell.is_array()))
        {
            columns.push(key);
        }
    }
    let cells = |number: usize, row: &serde_json::Map<String, Value>| {
        let cell = |column: &&str| {
            row.get(*column).map_or(String::new(), |value| match rounded(value) {
                Value::String(text) => text,
                other => other.to_string(),
            })
        };
        std::iter::once(number.to_string()).chain(columns.iter().map(cell)).collect::<Vec<String>>()
    };
    let text: Vec<Vec<String>> = rows.iter().enumerate().map(|(number, row)| cells(number, row)).collect();
    let names: Vec<String> = columns.iter().map(|column| column.replace('_', " ")).collect();
    let heading: Vec<&str> = std::iter::once("").chain(names.iter().map(String::as_str)).collect();
    table(&heading, &text)
}

/// Numbers with as many digits as one reads; everything else as it is.
fn rounded(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => significant(number.as_f64().unwrap_or_default(), 5).into(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), rounded(value))).collect(),
        Value::Array(elements) => elements.iter().map(rounded).collect(),
        other => other.clone(),
    }
}
