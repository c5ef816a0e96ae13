use super::{CPU, Of, close, file, fill, gradient, images, integers, number, reference_values, same, signed};
use crate::{
    losses::discriminator::{
        DinoTrunk, Discriminator, DiscriminatorNetwork, View,
        adversarial::{self, LeCam},
        differentiable_augmentation::{Augmentation, Colours},
        dino::Crop,
    },
    parameters::{ParameterStore, Parameters},
};
use serde_json::Value;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

fn dino() -> DiscriminatorNetwork {
    let folder = tempfile::tempdir().expect("a folder");
    let trunk = file(folder.path(), "dino.safetensors", &reference_values()["names"]["dino"]);
    DiscriminatorNetwork::Dino(DinoTrunk::load(&trunk, CPU).expect("loads"))
}

/// A discriminator's tensors, by the formula.
fn store(network: &DiscriminatorNetwork) -> ParameterStore {
    let store = ParameterStore::new(1, CPU);
    build(&store, network);
    fill(&store);
    store
}

/// As a training step builds it.
fn build<'a>(store: &ParameterStore, network: &'a DiscriminatorNetwork) -> Discriminator<'a> {
    let parameters = Parameters::from_store(store);
    let discriminator = Discriminator::new(&parameters.root(CPU, Kind::Float), network).expect("built");
    parameters.finish(|_| false).expect("every tensor is known");
    discriminator
}

fn discriminator_step(network: &DiscriminatorNetwork, reference_values: &Value) {
    let store = store(network);
    let discriminator = build(&store, network);
    let regularisation_store = ParameterStore::new(1, CPU);
    let parameters = Parameters::from_store(&regularisation_store);
    let lecam = LeCam::new(&parameters.root(CPU, Kind::Float), 0.999).expect("built");
    for ((_, mut mean), value) in regularisation_store.buffers().into_iter().rev().zip([0.3, -0.2]) {
        mean.copy_(&Tensor::from_slice(&[value as f32]));
    }
    let shape = integers(&reference_values["images"]);
    let real = discriminator.forward(&images("real", &shape), &View::default()).expect("judged");
    let fake = discriminator.forward(&images("fake", &shape), &View::default()).expect("judged");
    same("logits", &real, "logits", &reference_values["logits"], Of::Values, 0.0);
    let loss = adversarial::discriminator_loss(&real, &fake).expect("computed");
    close("hinge loss", loss.double_value(&[]), number(&reference_values["loss"]));
    let regularisation = lecam.forward(&real, &fake).expect("computed");
    close("LeCam", regularisation.double_value(&[]), number(&reference_values["lecam"]));
    let means: BTreeMap<_, _> = regularisation_store.buffers().into_iter().collect();
    for (index, name) in ["ema_real_logits_mean", "ema_fake_logits_mean"].into_iter().enumerate() {
        close(name, means[name].double_value(&[0]), number(&reference_values["ema"][index]));
    }

    (loss + regularisation * 0.5).backward();
    let expected = reference_values["gradients"].as_object().expect("names");
    let trained = store.trained();
    let names: Vec<_> = trained.iter().map(|(name, _)| name.as_str()).collect();
    let mut published: Vec<_> = expected.keys().map(String::as_str).collect();
    published.sort_unstable();
    assert_eq!(names, published, "names of a published checkpoint");
    // Biases in front of a norm change nothing: their gradients are rounding.
    let least = 1e-2 * expected.values().map(|figure| number(&figure["norm"])).fold(0.0, f64::max);
    for (name, tensor) in &trained {
        same(name, &tensor.grad(), name, &expected[name], Of::Gradients, least);
    }

    let vectors = reference_values["vectors"].as_object().expect("names");
    let buffers = store.buffers();
    assert_eq!(buffers.len(), vectors.len());
    for (name, buffer) in &buffers {
        same(name, buffer, name, &vectors[name], Of::Values, 0.0);
    }
}

