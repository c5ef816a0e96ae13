//! Where the time of sampling goes, for those who want to make it less.

use crate::Device;
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Time of one batch, by what it was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplingTimes {
    /// Writing to the cache, and attention over it.
    pub attention: Duration,
    /// The output layer, guidance, filtering and drawing.
    pub head: Duration,
    /// Everything else: embeddings, norms, the linear layers of the blocks, the copy back.
    pub rest: Duration,
}

/// Adds up the time of parts. Each part waits for the device before and after, which is why sampling proper does without.
#[derive(Debug)]
pub(super) struct PartTimes {
    device: Device,
    started: Instant,
    attention: Cell<Duration>,
    head: Cell<Duration>,
}

impl PartTimes {
    /// From here on.
    pub(super) fn start(device: Device) -> Self {
        wait(device);
        Self { device, started: Instant::now(), attention: Cell::default(), head: Cell::default() }
    }

    /// Runs `part` and counts its time as attention.
    pub(super) fn attention<T>(times: Option<&Self>, part: impl FnOnce() -> T) -> T {
        Self::part(times, |times| &times.attention, part)
    }

    /// Runs `part` and counts its time as the head's.
    pub(super) fn head<T>(times: Option<&Self>, part: impl FnOnce() -> T) -> T {
        Self::part(times, |times| &times.head, part)
    }

    fn part<T>(times: Option<&Self>, sum: impl FnOnce(&Self) -> &Cell<Duration>, part: impl FnOnce() -> T) -> T {
        let Some(times) = times else { return part() };
        wait(times.device);
        let start = Instant::now();
        let result = part();
        wait(times.device);
        let sum = sum(times);
        sum.set(sum.get() + start.elapsed());
        result
    }

    /// The sums, and what is left of the time since the start.
    pub(super) fn finish(self) -> SamplingTimes {
        wait(self.device);
        let (attention, head) = (self.attention.get(), self.head.get());
        SamplingTimes { attention, head, rest: self.started.elapsed().saturating_sub(attention + head) }
    }
}

fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}
