//! Scores from features: statistics of as many vectors as a protocol has, and what comes of them. `cargo bench -p models`.

use models::{
    Device, DeviceChoice, FeatureDistribution, FeatureStatistics, frechet_distance, initialise, precision_recall,
};

const DIMENSIONS: usize = 2048;
/// Images of a protocol.
const SET: usize = 50_000;

fn main() {
    divan::main();
}

fn device() -> Device {
    initialise(&[DeviceChoice::Auto], None).expect("a device")[0]
}

/// Numbers between 0 and 1 that repeat after more than a set, with variances that differ between features.
fn features(rows: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let numbers = (0..rows * DIMENSIONS).map(|place| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1_u32 << 24) as f32 / (1 + place % DIMENSIONS % 50) as f32
    });
    numbers.collect()
}

fn distribution(features: &[f32]) -> FeatureDistribution {
    let mut statistics = FeatureStatistics::new(DIMENSIONS, device()).expect("begun");
    statistics.add(features).expect("added");
    statistics.finish().expect("finished")
}

#[divan::bench(sample_count = 3)]
fn statistics_of_a_set(bencher: divan::Bencher<'_, '_>) {
    let features = features(SET, 1);
    bencher.counter(divan::counter::ItemsCount::new(SET)).bench_local(|| distribution(&features));
}

#[divan::bench(sample_count = 3)]
fn distance_of_two_sets(bencher: divan::Bencher<'_, '_>) {
    let (left, right) = (distribution(&features(5000, 1)), distribution(&features(5000, 2)));
    bencher.bench_local(|| frechet_distance(&left, &right, device()).expect("computed"));
}

#[divan::bench(sample_count = 1)]
fn precision_and_recall_of_10_000_each(bencher: divan::Bencher<'_, '_>) {
    let (reference, samples) = (features(10_000, 1), features(10_000, 2));
    bencher.bench_local(|| precision_recall(&reference, &samples, DIMENSIONS, 3, device()).expect("computed"));
}
