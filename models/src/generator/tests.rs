//! The network against reference values of the published code, and cached decoding against the full pass.

use super::{GeneratorConfig, Transformer, kv_cache::KvCache, token_sampler::TokenSampler};
use crate::parameters::{ParameterStore, Parameters, with_random_numbers};
use schemas::{RandomStream, Sampling};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Tensor};

fn fixture() -> PathBuf {
    crate::fixtures::fixture("generator")
}

fn tensors(file: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(fixture().join(file)).expect("the fixture reads").into_iter().collect()
}

/// Test processes run side by side, and threads that wait for each other on a busy machine only spin.
fn on_one_thread() {
    crate::initialise(&[crate::DeviceChoice::Cpu], Some(1)).expect("there is a processor");
}

fn published() -> GeneratorConfig {
    on_one_thread();
    let file = fixture().join("config.json");
    GeneratorConfig::from_json(&std::fs::read_to_string(&file).expect("reads"), &file).expect("sound")
}

/// A trained network of `weights`, every tensor a leaf.
fn store(config: &GeneratorConfig, weights: &BTreeMap<String, Tensor>) -> ParameterStore {
    let store = ParameterStore::new(0, Device::Cpu);
    drop(trained(config, &store));
    let _no_grad = tch::no_grad_guard();
    let leaves = store.trained();
    assert_eq!(leaves.len(), weights.len());
    for (name, leaf) in leaves {
        leaf.detach().copy_(&weights[&name]);
    }
    store
}

fn trained(config: &GeneratorConfig, store: &ParameterStore) -> Transformer {
    let parameters = Parameters::from_store(store);
    let network = Transformer::new(&parameters.root(Device::Cpu, Kind::Float), config).expect("built");
    parameters.finish(|_| false).expect("all are there");
    network
}

fn fixed(config: &GeneratorConfig, weights: &BTreeMap<String, Tensor>) -> Transformer {
    let parameters = Parameters::from_memory(weights);
    let network = Transformer::new(&parameters.root(Device::Cpu, Kind::Float), config).expect("built");
    parameters.finish(|_| false).expect("all are there");
    network
}

/// Random weights, with an output layer that is not zero.
fn random(config: &GeneratorConfig, seed: i64) -> BTreeMap<String, Tensor> {
    let parameters = Parameters::random(seed);
    let root = parameters.root(Device::Cpu, Kind::Float);
    drop(Transformer::new(&root, config).expect("built"));
    let mut weights = parameters.finish(|_| false).expect("drawn").expect("drawn");
    let shape = weights["output.weight"].size();
    with_random_numbers(seed as u64, || {
        weights.insert("output.weight".to_owned(), Tensor::randn(shape, (Kind::Float, Device::Cpu)));
    });
    weights
}

fn furthest(left: &Tensor, right: &Tensor) -> f64 {
    assert_eq!(left.size(), right.size());
    (left - right).abs().max().double_value(&[])
}

#[test]
fn logits_loss_and_gradients_are_those_of_the_published_code() {
    let (config, weights, expected) = (published(), tensors("model.safetensors"), tensors("expected.safetensors"));
    let store = store(&config, &weights);
    let classes = expected["train.labels"].to_kind(Kind::Int64);
    let tokens = expected["train.tokens"].to_kind(Kind::Int64);
    let positions = Tensor::from_slice(&[0_i64, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 100, 127]);
    let scale = expected["train.logits"].abs().max().double_value(&[]);
    for network in [trained(&config, &store), fixed(&config, &weights)] {
        let logits = network.forward(&classes, &tokens).expect("computed").detach().index_select(1, &positions);
        let found = furthest(&logits, &expected["train.logits"]);
        assert!(found < 2e-6 * scale, "{found} of {scale}");
    }
    let logits = trained(&config, &store).forward(&classes, &tokens).expect("computed");
    let loss = logits.view([-1, 512]).cross_entropy_for_logits(&tokens.view([-1]));
    let close = |found: f64, expected: f64, what: &str| {
        assert!((found - expected).abs() < 1e-5 * expected, "{what}: {found}, expected {expected}");
    };
    close(loss.double_value(&[]), expected["train.loss"].double_value(&[0]), "loss");
    loss.backward();
    let mut compared = 0;
    for (name, leaf) in store.trained() {
        if let Some(expected) = expected.get(&format!("grad_norm.{name}")) {
            close(leaf.grad().norm().double_value(&[]), expected.double_value(&[0]), &name);
            compared += 1;
        }
    }
    assert_eq!(compared, 7);
}

