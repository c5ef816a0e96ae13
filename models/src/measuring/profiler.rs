//! The Rust side of torch's profiler in `shim/profiler.cpp`.

use crate::{Device, ModelError, torch_switches::check};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    os::unix::ffi::OsStrExt,
    path::Path,
    time::Duration,
};

#[expect(unsafe_code, reason = "declares the C interface of shim/profiler.cpp, which is compiled into this crate")]
mod shim {
    use super::{c_char, c_int, c_void};

    pub(super) type Row = extern "C" fn(*mut c_void, c_int, *const c_char, u64, u64);

    unsafe extern "C" {
        pub(super) fn restok_profile_start(cuda: c_int) -> c_int;
        pub(super) fn restok_profile_stop(
            trace: *const c_char,
            context: *mut c_void,
            row: Row,
            busy: *mut u64,
            whole: *mut u64,
        ) -> c_int;
    }
}

/// One kernel, or one operator of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileRow {
    /// torch's name of it.
    pub name: String,
    /// Of all calls together; of an operator, without the operators that it calls.
    pub time: Duration,
    /// How often it ran.
    pub calls: u64,
}

/// Where the time of some work went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Kernels and copies of the device, longest first; none on a processor.
    pub kernels: Vec<ProfileRow>,
    /// Operators on the host, longest first. On a processor they are the work; on a GPU, what launching it costs, which the profiler
    /// itself makes longer.
    pub operators: Vec<ProfileRow>,
    /// In which at least one kernel ran.
    pub busy: Duration,
    /// From the first kernel's start to the last one's end.
    pub whole: Duration,
}

/// Runs `body` under torch's profiler, and writes what it saw in Chrome's trace format to `trace`, if one is named. `body` must wait for
/// what it starts.
///
/// # Errors
/// When the profiler cannot start or stop, or the trace has a zero byte in its name; then the result of `body` is lost.
pub fn profile<T>(device: Device, trace: Option<&Path>, body: impl FnOnce() -> T) -> Result<(T, Profile), ModelError> {
    let trace = trace
        .map(|file| CString::new(file.as_os_str().as_bytes()))
        .transpose()
        .map_err(|error| ModelError::torch(&format!("the trace cannot be named so: {error}")))?;
    #[expect(unsafe_code, reason = "takes no pointer")]
    check(unsafe { shim::restok_profile_start(c_int::from(device != Device::Cpu)) })?;
    let result = body();
    let mut rows = Rows { kernels: Vec::new(), operators: Vec::new() };
    let (mut busy, mut whole) = (0, 0);
    #[expect(
        unsafe_code,
        reason = "all pointers are of ours and outlive the call; `take_row` reads the context as what it is"
    )]
    check(unsafe {
        shim::restok_profile_stop(
            trace.as_ref().map_or(std::ptr::null(), |trace| trace.as_ptr()),
            std::ptr::from_mut(&mut rows).cast(),
            take_row,
            &mut busy,
            &mut whole,
        )
    })?;
    for rows in [&mut rows.kernels, &mut rows.operators] {
        rows.sort_by(|left, right| right.time.cmp(&left.time).then_with(|| left.name.cmp(&right.name)));
    }
    let (busy, whole) = (Duration::from_nanos(busy), Duration::from_nanos(whole));
    Ok((result, Profile { kernels: rows.kernels, operators: rows.operators, busy, whole }))
}

struct Rows {
    kernels: Vec<ProfileRow>,
    operators: Vec<ProfileRow>,
}

/// Called by `restok_profile_stop` for each row.
extern "C" fn take_row(context: *mut c_void, on_device: c_int, name: *const c_char, nanoseconds: u64, calls: u64) {
    #[expect(unsafe_code, reason = "the context is the `Rows` that `profile` passed, and the name ends in a zero byte")]
    let (rows, name) = unsafe { (&mut *context.cast::<Rows>(), CStr::from_ptr(name)) };
    let row = ProfileRow { name: name.to_string_lossy().into_owned(), time: Duration::from_nanos(nanoseconds), calls };
    if on_device == 0 { rows.operators.push(row) } else { rows.kernels.push(row) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn operators_are_counted_and_time_is_counted_once() {
        crate::initialise(&[crate::DeviceChoice::Cpu], Some(1)).expect("there is a processor");
        let matrix = Tensor::ones([64, 64], (Kind::Float, tch::Device::Cpu));
        let folder = tempfile::tempdir().expect("a folder");
        let trace = folder.path().join("trace.json");
        let started = std::time::Instant::now();
        let (sum, profile) = profile(Device::Cpu, Some(&trace), || {
            (0..3).map(|_| matrix.matmul(&matrix).sum(Kind::Float).double_value(&[])).sum::<f64>()
        })
        .expect("profiled");
        assert_eq!(sum, 3.0 * 64.0 * 64.0 * 64.0);
        let product = profile.operators.iter().find(|row| row.name == "aten::mm").expect("a product was computed");
        assert_eq!(product.calls, 3);
        // `aten::matmul` calls `aten::mm`: were its time counted with it, the sum would be more than the clock's.
        assert!(profile.operators.iter().map(|row| row.time).sum::<Duration>() <= started.elapsed());
        assert!(profile.operators.is_sorted_by(|left, right| left.time >= right.time));
        assert_eq!((profile.kernels.len(), profile.whole), (0, Duration::ZERO));
        let written = std::fs::read_to_string(&trace).expect("written");
        assert!(written.contains("aten::mm"));
    }
}
