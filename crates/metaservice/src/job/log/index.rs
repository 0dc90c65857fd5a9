//! When the bytes of the log arrived, with a limited resolution. It has no clock.
//!
//! A span is a part of the log whose bytes arrived within one unit of the resolution. It keeps the
//! times of its first and its last byte. So bytes before a long silence do not seem to be from the
//! silence.

use std::time::{Duration, SystemTime};

/// The largest number of spans. If there are more, neighbours are joined.
const MAX_SPANS: usize = 4096;

/// The finest resolution.
const FINEST: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Span {
    offset: u64,
    first: SystemTime,
    last: SystemTime,
}

impl Span {
    fn reaches(&self, time: SystemTime, resolution: Duration) -> bool {
        time.duration_since(self.first).is_ok_and(|since| since < resolution)
    }
}

/// Offsets by time. The resolution is one second at first, and doubles each time there are too many
/// spans. So it is about 1/2000 of the time in which there was output.
#[derive(Debug)]
pub(super) struct TimeIndex {
    spans: Vec<Span>,
    resolution: Duration,
}

impl Default for TimeIndex {
    fn default() -> Self {
        Self { spans: Vec::new(), resolution: FINEST }
    }
}

impl TimeIndex {
    /// The byte at `offset` arrived at `time`. If the clock was set back, the last time is used.
    pub(super) fn note(&mut self, time: SystemTime, offset: u64) {
        let time = self.spans.last().map_or(time, |span| time.max(span.last));
        match self.spans.last_mut() {
            Some(span) if span.reaches(time, self.resolution) => span.last = time,
            _ => self.spans.push(Span { offset, first: time, last: time }),
        }
        while self.spans.len() > MAX_SPANS {
            self.resolution *= 2;
            self.join();
        }
    }

    /// An offset that is not after the first byte since `time`. The bytes between them are older by
    /// less than one unit of the resolution. `end` is the log's end.
    pub(super) fn since(&self, time: SystemTime, end: u64) -> u64 {
        let at = self.spans.partition_point(|span| span.last < time);
        self.spans.get(at).map_or(end, |span| span.offset)
    }

    fn join(&mut self) {
        let resolution = self.resolution;
        self.spans.dedup_by(|next, kept| {
            let joined = kept.reaches(next.last, resolution);
            if joined {
                kept.last = next.last;
            }
            joined
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + milliseconds)
    }

    proptest! {
        #[test]
        fn each_byte_since_a_time_is_found_and_few_before(
            gaps in proptest::collection::vec(0u64..5000, 1..6000), asked in 0u64..20_000_000,
        ) {
            let (mut index, mut times, mut time) = (TimeIndex::default(), Vec::new(), 0);
            for (offset, gap) in gaps.iter().enumerate() {
                time += gap;
                times.push(at(time));
                index.note(at(time), offset as u64);
            }
            prop_assert!(index.spans.len() <= MAX_SPANS);
            let end = times.len();
            let exact = times.iter().position(|came| *came >= at(asked)).unwrap_or(end);
            let found = usize::try_from(index.since(at(asked), end as u64)).unwrap();
            prop_assert!(found <= exact && (found == end) == (exact == end));
            if let Some(came) = times.get(found) {
                prop_assert!(*came + index.resolution > at(asked));
            }
        }
    }

    #[test]
    fn bytes_before_a_silence_are_not_from_within_it() {
        let mut index = TimeIndex::default();
        index.note(at(0), 0);
        index.note(at(3_600_000), 10);
        assert_eq!(index.since(at(1_800_000), 20), 10);
        assert_eq!(index.since(at(3_600_001), 20), 20);
        assert_eq!(index.since(at(0), 20), 0);
    }

    #[test]
    fn a_long_log_has_a_coarser_index_of_limited_size() {
        let mut index = TimeIndex::default();
        for second in 0..1_000_000 {
            index.note(at(second * 1000), second);
        }
        assert!(index.spans.len() <= MAX_SPANS);
        let since = index.since(at(500_000_000), 1_000_000);
        assert!((499_000..=500_000).contains(&since), "{since}");
        assert_eq!(index.since(at(2_000_000_000), 1_000_000), 1_000_000);
    }
}
