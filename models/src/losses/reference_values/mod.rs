//! Equal to the published implementation's numbers, on weights that are too many to store and therefore follow from a formula.

mod alignment;
mod discriminators;
mod foundation;
mod perceptual;
mod quantizer;

use crate::{DeviceChoice, parameters::ParameterStore, weight_file};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

/// What is compared, which decides what difference is allowed.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    Values,
    Gradients,
}

impl Of {
    /// Allowed relative difference of a number or a norm.
    fn norm(self) -> f64 {
        match self {
            Self::Values => 1e-5,
            Self::Gradients => 1e-4,
        }
    }

    /// Allowed difference of a product with another tensor, over the norm. A gradient jumps where a leaky ReLU's input is rounded
    /// to the other side of 0: between its own float32 and float64, the published discriminator's differs by 0.001.
    fn probe(self) -> f64 {
        match self {
            Self::Values => 1e-5,
            Self::Gradients => 3e-3,
        }
    }
}

pub(crate) fn reference_values() -> Value {
    // One thread: test processes run side by side.
    crate::initialise(&[DeviceChoice::Cpu], Some(1)).expect("there is a processor");
    let file = crate::fixtures::fixture("losses/figures.json");
    let text = std::fs::read_to_string(file).expect("the fixture is part of the project");
    serde_json::from_str(&text).expect("JSON")
}

/// The formula: numbers between -1 and 1 by SplitMix64, from the FNV-1a hash of the name and the index.
pub(crate) fn raw(name: &str, count: usize) -> Vec<f64> {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let hash = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    let number = |index: u64| {
        let mut word = hash.wrapping_add((index + 1).wrapping_mul(STEP));
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((word ^ (word >> 31)) >> 40) as f64 / (1_u64 << 24) as f64 * 2.0 - 1.0
    };
    (0..count as u64).map(number).collect()
}

pub(crate) fn tensor(name: &str, shape: &[i64], value: impl Fn(f64) -> f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let values: Vec<f32> = raw(name, count as usize).into_iter().map(|number| value(number) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Numbers between -1 and 1.
pub(crate) fn signed(name: &str, shape: &[i64]) -> Tensor {
    tensor(name, shape, |number| number)
}

/// Pixels between 0 and 1.
fn images(name: &str, shape: &[i64]) -> Tensor {
    tensor(name, shape, |number| (number + 1.0) / 2.0)
}

/// A weight as its name has it: of a size that keeps features near 1, norms near 1, LPIPS' linear layers positive.
pub(crate) fn weight(name: &str, shape: &[i64]) -> Tensor {
    let last = name.rsplit('.').next().unwrap_or_default();
    let inputs: i64 = shape.iter().skip(1).product();
    let bound = ((if shape.len() == 4 { 6.0 } else { 3.0 }) / inputs as f64).sqrt();
    match last {
        _ if name.starts_with("lin") => tensor(name, shape, f64::abs),
        "weight" | "weight_orig" if shape.len() > 1 => tensor(name, shape, |number| number * bound),
        "weight" | "gamma" | "gamma_1" | "gamma_2" => tensor(name, shape, |number| 1.0 + 0.1 * number),
        "weight_u" | "weight_v" => signed(name, shape),
        _ => tensor(name, shape, |number| 0.2 * number),
    }
}

pub(crate) fn integers(value: &Value) -> Vec<i64> {
    value.as_array().expect("an array").iter().map(|number| number.as_i64().expect("an integer")).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// A safetensors file of weights by their names and shapes.
pub(crate) fn file(folder: &Path, name: &str, shapes: &Value) -> PathBuf {
    let shapes = shapes.as_object().expect("names and shapes");
    let tensors: BTreeMap<_, _> =
        shapes.iter().map(|(name, shape)| (name.clone(), weight(name, &integers(shape)))).collect();
    let path = folder.join(name);
    weight_file::write(&path, &tensors).expect("written");
    path
}

/// Gives the tensors of a store their values by the formula.
fn fill(store: &ParameterStore) {
    let _no_grad = tch::no_grad_guard();
    for (name, mut tensor) in store.trained().into_iter().chain(store.buffers()) {
        let shape = tensor.size();
        tensor.copy_(&weight(&name, &shape));
    }
}

fn close(what: &str, found: f64, expected: f64) {
    let tolerance = Of::Values.norm();
    assert!((found - expected).abs() <= tolerance * expected.abs(), "{what}: found {found}, published {expected}");
}

/// Holds a tensor against its published norm and probe. `least` is a norm below which nothing is told apart from rounding.
pub(crate) fn same(what: &str, found: &Tensor, name: &str, expected: &Value, of: Of, least: f64) {
    let found = found.detach().to_kind(Kind::Double).flatten(0, -1);
    let (norm, expected_norm) = (found.norm().double_value(&[]), number(&expected["norm"]));
    let scale = expected_norm.max(least);
    assert!((norm - expected_norm).abs() <= of.norm() * scale, "{what}, norm: found {norm}, published {expected_norm}");
    let probe = Tensor::from_slice(&raw(&format!("{name}.probe"), found.numel()));
    let (probe, expected_probe) = (found.dot(&probe).double_value(&[]), number(&expected["probe"]));
    assert!(
        (probe - expected_probe).abs() <= of.probe() * scale,
        "{what}, probe: found {probe}, published {expected_probe}"
    );
}

/// Gradient of `loss` with respect to a leaf.
fn gradient(loss: &Tensor, leaf: &Tensor) -> Tensor {
    loss.backward();
    leaf.grad()
}

const CPU: Device = Device::Cpu;
