use crate::{difference, expected, images, tokenizer};
use schemas::TokenBatch;

/// Allowed difference from the published float32 numbers.
const TOLERANCE: f64 = 1e-4;

#[test]
fn every_stage_of_encoding_equals_the_published_one() {
    let expected = expected();
    let stages = tokenizer().encode_stages(&images()).expect("encodes");
    let pixel_features = stages.pixel_features.expect("the fixture has a convolutional encoder");
    let found = difference(&pixel_features, &expected["pixel_features"]);
    assert!(found < TOLERANCE, "pixel features: {found}");
    for (level, tokens) in stages.image_tokens.iter().enumerate() {
        let found = difference(tokens, &expected[&format!("image_tokens.{level}")]);
        assert!(found < TOLERANCE, "image tokens of level {level}: {found}");
    }
    assert_eq!(stages.image_tokens.len(), 4);
    // Published as [B, channels, 1, L].
    let found = difference(&stages.z.transpose(1, 2).unsqueeze(2), &expected["z"]);
    assert!(found < TOLERANCE, "z: {found}");
    let found = difference(&stages.quantized.gap, &expected["gap"]);
    assert!(found < TOLERANCE, "gap: {found}");
    let found = difference(&stages.quantized.loss.view([1]), &expected["quantizer_loss"]);
    assert!(found < TOLERANCE, "quantizer loss: {found}");
}

#[test]
fn all_tokens_equal_the_published_ones() {
    let tokens = tokenizer().encode(&images()).expect("encodes");
    let published: Vec<i32> = expected()["tokens"].view([-1]).try_into().expect("integers");
    let found: Vec<i32> = tokens.codes().iter().map(|&code| i32::from(code)).collect();
    assert_eq!(found, published);
    assert_eq!((tokens.rows(), tokens.tokens_per_image()), (2, 128));
}

#[test]
fn decoding_from_any_prefix_equals_the_published_image() {
    let (tokenizer, expected) = (tokenizer(), expected());
    let codes: Vec<i64> = expected["tokens"].to_kind(tch::Kind::Int64).view([-1]).try_into().expect("integers");
    let tokens = TokenBatch::try_from_codes(&codes, 128, 8192).expect("codes of the fixture");
    for keep in [4, 8, 16, 32, 64, 128] {
        let pixels = tokenizer.decode_unrounded(&tokens, keep).expect("decodes");
        let found =
            difference(&pixels.slice(2, None, None, 4).slice(3, None, None, 4), &expected[&format!("decoded.{keep}")]);
        assert!(found < TOLERANCE, "from {keep} tokens: {found}");
    }
}

#[test]
fn decoded_bytes_are_rounded_and_clamped() {
    let tokenizer = tokenizer();
    let tokens = tokenizer.encode(&images()).expect("encodes");
    let exact = tokenizer.decode_unrounded(&tokens, 128).expect("decodes").permute([0, 2, 3, 1]).contiguous();
    let exact: Vec<f32> = exact.view([-1]).try_into().expect("floats");
    let rounded = tokenizer.decode(&tokens, 128, schemas::Rounding::Nearest).expect("decodes");
    assert_eq!((rounded.rows(), rounded.filled(), rounded.height(), rounded.width()), (2, 2, 256, 256));
    for (value, &byte) in exact.iter().zip(rounded.pixels()) {
        assert_eq!((value.clamp(0.0, 1.0) * 255.0).round_ties_even(), f32::from(byte));
    }
}
