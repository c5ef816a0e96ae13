//! The Rust side of `shim/torch_switches.cpp`: everything unsafe about it is in this file.

use crate::ModelError;
use std::ffi::{CStr, c_char, c_int, c_uint};
use tch::{Tensor, kind::Element};
use torch_sys::C_tensor;

#[expect(
    unsafe_code,
    reason = "declares the C interface of shim/torch_switches.cpp, which is compiled into this crate"
)]
mod shim {
    use super::{C_tensor, c_char, c_int, c_uint};
    unsafe extern "C" {
        pub(super) fn restok_last_error() -> *const c_char;
        pub(super) fn restok_torch_version() -> *const c_char;
        pub(super) fn restok_loaded_version() -> c_uint;
        pub(super) fn restok_compiled_version() -> c_uint;
        pub(super) fn restok_cpu_capability() -> *const c_char;
        pub(super) fn restok_allow_tf32(allowed: c_int) -> c_int;
        pub(super) fn restok_keep_tensor_memory() -> c_int;
        pub(super) fn restok_live_tensor_bytes() -> u64;
        pub(super) fn restok_take_tensor_memory_peak() -> u64;
        pub(super) fn restok_pinned(tensor: *const C_tensor, pinned: *mut *mut C_tensor) -> c_int;
        pub(super) fn restok_pack_linear(weight: *const C_tensor, packed: *mut *mut C_tensor) -> c_int;
        pub(super) fn restok_packed_linear(
            input: *const C_tensor,
            packed: *const C_tensor,
            bias: *const C_tensor,
            gelu: c_int,
            output: *mut *mut C_tensor,
        ) -> c_int;
    }
}

/// Version of the libtorch that was compiled against.
pub(crate) fn torch_version() -> String {
    #[expect(unsafe_code, reason = "a string literal of the C++ file")]
    text(unsafe { shim::restok_torch_version() })
}

/// Major and minor version of the libtorch that the process runs over, and of the one that it was compiled against.
pub(crate) fn loaded_and_compiled_versions() -> [(u32, u32); 2] {
    #[expect(unsafe_code, reason = "take nothing and give a number")]
    let packed = unsafe { [shim::restok_loaded_version(), shim::restok_compiled_version()] };
    packed.map(|version| (version >> 8, version & 0xff))
}

/// Vector instructions that torch's own CPU kernels use here: `DEFAULT`, `AVX2`, `AVX512`, …
pub(crate) fn cpu_capability() -> String {
    #[expect(unsafe_code, reason = "a string that lives as long as the process")]
    text(unsafe { shim::restok_cpu_capability() })
}

/// Lets CUDA compute float32 products and convolutions through TensorFloat-32, or forbids it; for the whole process.
pub(crate) fn allow_tf32(allowed: bool) -> Result<(), ModelError> {
    #[expect(unsafe_code, reason = "takes no pointer")]
    check(unsafe { shim::restok_allow_tf32(c_int::from(allowed)) })
}

/// Keeps the memory of freed CPU tensors for the next ones of the same size; for the whole process.
pub(crate) fn keep_tensor_memory() -> Result<(), ModelError> {
    #[expect(unsafe_code, reason = "takes no pointer; a block says of itself how it is to be freed")]
    check(unsafe { shim::restok_keep_tensor_memory() })
}

/// Bytes of the tensors on the processor that have 256 KiB or more. 0 before [`keep_tensor_memory`].
pub(crate) fn live_tensor_bytes() -> u64 {
    #[expect(unsafe_code, reason = "takes nothing and gives a number")]
    unsafe {
        shim::restok_live_tensor_bytes()
    }
}

/// The most of them at a time since the last call; for the whole process.
pub(crate) fn take_tensor_memory_peak() -> u64 {
    #[expect(unsafe_code, reason = "takes nothing and gives a number")]
    unsafe {
        shim::restok_take_tensor_memory_peak()
    }
}

/// A copy of `values` in pinned memory, as a tensor of `shape`, which must have as many numbers. Needs CUDA.
pub(crate) fn pinned<T: Element>(values: &[T], shape: &[i64]) -> Result<Tensor, ModelError> {
    debug_assert_eq!(shape.iter().product::<i64>(), values.len() as i64);
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let mut pinned = std::ptr::null_mut();
    #[expect(
        unsafe_code,
        reason = "the tensor over `values` has as many numbers of their type, and is dropped before this function ends; the result is a \
                  tensor that we own"
    )]
    unsafe {
        let values = Tensor::f_from_blob(values.as_ptr().cast(), shape, &strides, T::KIND, tch::Device::Cpu)?;
        check(shim::restok_pinned(values.as_ptr(), &mut pinned))?;
        Ok(Tensor::from_ptr(pinned))
    }
}

/// Rearranges a linear layer's weight, `[out, in]`, for oneDNN.
///
/// # Errors
/// When oneDNN has no fast kernel for the weight's type on this CPU.
pub(crate) fn pack_linear(weight: &Tensor) -> Result<Tensor, ModelError> {
    let mut packed = std::ptr::null_mut();
    #[expect(unsafe_code, reason = "the weight outlives the call; on success the result is a tensor that we own")]
    unsafe {
        check(shim::restok_pack_linear(weight.as_ptr(), &mut packed))?;
        Ok(Tensor::from_ptr(packed))
    }
}

/// A linear layer over a packed weight: `[…, in]` to `[…, out]`, through GELU (exact, by erf) if `gelu`.
pub(crate) fn packed_linear(
    input: &Tensor,
    packed: &Tensor,
    bias: Option<&Tensor>,
    gelu: bool,
) -> Result<Tensor, ModelError> {
    let bias = bias.map_or(std::ptr::null(), Tensor::as_ptr);
    let mut output = std::ptr::null_mut();
    #[expect(unsafe_code, reason = "all inputs outlive the call; on success the result is a tensor that we own")]
    unsafe {
        check(shim::restok_packed_linear(input.as_ptr(), packed.as_ptr(), bias, c_int::from(gelu), &mut output))?;
        Ok(Tensor::from_ptr(output))
    }
}

pub(crate) fn check(status: c_int) -> Result<(), ModelError> {
    if status == 0 {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "a thread-local string that lives until the next failure on this thread")]
    Err(ModelError::torch(&text(unsafe { shim::restok_last_error() })))
}

#[expect(unsafe_code, reason = "callers pass strings of the C++ file, which end in a zero byte")]
fn text(pointer: *const c_char) -> String {
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
