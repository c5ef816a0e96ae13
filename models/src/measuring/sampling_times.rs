//! Where the time of sampling goes, for those who want to make it less.

use super::wait;
use crate::Device;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tracing::{Event, Metadata, Subscriber, span};

/// Names of the spans that a generator opens around parts of its work: who measures listens to them, and nobody else does.
pub(crate) const ATTENTION: &str = "sampling attention";
pub(crate) const HEAD: &str = "sampling head";

/// Time of some sampling, by what it was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplingTimes {
    /// Writing to the cache, and attention over it.
    pub attention: Duration,
    /// The output layer, guidance, filtering and drawing.
    pub head: Duration,
    /// Everything else: embeddings, norms, the linear layers of the blocks, the copy back.
    pub rest: Duration,
}

/// Runs `body`, which samples on this thread, and tells where its time went. On a GPU the parts wait for each other, so that the whole takes
/// longer than it would otherwise; on a processor it takes as long.
pub fn sampling_times<T>(device: Device, body: impl FnOnce() -> T) -> (T, SamplingTimes) {
    let parts = Arc::new(Mutex::new([Part::default(); 2]));
    wait(device);
    let started = Instant::now();
    let listener = PartListener { device, parts: Arc::clone(&parts) };
    let result = tracing::subscriber::with_default(listener, body);
    wait(device);
    let whole = started.elapsed();
    let [attention, head] = parts.lock().unwrap_or_else(PoisonError::into_inner).map(|part| part.spent);
    (result, SamplingTimes { attention, head, rest: whole.saturating_sub(attention + head) })
}

/// Attention or head: when it was entered, and all its time so far.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    entered: Option<Instant>,
    spent: Duration,
}

/// Adds up the time inside the spans of parts. A part's work has ended on the device before its clock starts and when it stops.
struct PartListener {
    device: Device,
    parts: Arc<Mutex<[Part; 2]>>,
}

impl PartListener {
    fn change(&self, span: &span::Id, change: impl FnOnce(&mut Part)) {
        wait(self.device);
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts.get_mut(span.into_u64() as usize - 1) {
            change(part);
        }
    }
}

impl Subscriber for PartListener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && [ATTENTION, HEAD].contains(&metadata.name())
    }

    /// A span's number is that of its part, from 1: no more is kept of one.
    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(if span.metadata().name() == ATTENTION { 1 } else { 2 })
    }

    fn enter(&self, span: &span::Id) {
        self.change(span, |part| part.entered = Some(Instant::now()));
    }

    fn exit(&self, span: &span::Id) {
        self.change(span, |part| part.spent += part.entered.take().map_or(Duration::ZERO, |entered| entered.elapsed()));
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_spans_is_told_apart_from_the_rest() {
        let pause = Duration::from_millis(2);
        let (result, times) = sampling_times(Device::Cpu, || {
            std::thread::sleep(pause);
            for _ in 0..2 {
                tracing::trace_span!(ATTENTION).in_scope(|| std::thread::sleep(pause));
            }
            tracing::trace_span!("another").in_scope(|| std::thread::sleep(pause));
            7
        });
        assert_eq!((result, times.head), (7, Duration::ZERO));
        assert!(times.attention >= 2 * pause && times.rest >= 2 * pause, "{times:?}");
        let ((), times) = sampling_times(Device::Cpu, || {
            tracing::trace_span!(HEAD).in_scope(|| std::thread::sleep(pause));
        });
        assert_eq!(times.attention, Duration::ZERO);
        assert!(times.head >= pause, "{times:?}");
    }
}
