//! How many frames a guest may send in a second.
//!
//! It owns the arithmetic and refuses the clock. A guest that sends more is not read for a
//! moment: its frames wait in the socket and in QEMU, none is lost, and the host's processor is
//! somebody else's meanwhile.
//!
//! ```text
//!   each frame moves `paid` by 1 / rate; the card is free while `paid` is no more than BURST ahead
//!
//!   ───────────┬───────────────┬──────────────────► time
//!             now             paid
//!              └── BURST ──┘
//! ```

use std::time::Duration;

/// How long a guest may send at any rate: what it had not used before.
const BURST: Duration = Duration::from_millis(100);

/// The pace of one guest.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    rate: u32,
    /// The moment at which everything received so far would have come at this rate.
    paid: Duration,
}

impl Pace {
    /// At most `rate` frames a second, at least one.
    pub(crate) fn new(rate: u32) -> Self {
        Self { rate: rate.max(1), paid: Duration::ZERO }
    }

    /// So many frames have come.
    pub(crate) fn came(&mut self, frames: u64, now: Duration) {
        let time = u128::from(frames) * 1_000_000_000 / u128::from(self.rate);
        let time = Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX));
        self.paid = self.paid.max(now).saturating_add(time);
    }

    /// When the next frames may be taken, if that is not now.
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
    fn a_guest_at_the_bound_is_never_held_and_one_past_it_is() {
        let mut pace = Pace::new(1000);
        for n in 0..10_000 {
            let now = Duration::from_millis(n);
            assert_eq!(pace.held_until(now), None, "{n}");
            pace.came(1, now);
        }
        let now = Duration::from_secs(10);
        // The burst, and one that is on its way.
        pace.came(101, now);
        assert_eq!(pace.held_until(now), Some(Duration::from_millis(10_001)));
        assert_eq!(pace.held_until(Duration::from_millis(10_001)), None);
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_the_rate_and_a_burst_and_what_was_under_way(
            rate in 1u32..5000,
            reads in proptest::collection::vec((0u64..200, 0u64..50), 1..400),
        ) {
            let (mut pace, mut now, mut came) = (Pace::new(rate), Duration::ZERO, Vec::new());
            for (pause, frames) in reads {
                now += Duration::from_millis(pause);
                if let Some(until) = pace.held_until(now) {
                    now = until;
                }
                pace.came(frames, now);
                came.push((now, frames));
            }
            for (first, (begin, _)) in came.iter().enumerate() {
                let within = came[first..].iter().filter(|(at, _)| *at < *begin + Duration::from_secs(1));
                let sum: u64 = within.map(|(_, frames)| frames).sum();
                prop_assert!(sum <= u64::from(rate) + u64::from(rate) / 10 + 50 + 1);
            }
        }
    }
}
