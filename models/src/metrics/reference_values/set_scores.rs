//! Scores of two sets of features, as `set_scores.py` computes them: plain NumPy, and torch-fidelity's kernel distance.

use super::{close, features, number, numbers, reference_values, sizes};
use crate::{
    Device, FeatureRows, FrechetInfinityOptions, KernelDistanceOptions, MongeDistanceOptions, authenticity_percent,
    density_coverage, frechet_distance, frechet_infinity, kernel_distance,
    metrics::test_features::{distribution, rows, standard},
    monge_distance, nearest_images, vendi_score,
};
use serde_json::Value;

/// Both are float64 over the same float32 features.
const TOLERANCE: f64 = 1e-10;
/// torch-fidelity computes kernels in float32, whose sums differ by less than their distance.
const FIDELITY_TOLERANCE: f64 = 1e-3;
/// Projections are float32.
const MONGE_TOLERANCE: f64 = 1e-5;
const NEIGHBOURS: usize = 5;

fn values() -> Value {
    // Starts libtorch.
    reference_values();
    serde_json::from_str(include_str!("set_scores.json")).expect("JSON")
}

#[test]
fn scores_of_sets_are_those_of_plain_formulas() {
    let values = values();
    let seed = values["seed"].as_u64().expect("a number");
    for case in values["cases"].as_array().expect("cases") {
        let dimensions = case["dimensions"].as_u64().expect("a number") as usize;
        let [count, sampled] = sizes::<2>(&case["rows"]);
        let reference = features("reference", count, dimensions, 1.0, 0.0);
        let samples = features("samples", sampled, dimensions, 1.15, 0.05);
        let (real, made) = (rows(&reference, dimensions), rows(&samples, dimensions));
        let named = |what: &str| format!("{what} of {dimensions} features");

        let options = KernelDistanceOptions { subsets: 10, subset_size: 60, seed };
        let found = kernel_distance(real, made, &options, Device::Cpu).expect("computed");
        for (who, tolerance) in [("numpy", TOLERANCE), ("fidelity", FIDELITY_TOLERANCE)] {
            let expected = &case["kernel"][who];
            let (mean, deviation) = (number(&expected["mean"]), number(&expected["deviation"]));
            close(&named(&format!("{who}, kernel distance")), found.mean, mean, tolerance, mean.abs());
            close(&named(&format!("{who}, its deviation")), found.deviation, deviation, tolerance, deviation);
        }

        let options = MongeDistanceOptions { directions: 150, seed };
        let found = monge_distance(real, made, &options, Device::Cpu).expect("computed");
        let expected = number(&case["monge"]);
        close(&named("Monge distance"), found, expected, MONGE_TOLERANCE, expected);

        let found = density_coverage(real, made, NEIGHBOURS, Device::Cpu).expect("computed");
        close(&named("density"), found.density, number(&case["density"]), 1e-12, 1.0);
        close(&named("coverage"), found.coverage, number(&case["coverage"]), 1e-12, 1.0);

        let of_reference = distribution(&reference, dimensions);
        let options = FrechetInfinityOptions { seed, ..FrechetInfinityOptions::default() };
        let found = frechet_infinity(&of_reference, made, &options, Device::Cpu).expect("computed");
        let expected = case["infinity"]["points"].as_array().expect("points");
        assert_eq!(found.points.len(), expected.len());
        let most = number(&expected[0][1]);
        for ((size, distance), expected) in found.points.iter().zip(expected) {
            assert_eq!(Some(*size), expected[0].as_u64());
            close(&named("distance"), *distance, number(&expected[1]), TOLERANCE, most);
        }
        close(&named("extrapolated distance"), found.distance, number(&case["infinity"]["distance"]), 1e-8, most);

        let found = vendi_score(made, Device::Cpu).expect("computed");
        close(&named("Vendi score"), found, number(&case["vendi"]), TOLERANCE, found);
        let found = authenticity_percent(real, made, Device::Cpu).expect("computed");
        close(&named("authentic samples"), found, number(&case["authenticity"]), 1e-12, 100.0);
        let found = nearest_images(real, rows(&samples[..20 * dimensions], dimensions), 3, Device::Cpu);
        let found = found.expect("computed");
        let expected = numbers(&case["nearest"]["places"]).into_iter().zip(numbers(&case["nearest"]["distances"]));
        for (near, (place, distance)) in found.iter().zip(expected) {
            assert_eq!((near.len(), near[0].place as f64), (3, place));
            close(&named("nearest"), near[0].distance, distance, TOLERANCE, distance);
            assert!(near.is_sorted_by(|one, other| one.distance <= other.distance), "{near:?}");
        }
    }
}

