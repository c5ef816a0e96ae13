use super::{close, features, head, inception, number, numbers, pictures, reference_values, sizes};
use crate::{
    Device, ExtractorPrecision, FeatureDistribution, FeatureStatistics, InceptionScore, InceptionScores,
    frechet_distance,
    metrics::{test_features::distribution, test_images::batch},
    precision_recall,
};
use schemas::RandomStream;
use serde_json::Value;

/// Both are float64 over the same float32 features; the evaluator's formula was computed over the products of vectors rather than of
/// features, where it needs no root of a matrix either: |X₁ X₂ᵀ| in the nuclear norm, X being centred.
const TOLERANCE: f64 = 1e-12;
/// torch-fidelity takes the mean in float32, and the root of every eigenvalue of the product that rounding left above 0.
const FIDELITY_TOLERANCE: f64 = 5e-5;
const NEIGHBOURS: usize = 3;

fn distance(left: &FeatureDistribution, right: &FeatureDistribution) -> f64 {
    frechet_distance(left, right, Device::Cpu).expect("computed")
}

fn score(pool: &[f32], split: Option<u64>) -> InceptionScores {
    let folder = tempfile::tempdir().expect("a folder");
    let mut score = InceptionScore::new(head(folder.path()), split).expect("begun");
    // However they come.
    for part in pool.chunks(7 * 2048) {
        score.add(part).expect("added");
    }
    score.finish().expect("finished")
}

fn compare(expected: &Value, [reference, samples]: [&[f32]; 2], dimensions: usize) {
    let found = distance(&distribution(reference, dimensions), &distribution(samples, dimensions));
    for (who, tolerance) in [("adm", TOLERANCE), ("fidelity", FIDELITY_TOLERANCE)] {
        let expected = number(&expected[who]["fid"]);
        close(&format!("{who}, FID of {dimensions} features"), found, expected, tolerance, expected);
    }
    let found = precision_recall(reference, samples, dimensions, NEIGHBOURS, Device::Cpu).expect("computed");
    for (who, tolerance) in [("adm", 1e-12), ("fidelity", 1e-7)] {
        close(&format!("{who}, precision"), found.precision, number(&expected[who]["precision"]), tolerance, 1.0);
        close(&format!("{who}, recall"), found.recall, number(&expected[who]["recall"]), tolerance, 1.0);
    }
}

/// `split`: images of the evaluator's splits; torch-fidelity's splits have `images`.
fn compare_scores(expected: &Value, pool: &[f32], split: u64, images: u64, tolerance: f64) {
    let found = score(pool, Some(split));
    let splits = numbers(&expected["adm"]["splits"]);
    assert_eq!(found.splits.len(), splits.len());
    for (index, (found, expected)) in found.splits.iter().zip(&splits).enumerate() {
        close(&format!("split {index}"), *found, *expected, tolerance, *expected);
    }
    let mean = splits.iter().sum::<f64>() / splits.len() as f64;
    close("the evaluator's score", found.score, mean, tolerance, mean);
    let expected = number(&expected["fidelity"]["score"]);
    close("torch-fidelity's score", score(pool, Some(images)).score, expected, tolerance, expected);
}

#[test]
fn scores_of_arrays_of_features_equal_others() {
    let reference_values = reference_values();
    for case in reference_values["arrays"].as_array().expect("cases") {
        let dimensions = case["dimensions"].as_u64().expect("a number") as usize;
        let [rows, sampled] = sizes::<2>(&case["rows"]);
        let reference = features("reference", rows, dimensions, 1.0, 0.0);
        let samples = features("samples", sampled, dimensions, 1.15, 0.05);
        compare(case, [&reference, &samples], dimensions);
        if dimensions == 2048 {
            compare_scores(case, &samples, 20, 16, 1e-6);
        }
    }
}

