//! The kernels on a processor, for the tests: the Rust side of `shim/host_kernels.cpp`.

use super::launch::{Entry, Machine, Number, Variant};
use crate::shared_library::Problem;
use std::{
    ffi::{c_float, c_int, c_uint, c_void},
    sync::{Mutex, PoisonError},
};

#[expect(unsafe_code, reason = "declares the C interface of shim/host_kernels.cpp, which is compiled into this crate")]
mod shim {
    use super::{c_float, c_int, c_uint, c_void};
    unsafe extern "C" {
        pub(super) fn restok_host_launch(
            kernel: c_int,
            bits: c_int,
            lanes: c_int,
            vectors: c_int,
            centred: c_int,
            grid_x: c_int,
            grid_y: c_int,
            threads: c_int,
            backwards: c_int,
            arguments: *mut *mut c_void,
        ) -> c_int;
        pub(super) fn restok_host_round(bits: c_int, value: c_float) -> c_uint;
        pub(super) fn restok_host_float16_value(bits: c_uint) -> c_float;
    }
}

/// Threads of a block run one after the other, from the first or from the last, each until it waits for the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interpreter {
    pub(super) variant: Variant,
    pub(super) backwards: bool,
}

impl Machine for Interpreter {
    fn launch(
        &self,
        entry: Entry,
        blocks: [u32; 2],
        threads: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Problem> {
        // It keeps the block that runs in static variables.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(self.variant.entries().contains(&entry), "{entry:?} is not in {}", self.variant);
        let (number, lanes, vectors, centred) = match self.variant {
            Variant::GroupNorm(number) => (number, 0, 0, false),
            Variant::RowNorm { output, lanes, vectors, centred } => (output, lanes, vectors, centred),
        };
        let [blocks, images] = blocks.map(u32::cast_signed);
        let (lanes, vectors) = (c_int::try_from(lanes).expect("small"), c_int::try_from(vectors).expect("small"));
        let (centred, backwards) = (c_int::from(centred), c_int::from(self.backwards));
        #[expect(unsafe_code, reason = "the arguments are those of the kernel, and their tensors outlive the call")]
        let status = unsafe {
            let (threads, arguments) = (threads.cast_signed(), arguments.as_mut_ptr());
            let (kernel, bits) = (entry as c_int, bits_of(number));
            shim::restok_host_launch(
                kernel, bits, lanes, vectors, centred, blocks, images, threads, backwards, arguments,
            )
        };
        match status {
            0 => Ok(()),
            -1 => Err(Problem::new("no such kernel")),
            _ => Err(Problem::new("the threads of a block did not all reach the same barriers")),
        }
    }
}

/// The bits that a kernel writes for a number.
pub(super) fn rounded(number: Number, value: f32) -> u32 {
    #[expect(unsafe_code, reason = "takes no pointer")]
    unsafe {
        shim::restok_host_round(bits_of(number), value)
    }
}

/// What a kernel of the interpreter reads from the bits of a float16.
pub(super) fn float16_value(bits: u16) -> f32 {
    #[expect(unsafe_code, reason = "takes no pointer")]
    unsafe {
        shim::restok_host_float16_value(c_uint::from(bits))
    }
}

fn bits_of(number: Number) -> c_int {
    match number {
        Number::Float32 => 32,
        Number::Bfloat16 => 16,
        Number::Float16 => -16,
    }
}
