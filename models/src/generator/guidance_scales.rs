//! Which steps are guided, and how strongly.

use super::steps::{Step, Steps};
use schemas::Guidance;

/// The scale of every step, known before the first.
#[derive(Debug)]
pub(super) struct GuidanceScales {
    scales: Vec<Option<f64>>,
    /// First position after the last guided step.
    over_from: i64,
}

impl GuidanceScales {
    pub(super) fn new(steps: &Steps, guidance: &Guidance) -> Self {
        let scale = |(number, step): (usize, &Step)| guidance.guided_at(number, steps.len(), step.start as usize);
        let scales: Vec<_> = steps.iter().enumerate().map(scale).collect();
        let guided = steps.iter().zip(&scales).filter(|(_, scale)| scale.is_some());
        let over_from = guided.map(|(step, _)| step.end()).last().unwrap_or(0);
        Self { scales, over_from }
    }

    /// The scale of each step in turn; `None` where the class alone decides.
    pub(super) fn scales(&self) -> &[Option<f64>] {
        &self.scales
    }

    /// Whether any step is guided.
    pub(super) fn any(&self) -> bool {
        self.over_from > 0
    }

    /// Whether neither `step` nor any later one is guided.
    pub(super) fn is_over_at(&self, step: &Step) -> bool {
        step.start >= self.over_from
    }
}
