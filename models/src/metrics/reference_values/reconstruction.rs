use super::{close, inception, numbers, reference_values, sizes};
use crate::{
    Device, ExtractorPrecision, ImageComparison, LoadOptions, LpipsFiles, Precision, ReconstructionMeter,
    ReconstructionScorer, VisualTokenizer,
    losses::reference_values::file,
    metrics::test_images::{batch, pair},
};
use schemas::{ImageMeasures, Rounding};
use serde_json::{Value, json};
use std::path::Path;

fn lpips(folder: &Path, names: &Value) -> LpipsFiles {
    let mut alexnet = names["alexnet"].clone();
    alexnet["classifier.6.bias"] = json!([1000]); // the public file has the classifier too
    LpipsFiles {
        alexnet: file(folder, "alexnet.safetensors", &alexnet),
        linear: file(folder, "lpips-alexnet.safetensors", &names["linear"]),
    }
}

fn measures(comparison: &ImageComparison, size: [usize; 3]) -> Vec<ImageMeasures> {
    let (original, reconstructed) = pair((size[0] as i64, size[1] as i64, size[2] as i64));
    let look = comparison.look(&original).expect("seen");
    comparison.compare(&original, &look, &reconstructed).expect("compared").read(size[0]).expect("read")
}

#[test]
fn similarities_over_five_scales_equal_the_published_librarys() {
    let reference_values = reference_values();
    let comparison = ImageComparison::new(Device::Cpu, None).expect("begun");
    let cases = reference_values["ms_ssim"].as_array().expect("cases");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let size = sizes::<3>(&case["size"]);
        let found = measures(&comparison, size);
        let expected = numbers(&case["values"]);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            close(&format!("{size:?}"), found.ms_ssim.expect("large enough"), expected, 1e-6, 1.0);
            assert_eq!(found.lpips, None, "it has no network");
        }
    }
    let small = measures(&comparison, [1, 160, 200]);
    assert!(small[0].ms_ssim.is_none() && small[0].ssim > 0.5, "{small:?}");
}

#[test]
fn perceptual_distances_equal_the_published_packages() {
    let reference_values = reference_values();
    let folder = tempfile::tempdir().expect("a folder");
    let comparison =
        ImageComparison::new(Device::Cpu, Some(&lpips(folder.path(), &reference_values["lpips"]["names"])))
            .expect("loads");
    let cases = reference_values["lpips"]["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let size = sizes::<3>(&case["size"]);
        let found = measures(&comparison, size);
        let expected = numbers(&case["values"]);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            close(&format!("{size:?}"), found.lpips.expect("large enough"), expected, 1e-5, expected);
        }
    }
    let small = measures(&comparison, [1, 30, 64]);
    assert!(small[0].lpips.is_none() && small[0].psnr > 20.0, "{small:?}");
}

#[test]
fn files_of_another_network_are_refused() {
    let reference_values = reference_values();
    let folder = tempfile::tempdir().expect("a folder");
    let LpipsFiles { alexnet, linear } = lpips(folder.path(), &reference_values["lpips"]["names"]);
    let turned = LpipsFiles { alexnet: linear.clone(), linear: alexnet };
    let error = ImageComparison::new(Device::Cpu, Some(&turned)).expect_err("turned").to_string();
    for part in ["scoring needs AlexNet", "features.0.weight is missing (expected [64, 3, 11, 11])"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let turned = LpipsFiles { alexnet: turned.linear.clone(), linear: turned.linear };
    let error = ImageComparison::new(Device::Cpu, Some(&turned)).expect_err("one file twice").to_string();
    assert!(error.contains("scoring needs the linear layers of LPIPS over AlexNet"), "{error}");
}

fn tokenizer() -> VisualTokenizer {
    let folder = crate::fixtures::fixture("tokenizer");
    let options = LoadOptions { device: Device::Cpu, precision: Precision::Fp32, name: None };
    VisualTokenizer::load(&folder, options).expect("the fixture loads")
}

#[test]
fn variants_are_the_images_and_their_reconstructions() {
    let reference_values = reference_values();
    let folder = tempfile::tempdir().expect("a folder");
    let comparison =
        ImageComparison::new(Device::Cpu, Some(&lpips(folder.path(), &reference_values["lpips"]["names"])))
            .expect("loads");
    let keep = vec![128, 3];
    let scorer =
        ReconstructionScorer::new(tokenizer(), Some(inception(ExtractorPrecision::Float32)), comparison, keep.clone());
    let scorer = scorer.expect("fits together");
    let images = batch(&pair((1, 256, 256)).0, 0);
    let (variants, tokens) = scorer.score(&images).expect("scored");

    let tokenizer = scorer.tokenizer();
    assert_eq!(tokens, tokenizer.encode(&images).expect("encodes"));
    assert_eq!(variants.iter().map(|variant| variant.kept_tokens).collect::<Vec<_>>(), [None, Some(128), Some(3)]);
    let network = inception(ExtractorPrecision::Float32);
    let same = |what: &str, found: &[f32], expected: &[f32]| {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            close(what, f64::from(*found), f64::from(*expected), 1e-5, 1.0);
        }
    };
    same("as they are", &variants[0].pool, &network.features(&images, false).expect("computed").pool);
    assert!(variants[0].measures.is_empty());
    for (variant, keep) in variants[1..].iter().zip(keep) {
        variant.check(1).expect("one image");
        assert!(variant.spatial.is_empty());
        let reconstructed = tokenizer.decode(&tokens, keep, Rounding::Nearest).expect("decodes");
        same("rebuilt", &variant.pool, &network.features(&reconstructed, false).expect("computed").pool);
        let mut meter = ReconstructionMeter::new(Device::Cpu, tokenizer.levels().clone(), tokenizer.codebook_size())
            .expect("begun");
        meter.update(&images, &reconstructed, &tokens).expect("compared");
        let expected = meter.finish().expect("scores");
        let [found] = variant.measures[..] else { panic!("one image") };
        close("PSNR", found.psnr, expected.psnr, 1e-9, 1.0);
        close("SSIM", found.ssim, expected.ssim, 1e-7, 1.0);
        let (ms_ssim, lpips) = (found.ms_ssim.expect("large enough"), found.lpips.expect("there is a network"));
        assert!((0.0..1.0).contains(&ms_ssim) && lpips > 0.0, "{found:?}");
    }
    assert_ne!(variants[1].pool, variants[2].pool);
}

#[test]
fn a_scorer_without_networks_measures_and_refuses_what_cannot_be_kept() {
    reference_values();
    let scorer = |keep: &[usize]| {
        let comparison = ImageComparison::new(Device::Cpu, None).expect("begun");
        ReconstructionScorer::new(tokenizer(), None, comparison, keep.to_vec())
    };
    let images = batch(&pair((1, 256, 256)).0, 1);
    let (variants, tokens) = scorer(&[128]).expect("fits").score(&images).expect("scored");
    assert_eq!((variants.len(), tokens.rows(), variants[1].measures.len()), (2, 1, 1));
    assert!(variants.iter().all(|variant| variant.pool.is_empty()) && variants[1].measures[0].lpips.is_none());
    for (keep, part) in [(&[0][..], "found 0, expected 1 to 128"), (&[129], "129"), (&[4, 8, 4], "4 twice")] {
        let error = scorer(keep).expect_err("refused").to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = scorer(&[1]).expect("fits").score(&batch(&pair((1, 32, 32)).0, 0)).expect_err("another size");
    assert!(error.to_string().contains("256 by 256"), "{error}");
}
