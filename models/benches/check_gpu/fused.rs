//! The fused norms beside the plain path, by turns in one process: the same weights, the same images, the same state of the card.

use crate::{
    Fallible,
    networks::{pictures, tokenizer_config},
    options,
    timing::{median, print, unix_seconds},
};
use models::{Device, Precision, VisualTokenizer, fused_kernels_report, measuring::wait, use_fused_kernels};
use serde_json::json;
use std::time::{Duration, Instant};

/// Turns of each way, so that a clock that rises or falls during the run meets both.
const ROUNDS: u32 = 3;
/// Calls after each switch that are not counted: the first ones compile programs and take memory.
const WARM_UPS: usize = 2;

/// Encodes without and with the fused norms for about `seconds` each.
pub(crate) fn fused(device: Device, preset: &str, precision: Precision, batch: usize, seconds: f64) -> Fallible<()> {
    let tokenizer = VisualTokenizer::init(tokenizer_config(preset)?, 0, options(device, precision))?;
    let images = pictures(batch, tokenizer.resolution())?;
    let turn = Duration::from_secs_f64(seconds) / ROUNDS;
    let (start, before) = (unix_seconds(), fused_kernels_report().calls);
    let (mut plain_times, mut fused_times) = (Vec::new(), Vec::new());
    let timed = |on: bool, times: &mut Vec<f64>| -> Fallible<Vec<i16>> {
        use_fused_kernels(on);
        for _ in 0..WARM_UPS {
            tokenizer.encode(&images)?;
        }
        wait(device);
        let began = Instant::now();
        loop {
            let call = Instant::now();
            let tokens = tokenizer.encode(&images)?;
            wait(device);
            times.push(call.elapsed().as_secs_f64());
            if began.elapsed() >= turn {
                return Ok(tokens.codes().to_vec());
            }
        }
    };
    let (mut plain_codes, mut fused_codes) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain_codes = timed(false, &mut plain_times)?;
        fused_codes = timed(true, &mut fused_times)?;
    }
    use_fused_kernels(false);
    let report = fused_kernels_report();
    let (plain, fused) = (median(&mut plain_times), median(&mut fused_times));
    let equal = plain_codes.iter().zip(&fused_codes).filter(|(left, right)| left == right).count();
    print(&json!({
        "kind": "fused", "what": "encode", "network": preset, "precision": precision.name(), "batch": batch,
        "value": batch as f64 / fused, "unit": "images/s", "plain_value": batch as f64 / plain,
        "plain_median_ms": 1e3 * plain, "fused_median_ms": 1e3 * fused,
        // How many times as fast.
        "ratio": plain / fused,
        "rounds": ROUNDS, "plain_calls": plain_times.len(), "fused_calls": fused_times.len(),
        "codes": plain_codes.len(), "equal_codes": equal, "equal_share": equal as f64 / plain_codes.len() as f64,
        "norms": report.calls - before, "problems": report.problems,
        "start": start, "seconds": unix_seconds() - start,
    }));
    Ok(())
}
