//! Processes that train together end with what one process of all their batches ends with, and miss each other when one is lost.
//!
//! Here the processes are threads, each with its own trainer, which meet in one store as processes do.

use super::{generator_training, training};
use models::{
    Device, GeneratorRecipe, ModelError, Precision, ProcessGroup, ReconstructionMeter, Rendezvous, StepReport,
    StoreServer, TokenMeter, TokenizerRecipe, Trainer,
};
use schemas::{TokenBatch, TokenLevels};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

const STEPS: usize = 20;

/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(120);

fn rendezvous(store: &StoreServer, rank: usize, world_size: usize) -> Rendezvous {
    Rendezvous { host: "localhost".to_owned(), port: store.port(), rank, world_size, is_open: true }
}

/// What each of `world_size` processes gives back.
fn together<R: Send>(world_size: usize, work: impl Fn(&Arc<ProcessGroup>) -> R + Sync) -> Vec<R> {
    let store = StoreServer::open().expect("a store");
    std::thread::scope(|threads| {
        let process = |rank| {
            let rendezvous = rendezvous(&store, rank, world_size);
            let work = &work;
            threads.spawn(move || {
                let group = ProcessGroup::meet(&rendezvous, Device::Cpu, PATIENCE).expect("the others");
                // All of them have met before one may end.
                group.max(0).expect("all are there");
                work(&group)
            })
        };
        let processes: Vec<_> = (0..world_size).map(process).collect();
        processes.into_iter().map(|process| process.join().expect("no panic")).collect()
    })
}

