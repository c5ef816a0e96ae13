//! A job at one moment, as text.

use super::look::{Look, WorkerLook, WorkerState};
use crate::text::{aligned, count, counted, duration, named, percent};

/// Workers that are listed one by one; of more, only those that need a look are.
const WORKERS_LISTED: usize = 24;

/// Units of one worker that are named.
const UNITS_NAMED: usize = 4;

/// Slow units that are named.
const SLOW_NAMED: usize = 8;

/// How a job stands: what is done, how fast it goes, and every worker.
pub fn look_text(look: &Look) -> String {
    let mut text = format!("{}\n{}\n\n{}", look.output, state_text(look), named(2, &numbers(look)));
    let listed = listed(look);
    if listed.is_empty() {
        let nobody = "No worker was heard: none has begun, or they write no heartbeats.";
        text.push_str(&format!("\n{}\n", if look.finished { "No worker was heard." } else { nobody }));
    } else {
        let heading = ["worker", "state", "heard", "images a second", "units done", "limit", "units in work"];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(listed.iter().map(|worker| worker_row(worker)));
        text.push_str(&format!("\nWorkers\n{}", aligned(2, &rows)));
        let others = look.workers.len() - listed.len();
        if others > 0 {
            text.push_str(&format!("  … {} more\n", count(others as u64)));
        }
    }
    if look.workers_replaced > 0 {
        let workers = counted(look.workers_replaced, "worker");
        text.push_str(&format!("  {workers} before, whose rank another one took\n"));
    }
    text.push_str(&slow_text(look));
    text.push_str(&silent_text(look));
    text
}

fn state_text(look: &Look) -> String {
    let units = counted(look.units_total, "unit");
    match (look.finished, look.is_complete()) {
        (true, _) => format!("finished: {units}"),
        (false, true) => format!("all {units} are complete; who is last closes the output, or `restok finalize` does"),
        (false, false) => format!(
            "{} of {units} complete ({}), {} in work",
            count(look.units_done),
            percent(look.units_done as f64 / look.units_total.max(1) as f64),
            count(look.units_in_work)
        ),
    }
}

fn numbers(look: &Look) -> Vec<(&'static str, String)> {
    let row_counts = &look.row_counts;
    let total = look.images_total.map_or(String::new(), |total| format!(" of {}", count(total)));
    let counted_of = match look.units_counted < look.units_done {
        true => format!(", in {} of them so far", counted(look.units_counted, "unit")),
        false => String::new(),
    };
    let reasons: Vec<String> =
        row_counts.rejected.iter().map(|(reason, number)| format!("{reason} {}", count(*number))).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
    let mut numbers = vec![
        ("images", format!("{}{total} in complete units{counted_of}", count(row_counts.listed))),
        (
            "rejected",
            format!("{} ({}){reasons}", count(row_counts.rejected_total()), percent(row_counts.reject_rate())),
        ),
    ];
    if !look.finished {
        let left = look.seconds_left.map_or(String::new(), |left| format!(", {} left", duration(left)));
        let working = look.in_state(WorkerState::Working).count() as u64;
        numbers.push((
            "speed",
            format!("{:.1} images a second by {}{left}", look.images_a_second, counted(working, "worker")),
        ));
    }
    if let Some(seconds) = look.median_unit_seconds {
        numbers.push(("a unit takes", format!("{} (median)", duration(seconds))));
    }
    numbers
}

/// Workers that get a line: all, or of very many those that do not simply work, and then others.
fn listed(look: &Look) -> Vec<&WorkerLook> {
    let mut workers: Vec<&WorkerLook> = look.workers.iter().collect();
    if workers.len() > WORKERS_LISTED {
        workers.sort_by_key(|worker| match worker.state {
            WorkerState::Silent | WorkerState::Failed => 0,
            WorkerState::Working => 1,
            _ => 2,
        });
        workers.truncate(WORKERS_LISTED);
    }
    workers.sort_by_key(|worker| (worker.rank, worker.world_size));
    workers
}

/// Which worker it is, as far as its rank says that.
fn place(rank: u32, engine: bool) -> String {
    if engine { "engine worker".to_owned() } else { format!("rank {rank}") }
}

