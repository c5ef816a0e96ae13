use super::{CPU, Of, close, file, gradient, images, integers, number, reference_values, same};
use crate::{
    ReconstructionKind,
    losses::{PerceptualJitter, PerceptualLoss, reconstruction},
};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

fn load(names: &Value) -> PerceptualLoss {
    let folder = tempfile::tempdir().expect("a folder");
    let mut vgg16 = names["vgg16"].clone();
    vgg16["head.fc.bias"] = json!([1000]); // public files have the classifier too
    let (vgg16, linear) =
        (file(folder.path(), "vgg16.safetensors", &vgg16), file(folder.path(), "lpips.safetensors", &names["lpips"]));
    PerceptualLoss::load(&vgg16, &linear, CPU).expect("loads")
}

#[test]
fn distances_of_pixels_equal_the_published_ones() {
    let reference_values = &reference_values()["reconstruction"];
    let (target, reconstructed) = (images("target", &[2, 3, 12, 10]), images("rebuilt", &[2, 3, 12, 10]));
    for (kind, name) in [(ReconstructionKind::L1, "l1"), (ReconstructionKind::L2, "l2")] {
        let found = reconstruction::distance(kind, &target, &reconstructed).expect("computed").double_value(&[]);
        close(name, found, number(&reference_values[name]));
    }
}

#[test]
fn the_perceptual_loss_equals_the_published_one() {
    let reference_values = reference_values();
    let loss = load(&reference_values["names"]);
    let cases = reference_values["perceptual"].as_array().expect("cases");
    assert_eq!(cases.len(), 4);
    for case in cases {
        let size = integers(&case["size"]);
        let shape = [2, 3, size[0], size[1]];
        let jitter = (!case["jitter"].is_null()).then(|| {
            let trims = integers(&case["jitter"]);
            PerceptualJitter { top: trims[0], bottom: trims[1], left: trims[2], right: trims[3] }
        });
        let reconstructed = images("rebuilt", &shape).set_requires_grad(true);
        let found = loss.forward(&images("target", &shape), &reconstructed, jitter.as_ref()).expect("computed");
        let what = format!("{size:?} {jitter:?}");
        close(&what, found.double_value(&[]), number(&case["loss"]));
        same(&what, &gradient(&found, &reconstructed), "gradient", &case["gradient"], Of::Gradients, 0.0);
    }
}

#[test]
fn flat_and_equal_images_have_gradients_that_are_numbers() {
    let loss = load(&reference_values()["names"]);
    let black = Tensor::zeros([1, 3, 32, 32], (Kind::Float, CPU));
    for reconstructed in [black.copy(), images("rebuilt", &[1, 3, 32, 32])] {
        let reconstructed = reconstructed.set_requires_grad(true);
        let found = loss.forward(&black, &reconstructed, None).expect("computed");
        let gradient = gradient(&found, &reconstructed);
        assert_eq!(gradient.isfinite().all().int64_value(&[]), 1);
    }
}

#[test]
fn features_that_are_all_zero_have_gradients_that_are_numbers() {
    // A bias of -100 in the first layer silences every channel behind it.
    let folder = tempfile::tempdir().expect("a folder");
    let names = &reference_values()["names"];
    let vgg16 = file(folder.path(), "vgg16.safetensors", &names["vgg16"]);
    let linear = file(folder.path(), "lpips.safetensors", &names["lpips"]);
    let mut tensors: std::collections::BTreeMap<String, Tensor> =
        Tensor::read_safetensors(&vgg16).expect("reads").into_iter().collect();
    for (name, tensor) in &mut tensors {
        if name.ends_with("bias") {
            *tensor = tensor.f_full_like(-100.0).expect("filled");
        }
    }
    crate::weight_file::write(&vgg16, &tensors).expect("written");
    let loss = PerceptualLoss::load(&vgg16, &linear, CPU).expect("loads");
    let reconstructed = images("rebuilt", &[1, 3, 16, 16]).set_requires_grad(true);
    let found = loss.forward(&images("target", &[1, 3, 16, 16]), &reconstructed, None).expect("computed");
    assert_eq!(found.double_value(&[]), 0.0, "no feature, no difference");
    assert_eq!(gradient(&found, &reconstructed).abs().max().double_value(&[]), 0.0);
}

#[test]
fn images_that_poolings_leave_nothing_of_are_refused() {
    let loss = load(&reference_values()["names"]);
    let small = images("target", &[1, 3, 20, 15]);
    let error = loss.forward(&small, &small, None).expect_err("too small").to_string();
    assert!(error.contains("20 by 15") && error.contains("at least 16 by 16"), "{error}");
}

