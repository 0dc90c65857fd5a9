//! Which output the bytes of the log are of, and when they arrived. It does no I/O and has no
//! clock.
//!
//! A segment is a run of bytes of one output that arrived at about the same time. It begins with
//! its record, and ends where the next one begins. The resolution of the times is 1 ms for the
//! first 65536 segments, and doubles with each further 65536. So a log of many days has few
//! records, and the resolution of one output is less than a thousandth of the time in which it was
//! written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use metaservice_protocol::LogOutput;

/// The size of a record.
pub(super) const RECORD: usize = 16;

/// The bits of a time: milliseconds until the year 10889.
const TIME: u64 = (1 << 48) - 1;

/// A run of bytes of one output that arrived at about the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogSegment {
    /// This many bytes before the segment are no longer kept.
    pub missed: u64,
    /// Which output of the command they are of. Stdout if this is not known.
    pub output: LogOutput,
    /// When the first of them arrived, with a resolution of 1 ms, less in long logs. If this is not
    /// known, the last time before them that is known, or else `None`.
    pub time: Option<SystemTime>,
    /// The bytes.
    pub bytes: Bytes,
}

impl LogSegment {
    pub(crate) const fn new(output: LogOutput, time: Option<SystemTime>, bytes: Bytes) -> Self {
        Self { missed: 0, output, time, bytes }
    }
}

/// Where a segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) output: LogOutput,
    /// In milliseconds since 1970; 0 is unknown.
    pub(super) time_ms: u64,
}

impl Segment {
    pub(super) fn encode(self) -> [u8; RECORD] {
        let first = self.offset << 1 | u64::from(self.output == LogOutput::Stderr);
        let time = self.time_ms & TIME;
        let second = time << 16 | check(first, time);
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&first.to_le_bytes());
        record[8..].copy_from_slice(&second.to_le_bytes());
        record
    }

    /// `None` for bytes that are not a record, such as zeros.
    pub(super) fn decode(record: [u8; RECORD]) -> Option<Self> {
        let [first, second] = [0, 8].map(|at| {
            let mut number = [0; 8];
            number.copy_from_slice(&record[at..at + 8]);
            u64::from_le_bytes(number)
        });
        let time_ms = second >> 16;
        let output = if first & 1 == 0 { LogOutput::Stdout } else { LogOutput::Stderr };
        let intact = second & 0xffff == check(first, time_ms);
        intact.then_some(Self { offset: first >> 1, output, time_ms })
    }

    pub(super) fn time(self) -> Option<SystemTime> {
        (self.time_ms > 0).then(|| UNIX_EPOCH + Duration::from_millis(self.time_ms))
    }
}

/// 16 bits that zeros and halves of records do not have.
const fn check(first: u64, time: u64) -> u64 {
    mix(first ^ time.rotate_left(32)) >> 48 ^ 0x5a5a
}

/// Spreads each bit of a number.
pub(super) const fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (number ^ number >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// A time as records have it.
pub(super) fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(TIME).min(TIME)
}

/// The bytes of a segment arrived within this many milliseconds.
pub(super) const fn resolution_ms(number: u64) -> u64 {
    // At most 17 minutes.
    let doubled = if number >> 16 > 20 { 20 } else { number >> 16 };
    1 << doubled
}

/// Decides where segments begin.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// How many there are.
    count: u64,
    last: Option<Segment>,
}

/// Bytes that are added to the files of a log together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Where they begin.
    pub(super) offset: u64,
    pub(super) chunks: Vec<Bytes>,
    /// The segments that begin in them, and the number of the first one.
    pub(super) segments: Vec<Segment>,
    pub(super) number: u64,
}

impl Batch {
    pub(super) fn end(&self) -> u64 {
        self.offset + self.chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>()
    }

    /// The number of segments after it.
    pub(super) fn count(&self) -> u64 {
        self.number + self.segments.len() as u64
    }
}

