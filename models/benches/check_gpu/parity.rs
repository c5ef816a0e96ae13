//! The fixtures against the published implementation's reference values in every precision, and a larger tokenizer against the processor.
//!
//! In float32 a device must give what tests/it/parity.rs asks of the processor. Lower precisions have floors: far below what a sound
//! build gives, and far above what a wrong one does, whose codes agree by chance.

use crate::{
    Fallible,
    networks::{pictures, tokenizer_config},
    options,
    timing::print,
};
use models::{Device, Generator, Precision, VisualTokenizer};
use schemas::{Guidance, GuidanceSchedule, PixelBatch, SampleBatch, Sampling, TokenBatch};
use serde_json::json;
use std::{collections::BTreeMap, path::Path};
use tch::{Kind, Tensor};

/// Allowed difference from the published float32 reference values, as in tests/it/parity.rs.
const TOLERANCE: f64 = 1e-4;
/// Positions whose logits the generator's fixture keeps.
const POSITIONS: [i64; 15] = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 100, 127];
const PREFIXES: [usize; 6] = [4, 8, 16, 32, 64, 128];

/// What a precision is held to.
struct Limits {
    /// Fraction of codes equal to the published ones.
    codes: f64,
    /// Largest difference of a decoded pixel, which lie between 0 and 1.
    pixels: f64,
    /// Largest difference of a logit, of the largest logit.
    logits: f64,
    /// Fraction of greedily sampled tokens equal to the published ones. One that differs changes all after it.
    greedy: f64,
}

impl Limits {
    fn of(precision: Precision) -> Self {
        match precision {
            Precision::Fp32 => Self { codes: 1.0, pixels: TOLERANCE, logits: 1e-5, greedy: 1.0 },
            // Ten bits behind the point in both.
            Precision::Tf32 | Precision::Fp16 => Self { codes: 15.0 / 16.0, pixels: 0.04, logits: 0.01, greedy: 0.75 },
            // Seven bits. Three quarters are what tests/it/batches.rs asks of the processor.
            Precision::Bf16 => Self { codes: 0.75, pixels: 0.3, logits: 0.05, greedy: 0.5 },
        }
    }
}

fn tensors(file: &Path) -> Fallible<BTreeMap<String, Tensor>> {
    let read = Tensor::read_safetensors(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(read.into_iter().collect())
}

fn named<'a>(tensors: &'a BTreeMap<String, Tensor>, name: &str) -> Fallible<&'a Tensor> {
    tensors.get(name).ok_or_else(|| format!("the fixture has no tensor {name}").into())
}

fn integers(tensor: &Tensor) -> Fallible<Vec<i64>> {
    Ok(Vec::try_from(tensor.f_to_kind(Kind::Int64)?.f_reshape([-1])?)?)
}

/// Largest difference; no number if one of them is none.
fn furthest(left: &Tensor, right: &Tensor) -> Fallible<f64> {
    let host = |tensor: &Tensor| tensor.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float);
    Ok(host(left)?.f_sub(&host(right)?)?.f_abs()?.f_max()?.f_double_value(&[])?)
}

fn largest(tensor: &Tensor) -> Fallible<f64> {
    Ok(tensor.f_to_device(tch::Device::Cpu)?.f_abs()?.f_max()?.f_double_value(&[])?)
}

fn at_most(what: &str, precision: Precision, value: f64, limit: f64) {
    // A difference that is no number is not at most anything.
    let passed = value <= limit;
    print(&json!({
        "kind": "parity", "what": what, "precision": precision.name(), "value": value, "unit": "difference",
        "relation": "at most", "limit": limit, "passed": passed,
    }));
}

