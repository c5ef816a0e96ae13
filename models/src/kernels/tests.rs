//! The kernels against torch's own operators, on a processor.

use super::{
    interpreter::{Interpreter, float16_value, rounded},
    launch::{Failure, GroupNorm, Number, RowNorm, SOURCE, Variant, try_out},
    nvrtc::Nvrtc,
    *,
};
use crate::shared_library::{Library, folder_of};
use crate::{DeviceChoice, initialise};
use std::path::{Path, PathBuf};

const KINDS: [Kind; 3] = [Kind::Float, Kind::BFloat16, Kind::Half];
const EPSILON: f64 = 1e-6;

/// Numbers that look irregular, around 0.5, from -1 to 2; `turn` makes others of them.
fn numbers(shape: &[i64], turn: f64) -> Tensor {
    let line = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
    (((line * 0.7123 + turn).sin() * 43758.5453).frac() * 1.5 + 0.5).view(shape).to_kind(Kind::Float)
}

fn channels_last(shape: [i64; 4], kind: Kind, turn: f64) -> Tensor {
    let [images, channels, height, width] = shape;
    numbers(&[images, height, width, channels], turn).to_kind(kind).permute([0, 3, 1, 2])
}

/// A tensor's numbers of 16 bits on a line without gaps: neighbours differ by 1.
fn on_a_line(tensor: &Tensor) -> Tensor {
    let bits = tensor.contiguous().view_dtype(Kind::Int16).to_kind(Kind::Int);
    bits.where_self(&bits.ge(0), &(bits.bitwise_and(0x7fff) * -1))
}

/// Against a result in float64: one in float32 is 1e-5 away at most, relative from 1 on; one of 16 bits is the rounded result or its neighbour.
/// Around 0 a difference of large numbers is left with their last bits, which 16 bits still tell apart: 1e-6 is allowed there.
#[track_caller]
fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    let kind = found.kind();
    let apart = (found.to_kind(Kind::Double) - expected.to_kind(kind).to_kind(Kind::Double)).abs();
    let good = match kind {
        Kind::Float => apart.le_tensor(&(expected.to_kind(Kind::Double).abs().clamp_min(1.0) * 1e-5)),
        _ => {
            let steps = on_a_line(found) - on_a_line(&expected.to_kind(kind));
            steps.abs().le(1).logical_or(&apart.contiguous().le(1e-6))
        }
    };
    assert!(good.all().int64_value(&[]) == 1, "{what} in {kind:?}: {} apart", apart.max().double_value(&[]));
}

/// Runs it with the threads of a block in both orders, which must not matter, into memory with a border that must stay.
fn run(
    variant: Variant,
    shape_of: &Tensor,
    kind: Kind,
    body: impl Fn(&Tensor, &Interpreter) -> Result<(), Failure>,
) -> Tensor {
    let border = 64;
    let count = shape_of.numel() as i64;
    let [forwards, backwards] = [false, true].map(|backwards| {
        let memory = Tensor::full([count + 2 * border], 77.0, (kind, Device::Cpu));
        let output = memory.narrow(0, border, count).as_strided(shape_of.size(), shape_of.stride(), border);
        body(&output, &Interpreter { variant, backwards }).expect("it runs");
        for from in [0, count + border] {
            assert!(memory.narrow(0, from, border).eq(77.0).all().int64_value(&[]) == 1, "written beside the output");
        }
        output
    });
    assert!(same(&forwards, &backwards), "{variant}: the order of threads shows");
    forwards
}

fn same(left: &Tensor, right: &Tensor) -> bool {
    left.allclose(right, 0.0, 0.0, true)
}

fn fused_group_norm(input: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let norm = GroupNorm::of(input, weight, bias, 32, EPSILON).expect("it fits");
    run(norm.variant(), input, input.kind(), |output, machine| norm.run_into(output, machine))
}

fn plain_group_norm(input: &Tensor, weight: &Tensor, bias: &Tensor, kind: Kind) -> Tensor {
    let [input, weight, bias] = [input, weight, bias].map(|tensor| tensor.to_kind(kind));
    input.group_norm(32, Some(weight), Some(bias), EPSILON, true).silu()
}

