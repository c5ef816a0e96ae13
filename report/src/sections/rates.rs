//! How fast the runs were that made an output, and what held them up.

use super::{part, table};
use crate::{
    charts::{Line, LineChart, Span, significant},
    gather::Logs,
    run_log::{RunLog, StageLog, readable},
    text::{count, counted, duration, percent, tenths},
};
use maud::{Markup, html};

/// Runs whose charts are shown: the last ones.
const CHARTS: usize = 6;

/// From how many times the least rate on the greatest one needs powers to be seen beside it.
const WIDE: f64 = 30.0;

/// Moments over which a rate is taken at least, and pieces of work: one batch more or less should not make it jump.
const MOMENTS: usize = 5;
const PIECES: usize = 4;

pub(super) fn section(logs: &Logs) -> Markup {
    let Logs { newest: logs, older } = logs;
    if logs.is_empty() {
        return html! {};
    }
    let rows: Vec<Vec<String>> = logs.iter().map(row).collect();
    let shown = &logs[logs.len().saturating_sub(CHARTS)..];
    let content = html! {
        (table(&["began", "rank", "took", "read", "a second", "rejected", "units at its end", "limit", "ended"], &rows))
        @if *older > 0 { p.note { (counted(*older as u64, "older run")) " left logs too, which are not shown." } }
        @for (problem, runs) in problems(logs) { p.warning { (runs) ": " (problem) } }
        @if shown.len() < logs.len() { p.note { "Charts are of the last " (shown.len()) " runs." } }
        @for log in shown { (charts(log)) }
    };
    part("Rates of the runs", content)
}

/// Each problem once, in the order in which they first came up, and which runs had it.
fn problems(logs: &[RunLog]) -> Vec<(&str, String)> {
    let mut problems: Vec<(&str, Vec<&RunLog>)> = Vec::new();
    for log in logs {
        let Some(problem) = log.problem.as_deref() else { continue };
        match problems.iter_mut().find(|(other, _)| *other == problem) {
            Some((_, runs)) => runs.push(log),
            None => problems.push((problem, vec![log])),
        }
    }
    let told = |runs: &[&RunLog]| match runs {
        [.., last] if runs.len() > 1 => {
            format!("{}, the last of {}", counted(runs.len() as u64, "run"), readable(&last.started))
        }
        _ => runs.first().map_or(String::new(), |run| readable(&run.started)),
    };
    problems.into_iter().map(|(problem, runs)| (problem, told(&runs))).collect()
}

fn row(log: &RunLog) -> Vec<String> {
    let images = log.images_read.last().copied().unwrap_or_default();
    let rate = if log.duration() > 0.0 { images as f64 / log.duration() } else { 0.0 };
    vec![
        readable(&log.started),
        format!("{} of {}", log.rank, log.world_size),
        duration(log.duration()),
        count(images),
        format!("{}", tenths(rate)),
        count(log.images_rejected),
        format!("{} of {}", count(log.units.last().copied().unwrap_or_default()), count(log.units_total)),
        log.limiting_stage.clone().unwrap_or_else(|| "none".to_owned()),
        log.outcome.name().to_owned(),
    ]
}

fn charts(log: &RunLog) -> Markup {
    let (across, unit) = match log.duration() {
        ..240.0 => ("seconds", 1.0),
        240.0..14_400.0 => ("minutes", 60.0),
        _ => ("hours", 3600.0),
    };
    let chart = |title: &str, span: Span, lines: Vec<Line>| LineChart {
        title: title.to_owned(),
        across,
        across_span: Span::Exact,
        span,
        named: false,
        lines,
    };
    let at_unit =
        |points: Vec<(f64, f64)>| points.into_iter().map(|(seconds, value)| (seconds / unit, value)).collect();
    // Every stage is a line of both charts, so that it has one colour; one that has no points is not drawn.
    let busy = log.stages.iter().map(|stage| {
        if stage.busy_seconds.last().is_none_or(|busy| *busy <= 0.0) {
            return Line { name: stage.stage.clone(), points: Vec::new() };
        }
        let capacity = stage.capacity.max(1) as f64;
        let rates = rates(&log.seconds, &stage.busy_seconds, &stage.items);
        let fractions = rates.into_iter().map(|(seconds, rate)| (seconds, (rate / capacity).min(1.0)));
        Line { name: stage.stage.clone(), points: at_unit(fractions.collect()) }
    });
    let stages = log.stages.iter().map(|stage| {
        let items: Vec<f64> = stage.items.iter().map(|items| *items as f64).collect();
        let name = format!("{}: {}", stage.stage, stage.item);
        // Nothing was done yet: no rate, and no place where the axis goes by powers.
        let done = rates(&log.seconds, &items, &stage.items).into_iter().filter(|(_, rate)| *rate > 0.0);
        Line { name, points: at_unit(done.collect()) }
    });
    let stages: Vec<Line> = stages.collect();
    let made: Vec<f64> = log.images_written.iter().map(|images| *images as f64).collect();
    let made = rates(&log.seconds, &made, &log.images_written);
    let rate = Line { name: "images a second".to_owned(), points: at_unit(made) };
    html! {
        h4 { "Run of " (readable(&log.started)) @if log.world_size > 1 { ", rank " (log.rank) } }
        div.charts {
            (chart("Images a second", Span::FromZero, vec![rate]).render())
            (chart("Share of the time that each stage was busy", Span::Fraction, busy.collect()).render())
            (chart("What each stage did a second", scale(&stages), stages).render())
        }
        details { summary { "The stages in numbers" } (table(&["stage", "at once", "did", "of", "a second", "busy"], &stage_rows(log))) }
    }
}

