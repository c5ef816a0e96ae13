//! CUDA's driver: loading compiled programs and launching their kernels on torch's streams.

use super::{
    launch::{Entry, Machine},
    nvrtc::Binary,
};
use crate::shared_library::{Library, Problem, functions};
use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt,
    path::Path,
    ptr,
};

type Status = c_int;
type Handle = *mut c_void;

functions! {
    struct Functions {
        device: c"cuDeviceGet" unsafe extern "C" fn(*mut c_int, c_int) -> Status,
        attribute: c"cuDeviceGetAttribute" unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Status,
        retain_context: c"cuDevicePrimaryCtxRetain" unsafe extern "C" fn(*mut Handle, c_int) -> Status,
        push_context: c"cuCtxPushCurrent_v2" unsafe extern "C" fn(Handle) -> Status,
        pop_context: c"cuCtxPopCurrent_v2" unsafe extern "C" fn(*mut Handle) -> Status,
        load: c"cuModuleLoadData" unsafe extern "C" fn(*mut Handle, *const c_void) -> Status,
        function: c"cuModuleGetFunction" unsafe extern "C" fn(*mut Handle, Handle, *const c_char) -> Status,
        launch: c"cuLaunchKernel" unsafe extern "C" fn(
            Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void,
        ) -> Status,
        memory: c"cuMemGetInfo_v2" unsafe extern "C" fn(*mut usize, *mut usize) -> Status,
        error_name: c"cuGetErrorName" unsafe extern "C" fn(Status, *mut *const c_char) -> Status,
    }
}

/// torch's own C interface, which every libtorch from 2.9 to 2.13 has in its CUDA half: the current stream of a device, on this thread.
type CurrentStream = unsafe extern "C" fn(i32, *mut Handle) -> i32;

const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;

/// The driver, in a process where torch has CUDA.
#[derive(Clone, Copy)]
pub(super) struct Driver {
    functions: Functions,
    current_stream: CurrentStream,
}

impl Driver {
    pub(super) fn open() -> Result<Self, Problem> {
        // Without it a launch might overtake what torch has under way on another stream: rather none.
        let stream = Library::process().symbol(c"aoti_torch_get_current_cuda_stream")?;
        #[expect(unsafe_code, reason = "its signature in torch/csrc/inductor/aoti_torch/c/shim.h, from 2.9 to 2.13")]
        let current_stream = unsafe { std::mem::transmute::<Handle, CurrentStream>(stream) };
        let functions = Functions::of(Library::open(Path::new("libcuda.so.1"))?)?;
        Ok(Self { functions, current_stream })
    }

    /// Compute capability of a device by torch's index of it, 90 for 9.0.
    pub(super) fn capability(&self, index: usize) -> Result<c_int, Problem> {
        let device = self.device(index)?;
        let attribute = |which| -> Result<c_int, Problem> {
            let mut value = 0;
            #[expect(unsafe_code, reason = "signature of cuda.h")]
            let status = unsafe { (self.functions.attribute)(&mut value, which, device) };
            self.check(status, "cuDeviceGetAttribute")?;
            Ok(value)
        };
        Ok(10 * attribute(CAPABILITY_MAJOR)? + attribute(CAPABILITY_MINOR)?)
    }