/// Losses of every step, and the files of the weights, the average and the optimizer.
type Trained = (Vec<Vec<(&'static str, f64)>>, Vec<(String, Vec<u8>)>);

fn train<T: Trainer>(trainer: &mut T, steps: usize, batches: impl Fn(usize) -> Vec<T::Batch>) -> Trained {
    let losses = (0..steps).map(|step| scalars(&trainer.step(&batches(step)).expect("a step"))).collect();
    let folder = tempfile::tempdir().expect("a folder");
    trainer.save(folder.path()).expect("saved");
    (losses, files(folder.path()))
}

/// What a step says of itself; gradients that overflowed have no norm.
fn scalars(report: &StepReport) -> Vec<(&'static str, f64)> {
    let mut scalars = report.read().expect("read");
    if is_left_out(&scalars) {
        scalars.retain(|(name, _)| *name != "gradient_norm");
    }
    scalars
}

fn is_left_out(scalars: &[(&'static str, f64)]) -> bool {
    scalars.contains(&(StepReport::OVERFLOWED, 1.0))
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read(&path).expect("read"))
    };
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(file).collect();
    files.sort();
    files
}

/// How far several processes may be from one: losses relative to theirs, and weights, all of them together, to what there is.
#[derive(Clone, Copy)]
struct Tolerance {
    losses: f64,
    weights: f64,
}

const FLOAT32: Tolerance = Tolerance { losses: 1e-5, weights: 1e-4 };
/// A weight that is rounded up instead of down makes a difference of a thousandth (float16) or more.
const HALF: Tolerance = Tolerance { losses: 1e-2, weights: 1e-2 };

/// `world_size` processes against one that takes all of their batches, whose losses are given back; `batches` gives those of a step.
fn assert_equal_to_one_process<T: Trainer>(
    (world_size, steps, tolerance): (usize, usize, Tolerance),
    trainer: impl Fn() -> T + Sync,
    batches: impl Fn(usize) -> Vec<T::Batch> + Sync,
) -> Vec<Vec<(&'static str, f64)>> {
    let (expected, one) = train(&mut trainer(), steps, &batches);
    let found = together(world_size, |group| {
        let mut trainer = trainer();
        trainer.distribute(group, 0).expect("the same network everywhere");
        let of_this = |step: usize| {
            let all = batches(step);
            let each = all.len() / group.world_size();
            all.into_iter().skip(group.rank() * each).take(each).collect()
        };
        train(&mut trainer, steps, of_this)
    });
    for (losses, files) in &found[1..] {
        assert!(*losses == found[0].0, "all processes read the same losses");
        for ((name, other), (_, first)) in files.iter().zip(&found[0].1) {
            assert!(other == first, "{name} differs between processes");
        }
    }
    assert_weights_close(&found[0].1, &one, tolerance);
    for (step, (found, expected)) in found[0].0.iter().zip(&expected).enumerate() {
        let names = |scalars: &[(&'static str, f64)]| scalars.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(found), names(expected));
        for ((name, found), (_, expected)) in found.iter().zip(expected) {
            let difference = (found - expected).abs() / expected.abs().max(1e-3);
            assert!(difference < tolerance.losses, "step {step}, {name}: {found}, and {expected} in one process");
        }
    }
    expected
}

/// Weights of two runs, all of them together: the optimizer divides gradients by their size, and where that is nothing but rounding, so is the
/// step.
fn assert_weights_close(found: &[(String, Vec<u8>)], expected: &[(String, Vec<u8>)], tolerance: Tolerance) {
    let of = |files: &[(String, Vec<u8>)]| {
        let (_, bytes) = files.iter().find(|(name, _)| name == "model.safetensors").expect("weights");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        let tensors = tch::Tensor::read_safetensors(file.path()).expect("a safetensors file");
        tensors.into_iter().collect::<BTreeMap<_, _>>()
    };
    let (found, expected) = (of(found), of(expected));
    let (mut difference, mut whole) = (0.0, 0.0);
    for ((name, found), (other, expected)) in found.iter().zip(&expected) {
        assert_eq!(name, other);
        difference += (found - expected).square().sum(tch::Kind::Double).double_value(&[]);
        whole += expected.square().sum(tch::Kind::Double).double_value(&[]);
    }
    let relative = (difference / whole).sqrt();
    assert!(relative < tolerance.weights, "{relative}");
}

#[test]
fn two_and_four_processes_train_the_generator_that_one_trains() {
    for (world_size, micro_batches) in [(2, 2), (2, 4), (4, 4)] {
        let batches = |step: usize| {
            (0..micro_batches).map(|part| generator_training::batch(4, (10 * step + part) as u64)).collect::<Vec<_>>()
        };
        let trainer = || generator_training::trainer(generator_training::config(), generator_training::recipe());
        assert_equal_to_one_process((world_size, STEPS, FLOAT32), trainer, batches);
    }
}

#[test]
fn two_processes_train_the_tokenizer_that_one_trains() {
    let batches = |step: usize| (0..2).map(|part| training::images(4, (10 * step + part) as u64)).collect::<Vec<_>>();
    assert_equal_to_one_process((2, STEPS, FLOAT32), training::trainer, batches);
}

#[test]
fn in_half_precision_two_processes_train_what_one_trains() {
    let rows =
        |step: usize| (0..2).map(|part| generator_training::batch(4, (10 * step + part) as u64)).collect::<Vec<_>>();
    let images = |step: usize| (0..2).map(|part| training::images(4, (10 * step + part) as u64)).collect::<Vec<_>>();
    for precision in [Precision::Bf16, Precision::Fp16] {
        let recipe = || GeneratorRecipe { precision, ..generator_training::recipe() };
        let generator = || generator_training::trainer(generator_training::config(), recipe());
        assert_equal_to_one_process((2, STEPS, HALF), generator, rows);
    }
    assert_equal_to_one_process((2, STEPS, HALF), || training::trainer_in(Precision::Bf16), images);
}

#[test]
fn in_float16_two_processes_leave_out_the_steps_that_one_leaves_out() {
    // Of few images and steps: few processors compute in float16, and the others are slow at it.
    let images = |step: usize| (0..2).map(|part| training::images(2, (10 * step + part) as u64)).collect::<Vec<_>>();
    // With so much of a loss, scaled gradients overflow until the scale is small enough.
    let recipe = || {
        let recipe = training::recipe();
        let reconstruction_weight = 32.0 * recipe.reconstruction_weight;
        TokenizerRecipe { precision: Precision::Fp16, reconstruction_weight, ..recipe }
    };
    let losses = assert_equal_to_one_process((2, 8, HALF), || training::trainer_of(recipe()), images);
    let left_out = losses.iter().filter(|scalars| is_left_out(scalars)).count();
    assert!((1..8).contains(&left_out), "{left_out} of 8 steps overflowed");
}

#[test]
fn processes_score_together_what_one_scores_and_one_may_have_nothing_to_score() {
    const BATCHES: usize = 2;
    let own = |group: Option<&ProcessGroup>| {
        let (rank, world_size) = group.map_or((0, 1), |group| (group.rank(), group.world_size()));
        (rank..BATCHES).step_by(world_size)
    };
    let predicted = |group: Option<&ProcessGroup>| {
        let mut trainer = generator_training::trainer(generator_training::config(), generator_training::recipe());
        for step in 0..3 {
            trainer.step(&[generator_training::batch(4, step)]).expect("a step");
        }
        let generator = trainer.ema(Precision::Fp32).expect("a generator");
        let mut meter = TokenMeter::new(&generator).expect("a meter");
        for number in own(group) {
            let (tokens, classes) = generator_training::batch(4 - number, number as u64);
            meter.update(&generator, &tokens, &classes).expect("predicted");
        }
        group.map_or(Ok(()), |group| meter.sum_over(group)).expect("the others");
        meter.finish().expect("scores")
    };
    let compared = |group: Option<&ProcessGroup>| {
        let levels = TokenLevels::published(4).expect("1, 1, 2");
        let mut meter = ReconstructionMeter::new(Device::Cpu, levels, 16).expect("a meter");
        for number in own(group) {
            let images = 4 - number;
            let codes = (0..images * 4).map(|place| (place * place + number) as i16 % 16).collect();
            let tokens = TokenBatch::try_new(codes, 4).expect("rows of four");
            let [original, reconstructed] = [0, 1].map(|part| training::images(images, (10 * number + part) as u64));
            meter.update(&original, &reconstructed, &tokens).expect("compared");
        }
        group.map_or(Ok(()), |group| meter.sum_over(group)).expect("the others");
        meter.finish().expect("scores")
    };
    let close = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-6, "{found}, not {expected}");
    let (tokens, images) = (predicted(None), compared(None));
    assert_eq!((tokens.images, images.images), (7, 7));
    for world_size in [2, 3] {
        for (found, found_images) in together(world_size, |group| (predicted(Some(group)), compared(Some(group)))) {
            assert_eq!((found.images, found.all.accuracy), (tokens.images, tokens.all.accuracy));
            close(found.all.loss, tokens.all.loss);
            found.levels.iter().zip(&tokens.levels).for_each(|(found, expected)| close(found.loss, expected.loss));
            assert_eq!(found_images.images, images.images);
            close(found_images.psnr, images.psnr);
            close(found_images.ssim, images.ssim);
            assert_eq!(found_images.codebook, images.codebook);
            assert_eq!(found_images.codebook_by_level, images.codebook_by_level);
        }
    }
}

#[test]
fn processes_with_a_discriminator_stay_equal() {
    let files = together(2, |group| {
        let mut trainer = training::adversarial_trainer();
        trainer.distribute(group, 0).expect("the same networks everywhere");
        let of_this = |step: usize| vec![training::images(4, (10 * step + group.rank()) as u64)];
        let (losses, files) = train(&mut trainer, STEPS, of_this);
        assert!(trainer.is_same_everywhere().expect("compared"));
        if group.rank() == 1 {
            let first = tempfile::tempdir().expect("a folder");
            training::adversarial_trainer().save(first.path()).expect("saved");
            trainer.restore(first.path(), 0).expect("restored");
        }
        assert!(!trainer.is_same_everywhere().expect("compared"), "one process has the weights of the start");
        (losses.concat().iter().all(|(_, value)| value.is_finite()), files)
    });
    assert!(files[0].0);
    assert!(files[0].1.iter().any(|(name, _)| name == "discriminator.safetensors"));
    for ((name, one), (_, other)) in files[0].1.iter().zip(&files[1].1) {
        assert!(one == other, "{name} differs between processes");
    }
}

#[test]
fn a_store_that_outlives_its_processes_lets_others_meet() {
    let store = StoreServer::open().expect("a store");
    for round in 0..3 {
        // In turns, so that what an earlier start left is there when the first of the next one looks.
        let joined: Vec<i64> = std::thread::scope(|threads| {
            let process = |rank| {
                let rendezvous = rendezvous(&store, rank, 2);
                threads.spawn(move || {
                    let group = ProcessGroup::meet(&rendezvous, Device::Cpu, PATIENCE).expect("the other");
                    let word = group.text_of_first("word", &round.to_string()).expect("a word");
                    assert_eq!(word, round.to_string(), "a word of this round");
                    group.max(round + i64::try_from(rank).expect("small")).expect("a number")
                })
            };
            let ranks = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            let processes = ranks.map(process);
            processes.into_iter().map(|process| process.join().expect("no panic")).collect()
        });
        assert_eq!(joined, [round + 1, round + 1]);
    }
}

#[test]
fn whoever_starts_from_other_weights_gets_those_of_rank_0() {
    let weights = together(2, |group| {
        let mut recipe = generator_training::recipe();
        recipe.seed += group.rank() as u64;
        let mut trainer = generator_training::trainer(generator_training::config(), recipe);
        trainer.distribute(group, 7).expect("the same shapes");
        assert_eq!(trainer.steps_done(), 7);
        let folder = tempfile::tempdir().expect("a folder");
        trainer.save(folder.path()).expect("saved");
        files(folder.path())
    });
    assert!(weights[0] == weights[1]);
}

#[test]
fn numbers_and_words_are_agreed_on() {
    let agreed = together(3, |group| {
        let rank = group.rank();
        let largest = group.max(if rank == 1 { 5 } else { -1 }).expect("a number");
        let sums = group.sum(&[1.0, rank as f64]).expect("sums");
        let text =
            group.text_of_first("word", if rank == 0 { "said by the first" } else { "not heard" }).expect("a text");
        (largest, sums, text)
    });
    assert!(agreed.iter().all(|found| *found == (5, vec![3.0, 3.0], "said by the first".to_owned())), "{agreed:?}");
}

#[test]
fn a_process_that_ends_is_missed_by_name() {
    let errors = together(3, |group| {
        if group.rank() == 2 {
            return None;
        }
        Some(group.max(0).expect_err("one is missing").to_string())
    });
    for error in errors.into_iter().flatten() {
        assert!(error.contains("rank 2 is lost, or did not answer"), "{error}");
    }
    let errors = together(2, |group| {
        if group.rank() == 1 {
            group.report_end("the disk is full");
            return None;
        }
        Some(group.max(0).expect_err("one is missing").to_string())
    });
    assert!(errors[0].as_ref().is_some_and(|error| error.contains("rank 1 has ended: the disk is full")), "{errors:?}");
}

#[test]
fn a_process_that_never_appears_is_named_and_a_taken_port_too() {
    let store = StoreServer::open().expect("a store");
    let meet = |rendezvous: Rendezvous| {
        ProcessGroup::meet(&rendezvous, Device::Cpu, Duration::from_millis(300)).expect_err("nobody comes")
    };
    let error = meet(rendezvous(&store, 1, 3));
    assert!(matches!(error, ModelError::ProcessGroup { rank: 1, world_size: 3, .. }), "{error}");
    assert!(error.to_string().contains("ranks 0, 2 did not appear"), "{error}");
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let taken = Rendezvous { port, is_open: false, ..rendezvous(&store, 0, 2) };
    let error = meet(taken).to_string();
    assert!(error.contains("MASTER_PORT") && error.contains("address already in use"), "{error}");
}
