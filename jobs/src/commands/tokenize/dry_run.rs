//! What would be done, without doing it.

use super::batch_size::BatchNeeds;
use crate::settings::{ReportFormat, TokenizeSettings};
use anyhow::Result;
use pipeline::{Storage, TableReader};
use report::{
    output_text::{left_out_text, source_text},
    text::{bytes, count, counted, named},
};
use schemas::{Plan, SourceAccount};
use serde::Serialize;

/// A plan and the state of its output.
#[derive(Debug, Serialize)]
struct DryRun<'a> {
    plan: &'a str,
    settings: &'a schemas::PlanSettings,
    output: &'a str,
    state: State,
    units: u32,
    inputs: usize,
    bytes: u64,
    classes: usize,
    left_out: &'a SourceAccount,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<BatchNeeds>,
}

/// What is in the output already.
#[derive(Debug, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum State {
    /// Nothing.
    Empty,
    /// Tables of this plan.
    SamePlan { units_done: usize, finished: bool },
    /// Tables of another plan: a run would be refused.
    OtherPlan { plan: String, differences: Vec<String> },
}

/// Prints the plan.
///
/// # Errors
/// When the output cannot be read.
pub(super) async fn print(
    settings: &TokenizeSettings,
    plan: &Plan,
    output: &Storage,
    left_out: &SourceAccount,
    memory: Option<BatchNeeds>,
) -> Result<()> {
    // One object may be many inputs in a row: row ranges of a Parquet file.
    let (mut bytes, mut last) = (0, String::new());
    for input in plan.inputs().iter() {
        if input.uri != last {
            bytes += input.size;
            last = input.uri;
        }
    }
    let dry_run = DryRun {
        plan: plan.hash().as_str(),
        settings: plan.settings(),
        output: output.display(),
        state: state(plan, output).await?,
        units: plan.units(),
        inputs: plan.inputs().len(),
        bytes,
        classes: plan.class_names().len(),
        left_out,
        memory,
    };
    match settings.format {
        ReportFormat::Json => crate::output::print_json(&dry_run)?,
        ReportFormat::Text => crate::output::print(&text(&dry_run))?,
    }
    Ok(())
}

async fn state(plan: &Plan, output: &Storage) -> Result<State> {
    Ok(match pipeline::read_plan(output).await? {
        None => State::Empty,
        Some(owner) if owner.hash() == plan.hash() => {
            let reader = TableReader::open(output).await?;
            State::SamePlan { units_done: reader.reports().len(), finished: reader.is_finished() }
        }
        Some(owner) => State::OtherPlan {
            plan: owner.hash().short().to_owned(),
            differences: owner.settings().differences(plan.settings()),
        },
    })
}

fn text(dry_run: &DryRun<'_>) -> String {
    let settings = dry_run.settings;
    let state = match &dry_run.state {
        State::Empty => "empty".to_owned(),
        State::SamePlan { units_done, finished: false } => {
            format!("this plan's, {units_done} of {} units are complete", dry_run.units)
        }
        State::SamePlan { finished: true, .. } => "this plan's, finished".to_owned(),
        State::OtherPlan { plan, differences } if differences.is_empty() => {
            format!("another plan's ({plan}): other inputs; a run would be refused")
        }
        State::OtherPlan { plan, differences } => {
            format!("another plan's ({plan}); a run would be refused: {}", differences.join("; "))
        }
    };
    let memory = dry_run.memory.map_or_else(
        || "not measured".to_owned(),
        |memory| {
            let misfit = if memory.batch_bytes > memory.device_bytes { ": it does not fit" } else { "" };
            format!("about {} of {} for a batch{misfit}", bytes(memory.batch_bytes), bytes(memory.device_bytes))
        },
    );
    let pairs = [
        ("source", source_text(settings)),
        ("inputs", format!("{}, {}", count(dry_run.inputs as u64), bytes(dry_run.bytes))),
        ("classes", count(dry_run.classes as u64)),
        ("units", count(u64::from(dry_run.units))),
        ("tokenizer", format!("{} ({})", settings.tokenizer.name, &settings.tokenizer.sha256[..12])),
        ("crop", format!("{}, {} an image", settings.origin, counted(settings.origin.views() as u64, "view"))),
        ("precision", format!("{}, batches of {}", settings.precision, settings.batch_size)),
        ("memory", memory),
        ("output", dry_run.output.to_owned()),
        ("", state),
        ("plan", dry_run.plan.to_owned()),
    ];
    format!("Dry run: nothing was written.\n{}{}", named(2, &pairs), left_out_text(dry_run.left_out))
}