    /// Loads a program on a device and finds its kernels. It stays loaded as long as the process.
    pub(super) fn load(&self, index: usize, binary: &Binary, entries: &'static [Entry]) -> Result<Program, Problem> {
        let (context, mut module) = (self.context(index)?, ptr::null_mut());
        let kernels = self.within(context, || {
            #[expect(
                unsafe_code,
                reason = "signatures of cuda.h; machine code says its own size, and assembly from NVRTC ends in a zero byte"
            )]
            unsafe {
                self.check((self.functions.load)(&mut module, binary.bytes.as_ptr().cast()), "cuModuleLoadData")?;
                let mut kernels = Vec::new();
                for entry in entries {
                    let mut kernel = ptr::null_mut();
                    let status = (self.functions.function)(&mut kernel, module, entry.name().as_ptr());
                    self.check(status, "cuModuleGetFunction")?;
                    kernels.push((*entry, kernel));
                }
                Ok(kernels)
            }
        })?;
        Ok(Program { driver: *self, index, context, kernels })
    }

    /// Bytes that nobody has taken of a device's memory.
    pub(super) fn free_memory(&self, index: usize) -> Result<usize, Problem> {
        let (mut free, mut total) = (0, 0);
        self.within(self.context(index)?, || {
            #[expect(unsafe_code, reason = "signature of cuda.h; both numbers outlive the call")]
            let status = unsafe { (self.functions.memory)(&mut free, &mut total) };
            self.check(status, "cuMemGetInfo")
        })?;
        Ok(free)
    }

    /// torch's context of a device.
    fn context(&self, index: usize) -> Result<Handle, Problem> {
        let (device, mut context) = (self.device(index)?, ptr::null_mut());
        #[expect(
            unsafe_code,
            reason = "signature of cuda.h; the context is torch's, and is held as long as the process"
        )]
        let status = unsafe { (self.functions.retain_context)(&mut context, device) };
        self.check(status, "cuDevicePrimaryCtxRetain")?;
        Ok(context)
    }

    fn device(&self, index: usize) -> Result<c_int, Problem> {
        let (mut device, index) = (0, c_int::try_from(index).map_err(|error| Problem::new(error.to_string()))?);
        #[expect(unsafe_code, reason = "signature of cuda.h; torch and the driver count the visible devices alike")]
        let status = unsafe { (self.functions.device)(&mut device, index) };
        self.check(status, "cuDeviceGet")?;
        Ok(device)
    }

    /// Makes a context this thread's current one while `body` runs: torch leaves the one of the device that it was last told of.
    fn within<T>(&self, context: Handle, body: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
        #[expect(unsafe_code, reason = "signature of cuda.h; the context is held as long as the process")]
        let status = unsafe { (self.functions.push_context)(context) };
        self.check(status, "cuCtxPushCurrent")?;
        let result = body();
        let mut popped = ptr::null_mut();
        #[expect(unsafe_code, reason = "signature of cuda.h; takes away what was put there")]
        let status = unsafe { (self.functions.pop_context)(&mut popped) };
        self.check(status, "cuCtxPopCurrent")?;
        result
    }

    fn check(&self, status: Status, what: &str) -> Result<(), Problem> {
        if status == 0 {
            return Ok(());
        }
        let mut name = ptr::null();
        #[expect(unsafe_code, reason = "signature of cuda.h; the name is a string literal of the driver, or null")]
        let name = unsafe {
            (self.functions.error_name)(status, &mut name);
            if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
        };
        Err(Problem::new(format!("{what}: {name} ({status})")))
    }
}

/// A loaded program of one device.
pub(super) struct Program {
    driver: Driver,
    index: usize,
    context: Handle,
    kernels: Vec<(Entry, Handle)>,
}

#[expect(
    unsafe_code,
    reason = "contexts and kernels are the driver's, never freed, and may be used from any thread: cuda.h"
)]
unsafe impl Send for Program {}
#[expect(unsafe_code, reason = "as above; nothing in it is changed after it was made")]
unsafe impl Sync for Program {}

