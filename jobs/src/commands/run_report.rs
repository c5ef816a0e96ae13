//! What a run that makes an output says at its end: row counts, stages, the limit, and what to type next.

use crate::settings::ReportFormat;
use anyhow::Result;
use pipeline::{RunReport, Snapshot, Stage, StageSnapshot, Storage};
use report::{
    output_text::row_counts_text,
    text::{aligned, bytes, count, counted, duration, percent},
};
use schemas::{Plan, RowCounts};
use serde::Serialize;

/// The report as JSON.
#[derive(Debug, Serialize)]
struct JsonReport<'a> {
    output: &'a str,
    plan: &'a str,
    finished: bool,
    units: u32,
    units_here: u32,
    units_already_done: u32,
    units_elsewhere: u32,
    units_left: u32,
    adopted: u32,
    #[serde(rename = "books")]
    row_counts: &'a RowCounts,
    #[serde(rename = "books_here")]
    row_counts_here: &'a RowCounts,
    seconds: f64,
    images_a_second: f64,
    limiting_stage: Option<&'static str>,
    stages: Vec<JsonStage>,
}

#[derive(Debug, Serialize)]
struct JsonStage {
    stage: &'static str,
    item: &'static str,
    items: u64,
    bytes: u64,
    items_a_second: f64,
    busy: f64,
    waiting: f64,
    mean_depth: f64,
    capacity: u64,
}

/// Prints the report of a run that did not fail; `shown` is the output as it was given.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn print(
    format: ReportFormat,
    shown: &str,
    plan: &Plan,
    output: &Storage,
    report: &RunReport,
) -> Result<()> {
    match format {
        ReportFormat::Json => crate::output::print_json(&json(plan, output, report))?,
        ReportFormat::Text => {
            let shown = pipeline::without_secrets(shown);
            crate::output::print(&text(&shown, plan.units(), report))?;
        }
    }
    Ok(())
}

fn json<'a>(plan: &'a Plan, output: &'a Storage, report: &'a RunReport) -> JsonReport<'a> {
    let snapshot = &report.snapshot;
    JsonReport {
        output: output.display(),
        plan: plan.hash().as_str(),
        finished: report.finalized,
        units: plan.units(),
        units_here: report.units_here,
        units_already_done: report.units_already_done,
        units_elsewhere: report.units_elsewhere,
        units_left: report.units_left,
        adopted: report.adopted,
        row_counts: &report.row_counts_output,
        row_counts_here: &report.row_counts_here,
        seconds: snapshot.elapsed.as_secs_f64(),
        images_a_second: snapshot.images_a_second(),
        limiting_stage: snapshot.limiting_stage().map(Stage::name),
        stages: snapshot
            .stages
            .iter()
            .map(|stage| JsonStage {
                stage: stage.stage.name(),
                item: stage.stage.item(),
                items: stage.items,
                bytes: stage.bytes,
                items_a_second: rate(stage, snapshot),
                busy: stage.utilization,
                waiting: waiting(stage, snapshot),
                mean_depth: stage.mean_depth,
                capacity: stage.capacity,
            })
            .collect(),
    }
}

fn text(output: &str, units: u32, report: &RunReport) -> String {
    let mut how = vec![format!("{} here", count(u64::from(report.units_here)))];
    for (number, what) in [(report.units_already_done, "already done"), (report.units_elsewhere, "by other processes")]
    {
        if number > 0 {
            how.push(format!("{} {what}", count(u64::from(number))));
        }
    }
    let state = match (report.finalized, report.units_left) {
        (true, _) => "finished",
        (false, 0) => "complete, not finalized",
        (false, _) => "unfinished",
    };
    let units = counted(u64::from(units), "unit");
    let mut text =
        format!("{output}\n{state}: {units} ({})\n\n{}", how.join(", "), row_counts_text(&report.row_counts_output));
    if report.adopted > 0 {
        text.push_str(&format!(
            "  {}: another attempt's files were there first and were kept\n",
            counted(u64::from(report.adopted), "unit")
        ));
    }
    if report.units_here > 0 {
        text.push_str(&stages_text(&report.snapshot));
    }
    text.push_str(&format!("\nNext: {}\n", next_command(output, report)));
    text
}