#[test]
fn group_norm_with_silu_equals_torchs() {
    for (shape, chunks) in [
        ([2, 32, 1, 1], [1, 1]),
        ([1, 64, 5, 7], [1, 1]),
        ([2, 96, 9, 4], [1, 1]),
        ([2, 128, 33, 31], [8, 16]),
        ([1, 256, 16, 16], [4, 8]),
        ([2, 512, 3, 3], [1, 1]),
        ([1, 1024, 7, 5], [3, 5]),
        ([1, 64, 150, 130], [64, 64]),
    ] {
        for kind in KINDS {
            let (input, channels) = (channels_last(shape, kind, 1.0), shape[1]);
            let [weight, bias] = [2.0, 3.0].map(|turn| numbers(&[channels], turn).to_kind(kind));
            let norm = GroupNorm::of(&input, &weight, &bias, 32, EPSILON).expect("it fits");
            let large = usize::from(kind == Kind::Float);
            assert_eq!(norm.chunks(), chunks[large], "{shape:?} in {kind:?}");
            let found = fused_group_norm(&input, &weight, &bias);
            assert_eq!((found.stride(), found.kind()), (input.stride(), kind), "channels-last as it came");
            // In float64: where a group has one number, torch's own result in float32 is 5e-5 away from it.
            assert_close(&found, &plain_group_norm(&input, &weight, &bias, Kind::Double), &format!("{shape:?}"));
        }
    }
}

#[test]
fn group_norm_keeps_its_digits_where_the_mean_is_large() {
    let (weight, bias) = (numbers(&[64], 2.0), numbers(&[64], 3.0));
    let input = channels_last([2, 64, 20, 30], Kind::Float, 1.0) + 1000.0;
    // Sums of squares in float32 would leave a variance of 0.2 without a single right digit: 1e6 * 6e-8 is 0.06.
    let expected = plain_group_norm(&input, &weight, &bias, Kind::Double);
    let apart = (fused_group_norm(&input, &weight, &bias) - expected).abs().max().double_value(&[]);
    assert!(apart < 2e-3, "{apart}");
}

#[test]
fn what_is_no_number_stays_within_its_group() {
    for kind in KINDS {
        let input = channels_last([2, 64, 12, 9], kind, 1.0);
        let [weight, bias] = [2.0, 3.0].map(|turn| numbers(&[64], turn).to_kind(kind));
        drop(input.narrow(0, 1, 1).narrow(1, 7, 1).narrow(2, 11, 1).narrow(3, 8, 1).fill_(f64::NAN));
        let broken = fused_group_norm(&input, &weight, &bias).isnan();
        assert_eq!(broken.sum(Kind::Int64).int64_value(&[]), 2 * 12 * 9, "two channels of one image in {kind:?}");
        assert!(broken.narrow(0, 1, 1).narrow(1, 6, 2).all().int64_value(&[]) == 1);
    }
}

#[test]
fn an_image_is_the_same_in_every_batch() {
    let input = channels_last([3, 128, 17, 19], Kind::BFloat16, 1.0);
    let [weight, bias] = [2.0, 3.0].map(|turn| numbers(&[128], turn).to_kind(Kind::BFloat16));
    let all = fused_group_norm(&input, &weight, &bias);
    let alone = fused_group_norm(&input.narrow(0, 2, 1), &weight, &bias);
    assert!(same(&all.narrow(0, 2, 1), &alone));
}

fn fused_row_norm(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, kind: Kind) -> Tensor {
    let norm = RowNorm::of(input, weight, bias, EPSILON, kind).expect("it fits");
    run(norm.variant(), input, kind, |output, machine| norm.run_into(output, machine))
}

fn plain_rms_norm(input: &Tensor, weight: &Tensor) -> Tensor {
    let mean = input.square().mean_dim([-1_i64].as_slice(), true, input.kind());
    input * (mean + EPSILON).rsqrt() * weight
}

