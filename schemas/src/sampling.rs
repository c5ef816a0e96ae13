//! How samples are drawn from a generator: what decides a generated set besides the networks and the classes.

use crate::SchemaError;
use serde::{Deserialize, Serialize};

/// What the published schedules add to a scale of 1, only to keep their batch doubled. A step at or below 1 plus this is unguided.
const UNGUIDED_EXCESS: f64 = 1e-4;

/// How tokens are drawn from a generator's logits (autoregressive/models/generate.py).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// With the number of a sample, all that its randomness follows from.
    pub seed: u64,
    /// Logits are divided by it.
    pub temperature: f64,
    /// Only the so many likeliest codes, and those as likely as the last of them; 0 for all.
    pub top_k: usize,
    /// Only the likeliest codes that together reach this probability, the one that passes it included; 1 for all.
    pub top_p: f64,
    /// Classifier-free guidance.
    pub guidance: Guidance,
}

/// Classifier-free guidance: logits become `null + (class - null) * scale`, with a scale for each step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guidance {
    /// The full scale; 1 for none.
    pub scale: f64,
    /// How the scale moves over the steps.
    pub schedule: GuidanceSchedule,
    /// Last token before which a step may begin to be guided, as the published `cfg_interval`: steps whose first token comes later
    /// than one after it are unguided. Absent for no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<usize>,
}

/// The scale of a step by its ratio: 0 at the first step, 1 at the last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum GuidanceSchedule {
    /// The full scale at every step.
    Constant {},
    /// From 1 up to the full scale.
    Linear {},
    /// From the full scale down to 1.
    LinearRe {},
    /// From 1 up to the full scale at `peak`, and so on to the end.
    LinearConstant {
        /// Ratio at which the full scale is reached.
        peak: f64,
    },
    /// Up to the full scale at `peak`, and down to 1.
    Triangular {
        /// Ratio of the full scale.
        peak: f64,
    },
    /// The full scale from `start` to `end`, both included, and `floor` elsewhere.
    Rectangular {
        /// First ratio of the full scale.
        start: f64,
        /// Last ratio of the full scale.
        end: f64,
        /// Scale outside.
        floor: f64,
    },
    /// `floor`, and from `start` on the full scale.
    Step {
        /// First ratio of the full scale.
        start: f64,
        /// Scale before.
        floor: f64,
    },
    /// From 1 up to the full scale along half a cosine.
    Cosine {},
    /// From the full scale down to 1 along half a cosine.
    CosineRe {},
}

impl Sampling {
    /// The published recipe of gFID 2.34 (README of the published code): scale 3.75 from a quarter of the steps on, top-p 0.95.
    pub fn paper(seed: u64) -> Self {
        let schedule = GuidanceSchedule::Step { start: 0.25, floor: 1.0 };
        Self {
            seed,
            temperature: 1.0,
            top_k: 0,
            top_p: 0.95,
            guidance: Guidance { scale: 3.75, schedule, interval: None },
        }
    }

    /// Holds every number to its range.
    ///
    /// # Errors
    /// When one lies outside; the error names it.
    pub fn check(&self) -> Result<(), SchemaError> {
        let wrong = |what: &'static str, found: f64, expected: &str| {
            Err(SchemaError::Shape { what, found: found.to_string(), expected: expected.to_owned() })
        };
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return wrong("temperature", self.temperature, "a number above 0 (for the likeliest code alone, top-k 1)");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top-p", self.top_p, "above 0, at most 1");
        }
        if !(self.guidance.scale.is_finite() && self.guidance.scale >= 1.0) {
            return wrong("guidance scale", self.guidance.scale, "at least 1, which is no guidance");
        }
        let ratio = |what, found: f64| match (0.0..=1.0).contains(&found) {
            true => Ok(()),
            false => wrong(what, found, "a ratio of steps, 0 to 1"),
        };
        let floor = |found: f64| match found.is_finite() && found >= 1.0 {
            true => Ok(()),
            false => wrong("scale outside the schedule", found, "at least 1"),
        };
        match self.guidance.schedule {
            GuidanceSchedule::LinearConstant { peak } if peak == 0.0 => wrong("peak of the schedule", peak, "above 0"),
            GuidanceSchedule::Triangular { peak } if peak <= 0.0 || peak >= 1.0 => {
                wrong("peak of the schedule", peak, "between 0 and 1")
            }
            GuidanceSchedule::LinearConstant { peak } | GuidanceSchedule::Triangular { peak } => {
                ratio("peak of the schedule", peak)
            }
            GuidanceSchedule::Rectangular { start, end, floor: outside } => {
                ratio("start of the schedule", start)?;
                ratio("end of the schedule", end)?;
                floor(outside)
            }
            GuidanceSchedule::Step { start, floor: before } => {
                ratio("start of the schedule", start)?;
                floor(before)
            }
            _ => Ok(()),
        }
    }
}

