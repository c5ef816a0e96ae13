//! Random numbers that follow from (seed, what they are for, index) alone.
//!
//! Whoever needs randomness opens a stream for one thing: the crop of image 41,233 in epoch 3, the dropout of step 1,000. Nothing
//! is carried from one stream to the next, so that a run stopped anywhere and started again, on any number of threads or
//! machines, draws the same numbers without a generator's state being saved.

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014) started from a hash of the key.
///
/// Good for crops, shuffles and noise; not for secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RandomStream {
    state: u64,
}

/// The odd number nearest to 2^64 divided by the golden ratio: the step of SplitMix64.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

impl RandomStream {
    /// The stream for `index` of `purpose` under `seed`. Equal arguments give equal streams, on every machine and in every version.
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        // Each word goes through the whole mixer before the next is added: neighbouring seeds and indices share nothing.
        let state = [seed, fnv1a(purpose.as_bytes()), index]
            .into_iter()
            .fold(0, |state: u64, word| mix(state.wrapping_add(STEP) ^ word));
        Self { state }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A number in [0, 1), in steps of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `count` numbers in [0, 1), in steps of 2^-24: a cast of finer ones would round some up to 1.
    pub fn uniforms(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next_u64() >> 40) as f32 / (1_u32 << 24) as f32).collect()
    }

    /// A whole number below `limit`, each equally likely; 0 when `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // Lemire, "Fast Random Integer Generation in an Interval", 2019: the high half of a product, where the few low halves
        // that would make some numbers likelier are drawn again.
        let threshold = limit.wrapping_neg().checked_rem(limit).unwrap_or(0);
        loop {
            let product = u128::from(self.next_u64()) * u128::from(limit);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Puts `items` in an order that is equally likely to be any (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// `count` different numbers below `limit`, any of them in any order equally likely; all where there are no more.
    pub fn choose(&mut self, count: usize, limit: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..limit).collect();
        let count = count.min(limit);
        for place in 0..count {
            let other = place + self.below((limit - place) as u64) as usize;
            numbers.swap(place, other);
        }
        numbers.truncate(count);
        numbers
    }

    /// `count` numbers of the standard normal distribution (Box and Muller, 1958).
    pub fn normals(&mut self, count: usize) -> Vec<f64> {
        let mut numbers = Vec::with_capacity(count + 1);
        while numbers.len() < count {
            // The logarithm of 0 is none: the first number lies in (0, 1].
            let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
            let (sine, cosine) = (std::f64::consts::TAU * self.uniform()).sin_cos();
            numbers.extend([radius * cosine, radius * sine]);
        }
        numbers.truncate(count);
        numbers
    }
}

/// The finalizer of SplitMix64: a bijection in which every bit of the input reaches every bit of the output.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// FNV-1a of 64 bits (RFC 9923).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_generator_is_splitmix64_and_the_hash_is_fnv1a() {
        // Reference values: `splitmix64.c` of Vigna from state 1234567, and the FNV test suite.
        let mut stream = RandomStream { state: 1_234_567 };
        let words: Vec<_> = (0..3).map(|_| stream.next_u64()).collect();
        assert_eq!(words, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        assert_eq!((fnv1a(b""), fnv1a(b"foobar")), (0xCBF2_9CE4_8422_2325, 0x8594_4171_F739_67E8));
    }

    #[test]
    fn a_stream_is_the_same_in_every_version() {
        // Checkpoints of older versions resume on these numbers: a change here breaks them.
        let mut stream = RandomStream::new(7, "crop", 41_233);
        let words: Vec<_> = (0..2).map(|_| stream.next_u64()).collect();
        assert_eq!(words, [8_209_386_763_084_425_642, 15_851_354_995_112_492_965]);
    }

    #[test]
    fn seed_purpose_and_index_each_give_another_stream() {
        let mut firsts = HashSet::new();
        for seed in 0..10 {
            for purpose in ["crop", "flip", "order", ""] {
                for index in 0..100 {
                    firsts.insert(RandomStream::new(seed, purpose, index).next_u64());
                }
            }
        }
        assert_eq!(firsts.len(), 4000);
        assert_eq!(RandomStream::new(1, "crop", 2), RandomStream::new(1, "crop", 2));
    }

    #[test]
    fn numbers_are_spread_evenly_within_their_bounds() {
        // Neighbouring indices of one purpose, as crops draw them: the first number of each of 60,000 streams.
        let mut counts = [0_u32; 6];
        let mut sum = 0.0;
        for index in 0..60_000 {
            let mut stream = RandomStream::new(3, "even", index);
            counts[stream.below(6) as usize] += 1;
            let uniform = stream.uniform();
            assert!((0.0..1.0).contains(&uniform));
            sum += uniform;
        }
        // Five standard deviations of a binomial count of 60,000 / 6, and of the mean of as many uniform numbers.
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 457), "{counts:?}");
        assert!((sum / 60_000.0 - 0.5).abs() < 0.006, "{sum}");
        let single = RandomStream::new(3, "even", 0).uniforms(1000);
        assert!(single.len() == 1000 && single.iter().all(|value| (0.0..1.0).contains(value)));
    }

    #[test]
    fn bounds_at_the_ends_hold() {
        let mut stream = RandomStream::new(0, "bounds", 0);
        assert_eq!((stream.below(0), stream.below(1)), (0, 0));
        // Two thirds of all products would be too likely by a half without the second draw.
        let limit = (1 << 63) + (1 << 61);
        let low = (0..4000).filter(|_| stream.below(limit) < limit / 2).count();
        assert!(low.abs_diff(2000) < 160, "{low}");
    }

    #[test]
    fn chosen_numbers_differ_and_each_is_as_likely() {
        let mut counts = [0_u32; 5];
        for index in 0..10_000 {
            let chosen = RandomStream::new(2, "choose", index).choose(2, 5);
            assert!(chosen.len() == 2 && chosen[0] != chosen[1], "{chosen:?}");
            chosen.iter().for_each(|&number| counts[number] += 1);
        }
        // Five standard deviations of a binomial count of 10,000 · 2 / 5.
        assert!(counts.iter().all(|&count| count.abs_diff(4_000) < 245), "{counts:?}");
        let mut all = RandomStream::new(2, "choose", 0).choose(9, 4);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    }

    #[test]
    fn normal_numbers_have_the_moments_of_their_distribution() {
        let numbers = RandomStream::new(4, "normal", 0).normals(60_001);
        let moment = |power: i32| numbers.iter().map(|number| number.powi(power)).sum::<f64>() / numbers.len() as f64;
        // Five standard deviations each: of the moments these are 1, √2, √15 and √96, over √60,001.
        for (power, expected, most) in [(1, 0.0, 0.021), (2, 1.0, 0.029), (3, 0.0, 0.08), (4, 3.0, 0.2)] {
            assert!((moment(power) - expected).abs() < most, "moment {power}: {}", moment(power));
        }
    }

    #[test]
    fn a_shuffle_keeps_all_items_and_can_give_every_order() {
        let mut orders = HashSet::new();
        for index in 0..400 {
            let mut items = [0, 1, 2, 3];
            RandomStream::new(1, "shuffle", index).shuffle(&mut items);
            let mut sorted = items;
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            orders.insert(items);
        }
        assert_eq!(orders.len(), 24);
    }
}