/// A small configuration with levels of its own; `single` is absent where every step is one token.
fn small(tokens: usize, single: Option<usize>, kv_heads: Option<i64>) -> GeneratorConfig {
    on_one_thread();
    let mut config = json!({
        "dim": 32, "n_layer": 3, "n_head": 4, "n_kv_head": kv_heads, "multiple_of": 16, "num_classes": 5,
        "vocab_size": 64, "block_size": tokens, "initializer_range": 0.2,
    });
    if let Some(single) = single {
        config["ar_token_num"] = json!(single);
        config["spe_token_num"] = json!(tokens);
    }
    GeneratorConfig::from_json(&config.to_string(), Path::new("test")).expect("sound")
}

#[test]
fn cached_steps_equal_the_full_pass_at_every_step() {
    for (tokens, single, kv_heads) in [
        (8, Some(1), None),
        (8, Some(4), Some(2)),
        (32, Some(2), None),
        (32, Some(4), Some(1)),
        (128, Some(1), None),
        (128, Some(4), None),
        (16, None, None),
        (32, None, Some(2)),
    ] {
        let config = small(tokens, single, kv_heads);
        let network = fixed(&config, &random(&config, 3));
        let mut drawn = RandomStream::new(1, "tokens", 0);
        let codes: Vec<i64> = (0..3 * tokens).map(|_| drawn.below(64) as i64).collect();
        let codes = Tensor::from_slice(&codes).view([3, tokens as i64]);
        let classes = Tensor::from_slice(&[4_i64, 0, 5]);
        let whole = network.forward(&classes, &codes).expect("computed");
        // One sample too many in the memory, and a half that is dropped in the middle.
        let shape = [3, 4, config.kv_heads(), tokens as i64, 8];
        let mut cache = KvCache::new(shape, Kind::Float, Device::Cpu).expect("allocated");
        cache.restart(3).expect("emptied");
        let mut samples = 3;
        for (number, step) in network.steps().iter().enumerate() {
            if number == network.steps().len() - 2 {
                samples = 2;
                cache.keep_first(samples).expect("narrowed");
            }
            let input = match step.is_first() {
                true => classes.shallow_clone(),
                false => codes.narrow(0, 0, samples).narrow(1, step.read.start, step.read.end - step.read.start),
            };
            let stream = network.step(step, &input, 1, &cache).expect("computed");
            let found = network.logits(&stream).expect("computed");
            let expected = whole.narrow(0, 0, samples).narrow(1, step.start, step.tokens);
            let (difference, scale) = (furthest(&found, &expected), expected.abs().max().double_value(&[]));
            assert!(difference < 1e-5 * scale, "{tokens} {single:?} step {number}: {difference} of {scale}");
        }
    }
}

/// What a position must not see does not change it: the far side of every level's end.
#[test]
fn later_tokens_change_nothing_before_their_level() {
    let config = small(32, Some(4), None);
    let network = fixed(&config, &random(&config, 5));
    let codes = Tensor::arange(32, (Kind::Int64, Device::Cpu)).view([1, 32]);
    let classes = Tensor::from_slice(&[1_i64]);
    let before = network.forward(&classes, &codes).expect("computed");
    for changed in 0..16 {
        let other = codes.copy();
        drop(other.narrow(1, changed, 1).fill_(63));
        let after = network.forward(&classes, &other).expect("computed");
        // The first step that reads this token.
        let first = network.steps().iter().find(|step| step.read.contains(&changed)).expect("read").start;
        assert_eq!(furthest(&before.narrow(1, 0, first), &after.narrow(1, 0, first)), 0.0, "token {changed}");
        assert!(furthest(&before.narrow(1, first, 1), &after.narrow(1, first, 1)) > 0.0, "token {changed}");
    }
}

#[test]
fn dropout_follows_from_its_seed() {
    let mut text: serde_json::Value = serde_json::from_str(&small(16, Some(2), None).to_json()).expect("JSON");
    text["attn_dropout_p"] = json!(0.2);
    text["drop_path_rate"] = json!(0.3);
    let config = GeneratorConfig::from_json(&text.to_string(), Path::new("test")).expect("sound");
    let store = store(&config, &random(&config, 1));
    let (classes, tokens) = (Tensor::from_slice(&[0_i64, 1]), Tensor::zeros([2, 16], (Kind::Int64, Device::Cpu)));
    let network = trained(&config, &store);
    let logits = |seed| with_random_numbers(seed, || network.forward(&classes, &tokens).expect("computed")).detach();
    assert_eq!(furthest(&logits(1), &logits(1)), 0.0);
    assert!(furthest(&logits(1), &logits(2)) > 0.0);
    let without = trained(&config.without_dropout(), &store);
    let first = without.forward(&classes, &tokens).expect("computed");
    assert_eq!(furthest(&first.detach(), &without.forward(&classes, &tokens).expect("computed").detach()), 0.0);
}

