//! What is launched: which program, over how many blocks, with which arguments. The same launches drive a GPU and the tests' interpreter.

use crate::ModelError;
use crate::shared_library::Problem;
use std::{
    ffi::{CStr, c_int, c_longlong, c_void},
    fmt,
    ptr::{self, from_mut},
};
use tch::{Device, Kind, Tensor};

/// The one source of all programs.
pub(super) const SOURCE: &str = include_str!("normalization.cu");

/// Groups of the group norm, which the source has as a constant.
const GROUPS: i64 = 32;
/// Most threads of a block of the group norm, as in the source.
const GROUP_NORM_THREADS: i64 = 256;
/// Threads of a block of a row norm, as in the source.
const ROW_NORM_THREADS: i64 = 128;
/// Bytes that a thread moves at a time, and must find at such an address.
const PACK: i64 = 16;
/// Bytes of an image that are worth a block of their own, and most blocks of an image: each reads the moments of all of them.
const CHUNK_BYTES: i64 = 32 << 10;
const MOST_CHUNKS: i64 = 64;
/// Most blocks along the second axis of a grid.
const MOST_IMAGES: i64 = 65_535;
/// What the kernels count in 32 bits.
const MOST_NUMBERS: i64 = i32::MAX as i64;

/// Kinds that the kernels read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Number {
    Float32,
    Bfloat16,
    Float16,
}

impl Number {
    fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Float => Some(Self::Float32),
            Kind::BFloat16 => Some(Self::Bfloat16),
            Kind::Half => Some(Self::Float16),
            _ => None,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Bfloat16 => Kind::BFloat16,
            Self::Float16 => Kind::Half,
        }
    }

    fn bytes(self) -> i64 {
        match self {
            Self::Float32 => 4,
            Self::Bfloat16 | Self::Float16 => 2,
        }
    }

    /// Its type in the source.
    fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float",
            Self::Bfloat16 => "Bfloat16",
            Self::Float16 => "Float16",
        }
    }

    /// Distance of the numbers from 1 on, which a result may be away from the true one, relative to it, and a float32 result be away after
    /// sums of thousands.
    fn tolerance(self) -> f64 {
        match self {
            Self::Float32 => 2e-5,
            Self::Bfloat16 => f64::exp2(-7.0),
            Self::Float16 => f64::exp2(-10.0),
        }
    }
}

/// A program: what it is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Variant {
    /// Group norm and SiLU.
    GroupNorm(Number),
    /// Layer norm (`centred`) or RMS norm.
    RowNorm {
        /// What is written.
        output: Number,
        /// Threads of a row.
        lanes: i64,
        /// Four numbers each, of a thread.
        vectors: i64,
        /// Whether the mean is taken away and a bias added.
        centred: bool,
    },
}

impl Variant {
    /// Macros that ask the source for it.
    pub(super) fn macros(self) -> Vec<String> {
        match self {
            Self::GroupNorm(number) => vec![format!("RESTOK_GROUP_NORM={}", number.name())],
            Self::RowNorm { output, lanes, vectors, centred } => vec![
                format!("RESTOK_ROW_NORM={}", output.name()),
                format!("RESTOK_LANES={lanes}"),
                format!("RESTOK_VECTORS={vectors}"),
                format!("RESTOK_CENTRED={centred}"),
            ],
        }
    }

    /// Kernels of the program.
    pub(super) fn entries(self) -> &'static [Entry] {
        match self {
            Self::GroupNorm(_) => &[Entry::GroupNormStatistics, Entry::GroupNormSilu],
            Self::RowNorm { .. } => &[Entry::RowNorm],
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GroupNorm(number) => write!(formatter, "group norm in {}", number.name()),
            Self::RowNorm { output, lanes, vectors, centred } => {
                let norm = if *centred { "layer" } else { "RMS" };
                write!(formatter, "{norm} norm to {} up to width {}", output.name(), 4 * lanes * vectors)
            }
        }
    }
}

/// A kernel of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    GroupNormStatistics,
    GroupNormSilu,
    RowNorm,
}

impl Entry {
    /// Its name in the source.
    pub(super) fn name(self) -> &'static CStr {
        match self {
            Self::GroupNormStatistics => c"restok_group_norm_statistics",
            Self::GroupNormSilu => c"restok_group_norm_silu",
            Self::RowNorm => c"restok_row_norm",
        }
    }
}

