//! Memory of a device: how much tensors may take, and how much of it batches of some size do.

use crate::{Device, ModelError, device, torch_switches};
use std::fs;

/// Batches of these rows are measured: large enough that the memory of a row shows beside what a kernel takes for itself.
const MEASURED_ROWS: [usize; 2] = [2, 8];
/// Share of the memory that a batch is planned for: kernels choose their workspaces by shape, and an allocator's blocks do not fill it all.
const PLANNED_SHARE: f64 = 0.9;

/// What batches of one network take, with everything else that the process has on the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchMemory {
    /// Bytes that are taken whatever the batch: weights, mostly.
    fixed: f64,
    /// Bytes a row.
    row: f64,
}

impl BatchMemory {
    /// Runs `batch` with few rows and with some more, and takes the line through the peaks of both. The answer is an estimate: torch and its
    /// libraries choose kernels and their workspaces by shape.
    ///
    /// # Errors
    /// Those of `batch`, and when libtorch refuses.
    pub fn measure(device: Device, mut batch: impl FnMut(usize) -> Result<(), ModelError>) -> Result<Self, ModelError> {
        let mut peak = |rows: usize| -> Result<f64, ModelError> {
            peak_bytes(device)?;
            batch(rows)?;
            Ok(peak_bytes(device)? as f64)
        };
        let [few, more] = MEASURED_ROWS;
        Ok(Self::through([(few, peak(few)?), (more, peak(more)?)]))
    }

    fn through([(few, few_bytes), (more, more_bytes)]: [(usize, f64); 2]) -> Self {
        let row = ((more_bytes - few_bytes) / (more - few) as f64).max(0.0);
        Self { fixed: (few_bytes - row * few as f64).max(0.0), row }
    }

    /// Bytes with a batch of `rows`.
    pub fn of_rows(self, rows: usize) -> u64 {
        (self.fixed + self.row * rows as f64) as u64
    }

    /// Most rows of a batch that should fit into `bytes`, with some to spare; 0 where not even one does, `None` where rows take nothing that
    /// was seen. From 8 rows on a multiple of 8.
    pub fn rows_within(self, bytes: u64) -> Option<usize> {
        let rows = (PLANNED_SHARE * bytes as f64 - self.fixed) / self.row;
        if !rows.is_finite() {
            return None;
        }
        let rows = rows.max(0.0) as usize;
        Some(if rows >= 8 { rows / 8 * 8 } else { rows })
    }
}

/// Bytes that tensors of this process may take on `device`: what it has taken and what is free.
///
/// # Errors
/// When the device does not say.
pub fn memory_limit(device: Device) -> Result<u64, ModelError> {
    match device {
        Device::Cpu => Ok(free_memory().saturating_add(torch_switches::live_tensor_bytes())),
        Device::Cuda(index) => device::cuda_memory_limit(index),
    }
}

/// Most bytes that tensors took on `device` at a time since the last call. On a processor, those of 256 KiB and more.
fn peak_bytes(device: Device) -> Result<u64, ModelError> {
    match device {
        Device::Cpu => Ok(torch_switches::take_tensor_memory_peak()),
        Device::Cuda(_) => {
            Ok(crate::measuring::memory_peaks(device)?.map_or(0, |peaks| peaks.allocated.unsigned_abs()))
        }
    }
}

/// Free memory of the machine, or of the container if that has less.
fn free_memory() -> u64 {
    let read = |file: &str| fs::read_to_string(file).ok();
    let number = |text: String| text.trim().parse::<u64>().ok();
    let machine = read("/proc/meminfo").and_then(|text| available(&text));
    let container = read("/sys/fs/cgroup/memory.max")
        .and_then(number)
        .zip(read("/sys/fs/cgroup/memory.current").and_then(number))
        .map(|(most, now)| most.saturating_sub(now));
    machine.into_iter().chain(container).min().unwrap_or(u64::MAX)
}

/// The line of /proc/meminfo that says what may be taken without swapping.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceChoice, initialise};
    use tch::{Kind, Tensor};

    #[test]
    fn rows_follow_from_the_line_through_two_peaks() {
        let memory = BatchMemory::through([(2, 120.0), (8, 180.0)]);
        assert_eq!((memory.of_rows(0), memory.of_rows(10)), (100, 200));
        // 0.9 of 1,000 less 100 that are taken anyway, at 10 a row.
        assert_eq!(memory.rows_within(1_000), Some(80));
        assert_eq!(memory.rows_within(1_009), Some(80), "a multiple of 8");
        assert_eq!(memory.rows_within(167), Some(5));
        assert_eq!(memory.rows_within(50), Some(0));
        assert_eq!(BatchMemory::through([(2, 64.0), (8, 64.0)]).rows_within(1_000), None);
    }

    #[test]
    fn what_a_batch_takes_on_a_processor_is_foretold_within_a_tenth() {
        initialise(&[DeviceChoice::Cpu], Some(1)).expect("there is a processor");
        let row = 1 << 20;
        let batch = |rows: usize| {
            let numbers = Tensor::f_ones([rows as i64, row], (Kind::Float, tch::Device::Cpu))?;
            drop(numbers.f_mul_scalar(2.0)?);
            Ok(())
        };
        let memory = BatchMemory::measure(Device::Cpu, batch).expect("measured");
        peak_bytes(Device::Cpu).expect("begun anew");
        batch(20).expect("there is memory");
        let peak = peak_bytes(Device::Cpu).expect("counted") as f64;
        let foretold = memory.of_rows(20) as f64;
        assert!(peak >= 2.0 * 20.0 * 4.0 * row as f64 && (foretold / peak - 1.0).abs() < 0.1, "{foretold} and {peak}");
    }

    #[test]
    fn the_processor_says_what_is_free() {
        assert_eq!(available("MemTotal: 10 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemTotal: 10 kB\n"), None);
        let limit = memory_limit(Device::Cpu).expect("read");
        assert!(limit > 1 << 20, "{limit}");
    }
}
