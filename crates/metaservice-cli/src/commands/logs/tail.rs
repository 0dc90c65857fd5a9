//! The last lines of a log that is read from its beginning. It does no I/O.

use std::collections::VecDeque;

use bytes::Bytes;
use metaservice::LogSegment;

/// The last lines that were added, in order of arrival.
#[derive(Debug)]
pub(super) struct LastLines {
    lines: VecDeque<Line>,
    held: usize,
    most: u64,
    most_bytes: usize,
}

/// A line of both outputs together: it ends with the first newline, whatever output that is of.
#[derive(Debug, Default)]
struct Line {
    segments: Vec<LogSegment>,
    length: usize,
    complete: bool,
}

impl LastLines {
    /// Keeps `most` lines, as far as they have `most_bytes`.
    pub(super) const fn new(most: u64, most_bytes: usize) -> Self {
        Self { lines: VecDeque::new(), held: 0, most, most_bytes }
    }

    pub(super) fn add(&mut self, segment: LogSegment) {
        let mut rest = segment;
        while !rest.bytes.is_empty() {
            let end = rest.bytes.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(rest.bytes.len(), |end| end + 1);
            let mut piece = rest.clone();
            // Copied: a short line must not hold the whole segment in memory.
            piece.bytes = Bytes::copy_from_slice(&rest.bytes.split_to(length));
            if self.lines.back().is_none_or(|line| line.complete) {
                self.lines.push_back(Line::default());
            }
            if let Some(line) = self.lines.back_mut() {
                line.segments.push(piece);
                line.length += length;
                line.complete = end.is_some();
            }
            self.held += length;
            while self.lines.len() as u64 > self.most || self.held > self.most_bytes {
                self.held -= self.lines.pop_front().map_or(0, |line| line.length);
            }
        }
    }

    pub(super) fn into_segments(self) -> impl Iterator<Item = LogSegment> {
        self.lines.into_iter().flat_map(|line| line.segments)
    }
}

#[cfg(test)]
mod tests {
    use metaservice::LogOutput;
    use metaservice::control::log_frame;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_last_lines_are_those_of_the_whole_log(
            pieces in prop::collection::vec((any::<bool>(), "[ab\n]{0,6}"), 0..20), most in 0u64..6,
        ) {
            let mut last = LastLines::new(most, usize::MAX);
            let mut all = String::new();
            for (stderr, text) in pieces {
                let output = LogOutput::ALL[usize::from(stderr)];
                last.add(log_frame::segment(output, None, text.clone().into()));
                all += &text;
            }
            let lines: Vec<&str> = all.split_inclusive('\n').collect();
            let from = lines.len().saturating_sub(usize::try_from(most).unwrap());
            let kept: Vec<u8> = last.into_segments().flat_map(|segment| segment.bytes).collect();
            prop_assert_eq!(String::from_utf8(kept).unwrap(), lines[from..].concat());
        }
    }

    #[test]
    fn what_is_held_is_limited() {
        let mut last = LastLines::new(u64::MAX, 100);
        for _ in 0..50 {
            last.add(log_frame::segment(LogOutput::Stdout, None, "0123456789\n".into()));
        }
        assert_eq!(last.into_segments().map(|segment| segment.bytes.len()).sum::<usize>(), 99);
    }
}