fn worker_row(worker: &WorkerLook) -> Vec<String> {
    let WorkerLook { host, process_id, .. } = worker;
    let of_how_many = if worker.engine { String::new() } else { format!(" of {}", worker.world_size) };
    let place = place(worker.rank, worker.engine);
    let mut units: Vec<String> = worker
        .in_work
        .iter()
        .take(UNITS_NAMED)
        .map(|unit| format!("{} for {}", unit.unit, duration(unit.seconds)))
        .collect();
    if worker.in_work.len() > UNITS_NAMED {
        units.push(format!("{} more", worker.in_work.len() - UNITS_NAMED));
    }
    vec![
        format!("{place}{of_how_many}, {host}, process {process_id}"),
        worker.state.name().to_owned(),
        format!("{} ago", duration(worker.heard_seconds_ago)),
        format!("{:.1}", worker.images_a_second),
        count(worker.units_here),
        worker.limiting_stage.clone().unwrap_or_default(),
        units.join(", "),
    ]
}

fn slow_text(look: &Look) -> String {
    let Some(median) = look.median_unit_seconds.filter(|_| !look.slow_units.is_empty()) else { return String::new() };
    let lines = look.slow_units.iter().take(SLOW_NAMED).map(|slow| {
        let times = slow.seconds / median.max(f64::MIN_POSITIVE);
        let (unit, place, host) = (slow.unit, place(slow.rank, slow.engine), &slow.host);
        format!("  unit {unit} for {} ({times:.0} times the median) by {place}, {host}\n", duration(slow.seconds))
    });
    format!("\nBegun long ago\n{}", lines.collect::<String>())
}

fn silent_text(look: &Look) -> String {
    let lines: String = look
        .in_state(WorkerState::Silent)
        .take(WORKERS_LISTED)
        .map(|worker| {
            let promised = duration(worker.next_within_seconds.unwrap_or_default());
            let units: Vec<String> = worker.in_work.iter().map(|unit| unit.unit.to_string()).collect();
            let units = match units.as_slice() {
                [] => String::new(),
                units => format!("; it had begun {}, which other workers take over", units.join(", ")),
            };
            format!(
                "  {}, {}, process {}: not heard for {}, and promised within {promised}{units}\n",
                place(worker.rank, worker.engine),
                worker.host,
                worker.process_id,
                duration(worker.heard_seconds_ago)
            )
        })
        .collect();
    if lines.is_empty() { lines } else { format!("\nFallen silent\n{lines}") }
}

#[cfg(test)]
mod tests {
    use super::{super::look::tests::look, *};

    #[test]
    fn a_job_is_told_with_who_works_who_is_slow_and_who_fell_silent() {
        let text = look_text(&look());
        for part in [
            "s3://bucket/tokens\n4 of 10 units complete (40.0 %), 2 in work\n",
            "400 of 1,000 in complete units\n",
            "4 (1.0 %): truncated 3, corrupt 1\n",
            "30.0 images a second by 3 workers, 20.0 s left\n",
            "rank 0 of 4, node-0, process 100",
            "4 for 7.0 s",
            "  1 worker before, whose rank another one took\n",
            "Begun long ago\n  unit 5 for 1 min 0 s (5 times the median) by rank 1, node-1\n",
            "Fallen silent\n  rank 2, node-2, process 102: not heard for 1 min 1 s, and promised within 1 min 0 s; it had begun 6,",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert!(!text.contains("failed"), "it was replaced: {text}");
    }

    #[test]
    fn workers_of_an_engine_are_told_without_a_rank() {
        let mut look = look();
        look.workers.iter_mut().for_each(|worker| worker.engine = true);
        look.slow_units.iter_mut().for_each(|slow| slow.engine = true);
        let text = look_text(&look);
        for part in [
            "  engine worker, node-0, process 100  working",
            "by engine worker, node-1\n",
            "Fallen silent\n  engine worker, node-2, process 102: not heard",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert!(!text.contains("  rank "), "{text}");
    }

    #[test]
    fn what_is_finished_has_no_speed_and_what_nobody_works_on_says_so() {
        let nobody = Look { workers: Vec::new(), workers_replaced: 0, slow_units: Vec::new(), ..look() };
        assert!(look_text(&nobody).contains("No worker was heard: none has begun"));
        let complete = Look { units_done: 10, ..nobody };
        assert!(look_text(&complete).contains("all 10 units are complete"));
        let finished = look_text(&Look { finished: true, ..complete });
        assert!(finished.contains("finished: 10 units") && !finished.contains("a second"), "{finished}");
    }

    #[test]
    fn of_very_many_workers_those_that_need_a_look_are_listed() {
        let look = look();
        let working = &look.workers[0];
        let mut workers: Vec<WorkerLook> = (0..100).map(|rank| WorkerLook { rank, ..working.clone() }).collect();
        workers[90].state = WorkerState::Failed;
        let text = look_text(&Look { workers, ..look });
        assert!(text.contains("rank 90 of 4") && text.contains("… 76 more"), "{text}");
    }
}
