//! When which byte of the log came, coarsely: a value without a clock.

use std::time::{Duration, SystemTime};

/// The most entries that are kept; when there are more, every second one goes.
const MAX_ENTRIES: usize = 4096;

/// The finest resolution.
const FINEST: Duration = Duration::from_secs(1);

/// Offsets by time. The resolution is a second at first and doubles whenever the
/// entries have become too many, so it is about a 2000th of the job's time.
#[derive(Debug)]
pub(super) struct TimeIndex {
    /// At this time the byte at this offset came; both ascend.
    entries: Vec<(SystemTime, u64)>,
    resolution: Duration,
}

impl Default for TimeIndex {
    fn default() -> Self {
        Self { entries: Vec::new(), resolution: FINEST }
    }
}

impl TimeIndex {
    /// The byte at `offset` came at `time`.
    pub(super) fn note(&mut self, time: SystemTime, offset: u64) {
        let due = self.entries.last().is_none_or(|(last, _)| {
            // A clock that was set back adds nothing until it has caught up.
            time.duration_since(*last).is_ok_and(|since| since >= self.resolution)
        });
        if !due {
            return;
        }
        self.entries.push((time, offset));
        if self.entries.len() > MAX_ENTRIES {
            let mut keep = false;
            self.entries.retain(|_| {
                keep = !keep;
                keep
            });
            self.resolution *= 2;
        }
    }

    /// An offset that is not behind any byte that came at `time` or later, and as near to
    /// that as the resolution allows. `end` is the log's end.
    pub(super) fn since(&self, time: SystemTime, end: u64) -> u64 {
        let after = self.entries.partition_point(|(noted, _)| *noted < time);
        match (after.checked_sub(1), self.entries.get(after)) {
            // What came between these two came before the later of them.
            (Some(before), Some(_)) => self.entries[before].1,
            (Some(before), None) => {
                let (noted, offset) = self.entries[before];
                let old = time.duration_since(noted).is_ok_and(|age| age >= self.resolution * 2);
                if old { end } else { offset }
            }
            (None, _) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    proptest! {
        #[test]
        fn nothing_that_came_since_is_left_out(
            gaps in proptest::collection::vec(0u64..5, 1..300), asked in 0u64..600,
        ) {
            let (mut index, mut time, mut offset) = (TimeIndex::default(), 0, 0);
            let mut bytes = Vec::new();
            for gap in gaps {
                time += gap;
                index.note(at(time), offset);
                bytes.push((time, offset));
                offset += 10;
            }
            let since = index.since(at(asked), offset);
            // A second is the resolution: what came within it may hide behind the last entry.
            for (came, offset) in bytes {
                prop_assert!(came < asked + 2 || offset >= since, "{} {}", came, offset);
                if came >= asked && asked <= time { prop_assert!(offset + 20 >= since); }
            }
        }
    }

    #[test]
    fn a_long_log_is_indexed_more_coarsely_and_never_without_bound() {
        let mut index = TimeIndex::default();
        for second in 0..1_000_000 {
            index.note(at(second), second);
        }
        assert!(index.entries.len() <= MAX_ENTRIES);
        let since = index.since(at(500_000), 1_000_000);
        assert!((499_000..=500_000).contains(&since), "{since}");
        assert_eq!(index.since(at(0), 1_000_000), 0);
        assert_eq!(index.since(at(2_000_000), 1_000_000), 1_000_000);
    }
}
