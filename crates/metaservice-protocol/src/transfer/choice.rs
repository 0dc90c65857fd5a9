//! Whether to compress.

use std::time::Duration;

/// How many blocks one decision holds before the other way is tried again: at first, and at most,
/// after it has been the same several times.
const HOLD: (u32, u32) = (64, 256);

/// How many blocks of each way make a measurement.
const PROBE: u32 = 2;

/// Chooses for each block between sending it as it is and compressing it, whichever has moved
/// more content per second. Without a clock: the caller measures and tells.
///
/// It tries a few blocks of each way, keeps to the faster one for a stretch, and tries
/// again, less often while it stays the same: links and contents change.
///
/// ```
/// use std::time::Duration;
/// use metaservice_protocol::transfer::Choice;
///
/// let mut choice = Choice::new(true);
/// for _ in 0..40 {
///     let slow = if choice.compress() { 1 } else { 10 };
///     choice.took(256 * 1024, Duration::from_millis(slow));
/// }
/// assert!(choice.compress());
/// ```
#[derive(Debug, Clone)]
pub struct Choice {
    allowed: bool,
    compress: bool,
    blocks: u32,
    phase: Phase,
    hold: u32,
    held: bool,
    rates: [Rate; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The way that is not in use is tried, after the one that is.
    First,
    Second,
    Held,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rate {
    bytes: u64,
    time: Duration,
}

impl Choice {
    /// Nothing is known. Where compression is not allowed, it is never chosen.
    #[must_use]
    pub fn new(allowed: bool) -> Self {
        Self {
            allowed,
            compress: false,
            blocks: 0,
            phase: Phase::First,
            hold: HOLD.0,
            held: false,
            rates: [Rate::default(); 2],
        }
    }

    /// Whether the next block is to be compressed.
    #[must_use]
    pub const fn compress(&self) -> bool {
        self.compress
    }

    /// A block of `content` bytes took `time` until the next one could be begun, compression and sending and
    /// all.
    pub fn took(&mut self, content: usize, time: Duration) {
        if !self.allowed {
            return;
        }
        let rate = &mut self.rates[usize::from(self.compress)];
        rate.bytes += content as u64;
        rate.time += time;
        self.blocks += 1;
        match self.phase {
            Phase::First if self.blocks >= PROBE => {
                self.compress = !self.compress;
                self.enter(Phase::Second);
            }
            Phase::Second if self.blocks >= PROBE => {
                self.compress = self.compressed_is_faster();
                let same = std::mem::replace(&mut self.held, self.compress) == self.compress;
                self.hold = if same { HOLD.1.min(self.hold * 2) } else { HOLD.0 };
                self.enter(Phase::Held);
            }
            Phase::Held if self.blocks >= self.hold => {
                self.rates = [Rate::default(); 2];
                self.enter(Phase::First);
            }
            _ => {}
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.blocks = 0;
    }

    fn compressed_is_faster(&self) -> bool {
        let [plain, compressed] = self.rates;
        // bytes / time, compared without dividing.
        u128::from(compressed.bytes) * plain.time.as_nanos()
            > u128::from(plain.bytes) * compressed.time.as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(blocks: usize, plain: u64, compressed: u64) -> usize {
        let mut choice = Choice::new(true);
        (0..blocks)
            .filter(|_| {
                let compress = choice.compress();
                let time = if compress { compressed } else { plain };
                choice.took(1000, Duration::from_millis(time));
                compress
            })
            .count()
    }

    #[test]
    fn the_faster_way_gets_nearly_all_blocks() {
        assert!(run(1000, 10, 1) > 900);
        assert!(run(1000, 1, 10) < 100);
    }

    #[test]
    fn it_is_tried_again_when_the_link_becomes_slow() {
        let mut choice = Choice::new(true);
        let mut late = 0;
        for n in 0..2000 {
            let compress = choice.compress();
            let plain = if n < 1000 { 1 } else { 20 };
            choice.took(1000, Duration::from_millis(if compress { 5 } else { plain }));
            late += usize::from(n >= 1200 && compress);
        }
        assert!(late > 700, "{late}");
    }

    #[test]
    fn what_is_not_allowed_is_never_chosen() {
        let mut choice = Choice::new(false);
        for _ in 0..200 {
            assert!(!choice.compress());
            choice.took(1, Duration::from_secs(1));
        }
    }
}
