//! Fused kernels for CUDA that torch lacks: group norm with SiLU over channels-last images, and layer and RMS norms that read the float32
//! stream and write the kind that the next product reads.
//!
//! They are off until [`use_fused_kernels`] switches them on, because **none of them has run on a GPU yet**. What is known of them was found on
//! a processor: `normalization.cu` compiles there as C++, and the tests run it against torch's own operators, with the launches that a GPU
//! would be given ([`launch`]); NVRTC compiles it for sm_80 and sm_90 without spilling a register.
//!
//! # How a kernel comes to run
//! NVRTC, which comes with PyTorch's CUDA wheel ([`nvrtc`]), compiles the one program that a kind and a width need, at their first use, in 0.1
//! to 0.5 s; the driver loads and launches it on torch's current stream ([`driver`]). Before a program is used it computes a small example
//! beside torch's operators. Whatever goes wrong before a launch, the callers take their plain path, and the reason waits in
//! [`fused_kernels_report`]: a kernel is faster or absent, never an error.
//!
//! Plain paths stay for all that is not theirs: processors, tensors that gradients flow through, other layouts, kinds and widths.
//!
//! # What they should be worth (predicted from bytes, not measured)
//! An H100 moves 3.35 TB/s at best, about 2.8 in such kernels. Of one ResTok image of 256 x 256 pixels in bfloat16:
//!
//! | | as torch does it | fused |
//! |---|---|---|
//! | group norm and SiLU, of an activation of n bytes | to NCHW 2n, moments n, norm 2n, SiLU 2n, to NHWC 2n: 9n | moments n, norm and SiLU 2n: 3n |
//! | the first of the 256 x 256 x 128 (n = 16.8 MB) | 151 MB, 54 µs | 50 MB, 18 µs |
//! | all 25 of the encoder (sum of n: 96 MB) | 0.86 GB, 0.31 ms | 0.29 GB, 0.10 ms |
//! | layer norm and cast, of a row of C numbers | 4C + 4C, 4C + 2C: 14C | 4C + 2C: 6C |
//! | RMS norm and cast, the same | square 8C, mean 4C, product 8C, weight 8C, cast 6C: 34C | 6C |
//!
//! An RMS norm goes from 6 launches to 1, and from 7 or 8 where it writes what the products read. GPT-L has 49 in each of its 9 steps, 2,200 to
//! 2,900 of about 6,700 launches a batch: where the host is the limit, up to some 50 images, sampling should take a third less time.

mod driver;
#[cfg(test)]
mod interpreter;
mod launch;
mod nvrtc;
#[cfg(test)]
mod tests;

use crate::{ModelError, shared_library::Problem};
use driver::{Driver, Program};
use launch::{Failure, GroupNorm, RowNorm, Variant};
use nvrtc::Nvrtc;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tch::{Device, Kind, Tensor};

static ON: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicU64 = AtomicU64::new(0);
static PROBLEMS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Lets models on CUDA use the fused kernels, or forbids it, which is how a process begins; for the whole process, at any time. Nothing
/// changes on a processor, nor in training.
///
/// The last bits of what is computed differ: one rounding takes the place of two. So it is chosen once, before the first batch of an output.
/// Where CUDA graphs are captured, a batch of the same shape must have run before, as for cuDNN.
pub fn use_fused_kernels(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

/// Bytes that nobody has taken of a CUDA device's memory, or why the driver does not say.
pub(crate) fn free_memory(index: usize) -> Result<u64, String> {
    Driver::open()
        .and_then(|driver| driver.free_memory(index))
        .map(|free| free as u64)
        .map_err(|problem| problem.to_string())
}

/// Whether the fused kernels may be used.
pub(crate) fn are_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Forbids them where no device of the process is CUDA, so that nothing says they had a part in it.
pub(crate) fn off_without_cuda(on_cuda: bool) {
    if !on_cuda {
        use_fused_kernels(false);
    }
}

/// What became of the fused kernels in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FusedKernelsReport {
    /// Norms that they computed.
    pub calls: u64,
    /// Why others went another way, each reason once, sorted: NVRTC that is not there, a program that does not compile, a device that refuses
    /// it, an example that came out wrong. Empty where all is well.
    pub problems: Vec<String>,
}

/// What became of the fused kernels so far.
pub fn fused_kernels_report() -> FusedKernelsReport {
    FusedKernelsReport { calls: CALLS.load(Ordering::Relaxed), problems: locked(&PROBLEMS).iter().cloned().collect() }
}

