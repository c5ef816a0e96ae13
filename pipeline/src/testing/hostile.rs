//! Damaged files: whatever a file holds, reading it ends, with what it says or with an error that names it.

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{FileFailurePersistence, RngSeed, TestCaseError, TestRunner},
};
use std::time::{Duration, Instant};

/// One thing that happens to a file.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, Index),
    Insert(Index, Vec<u8>),
    /// A part of the file once more, somewhere else.
    Copy(Index, Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, value)| Damage::Set(at, value)),
        4 => (at(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => at().prop_map(Damage::Cut),
        1 => (at(), at()).prop_map(|(from, to)| Damage::Remove(from, to)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..24)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (at(), at(), at()).prop_map(|(from, to, at)| Damage::Copy(from, to, at)),
    ]
}

fn damaged(mut bytes: Vec<u8>, all: &[Damage]) -> Vec<u8> {
    let part = |bytes: &[u8], from: &Index, to: &Index| {
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        from.min(to)..from.max(to)
    };
    for one in all {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        match one {
            Damage::Set(at, value) => bytes[at.index(length)] = *value,
            Damage::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Damage::Cut(at) => bytes.truncate(at.index(length)),
            Damage::Remove(from, to) => drop(bytes.drain(part(&bytes, from, to))),
            Damage::Insert(at, more) => {
                let at = at.index(length);
                drop(bytes.splice(at..at, more.iter().copied()));
            }
            Damage::Copy(from, to, at) => {
                let (more, at) = (bytes[part(&bytes, from, to)].to_vec(), at.index(length));
                drop(bytes.splice(at..at, more));
            }
        }
    }
    bytes
}

/// Whether the damaged file `name` was read, or refused by an error that names it.
///
/// # Errors
/// When the error does not.
pub fn read_or_refused<T, E: std::fmt::Display>(name: &str, read: Result<T, E>) -> Result<(), TestCaseError> {
    match read.map_err(|error| error.to_string()) {
        Err(told) if !told.contains(name) => Err(TestCaseError::fail(format!("{name} is not named: {told}"))),
        _ => Ok(()),
    }
}

/// Damages `sound` files in `cases` ways, or in others, so many at a time, for `RESTOK_FUZZ_SECONDS`; `check` says what must hold of
/// each. The ways follow from `PROPTEST_RNG_SEED`. What failed is kept in `proptest-regressions` of the crate of `source_file`, the
/// caller's `file!()`.
///
/// # Panics
/// With the smallest damage found for which `check` fails.
pub fn fuzz(
    source_file: &'static str,
    cases: u32,
    sound: &[Vec<u8>],
    check: impl Fn(&[u8]) -> Result<(), TestCaseError>,
) {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the program")]
    let seconds = std::env::var("RESTOK_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let began = Instant::now();
    let first_seed = ProptestConfig::default().rng_seed;
    for round in 0_u64.. {
        let persistence = FileFailurePersistence::SourceParallel("proptest-regressions");
        let config = ProptestConfig {
            cases,
            source_file: Some(source_file),
            failure_persistence: Some(Box::new(persistence)),
            rng_seed: match first_seed {
                RngSeed::Random => RngSeed::Random,
                RngSeed::Fixed(seed) => RngSeed::Fixed(seed.wrapping_add(round)),
            },
            ..ProptestConfig::default()
        };
        let strategy = (0..sound.len(), prop::collection::vec(damage(), 1..6));
        let test = |(file, all): (usize, Vec<Damage>)| check(&damaged(sound[file].clone(), &all));
        TestRunner::new(config).run(&strategy, test).unwrap_or_else(|failure| panic!("{failure}"));
        if seconds.is_none_or(|seconds| began.elapsed() >= seconds) {
            return;
        }
    }
}
