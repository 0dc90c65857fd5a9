//! The compression policy of a read: when to compress a transfer.
//!
//! Which way is faster depends on the content, on the network and on the guest's processor, which
//! may be emulated. No fixed choice is right for all of them, so the policy measures.

use std::time::Duration;

/// After how many blocks the policy measures again: after a change, and at most.
const HOLD: (u32, u32) = (64, 256);

/// How many blocks of each way it measures.
const PROBE: u32 = 2;

/// Decides for each block whether to compress it. It chooses the way that transfers more content
/// per second. It has no clock: the caller measures the time.
///
/// It tries some blocks of each way, uses the faster one for a while, and tries again. As long as
/// the result is the same, it tries less often.
#[derive(Debug, Clone)]
pub(super) struct CompressionPolicy {
    allowed: bool,
    compress: bool,
    blocks: u32,
    phase: PolicyPhase,
    hold: u32,
    held: bool,
    rates: [Rate; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PolicyPhase {
    /// Measures the way in use.
    First,
    /// Measures the other way.
    Second,
    /// Uses the faster way.
    Held,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rate {
    bytes: u64,
    time: Duration,
}

impl CompressionPolicy {
    /// A policy without measurements. If compression is not allowed, it never compresses.
    pub(super) fn new(allowed: bool) -> Self {
        Self {
            allowed,
            compress: false,
            blocks: 0,
            phase: PolicyPhase::First,
            hold: HOLD.0,
            held: false,
            rates: [Rate::default(); 2],
        }
    }

    /// Whether to compress the next block.
    pub(super) const fn compress(&self) -> bool {
        self.compress
    }

    /// A block of `content` bytes took `time`, for reading, compression and sending.
    pub(super) fn took(&mut self, content: usize, time: Duration) {
        if !self.allowed {
            return;
        }
        let rate = &mut self.rates[usize::from(self.compress)];
        rate.bytes += content as u64;
        rate.time += time;
        self.blocks += 1;
        match self.phase {
            PolicyPhase::First if self.blocks >= PROBE => {
                self.compress = !self.compress;
                self.enter(PolicyPhase::Second);
            }
            PolicyPhase::Second if self.blocks >= PROBE => {
                self.compress = self.compressed_is_faster();
                let same = std::mem::replace(&mut self.held, self.compress) == self.compress;
                self.hold = if same { HOLD.1.min(self.hold * 2) } else { HOLD.0 };
                self.enter(PolicyPhase::Held);
            }
            PolicyPhase::Held if self.blocks >= self.hold => {
                self.rates = [Rate::default(); 2];
                self.enter(PolicyPhase::First);
            }
            PolicyPhase::First | PolicyPhase::Second | PolicyPhase::Held => {}
        }
    }

    fn enter(&mut self, phase: PolicyPhase) {
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
        let mut policy = CompressionPolicy::new(true);
        (0..blocks)
            .filter(|_| {
                let compress = policy.compress();
                let time = if compress { compressed } else { plain };
                policy.took(1000, Duration::from_millis(time));
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
    fn the_policy_changes_when_the_network_becomes_slow() {
        let mut policy = CompressionPolicy::new(true);
        let mut late = 0;
        for n in 0..2000 {
            let compress = policy.compress();
            let plain = if n < 1000 { 1 } else { 20 };
            policy.took(1000, Duration::from_millis(if compress { 5 } else { plain }));
            late += usize::from(n >= 1200 && compress);
        }
        assert!(late > 700, "{late}");
    }

    #[test]
    fn a_policy_without_permission_never_compresses() {
        let mut policy = CompressionPolicy::new(false);
        for _ in 0..200 {
            assert!(!policy.compress());
            policy.took(1, Duration::from_secs(1));
        }
    }
}
