//! Memory of a device: how much tensors may take, and how much of it batches of some size do.

use crate::{Device, ModelError, kernels, measuring, torch_switches};
use std::fs;
use tch::{Kind, Tensor};

/// Batches of these rows are measured, in this order: the last is large enough that the memory of a row shows beside what a kernel takes for
/// itself.
const MEASURED_ROWS: [usize; 3] = [1, 2, 8];
/// Fraction of the memory that a batch is planned for: kernels choose their workspaces by shape, and an allocator's blocks do not fill it all.
const PLANNED_SHARE: f64 = 0.9;

/// What batches of one network take, with everything else that the process has on the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchMemory {
    /// Bytes that are taken whatever the batch: weights, mostly.
    fixed: f64,
    /// Bytes a row.
    row: f64,
    /// Rows that fitted when one more step was tried and did not.
    most: Option<usize>,
}

impl BatchMemory {
    /// Of a network of which it is known what it takes: `fixed` bytes whatever the batch, and `row` bytes a row.
    pub fn known(fixed: u64, row: u64) -> Self {
        Self { fixed: fixed as f64, row: row as f64, most: None }
    }

    /// Runs `batch` with few rows and with some more, and takes the line through the peaks of the largest two that fit. The answer is an
    /// estimate: torch and its libraries choose kernels and their workspaces by shape.
    ///
    /// # Errors
    /// Those of `batch` but for want of memory, and when libtorch refuses.
    pub fn measure(device: Device, mut batch: impl FnMut(usize) -> Result<(), ModelError>) -> Result<Self, ModelError> {
        let mut peaks = Vec::new();
        let mut most = None;
        for rows in MEASURED_ROWS {
            peak_bytes(device)?;
            match batch(rows) {
                Ok(()) => peaks.push((rows, peak_bytes(device)? as f64)),
                Err(error) if error.is_out_of_memory() => {
                    most = Some(peaks.last().map_or(0, |(rows, _)| *rows));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { most, ..Self::through(&peaks) })
    }

    fn through(peaks: &[(usize, f64)]) -> Self {
        match *peaks {
            [.., (few, few_bytes), (more, more_bytes)] => {
                let row = ((more_bytes - few_bytes) / (more - few) as f64).max(0.0);
                Self { fixed: (few_bytes - row * few as f64).max(0.0), row, most: None }
            }
            [(_, bytes)] => Self { fixed: bytes, row: 0.0, most: None },
            [] => Self { fixed: 0.0, row: 0.0, most: None },
        }
    }

    /// Bytes with a batch of `rows`.
    pub fn of_rows(self, rows: usize) -> u64 {
        (self.fixed + self.row * rows as f64) as u64
    }

    /// Most rows of a batch that should fit into `bytes`, with some to spare; 0 where not even one does, `None` where rows take nothing that
    /// was seen. From 8 rows on a multiple of 8.
    pub fn rows_within(self, bytes: u64) -> Option<usize> {
        let rows = (PLANNED_SHARE * bytes as f64 - self.fixed) / self.row;
        let rows = (self.row > 0.0).then(|| rows.max(0.0) as usize);
        let rows = rows.into_iter().chain(self.most).min()?;
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
        Device::Cuda(index) => {
            // torch begins on the device with its first tensor there; what it holds unused goes back to the driver before it is asked.
            drop(Tensor::f_zeros([1], (Kind::Float, device.torch()))?);
            measuring::memory_peaks(device)?;
            let taken = measuring::memory_peaks(device)?.map_or(0, |peaks| peaks.allocated.unsigned_abs());
            let free = kernels::free_memory(index);
            Ok(taken
                + free
                    .map_err(|problem| ModelError::torch(&format!("the memory of {device} is not known: {problem}")))?)
        }
    }
}

/// Most bytes that tensors took on `device` at a time since the last call. On a processor, those of 256 KiB and more.
fn peak_bytes(device: Device) -> Result<u64, ModelError> {
    match device {
        Device::Cpu => Ok(torch_switches::take_tensor_memory_peak()),
        Device::Cuda(_) => Ok(measuring::memory_peaks(device)?.map_or(0, |peaks| peaks.allocated.unsigned_abs())),
    }
}

/// Free memory of the machine, or of the container if that has less.
fn free_memory() -> u64 {
    let read = |file: &str| fs::read_to_string(file).ok();
    let number = |text: String| text.trim().parse::<u64>().ok();
    let machine = read("/proc/meminfo").and_then(|text| available(&text));
    let container = read("/sys/fs/cgroup/memory.max").and_then(number).and_then(|most| {
        let now = read("/sys/fs/cgroup/memory.current").and_then(number)?;
        Some(most.saturating_sub(now.saturating_sub(reclaimable(&read("/sys/fs/cgroup/memory.stat")?))))
    });
    machine.into_iter().chain(container).min().unwrap_or(u64::MAX)
}

/// The line of /proc/meminfo that says what may be taken without swapping.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

/// Bytes in /sys/fs/cgroup/memory.stat that a container counts as used and gives up when they are wanted: the cache of files, mostly.
fn reclaimable(stat: &str) -> u64 {
    let value = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        ["inactive_file", "active_file", "slab_reclaimable"]
            .contains(&name)
            .then(|| value.trim().parse::<u64>().ok())?
    };
    stat.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_from_the_line_through_two_peaks() {
        let memory = BatchMemory::through(&[(1, 1.0), (2, 120.0), (8, 180.0)]);
        assert_eq!((memory.of_rows(0), memory.of_rows(10)), (100, 200));
        // 0.9 of 1,000 less 100 that are taken anyway, at 10 a row.
        assert_eq!(memory.rows_within(1_000), Some(80));
        assert_eq!(memory.rows_within(1_009), Some(80), "a multiple of 8");
        assert_eq!(memory.rows_within(167), Some(5));
        assert_eq!(memory.rows_within(50), Some(0));
        assert_eq!(BatchMemory::through(&[(2, 64.0), (8, 64.0)]).rows_within(1_000), None);
    }

    #[test]
    fn what_did_not_fit_is_not_advised_and_other_errors_are_errors() {
        let within = |most: usize| {
            let batch = |rows: usize| match rows > most {
                true => Err(ModelError::Torch { message: "CUDA out of memory".to_owned() }),
                false => Ok(()),
            };
            BatchMemory::measure(Device::Cpu, batch).expect("no other error").rows_within(u64::MAX)
        };
        assert_eq!([0, 1, 2, 7, 8].map(within), [Some(0), Some(1), Some(2), Some(2), None]);
        let lost = |_| Err(ModelError::Torch { message: "device lost".to_owned() });
        assert!(BatchMemory::measure(Device::Cpu, lost).is_err());
    }

    #[test]
    fn a_container_gives_up_its_cache_of_files() {
        assert_eq!(reclaimable("anon 7\ninactive_file 100\nactive_file 20\nslab_reclaimable 3\nslab 9\n"), 123);
        assert_eq!(reclaimable(""), 0);
    }

    #[test]
    fn the_processor_says_what_is_free() {
        assert_eq!(available("MemTotal: 10 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemTotal: 10 kB\n"), None);
        let limit = memory_limit(Device::Cpu).expect("read");
        assert!(limit > 1 << 20, "{limit}");
    }
}
