//! Names of everything below an output. Made from the plan alone: never from a rank, a process or a clock.

use crate::PlanHash;

/// Where the plan is kept, below the output.
pub fn plan_path(plan: &PlanHash) -> String {
    format!("_plan/{}.jsonl.zst", plan.short())
}

/// What the listing of a plan's source left out. No part of the plan: what lies beside a set may change without it.
pub fn left_out_path(plan: &PlanHash) -> String {
    format!("_plan/{}.left-out.json", plan.short())
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

/// Folder of all pictures that are decoded from tokens, with its slash.
pub const PICTURES_PREFIX: &str = "pictures/";

/// The file with all pictures of a unit, `format` being `parquet` or `webdataset`.
pub fn unit_pictures_path(format: &str, unit: u32, plan: &PlanHash) -> String {
    let extension = if format == "webdataset" { "tar" } else { format };
    format!("{PICTURES_PREFIX}{format}/part-{unit:05}-{}.{extension}", plan.short())
}

/// File name of a picture by its number: six digits, and more only from a million on, as published
/// (autoregressive/sample/sample_c2i_ddp_cfg_search.py).
pub fn picture_name(number: u64) -> String {
    format!("{number:06}.png")
}

/// The PNG file of one picture. All in one folder, for the usual metrics do not look into subfolders.
pub fn picture_path(number: u64) -> String {
    format!("{PICTURES_PREFIX}png/{}", picture_name(number))
}

/// The evaluation archive with all pictures.
pub const NPZ_PATH: &str = "pictures/samples.npz";

/// The unit's marker; its presence means that the unit is complete.
pub fn marker_path(unit: u32, plan: &PlanHash) -> String {
    format!("{}{unit:05}.json", marker_prefix(plan))
}

/// Folder of a plan's markers, with its slash.
pub fn marker_prefix(plan: &PlanHash) -> String {
    format!("_state/{}/", plan.short())
}

/// Says that a process works on a unit, the `takes`-th one to do so; `name` is a plan's short hash or a key of features. No part of the output:
/// nothing that reads or checks one looks there.
pub fn lease_path(name: &str, unit: u32, takes: u32) -> String {
    format!("{}{unit:05}-{takes}.json", lease_prefix(name))
}

/// Folder of the leases of a plan or of features, with its slash.
pub fn lease_prefix(name: &str) -> String {
    format!("_state/leases-{name}/")
}

/// Unit and number of takes of a path that [`lease_path`] gave.
pub fn parse_lease_path(name: &str, path: &str) -> Option<(u32, u32)> {
    let (unit, takes) = path.strip_prefix(&lease_prefix(name))?.strip_suffix(".json")?.split_once('-')?;
    let (unit, takes) = (unit.parse().ok()?, takes.parse().ok()?);
    (lease_path(name, unit, takes) == path).then_some((unit, takes))
}

/// Folder of what the runs of a plan say of their own course, with its slash. No part of the output: names and contents there hold
/// a clock, and nothing that reads or checks an output looks there.
pub fn log_prefix(plan: &PlanHash) -> String {
    format!("_log/{}/", plan.short())
}

/// Folder of what the runs of a plan say of themselves while they work, with its slash. Not below [`log_prefix`], where older versions
/// read every object as the log of a run that has ended.
pub fn heartbeat_prefix(plan: &PlanHash) -> String {
    format!("_log/heartbeats/{}/", plan.short())
}

/// Written by finalize: what the output holds.
pub const MANIFEST_PATH: &str = "_manifest.json";

/// Written by finalize, last: the output is whole.
pub const SUCCESS_PATH: &str = "_SUCCESS";

/// Folder of what scoring says of a set's images under one key, with its slash.
pub fn features_prefix(key: &str) -> String {
    format!("features/{key}/")
}

/// The file with what is said of a unit's images; its presence means that the unit is scored.
pub fn features_path(key: &str, unit: u32) -> String {
    format!("{}part-{unit:05}.parquet", features_prefix(key))
}

/// Folder of the lines of all evaluations, with its slash.
pub const SCORES_PREFIX: &str = "scores/";

/// The file with the lines of one evaluation.
pub fn scores_path(evaluation: &str) -> String {
    format!("{SCORES_PREFIX}score-{evaluation}.parquet")
}

/// The lines of all evaluations as text, written anew after each.
pub const SCORES_CSV_PATH: &str = "scores.csv";

/// Whether a path below an output is one of its tables, plans, markers or logs, or of its scores. Pictures are not among them: they may be a source.
pub fn is_output_path(path: &str) -> bool {
    const FOLDERS: [&str; 6] = ["_plan/", "_state/", "_log/", "_staging/", "tokens/split=", "images/split="];
    const FILES: [&str; 3] = [MANIFEST_PATH, SUCCESS_PATH, SCORES_CSV_PATH];
    let scored =
        ["features/", SCORES_PREFIX].iter().any(|folder| path.starts_with(folder)) && path.ends_with(".parquet");
    FOLDERS.iter().any(|folder| path.starts_with(folder)) || FILES.contains(&path) || scored
}

fn part_name(unit: u32, plan: &PlanHash) -> String {
    format!("part-{unit:05}-{}.parquet", plan.short())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_an_output_but_its_pictures_is_known_as_one() {
        let plan = PlanHash::try_from("0123456789abcdef".repeat(4)).expect("64 digits");
        let paths = [
            plan_path(&plan),
            left_out_path(&plan),
            PLAN_OWNER_PATH.to_owned(),
            tokens_path("train", 0, &plan),
            images_path("train", 0, &plan),
            marker_path(0, &plan),
            format!("{}run.json", log_prefix(&plan)),
            lease_path(plan.short(), 0, 1),
            format!("{}run-00001.json", heartbeat_prefix(&plan)),
            MANIFEST_PATH.to_owned(),
            SUCCESS_PATH.to_owned(),
            features_path("key", 0),
            scores_path("evaluation"),
            SCORES_CSV_PATH.to_owned(),
        ];
        assert_eq!(paths.iter().find(|path| !is_output_path(path)), None);
        for other in [picture_path(0).as_str(), NPZ_PATH, "_MG_1234.jpg", "features/cat.png", "images/cat.png"] {
            assert!(!is_output_path(other), "{other}");
        }
    }

    #[test]
    fn a_lease_is_known_by_its_name_alone() {
        let path = lease_path("0123456789ab", 100_007, 12);
        assert_eq!(parse_lease_path("0123456789ab", &path), Some((100_007, 12)));
        for other in [
            "_state/leases-0123456789ab/7-1.json",
            "_state/leases-0123456789ab/00007-1.txt",
            "_state/0123456789ab/00007.json",
        ] {
            assert_eq!(parse_lease_path("0123456789ab", other), None, "{other}");
        }
        assert_eq!(parse_lease_path("other", &path), None);
    }

    #[test]
    fn names_of_pictures_have_six_digits_and_never_collide() {
        assert_eq!(picture_path(49_999), "pictures/png/049999.png");
        assert_eq!(picture_name(1_000_000), "1000000.png");
    }
}