impl Machine for Program {
    fn launch(
        &self,
        entry: Entry,
        [blocks, images]: [u32; 2],
        threads: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Problem> {
        let kernel = self.kernels.iter().find(|(known, _)| *known == entry).map(|(_, kernel)| *kernel);
        let kernel = kernel.ok_or_else(|| Problem::new(format!("the program has no {entry:?}")))?;
        let mut stream = ptr::null_mut();
        let index = i32::try_from(self.index).map_err(|error| Problem::new(error.to_string()))?;
        #[expect(unsafe_code, reason = "its signature in torch's shim.h")]
        let status = unsafe { (self.driver.current_stream)(index, &mut stream) };
        if status != 0 {
            return Err(Problem::new("torch does not tell its current stream"));
        }
        self.driver.within(self.context, || {
            #[expect(
                unsafe_code,
                reason = "signature of cuda.h; the arguments are those of the kernel, and their tensors are on its device and on this stream"
            )]
            let status = unsafe {
                let (no_shared_memory, no_extra) = (0, ptr::null_mut());
                let arguments = arguments.as_mut_ptr();
                (self.driver.functions.launch)(
                    kernel, blocks, images, 1, threads, 1, 1, no_shared_memory, stream, arguments, no_extra,
                )
            };
            self.driver.check(status, "cuLaunchKernel")
        })
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Program").field("index", &self.index).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "a driver that is played by this file, with the signatures of cuda.h")]
mod tests {
    use super::*;
    use crate::kernels::{
        interpreter::Interpreter,
        launch::{Number, Variant, try_out},
    };
    use std::{cell::RefCell, ffi::CString, slice};

    const VARIANT: Variant = Variant::GroupNorm(Number::Bfloat16);
    const CONTEXT: usize = 0x1000;
    const STREAM: usize = 0x2000;
    const OUT_OF_RESOURCES: Status = 701;

    thread_local! {
        /// Contexts of this thread, the current one last.
        static CONTEXTS: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
        static LAUNCHED: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
    }

    unsafe extern "C" fn device(device: *mut c_int, ordinal: c_int) -> Status {
        if ordinal != 0 {
            return 101;
        }
        unsafe { *device = ordinal };
        0
    }

    unsafe extern "C" fn attribute(value: *mut c_int, which: c_int, _: c_int) -> Status {
        unsafe { *value = if which == CAPABILITY_MAJOR { 8 } else { 6 } };
        0
    }

    unsafe extern "C" fn retain_context(context: *mut Handle, _: c_int) -> Status {
        unsafe { *context = ptr::without_provenance_mut(CONTEXT) };
        0
    }

    unsafe extern "C" fn push_context(context: Handle) -> Status {
        CONTEXTS.with_borrow_mut(|contexts| contexts.push(context.addr()));
        0
    }

    unsafe extern "C" fn pop_context(context: *mut Handle) -> Status {
        let popped = CONTEXTS.with_borrow_mut(Vec::pop);
        unsafe { *context = ptr::without_provenance_mut(popped.unwrap_or_default()) };
        if popped.is_some() { 0 } else { 201 }
    }

    unsafe extern "C" fn load(module: *mut Handle, image: *const c_void) -> Status {
        unsafe { *module = image.cast_mut() };
        if CONTEXTS.with_borrow(|contexts| contexts == &[CONTEXT]) { 0 } else { 201 }
    }

    /// The image is a list of names; a kernel is one more than its place among those of the variant.
    unsafe extern "C" fn function(kernel: *mut Handle, module: Handle, name: *const c_char) -> Status {
        let (names, name) = unsafe { (CStr::from_ptr(module.cast()), CStr::from_ptr(name)) };
        let place = VARIANT.entries().iter().position(|entry| entry.name() == name);
        match place.filter(|_| names.to_string_lossy().contains(&*name.to_string_lossy())) {
            Some(place) => unsafe { *kernel = ptr::without_provenance_mut(place + 1) },
            None => return 500,
        }
        0
    }

