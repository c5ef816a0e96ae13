//! Encoding, decoding and sampling with random weights: images a second, and where the time goes.

use crate::{
    Fallible, options,
    timing::{Work, print, rate, unix_seconds},
};
use models::{
    Device, Generator, GeneratorConfig, GeneratorData, GeneratorSize, Precision, TokenizerConfig, TokenizerPreset,
    VisualTokenizer,
    measuring::{Profile, ProfileRow, memory_peaks, profile, sampling_times, wait},
    memory_limit,
};
use schemas::{Guidance, GuidanceSchedule, PixelBatch, RandomStream, Rounding, SampleBatch, Sampling, TokenBatch};
use serde_json::{Value, json};
use std::path::Path;

/// Rows of a profile that are printed.
const PROFILE_ROWS: usize = 40;

pub(crate) fn tokenizer_config(preset: &str) -> Fallible<TokenizerConfig> {
    Ok(TokenizerPreset::named(preset)?.config)
}

/// What the generators of a size are trained on: ImageNet by the published tokenizer, small images by the tiny one.
pub(crate) fn generator_data(size: GeneratorSize) -> GeneratorData {
    match size {
        GeneratorSize::Tiny => GeneratorData { codebook_size: 1024, classes: 10, tokens_per_image: 32 },
        _ => GeneratorData { codebook_size: 8192, classes: 1000, tokens_per_image: 128 },
    }
}

/// Smooth pictures with some noise, all different, the same on every machine.
pub(crate) fn pictures(count: usize, side: usize) -> Fallible<PixelBatch> {
    let mut pixels = Vec::with_capacity(count * side * side * PixelBatch::CHANNELS);
    for image in 0..count {
        let mut noise = RandomStream::new(0, "picture", image as u64);
        let period = 9.0 + (image % 7) as f32;
        for place in 0..side * side {
            let (row, column) = ((place / side) as f32, (place % side) as f32);
            for channel in 0..PixelBatch::CHANNELS {
                let wave = (row / period + channel as f32).sin() * (column / 23.0).cos();
                pixels.push((128.0 + 100.0 * wave + noise.below(32) as f32).clamp(0.0, 255.0) as u8);
            }
        }
    }
    Ok(PixelBatch::try_new(pixels, count, count, side, side)?)
}

pub(crate) fn codes(rows: usize, tokens: usize, codebook_size: usize) -> Fallible<TokenBatch> {
    let mut drawn = RandomStream::new(0, "codes", 0);
    let codes = (0..rows * tokens).map(|_| drawn.below(codebook_size as u64) as i16).collect();
    Ok(TokenBatch::try_new(codes, tokens)?)
}

/// Operations of a batch by precision. Float32 ones go through TensorFloat-32 in every precision but fp32.
pub(crate) fn operations_by_precision(precision: Precision, batch: usize, in_precision: i64, in_float32: i64) -> Value {
    let float32 = if precision == Precision::Fp32 { Precision::Fp32 } else { Precision::Tf32 };
    let batch = batch as i64;
    match precision == float32 {
        true => json!({ precision.name(): batch * (in_precision + in_float32) }),
        false => json!({ precision.name(): batch * in_precision, float32.name(): batch * in_float32 }),
    }
}

/// Writes a tokenizer of random weights as a folder that `restok tokenize` loads.
pub(crate) fn save(preset: &str, folder: &Path) -> Fallible<()> {
    let config = tokenizer_config(preset)?.without_alignment();
    Ok(VisualTokenizer::init(config, 0, options(Device::Cpu, Precision::Fp32))?.save(folder)?)
}

