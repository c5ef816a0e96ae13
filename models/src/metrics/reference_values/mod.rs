//! Equal to others' numbers: torch-fidelity 0.4.0 over torch 2.13.0 on a CPU, the ADM evaluator's formulas in NumPy, pytorch_msssim 1.0.0
//! and lpips 0.1.4. `figures.json` has what they gave for weights, images and features that follow from formulas, which are written down
//! here.

mod distributions;
mod inception;
mod reconstruction;
mod set_scores;

use super::{ExtractorPrecision, Inception};
use crate::{
    DeviceChoice,
    losses::reference_values::{raw, tensor, weight},
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};
use tch::{Kind, Tensor};

fn reference_values() -> Value {
    // One thread: test processes run side by side.
    crate::initialise(&[DeviceChoice::Cpu], Some(1)).expect("there is a processor");
    serde_json::from_str(include_str!("figures.json")).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().map(number).collect()
}

fn sizes<const N: usize>(value: &Value) -> [usize; N] {
    let sizes = numbers(value).into_iter().map(|size| size as usize).collect::<Vec<_>>();
    sizes.try_into().expect("so many sizes")
}

/// Holds a number to another one within `tolerance` of `scale`.
fn close(what: &str, found: f64, expected: f64, tolerance: f64, scale: f64) {
    assert!((found - expected).abs() <= tolerance * scale, "{what}: found {found}, expected {expected}");
}

/// The weight of a batch norm or a convolution by its name: features stay near 1 through the whole network.
fn inception_weight(name: &str, shape: &[i64]) -> Tensor {
    match name.rsplit('.').next() {
        Some("running_var") => tensor(name, shape, |number| 1.0 + 0.4 * number),
        _ => weight(name, shape),
    }
}

fn inception_weights() -> BTreeMap<String, Tensor> {
    let weighted = |(name, shape): (String, Vec<i64>)| {
        let tensor = inception_weight(&name, &shape);
        (name, tensor)
    };
    Inception::names().into_iter().map(weighted).collect()
}

pub(super) fn inception(precision: ExtractorPrecision) -> Inception {
    Inception::from_tensors(&inception_weights(), precision)
}

fn head_weight() -> (String, Tensor) {
    let name = "fc.weight";
    (name.to_owned(), tensor(name, &[1008, 2048], |number| 0.1 * number))
}

/// A file with the classifier alone, below `folder`, and the head that it holds.
fn head(folder: &Path) -> super::InceptionHead {
    let file = folder.join("head.safetensors");
    crate::weight_file::write(&file, &[head_weight()].into()).expect("written");
    super::InceptionHead::load(&file, crate::Device::Cpu).expect("loads")
}

/// Pictures number `first` and on of a set, each with colours, stripes and blocks of its own: bytes `[count, 3, height, width]`.
fn pictures(set: i64, first: i64, count: i64, [height, width]: [i64; 2]) -> Tensor {
    let mut bytes = Vec::new();
    for (b, c) in (first..first + count).flat_map(|b| (0..3).map(move |c| (b, c))) {
        let n = b * 5 + set;
        let base = (n * 53 + c * (n * 29 % 71)) % 200;
        for (h, w) in (0..height).flat_map(|h| (0..width).map(move |w| (h, w))) {
            let wave = ((h * (1 + n % 7) + w * (1 + n * 3 % 11)) * (1 + n % 4)) % (40 + n * 37 % 150);
            let block = ((h / (2 + n % 6) + w / (3 + n % 5) + c) % 3) * (n * 19 % 60);
            bytes.push(((base + wave + block) % 256) as u8);
        }
    }
    Tensor::from_slice(&bytes).view([count, 3, height, width]).to_kind(Kind::Uint8)
}

/// Vectors of `dimensions` features around a plane of six directions that all sets share, row-major.
fn features(name: &str, rows: usize, dimensions: usize, spread: f64, shift: f64) -> Vec<f32> {
    const DIRECTIONS: usize = 6;
    let latent = raw(&format!("{name}.rows"), rows * DIRECTIONS);
    let loads = raw("loads", DIRECTIONS * dimensions);
    let noise = raw(&format!("{name}.noise"), rows * dimensions);
    let value = |row: usize, column: usize| {
        let start = 0.1 * noise[row * dimensions + column] + shift;
        let direction = |k: usize| spread * latent[row * DIRECTIONS + k] * loads[k * dimensions + column];
        (0..DIRECTIONS).fold(start, |sum, k| sum + direction(k)) as f32
    };
    (0..rows)
        .flat_map(|row| (0..dimensions).map(move |column| (row, column)))
        .map(|(row, column)| value(row, column))
        .collect()
}
