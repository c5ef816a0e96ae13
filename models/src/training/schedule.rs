//! The rate of learning at each step.

use serde::{Deserialize, Serialize};

/// Linear warm-up from 0, then half a cosine down to `end` (`get_cosine_schedule_with_warmup` in utils/lr_schedulers.py).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CosineSchedule {
    /// Rate after the warm-up.
    pub peak: f64,
    /// Rate at the end.
    pub end: f64,
    /// Steps of the warm-up; the first of them has rate 0.
    pub warmup_steps: u64,
    /// Steps in all.
    pub steps: u64,
}

impl CosineSchedule {
    /// The rate of the update after `done` others. Beyond the last step it rises again, as the published formula does: half a
    /// cosine does not stop by itself.
    pub fn rate(&self, done: u64) -> f64 {
        if done < self.warmup_steps {
            return self.peak * done as f64 / self.warmup_steps as f64;
        }
        let length = self.steps.saturating_sub(self.warmup_steps).max(1);
        let progress = (done - self.warmup_steps) as f64 / length as f64;
        let fraction = (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0);
        self.end + (self.peak - self.end) * fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_the_published_schedule_at_given_steps() {
        let schedule = CosineSchedule { peak: 1e-4, end: 1e-5, warmup_steps: 5_000, steps: 1_000_000 };
        // From utils/lr_schedulers.py: lr_lambda(step) times 1e-4.
        let published = [
            (0, 0.0),
            (1, 2e-8),
            (2_500, 5e-5),
            (5_000, 1e-4),
            (502_500, 5.5e-5),
            (750_000, 2.330_602_634_562_975e-5),
            (1_000_000, 1e-5),
        ];
        for (step, expected) in published {
            let found = schedule.rate(step);
            assert!((found - expected).abs() < 1e-9 * expected.max(1e-6), "step {step}: {found} {expected}");
        }
    }

    #[test]
    fn without_a_warm_up_the_first_step_has_the_peak_rate() {
        let schedule = CosineSchedule { peak: 0.5, end: 0.1, warmup_steps: 0, steps: 10 };
        assert!((schedule.rate(0) - 0.5).abs() < 1e-12);
        assert!((schedule.rate(5) - 0.3).abs() < 1e-12);
    }
}
