//! A generator's samples: the published code's where nothing is random, and each its own where something is.

use super::on_device;
use models::{Generator, GeneratorConfig, GeneratorData, GeneratorSize, ModelError, Precision};
use schemas::{Guidance, GuidanceSchedule, SampleBatch, Sampling, TokenBatch};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tch::{Kind, Tensor};

pub(super) fn fixture() -> PathBuf {
    super::fixture_folder("generator")
}

fn expected() -> BTreeMap<String, Tensor> {
    let file = fixture().join("expected.safetensors");
    Tensor::read_safetensors(file).expect("the fixture is part of the project").into_iter().collect()
}

fn generator() -> Generator {
    Generator::load(&fixture(), on_device(Precision::Fp32)).expect("the fixture loads")
}

fn greedy(scale: f64, schedule: GuidanceSchedule) -> Sampling {
    let guidance = Guidance { scale, schedule, interval: None };
    Sampling { seed: 0, temperature: 1.0, top_k: 1, top_p: 1.0, guidance }
}

#[test]
fn greedy_tokens_are_those_of_the_published_code_under_every_guidance() {
    let (mut generator, expected) = (generator(), expected());
    let batch = SampleBatch::try_new(vec![0, 1, 2, 3], vec![0, 1, 2, 9], 4).expect("fits");
    let steps = generator.config().step_count();
    for (name, sampling) in [
        ("unguided", greedy(1.0, GuidanceSchedule::Constant {})),
        ("constant_2", greedy(2.0, GuidanceSchedule::Constant {})),
        ("linear_2.5", greedy(2.5, GuidanceSchedule::Linear {})),
        ("cosine_2.5", greedy(2.5, GuidanceSchedule::Cosine {})),
        ("step_3.75_start_0.25", greedy(3.75, GuidanceSchedule::Step { start: 0.25, floor: 1.0 })),
    ] {
        let tokens = &expected[&format!("greedy.{name}.tokens")];
        let tokens = Vec::<i32>::try_from(tokens.view([-1])).expect("a vector");
        let found = generator.sample(&batch, &sampling).expect("drawn");
        assert!(found.codes().iter().map(|&code| i32::from(code)).eq(tokens), "{name}");
        let scales = Vec::<f32>::try_from(&expected[&format!("greedy.{name}.scales_after_first")]).expect("a vector");
        assert_eq!(scales.len(), steps - 1);
        for (step, scale) in (1..steps).zip(scales) {
            let found = sampling.guidance.scale_at(step, steps);
            assert!((found - f64::from(scale)).abs() < 1e-6, "{name}, step {step}: {found} {scale}");
        }
    }
}

fn rows(tokens: &TokenBatch) -> Vec<Vec<i16>> {
    tokens.iter_rows().map(<[i16]>::to_vec).collect()
}

#[test]
fn a_sample_is_the_same_in_other_company_and_at_another_place() {
    let mut generator = generator();
    for sampling in [
        Sampling::paper(5),
        Sampling { top_p: 1.0, ..Sampling::paper(5) },
        Sampling {
            top_k: 20,
            temperature: 0.9,
            guidance: greedy(1.0, GuidanceSchedule::Constant {}).guidance,
            ..Sampling::paper(5)
        },
    ] {
        let mut draw = |samples: Vec<u64>, classes: Vec<i32>| {
            let batch = SampleBatch::try_new(samples, classes, 4).expect("fits");
            rows(&generator.sample(&batch, &sampling).expect("drawn"))
        };
        let first = draw(vec![10, 11, 12, 13], vec![3, 3, 4, 5]);
        let other = draw(vec![13, 40, 10, 41], vec![5, 0, 3, 9]);
        assert_eq!((&first[0], &first[3]), (&other[2], &other[0]));
        // Padding is not returned, and a batch that was sampled before leaves nothing behind.
        assert_eq!(draw(vec![12, 11], vec![4, 3]), [first[2].clone(), first[1].clone()]);
        // Number, class and seed each make another sample.
        assert_ne!(first[0], first[1]);
        assert_ne!(draw(vec![10], vec![4])[0], first[0]);
        let batch = SampleBatch::try_new(vec![10], vec![3], 4).expect("fits");
        let seeded = Sampling { seed: 6, ..sampling.clone() };
        assert_ne!(rows(&generator.sample(&batch, &seeded).expect("drawn"))[0], first[0]);
    }
}

/// The null half is dropped after the last guided step and does not decide anything before the first: a schedule that is guided only in the
/// middle equals, up to there and nowhere later, an unguided one.
#[test]
fn guidance_acts_from_its_first_step_on() {
    let mut generator = generator();
    let batch = SampleBatch::try_new(vec![0, 1], vec![1, 2], 2).expect("fits");
    let mut draw = |schedule, scale| {
        let guidance = Guidance { scale, schedule, interval: None };
        rows(&generator.sample(&batch, &Sampling { guidance, ..Sampling::paper(1) }).expect("drawn"))
    };
    let unguided = draw(GuidanceSchedule::Constant {}, 1.0);
    // Steps 4 and 5 of 9: tokens 4 to 15.
    let middle = draw(GuidanceSchedule::Rectangular { start: 0.5, end: 0.625, floor: 1.0 }, 6.0);
    for (unguided, middle) in unguided.iter().zip(&middle) {
        assert_eq!(unguided[..4], middle[..4]);
        assert_ne!(unguided[4..16], middle[4..16]);
    }
}

