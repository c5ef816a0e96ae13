//! Views a second through encoder and decoder, random weights. `cargo bench -p models`.

use models::{
    Device, DeviceChoice, LoadOptions, Precision, TokenizerConfig, TokenizerSize, VisualTokenizer, initialise,
};
use schemas::PixelBatch;

const VIEWS: usize = 4;

fn main() {
    divan::main();
}

fn tokenizer(preset: TokenizerSize, precision: Precision) -> VisualTokenizer {
    let device = initialise(&[DeviceChoice::Auto], None).expect("a device")[0];
    let options = LoadOptions { device, precision, name: None };
    VisualTokenizer::init(TokenizerConfig::preset(preset), 0, options).expect("built")
}

fn views() -> PixelBatch {
    let pixels = (0..VIEWS * 256 * 256 * 3).map(|place| (place * 31 % 251) as u8).collect();
    PixelBatch::try_new(pixels, VIEWS, VIEWS, 256, 256).expect("whole images")
}

/// Precisions that a CPU only imitates would measure the imitation.
fn native() -> Vec<Precision> {
    let device = initialise(&[DeviceChoice::Auto], None).map_or(Device::Cpu, |devices| devices[0]);
    Precision::ALL.into_iter().filter(|precision| precision.is_native(device)).collect()
}

#[divan::bench(args = native(), sample_count = 5)]
fn encode_large(bencher: divan::Bencher<'_, '_>, precision: &Precision) {
    let (tokenizer, views) = (tokenizer(TokenizerSize::Large, *precision), views());
    // The codes come back to the host, so the clock stops when the device has finished.
    bencher.counter(divan::counter::ItemsCount::new(VIEWS)).bench_local(|| tokenizer.encode(&views).expect("encodes"));
}

#[divan::bench(sample_count = 5)]
fn decode_small(bencher: divan::Bencher<'_, '_>) {
    let tokenizer = tokenizer(TokenizerSize::Small, Precision::Fp32);
    let tokens = tokenizer.encode(&views()).expect("encodes");
    bencher
        .counter(divan::counter::ItemsCount::new(VIEWS))
        .bench_local(|| tokenizer.decode(&tokens, 128, schemas::Rounding::Nearest).expect("decodes"));
}