#[test]
fn layer_and_rms_norm_equal_torchs() {
    // Every number of threads and of fours, with and without threads that have none; rows that fill blocks and rows that do not.
    for (shape, width) in [
        ([1, 5], 64),
        ([3, 16], 64),
        ([2, 4], 100),
        ([1, 1], 128),
        ([2, 3], 192),
        ([1, 5], 256),
        ([1, 3], 512),
        ([2, 3], 768),
        ([1, 4], 1024),
        ([1, 3], 1280),
        ([1, 2], 2048),
        ([1, 2], 2304),
        ([2, 1], 4096),
    ] {
        let input = numbers(&[shape[0], shape[1], width], 1.0);
        let (weight, bias) = (numbers(&[width], 2.0), numbers(&[width], 3.0));
        let [wide_input, wide_weight, wide_bias] = [&input, &weight, &bias].map(|tensor| tensor.to_kind(Kind::Double));
        let layer = wide_input.layer_norm([width], Some(&wide_weight), Some(&wide_bias), EPSILON, true);
        let rms = plain_rms_norm(&wide_input, &wide_weight);
        for kind in KINDS {
            let what = format!("{shape:?} of width {width}");
            assert_close(&fused_row_norm(&input, &weight, Some(&bias), kind), &layer, &format!("layer norm, {what}"));
            assert_close(&fused_row_norm(&input, &weight, None, kind), &rms, &format!("RMS norm, {what}"));
        }
    }
}

#[test]
fn layer_norm_keeps_its_digits_where_the_mean_is_large() {
    let (input, weight, bias) = (numbers(&[3, 768], 1.0) + 1000.0, numbers(&[768], 2.0), numbers(&[768], 3.0));
    let [wide_input, wide_weight, wide_bias] = [&input, &weight, &bias].map(|tensor| tensor.to_kind(Kind::Double));
    let expected = wide_input.layer_norm([768], Some(wide_weight), Some(wide_bias), EPSILON, true);
    let apart = (fused_row_norm(&input, &weight, Some(&bias), Kind::Float) - expected).abs().max().double_value(&[]);
    assert!(apart < 2e-3, "{apart}");
}

#[test]
fn numbers_round_to_the_nearest_even_and_nan_stays() {
    let mut values: Vec<f32> =
        vec![0.0, -0.0, 1.0, 65504.0, 65519.9, 65520.0, 1e30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY];
    // Ties of both kinds and what lies beside them, normal numbers and those below.
    for bits in (0x3f80_0000..0x3f84_0000).step_by(0x800).chain((0x3300_0000..0x3900_0000).step_by(0x1000)) {
        values.extend([bits - 1, bits, bits + 1].map(f32::from_bits));
    }
    values.extend((0..200).map(|bits| f32::from_bits(bits << 13 | 1)));
    for (number, kind) in [(Number::Bfloat16, Kind::BFloat16), (Number::Float16, Kind::Half)] {
        let expected = Tensor::from_slice(&values).to_kind(kind).view_dtype(Kind::Int16);
        let expected = Vec::<i16>::try_from(expected).expect("a line of bits");
        for (value, expected) in values.iter().zip(expected) {
            let found = rounded(number, *value);
            assert_eq!(found, u32::from(expected.cast_unsigned()), "{value:e} in {number:?}");
        }
        for bits in [0x7f80_0001, 0x7fff_ffff, 0xffff_ffff_u32] {
            let found = rounded(number, f32::from_bits(bits)).cast_signed();
            let found = Tensor::from_slice(&[i16::try_from(found).expect("16 bits")]).view_dtype(kind);
            assert!(found.isnan().int64_value(&[0]) == 1, "{bits:x} in {number:?}");
        }
    }
}

#[test]
fn the_interpreter_reads_float16_as_torch_does() {
    let bits: Vec<i16> = (i16::MIN..=i16::MAX).collect();
    let expected = Tensor::from_slice(&bits).view_dtype(Kind::Half).to_kind(Kind::Float);
    let expected = Vec::<f32>::try_from(expected).expect("a line of numbers");
    for (bits, expected) in bits.iter().zip(expected) {
        let found = float16_value(bits.cast_unsigned());
        assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{bits:x}");
    }
}