#[test]
fn classes_and_settings_that_cannot_be_are_refused() {
    let mut generator = generator();
    let mut refused = |class: i32, sampling: &Sampling| {
        let batch = SampleBatch::try_new(vec![0], vec![class], 1).expect("fits");
        generator.sample(&batch, sampling).expect_err("refused").to_string()
    };
    for class in [-1, 10, 1000] {
        let error = refused(class, &Sampling::paper(0));
        assert!(error.contains(&class.to_string()) && error.contains("0 to 9"), "{error}");
    }
    let error = refused(0, &Sampling { top_p: 0.0, ..Sampling::paper(0) });
    assert!(error.contains("top-p"), "{error}");

    let text = std::fs::read_to_string(fixture().join("config.json")).expect("reads");
    let text = text.replace("\"class_dropout_prob\": 0.1", "\"class_dropout_prob\": 0.0");
    let config = GeneratorConfig::from_json(&text, Path::new("test")).expect("sound");
    let mut generator = Generator::init(config, 1, on_device(Precision::Fp32)).expect("built");
    let batch = SampleBatch::try_new(vec![0], vec![0], 1).expect("fits");
    let error = generator.sample(&batch, &Sampling::paper(0)).expect_err("no null class").to_string();
    assert!(error.contains("null class"), "{error}");
    generator.sample(&batch, &greedy(1.0, GuidanceSchedule::Constant {})).expect("unguided");
}

#[test]
fn rows_that_are_not_the_generators_are_refused() {
    let generator = generator();
    let row = |code: i16, tokens: usize| TokenBatch::try_new(vec![code; tokens], tokens).expect("a row");
    for (tokens, classes, word) in [
        (row(0, 64), vec![0], "64"),
        (row(512, 128), vec![0], "code 512"),
        (row(-1, 128), vec![0], "code -1"),
        (row(0, 128), vec![0, 1], "classes"),
        (row(0, 128), vec![11], "0 to 10"),
    ] {
        let error = generator.logits(&tokens, &classes).expect_err("refused").to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    assert_eq!(generator.logits(&row(0, 128), &[10]).expect("the null class").size(), [1, 128, 512]);
}

#[test]
fn a_folder_loads_strictly_and_saves_again() {
    let out = tempfile::tempdir().expect("a folder");
    let mut first = generator();
    let copy = out.path().join("copy");
    first.save(&copy).expect("saved");
    let mut again = Generator::load(&copy, on_device(Precision::Fp32)).expect("loads");
    assert_eq!((again.weights_sha256(), again.name()), (first.weights_sha256(), "copy"));
    assert_eq!(again.config(), first.config());
    let batch = SampleBatch::try_new(vec![3], vec![7], 1).expect("fits");
    let sampling = Sampling::paper(2);
    assert_eq!(again.sample(&batch, &sampling).expect("drawn"), first.sample(&batch, &sampling).expect("drawn"));

    let weights = copy.join("model.safetensors");
    let mut tensors: BTreeMap<_, _> = Tensor::read_safetensors(&weights).expect("reads").into_iter().collect();
    tensors.remove("norm.weight");
    tensors.insert("norm.bias".to_owned(), Tensor::zeros([64], (Kind::Float, tch::Device::Cpu)));
    Tensor::write_safetensors(&tensors.into_iter().collect::<Vec<_>>(), &weights).expect("written");
    let error = Generator::load(&copy, on_device(Precision::Fp32)).expect_err("must not load");
    let text = error.to_string();
    assert!(matches!(error, ModelError::Tensors { .. }), "{text}");
    assert!(text.contains("norm.weight is missing") && text.contains("norm.bias is not part"), "{text}");
}

/// An output layer of zeros: every code is as likely as any other, and all are drawn.
#[test]
fn a_random_generator_draws_all_codes_alike() {
    let data = GeneratorData { codebook_size: 16, classes: 3, tokens_per_image: 32 };
    let config = GeneratorConfig::of_size(GeneratorSize::Tiny, data).expect("sound");
    let mut generator = Generator::init(config, 1, on_device(Precision::Fp32)).expect("built");
    let batch = SampleBatch::try_new((0..64).collect(), vec![0; 64], 64).expect("fits");
    let tokens = generator.sample(&batch, &Sampling { top_p: 1.0, ..Sampling::paper(0) }).expect("drawn");
    let mut counts = [0_i64; 16];
    tokens.codes().iter().for_each(|&code| counts[code as usize] += 1);
    // Five standard deviations of a binomial count of 2,048 / 16.
    assert!(counts.iter().all(|count| (count - 128).abs() < 55), "{counts:?}");
}

#[test]
fn half_precision_draws_tokens_too() {
    let batch = SampleBatch::try_new(vec![0, 1], vec![0, 1], 2).expect("fits");
    let exact = generator().sample(&batch, &greedy(2.0, GuidanceSchedule::Constant {})).expect("drawn");
    let mut rounded = Generator::load(&fixture(), on_device(Precision::Bf16)).expect("loads");
    let tokens = rounded.sample(&batch, &greedy(2.0, GuidanceSchedule::Constant {})).expect("drawn");
    // One flipped token changes what follows it; the first ones have nothing before them.
    let equal = exact.iter_rows().zip(tokens.iter_rows()).filter(|(left, right)| left[0] == right[0]).count();
    assert_eq!((tokens.rows(), equal), (2, 2));
}
