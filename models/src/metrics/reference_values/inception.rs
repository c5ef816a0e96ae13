use super::{close, head_weight, inception, inception_weights, number, pictures, reference_values, sizes};
use crate::{
    Device, ExtractorPrecision, Inception,
    metrics::{reference_values::head, test_images::batch},
    weight_file,
};
use schemas::ScoredImages;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

/// Holds a tensor to its mean, the mean of its absolute values, a mean weighted by position, and three elements.
fn same(what: &str, found: &Tensor, expected: &Value, tolerance: f64) {
    let flat = found.contiguous().view([-1]).to_kind(Kind::Double);
    let scale = number(&expected["absolute"]);
    let positions = Tensor::arange(flat.numel() as i64, (Kind::Int64, tch::Device::Cpu)).remainder(997);
    let weighted = &flat * (positions.to_kind(Kind::Double) / 997.0);
    for (name, found) in [
        ("mean", flat.mean(Kind::Double)),
        ("absolute", flat.abs().mean(Kind::Double)),
        ("weighted", weighted.mean(Kind::Double)),
    ] {
        close(&format!("{what}, {name}"), found.double_value(&[]), number(&expected[name]), tolerance, scale);
    }
    for element in expected["elements"].as_array().expect("elements") {
        let at = element[0].as_i64().expect("an index");
        // An element of many products is not averaged over anything.
        close(&format!("{what} at {at}"), flat.double_value(&[at]), number(&element[1]), 10.0 * tolerance, scale);
    }
}

fn layers_are_those_of_torch_fidelity(precision: ExtractorPrecision, tolerance: f64) {
    let reference_values = reference_values();
    let network = inception(precision);
    let folder = tempfile::tempdir().expect("a folder");
    let head = head(folder.path());
    let cases = reference_values["layers"]
        .as_array()
        .expect("cases")
        .iter()
        .filter(|case| case["precision"] == precision.name());
    let mut count = 0;
    for case in cases {
        let size = sizes::<2>(&case["size"]).map(|side| side as i64);
        let pixels = pictures(0, 0, 2, size);
        let layers = network.layers(&pixels);
        assert_eq!(layers.len(), 20, "18 layers, what goes in and what comes out");
        for (name, output) in layers {
            same(&format!("{precision}, {size:?}, {name}"), &output, &case["layers"][name], tolerance);
        }
        let features = network.extract(&pixels, true).expect("computed");
        let spatial = features.spatial.expect("asked for");
        assert_eq!((features.pool.size(), spatial.size()), (vec![2, 2048], vec![2, 2023]));
        // Features are float32 from either network.
        let tolerance = tolerance.max(1e-6);
        same(&format!("{precision}, {size:?}, features"), &features.pool, &case["layers"]["pool features"], tolerance);
        same(&format!("{precision}, {size:?}, spatial"), &spatial, &case["layers"]["spatial"], tolerance);
        let logits = head.logits(&features.pool).expect("computed");
        same(&format!("{precision}, {size:?}, logits"), &logits, &case["layers"]["logits"], tolerance);
        count += 1;
    }
    assert_eq!(count, 2);
}

#[test]
fn every_layer_equals_torch_fidelitys_in_float32() {
    layers_are_those_of_torch_fidelity(ExtractorPrecision::Float32, 2e-6);
}

#[test]
fn every_layer_equals_torch_fidelitys_in_float64() {
    layers_are_those_of_torch_fidelity(ExtractorPrecision::Float64, 1e-12);
}

#[test]
fn the_network_asks_for_the_tensors_that_its_port_has() {
    let names = Inception::names();
    let text: String = names.iter().map(|(name, shape)| format!("{name} {shape:?}\n")).collect();
    let digest: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = &reference_values()["names"];
    assert_eq!(names.len() as u64, expected["count"].as_u64().expect("a count"));
    assert_eq!(Some(digest.as_str()), expected["sha256"].as_str());
}

