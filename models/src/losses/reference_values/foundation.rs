use super::{CPU, Of, file, images, number, reference_values, same};
use crate::foundation::{FoundationKind, FoundationModel, VisionArchitecture};
use tch::Kind;

/// A model of two blocks with everything else as the public one has it.
fn small(of: VisionArchitecture) -> VisionArchitecture {
    VisionArchitecture { width: 128, layers: 2, heads: 4, ..of }
}

fn load(name: &str, grid: [i64; 2]) -> FoundationModel {
    let (kind, architecture) = match name {
        "dinov3" => (FoundationKind::DinoV3Large, small(VisionArchitecture::DINOV3_LARGE)),
        _ => (FoundationKind::DinoV2Large, small(VisionArchitecture::DINOV2_LARGE)),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(folder.path(), "model.safetensors", &reference_values()["foundation"][name]["names"]);
    FoundationModel::load_architecture(kind, &architecture, &path, CPU, grid).expect("loads")
}

#[test]
fn features_of_frozen_vision_models_equal_those_of_their_public_code() {
    let reference_values = reference_values();
    for name in ["dinov3", "dinov2"] {
        let (model, expected) = (load(name, [16, 16]), &reference_values["foundation"][name]);
        let features = model.features(&images("target", &[2, 3, 256, 256])).expect("computed");
        assert_eq!((features.class.size(), features.patches.size()), (vec![2, 128], vec![2, 128, 16, 16]));
        same(name, &features.class, "class", &expected["class"], Of::Values, 0.0);
        same(name, &features.patches, "patches", &expected["patches"], Of::Values, 0.0);
        let flat: Vec<f32> = features.patches.contiguous().view([-1]).try_into().expect("a vector");
        for (found, expected) in flat.iter().step_by(9973).zip(expected["samples"].as_array().expect("numbers")) {
            assert!((f64::from(*found) - number(expected)).abs() < Of::Values.norm(), "{name}: {found} {expected}");
        }
    }
}

#[test]
fn features_come_on_the_grid_that_was_asked_for_whatever_the_size_of_images() {
    for name in ["dinov3", "dinov2"] {
        let model = load(name, [4, 6]);
        let features = model.features(&images("target", &[1, 3, 32, 48])).expect("computed");
        assert_eq!(features.patches.size(), [1, 128, 4, 6]);
        assert_eq!(features.patches.isfinite().all().int64_value(&[]), 1);
        assert!(features.patches.std(true).double_value(&[]) > 0.1 && features.class.kind() == Kind::Float);
        assert!(!features.patches.requires_grad() && model.width() == 128);
    }
}

#[test]
fn only_models_that_can_be_aligned_to_are_taken_by_name() {
    for (name, network) in
        [("dinov3", "DINOv3 ViT-L/16"), ("dinov2", "DINOv2 ViT-L/14"), ("dinov2_b", "DINOv2 ViT-B/14")]
    {
        assert_eq!(FoundationKind::from_setting(name).expect("known").network(), network);
    }
    let error = FoundationKind::from_setting("siglip2").expect_err("unknown").to_string();
    assert!(error.contains("use_vf is siglip2") && error.contains("dinov2_b"), "{error}");
}

#[test]
fn a_model_is_read_from_under_one_prefix_and_refused_with_values_that_are_no_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let reference_values = reference_values();
    let path = file(folder.path(), "model.safetensors", &reference_values["foundation"]["dinov2"]["names"]);
    let load = || {
        let architecture = small(VisionArchitecture::DINOV2_LARGE);
        FoundationModel::load_architecture(FoundationKind::DinoV2Large, &architecture, &path, CPU, [4, 4])
    };
    let image = images("target", &[1, 3, 56, 56]);
    let expected = load().expect("loads").features(&image).expect("computed").class;
    let tensors = tch::Tensor::read_safetensors(&path).expect("reads");
    let mut under: std::collections::BTreeMap<String, tch::Tensor> =
        tensors.into_iter().map(|(name, tensor)| (format!("teacher.backbone.{name}"), tensor)).collect();
    crate::weight_file::write(&path, &under).expect("written");
    assert_eq!(load().expect("loads").features(&image).expect("computed").class, expected);
    drop(under.get_mut("teacher.backbone.norm.bias").expect("a tensor").fill_(f64::NAN));
    crate::weight_file::write(&path, &under).expect("written");
    let error = load().expect_err("refused").to_string();
    assert!(error.contains("norm.bias has 128 NaN and 0 infinite of 128 values"), "{error}");
}

#[test]
fn another_model_of_the_same_family_is_refused_with_its_tensors() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(folder.path(), "model.safetensors", &reference_values()["foundation"]["dinov2"]["names"]);
    let error = FoundationModel::load(FoundationKind::DinoV2Base, &path, CPU, [16, 16]).expect_err("another width");
    let error = error.to_string();
    for part in [
        "the alignment loss needs DINOv2 ViT-B/14",
        "weights of DINOv2 of another size: width 128 instead of 768, blocks 2 instead of 12",
        "blocks.0.attn.proj.bias has shape [128], expected [768]",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}