fn stages_text(snapshot: &Snapshot) -> String {
    let heading = ["stage", "items", "a second", "bytes", "busy", "waiting", "mean depth"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(snapshot.stages.iter().map(|stage| {
        vec![
            stage.stage.to_string(),
            format!("{} {}", count(stage.items), stage.stage.item()),
            format!("{:.1}", rate(stage, snapshot)),
            if stage.bytes > 0 { bytes(stage.bytes) } else { String::new() },
            percent(stage.utilization),
            percent(waiting(stage, snapshot)),
            format!("{:.1}", stage.mean_depth),
        ]
    }));
    let limit = match snapshot.limiting_stage() {
        Some(stage) => format!("The limit was {stage}: {}.\n", advice(stage)),
        None => String::new(),
    };
    format!(
        "\nStages\n{}{limit}{} in {}, {:.1} a second\n",
        aligned(2, &rows),
        counted(snapshot.images_listed, "image"),
        duration(snapshot.elapsed.as_secs_f64()),
        snapshot.images_a_second()
    )
}

/// What makes a run faster that this stage holds up.
fn advice(stage: Stage) -> &'static str {
    match stage {
        Stage::List => "nearly all time went into listing the source; shards list faster than single files",
        Stage::Fetch => "raise --fetch-requests and --units-in-flight, or read shards instead of single files",
        Stage::Decode => "more cores would help, or --decode-threads if some are idle",
        Stage::Queue => "batches waited for devices",
        Stage::Encode | Stage::Sample => {
            "more or faster devices would help, or --precision bf16 where the device has it"
        }
        Stage::Render => "more or faster devices would help, or fewer pictures: --pictures none leaves the tokens",
        Stage::Write => "the output's store is slow; larger units make fewer files",
    }
}

fn next_command(output: &str, report: &RunReport) -> String {
    match (report.finalized, report.units_left) {
        (true, _) => format!("restok inspect {}", quoted(output)),
        (false, 0) => format!("restok finalize {}", quoted(output)),
        (false, left) => format!("start the same command again: {} not complete", counted(u64::from(left), "unit")),
    }
}

/// Quotes what a shell would take apart.
fn quoted(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:@=+,%".contains(letter);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

fn rate(stage: &StageSnapshot, snapshot: &Snapshot) -> f64 {
    stage.items as f64 / snapshot.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Fraction of its capacity that waited for another stage.
fn waiting(stage: &StageSnapshot, snapshot: &Snapshot) -> f64 {
    let available = snapshot.elapsed.as_secs_f64() * stage.capacity.max(1) as f64;
    stage.wait.as_secs_f64() / available.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::Telemetry;
    use std::time::Duration;

    fn report(finalized: bool, units_left: u32) -> RunReport {
        let telemetry = Telemetry::new();
        telemetry.set_capacity(Stage::Encode, 1);
        telemetry.record(Stage::Encode, 32, 0, Duration::from_secs(9));
        let snapshot = Snapshot { elapsed: Duration::from_secs(10), images_listed: 32, ..telemetry.snapshot() };
        RunReport {
            row_counts_here: RowCounts::default(),
            row_counts_output: RowCounts { listed: 32, written: 32, token_rows: 32, ..RowCounts::default() },
            units_here: 1,
            units_already_done: 2,
            units_elsewhere: 0,
            units_left,
            adopted: 0,
            finalized,
            snapshot,
        }
    }

    #[test]
    fn the_report_names_the_limit_and_the_next_command() {
        let text = text("./out put", 3, &report(true, 0));
        assert!(text.contains("finished: 3 units (1 here, 2 already done)"), "{text}");
        assert!(text.contains("The limit was encode") && text.contains("32 images in 10.0 s, 3.2 a second"), "{text}");
        assert!(text.ends_with("Next: restok inspect './out put'\n"), "{text}");
    }

    #[test]
    fn an_output_that_is_not_finished_says_what_is_missing() {
        assert!(text("out", 3, &report(false, 0)).ends_with("Next: restok finalize out\n"));
        let left = text("out", 5, &report(false, 2));
        assert!(left.contains("unfinished: 5 units") && left.contains("2 units not complete"), "{left}");
    }
}
