//! One update of the tiny presets: forward, backward, clip, AdamW, average.

use divan::{Bencher, counter::ItemsCount};
use models::{
    Device, DeviceChoice, FrozenFiles, GeneratorData, GeneratorPreset, GeneratorSize, GeneratorTrainer,
    TokenizerPreset, TokenizerTrainer, Trainer,
};
use schemas::{PixelBatch, RandomStream, TokenBatch};

fn main() {
    divan::main();
}

fn batch(images: usize, side: usize) -> PixelBatch {
    let mut drawn = RandomStream::new(0, "pixels", 0);
    let pixels = (0..images * side * side * PixelBatch::CHANNELS).map(|_| drawn.below(256) as u8).collect();
    PixelBatch::try_new(pixels, images, images, side, side).expect("a batch")
}

#[divan::bench(args = [1, 2], sample_count = 10)]
fn tiny_tokenizer(bencher: Bencher, threads: usize) {
    models::initialise(&[DeviceChoice::Cpu], Some(threads)).expect("there is a processor");
    let TokenizerPreset { config, recipe, global_batch_size } = TokenizerPreset::named("tiny").expect("a preset");
    let batch = batch(global_batch_size, config.resolution());
    let mut trainer = TokenizerTrainer::new(config, recipe, &FrozenFiles::default(), Device::Cpu).expect("built");
    bencher
        .counter(ItemsCount::new(global_batch_size))
        .bench_local(|| trainer.step(std::slice::from_ref(&batch)).expect("a step").read().expect("read"));
}

fn generator_step(bencher: Bencher, threads: usize, size: GeneratorSize, data: GeneratorData, images: usize) {
    models::initialise(&[DeviceChoice::Cpu], Some(threads)).expect("there is a processor");
    let GeneratorPreset { config, mut recipe, .. } = GeneratorPreset::of_size(size, data).expect("a preset");
    recipe.precision = models::Precision::Fp32;
    let mut drawn = RandomStream::new(0, "tokens", 0);
    let codes = (0..images * data.tokens_per_image).map(|_| drawn.below(data.codebook_size as u64) as i16).collect();
    let tokens = TokenBatch::try_new(codes, data.tokens_per_image).expect("whole rows");
    let rows = [(tokens, vec![0; images])];
    let mut trainer = GeneratorTrainer::new(config, recipe, Device::Cpu).expect("built");
    bencher.counter(ItemsCount::new(images)).bench_local(|| trainer.step(&rows).expect("a step").read().expect("read"));
}

#[divan::bench(args = [1, 2], sample_count = 10)]
fn tiny_generator(bencher: Bencher, threads: usize) {
    let data = GeneratorData { codebook_size: 1024, classes: 10, tokens_per_image: 32 };
    generator_step(bencher, threads, GeneratorSize::Tiny, data, 64);
}

/// Too few images for a training, and enough for the shape of its products.
#[divan::bench(args = [2], sample_count = 3)]
fn gpt_b(bencher: Bencher, threads: usize) {
    let data = GeneratorData { codebook_size: 8192, classes: 1000, tokens_per_image: 128 };
    generator_step(bencher, threads, GeneratorSize::GptB, data, 4);
}