/// What runs kernels of a program: a GPU, or the interpreter of the tests.
pub(super) trait Machine {
    /// Starts a kernel over `blocks` of `threads`. `arguments` point to the kernel's arguments, in their order and of their types.
    fn launch(
        &self,
        entry: Entry,
        blocks: [u32; 2],
        threads: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Problem>;
}

/// Why there is no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// torch refused, for want of memory: it would refuse on the plain path too.
    Torch(ModelError),
    /// The launch failed: the plain path may do it.
    Kernel(Problem),
}

impl From<tch::TchError> for Failure {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Kernel(problem)
    }
}

/// A group norm with SiLU that the kernels can do.
///
/// An image is cut into chunks of whole pixels by its size and kind alone, so that its result does not depend on its batch.
#[derive(Debug)]
pub(super) struct GroupNorm<'a> {
    input: &'a Tensor,
    weight: &'a Tensor,
    bias: &'a Tensor,
    number: Number,
    images: i64,
    pixels: i64,
    channels: i64,
    chunk_pixels: i64,
    chunks: i64,
    threads: i64,
    epsilon: f64,
}

impl<'a> GroupNorm<'a> {
    /// `None` for what they cannot do. Shapes as of [`super::group_norm_silu`].
    pub(super) fn of(
        input: &'a Tensor,
        weight: &'a Tensor,
        bias: &'a Tensor,
        groups: i64,
        epsilon: f64,
    ) -> Option<Self> {
        let number = Number::of(input.kind())?;
        let [images, channels, height, width] = <[i64; 4]>::try_from(input.size()).ok()?;
        let pixels = height.checked_mul(width)?;
        let numbers = pixels.checked_mul(channels)?;
        let sizes = groups == GROUPS
            && channels % GROUPS == 0
            && channels * number.bytes() / PACK <= GROUP_NORM_THREADS
            && (1..=MOST_IMAGES).contains(&images)
            && (1..=MOST_NUMBERS).contains(&numbers);
        let vectors = [weight, bias].iter().all(|vector| {
            vector.kind() == input.kind()
                && vector.device() == input.device()
                && vector.size() == [channels]
                && vector.is_contiguous()
                && !vector.requires_grad()
        });
        if !sizes || !vectors || input.requires_grad() || !lies_channels_last(input) || !is_aligned(input) {
            return None;
        }
        let wanted = (numbers * number.bytes()).unsigned_abs().div_ceil(CHUNK_BYTES.unsigned_abs());
        let wanted = wanted.clamp(1, MOST_CHUNKS.unsigned_abs());
        let chunk_pixels = pixels.unsigned_abs().div_ceil(wanted);
        let chunks = pixels.unsigned_abs().div_ceil(chunk_pixels).cast_signed();
        let lanes = channels * number.bytes() / PACK;
        let threads = GROUP_NORM_THREADS / lanes * lanes;
        let chunk_pixels = chunk_pixels.cast_signed();
        Some(Self { input, weight, bias, number, images, pixels, channels, chunk_pixels, chunks, threads, epsilon })
    }

    pub(super) fn variant(&self) -> Variant {
        Variant::GroupNorm(self.number)
    }

    /// The result, in the input's layout.
    pub(super) fn run(&self, machine: &dyn Machine) -> Result<Tensor, Failure> {
        let output = self.input.f_empty_like()?;
        self.run_into(&output, machine)?;
        Ok(output)
    }

    /// The same into a tensor of the input's kind, shape, layout and alignment.
    pub(super) fn run_into(&self, output: &Tensor, machine: &dyn Machine) -> Result<(), Failure> {
        debug_assert!(lies_channels_last(output) && is_aligned(output));
        // Mean, and sum of squares about it.
        let moments = [self.images, self.chunks, GROUPS, 2];
        let moments = Tensor::f_empty(moments, (Kind::Float, self.input.device()))?;
        let (mut input, mut written, mut parts) = (self.input.data_ptr(), output.data_ptr(), moments.data_ptr());
        let (mut weight, mut bias) = (self.weight.data_ptr(), self.bias.data_ptr());
        let (mut pixels, mut channels) = (to_int(self.pixels)?, to_int(self.channels)?);
        let (mut chunk_pixels, mut epsilon) = (to_int(self.chunk_pixels)?, self.epsilon as f32);
        let (blocks, threads) = ([to_unsigned(self.chunks)?, to_unsigned(self.images)?], to_unsigned(self.threads)?);
        let mut statistics = [
            from_mut(&mut input).cast(),
            from_mut(&mut parts).cast(),
            from_mut(&mut pixels).cast(),
            from_mut(&mut channels).cast(),
            from_mut(&mut chunk_pixels).cast(),
        ];
        machine.launch(Entry::GroupNormStatistics, blocks, threads, &mut statistics)?;
        let mut normal = [
            from_mut(&mut input).cast(),
            from_mut(&mut parts).cast(),
            from_mut(&mut weight).cast(),
            from_mut(&mut bias).cast(),
            from_mut(&mut written).cast(),
            from_mut(&mut pixels).cast(),
            from_mut(&mut channels).cast(),
            from_mut(&mut chunk_pixels).cast(),
            from_mut(&mut epsilon).cast(),
        ];
        machine.launch(Entry::GroupNormSilu, blocks, threads, &mut normal)?;
        // The memory of `moments` goes back to torch here, which hands it out again on this stream only: after the kernels.
        Ok(())
    }

