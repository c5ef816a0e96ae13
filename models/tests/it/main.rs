//! The models as their users see them. One binary, because libtorch links slowly.

/// Equal to the published implementation's numbers.
mod parity;
mod process_group;
mod training;

/// The generator: its samples, and its training.
mod generating;
mod generator_training;

/// A batch is its rows, whatever their neighbours.
mod batches;

/// Folders: strict loading, saving, what is wrong with a folder and what to do.
mod loading;

/// Checkpoints of wrappers, exports and other projects.
mod checkpoints;

/// Options of the configuration: each works or is refused by name.
mod options;

use models::{Device, DeviceChoice, LoadOptions, Precision, VisualTokenizer};
use schemas::PixelBatch;
use std::{collections::BTreeMap, path::PathBuf};
use tch::Tensor;

/// The folder `name` of the fixtures, which `RESTOK_TEST_FIXTURES` may name for a binary that runs away from its sources.
#[expect(clippy::disallowed_methods, reason = "a test has no settings but its environment")]
fn fixture_folder(name: &str) -> PathBuf {
    let here = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures"));
    std::env::var_os("RESTOK_TEST_FIXTURES").map_or_else(here, PathBuf::from).join(name)
}

/// The small tokenizer with every published tensor name, and what the published code computed with it.
fn fixture() -> PathBuf {
    fixture_folder("tokenizer")
}

fn expected() -> BTreeMap<String, Tensor> {
    let file = fixture().join("expected.safetensors");
    Tensor::read_safetensors(file).expect("the fixture is part of the project").into_iter().collect()
}

/// The processor, or what `RESTOK_TEST_DEVICE` names. One thread: test processes run side by side, and threads that wait for each other on a
/// busy machine only spin.
#[expect(clippy::disallowed_methods, reason = "a test has no settings but its environment")]
fn device() -> Device {
    let asked = std::env::var("RESTOK_TEST_DEVICE").map_or(DeviceChoice::Cpu, |name| name.parse().expect("a device"));
    models::initialise(&[asked], Some(1)).expect("there is such a device")[0]
}

fn on_device(precision: Precision) -> LoadOptions {
    LoadOptions { device: device(), precision, name: None }
}

fn tokenizer() -> VisualTokenizer {
    VisualTokenizer::load(&fixture(), on_device(Precision::Fp32)).expect("the fixture loads")
}

/// The fixture's two images.
fn images() -> PixelBatch {
    let input = expected().remove("input").expect("part of the fixture").permute([0, 2, 3, 1]).contiguous();
    let pixels: Vec<u8> = input.view([-1]).try_into().expect("bytes");
    PixelBatch::try_new(pixels, 2, 2, 256, 256).expect("two images")
}

/// Largest difference between two tensors of one shape.
fn difference(left: &Tensor, right: &Tensor) -> f64 {
    assert_eq!(left.size(), right.size());
    let host = |tensor: &Tensor| tensor.to_device(tch::Device::Cpu);
    (host(left) - host(right)).abs().max().double_value(&[])
}

/// A repeatable image of noise with soft edges.
fn noise(rows: usize, side: usize, seed: u32) -> PixelBatch {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let pixels = (0..rows * side * side * 3).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    PixelBatch::try_new(pixels.collect(), rows, rows, side, side).expect("rows of one size")
}
