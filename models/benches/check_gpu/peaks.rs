//! What the device can do at its best, measured in the same run as what is made of it: the limits of the report.

use crate::{
    Fallible,
    timing::{median_seconds, print},
};
use models::{
    Device, Precision,
    measuring::{PackedMatrix, ProductsIn},
};
use serde_json::json;
use tch::{Kind, Tensor};

/// Channels and kernel of the convolution that is measured, those of the tokenizer's largest.
const CHANNELS: i64 = 128;
const KERNEL: i64 = 3;

/// Products of matrices up to `side` by `side`, a convolution, copies and launches.
pub(crate) fn peaks(device: Device, side: i64, seconds: f64) -> Fallible<()> {
    let place = match device {
        Device::Cpu => tch::Device::Cpu,
        Device::Cuda(index) => tch::Device::Cuda(index),
    };
    for precision in Precision::ALL.into_iter().filter(|precision| precision.is_native(device)) {
        // A processor has no TensorFloat-32: it would be measured twice.
        if precision == Precision::Tf32 && device == Device::Cpu {
            continue;
        }
        let _products = ProductsIn::precision(precision, device)?;
        let kind = match precision {
            Precision::Fp32 | Precision::Tf32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Fp16 => Kind::Half,
        };
        products(device, place, precision, kind, side, seconds)?;
        convolution(device, place, precision, kind, side, seconds)?;
    }
    memory(device, place, side, seconds)?;
    launches(device, place, seconds)
}

fn line(what: &str, precision: &str, value: f64, unit: &str, shape: &str) {
    print(&json!({
        "kind": "peak", "what": what, "precision": precision, "value": value, "unit": unit, "shape": shape
    }));
}

fn random(shape: &[i64], kind: Kind, place: tch::Device) -> Fallible<Tensor> {
    Ok(Tensor::f_randn(shape, (Kind::Float, place))?.f_to_kind(kind)?)
}

/// The best of a few sizes: which one a library likes best differs from card to card. On a processor there are two libraries: torch's own
/// choice (for float32 MKL, where it has it), and oneDNN over a packed matrix.
fn products(
    device: Device,
    place: tch::Device,
    precision: Precision,
    kind: Kind,
    side: i64,
    seconds: f64,
) -> Fallible<()> {
    let (mut best, mut best_packed) = ((0.0, String::new()), (0.0, String::new()));
    for (rows, inner, columns) in [(side, side, side), (side / 2, side / 2, side / 2), (2 * side, side / 2, side)] {
        let (left, right) = (random(&[rows, inner], kind, place)?, random(&[inner, columns], kind, place)?);
        let mut product = Tensor::f_zeros([rows, columns], (kind, place))?;
        let keep = |best: &mut (f64, String), seconds: f64| {
            let rate = (2 * rows * inner * columns) as f64 / seconds / 1e12;
            if rate > best.0 {
                *best = (rate, format!("{rows} x {inner} x {columns}"));
            }
        };
        let once = median_seconds(device, seconds, || {
            product = left.f_matmul(&right)?;
            Ok(())
        })?;
        keep(&mut best, once);
        if device != Device::Cpu {
            continue;
        }
        let packed = PackedMatrix::pack(&right.f_transpose(0, 1)?.f_contiguous()?)?;
        let once = median_seconds(device, seconds, || {
            product = packed.multiply(&left)?;
            Ok(())
        })?;
        keep(&mut best_packed, once);
    }
    line("matrix product", precision.name(), best.0, "TFLOP/s", &best.1);
    if device == Device::Cpu {
        line("matrix product (packed)", precision.name(), best_packed.0, "TFLOP/s", &best_packed.1);
    }
    Ok(())
}

/// As the tokenizer has it: channels-last.
fn convolution(
    device: Device,
    place: tch::Device,
    precision: Precision,
    kind: Kind,
    side: i64,
    seconds: f64,
) -> Fallible<()> {
    // 16 images of 256 by 256 pixels on a GPU.
    let (images, pixels) = ((side / 512).clamp(1, 16), (side / 32).clamp(32, 256));
    let channels_last = |tensor: Tensor| tensor.f_permute([0, 3, 1, 2]);
    let input = channels_last(random(&[images, pixels, pixels, CHANNELS], kind, place)?)?;
    let weight = channels_last(random(&[CHANNELS, KERNEL, KERNEL, CHANNELS], kind, place)?)?;
    let mut output = Tensor::new();
    let once = median_seconds(device, seconds, || {
        output = input.f_conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1)?;
        Ok(())
    })?;
    let operations = 2 * images * pixels * pixels * CHANNELS * CHANNELS * KERNEL * KERNEL;
    let shape =
        format!("{images} images of {pixels} x {pixels}, {CHANNELS} to {CHANNELS} channels, {KERNEL} x {KERNEL}");
    line("convolution", precision.name(), operations as f64 / once / 1e12, "TFLOP/s", &shape);
    Ok(())
}

/// A copy within the device, which reads and writes, and one from pinned host memory.
fn memory(device: Device, place: tch::Device, side: i64, seconds: f64) -> Fallible<()> {
    // 1 GiB for a side of 8192: caches are no help.
    let numbers = 4 * side * side;
    let source = Tensor::f_zeros([numbers], (Kind::Float, place))?;
    let mut target = source.f_empty_like()?;
    let once = median_seconds(device, seconds, || {
        target.f_copy_(&source)?;
        Ok(())
    })?;
    let bytes = 4 * numbers;
    let shape = format!("{} MiB", bytes >> 20);
    line("memory", "", 2.0 * bytes as f64 / once / 1e9, "GB/s", &shape);
    if device == Device::Cpu {
        return Ok(());
    }
    let bytes = bytes / 8;
    let host = Tensor::f_zeros([bytes], (Kind::Uint8, tch::Device::Cpu))?.f_pin_memory(place)?;
    let mut target = Tensor::f_empty([bytes], (Kind::Uint8, place))?;
    let once = median_seconds(device, seconds, || {
        target.f_copy_(&host)?;
        Ok(())
    })?;
    line("upload", "", bytes as f64 / once / 1e9, "GB/s", &format!("{} MiB, pinned", bytes >> 20));
    Ok(())
}

/// Smallest operations, launched one after the other from one thread: no batch can be faster than its launches.
fn launches(device: Device, place: tch::Device, seconds: f64) -> Fallible<()> {
    let mut number = Tensor::f_zeros([1], (Kind::Float, place))?;
    let once = median_seconds(device, seconds, || {
        number = number.f_add_scalar_(1.0)?;
        Ok(())
    })?;
    line("launches", "", 1.0 / once, "1/s", "a sum of one number");
    Ok(())
}