/// Group norm over `groups` groups, with weight and bias, and SiLU. `None` where the plain path has to do it.
///
/// # Shapes
/// `input`: `[B, C, height, width]`, channels-last; returns the same in the input's kind and layout.
///
/// # Errors
/// When torch has no memory for the result.
pub(crate) fn group_norm_silu(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: i64,
    epsilon: f64,
) -> Result<Option<Tensor>, ModelError> {
    let Some(index) = chosen_device(input) else { return Ok(None) };
    let Some(norm) = GroupNorm::of(input, weight, bias, groups, epsilon) else { return Ok(None) };
    ready(index, norm.variant()).map_or(Ok(None), |program| settle(norm.run(&*program)))
}

/// Layer norm with weight and bias over the last axis, written as `kind`. `None` where the plain path has to do it.
///
/// # Shapes
/// `input`: float32 `[…, C]`; returns the same shape in `kind`.
///
/// # Errors
/// When torch has no memory for the result.
pub(crate) fn layer_norm(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f64,
    kind: Kind,
) -> Result<Option<Tensor>, ModelError> {
    row_norm(input, weight, Some(bias), epsilon, kind)
}

/// RMS norm with a weight over the last axis, written as `kind`. `None` where the plain path has to do it.
///
/// # Shapes
/// `input`: float32 `[…, C]`; returns the same shape in `kind`.
///
/// # Errors
/// When torch has no memory for the result.
pub(crate) fn rms_norm(
    input: &Tensor,
    weight: &Tensor,
    epsilon: f64,
    kind: Kind,
) -> Result<Option<Tensor>, ModelError> {
    row_norm(input, weight, None, epsilon, kind)
}

fn row_norm(
    input: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epsilon: f64,
    kind: Kind,
) -> Result<Option<Tensor>, ModelError> {
    let Some(index) = chosen_device(input) else { return Ok(None) };
    let Some(norm) = RowNorm::of(input, weight, bias, epsilon, kind) else { return Ok(None) };
    ready(index, norm.variant()).map_or(Ok(None), |program| settle(norm.run(&*program)))
}

/// The CUDA device of a tensor, if fused kernels are wanted.
fn chosen_device(input: &Tensor) -> Option<usize> {
    if !ON.load(Ordering::Relaxed) {
        return None;
    }
    match input.device() {
        Device::Cuda(index) => Some(index),
        _ => None,
    }
}

/// What a run comes to for the caller: a result, or the plain path.
fn settle(result: Result<Tensor, Failure>) -> Result<Option<Tensor>, ModelError> {
    match result {
        Ok(tensor) => {
            CALLS.fetch_add(1, Ordering::Relaxed);
            Ok(Some(tensor))
        }
        Err(Failure::Torch(error)) => Err(error),
        Err(Failure::Kernel(problem)) => {
            note(&problem);
            Ok(None)
        }
    }
}

/// The program of a variant on a device, compiled, loaded and tried at its first use; `None` for good where that failed.
fn ready(index: usize, variant: Variant) -> Option<Arc<Program>> {
    type Programs = HashMap<(usize, Variant), Option<Arc<Program>>>;
    static PROGRAMS: OnceLock<Mutex<Programs>> = OnceLock::new();
    let mut programs = locked(PROGRAMS.get_or_init(Mutex::default));
    if let Some(known) = programs.get(&(index, variant)) {
        return known.clone();
    }
    let made = make(index, variant).map(Arc::new);
    let program = made.map_err(|problem| note(&Problem::new(format!("{variant} on cuda:{index}: {problem}")))).ok();
    programs.insert((index, variant), program.clone());
    program
}

fn make(index: usize, variant: Variant) -> Result<Program, Problem> {
    static TOOLS: OnceLock<Result<(Nvrtc, Driver), Problem>> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| Ok((Nvrtc::find()?, Driver::open()?)));
    let (nvrtc, driver) = tools.as_ref().map_err(Clone::clone)?;
    let binary = nvrtc.compile(launch::SOURCE, &variant.macros(), driver.capability(index)?)?;
    let program = driver.load(index, &binary, variant.entries())?;
    launch::try_out(variant, &program, Device::Cuda(index))?;
    Ok(program)
}

fn note(problem: &Problem) {
    locked(&PROBLEMS).insert(problem.to_string());
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
