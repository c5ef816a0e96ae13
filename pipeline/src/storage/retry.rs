//! Pauses between our own attempts, where the store's client gives up too early or may not try again at all.

use crate::Limits;
use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};
use tokio::time::Instant;

/// How much longer each pause may be than the one before.
pub(super) const PAUSE_GROWTH: f64 = 3.0;

/// How often and how long to try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy {
    attempts: usize,
    first_pause: Duration,
    longest_pause: Duration,
    total: Duration,
}

impl RetryPolicy {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            attempts: limits.retry_attempts.max(1),
            first_pause: Duration::from_millis(limits.retry_pause_first_milliseconds),
            longest_pause: Duration::from_secs(limits.retry_pause_max_seconds),
            total: Duration::from_secs(limits.retry_total_seconds),
        }
    }

    /// Few attempts, hardly any pause: for stores in memory.
    pub(super) const BRIEF: Self = Self {
        attempts: 5,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(4),
        total: Duration::from_secs(10),
    };

    pub(super) fn start(&self) -> Attempts {
        Attempts { policy: *self, made: 0, pause: self.first_pause, until: Instant::now() + self.total }
    }
}

/// The attempts at one thing.
#[derive(Debug)]
pub(super) struct Attempts {
    policy: RetryPolicy,
    made: usize,
    pause: Duration,
    until: Instant,
}

impl Attempts {
    /// Waits before the next attempt. False, at once, when there shall be none.
    pub(super) async fn pause(&mut self) -> bool {
        self.made += 1;
        if self.made >= self.policy.attempts || Instant::now() + self.pause > self.until {
            return false;
        }
        // Jitter of one half keeps many workers from coming back together. A hasher's random key is randomness enough.
        let fraction = (RandomState::new().hash_one(self.made) % 1024) as f64 / 1024.0;
        tokio::time::sleep(self.pause.mul_f64(0.5 + 0.5 * fraction)).await;
        self.pause = self.pause.mul_f64(PAUSE_GROWTH).min(self.policy.longest_pause);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_end_by_count_and_by_time() {
        let mut attempts = RetryPolicy::BRIEF.start();
        let mut made = 1;
        while attempts.pause().await {
            made += 1;
        }
        assert_eq!(made, 5);

        let patient = RetryPolicy { attempts: 1000, total: Duration::from_secs(1), ..RetryPolicy::BRIEF };
        let (mut attempts, start) = (patient.start(), Instant::now());
        while attempts.pause().await {}
        assert!(start.elapsed() <= Duration::from_secs(1));
    }
}