    /// Blocks of an image.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> i64 {
        self.chunks
    }
}

/// A layer norm or RMS norm that the kernel can do.
#[derive(Debug)]
pub(super) struct RowNorm<'a> {
    input: &'a Tensor,
    weight: &'a Tensor,
    bias: Option<&'a Tensor>,
    output: Number,
    rows: i64,
    width: i64,
    lanes: i64,
    vectors: i64,
    epsilon: f64,
}

impl<'a> RowNorm<'a> {
    /// `None` for what it cannot do. With `bias` a layer norm, without one an RMS norm. Shapes as of [`super::layer_norm`].
    pub(super) fn of(
        input: &'a Tensor,
        weight: &'a Tensor,
        bias: Option<&'a Tensor>,
        epsilon: f64,
        kind: Kind,
    ) -> Option<Self> {
        let output = Number::of(kind)?;
        let size = input.size();
        let width = *size.last()?;
        // Threads of a row and fours of each: rows up to 1024 stay within a warp, which waits for no other.
        let (lanes, vectors) = match width {
            64 => (16, 1),
            65..=128 => (32, 1),
            129..=256 => (32, 2),
            257..=512 => (32, 4),
            513..=1024 => (32, 8),
            1025..=2048 => (128, 4),
            2049..=4096 => (128, 8),
            _ => return None,
        };
        let rows = size.iter().rev().skip(1).product::<i64>();
        let all: Vec<&Tensor> = [Some(input), Some(weight), bias].into_iter().flatten().collect();
        let fit = all.iter().all(|tensor| {
            tensor.kind() == Kind::Float
                && tensor.device() == input.device()
                && tensor.is_contiguous()
                && is_aligned(tensor)
                && !tensor.requires_grad()
        });
        let vectors_fit = all.iter().skip(1).all(|vector| vector.size() == [width]);
        let rows_fit = (1..=MOST_NUMBERS).contains(&rows);
        (fit && vectors_fit && rows_fit && width % 4 == 0).then_some(Self {
            input,
            weight,
            bias,
            output,
            rows,
            width,
            lanes,
            vectors,
            epsilon,
        })
    }

    pub(super) fn variant(&self) -> Variant {
        let (output, lanes, vectors, centred) = (self.output, self.lanes, self.vectors, self.bias.is_some());
        Variant::RowNorm { output, lanes, vectors, centred }
    }

    /// The result, in the input's shape.
    pub(super) fn run(&self, machine: &dyn Machine) -> Result<Tensor, Failure> {
        let output = Tensor::f_empty(self.input.size(), (self.output.kind(), self.input.device()))?;
        self.run_into(&output, machine)?;
        Ok(output)
    }

    /// The same into a contiguous tensor of that shape and kind.
    pub(super) fn run_into(&self, output: &Tensor, machine: &dyn Machine) -> Result<(), Failure> {
        debug_assert!(output.is_contiguous() && is_aligned(output));
        let (mut input, mut written, mut weight) = (self.input.data_ptr(), output.data_ptr(), self.weight.data_ptr());
        let mut bias = self.bias.map_or(ptr::null_mut(), Tensor::data_ptr);
        let (mut rows, mut width) = (self.rows as c_longlong, to_int(self.width)?);
        let mut epsilon = self.epsilon as f32;
        let blocks = self.rows.unsigned_abs().div_ceil((ROW_NORM_THREADS / self.lanes).unsigned_abs()).cast_signed();
        let mut arguments = [
            from_mut(&mut input).cast(),
            from_mut(&mut weight).cast(),
            from_mut(&mut bias).cast(),
            from_mut(&mut written).cast(),
            from_mut(&mut rows).cast(),
            from_mut(&mut width).cast(),
            from_mut(&mut epsilon).cast(),
        ];
        let (blocks, threads) = ([to_unsigned(blocks)?, 1], to_unsigned(ROW_NORM_THREADS)?);
        Ok(machine.launch(Entry::RowNorm, blocks, threads, &mut arguments)?)
    }
}