#[test]
fn another_order_changes_nothing_but_which_images_are_drawn() {
    reference_values();
    const DIMENSIONS: usize = 20;
    let reference = features("reference", 120, DIMENSIONS, 1.0, 0.0);
    let samples = features("samples", 100, DIMENSIONS, 1.15, 0.05);
    let others: Vec<f32> = samples.chunks(DIMENSIONS).rev().flatten().copied().collect();
    let (real, made, reversed) = (rows(&reference, DIMENSIONS), rows(&samples, DIMENSIONS), rows(&others, DIMENSIONS));
    let counted = |samples| density_coverage(real, samples, NEIGHBOURS, Device::Cpu).expect("computed");
    assert_eq!(counted(made), counted(reversed));
    let authentic = |samples| authenticity_percent(real, samples, Device::Cpu).expect("computed");
    assert_eq!(authentic(made), authentic(reversed));
    let vendi = |samples| vendi_score(samples, Device::Cpu).expect("computed");
    close("Vendi score", vendi(reversed), vendi(made), TOLERANCE, vendi(made));
    // A subset of all images is the same set in another order.
    let whole = |samples| {
        let options = KernelDistanceOptions { subsets: 1, subset_size: 100, seed: 3 };
        kernel_distance(made, samples, &options, Device::Cpu).expect("computed").mean
    };
    close("kernel distance", whole(reversed), whole(made), 1e-12, 1.0);
    let options = MongeDistanceOptions { directions: 40, seed: 3 };
    let moved = |left, right| monge_distance(left, right, &options, Device::Cpu).expect("computed");
    assert!(moved(made, reversed) < 1e-9 && moved(made, made) == 0.0);
    let others: Vec<f32> = reference.chunks(DIMENSIONS).rev().flatten().copied().collect();
    let reversed = rows(&others, DIMENSIONS);
    assert_ne!(moved(real, made), moved(reversed, made), "other images of the larger set are drawn");
    // Twice the same images are no more than once for what counts directions.
    let twice = [samples.as_slice(), &samples].concat();
    close("Vendi score of two copies", vendi(rows(&twice, DIMENSIONS)), vendi(made), TOLERANCE, vendi(made));
}

#[test]
fn a_shift_has_the_distance_that_it_must_have() {
    reference_values();
    const DIMENSIONS: usize = 8;
    const ROWS: usize = 4_000;
    let normal = |index: u64, shift: f64| -> Vec<f32> {
        let numbers = schemas::RandomStream::new(5, "normal features", index).normals(ROWS * DIMENSIONS);
        numbers.into_iter().map(|number| (number + shift) as f32).collect()
    };
    let (here, there) = (normal(0, 0.0), normal(1, 1.0));
    let (real, made) = (rows(&here, DIMENSIONS), rows(&there, DIMENSIONS));
    let of_reference = standard(DIMENSIONS);
    // |µ₁ - µ₂|² = 8, both covariances being the identity.
    let found = frechet_infinity(&of_reference, made, &FrechetInfinityOptions::default(), Device::Cpu);
    let found = found.expect("computed").distance;
    assert!((found - 8.0).abs() < 0.3, "{found}");
    // The same along every direction, times 3 D over D.
    let options = MongeDistanceOptions { directions: 2_000, seed: 1 };
    let found = monge_distance(real, made, &options, Device::Cpu).expect("computed");
    assert!((found - 24.0).abs() < 1.5, "{found}");
    // E (x·y / D + 1)³ by the moments of x·y: 1 + 3 / D for two of one set around 0; of the set around 1, with |µ|² = D, it is
    // E (2 + t)³ with E t² = (D + 2 D) / D²; of one of each, x·y has the variance 2 D.
    let size = DIMENSIONS as f64;
    let (within, shifted, between) = (1.0 + 3.0 / size, 8.0 + 6.0 * 3.0 / size, 1.0 + 3.0 * 2.0 / size);
    let third = third_moment_of_shifted(size);
    let expected = within + shifted + third - 2.0 * between;
    let options = KernelDistanceOptions { subsets: 20, ..KernelDistanceOptions::default() };
    let found = kernel_distance(real, made, &options, Device::Cpu).expect("computed").mean;
    assert!((found - expected).abs() < 0.05 * expected, "{found} and {expected}");
}

