//! How long to wait before the next attempt.
//!
//! Owns the arithmetic; the caller sleeps. The first delays are a few milliseconds, because the
//! service is usually up a moment after the network, and each moment adds to the start of a
//! machine. Half of each delay is random, so that the guests of a host that was away do not all
//! come back at the same time.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first delay.
const FIRST: Duration = Duration::from_millis(10);

/// The longest delay.
const CAP: Duration = Duration::from_secs(5);

/// Delays that double from [`FIRST`] to [`CAP`].
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Duration,
    random: u64,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self::seeded(RandomState::new().hash_one(0))
    }

    fn seeded(seed: u64) -> Self {
        Self { next: FIRST, random: seed | 1 }
    }

    /// The next delay: between half of the current step and all of it.
    pub(crate) fn delay(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(CAP);
        // xorshift64 is random enough to spread load.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let half = step / 2;
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_micros(self.random % spread)
    }

    /// Starts again with the first delay, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn delays_grow_to_the_cap_and_not_past_it(seed in any::<u64>(), steps in 1u32..40) {
            let mut backoff = Backoff::seeded(seed);
            for step in 0..steps {
                let full = FIRST.saturating_mul(1 << step.min(20)).min(CAP);
                let delay = backoff.delay();
                prop_assert!(full / 2 <= delay && delay <= full, "{delay:?} of {full:?}");
            }
            backoff.reset();
            prop_assert!(backoff.delay() <= FIRST);
        }
    }
}
