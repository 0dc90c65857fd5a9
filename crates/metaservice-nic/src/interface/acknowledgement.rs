//! When the guest hears that its bytes have come.
//!
//! An acknowledgement is a frame, and a frame is an interrupt of the guest, which an emulated
//! processor pays for dearly. So what has come is acknowledged once it is worth it, by the next
//! segment that goes there anyway, or after [`DELAY`]. RFC 5681 (section 4.2) lets two full segments
//! wait, so that a sender learns of losses and grows its window. This wire loses nothing, and Linux
//! begins with ten segments, so four wait here; a sender that begins with less waits for the delay
//! a few times. One that has little left of the window it was told of hears at once.

use std::time::Duration;

/// How long an acknowledgement is held at most. A sender that gathers small pieces until it has one
/// (Nagle's algorithm), or has no room for more than is on its way, waits for it.
const DELAY: Duration = Duration::from_millis(1);

/// The most that is not acknowledged, as a part of the window that the guest was told last.
const SHARE: usize = 4;

/// The most that is not acknowledged, in full segments.
const SEGMENTS: usize = 4;

/// What of a connection's bytes the guest has not heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledgement {
    /// The size of a full segment.
    segment: usize,
    unheard: usize,
    /// Since when there are some.
    since: Option<Duration>,
    /// The window that it was told last.
    window: usize,
}

impl Acknowledgement {
    /// None is due; full segments have so many bytes.
    pub(super) fn new(segment: usize) -> Self {
        Self { segment, unheard: 0, since: None, window: 0 }
    }

    /// So many bytes have come.
    pub(super) fn came(&mut self, count: usize, now: Duration) {
        if count > 0 {
            self.unheard = self.unheard.saturating_add(count);
            self.since.get_or_insert(now);
        }
    }

    /// A segment has gone out; there was room for so many bytes.
    pub(super) fn heard(&mut self, window: usize) {
        *self = Self { window, ..Self::new(self.segment) };
    }

    /// Whether one waits for its time, or for more.
    pub(super) fn is_held(&self) -> bool {
        self.since.is_some() && self.is_little()
    }

    fn is_little(&self) -> bool {
        self.unheard < (self.segment * SEGMENTS).min(self.window / SHARE)
    }

    /// Until when the acknowledgement can wait; `None` when there is none, or it is due.
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