/// E t³ of t = (µ·a + µ·b + a·b) / D with |µ|² = D and normal a and b: 6 E (µ·a)(µ·b)(a·b) / D³.
fn third_moment_of_shifted(size: f64) -> f64 {
    6.0 * size / size.powi(3)
}

#[test]
fn copies_of_training_images_are_not_authentic() {
    reference_values();
    const DIMENSIONS: usize = 12;
    let training = features("reference", 80, DIMENSIONS, 1.0, 0.0);
    let others = features("samples", 80, DIMENSIONS, 1.0, 0.0);
    let authentic = |samples: &[f32]| {
        authenticity_percent(rows(&training, DIMENSIONS), rows(samples, DIMENSIONS), Device::Cpu).expect("computed")
    };
    assert_eq!(authentic(&training), 0.0);
    assert!(authentic(&others) > 20.0, "{}", authentic(&others));
    let found = nearest_images(rows(&training, DIMENSIONS), rows(&training, DIMENSIONS), 1, Device::Cpu);
    for (row, near) in found.expect("computed").iter().enumerate() {
        assert_eq!((near[0].place, near[0].distance), (row, 0.0));
    }
}

#[test]
fn what_cannot_be_scored_is_refused_by_name() {
    reference_values();
    const DIMENSIONS: usize = 5;
    let many = features("reference", 40, DIMENSIONS, 1.0, 0.0);
    let (all, few) = (rows(&many, DIMENSIONS), rows(&many[..15], DIMENSIONS));
    let other = rows(&many, 4);
    let device = Device::Cpu;
    let kernel = |subsets, subset_size| KernelDistanceOptions { subsets, subset_size, seed: 0 };
    let of_all = distribution(&many, DIMENSIONS);
    let sizes = |sizes| FrechetInfinityOptions { sizes, seed: 0 };
    let monge = MongeDistanceOptions::default();
    for (found, words) in [
        (kernel_distance(all, few, &kernel(1, 10), device).err(), "features: found 3 rows, expected at least 10"),
        (kernel_distance(few, all, &kernel(1, 10), device).err(), "found 3 rows"),
        (kernel_distance(all, all, &kernel(0, 10), device).err(), "subsets for the kernel distance: found 0"),
        (kernel_distance(all, all, &kernel(1, 1), device).err(), "found 1, expected at least 2"),
        (kernel_distance(all, other, &kernel(1, 10), device).err(), "dimensions of features: found 4, expected 5"),
        (monge_distance(all, other, &monge, device).err(), "dimensions of features"),
        (monge_distance(all, all, &MongeDistanceOptions { directions: 0, seed: 0 }, device).err(), "directions"),
        (density_coverage(few, all, NEIGHBOURS, device).err(), "found 3 rows, expected at least 6"),
        (density_coverage(all, other, NEIGHBOURS, device).err(), "dimensions of features"),
        (frechet_infinity(&of_all, few, &sizes(15), device).err(), "found 3 rows, expected at least 17"),
        (frechet_infinity(&of_all, all, &sizes(1), device).err(), "sizes"),
        (frechet_infinity(&of_all, other, &sizes(3), device).err(), "dimensions of features"),
        (authenticity_percent(rows(&many[..5], DIMENSIONS), all, device).err(), "found 1 rows, expected at least 2"),
        (nearest_images(few, all, 4, device).err(), "found 3 rows, expected at least 4"),
        (nearest_images(other, all, 1, device).err(), "dimensions of features"),
        (vendi_score(rows(&[0.0; 10], DIMENSIONS), device).err(), "nothing but 0 in row 0"),
        (FeatureRows::try_new("features", &[0.0; 7], DIMENSIONS).err(), "found 7, expected rows of 5"),
        (FeatureRows::try_new("features", &[1.0, f32::NAN], 1).err(), "found NaN at row 1, column 0"),
        (FeatureRows::try_new("features", &[1.0, 2.0, f32::INFINITY, 0.0], 2).err(), "found inf at row 1, column 0"),
    ] {
        let error = found.unwrap_or_else(|| panic!("{words}: not refused")).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let exact = frechet_distance(&of_all, &of_all, device).expect("computed");
    assert!(exact < 1e-9);
}
