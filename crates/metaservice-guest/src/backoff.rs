//! How long to wait before the next try.
//!
//! Owns the arithmetic only; whoever tries sleeps. The first waits are a few milliseconds
//! because the service is usually there a moment after the network is, and every
//! moment counts in the boot of a machine. Half of each wait is left to chance, so that many
//! guests of one host that lost it together do not come back together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(10);

/// The longest wait.
const CAP: Duration = Duration::from_secs(5);

/// Waits that double from [`FIRST`] to [`CAP`].
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Duration,
    random: u64,
}

impl Backoff {
    /// A back-off at its beginning.
    pub(crate) fn new() -> Self {
        Self::seeded(RandomState::new().hash_one(0))
    }

    fn seeded(seed: u64) -> Self {
        Self { next: FIRST, random: seed | 1 }
    }

    /// How long to wait before the next try: between half of the present step and all of it.
    pub(crate) fn delay(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(CAP);
        // xorshift64: chance enough for spreading load.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let half = step / 2;
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_micros(self.random % spread)
    }

    /// Begins again after a success.
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
        fn waits_grow_to_the_cap_and_never_past_it(seed in any::<u64>(), steps in 1u32..40) {
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