impl Segments {
    /// Continues after `count` segments, of which `last` was the last one.
    pub(super) const fn resume(count: u64, last: Option<Segment>) -> Self {
        Self { count, last }
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// Bytes of `output` arrived at `time_ms` and are at `offset`. Returns the segment that begins
    /// with them, if one does. If the clock was set back, the last time is used.
    pub(super) fn note(&mut self, output: LogOutput, time_ms: u64, offset: u64) -> Option<Segment> {
        let time_ms = self.last.map_or(time_ms, |last| time_ms.max(last.time_ms));
        if let Some(last) = self.last
            && last.output == output
            && time_ms - last.time_ms < resolution_ms(self.count - 1)
        {
            return None;
        }
        let segment = Segment { offset, output, time_ms };
        self.last = Some(segment);
        self.count += 1;
        Some(segment)
    }

    /// The batch of chunks that arrived at `time_ms` and are at `offset`.
    pub(super) fn batch(
        &mut self,
        chunks: Vec<(LogOutput, Bytes)>,
        time_ms: u64,
        offset: u64,
    ) -> Batch {
        let (number, mut end) = (self.count, offset);
        let (mut segments, mut bytes) = (Vec::new(), Vec::with_capacity(chunks.len()));
        for (output, chunk) in chunks.into_iter().filter(|(_, chunk)| !chunk.is_empty()) {
            segments.extend(self.note(output, time_ms, end));
            end += chunk.len() as u64;
            bytes.push(chunk);
        }
        Batch { offset, chunks: bytes, segments, number }
    }
}

/// Splits the bytes at `offset` into their segments. The first one begins there or before.
pub(super) fn split(
    mut bytes: Bytes,
    offset: u64,
    segments: &[Segment],
) -> impl Iterator<Item = LogSegment> {
    segments.iter().enumerate().filter_map(move |(n, segment)| {
        let length = match segments.get(n + 1) {
            Some(next) => next.offset.saturating_sub(segment.offset.max(offset)),
            None => u64::MAX,
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.split_to(length);
        (length > 0).then(|| LogSegment::new(segment.output, segment.time(), bytes))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn output() -> impl Strategy<Value = LogOutput> {
        prop_oneof![Just(LogOutput::Stdout), Just(LogOutput::Stderr)]
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written_and_no_other_bytes_are(
            offset in 0u64..1 << 63, output in output(), time_ms in 0..=TIME, byte in 0usize..16,
            flip in 1u8..=255,
        ) {
            let segment = Segment { offset, output, time_ms };
            let mut record = segment.encode();
            prop_assert_eq!(Segment::decode(record), Some(segment));
            record[byte] ^= flip;
            prop_assert_ne!(Segment::decode(record), Some(segment));
        }

        /// Each byte is in a segment of its output, whose time is at most the resolution before.
        #[test]
        fn a_segment_has_bytes_of_one_output_and_time(
            chunks in prop::collection::vec((output(), 0u64..3, 0usize..5), 1..200),
        ) {
            let (mut segments, mut all, mut told) = (Segments::default(), Vec::new(), Vec::new());
            let (mut time, mut offset) = (1, 0);
            for (output, pause, length) in chunks {
                time += pause;
                let batch = segments.batch(vec![(output, vec![0; length].into())], time, offset);
                offset = batch.end();
                prop_assert_eq!(batch.count(), segments.count);
                all.extend(batch.segments);
                told.extend(std::iter::repeat_n((output, time), length));
            }
            let bytes = Bytes::from(vec![0; told.len()]);
            let mut split = split(bytes, 0, &all).flat_map(|segment| {
                std::iter::repeat_n((segment.output, segment.time.unwrap()), segment.bytes.len())
            });
            for (output, time) in told {
                let found = split.next().unwrap();
                prop_assert_eq!(found.0, output);
                prop_assert_eq!(milliseconds(found.1), time);
            }
            prop_assert!(split.next().is_none());
        }
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(Segment::decode([0; RECORD]), None);
    }

    #[test]
    fn a_long_log_has_a_coarser_index_of_limited_size() {
        let mut segments = Segments::default();
        // A byte each millisecond, for three hours.
        let count =
            (0..10_800_000).filter(|n| segments.note(LogOutput::Stdout, 1 + n, *n).is_some());
        let count = count.count() as u64;
        assert!(count < 65_536 * 9, "{count}");
        assert!(resolution_ms(count) <= 10_800_000 / 10_000, "{}", resolution_ms(count));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_go_back_here() {
        let mut segments = Segments::default();
        assert_eq!(segments.note(LogOutput::Stdout, 500, 0).unwrap().time_ms, 500);
        assert_eq!(segments.note(LogOutput::Stderr, 100, 7).unwrap().time_ms, 500);
    }
}