fn equal(what: &str, precision: Precision, found: &TokenBatch, expected: &[i64], least: f64) {
    let equal = found.codes().iter().zip(expected).filter(|(left, right)| i64::from(**left) == **right).count();
    let (of, limit) = (expected.len(), (least * expected.len() as f64).ceil());
    print(&json!({
        "kind": "parity", "what": what, "precision": precision.name(), "value": equal, "unit": format!("of {of} equal"),
        "relation": "at least", "limit": limit, "passed": found.codes().len() == of && equal as f64 >= limit,
    }));
}

/// One line that did not pass instead of an end of the section: the other precisions say where the fault is.
fn or_failed(what: &str, precision: Precision, done: Fallible<()>) {
    if let Err(error) = done {
        print(&json!({
            "kind": "parity", "what": what, "precision": precision.name(), "value": null, "unit": "",
            "relation": "at most", "limit": null, "passed": false, "error": error.to_string(),
        }));
    }
}

/// `fixtures`: the folder with `tokenizer` and `generator`.
pub(crate) fn parity(device: Device, fixtures: &Path) -> Fallible<()> {
    for precision in Precision::ALL {
        or_failed("tokenizer", precision, tokenizer(device, &fixtures.join("tokenizer"), precision));
        or_failed("generator", precision, generator(device, &fixtures.join("generator"), precision));
    }
    Ok(())
}

fn tokenizer(device: Device, folder: &Path, precision: Precision) -> Fallible<()> {
    let expected = tensors(&folder.join("expected.safetensors"))?;
    let input = named(&expected, "input")?;
    let (rows, _, height, width) = input.size4()?;
    let input = Vec::<u8>::try_from(input.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_view([-1])?)?;
    let rows = rows as usize;
    let images = PixelBatch::try_new(input, rows, rows, height as usize, width as usize)?;
    let published = integers(named(&expected, "tokens")?)?;
    let tokenizer = VisualTokenizer::load(folder, options(device, precision))?;
    let limits = Limits::of(precision);
    let tokens_per_image = tokenizer.levels().tokens_per_image();
    if precision == Precision::Fp32 {
        let stages = tokenizer.encode_stages(&images)?;
        let features = stages.pixel_features.as_ref().ok_or("the fixture has a convolutional encoder")?;
        let compare = |what: &str, found: &Tensor, name: &str| -> Fallible<()> {
            at_most(what, precision, furthest(found, named(&expected, name)?)?, TOLERANCE);
            Ok(())
        };
        compare("tokenizer, pixel features", features, "pixel_features")?;
        for (level, tokens) in stages.image_tokens.iter().enumerate() {
            let name = format!("image_tokens.{level}");
            compare(&format!("tokenizer, image tokens of level {level}"), tokens, &name)?;
        }
        // Published as [B, channels, 1, L].
        compare("tokenizer, z", &stages.z.f_transpose(1, 2)?.f_unsqueeze(2)?, "z")?;
        compare("tokenizer, gap to the second code", &stages.quantized.gap, "gap")?;
        compare("tokenizer, quantizer's loss", &stages.quantized.loss.f_view([1])?, "quantizer_loss")?;
    }
    equal("tokenizer, codes", precision, &tokenizer.encode(&images)?, &published, limits.codes);
    let tokens = TokenBatch::try_from_codes(&published, tokens_per_image, tokenizer.codebook_size())?;
    let prefixes = if precision == Precision::Fp32 { &PREFIXES[..] } else { &PREFIXES[PREFIXES.len() - 1..] };
    for &keep in prefixes {
        let pixels = tokenizer.decode_unrounded(&tokens, keep)?;
        // The fixture keeps every fourth pixel.
        let pixels = pixels.f_slice(2, None, None, 4)?.f_slice(3, None, None, 4)?;
        let found = furthest(&pixels, named(&expected, &format!("decoded.{keep}"))?)?;
        at_most(&format!("tokenizer, decoded from {keep}"), precision, found, limits.pixels);
    }
    Ok(())
}

