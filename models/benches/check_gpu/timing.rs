//! A body that is called again and again under a clock, and what came of it as one line.

use crate::Fallible;
use models::{
    Device,
    measuring::{MemoryPeaks, memory_peaks, wait},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Calls that are not counted: the first ones choose kernels and take memory.
const WARM_UPS: usize = 2;
/// Calls that are made even where they take longer than asked for.
const FEWEST_CALLS: usize = 3;

/// What is timed, and what it is worth.
pub(crate) struct Work<'a> {
    /// Of the section, such as `encode`.
    pub(crate) what: &'a str,
    pub(crate) network: &'a str,
    pub(crate) precision: &'a str,
    /// Things that one call makes.
    pub(crate) batch: usize,
    /// Floating-point operations of one call by the precision that they are computed in.
    pub(crate) operations: Value,
    /// Bytes of memory that one call cannot do without.
    pub(crate) bytes: i64,
}

/// Prints one line.
pub(crate) fn print(line: &Value) {
    println!("{line}");
}

/// Seconds since 1970, so that the report can lay what nvidia-smi saw beside each figure.
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Times `body`, which must wait for what it starts, for about `seconds`, and prints its line.
pub(crate) fn rate(
    work: &Work<'_>,
    device: Device,
    seconds: f64,
    mut body: impl FnMut() -> Fallible<()>,
) -> Fallible<()> {
    for _ in 0..WARM_UPS {
        body()?;
    }
    memory_peaks(device)?;
    let (start, began) = (unix_seconds(), Instant::now());
    let mut times = Vec::new();
    while times.len() < FEWEST_CALLS || began.elapsed() < Duration::from_secs_f64(seconds) {
        let call = Instant::now();
        body()?;
        times.push(call.elapsed().as_secs_f64());
    }
    wait(device);
    let length = began.elapsed().as_secs_f64();
    print(&rate_line(work, &mut times, start, length, memory_peaks(device)?));
    Ok(())
}

/// The median of some times, which are sorted by it.
pub(crate) fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A line of kind `rate` from the seconds of each call.
pub(crate) fn rate_line(
    work: &Work<'_>,
    times: &mut [f64],
    start: f64,
    length: f64,
    memory: Option<MemoryPeaks>,
) -> Value {
    let median = median(times);
    json!({
        "kind": "rate",
        "what": work.what,
        "network": work.network,
        "precision": work.precision,
        "batch": work.batch,
        // Of all calls and what is between them: what a job would see.
        "value": (work.batch * times.len()) as f64 / length,
        "unit": "images/s",
        "median_ms": 1e3 * median,
        "least_ms": 1e3 * times[0],
        "calls": times.len(),
        "peak_allocated_bytes": memory.map(|peaks| peaks.allocated),
        "peak_reserved_bytes": memory.map(|peaks| peaks.reserved),
        "start": start,
        "seconds": length,
        "operations": work.operations,
        "bytes": work.bytes,
    })
}

/// Median of the seconds of some calls, each of which is `body` so often that it takes a while, waited for at its end. Not the least: clocks
/// rise for a moment now and then, and what is measured with their help no work of seconds can reach.
pub(crate) fn median_seconds(device: Device, seconds: f64, mut body: impl FnMut() -> Fallible<()>) -> Fallible<f64> {
    let mut timed = |calls: usize| -> Fallible<f64> {
        wait(device);
        let began = Instant::now();
        for _ in 0..calls {
            body()?;
        }
        wait(device);
        Ok(began.elapsed().as_secs_f64() / calls as f64)
    };
    timed(1)?;
    let once = timed(1)?;
    // So many that the wait at the end is small beside them.
    let calls = ((seconds / 25.0 / once) as usize).clamp(1, 1000);
    let began = Instant::now();
    let mut times = vec![timed(calls)?];
    while began.elapsed() < Duration::from_secs_f64(seconds) {
        times.push(timed(calls)?);
    }
    Ok(median(&mut times))
}
