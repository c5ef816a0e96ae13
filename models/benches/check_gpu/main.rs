//! What a device computes and how fast, one section a call, one JSON object a line for each figure. `make check-gpu` runs the sections
//! and makes a report of the lines; tools/check-gpu/check_gpu.py says what each figure is held to.
//!
//! ```text
//! check_gpu DEVICE machine
//! check_gpu DEVICE peaks           SIDE SECONDS
//! check_gpu DEVICE parity          FIXTURES
//! check_gpu DEVICE agreement       TOKENIZER IMAGES
//! check_gpu DEVICE save            TOKENIZER FOLDER
//! check_gpu DEVICE encode          TOKENIZER PRECISIONS BATCHES SECONDS
//! check_gpu DEVICE memory          TOKENIZER PRECISION BATCH
//! check_gpu DEVICE fused           TOKENIZER PRECISION BATCH SECONDS
//! check_gpu DEVICE encode-profile  TOKENIZER PRECISION BATCH TRACE
//! check_gpu DEVICE decode          TOKENIZER PRECISIONS BATCHES SECONDS
//! check_gpu DEVICE sample          GENERATOR PRECISION BATCHES KINDS SECONDS
//! check_gpu DEVICE sample-profile  GENERATOR PRECISION BATCH TRACE
//! check_gpu DEVICE train-tokenizer TOKENIZER PRECISION BATCH STEPS
//! check_gpu DEVICE train-generator GENERATOR PRECISION BATCH STEPS
//! check_gpu DEVICE scores          ROWS DIMENSIONS
//! ```
//!
//! TOKENIZER and GENERATOR are presets (`restok-l-128`, `gpt-l`, `tiny`), with random weights: how fast they are does not depend on
//! them. Lists are separated by commas. KINDS: `unguided`, `guided` at every step, `paper`.

#![expect(clippy::print_stdout, reason = "figures go to standard output")]

/// Encoding without and with the fused norms.
mod fused;
/// Speed of encoding, decoding and sampling, profiles of them, and memory.
mod networks;
/// Equal to the published reference values, and to the processor.
mod parity;
/// What the device could do.
mod peaks;
/// Statistics and distances.
mod scores;
/// The clock, and the lines.
mod timing;
/// Steps of training.
mod training;

use models::{Device, DeviceChoice, LoadOptions, Precision, initialise};
use serde_json::json;
use std::path::Path;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    // `cargo bench` adds a flag of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some((device, section)) = arguments.split_first() else {
        // So that `cargo bench` over all benchmarks passes by.
        println!("check_gpu: run by `make check-gpu`; its arguments are at the top of benches/check_gpu/main.rs");
        return Ok(());
    };
    // The processor is asked for too: agreement computes on both, and torch takes up CUDA only at its first use.
    let devices = initialise(&[device.parse::<DeviceChoice>()?, DeviceChoice::Cpu], None)?;
    run(devices[0], section)
}

fn run(device: Device, section: &[&str]) -> Fallible<()> {
    match section {
        ["machine"] => {
            machine(device);
            Ok(())
        }
        ["peaks", side, seconds] => peaks::peaks(device, side.parse()?, seconds.parse()?),
        ["parity", fixtures] => parity::parity(device, Path::new(fixtures)),
        ["agreement", tokenizer, images] => parity::agreement(device, tokenizer, images.parse()?),
        ["save", tokenizer, folder] => networks::save(tokenizer, Path::new(folder)),
        ["encode", tokenizer, precisions, batches, seconds] => {
            networks::encode(device, tokenizer, &list(precisions)?, &list(batches)?, seconds.parse()?)
        }
        ["memory", tokenizer, precision, batch] => {
            networks::memory(device, tokenizer, precision.parse()?, batch.parse()?)
        }
        ["fused", tokenizer, precision, batch, seconds] => {
            fused::fused(device, tokenizer, precision.parse()?, batch.parse()?, seconds.parse()?)
        }
        ["encode-profile", tokenizer, precision, batch, trace] => {
            networks::encode_profile(device, tokenizer, precision.parse()?, batch.parse()?, Path::new(trace))
        }
        ["decode", tokenizer, precisions, batches, seconds] => {
            networks::decode(device, tokenizer, &list(precisions)?, &list(batches)?, seconds.parse()?)
        }
        ["sample", generator, precision, batches, kinds, seconds] => {
            networks::sample(device, generator, precision.parse()?, &list(batches)?, &list(kinds)?, seconds.parse()?)
        }
        ["sample-profile", generator, precision, batch, trace] => {
            networks::sample_profile(device, generator, precision.parse()?, batch.parse()?, Path::new(trace))
        }
        ["train-tokenizer", tokenizer, precision, batch, steps] => {
            training::tokenizer(device, tokenizer, precision.parse()?, batch.parse()?, steps.parse()?)
        }
        ["train-generator", generator, precision, batch, steps] => {
            training::generator(device, generator, precision.parse()?, batch.parse()?, steps.parse()?)
        }
        ["scores", rows, dimensions] => scores::scores(device, rows.parse()?, dimensions.parse()?),
        _ => Err(format!("no such section, or other arguments than it takes: {}", section.join(" ")).into()),
    }
}

fn machine(device: Device) {
    timing::print(&json!({
        "kind": "machine",
        "device": device.to_string(),
        "name": device.kind(),
        "libtorch": models::libtorch_version(),
        "threads": tch::get_num_threads(),
        "native": Precision::ALL.into_iter().filter(|precision| precision.is_native(device)).map(Precision::name).collect::<Vec<_>>(),
    }));
}

fn options(device: Device, precision: Precision) -> LoadOptions {
    LoadOptions { device, precision, name: None }
}

/// The parts of a list with commas.
fn list<T: std::str::FromStr>(text: &str) -> Result<Vec<T>, T::Err> {
    text.split(',').map(str::parse).collect()
}