pub(crate) fn encode(
    device: Device,
    preset: &str,
    precisions: &[Precision],
    batches: &[usize],
    seconds: f64,
) -> Fallible<()> {
    let config = tokenizer_config(preset)?;
    let counted = config.encode_operations()?;
    for &precision in precisions {
        let tokenizer = VisualTokenizer::init(config.clone(), 0, options(device, precision))?;
        for &batch in batches {
            let images = pictures(batch, config.resolution())?;
            let work = Work {
                what: "encode",
                network: preset,
                precision: precision.name(),
                batch,
                operations: operations_by_precision(precision, batch, counted.in_precision, counted.in_float32),
                bytes: 0,
            };
            rate(&work, device, seconds, || {
                tokenizer.encode(&images)?;
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// What `encoding_memory` foretells of a batch beside what the batch takes, and what the device has.
pub(crate) fn memory(device: Device, preset: &str, precision: Precision, batch: usize) -> Fallible<()> {
    let tokenizer = VisualTokenizer::init(tokenizer_config(preset)?, 0, options(device, precision))?;
    let images = pictures(batch, tokenizer.resolution())?;
    let foretold = tokenizer.encoding_memory()?;
    let limit = memory_limit(device)?;
    memory_peaks(device)?;
    // The second batch meets what the first one left in the allocator.
    for _ in 0..2 {
        tokenizer.encode(&images)?;
    }
    let peaks = memory_peaks(device)?;
    print(&json!({
        "kind": "memory", "what": "memory of encode", "network": preset, "precision": precision.name(), "batch": batch,
        "foretold_bytes": foretold.of_rows(batch),
        "peak_allocated_bytes": peaks.map(|peaks| peaks.allocated),
        "peak_reserved_bytes": peaks.map(|peaks| peaks.reserved),
        "limit_bytes": limit,
        "rows_foretold_to_fit": foretold.rows_within(limit),
    }));
    Ok(())
}

pub(crate) fn decode(
    device: Device,
    preset: &str,
    precisions: &[Precision],
    batches: &[usize],
    seconds: f64,
) -> Fallible<()> {
    let config = tokenizer_config(preset)?;
    let (counted, tokens) = (config.decode_operations(), config.levels().tokens_per_image());
    for &precision in precisions {
        let tokenizer = VisualTokenizer::init(config.clone(), 0, options(device, precision))?;
        for &batch in batches {
            let codes = codes(batch, tokens, config.codebook_size())?;
            let work = Work {
                what: "decode",
                network: preset,
                precision: precision.name(),
                batch,
                operations: operations_by_precision(precision, batch, counted.in_precision, counted.in_float32),
                bytes: 0,
            };
            rate(&work, device, seconds, || {
                tokenizer.decode(&codes, tokens, Rounding::Truncate)?;
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn generator(device: Device, size: &str, precision: Precision) -> Fallible<Generator> {
    let size = GeneratorSize::named(size)?;
    let config = GeneratorConfig::of_size(size, generator_data(size))?;
    Ok(Generator::init(config, 0, options(device, precision))?)
}

/// How a batch is guided.
fn sampling(kind: &str) -> Fallible<Sampling> {
    let constant = |scale| Guidance { scale, schedule: GuidanceSchedule::Constant {}, interval: None };
    let paper = Sampling::paper(0);
    match kind {
        "unguided" => Ok(Sampling { guidance: constant(1.0), ..paper }),
        "guided" => Ok(Sampling { guidance: constant(paper.guidance.scale), ..paper }),
        "paper" => Ok(paper),
        _ => Err(format!("there is no guidance {kind}: unguided, guided or paper").into()),
    }
}

fn samples(config: &GeneratorConfig, batch: usize) -> Fallible<SampleBatch> {
    let classes = (0..config.classes() as i32).cycle().take(batch).collect();
    Ok(SampleBatch::try_new((0..batch as u64).collect(), classes, batch)?)
}

pub(crate) fn sample(
    device: Device,
    size: &str,
    precision: Precision,
    batches: &[usize],
    kinds: &[String],
    seconds: f64,
) -> Fallible<()> {
    let mut generator = generator(device, size, precision)?;
    let config = generator.config().clone();
    let bytes_a_number = if matches!(precision, Precision::Bf16 | Precision::Fp16) { 2 } else { 4 };
    for &batch in batches {
        let samples = samples(&config, batch)?;
        for kind in kinds {
            let sampling = sampling(kind)?;
            let work = Work {
                what: &format!("sample ({kind})"),
                network: size,
                precision: precision.name(),
                batch,
                operations: operations_by_precision(
                    precision,
                    batch,
                    config.sampling_operations(&sampling.guidance),
                    0,
                ),
                // Every step reads all weights; keys and values are left out.
                bytes: config.step_count() as i64 * config.weights_read() * bytes_a_number,
            };
            rate(&work, device, seconds, || {
                generator.sample(&samples, &sampling)?;
                Ok(())
            })?;
            let (sampled, times) = sampling_times(device, || generator.sample(&samples, &sampling));
            sampled?;
            print(&json!({
                "kind": "parts", "what": work.what, "network": size, "precision": precision.name(), "batch": batch,
                "attention_ms": 1e3 * times.attention.as_secs_f64(),
                "head_ms": 1e3 * times.head.as_secs_f64(),
                "rest_ms": 1e3 * times.rest.as_secs_f64(),
            }));
        }
    }
    Ok(())
}

pub(crate) fn encode_profile(
    device: Device,
    preset: &str,
    precision: Precision,
    batch: usize,
    trace: &Path,
) -> Fallible<()> {
    let tokenizer = VisualTokenizer::init(tokenizer_config(preset)?, 0, options(device, precision))?;
    let images = pictures(batch, tokenizer.resolution())?;
    profiled("profile of encode", preset, device, precision, batch, trace, || {
        tokenizer.encode(&images)?;
        Ok(())
    })
}

pub(crate) fn sample_profile(
    device: Device,
    size: &str,
    precision: Precision,
    batch: usize,
    trace: &Path,
) -> Fallible<()> {
    let mut generator = generator(device, size, precision)?;
    let (samples, sampling) = (samples(&generator.config().clone(), batch)?, sampling("paper")?);
    profiled("profile of sample (paper)", size, device, precision, batch, trace, || {
        generator.sample(&samples, &sampling)?;
        Ok(())
    })
}

/// One call under the profiler, after two that are not looked at.
fn profiled(
    what: &str,
    network: &str,
    device: Device,
    precision: Precision,
    batch: usize,
    trace: &Path,
    mut body: impl FnMut() -> Fallible<()>,
) -> Fallible<()> {
    for _ in 0..2 {
        body()?;
    }
    wait(device);
    let start = unix_seconds();
    let (done, profile) = profile(device, Some(trace), body)?;
    done?;
    let Profile { kernels, operators, busy, whole } = &profile;
    let rows = |rows: &[ProfileRow]| -> Vec<Value> {
        rows.iter()
            .take(PROFILE_ROWS)
            .map(|row| json!({ "name": row.name, "ms": 1e3 * row.time.as_secs_f64(), "calls": row.calls }))
            .collect()
    };
    print(&json!({
        "kind": "profile", "what": what, "network": network, "precision": precision.name(), "batch": batch, "start": start,
        "kernels": rows(kernels),
        "kernel_calls": kernels.iter().map(|row| row.calls).sum::<u64>(),
        "operators": rows(operators),
        "busy_ms": 1e3 * busy.as_secs_f64(),
        "whole_ms": 1e3 * whole.as_secs_f64(),
        "trace": trace,
    }));
    Ok(())
}
