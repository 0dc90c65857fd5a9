//! The rate of a guest's frames.
//!
//! Owns the arithmetic, without a clock. If a guest sends too many frames, the card stops reading
//! for a moment. The frames wait in the socket and in QEMU, none is lost, and the host's processor
//! is free for other work.
//!
//! ```text
//!   each frame moves `paid` by 1 / rate; the card reads while `paid` is at most BURST ahead of now
//!
//!   ───────────┬───────────────┬──────────────────► time
//!             now             paid
//!              └── BURST ──┘
//! ```

use std::time::Duration;

/// How long a guest may send at any rate, if it was silent before.
const BURST: Duration = Duration::from_millis(100);

/// The rate of one guest.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// The time for one frame.
    each: Duration,
    /// The time at which everything received so far would have arrived at this rate.
    paid: Duration,
}

impl Pace {
    /// At most `rate` frames a second, at least one.
    pub(crate) fn new(rate: u32) -> Self {
        Self { each: Duration::from_secs(1) / rate.max(1), paid: Duration::ZERO }
    }

    /// A frame has arrived.
    pub(crate) fn came(&mut self, now: Duration) {
        self.paid = self.paid.max(now).saturating_add(self.each);
    }

    /// When the next frames may be read, if that is not now.
    pub(crate) fn held_until(&self, now: Duration) -> Option<Duration> {
        let free = self.paid.saturating_sub(BURST);
        (free > now).then_some(free)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_guest_at_the_limit_is_never_held_and_one_above_it_is() {
        let mut pace = Pace::new(1000);
        for n in 0..10_000 {
            let now = Duration::from_millis(n);
            assert_eq!(pace.held_until(now), None, "{n}");
            pace.came(now);
        }
        let now = Duration::from_secs(10);
        // The burst, and one more.
        (0..101).for_each(|_| pace.came(now));
        assert_eq!(pace.held_until(now), Some(Duration::from_millis(10_001)));
        assert_eq!(pace.held_until(Duration::from_millis(10_001)), None);
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_the_rate_and_a_burst(
            rate in 1u32..5000,
            reads in proptest::collection::vec((0u64..200, 0u64..50), 1..400),
        ) {
            let (mut pace, mut now, mut came) = (Pace::new(rate), Duration::ZERO, Vec::new());
            for (pause, frames) in reads {
                now += Duration::from_millis(pause);
                for _ in 0..frames {
                    now = pace.held_until(now).unwrap_or(now);
                    pace.came(now);
                    came.push(now);
                }
            }
            let (mut first, most) = (0, usize::try_from(rate).unwrap() * 11 / 10 + 2);
            for (last, at) in came.iter().enumerate() {
                while came[first] + Duration::from_secs(1) <= *at {
                    first += 1;
                }
                prop_assert!(last - first < most, "{} of {rate}", last - first + 1);
            }
        }
    }
}