fn generator(device: Device, folder: &Path, precision: Precision) -> Fallible<()> {
    let expected = tensors(&folder.join("expected.safetensors"))?;
    let mut generator = Generator::load(folder, options(device, precision))?;
    let limits = Limits::of(precision);
    let config = generator.config().clone();
    let tokens = TokenBatch::try_from_codes(
        &integers(named(&expected, "train.tokens")?)?,
        config.tokens_per_image(),
        config.codebook_size(),
    )?;
    let classes: Vec<i32> = integers(named(&expected, "train.labels")?)?.iter().map(|&class| class as i32).collect();
    let logits = generator.logits(&tokens, &classes)?.f_to_device(tch::Device::Cpu)?;
    let logits = logits.f_index_select(1, &Tensor::f_from_slice(&POSITIONS)?)?;
    let published = named(&expected, "train.logits")?;
    let found = furthest(&logits, published)? / largest(published)?;
    at_most("generator, logits of the largest", precision, found, limits.logits);
    for (name, scale, schedule) in [
        ("unguided", 1.0, GuidanceSchedule::Constant {}),
        ("step_3.75_start_0.25", 3.75, GuidanceSchedule::Step { start: 0.25, floor: 1.0 }),
    ] {
        let guidance = Guidance { scale, schedule, interval: None };
        let sampling = Sampling { seed: 0, temperature: 1.0, top_k: 1, top_p: 1.0, guidance };
        let batch = SampleBatch::try_new(vec![0, 1, 2, 3], vec![0, 1, 2, 9], 4)?;
        let published = integers(named(&expected, &format!("greedy.{name}.tokens"))?)?;
        let found = generator.sample(&batch, &sampling)?;
        equal(&format!("generator, greedy tokens, {name}"), precision, &found, &published, limits.greedy);
    }
    Ok(())
}

/// Codes, latents and pixels of a tokenizer of random weights against those of the processor in float32, and whether the device gives
/// the same codes twice.
pub(crate) fn agreement(device: Device, preset: &str, images: usize) -> Fallible<()> {
    let config = tokenizer_config(preset)?;
    let images = pictures(images, config.resolution())?;
    let tokens = config.levels().tokens_per_image();
    let exact = VisualTokenizer::init(config.clone(), 0, options(Device::Cpu, Precision::Fp32))?;
    let (exact_z, exact_codes) = (exact.encode_stages(&images)?.z, exact.encode(&images)?);
    let exact_pixels = exact.decode_unrounded(&exact_codes, tokens)?;
    drop(exact);
    let expected: Vec<i64> = exact_codes.codes().iter().map(|&code| i64::from(code)).collect();
    for precision in Precision::ALL {
        let compared = || -> Fallible<()> {
            let tokenizer = VisualTokenizer::init(config.clone(), 0, options(device, precision))?;
            let (z, codes) = (tokenizer.encode_stages(&images)?.z, tokenizer.encode(&images)?);
            // A random codebook is dense, and the nearest of its codes changes with the last bits of a latent: a floor that only a wrong
            // network falls below.
            let floor = if precision == Precision::Fp32 { 0.99 } else { 0.5 };
            equal("agreement with the processor, codes", precision, &codes, &expected, floor);
            let again: Vec<i64> = codes.codes().iter().map(|&code| i64::from(code)).collect();
            equal("agreement with itself, codes", precision, &tokenizer.encode(&images)?, &again, 1.0);
            let limits = Limits::of(precision);
            let found = furthest(&z, &exact_z)? / largest(&exact_z)?;
            at_most("agreement with the processor, z of the largest", precision, found, limits.logits.max(TOLERANCE));
            let pixels = tokenizer.decode_unrounded(&exact_codes, tokens)?;
            let found = furthest(&pixels, &exact_pixels)? / largest(&exact_pixels)?;
            at_most("agreement with the processor, pixels of the largest", precision, found, limits.pixels);
            Ok(())
        };
        or_failed("agreement with the processor", precision, compared());
    }
    Ok(())
}