/// The tensors of a file, for a test to change.
fn tensors(file: &std::path::Path) -> std::collections::BTreeMap<String, Tensor> {
    Tensor::read_safetensors(file).expect("reads").into_iter().collect()
}

#[test]
fn frozen_networks_with_values_that_are_no_finite_numbers_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = &reference_values()["names"];
    let vgg16 = file(folder.path(), "vgg16.safetensors", &names["vgg16"]);
    let linear = file(folder.path(), "lpips.safetensors", &names["lpips"]);
    let (sound_linear, mut changed) = (tensors(&linear), tensors(&linear));
    drop(changed.get_mut("lin2.model.1.weight").expect("a tensor").fill_(f64::NEG_INFINITY));
    crate::weight_file::write(&linear, &changed).expect("written");
    let error = PerceptualLoss::load(&vgg16, &linear, CPU).expect_err("refused").to_string();
    assert!(error.contains("lin2.model.1.weight has 0 NaN and 256 infinite of 256 values"), "{error}");
    crate::weight_file::write(&linear, &sound_linear).expect("written");
    let mut changed = tensors(&vgg16);
    drop(changed.get_mut("features.0.bias").expect("a tensor").fill_(f64::NAN));
    crate::weight_file::write(&vgg16, &changed).expect("written");
    let error = PerceptualLoss::load(&vgg16, &linear, CPU).expect_err("refused").to_string();
    assert!(error.contains("features.0.bias has 64 NaN and 0 infinite of 64 values"), "{error}");
    assert!(error.contains("the perceptual loss needs VGG16"), "{error}");
}

#[test]
fn a_frozen_network_in_shards_is_read_by_its_index_and_known_by_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = &reference_values()["names"];
    let vgg16 = file(folder.path(), "vgg16.safetensors", &names["vgg16"]);
    let linear = file(folder.path(), "lpips.safetensors", &names["lpips"]);
    let (reconstructed, target) = (images("rebuilt", &[1, 3, 16, 16]), images("target", &[1, 3, 16, 16]));
    let distance = |linear: &std::path::Path| {
        let loss = PerceptualLoss::load(&vgg16, linear, CPU).expect("loads");
        loss.forward(&target, &reconstructed, None).expect("computed").double_value(&[])
    };
    let whole = distance(&linear);
    let mut first = tensors(&linear);
    let second = first.split_off("lin3.model.1.weight");
    let mut map = std::collections::BTreeMap::new();
    for (shard, tensors) in [("lpips-1.safetensors", &first), ("lpips-2.safetensors", &second)] {
        crate::weight_file::write(&folder.path().join(shard), tensors).expect("written");
        map.extend(tensors.keys().map(|name| (name.clone(), shard)));
    }
    let index = folder.path().join("lpips.safetensors.index.json");
    std::fs::write(&index, json!({ "weight_map": map }).to_string()).expect("written");
    std::fs::remove_file(&linear).expect("removed");
    // By the index, or by the name of the file that it stands for.
    assert_eq!((distance(&index), distance(&linear)), (whole, whole));
    let sha256 = |file| crate::weight_file::sha256(file).expect("reads");
    assert_eq!(sha256(&index), sha256(&linear));
}

#[test]
fn a_frozen_file_that_cannot_be_used_is_named_with_its_term_and_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = &reference_values()["names"];
    let linear = file(folder.path(), "lpips.safetensors", &names["lpips"]);
    let mut lacking = names["vgg16"].clone();
    lacking.as_object_mut().expect("names").remove("features.28.bias");
    lacking["features.30.weight"] = json!([2, 2]);
    let lacking = file(folder.path(), "vgg16.safetensors", &lacking);
    let pickle = folder.path().join("vgg.pth");
    std::fs::write(&pickle, b"\x80\x02}q\0.").expect("written");
    let missing = folder.path().join("nowhere.safetensors");
    for (vgg16, linear, expected) in [
        (&missing, &linear, &["the perceptual loss needs VGG16", "nowhere.safetensors: it is missing"][..]),
        (&lacking, &linear, &["features.28.bias is missing", "features.30.weight is not part of this model"][..]),
        (&pickle, &linear, &["a Python pickle", "save_file", "vgg.safetensors"][..]),
        (&linear, &linear, &["the perceptual loss needs VGG16", "lin0.model.1.weight is not part"][..]),
    ] {
        let error = PerceptualLoss::load(vgg16, linear, CPU).expect_err("refused").to_string();
        for part in expected.iter().chain(&["docs/frozen-networks.md"]) {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
