//! The Rust side of `shim/torch_switches.cpp`: everything unsafe about it is in this file.

use crate::ModelError;
use std::ffi::{CStr, c_char, c_int};
use tch::Tensor;
use torch_sys::C_tensor;

#[expect(
    unsafe_code,
    reason = "declares the C interface of shim/torch_switches.cpp, which is compiled into this crate"
)]
mod shim {
    use super::{C_tensor, c_char, c_int};
    unsafe extern "C" {
        pub(super) fn restok_last_error() -> *const c_char;
        pub(super) fn restok_torch_version() -> *const c_char;
        pub(super) fn restok_cpu_capability() -> *const c_char;
        pub(super) fn restok_allow_tf32(allowed: c_int) -> c_int;
        pub(super) fn restok_keep_tensor_memory() -> c_int;
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
    #[expect(unsafe_code, reason = "takes no pointer; tensors that exist keep their own way of being freed")]
    check(unsafe { shim::restok_keep_tensor_memory() })
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
