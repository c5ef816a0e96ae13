//! How many views a batch has: as asked, or as many as fit.

use crate::{
    settings::{BatchSize, TokenizeSettings},
    workers::Workers,
};
use anyhow::Result;
use models::{BatchMemory, Device, ModelError, VisualTokenizer, memory_limit};
use pipeline::Storage;
use serde::Serialize;

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
/// # Errors
/// When the output cannot be read, or not even one view fits.
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
    if let (Some(rows), false) = (there, settings.dry_run) {
        return Ok((ChosenBatch { rows, memory: None }, tokenizer));
    }
    let workers = workers.on(tokenizer.device()).max(1) as u64;
    let measuring = tokio::task::spawn_blocking(move || -> Result<_> {
        let device = tokenizer.device();
        // First, because memory of the measured batches is kept for the next ones.
        let device_bytes = memory_limit(device)? / workers;
        let memory = tokenizer.encoding_memory()?;
        let rows = there.map_or_else(|| fitting(memory, device_bytes, device), Ok)?;
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
        None => Err(ModelError::OutOfMemory {
            device: device.to_string(),
            batch: "one view".to_owned(),
            advice: format!(
                "it takes about {} MiB of {} MiB: use another device, a smaller tokenizer or --precision bf16",
                memory.of_rows(1) >> 20,
                device_bytes >> 20
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