/// Every program that models may ask for.
fn variants() -> Vec<Variant> {
    let numbers = [Number::Float32, Number::Bfloat16, Number::Float16];
    let mut variants: Vec<Variant> = numbers.map(Variant::GroupNorm).to_vec();
    for (lanes, vectors) in [(16, 1), (32, 1), (32, 2), (32, 4), (32, 8), (128, 4), (128, 8)] {
        for output in numbers {
            for centred in [false, true] {
                variants.push(Variant::RowNorm { output, lanes, vectors, centred });
            }
        }
    }
    variants
}

#[test]
fn the_example_of_every_program_comes_out_right_and_a_wrong_one_is_seen() {
    struct Idle;
    impl launch::Machine for Idle {
        fn launch(
            &self,
            _: launch::Entry,
            _: [u32; 2],
            _: u32,
            _: &mut [*mut std::ffi::c_void],
        ) -> Result<(), Problem> {
            Ok(())
        }
    }
    for variant in variants() {
        try_out(variant, &Interpreter { variant, backwards: false }, Device::Cpu).expect("as torch computes it");
        assert!(try_out(variant, &Idle, Device::Cpu).is_err(), "{variant}");
    }
}

#[test]
fn what_does_not_fit_takes_the_plain_path() {
    let vector = |channels: i64| numbers(&[channels], 2.0);
    let image = |channels: i64, kind: Kind| channels_last([1, channels, 4, 4], kind, 1.0);
    let fits = |input: &Tensor, weight: &Tensor, bias: &Tensor, groups: i64| {
        GroupNorm::of(input, weight, bias, groups, EPSILON).is_some()
    };
    let (good, line) = (image(64, Kind::Float), vector(64));
    assert!(fits(&good, &line, &line, 32));
    assert!(!fits(&good, &line, &line, 16), "other groups");
    assert!(!fits(&good.contiguous(), &line, &line, 32), "channels first");
    assert!(!fits(&good.to_kind(Kind::BFloat16), &line, &line, 32), "another kind of weight");
    assert!(
        !fits(&good.to_kind(Kind::Double), &line.to_kind(Kind::Double), &line.to_kind(Kind::Double), 32),
        "float64"
    );
    assert!(!fits(&image(48, Kind::Float), &vector(48), &vector(48), 32), "channels that do not divide");
    assert!(!fits(&image(2048, Kind::Float), &vector(2048), &vector(2048), 32), "more channels than threads");
    assert!(!fits(&good.shallow_clone().set_requires_grad(true), &line, &line, 32), "gradients of the input");
    assert!(!fits(&image(64, Kind::Float), &vector(64).set_requires_grad(true), &vector(64), 32), "of the weight");
    assert!(!fits(&image(128, Kind::Float).narrow(1, 0, 64), &line, &line, 32), "some of the channels");
    assert!(!fits(&good.narrow(0, 0, 0), &line, &line, 32), "no image");
    let shifted = Tensor::zeros([64 * 16 + 1], (Kind::Float, Device::Cpu)).narrow(0, 1, 64 * 16);
    assert!(!fits(&shifted.view([1, 4, 4, 64]).permute([0, 3, 1, 2]), &line, &line, 32), "an odd address");

    let rows = numbers(&[2, 3, 64], 1.0);
    let fits = |input: &Tensor, weight: &Tensor, kind| RowNorm::of(input, weight, None, EPSILON, kind).is_some();
    assert!(fits(&rows, &line, Kind::Half));
    assert!(!fits(&rows, &line, Kind::Double), "float64");
    assert!(!fits(&rows.to_kind(Kind::Half), &line, Kind::Half), "reads float32 only");
    assert!(!fits(&rows.transpose(0, 1), &line, Kind::Half), "rows out of order");
    assert!(!fits(&numbers(&[2, 60], 1.0), &vector(60), Kind::Half), "narrower");
    assert!(!fits(&numbers(&[2, 66], 1.0), &vector(66), Kind::Half), "no whole fours");
    assert!(!fits(&numbers(&[2, 5000], 1.0), &vector(5000), Kind::Half), "wider");
    assert!(!fits(&rows, &vector(64).set_requires_grad(true), Kind::Half), "gradients");
}

