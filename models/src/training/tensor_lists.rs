//! The Rust side of `shim/optimizer.cpp`: everything unsafe about it is in this file.

use crate::{ModelError, torch_switches::check};
use std::ffi::{c_double, c_int};
use tch::Tensor;
use torch_sys::C_tensor;

#[expect(unsafe_code, reason = "declares the C interface of shim/optimizer.cpp, which is compiled into this crate")]
mod shim {
    use super::{C_tensor, c_double, c_int};
    unsafe extern "C" {
        pub(super) fn restok_fused_adamw(
            parameters: *const *const C_tensor,
            gradients: *const *const C_tensor,
            first_moments: *const *const C_tensor,
            second_moments: *const *const C_tensor,
            count: usize,
            step: *const C_tensor,
            learning_rate: c_double,
            beta1: c_double,
            beta2: c_double,
            weight_decay: c_double,
            epsilon: c_double,
            found_infinite: *const C_tensor,
        ) -> c_int;
        pub(super) fn restok_clip_gradients(
            gradients: *const *const C_tensor,
            count: usize,
            largest: c_double,
            norm: *mut *mut C_tensor,
        ) -> c_int;
        pub(super) fn restok_lerp(
            averages: *const *const C_tensor,
            values: *const *const C_tensor,
            count: usize,
            weight: c_double,
        ) -> c_int;
        pub(super) fn restok_unscale(
            gradients: *const *const C_tensor,
            count: usize,
            found_infinite: *const C_tensor,
            inverse_scale: *const C_tensor,
        ) -> c_int;
        pub(super) fn restok_update_scale(
            scale: *const C_tensor,
            steps_without: *const C_tensor,
            found_infinite: *const C_tensor,
            interval: i64,
        ) -> c_int;
    }
}

/// Numbers of AdamW, for one list of tensors.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdamWNumbers {
    pub(super) learning_rate: f64,
    pub(super) beta1: f64,
    pub(super) beta2: f64,
    pub(super) weight_decay: f64,
    pub(super) epsilon: f64,
}

/// The tensors that AdamW reads and writes for one parameter.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) parameter: Tensor,
    pub(super) gradient: Tensor,
    pub(super) first_moment: Tensor,
    pub(super) second_moment: Tensor,
}

fn pointers<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Vec<*const C_tensor> {
    tensors.map(|tensor| tensor.as_ptr()).collect()
}

/// One step of AdamW; `step` is a float32 scalar that counts from 1. Nothing moves where `found_infinite` is 1.
pub(super) fn adamw(
    moved: &[Moved],
    step: &Tensor,
    numbers: AdamWNumbers,
    found_infinite: Option<&Tensor>,
) -> Result<(), ModelError> {
    let parameters = pointers(moved.iter().map(|moved| &moved.parameter));
    let gradients = pointers(moved.iter().map(|moved| &moved.gradient));
    let first_moments = pointers(moved.iter().map(|moved| &moved.first_moment));
    let second_moments = pointers(moved.iter().map(|moved| &moved.second_moment));
    let found_infinite = found_infinite.map_or(std::ptr::null(), |found| found.as_ptr());
    #[expect(unsafe_code, reason = "all four lists are of the same length, and their tensors outlive the call")]
    check(unsafe {
        shim::restok_fused_adamw(
            parameters.as_ptr(),
            gradients.as_ptr(),
            first_moments.as_ptr(),
            second_moments.as_ptr(),
            moved.len(),
            step.as_ptr(),
            numbers.learning_rate,
            numbers.beta1,
            numbers.beta2,
            numbers.weight_decay,
            numbers.epsilon,
            found_infinite,
        )
    })
}

/// Scales `gradients` in place so that their norm together is at most `largest`; returns the norm that they had, a scalar on the
/// device.
pub(super) fn clip(gradients: &[Tensor], largest: f64) -> Result<Tensor, ModelError> {
    let pointers = pointers(gradients.iter());
    let mut norm = std::ptr::null_mut();
    #[expect(unsafe_code, reason = "the gradients outlive the call; on success the result is a tensor that we own")]
    unsafe {
        check(shim::restok_clip_gradients(pointers.as_ptr(), pointers.len(), largest, &mut norm))?;
        Ok(Tensor::from_ptr(norm))
    }
}

/// Moves every one of `averages` by `weight` of the way to its value.
pub(super) fn lerp(averages: &[Tensor], values: &[Tensor], weight: f64) -> Result<(), ModelError> {
    debug_assert_eq!(averages.len(), values.len());
    let (averages, values) = (pointers(averages.iter()), pointers(values.iter()));
    #[expect(unsafe_code, reason = "both lists are of the same length, and their tensors outlive the call")]
    check(unsafe { shim::restok_lerp(averages.as_ptr(), values.as_ptr(), averages.len().min(values.len()), weight) })
}

/// Multiplies `gradients` by `inverse_scale` in place and sets `found_infinite` to 1 if any is not finite.
pub(super) fn unscale(gradients: &[Tensor], found_infinite: &Tensor, inverse_scale: &Tensor) -> Result<(), ModelError> {
    let pointers = pointers(gradients.iter());
    #[expect(unsafe_code, reason = "all tensors outlive the call")]
    check(unsafe {
        shim::restok_unscale(pointers.as_ptr(), pointers.len(), found_infinite.as_ptr(), inverse_scale.as_ptr())
    })
}

/// A float32 scalar on the gradients' device: 1 if any of them is not finite, else 0.
pub(super) fn found_infinite(gradients: &[Tensor]) -> Result<Tensor, ModelError> {
    let _no_grad = tch::no_grad_guard();
    let device = gradients.first().map_or(tch::Device::Cpu, Tensor::device);
    let options = (tch::Kind::Float, device);
    let found = Tensor::f_zeros([1], options)?;
    unscale(gradients, &found, &Tensor::f_ones([1], options)?)?;
    Ok(found.f_squeeze()?)
}

/// Halves `scale` where `found_infinite` is 1; doubles it after `interval` steps where it was 0.
pub(super) fn update_scale(
    scale: &Tensor,
    steps_without: &Tensor,
    found_infinite: &Tensor,
    interval: i64,
) -> Result<(), ModelError> {
    #[expect(unsafe_code, reason = "all tensors outlive the call")]
    check(unsafe {
        shim::restok_update_scale(scale.as_ptr(), steps_without.as_ptr(), found_infinite.as_ptr(), interval)
    })
}