impl Guidance {
    /// The scale of `step` of `steps`, from 0, as the published schedules give it: its ratio is `step / (steps - 1)`.
    pub fn scale_at(&self, step: usize, steps: usize) -> f64 {
        let ratio = step as f64 / steps.saturating_sub(1).max(1) as f64;
        let above = self.scale - 1.0;
        let outside = |floor: f64| if floor == 1.0 { 1.0 + UNGUIDED_EXCESS } else { floor };
        match self.schedule {
            GuidanceSchedule::Constant {} => self.scale,
            GuidanceSchedule::Linear {} => 1.0 + above * ratio + UNGUIDED_EXCESS,
            GuidanceSchedule::LinearRe {} => 1.0 + above * (1.0 - ratio) + UNGUIDED_EXCESS,
            GuidanceSchedule::LinearConstant { peak } if ratio < peak => 1.0 + above * (ratio / peak),
            GuidanceSchedule::LinearConstant { .. } => self.scale,
            GuidanceSchedule::Triangular { peak } if ratio < peak => 1.0 + above * (ratio / peak) + UNGUIDED_EXCESS,
            GuidanceSchedule::Triangular { peak } => 1.0 + above * ((1.0 - ratio) / (1.0 - peak)) + UNGUIDED_EXCESS,
            GuidanceSchedule::Rectangular { start, end, .. } if start <= ratio && ratio <= end => self.scale,
            GuidanceSchedule::Rectangular { floor, .. } => outside(floor),
            GuidanceSchedule::Step { start, .. } if self.scale == 1.0 || ratio >= start => self.scale,
            GuidanceSchedule::Step { floor, .. } => outside(floor),
            // The published script stops at these two for want of an import.
            GuidanceSchedule::Cosine {} => 1.0 + above * 0.5 * (1.0 - (std::f64::consts::PI * ratio).cos()),
            GuidanceSchedule::CosineRe {} => 1.0 + above * 0.5 * (1.0 + (std::f64::consts::PI * ratio).cos()),
        }
    }

    /// The scale with which `step` of `steps` is guided, whose first token is number `first_token` of the image; `None` where the
    /// class alone decides: a scale of 1, or what the published schedules write for it.
    pub fn guided_at(&self, step: usize, steps: usize, first_token: usize) -> Option<f64> {
        let past = self.interval.is_some_and(|last| first_token > last + 1);
        let scale = self.scale_at(step, steps);
        // A little room for the rounding of the sum.
        (self.scale > 1.0 && !past && scale > 1.0 + 1.000_001 * UNGUIDED_EXCESS).then_some(scale)
    }
}

impl GuidanceSchedule {
    /// The published name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant {} => "constant",
            Self::Linear {} => "linear",
            Self::LinearRe {} => "linear_re",
            Self::LinearConstant { .. } => "linear_constant",
            Self::Triangular { .. } => "triangular",
            Self::Rectangular { .. } => "rectangular",
            Self::Step { .. } => "step",
            Self::Cosine {} => "cosine",
            Self::CosineRe {} => "cosine_re",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: usize = 9;

    fn scales(schedule: GuidanceSchedule, scale: f64) -> Vec<f64> {
        let guidance = Guidance { scale, schedule, interval: None };
        (0..STEPS).map(|step| guidance.scale_at(step, STEPS)).collect()
    }

    fn close(found: &[f64], expected: &[f64]) -> bool {
        found.len() == expected.len() && found.iter().zip(expected).all(|(left, right)| (left - right).abs() < 1e-9)
    }