#[test]
fn scores_of_images_equal_others() {
    let reference_values = reference_values();
    let network = inception(ExtractorPrecision::Float32);
    let pool = |set, first| {
        let images = batch(&pictures(set, first, 10, [32, 32]), 0);
        network.features(&images, false).expect("computed").pool
    };
    let (reference, samples) = (pool(0, 0), pool(2, 100));
    let expected = &reference_values["images"];
    // Two networks in float32 differ in the last digits.
    let found = distance(&distribution(&reference, 2048), &distribution(&samples, 2048));
    for who in ["adm", "fidelity"] {
        close(who, found, number(&expected[who]["fid"]), FIDELITY_TOLERANCE, number(&expected[who]["fid"]));
        let found = precision_recall(&reference, &samples, 2048, NEIGHBOURS, Device::Cpu).expect("computed");
        close(who, found.precision, number(&expected[who]["precision"]), 1e-7, 1.0);
        close(who, found.recall, number(&expected[who]["recall"]), 1e-7, 1.0);
    }
    compare_scores(expected, &samples, 4, 5, 1e-6);
}

#[test]
fn a_set_has_no_distance_to_itself() {
    reference_values();
    for (rows, dimensions) in [(600, 64), (40, 300)] {
        let of = distribution(&features("reference", rows, dimensions, 1.0, 0.5), dimensions);
        let trace: f64 = of.covariance().iter().step_by(dimensions + 1).sum();
        let found = distance(&of, &of);
        assert!(found <= 1e-12 * trace, "{rows} of {dimensions}: {found} beside {trace}");
    }
    // Variances over fourteen decades, of which the product of the two covariances has lost the smaller half.
    let mut wide = features("reference", 200, 30, 1.0, 0.5);
    wide.iter_mut().enumerate().for_each(|(index, value)| *value *= 10_f32.powf(-((index % 30) as f32) / 4.0));
    let wide = distribution(&wide, 30);
    let trace: f64 = wide.covariance().iter().step_by(31).sum();
    assert!(distance(&wide, &wide) <= 1e-13 * trace);
    // Equal images, and far away others.
    let (one, other) = (distribution(&[0.5; 12], 3), distribution(&[2.5; 12], 3));
    assert_eq!((distance(&one, &one), distance(&one, &other)), (0.0, 12.0));
}

#[test]
fn statistics_are_those_of_the_whole_however_it_was_divided() {
    reference_values();
    const DIMENSIONS: usize = 37;
    // More rows than one block has, far from 0.
    let all = features("reference", 4500, DIMENSIONS, 1.0, 100.0);
    let whole = distribution(&all, DIMENSIONS);
    assert_eq!((whole.count(), whole.dimensions()), (Some(4500), DIMENSIONS));
    let (mean, covariance) = in_two_passes(&all, DIMENSIONS);
    let same = |what: &str, found: &[f64], expected: &[f64], tolerance: f64| {
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            close(&format!("{what} at {index}"), *found, *expected, tolerance, 1.0);
        }
    };
    same("mean", whole.mean(), &mean, 1e-11);
    same("covariance", whole.covariance(), &covariance, 1e-11);
    for seed in 0..4 {
        let mut stream = RandomStream::new(seed, "division", 0);
        let mut parts: Vec<FeatureStatistics> =
            (0..3).map(|_| FeatureStatistics::new(DIMENSIONS, Device::Cpu).expect("begun")).collect();
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let rows = (stream.below(if seed == 0 { 3000 } else { 400 }) as usize).min(rest.len() / DIMENSIONS);
            let (now, later) = rest.split_at(rows * DIMENSIONS);
            parts[stream.below(3) as usize].add(now).expect("added");
            rest = later;
        }
        let mut merged = parts.pop().expect("three");
        for part in parts {
            let count = merged.count() + part.count();
            merged.merge(part).expect("merged");
            assert_eq!(merged.count(), count);
        }
        let merged = merged.finish().expect("finished");
        assert_eq!(merged.count(), Some(4500));
        same("mean", merged.mean(), whole.mean(), 1e-11);
        same("covariance", merged.covariance(), whole.covariance(), 1e-11);
    }
}

