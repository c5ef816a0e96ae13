//! From what was typed about sampling to a [`Sampling`] that is right.

use super::{SettingsError, values::named};
use clap::builder::PossibleValuesParser;
use schemas::{Guidance, GuidanceSchedule, Sampling};

/// Numbers of schedules.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct ScheduleOptions {
    /// Ratio at which step and rectangular start (default: 0.25 for step, 0.05 for rectangular).
    ///
    /// Ratios run from 0 at the first step to 1 at the last.
    #[arg(long, value_name = "RATIO", help_heading = SCHEDULE)]
    pub(crate) schedule_start: Option<f64>,
    /// Last ratio at which rectangular has the full scale (default: 1)
    #[arg(long, value_name = "RATIO", help_heading = SCHEDULE)]
    pub(crate) schedule_end: Option<f64>,
    /// Ratio at which linear_constant and triangular reach the full scale (default: 0.5)
    #[arg(long, value_name = "RATIO", help_heading = SCHEDULE)]
    pub(crate) schedule_peak: Option<f64>,
    /// Guidance scale of step and rectangular outside their range (default: 1)
    #[arg(long, value_name = "SCALE", help_heading = SCHEDULE)]
    pub(crate) schedule_floor: Option<f64>,
}

/// Heading of what a schedule takes.
const SCHEDULE: &str = "Guidance schedule parameters";

/// What was typed; absent for the published value.
#[derive(Clone, Debug, Default)]
pub(super) struct SamplingChoice {
    pub(super) seed: u64,
    pub(super) guidance: Option<f64>,
    pub(super) schedule: Option<String>,
    pub(super) numbers: ScheduleOptions,
    pub(super) interval: Option<usize>,
    pub(super) top_p: Option<f64>,
    pub(super) top_k: Option<usize>,
    pub(super) temperature: Option<f64>,
}

/// The sampling that a choice means.
///
/// # Errors
/// When a number belongs to another schedule, or lies outside its range.
pub(super) fn sampling(choice: SamplingChoice) -> Result<Sampling, SettingsError> {
    let paper = Sampling::paper(choice.seed);
    let name = choice.schedule.clone().unwrap_or_else(|| paper.guidance.schedule.name().to_owned());
    let schedule = schedule(&name, &choice)?;
    let sampling = Sampling {
        seed: choice.seed,
        temperature: choice.temperature.unwrap_or(paper.temperature),
        top_k: choice.top_k.unwrap_or(paper.top_k),
        top_p: choice.top_p.unwrap_or(paper.top_p),
        guidance: Guidance {
            scale: choice.guidance.unwrap_or(paper.guidance.scale),
            schedule,
            interval: choice.interval,
        },
    };
    sampling
        .check()
        .map_err(|error| SettingsError::invalid("sampling", error.to_string(), "numbers in their ranges"))?;
    // Tables have no unsigned columns.
    match i64::try_from(choice.seed) {
        Ok(_) => Ok(sampling),
        Err(_) => Err(SettingsError::invalid("--seed", choice.seed.to_string(), format!("at most {}", i64::MAX))),
    }
}

fn schedule(name: &str, choice: &SamplingChoice) -> Result<GuidanceSchedule, SettingsError> {
    use GuidanceSchedule as S;
    let ScheduleOptions { schedule_start, schedule_end, schedule_peak, schedule_floor } = choice.numbers;
    let (peak, floor) = (schedule_peak.unwrap_or(0.5), schedule_floor.unwrap_or(1.0));
    let schedule = match name {
        "constant" => S::Constant {},
        "linear" => S::Linear {},
        "linear_re" => S::LinearRe {},
        "linear_constant" => S::LinearConstant { peak },
        "triangular" => S::Triangular { peak },
        "rectangular" => {
            S::Rectangular { start: schedule_start.unwrap_or(0.05), end: schedule_end.unwrap_or(1.0), floor }
        }
        "step" => S::Step { start: schedule_start.unwrap_or(0.25), floor },
        "cosine" => S::Cosine {},
        "cosine_re" => S::CosineRe {},
        other => {
            let names = SCHEDULES.map(|(name, _)| name).join(", ");
            return Err(SettingsError::invalid("--schedule", format!("{other:?}"), names));
        }
    };
    let (takes_start, takes_end, takes_peak) = match schedule {
        S::Rectangular { .. } => (true, true, false),
        S::Step { .. } => (true, false, false),
        S::LinearConstant { .. } | S::Triangular { .. } => (false, false, true),
        _ => (false, false, false),
    };
    for (flag, given, taken) in [
        ("--schedule-start", schedule_start.is_some(), takes_start),
        ("--schedule-end", schedule_end.is_some(), takes_end),
        ("--schedule-peak", schedule_peak.is_some(), takes_peak),
        ("--schedule-floor", schedule_floor.is_some(), takes_start),
    ] {
        if given && !taken {
            let expected = format!("none: the schedule {name} has no such number");
            return Err(SettingsError::invalid(flag, "a number", expected));
        }
    }
    Ok(schedule)
}

/// Every schedule, and what it does.
const SCHEDULES: [(&str, &str); 9] = [
    ("constant", "Full scale at every step"),
    ("linear", "Rise from 1 to the full scale"),
    ("linear_re", "Fall from the full scale to 1"),
    ("linear_constant", "Rise to the full scale at --schedule-peak, then stay there"),
    ("triangular", "Rise to the full scale at --schedule-peak, then fall to 1"),
    ("rectangular", "Full scale from --schedule-start to --schedule-end, --schedule-floor elsewhere"),
    ("step", "--schedule-floor before --schedule-start, full scale from there on"),
    ("cosine", "Rise from 1 to the full scale along a half cosine"),
    ("cosine_re", "Fall from the full scale to 1 along a half cosine"),
];

/// Reads a schedule's name on the command line, with what each one is in the help.
pub(super) fn schedule_parser() -> PossibleValuesParser {
    named(SCHEDULES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_is_known_by_its_published_name() {
        for (name, _) in SCHEDULES {
            let choice = SamplingChoice { schedule: Some(name.to_owned()), ..SamplingChoice::default() };
            assert_eq!(sampling(choice).expect(name).guidance.schedule.name(), name);
        }
        let published_but_absent = SamplingChoice { schedule: Some("sigmoid".to_owned()), ..SamplingChoice::default() };
        assert!(sampling(published_but_absent).expect_err("no such schedule").to_string().contains("sigmoid"));
    }

    #[test]
    fn nothing_said_is_the_published_recipe() {
        let choice = SamplingChoice { seed: 7, ..SamplingChoice::default() };
        assert_eq!(sampling(choice).expect("the recipe"), Sampling::paper(7));
    }
}