    #[test]
    fn every_schedule_moves_as_its_formula_says() {
        use GuidanceSchedule as S;
        for (schedule, expected) in [
            (S::Constant {}, [3.0; STEPS]),
            (S::Linear {}, [1.0001, 1.2501, 1.5001, 1.7501, 2.0001, 2.2501, 2.5001, 2.7501, 3.0001]),
            (S::LinearRe {}, [3.0001, 2.7501, 2.5001, 2.2501, 2.0001, 1.7501, 1.5001, 1.2501, 1.0001]),
            (S::LinearConstant { peak: 0.5 }, [1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0, 3.0, 3.0]),
            (S::Triangular { peak: 0.5 }, [1.0001, 1.5001, 2.0001, 2.5001, 3.0001, 2.5001, 2.0001, 1.5001, 1.0001]),
            (
                S::Rectangular { start: 0.25, end: 0.75, floor: 1.0 },
                [1.0001, 1.0001, 3.0, 3.0, 3.0, 3.0, 3.0, 1.0001, 1.0001],
            ),
            (S::Step { start: 0.25, floor: 1.5 }, [1.5, 1.5, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]),
        ] {
            let found = scales(schedule, 3.0);
            assert!(close(&found, &expected), "{}: {found:?}", schedule.name());
        }
        let cosine = scales(S::Cosine {}, 3.0);
        assert!(close(&[cosine[0], cosine[4], cosine[8]], &[1.0, 2.0, 3.0]), "{cosine:?}");
        let mut turned = scales(S::CosineRe {}, 3.0);
        turned.reverse();
        assert!(close(&turned, &cosine));
    }

    #[test]
    fn what_the_published_schedules_write_for_one_is_unguided() {
        let guided = |guidance: Guidance| -> Vec<bool> {
            let first_tokens = [0, 1, 2, 3, 4, 8, 16, 32, 64];
            (0..STEPS).map(|step| guidance.guided_at(step, STEPS, first_tokens[step]).is_some()).collect()
        };
        let paper = Sampling::paper(0).guidance;
        assert_eq!(guided(paper.clone()), [false, false, true, true, true, true, true, true, true]);
        let none = Guidance { scale: 1.0, ..paper.clone() };
        assert_eq!(guided(none), [false; STEPS]);
        let falling = Guidance { schedule: GuidanceSchedule::LinearRe {}, ..paper.clone() };
        assert_eq!(guided(falling), [true, true, true, true, true, true, true, true, false]);
        // The published loop compares the number of the token before a step's first.
        let interval = Guidance { schedule: GuidanceSchedule::Constant {}, interval: Some(3), ..paper };
        assert_eq!(guided(interval), [true, true, true, true, true, false, false, false, false]);
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let paper = Sampling::paper(1);
        paper.check().expect("the published recipe");
        let with = |change: fn(&mut Sampling)| {
            let mut sampling = paper.clone();
            change(&mut sampling);
            sampling.check().expect_err("out of range").to_string()
        };
        for (error, word) in [
            (with(|sampling| sampling.temperature = 0.0), "temperature"),
            (with(|sampling| sampling.top_p = 1.5), "top-p"),
            (with(|sampling| sampling.guidance.scale = 0.5), "guidance scale"),
            (
                with(|sampling| sampling.guidance.schedule = GuidanceSchedule::Step { start: 2.0, floor: 1.0 }),
                "start of the schedule",
            ),
            (with(|sampling| sampling.guidance.schedule = GuidanceSchedule::Triangular { peak: 1.0 }), "peak"),
        ] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_recipe_survives_json_and_unknown_words_do_not() {
        let paper = Sampling::paper(3);
        let text = serde_json::to_string(&paper).expect("serializes");
        assert_eq!(serde_json::from_str::<Sampling>(&text).expect("reads"), paper);
        for wrong in ["\"name\":\"sigmoid\"", "\"name\":\"step\",\"stop\":1.0"] {
            assert!(serde_json::from_str::<Sampling>(&text.replace("\"name\":\"step\"", wrong)).is_err(), "{wrong}");
        }
    }
}
