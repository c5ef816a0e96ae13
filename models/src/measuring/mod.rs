//! What measuring needs and no job does: waiting for a device, its peaks of memory, torch's profiler, the parts of sampling, and one
//! precision of products for as long as a measurement takes. `benches/check_gpu` is who asks.

mod profiler;
mod sampling_times;

pub use profiler::{Profile, ProfileRow, profile};
pub(crate) use sampling_times::{ATTENTION, HEAD};
pub use sampling_times::{SamplingTimes, sampling_times};

use crate::{
    Device, ModelError, Precision,
    tf32::Tf32Choice,
    torch_switches::{check, pack_linear, packed_linear},
};
use std::ffi::c_int;
use tch::Tensor;

#[expect(
    unsafe_code,
    reason = "declares a function of the C interface of shim/profiler.cpp, which is compiled into this crate"
)]
mod shim {
    use super::c_int;
    unsafe extern "C" {
        pub(super) fn restok_memory_peaks(device: c_int, allocated: *mut i64, reserved: *mut i64) -> c_int;
    }
}

/// Waits until a CUDA device has done all it was given. A processor is never behind.
pub fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// Most memory of a CUDA device in use at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPeaks {
    /// Bytes of tensors.
    pub allocated: i64,
    /// Bytes that torch's allocator held for them.
    pub reserved: i64,
}

/// The peaks since the last call, which begins them anew; `None` for a processor, where nobody counts.
///
/// # Errors
/// When libtorch refuses.
pub fn memory_peaks(device: Device) -> Result<Option<MemoryPeaks>, ModelError> {
    let Device::Cuda(index) = device else { return Ok(None) };
    wait(device);
    let mut peaks = MemoryPeaks { allocated: 0, reserved: 0 };
    #[expect(unsafe_code, reason = "two numbers of ours, which outlive the call")]
    check(unsafe { shim::restok_memory_peaks(index as c_int, &mut peaks.allocated, &mut peaks.reserved) })?;
    Ok(Some(peaks))
}

/// Holds the process to the products of one precision, as a model of that precision would, for tensors that are no model's.
#[derive(Debug)]
pub struct ProductsIn {
    _choice: Option<Tf32Choice>,
}

impl ProductsIn {
    /// From here until it is dropped, float32 products on `device` are those of `precision`.
    ///
    /// # Errors
    /// When a model that needs others is alive in this process.
    pub fn precision(precision: Precision, device: Device) -> Result<Self, ModelError> {
        Ok(Self { _choice: Tf32Choice::of(precision, device)? })
    }
}

/// A matrix as oneDNN wants it on a processor: what the linear layers of a loaded model multiply with there.
#[derive(Debug)]
pub struct PackedMatrix(Tensor);

impl PackedMatrix {
    /// Packs `weight`, `[out, in]`.
    ///
    /// # Errors
    /// When oneDNN has no fast kernel for the weight's type on this processor.
    pub fn pack(weight: &Tensor) -> Result<Self, ModelError> {
        Ok(Self(pack_linear(weight)?))
    }

    /// `[rows, in]` to `[rows, out]`.
    ///
    /// # Errors
    /// When oneDNN refuses.
    pub fn multiply(&self, rows: &Tensor) -> Result<Tensor, ModelError> {
        packed_linear(rows, &self.0, None, false)
    }
}