/// Stages count different things, batches and images, whose rates may be far apart.
fn scale(lines: &[Line]) -> Span {
    let values = || lines.iter().flat_map(|line| &line.points).map(|point| point.1);
    match values().fold(f64::MIN, f64::max) > WIDE * values().fold(f64::MAX, f64::min) {
        true => Span::Logarithmic,
        false => Span::FromZero,
    }
}

/// A line for each stage: how much went through it in all, how fast, and how busy it was.
fn stage_rows(log: &RunLog) -> Vec<Vec<String>> {
    let a_second = |items: f64| if log.duration() > 0.0 { items / log.duration() } else { 0.0 };
    let row = |stage: &StageLog| {
        let items = stage.items.last().copied().unwrap_or_default();
        let busy = stage.busy_seconds.last().copied().unwrap_or_default() / stage.capacity.max(1) as f64;
        vec![
            stage.stage.clone(),
            count(stage.capacity),
            count(items),
            stage.item.clone(),
            significant(a_second(items as f64), 4),
            percent(a_second(busy).min(1.0)),
        ]
    };
    log.stages.iter().map(row).collect()
}

/// What `grows` gained a second, at each moment: since as many moments before that it is an average over some pieces of work.
fn rates(seconds: &[f64], grows: &[f64], pieces: &[u64]) -> Vec<(f64, f64)> {
    (0..seconds.len())
        .map(|moment| {
            let mut since = moment.saturating_sub(MOMENTS);
            let done = |since: usize| pieces[since..=moment].windows(2).filter(|pair| pair[0] < pair[1]).count();
            // Begun where a piece was just done, for else a part of it would be counted and a part of its time not.
            while since > 0 && (done(since) < PIECES || pieces[since] == pieces[since - 1]) {
                since -= 1;
            }
            // All began at nothing.
            let (from, before) = if since == 0 { (0.0, 0.0) } else { (seconds[since], grows[since]) };
            let passed = seconds[moment] - from;
            (seconds[moment], if passed > 0.0 { (grows[moment] - before).max(0.0) / passed } else { 0.0 })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of ten seconds that decoded a hundred images and encoded two views.
    fn log(number: u32, problem: Option<&str>) -> RunLog {
        serde_json::from_value(serde_json::json!({
            "format": 1, "plan": "0".repeat(64), "started": format!("20260131T2359{number:02}Z"), "rank": 0, "world": 1,
            "restok": "0.1.0", "outcome": "failed", "problem": problem, "units_total": 2, "images_rejected": 0,
            "limiting_stage": null, "seconds": [5.0, 10.0], "images_read": [50, 100], "images_written": [0, 2], "units": [0, 1],
            "stages": [
                { "stage": "decode", "item": "images", "capacity": 2, "items": [50, 100], "busy_seconds": [5.0, 10.0] },
                { "stage": "queue", "item": "batches", "capacity": 1, "items": [10, 20], "busy_seconds": [0.0, 0.0] },
                { "stage": "encode", "item": "views", "capacity": 1, "items": [0, 2], "busy_seconds": [0.0, 9.0] },
            ],
        }))
        .expect("a log")
    }

    #[test]
    fn each_stage_has_its_own_rate_and_says_of_what() {
        let html = section(&Logs { newest: vec![log(1, None)], older: 0 }).into_string();
        assert!(html.contains("What each stage did a second <small>(logarithmic)</small>"), "{html}");
        assert!(html.contains("<title>decode: images: 10 at 10 seconds</title>"), "{html}");
        assert!(html.contains("<title>encode: views: 0.2 at 10 seconds</title>"), "{html}");
        // In both charts it has one colour, though not every stage is ever busy.
        assert_eq!(html.matches("<li class=\"s2\">").count(), 2, "{html}");
        assert_eq!(html.matches("<li class=\"s1\">").count(), 1, "{html}");
        let row = "<td>decode</td><td>2</td><td>100</td><td>images</td><td>10</td>";
        assert!(html.contains(row) && html.contains("<td>2</td><td>views</td><td>0.2</td><td>90"), "{html}");
    }

    #[test]
    fn a_loop_of_restarts_is_told_once() {
        let newest = vec![log(1, Some("disk full")), log(2, Some("no network")), log(3, Some("disk full"))];
        let html = section(&Logs { newest, older: 1_234 }).into_string();
        assert_eq!(html.matches("disk full").count(), 1);
        assert!(html.contains("2 runs, the last of 2026-01-31 23:59:03 UTC: disk full"), "{html}");
        assert!(html.contains("2026-01-31 23:59:02 UTC: no network") && html.contains("1,234 older runs"), "{html}");
    }

    #[test]
    fn a_rate_is_taken_over_enough_work() {
        let seconds: Vec<f64> = (1..=40).map(f64::from).collect();
        // A piece of ten images every fourth second.
        let pieces: Vec<u64> = (1..=40).map(|second| second / 4 * 10).collect();
        let grows: Vec<f64> = pieces.iter().map(|images| *images as f64).collect();
        let rates = rates(&seconds, &grows, &pieces);
        assert_eq!((rates[0], rates[3]), ((1.0, 0.0), (4.0, 2.5)));
        assert!(rates[20..].iter().all(|(_, rate)| (2.1..=2.5).contains(rate)), "{rates:?}");
    }
}