/// Whether a program computes a small example as torch's own operators do, on `device`: the last thing to be seen before it is used.
pub(super) fn try_out(variant: Variant, machine: &dyn Machine, device: Device) -> Result<(), Problem> {
    let tried = || -> Result<f64, Failure> {
        let (found, expected) = match variant {
            Variant::GroupNorm(number) => {
                // Several chunks, the last one short.
                let (channels, kind) = (128, number.kind());
                let input = example(&[2, 31, 23, channels], kind, device)?.f_permute([0, 3, 1, 2])?;
                let (weight, bias) = (example(&[channels], kind, device)?, example(&[channels], kind, device)?);
                let norm = GroupNorm::of(&input, &weight, &bias, GROUPS, 1e-6);
                let norm = norm.ok_or_else(|| Problem::new("the example does not fit"))?;
                let [wide, gain, shift] = [&input, &weight, &bias].map(|tensor| tensor.f_to_kind(Kind::Float));
                let expected = wide?.f_group_norm(GROUPS, Some(gain?), Some(shift?), 1e-6, true)?.f_silu()?;
                // What is not written must not pass for the result of an earlier run.
                let found = input.f_full_like(f64::NAN)?;
                norm.run_into(&found, machine)?;
                (found, expected)
            }
            Variant::RowNorm { output, lanes, vectors, centred } => {
                // Five rows, and threads without numbers.
                let width = if lanes == 16 { 64 } else { 4 * lanes * vectors - 4 };
                let input = example(&[5, width], Kind::Float, device)?;
                let (weight, bias) = (example(&[width], Kind::Float, device)?, example(&[width], Kind::Float, device)?);
                let norm = RowNorm::of(&input, &weight, centred.then_some(&bias), 1e-5, output.kind());
                let norm = norm.ok_or_else(|| Problem::new("the example does not fit"))?;
                let expected = match centred {
                    true => input.f_layer_norm([width], Some(&weight), Some(&bias), 1e-5, true)?,
                    false => {
                        let mean = input.f_square()?.f_mean_dim([-1_i64].as_slice(), true, Kind::Float)?;
                        input.f_mul(&mean.f_add_scalar(1e-5)?.f_rsqrt()?)?.f_mul(&weight)?
                    }
                };
                let found = Tensor::f_full(input.size(), f64::NAN, (output.kind(), device))?;
                norm.run_into(&found, machine)?;
                (found, expected)
            }
        };
        // Relative from 1 on, absolute below.
        let scale = expected.f_abs()?.f_clamp_min(1.0)?;
        let apart = found.f_to_kind(Kind::Float)?.f_sub(&expected)?.f_div(&scale)?.f_abs()?.f_max()?;
        Ok(apart.f_double_value(&[])?)
    };
    let allowed = match variant {
        Variant::GroupNorm(number) => number.tolerance(),
        Variant::RowNorm { output, .. } => output.tolerance(),
    };
    match tried() {
        // A NaN is not within any bound.
        Ok(apart) if apart <= allowed => Ok(()),
        Ok(apart) => {
            Err(Problem::new(format!("its example is {apart:e} away from torch's, and {allowed:e} is allowed")))
        }
        Err(Failure::Kernel(problem)) => Err(problem),
        Err(Failure::Torch(error)) => Err(Problem::new(error.to_string())),
    }
}

/// Numbers from -1 to 2 that look irregular and are the same everywhere.
fn example(shape: &[i64], kind: Kind, device: Device) -> Result<Tensor, Failure> {
    let numbers = Tensor::f_arange(shape.iter().product::<i64>(), (Kind::Float, device))?;
    Ok(numbers.f_mul_scalar(0.37)?.f_sin()?.f_mul_scalar(1.5)?.f_add_scalar(0.5)?.f_view(shape)?.f_to_kind(kind)?)
}

/// Whether `[B, C, height, width]` lies as `[B, height, width, C]` without gaps. Axes of one have no stride that would matter.
fn lies_channels_last(tensor: &Tensor) -> bool {
    let (sizes, strides) = (tensor.size(), tensor.stride());
    let mut expected = 1;
    [1, 3, 2, 0].iter().all(|&axis| {
        let fits = sizes[axis] == 1 || strides[axis] == expected;
        expected *= sizes[axis];
        fits
    })
}

fn is_aligned(tensor: &Tensor) -> bool {
    tensor.data_ptr().addr().is_multiple_of(PACK as usize)
}

fn to_int(size: i64) -> Result<c_int, Problem> {
    c_int::try_from(size).map_err(|error| Problem::new(error.to_string()))
}

fn to_unsigned(size: i64) -> Result<u32, Problem> {
    u32::try_from(size).map_err(|error| Problem::new(error.to_string()))
}
