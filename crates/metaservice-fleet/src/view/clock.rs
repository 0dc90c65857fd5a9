//! The server's time, as a reader knows it from what the server stored.

use std::time::Duration;

use crate::state::ServerTime;

/// How far the server's clock is ahead of the reader's own, in milliseconds. The newest message
/// counts, and not the latest time: a server whose clock was wrong for one message is corrected by
/// the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Clock {
    /// By the newest message of any kind. It may be much older than the reader.
    newest: Option<i128>,
    /// By the newest two renewals of the reader's own lease, which the server stored a moment before
    /// they came. One that is ahead of the other is not believed.
    own: Option<[i128; 2]>,
}

impl Clock {
    /// Takes the time of a message.
    pub(super) fn note(&mut self, now: Duration, stored: ServerTime) {
        self.newest = Some(ahead(now, stored));
    }

    /// Takes the time of the reader's own renewal. From then on, only these count.
    pub(super) fn note_own(&mut self, now: Duration, stored: ServerTime) {
        let ahead = ahead(now, stored);
        self.own = Some([self.own.map_or(ahead, |[_, last]| last), ahead]);
    }

    /// Whether the time is known well enough to end jobs by it.
    pub(super) const fn is_sure(&self) -> bool {
        self.own.is_some()
    }

    /// The server's time. Zero: nothing is known of it.
    pub(super) fn time(&self, now: Duration) -> ServerTime {
        let ahead = self.own.map(|[before, last]| before.min(last)).or(self.newest);
        let time = ahead.map_or(0, |ahead| ahead + now.as_millis().cast_signed());
        ServerTime::try_from(time).unwrap_or_default()
    }
}

fn ahead(now: Duration, stored: ServerTime) -> i128 {
    i128::from(stored) - now.as_millis().cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever came before, the newest message decides, and of those of a worker its own.
        #[test]
        fn a_normal_time_corrects_all_that_came_before(
            before in proptest::collection::vec((any::<bool>(), any::<u64>()), 0..20),
            now in 0_u64..1_000_000,
            later in 0_u64..1_000_000,
        ) {
            let (now, later) = (Duration::from_millis(now), Duration::from_millis(later));
            let mut clock = Clock::default();
            for (is_own, stored) in before {
                if is_own { clock.note_own(now, stored) } else { clock.note(now, stored) }
            }
            let was_sure = clock.is_sure();
            clock.note(now, 5_000_000);
            let normal = 5_000_000 + u64::try_from(later.as_millis()).unwrap();
            if !was_sure {
                prop_assert_eq!(clock.time(now + later), normal);
            }
            clock.note_own(now, 5_000_000);
            clock.note_own(now, 5_000_000);
            clock.note(now, u64::MAX);
            clock.note_own(now, u64::MAX);
            prop_assert!(clock.is_sure());
            prop_assert_eq!(clock.time(now + later), normal);
        }
    }
}