#[test]
fn a_file_gives_features_of_the_filled_rows_and_is_known_by_its_digest() {
    reference_values();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("inception.safetensors");
    let mut tensors = inception_weights();
    tensors.insert("Mixed_5b.branch1x1.bn.num_batches_tracked".to_owned(), Tensor::from(0_i64));
    tensors.extend([head_weight(), ("fc.bias".to_owned(), Tensor::zeros([1008], (Kind::Float, tch::Device::Cpu)))]);
    weight_file::write(&file, &tensors).expect("written");
    let network = Inception::load(&file, Device::Cpu, ExtractorPrecision::Float32).expect("loads");
    assert_eq!(network.sha256(), weight_file::sha256(&file).expect("read"));
    crate::InceptionHead::load(&file, Device::Cpu).expect("the classifier is in the same file");

    let pixels = pictures(1, 4, 2, [24, 40]);
    let expected = network.extract(&pixels, true).expect("computed");
    let padded = network.features(&batch(&pixels, 1), true).expect("computed");
    padded.check(2).expect("features of two images");
    assert_eq!((padded.kept_tokens, padded.measures.len()), (None, 0));
    for (found, expected) in [(&padded.pool, expected.pool), (&padded.spatial, expected.spatial.expect("asked for"))] {
        let found = Tensor::from_slice(found).view_as(&expected);
        assert!((found - &expected).abs().max().double_value(&[]) < 1e-5);
    }
    assert_eq!(padded.spatial.len(), 2 * ScoredImages::SPATIAL);
    let without = network.features(&batch(&pixels, 1), false).expect("computed");
    assert_eq!((without.pool, without.spatial), (padded.pool, Vec::new()));
    let nothing = network.features(&batch(&pixels.narrow(0, 0, 0), 1), true).expect("computed");
    assert_eq!(nothing, ScoredImages::default());
}

#[test]
fn a_network_with_values_that_are_no_finite_numbers_is_refused() {
    reference_values();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("inception.safetensors");
    let mut tensors = inception_weights();
    let (name, weight) = head_weight();
    let mut value = weight.get(7).get(0);
    drop(value.fill_(f64::NAN));
    tensors.insert(name, weight);
    let mut value = tensors["Mixed_7c.branch_pool.bn.running_var"].get(3);
    drop(value.fill_(f64::INFINITY));
    weight_file::write(&file, &tensors).expect("written");
    let error = Inception::load(&file, Device::Cpu, ExtractorPrecision::Float64).expect_err("refused").to_string();
    assert!(error.contains("Mixed_7c.branch_pool.bn.running_var has 0 NaN and 1 infinite of 192 values"), "{error}");
    let error = crate::InceptionHead::load(&file, Device::Cpu).expect_err("refused").to_string();
    assert!(error.contains("fc.weight has 1 NaN and 0 infinite"), "{error}");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_what_is_wrong_and_what_to_do() {
    reference_values();
    let folder = tempfile::tempdir().expect("a folder");
    let pickle = folder.path().join("weights-inception-2015-12-05-6726825d.pth");
    std::fs::write(&pickle, [b'P', b'K', 3, 4, 0x80, 0x80, 0x80, 0x80, 0, 0]).expect("written");
    let other = folder.path().join("other.safetensors");
    let wrong = Tensor::zeros([1000, 2048], (Kind::Float, tch::Device::Cpu));
    weight_file::write(
        &other,
        &[("fc.weight".to_owned(), wrong.copy()), ("features.0.weight".to_owned(), wrong)].into(),
    )
    .expect("written");
    let missing = folder.path().join("nowhere.safetensors");
    let load = |file: &std::path::Path| {
        Inception::load(file, Device::Cpu, ExtractorPrecision::Float64).expect_err("refused").to_string()
    };
    for (error, parts) in [
        (load(&pickle), &["a Python pickle", "save_file", "weights-inception-2015-12-05-6726825d.safetensors'"][..]),
        (load(&missing), &["nowhere.safetensors: it is missing"]),
        (
            load(&other),
            &[
                "Conv2d_1a_3x3.bn.bias is missing (expected [32])",
                "features.0.weight is not part",
                "1 not part of this model",
            ],
        ),
        (
            crate::InceptionHead::load(&other, Device::Cpu).expect_err("another number of classes").to_string(),
            &["fc.weight has shape [1000, 2048], expected [1008, 2048]"],
        ),
    ] {
        for part in
            parts.iter().chain(&["scoring needs the Inception network of 2015-12-05", "docs/frozen-networks.md"])
        {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    assert_eq!("float64".parse::<ExtractorPrecision>().expect("its name"), ExtractorPrecision::Float64);
    let error = "double".parse::<ExtractorPrecision>().expect_err("no name").to_string();
    assert!(error.contains("float32 or float64"), "{error}");
}
