//! Decoding and cropping on one core, in images and in bytes a second: `cargo bench -p pipeline --bench decode_crop`.
//!
//! The image is the size of ImageNet's most common one, 500 by 375 pixels, with the texture of a photograph at about 2.4 bits
//! a pixel, which is where decoding costs what it costs there.

use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use pipeline::{DecodeLimits, crop_views, decode_image};
use schemas::Crop;

const LIMITS: DecodeLimits = DecodeLimits { max_bytes: 64 << 20, max_pixels: 178_956_970 };

/// 500 by 375 pixels, quality 90, chroma halved both ways.
static JPEG: &[u8] = include_bytes!("../../tests/fixtures/preprocess/bench/500x375.jpg");

fn main() {
    divan::main();
}

fn crop(name: &str) -> Crop {
    name.parse().expect("a crop's name")
}

#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(1_usize))
        .counter(BytesCount::of_slice(JPEG))
        .bench(|| decode_image(JPEG, &LIMITS).expect("the image is sound"));
}

#[divan::bench(args = ["adm-center-256", "adm-ten-crop-281-256", "torchvision-center-256"])]
fn crop_alone(bencher: Bencher<'_, '_>, name: &str) {
    let (image, crop) = (decode_image(JPEG, &LIMITS).expect("the image is sound"), crop(name));
    let mut views = Vec::new();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        views.clear();
        crop_views(&image, crop, &mut views);
        divan::black_box(views.len())
    });
}

#[divan::bench(args = ["adm-center-256", "adm-ten-crop-281-256", "torchvision-center-256"])]
fn decode_and_crop(bencher: Bencher<'_, '_>, name: &str) {
    let crop = crop(name);
    let mut views = Vec::new();
    bencher.counter(ItemsCount::new(1_usize)).counter(BytesCount::of_slice(JPEG)).bench_local(|| {
        views.clear();
        crop_views(&decode_image(JPEG, &LIMITS).expect("the image is sound"), crop, &mut views);
        divan::black_box(views.len())
    });
}