#[test]
fn a_processor_takes_the_plain_path_on_and_off() {
    let (image, rows, line) =
        (channels_last([1, 64, 4, 4], Kind::Float, 1.0), numbers(&[2, 64], 1.0), numbers(&[64], 2.0));
    let before = fused_kernels_report().calls;
    for on in [true, false] {
        use_fused_kernels(on);
        assert!(group_norm_silu(&image, &line, &line, 32, EPSILON).expect("no error").is_none());
        assert!(layer_norm(&rows, &line, &line, EPSILON, Kind::Half).expect("no error").is_none());
        assert!(rms_norm(&rows, &line, EPSILON, Kind::Half).expect("no error").is_none());
    }
    assert_eq!(fused_kernels_report().calls, before);
}

#[test]
fn a_launch_that_fails_is_the_plain_path_and_a_line_of_the_report() {
    for _ in 0..2 {
        let failed = settle(Err(Failure::Kernel(Problem::new("out of something"))));
        assert!(failed.expect("no error").is_none());
    }
    let told = fused_kernels_report().problems.iter().filter(|problem| *problem == "out of something").count();
    assert_eq!(told, 1, "each reason once");
    let memory = settle(Err(Failure::Torch(ModelError::torch("CUDA out of memory"))));
    assert!(memory.expect_err("the plain path would fail as well").is_out_of_memory());
}

#[test]
fn a_compiler_that_is_not_there_is_a_problem_and_no_error() {
    let missing = Nvrtc::open(Path::new("/nowhere/libnvrtc.so.13")).expect_err("it is not there");
    assert!(missing.to_string().contains("/nowhere/libnvrtc.so.13"), "{missing}");
    // A library that is none.
    let torch = folder_of(Library::process().symbol(c"_ZN2at13globalContextEv").expect("linked")).expect("a folder");
    let other = Nvrtc::open(&torch.join("libc10.so")).expect_err("it does not compile");
    assert!(other.to_string().contains("nvrtcVersion"), "{other}");
}

/// The compiler that `RESTOK_TEST_NVRTC` names by its path, or the one that lies with libtorch or in the system. It needs no GPU: `pip install
/// nvidia-cuda-nvrtc` brings `nvidia/cu13/lib/libnvrtc.so.13`.
#[expect(clippy::disallowed_methods, reason = "a test has no settings but its environment")]
fn compiler() -> Option<Nvrtc> {
    match std::env::var_os("RESTOK_TEST_NVRTC").map(PathBuf::from) {
        Some(file) => Some(Nvrtc::open(&file).expect("RESTOK_TEST_NVRTC names a compiler")),
        None => Nvrtc::find().map_err(|problem| println!("skipped: {problem}; RESTOK_TEST_NVRTC may name one")).ok(),
    }
}

#[test]
fn nvrtc_compiles_every_program_without_spilling() {
    let Some(compiler) = compiler() else { return };
    for variant in variants() {
        for capability in [80, 90] {
            let binary = compiler.compile_with(SOURCE, &variant.macros(), capability, &["--ptxas-options=-v"]);
            let binary = binary.unwrap_or_else(|problem| panic!("{variant} for sm_{capability}: {problem}"));
            assert!(binary.bytes.starts_with(b"\x7fELF"), "machine code");
            assert!(!binary.log.contains("warning"), "{variant}: {}", binary.log);
            for entry in variant.entries() {
                let name = entry.name().to_bytes();
                assert!(binary.bytes.windows(name.len()).any(|bytes| bytes == name), "{entry:?} has its name");
            }
            // 64 registers are four blocks of 256 threads on a multiprocessor.
            let registers = binary.log.split("Used ").skip(1).map(|rest| {
                rest.split(' ').next().and_then(|count| count.parse::<u32>().ok()).expect("a number of registers")
            });
            let registers: Vec<u32> = registers.collect();
            assert_eq!(registers.len(), variant.entries().len(), "{}", binary.log);
            assert!(registers.iter().all(|&count| count <= 64), "{variant} for sm_{capability}: {registers:?}");
            assert_eq!(binary.log.matches("0 bytes spill stores").count(), registers.len(), "{}", binary.log);
        }
    }
}

