//! Randomness that a seed decides: the same test does the same thing on every machine.

/// SplitMix64 (Steele, Lea and Flood, 2014): one word of state, enough for choosing instants and drawing test images.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_word() % limit.max(1)
    }

    /// True in `fraction` (0 to 1) of all calls.
    pub fn chance(&mut self, fraction: f64) -> bool {
        (self.next_word() >> 11) as f64 / (1_u64 << 53) as f64 <= fraction
    }
}