    unsafe extern "C" fn launch(
        kernel: Handle,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared_memory: c_uint,
        stream: Handle,
        arguments: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> Status {
        let current = CONTEXTS.with_borrow(|contexts| contexts.last() == Some(&CONTEXT));
        let flat = (grid_z, block_y, block_z, shared_memory) == (1, 1, 1, 0) && extra.is_null();
        if !current || !flat || stream.addr() != STREAM {
            return OUT_OF_RESOURCES;
        }
        let entry = VARIANT.entries()[kernel.addr() - 1];
        let count = if entry == Entry::GroupNormSilu { 9 } else { 5 };
        let arguments = unsafe { slice::from_raw_parts_mut(arguments, count) };
        let interpreter = Interpreter { variant: VARIANT, backwards: false };
        LAUNCHED.with_borrow_mut(|launched| launched.push(entry));
        interpreter.launch(entry, [grid_x, grid_y], block_x, arguments).map_or(OUT_OF_RESOURCES, |()| 0)
    }

    unsafe extern "C" fn refuse(
        _: Handle,
        _: c_uint,
        _: c_uint,
        _: c_uint,
        _: c_uint,
        _: c_uint,
        _: c_uint,
        _: c_uint,
        _: Handle,
        _: *mut *mut c_void,
        _: *mut *mut c_void,
    ) -> Status {
        OUT_OF_RESOURCES
    }

    unsafe extern "C" fn memory(free: *mut usize, total: *mut usize) -> Status {
        if CONTEXTS.with_borrow(|contexts| contexts != &[CONTEXT]) {
            return 201;
        }
        unsafe { (*free, *total) = (5 << 30, 8 << 30) };
        0
    }

    unsafe extern "C" fn error_name(status: Status, name: *mut *const c_char) -> Status {
        unsafe { *name = if status == 500 { c"CUDA_ERROR_NOT_FOUND".as_ptr() } else { ptr::null() } };
        0
    }

    unsafe extern "C" fn current_stream(index: i32, stream: *mut Handle) -> i32 {
        unsafe { *stream = ptr::without_provenance_mut(STREAM) };
        index
    }

    fn driver() -> Driver {
        let functions = Functions {
            device,
            attribute,
            retain_context,
            push_context,
            pop_context,
            load,
            function,
            launch,
            memory,
            error_name,
        };
        Driver { functions, current_stream }
    }

    fn names(entries: &[Entry]) -> Binary {
        let names: Vec<_> = entries.iter().map(|entry| entry.name().to_string_lossy()).collect();
        let bytes = CString::new(names.join(" ")).expect("names").into_bytes_with_nul();
        Binary { bytes, log: String::new() }
    }

    #[test]
    fn a_program_runs_in_its_context_on_torchs_stream() {
        let driver = driver();
        assert_eq!(driver.capability(0), Ok(86));
        assert!(driver.capability(1).is_err());
        // Another device's context is current, as after torch has worked there.
        let other = 0x3000;
        let program = driver.load(0, &names(VARIANT.entries()), VARIANT.entries()).expect("it loads");
        CONTEXTS.with_borrow_mut(|contexts| contexts.push(other));
        try_out(VARIANT, &program, tch::Device::Cpu).expect("it computes as torch does");
        assert_eq!(CONTEXTS.take(), [other], "as it was before");
        assert_eq!(LAUNCHED.take(), VARIANT.entries());
    }

    #[test]
    fn free_memory_is_asked_for_in_the_context_of_its_device() {
        assert_eq!(driver().free_memory(0).expect("played"), 5 << 30);
        assert!(CONTEXTS.with_borrow(Vec::is_empty), "the thread is left as it was");
        assert!(driver().free_memory(1).expect_err("there is one device").to_string().contains("cuDeviceGet"));
    }

    #[test]
    fn what_the_driver_refuses_is_a_problem_that_names_it() {
        let mut driver = driver();
        let missing = driver.load(0, &names(&VARIANT.entries()[..1]), VARIANT.entries()).expect_err("half of them");
        assert!(missing.to_string().contains("cuModuleGetFunction: CUDA_ERROR_NOT_FOUND (500)"), "{missing}");
        driver.functions.launch = refuse;
        let program = driver.load(0, &names(VARIANT.entries()), VARIANT.entries()).expect("it loads");
        let refused = try_out(VARIANT, &program, tch::Device::Cpu).expect_err("it does not start");
        assert!(refused.to_string().contains("cuLaunchKernel") && refused.to_string().contains("701"), "{refused}");
        assert!(CONTEXTS.take().is_empty(), "no context is left behind");
    }
}