#[test]
fn nvrtc_gives_assembly_to_newer_gpus_and_reasons_for_what_it_refuses() {
    let Some(compiler) = compiler() else { return };
    let macros = Variant::GroupNorm(Number::Bfloat16).macros();
    let newer = compiler.compile(SOURCE, &macros, 9990).expect("the driver compiles the rest");
    assert!(newer.bytes.windows(6).any(|bytes| bytes == b".entry") && newer.bytes.ends_with(b"\0"), "assembly");
    let older = compiler.compile(SOURCE, &macros, 1).expect_err("no such GPU").to_string();
    assert!(older.contains("sm_1"), "{older}");
    let refused = compiler.compile(SOURCE, &["RESTOK_GROUP_NORM=Unknown".to_owned()], 90).expect_err("no such kind");
    assert!(refused.to_string().contains("Unknown"), "{refused}");
}

/// The GPU that `RESTOK_TEST_DEVICE` names, unless another test of this process was there before and had torch begin without CUDA.
#[expect(clippy::disallowed_methods, reason = "a test has no settings but its environment")]
fn gpu() -> Option<usize> {
    let asked: DeviceChoice = std::env::var("RESTOK_TEST_DEVICE").ok()?.parse().expect("a device");
    let devices = match initialise(&[asked], None) {
        Err(problem) if problem.to_string().contains("first used in this process without CUDA") => {
            println!("skipped: {problem}");
            return None;
        }
        devices => devices.expect("the device is there"),
    };
    devices.iter().find_map(|device| match device {
        crate::Device::Cuda(index) => Some(*index),
        crate::Device::Cpu => None,
    })
}

#[test]
fn every_program_computes_on_a_gpu_what_torch_does() {
    let Some(index) = gpu() else {
        println!("skipped: RESTOK_TEST_DEVICE names no GPU");
        return;
    };
    let device = Device::Cuda(index);
    for variant in variants() {
        make(index, variant).unwrap_or_else(|problem| panic!("{variant}: {problem}"));
    }
    for shape in [[2, 32, 1, 1], [1, 64, 5, 7], [3, 128, 65, 63], [4, 128, 256, 256], [5, 512, 16, 16]] {
        for kind in KINDS {
            let [weight, bias] = [2.0, 3.0].map(|turn| numbers(&[shape[1]], turn).to_kind(kind).to_device(device));
            let input = channels_last(shape, kind, 1.0).to_device(device);
            let norm = GroupNorm::of(&input, &weight, &bias, 32, EPSILON).expect("it fits");
            let program = ready(index, norm.variant()).expect("as above");
            let found = norm.run(&*program).expect("it runs");
            let expected = plain_group_norm(&input, &weight, &bias, Kind::Double);
            assert_close(&found, &expected, &format!("{shape:?} on {device:?}"));
        }
    }
    for width in [64, 128, 256, 512, 768, 1024, 1280, 1536, 4096] {
        let input = numbers(&[3, 171, width], 1.0).to_device(device);
        let [weight, bias] = [2.0, 3.0].map(|turn| numbers(&[width], turn).to_device(device));
        let [wide_input, wide_weight, wide_bias] = [&input, &weight, &bias].map(|tensor| tensor.to_kind(Kind::Double));
        let layer = wide_input.layer_norm([width], Some(&wide_weight), Some(&wide_bias), EPSILON, true);
        let rms = plain_rms_norm(&wide_input, &wide_weight);
        for kind in KINDS {
            for (bias, expected) in [(Some(&bias), &layer), (None, &rms)] {
                let norm = RowNorm::of(&input, &weight, bias, EPSILON, kind).expect("it fits");
                let program = ready(index, norm.variant()).expect("as above");
                assert_close(&norm.run(&*program).expect("it runs"), expected, &format!("width {width} on {device:?}"));
            }
        }
    }
}
