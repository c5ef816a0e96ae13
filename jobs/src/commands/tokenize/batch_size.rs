//! How many views a batch has: as asked, or as many as fit.

use crate::{
    settings::{BatchSize, SettingsError, TokenizeSettings},
    workers::Workers,
};
use anyhow::Result;
use models::{BatchMemory, Device, ModelError, VisualTokenizer, memory_limit};
use pipeline::Storage;
use report::text::bytes;
use serde::Serialize;

/// Views from which on a batch is measured before a processor begins with it. Measuring encodes eleven: as much again as a usual batch, and
/// nothing beside one that may not fit.
const CHECKED_FROM: usize = 128;

/// A batch, and what it takes where that was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChosenBatch {
    /// Views.
    pub(super) rows: usize,
    /// Measured for a dry run, and where the size is chosen by it.
    pub(super) memory: Option<BatchNeeds>,
}

/// What a batch takes on the first device.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct BatchNeeds {
    /// Bytes of weights and of a batch, estimated from smaller ones.
    pub(super) batch_bytes: u64,
    /// Bytes that one worker may take.
    pub(super) device_bytes: u64,
}

/// The batch of a run. `auto` takes that of the plan that the output has already, so that a run goes on after a start on another machine;
/// else it measures on the first device.
///
/// A GPU that has not enough memory says so, and which batch would fit. A processor kills the process: there a large batch is measured first.
///
/// # Errors
/// When the output cannot be read, or the batch, or even one view, does not fit.
pub(super) async fn choose(
    settings: &TokenizeSettings,
    output: &Storage,
    workers: &Workers,
    tokenizer: VisualTokenizer,
) -> Result<(ChosenBatch, VisualTokenizer)> {
    let there = match settings.batch_size {
        BatchSize::Rows(rows) => Some(rows),
        BatchSize::Auto => pipeline::read_plan(output).await?.map(|plan| plan.settings().batch_size),
    };
    let is_checked = |rows: usize| tokenizer.device() == Device::Cpu && rows >= CHECKED_FROM;
    if let Some(rows) = there.filter(|&rows| !settings.dry_run && !is_checked(rows)) {
        return Ok((ChosenBatch { rows, memory: None }, tokenizer));
    }
    let is_run = !settings.dry_run;
    let workers = workers.on(tokenizer.device()).max(1) as u64;
    let measuring = tokio::task::spawn_blocking(move || -> Result<_> {
        let device = tokenizer.device();
        // First, because memory of the measured batches is kept for the next ones.
        let device_bytes = memory_limit(device)? / workers;
        let memory = tokenizer.encoding_memory()?;
        let rows = there.map_or_else(|| fitting(memory, device_bytes, device), Ok)?;
        if is_run {
            check_fits(rows, memory, (device_bytes, workers), device)?;
        }
        let needs = BatchNeeds { batch_bytes: memory.of_rows(rows), device_bytes };
        Ok((ChosenBatch { rows, memory: Some(needs) }, tokenizer))
    });
    let (chosen, tokenizer) = measuring.await??;
    if there.is_none() {
        tracing::info!(batch_size = chosen.rows, "--batch-size auto: measured, and part of the plan from here on");
    }
    Ok((chosen, tokenizer))
}

/// The largest power of two that fits and is worth it: ranks that measure at the same time on machines of one kind come to the same, though
/// not to the same number of free bytes.
fn fitting(memory: BatchMemory, device_bytes: u64, device: Device) -> Result<usize, ModelError> {
    // The default of a processor, and on a GPU as many as are expected to keep it busy: chosen, not measured.
    let most = if device == Device::Cpu { 32 } else { 256 };
    let fits = memory.rows_within(device_bytes).map_or(most, |rows| rows.min(most));
    match fits.checked_ilog2() {
        Some(power) => Ok(1 << power),
        None => Err(no_room(memory, device_bytes, device)),
    }
}

/// Refuses batches for which memory does not suffice, of which each of `workers` may take `worker_bytes`.
fn check_fits(
    rows: usize,
    memory: BatchMemory,
    (worker_bytes, workers): (u64, u64),
    device: Device,
) -> Result<(), anyhow::Error> {
    let needed = memory.of_rows(rows);
    if needed <= worker_bytes {
        return Ok(());
    }
    let fits = memory.rows_within(worker_bytes).unwrap_or(0).min(rows - 1);
    if fits == 0 {
        return Err(no_room(memory, worker_bytes, device).into());
    }
    let whose =
        if workers > 1 { format!("that each of {workers} workers has on") } else { "that are free on".to_owned() };
    let found = format!("{rows}, whose batches take about {}", bytes(needed));
    let expected = format!("at most {fits}, whose batches fit into the {} {whose} {device}", bytes(worker_bytes));
    Err(SettingsError::invalid("--batch-size", found, expected).into())
}

/// The error where not even one view fits.
fn no_room(memory: BatchMemory, device_bytes: u64, device: Device) -> ModelError {
    ModelError::OutOfMemory {
        device: device.to_string(),
        batch: "one view".to_owned(),
        advice: format!(
            "it takes about {} MiB of {} MiB: use another device, a smaller tokenizer or --precision bf16",
            memory.of_rows(1) >> 20,
            device_bytes >> 20
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_code::{self, ExitCode};

    fn of_a_process(rows_that_fit: usize) -> BatchMemory {
        let batch = |rows: usize| match rows > rows_that_fit {
            true => Err(ModelError::Torch { message: "CUDA out of memory".to_owned() }),
            false => Ok(()),
        };
        BatchMemory::measure(Device::Cpu, batch).expect("no other error")
    }

    #[test]
    fn the_batch_is_a_power_of_two_within_what_fits_and_what_is_worth_it() {
        let fits = |rows, device| fitting(of_a_process(rows), u64::MAX, device).expect("something fits");
        assert_eq!((fits(8, Device::Cpu), fits(8, Device::Cuda(0))), (32, 256), "nothing limits them");
        assert_eq!((fits(7, Device::Cpu), fits(1, Device::Cpu)), (2, 1));
        let error = fitting(of_a_process(0), u64::MAX, Device::Cuda(1)).expect_err("nothing fits").to_string();
        assert!(error.contains("cuda:1") && error.contains("one view") && error.contains("bf16"), "{error}");
    }

    #[test]
    fn a_batch_that_does_not_fit_is_refused_with_what_it_takes_and_what_would_fit() {
        let memory = BatchMemory::known(1 << 30, 100 << 20);
        let check = |rows, gibibytes: u64, workers| check_fits(rows, memory, (gibibytes << 30, workers), Device::Cpu);
        check(128, 14, 1).expect("13.5 GiB of 14");
        let error = check(100_000, 14, 1).expect_err("10 TiB of 14 GiB");
        assert_eq!(exit_code::of(&error), ExitCode::Permanent);
        let text = error.to_string();
        for words in ["--batch-size", "100000", "9.54 TiB", "at most 112", "14.00 GiB", "free on cpu"] {
            assert!(text.contains(words), "{words} is not in: {text}");
        }
        assert!(!text.contains("workers"), "{text}");
        let text = check(128, 7, 2).expect_err("13.5 GiB of 7").to_string();
        assert!(text.contains("each of 2 workers") && text.contains("at most 48"), "{text}");
        let text = check(128, 1, 1).expect_err("not even one").to_string();
        assert!(text.contains("one view") && text.contains("smaller tokenizer"), "{text}");
    }
}