fn sampler(temperature: f64, top_k: usize, top_p: f64) -> TokenSampler {
    TokenSampler::new(&Sampling { temperature, top_k, top_p, ..Sampling::paper(0) }, 6)
}

/// Codes drawn from one row of logits by `count` numbers spread evenly.
fn fractions(sampler: TokenSampler, logits: &[f32], count: i64) -> Vec<f64> {
    let rows = Tensor::from_slice(logits).view([1, 1, -1]).repeat([1, count, 1]);
    let uniforms = (Tensor::arange(count, (Kind::Float, Device::Cpu)) / count as f64).view([1, -1]);
    let codes = Vec::<i64>::try_from(sampler.draw(rows, &uniforms).expect("drawn").view([-1])).expect("a vector");
    let mut fractions = vec![0.0; logits.len()];
    codes.iter().for_each(|&code| fractions[code as usize] += 1.0 / count as f64);
    fractions
}

#[test]
fn codes_are_drawn_as_often_as_they_are_likely() {
    // Probabilities 0.05, 0.4, 0.1, 0.25, 0.15, 0.05.
    let logits: Vec<f32> = [0.05_f32, 0.4, 0.1, 0.25, 0.15, 0.05].iter().map(|fraction| fraction.ln()).collect();
    let check = |sampler: TokenSampler, expected: [f64; 6]| {
        let (found, total) = (fractions(sampler, &logits, 4000), expected.iter().sum::<f64>());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected / total).abs() < 1.5 / 4000.0, "{sampler:?}: {found} {}", expected / total);
        }
    };
    check(sampler(1.0, 0, 1.0), [0.05, 0.4, 0.1, 0.25, 0.15, 0.05]);
    check(sampler(1.0, 2, 1.0), [0.0, 0.4, 0.0, 0.25, 0.0, 0.0]);
    check(sampler(1.0, 1, 0.5), [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    // The code that passes 0.7 stays; nothing after it.
    check(sampler(1.0, 0, 0.7), [0.0, 0.4, 0.0, 0.25, 0.15, 0.0]);
    // The likeliest stays however small p is.
    check(sampler(1.0, 0, 0.01), [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    check(sampler(1.0, 4, 0.9), [0.0, 0.4, 0.1, 0.25, 0.15, 0.0]);
    check(sampler(0.5, 3, 1.0), [0.0, 0.16, 0.0, 0.0625, 0.0225, 0.0]);
    // As likely as the last of the five is the sixth.
    check(sampler(1.0, 5, 1.0), [0.05, 0.4, 0.1, 0.25, 0.15, 0.05]);
}

#[test]
fn random_numbers_draw_codes_as_often_as_they_are_likely() {
    let (count, fractions) = (20_000, [0.05, 0.4, 0.1, 0.25, 0.15, 0.05_f32]);
    let logits = Tensor::from_slice(&fractions).log().view([1, 1, -1]).repeat([1, count, 1]);
    let uniforms = Tensor::from_slice(&RandomStream::new(7, "token", 3).uniforms(count as usize)).view([1, -1]);
    let codes = sampler(1.0, 0, 0.93).draw(logits, &uniforms).expect("drawn").view([-1]);
    let counts = Vec::<i64>::try_from(codes.bincount(None::<Tensor>, 6)).expect("a vector");
    // Of the two codes of 0.05 one stays.
    assert!(counts[0] == 0 || counts[5] == 0, "{counts:?}");
    let found = [counts[0] + counts[5], counts[1], counts[2], counts[3], counts[4]];
    for (found, fraction) in found.into_iter().zip(fractions) {
        let fraction = f64::from(fraction) / 0.95;
        let deviation = (fraction * (1.0 - fraction) / count as f64).sqrt();
        assert!((found as f64 / count as f64 - fraction).abs() < 5.0 * deviation, "{counts:?} {fraction}");
    }
}

#[test]
fn logits_that_are_no_numbers_give_no_code() {
    let logits = Tensor::from_slice(&[0.0_f32, f32::NAN, 0.0, 1.0, 2.0, 3.0]).view([1, 2, 3]);
    let uniforms = Tensor::from_slice(&[0.5_f32, 0.5]).view([1, 2]);
    for top_p in [1.0, 0.9] {
        let sampler = TokenSampler::new(&Sampling { top_p, ..Sampling::paper(0) }, 3);
        let codes = sampler.draw(logits.copy(), &uniforms).expect("drawn");
        let codes = Vec::<i64>::try_from(codes.view([-1])).expect("a vector");
        assert_eq!((codes[0], codes[1] >= 0), (-1, true), "{top_p}");
    }
}