fn generator_step(network: &DiscriminatorNetwork, reference_values: &Value) {
    let store = store(network);
    let crop = reference_values.get("crop").filter(|crop| !crop.is_null()).map(integers);
    let view = View { crop: crop.map(|crop| Crop { top: crop[0], left: crop[1] }), augmentation: None };
    let reconstructed = images("rebuilt", &integers(&reference_values["images"])).set_requires_grad(true);
    let logits = build(&store, network).forward(&reconstructed, &view).expect("judged");
    let what = format!("{:?} {view:?}", reconstructed.size());
    same(&what, &logits, "logits", &reference_values["logits"], Of::Values, 0.0);
    let loss = adversarial::generator_loss(&logits).expect("computed");
    close(&what, loss.double_value(&[]), number(&reference_values["loss"]));
    same(&what, &gradient(&loss, &reconstructed), "gradient", &reference_values["gradient"], Of::Gradients, 0.0);
}

#[test]
fn a_step_of_the_dino_discriminator_equals_the_published_one() {
    discriminator_step(&dino(), &reference_values()["dino"]["discriminator"]);
}

#[test]
fn what_the_dino_discriminator_tells_the_tokenizer_equals_the_published_gradient() {
    let (network, reference_values) = (dino(), reference_values());
    let cases = reference_values["dino"]["generator"].as_array().expect("cases").clone();
    assert_eq!(cases.len(), 3, "made larger, made smaller, cropped");
    cases.iter().for_each(|case| generator_step(&network, case));
}

#[test]
fn a_step_of_the_patch_discriminator_equals_the_published_one() {
    discriminator_step(&DiscriminatorNetwork::Patch, &reference_values()["patch"]["discriminator"]);
}

#[test]
fn what_the_patch_discriminator_tells_the_tokenizer_equals_the_published_gradient() {
    generator_step(&DiscriminatorNetwork::Patch, &reference_values()["patch"]["generator"]);
}

#[test]
fn differentiable_augmentation_equals_the_published_one() {
    let reference_values = &reference_values()["augmentation"];
    let draw = &reference_values["draw"];
    let floats = |name: &str| -> Vec<f32> {
        draw[name].as_array().expect("numbers").iter().map(|value| number(value) as f32).collect()
    };
    let places = |name: &str| -> Vec<[i64; 2]> {
        let place = |place: &Value| integers(place).try_into().expect("row and column");
        draw[name].as_array().expect("places").iter().map(place).collect()
    };
    let cases = reference_values["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 4);
    for case in cases {
        let made = |part: &str| case["parts"].as_array().expect("parts").iter().any(|made| made == part);
        let colours = || Colours {
            brightness: floats("brightness"),
            saturation: floats("saturation"),
            contrast: floats("contrast"),
        };
        let augmentation = Augmentation {
            colours: made("colours").then(colours),
            shifts: made("shifts").then(|| places("shifts")),
            covers: made("covers").then(|| places("covers")),
        };
        let reconstructed = images("rebuilt", &[3, 3, 40, 32]).set_requires_grad(true);
        let changed = augmentation.apply(&reconstructed).expect("changed");
        let what = case["parts"].to_string();
        same(&what, &changed, "images", &case["images"], Of::Values, 0.0);
        let direction = (changed * signed("direction", &[3, 3, 40, 32])).sum(Kind::Float);
        same(&what, &gradient(&direction, &reconstructed), "gradient", &case["gradient"], Of::Gradients, 0.0);
    }
}

#[test]
fn spectral_estimates_go_on_from_where_the_last_step_left_them() {
    let network = dino();
    let store = store(&network);
    let judge = || build(&store, &network).forward(&images("real", &[1, 3, 32, 32]), &View::default()).expect("judged");
    let (first, second) = (judge(), judge());
    assert!((&first - &second).abs().max().double_value(&[]) > 0.0, "the estimate of the norm has moved");
    let vectors: BTreeMap<_, _> = store.buffers().into_iter().collect();
    let trained: BTreeMap<_, _> = store.trained().into_iter().collect();
    // Many iterations later the weight's norm is that of its largest singular value, by its definition.
    let weight = trained["heads.0.0.0.weight_orig"].detach().flatten(1, 2);
    let mut right = vectors["heads.0.0.0.weight_v"].copy();
    for _ in 0..300 {
        right = weight.tr().mv(&weight.mv(&right));
        right = &right / right.norm();
    }
    let largest = weight.mv(&right).norm().double_value(&[]);
    let estimate = |left: &Tensor, right: &Tensor| left.dot(&weight.mv(right)).double_value(&[]);
    let after_two = estimate(&vectors["heads.0.0.0.weight_u"], &vectors["heads.0.0.0.weight_v"]);
    assert!(after_two > 0.5 * largest && after_two < 1.0001 * largest, "{after_two} of {largest}");
}
