//! When received data is acknowledged.
//!
//! An acknowledgement is a frame, and a frame is an interrupt of the guest, which is expensive on
//! an emulated processor. So data is acknowledged by the next segment that is sent anyway, when
//! there is enough of it, or after [`DELAY`]. RFC 5681 (section 4.2) allows two full segments to
//! wait, so that a sender notices losses and opens its window. This link loses nothing, and Linux
//! starts with ten segments, so four wait here. A sender that starts with fewer waits for the delay
//! a few times. A sender with little of its window left gets an acknowledgement at once.

use std::time::Duration;

/// The longest delay of an acknowledgement. A sender waits for it if it collects small pieces
/// (Nagle's algorithm), or if its window is full.
const DELAY: Duration = Duration::from_millis(1);

/// The most data that is not acknowledged, as a part of the last window sent to the guest.
const SHARE: usize = 4;

/// The most data that is not acknowledged, in full segments.
const SEGMENTS: usize = 4;

/// The received data that is not acknowledged yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledgement {
    /// The size of a full segment.
    segment: usize,
    unheard: usize,
    /// When the first of it arrived.
    since: Option<Duration>,
    /// The last window sent to the guest.
    window: usize,
}

impl Acknowledgement {
    /// Nothing to acknowledge. A full segment has `segment` bytes.
    pub(super) fn new(segment: usize) -> Self {
        Self { segment, unheard: 0, since: None, window: 0 }
    }

    /// Data has arrived.
    pub(super) fn came(&mut self, count: usize, now: Duration) {
        if count > 0 {
            self.unheard = self.unheard.saturating_add(count);
            self.since.get_or_insert(now);
        }
    }

    /// A segment was sent, with this window.
    pub(super) fn heard(&mut self, window: usize) {
        *self = Self { window, ..Self::new(self.segment) };
    }

    /// Whether an acknowledgement waits for its time, or for more data.
    pub(super) fn is_held(&self) -> bool {
        self.since.is_some() && self.is_little()
    }

    fn is_little(&self) -> bool {
        self.unheard < (self.segment * SEGMENTS).min(self.window / SHARE)
    }

    /// How long the acknowledgement can wait. `None` if there is none, or it is due.
    pub(super) fn held_until(&self, now: Duration) -> Option<Duration> {
        let until = self.since? + DELAY;
        (self.is_little() && now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const NOW: Duration = Duration::from_secs(1);
    const MOST: usize = 4000;

    #[test]
    fn a_little_is_held_for_a_moment() {
        let mut acknowledgement = Acknowledgement::new(MOST / SEGMENTS);
        acknowledgement.heard(1024 * 1024);
        assert_eq!(acknowledgement.held_until(NOW), None, "nothing has come");
        acknowledgement.came(0, NOW);
        assert_eq!(acknowledgement.held_until(NOW), None);
        acknowledgement.came(100, NOW);
        acknowledgement.came(MOST - 101, NOW + MS / 2);
        let until = Some(NOW + DELAY);
        assert_eq!(acknowledgement.held_until(NOW + MS / 2), until, "counted from the first");
        assert_eq!(acknowledgement.held_until(NOW + DELAY), None);
        acknowledgement.came(1, NOW + MS / 2);
        assert_eq!(acknowledgement.held_until(NOW + MS / 2), None);
    }

    #[test]
    fn who_has_little_room_hears_soon() {
        let mut acknowledgement = Acknowledgement::new(MOST);
        acknowledgement.came(1, NOW);
        assert_eq!(acknowledgement.held_until(NOW), None, "it has heard of no room yet");
        acknowledgement.heard(MOST);
        acknowledgement.came(MOST / SHARE - 1, NOW);
        assert!(acknowledgement.held_until(NOW).is_some());
        acknowledgement.came(1, NOW);
        assert_eq!(acknowledgement.held_until(NOW), None);
    }

    proptest! {
        #[test]
        fn nothing_is_held_for_longer_or_for_more(
            window in 0..4 * MOST * SHARE,
            pieces in proptest::collection::vec((0..MOST, 0..1000u64), 0..50),
        ) {
            let mut acknowledgement = Acknowledgement::new(MOST / SEGMENTS);
            acknowledgement.heard(window);
            let (mut now, mut unheard, mut first) = (Duration::ZERO, 0, None);
            for (count, pause) in pieces {
                now += Duration::from_micros(pause);
                acknowledgement.came(count, now);
                unheard += count;
                first = first.or((count > 0).then_some(now));
                match acknowledgement.held_until(now) {
                    Some(until) => {
                        prop_assert!(unheard < MOST && unheard < window.div_ceil(SHARE));
                        prop_assert!(now < until && until <= first.unwrap() + DELAY);
                    }
                    None => {
                        acknowledgement.heard(window);
                        (unheard, first) = (0, None);
                    }
                }
            }
        }
    }
}