/// Mean and covariance by their definitions.
fn in_two_passes(features: &[f32], dimensions: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = features.len() / dimensions;
    let mut mean = vec![0.0; dimensions];
    for row in features.chunks(dimensions) {
        mean.iter_mut().zip(row).for_each(|(mean, &value)| *mean += f64::from(value) / rows as f64);
    }
    let mut covariance = vec![0.0; dimensions * dimensions];
    for row in features.chunks(dimensions) {
        for (left, line) in covariance.chunks_mut(dimensions).enumerate() {
            for (right, sum) in line.iter_mut().enumerate() {
                let deviation = |index: usize| f64::from(row[index]) - mean[index];
                *sum += deviation(left) * deviation(right) / (rows - 1) as f64;
            }
        }
    }
    (mean, covariance)
}

#[test]
fn another_order_changes_the_score_alone() {
    reference_values();
    const DIMENSIONS: usize = 64;
    let order = |samples: &[f32], dimensions: usize| -> Vec<f32> {
        let rows = samples.len() / dimensions;
        let order = (0..4).flat_map(|first| (first..rows).step_by(4));
        order.flat_map(|row| samples[row * dimensions..][..dimensions].to_vec()).collect()
    };
    let reference = features("reference", 300, DIMENSIONS, 1.0, 0.0);
    let samples = features("samples", 240, DIMENSIONS, 1.15, 0.05);
    let others = order(&samples, DIMENSIONS);
    assert!(others.len() == samples.len() && others != samples);
    let to = |samples: &[f32]| distance(&distribution(&reference, DIMENSIONS), &distribution(samples, DIMENSIONS));
    close("FID", to(&others), to(&samples), 1e-12, to(&samples));
    let fractions =
        |samples: &[f32]| precision_recall(&reference, samples, DIMENSIONS, NEIGHBOURS, Device::Cpu).expect("computed");
    assert_eq!(fractions(&others), fractions(&samples));

    let samples = features("samples", 48, 2048, 1.15, 0.05);
    let (found, other) = (score(&samples, Some(12)), score(&order(&samples, 2048), Some(12)));
    assert!((found.score - other.score).abs() > 1e-3, "{found:?} {other:?}");
    assert!((found.chance - other.chance).abs() < 1e-12);
}

#[test]
fn a_sorted_set_is_known_by_its_repeats() {
    reference_values();
    // Eight kinds of image, six of each.
    let kinds = features("samples", 8, 2048, 1.15, 0.05);
    let set = |kind: fn(usize) -> usize| -> Vec<f32> {
        (0..48).flat_map(|row| kinds[kind(row) * 2048..][..2048].to_vec()).collect()
    };
    let (mixed, sorted) = (score(&set(|row| row % 8), None), score(&set(|row| row / 6), None));
    close("chance", mixed.chance, sorted.chance, 1e-12, 1.0);
    assert!(sorted.repeats >= 40.0 / 47.0 && mixed.repeats < 0.5 * sorted.repeats, "{mixed:?} {sorted:?}");
    assert_eq!(mixed.splits.len(), 1);
    close("one split knows no order", mixed.score, sorted.score, 1e-12, 1.0);
}

