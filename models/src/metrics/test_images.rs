//! Images that Python draws alike, for values computed there.

use schemas::PixelBatch;
use tch::{Kind, Tensor};

/// Images and what could be reconstructed from them, worse from one to the next: bytes `[B, 3, H, W]`. `size` is (B, H, W).
pub(super) fn pair((images, height, width): (i64, i64, i64)) -> (Tensor, Tensor) {
    let (mut original, mut reconstructed) = (Vec::new(), Vec::new());
    for (b, c) in (0..images).flat_map(|b| (0..3).map(move |c| (b, c))) {
        for (h, w) in (0..height).flat_map(|h| (0..width).map(move |w| (h, w))) {
            let value = match (h / 5 + w / 9 + b) % 3 {
                0 => (h * 7 + w * 13 + c * 50 + b * 31 + h * w % 17 * 5) % 256,
                _ => (h * 3 + w * 2 + c * 20 + b * 40) % 256,
            };
            let noise = (((h * 5 + w * 3 + c * 11 + b * 7) % 41 - 20) * (b + 1)).div_euclid(2);
            original.push(value);
            reconstructed.push((value + noise).clamp(0, 255));
        }
    }
    let bytes = |values: &[i64]| Tensor::from_slice(values).to_kind(Kind::Uint8).view([images, 3, height, width]);
    (bytes(&original), bytes(&reconstructed))
}

/// The tensor as a batch that travels, with `padding` rows after it.
pub(super) fn batch(images: &Tensor, padding: usize) -> PixelBatch {
    let (filled, _, height, width) = images.size4().expect("[B, 3, H, W]");
    let [filled, height, width] = [filled, height, width].map(|size| size as usize);
    let bytes = images.permute([0, 2, 3, 1]).contiguous().flatten(0, -1);
    let mut bytes = Vec::<u8>::try_from(bytes).expect("bytes");
    bytes.resize((filled + padding) * height * width * PixelBatch::CHANNELS, 0);
    PixelBatch::try_new(bytes, filled + padding, filled, height, width).expect("a batch")
}

/// The numbers of a float64 tensor with one axis.
pub(super) fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor).expect("a float64 tensor with one axis")
}
