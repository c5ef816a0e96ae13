//! One update of the tiny preset: forward, backward, clip, AdamW, average.

use divan::{Bencher, counter::ItemsCount};
use models::{Device, DeviceChoice, FrozenFiles, TokenizerPreset, TokenizerTrainer};
use schemas::{PixelBatch, RandomStream};

fn main() {
    divan::main();
}

fn batch(images: usize, side: usize) -> PixelBatch {
    let mut drawn = RandomStream::new(0, "pixels", 0);
    let pixels = (0..images * side * side * PixelBatch::CHANNELS).map(|_| drawn.below(256) as u8).collect();
    PixelBatch::try_new(pixels, images, images, side, side).expect("a batch")
}

#[divan::bench(args = [1, 2], sample_count = 10)]
fn tiny(bencher: Bencher, threads: usize) {
    models::initialise(&[DeviceChoice::Cpu], Some(threads)).expect("there is a processor");
    let TokenizerPreset { config, recipe, images_a_step } = TokenizerPreset::named("tiny").expect("a preset");
    let batch = batch(images_a_step, config.resolution());
    let mut trainer = TokenizerTrainer::new(config, recipe, &FrozenFiles::default(), Device::Cpu).expect("built");
    bencher
        .counter(ItemsCount::new(images_a_step))
        .bench_local(|| trainer.step(std::slice::from_ref(&batch)).expect("a step").read().expect("read"));
}