#[test]
fn sets_too_small_to_say_anything_of_are_refused_with_their_number() {
    reference_values();
    for rows in [0, 1] {
        let mut statistics = FeatureStatistics::new(5, Device::Cpu).expect("begun");
        statistics.add(&vec![1.0; rows * 5]).expect("added");
        let error = statistics.finish().expect_err("no covariance").to_string();
        assert!(error.contains(&format!("found {rows}, expected at least 2")), "{error}");
        let folder = tempfile::tempdir().expect("a folder");
        let mut score = InceptionScore::new(head(folder.path()), Some(10)).expect("begun");
        score.add(&vec![1.0; rows * 2048]).expect("added");
        let error = score.finish().expect_err("no score").to_string();
        assert!(error.contains(&format!("found {rows}, expected at least 2")), "{error}");
        let error =
            precision_recall(&[0.0; 25], &vec![1.0; rows * 5], 5, NEIGHBOURS, Device::Cpu).expect_err("no radius");
        assert!(error.to_string().contains(&format!("features of samples: found {rows} rows")), "{error}");
        let error =
            precision_recall(&vec![1.0; rows * 5], &[0.0; 25], 5, NEIGHBOURS, Device::Cpu).expect_err("no radius");
        assert!(error.to_string().contains(&format!("features of the reference: found {rows} rows")), "{error}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let error = InceptionScore::new(head(folder.path()), Some(0)).expect_err("no split").to_string();
    assert!(error.contains("images of a split"), "{error}");
    let mut statistics = FeatureStatistics::new(5, Device::Cpu).expect("begun");
    assert!(statistics.add(&[0.0; 7]).is_err(), "no whole rows");
    let other = FeatureStatistics::new(6, Device::Cpu).expect("begun");
    assert!(statistics.merge(other).expect_err("other features").to_string().contains("found 6, expected 5"));
    statistics.add(&[f32::NAN; 10]).expect("added");
    let error = statistics.finish().expect_err("no number").to_string();
    assert!(error.contains("mean of features: found NaN at 0"), "{error}");
    let error = precision_recall(&[f32::NAN; 25], &[0.0; 25], 5, NEIGHBOURS, Device::Cpu).expect_err("no number");
    assert!(error.to_string().contains("finite"), "{error}");
}

#[test]
fn a_distribution_that_cannot_be_is_refused_with_the_place() {
    let of = |mean: &[f64], covariance: &[f64]| FeatureDistribution::try_new(mean.to_vec(), covariance.to_vec(), None);
    of(&[0.0, 1.0], &[1.0, 0.5, 0.5 + 1e-9, 1.0]).expect("rounding is allowed");
    for (mean, covariance, part) in [
        (&[0.0, 1.0][..], &[1.0, 0.5, 0.4, 1.0][..], "0.4 at row 1, column 0 and 0.5 across the diagonal"),
        (&[0.0, 1.0], &[1.0, 0.0, f64::NAN, 1.0], "NaN at row 1, column 0"),
        (&[0.0, f64::INFINITY], &[1.0, 0.0, 0.0, 1.0], "inf at 1"),
        (&[0.0, 1.0], &[1.0, 0.0, 0.0, -1.0], "-1 at row 1, column 1"),
        (&[0.0, 1.0], &[1.0, 0.0, 0.0], "3 numbers beside a mean of 2"),
        (&[], &[], "0 numbers beside a mean of 0"),
    ] {
        let error = of(mean, covariance).expect_err("refused").to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    let one = of(&[0.0], &[1.0]).expect("a distribution");
    let two = of(&[0.0, 0.0], &[1.0, 0.0, 0.0, 1.0]).expect("a distribution");
    let error = frechet_distance(&one, &two, Device::Cpu).expect_err("other dimensions").to_string();
    assert!(error.contains("dimensions of features"), "{error}");
    // Correlated more than wholly: symmetric, and no covariance.
    let none = of(&[0.0, 0.0], &[1.0, 2.0, 2.0, 1.0]).expect("symmetric");
    let error = frechet_distance(&two, &none, Device::Cpu).expect_err("an eigenvalue of -1").to_string();
    assert!(error.contains("eigenvalue") && error.contains("-1"), "{error}");
    // Two normal distributions of one feature: (µ₁ - µ₂)² + (σ₁ - σ₂)².
    let narrow = of(&[3.0], &[0.25]).expect("a distribution");
    assert!((distance(&one, &narrow) - 9.25).abs() < 1e-12);
}
