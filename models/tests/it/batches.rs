use crate::{device, fixture, images, noise, on_device, tokenizer};
use models::{Device, Precision, VisualTokenizer};
use schemas::PixelBatch;

#[test]
fn a_batch_of_n_equals_n_batches_of_one() {
    let tokenizer = tokenizer();
    let batch = noise(3, 256, 7);
    let together = tokenizer.encode(&batch).expect("encodes");
    for (row, codes) in together.iter_rows().enumerate() {
        let alone = PixelBatch::try_new(batch.image(row).to_vec(), 1, 1, 256, 256).expect("one image");
        assert_eq!(tokenizer.encode(&alone).expect("encodes").codes(), codes, "row {row}");
    }
}

#[test]
fn rows_of_padding_change_nothing_and_give_no_codes() {
    let tokenizer = tokenizer();
    let full = images();
    let first = tokenizer.encode(&full).expect("encodes");
    let mut padded = full.image(0).to_vec();
    padded.resize(full.pixels().len(), 0);
    let padded = PixelBatch::try_new(padded, 2, 1, 256, 256).expect("one image and padding");
    let codes = tokenizer.encode(&padded).expect("encodes");
    assert_eq!(codes.rows(), 1);
    assert_eq!(codes.iter_rows().next(), first.iter_rows().next());
}

#[test]
fn a_tokenizer_moves_to_the_thread_that_owns_it() {
    let tokenizer = tokenizer();
    let here = tokenizer.encode(&images()).expect("encodes");
    let there = std::thread::spawn(move || tokenizer.encode(&images()).expect("encodes")).join().expect("no panic");
    assert_eq!(here, there);
}

#[test]
fn pixels_of_another_size_are_refused() {
    let error = tokenizer().encode(&noise(1, 128, 1)).expect_err("the fixture takes 256 by 256").to_string();
    assert!(error.contains("128 by 128") && error.contains("256 by 256"), "{error}");
}

#[test]
fn codes_and_prefixes_that_cannot_be_are_refused() {
    let tokenizer = tokenizer();
    let codes = schemas::TokenBatch::try_new(vec![8192; 128], 128).expect("a row");
    let error = tokenizer
        .decode(&codes, 128, schemas::Rounding::Nearest)
        .expect_err("8,192 codes are counted from 0")
        .to_string();
    assert!(error.contains("8192"), "{error}");
    let codes = schemas::TokenBatch::try_new(vec![0; 128], 128).expect("a row");
    for keep in [0, 129] {
        let error = tokenizer.decode(&codes, keep, schemas::Rounding::Nearest).expect_err("1 to 128").to_string();
        assert!(error.contains("1 to 128"), "{error}");
    }
}

#[test]
fn bfloat16_gives_mostly_the_same_tokens() {
    let exact = tokenizer().encode(&images()).expect("encodes");
    for precision in [Precision::Bf16, Precision::Tf32] {
        let tokenizer = VisualTokenizer::load(&fixture(), on_device(precision)).expect("the fixture loads");
        let tokens = tokenizer.encode(&images()).expect("encodes");
        let equal = exact.codes().iter().zip(tokens.codes()).filter(|(left, right)| left == right).count();
        match precision {
            // On a CPU there is no TensorFloat-32.
            Precision::Tf32 if device() == Device::Cpu => assert_eq!(equal, 256),
            _ => assert!(equal >= 192, "{equal} of 256 tokens are equal in {precision}"),
        }
        assert_eq!(tokenizer.decode(&tokens, 128, schemas::Rounding::Nearest).expect("decodes").rows(), 2);
    }
}
