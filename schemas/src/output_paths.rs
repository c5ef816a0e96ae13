//! Names of everything below an output. Made from the plan alone: never from a rank, a process or a clock.

use crate::PlanHash;

/// Where the plan is kept, below the output.
pub fn plan_path(plan: &PlanHash) -> String {
    format!("_plan/{}.jsonl.zst", plan.short())
}

/// The object that says which plan owns the output. Put create-only, it decides between two runs that start at once.
pub const PLAN_OWNER_PATH: &str = "_plan/owner.json";

/// The file with a unit's tokens.
pub fn tokens_path(split: &str, unit: u32, plan: &PlanHash) -> String {
    format!("tokens/split={split}/{}", part_name(unit, plan))
}

/// The file with a unit's images, rejected ones included.
pub fn images_path(split: &str, unit: u32, plan: &PlanHash) -> String {
    format!("images/split={split}/{}", part_name(unit, plan))
}

/// The unit's marker; its presence means that the unit is complete.
pub fn marker_path(unit: u32, plan: &PlanHash) -> String {
    format!("{}{unit:05}.json", marker_prefix(plan))
}

/// Folder of a plan's markers, with its slash.
pub fn marker_prefix(plan: &PlanHash) -> String {
    format!("_state/{}/", plan.short())
}

/// Written by finalize: what the output holds.
pub const MANIFEST_PATH: &str = "_manifest.json";

/// Written by finalize, last: the output is whole.
pub const SUCCESS_PATH: &str = "_SUCCESS";

fn part_name(unit: u32, plan: &PlanHash) -> String {
    format!("part-{unit:05}-{}.parquet", plan.short())
}
