//! Makes the rows of some lines of a log. It does no I/O.

use std::time::{SystemTime, UNIX_EPOCH};

use metaservice::LogSegment;
use serde::Serialize;

use super::index::Checkpoint;
use super::pattern::{Mark, Pattern};
use super::row::{Row, Span};

/// The most lines that are read at once.
pub(crate) const MAX_ROWS: u64 = 500;

/// The most bytes of rows that are read at once, as JSON.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// A line for the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ShownLine {
    /// Its number, from 0.
    pub(crate) line: u64,
    /// When its first byte arrived, in milliseconds since 1970. `None`: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ms: Option<u64>,
    /// Its text.
    pub(crate) spans: Vec<Span>,
    /// Where the pattern matches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) marks: Vec<Mark>,
    /// Whether a part of it is not shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cut: bool,
}

/// Some lines of a log.
pub(crate) struct Window {
    from: u64,
    to: u64,
    pattern: Option<Pattern>,
    line: u64,
    row: Row,
    /// Whether the row has a byte.
    begun: bool,
    ms: Option<u64>,
    lines: Vec<ShownLine>,
    bytes: usize,
}

impl Window {
    /// The lines from `from` on, `count` of them. The next byte that is added is that of the
    /// checkpoint.
    pub(crate) fn new(begin: Checkpoint, from: u64, count: u64, pattern: Option<Pattern>) -> Self {
        let from = from.max(begin.line);
        let to = from.saturating_add(count.min(MAX_ROWS));
        Self {
            from,
            to,
            pattern,
            line: begin.line,
            row: Row::new(begin.style),
            begun: false,
            ms: None,
            lines: Vec::new(),
            bytes: 0,
        }
    }

    /// Whether all lines are there.
    pub(crate) const fn is_full(&self) -> bool {
        self.line >= self.to || self.bytes >= MAX_BYTES
    }

    /// Adds the next bytes.
    pub(crate) fn push(&mut self, segment: &LogSegment) {
        for piece in segment.bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_full() {
                return;
            }
            if !self.begun {
                self.ms = segment.time.map(milliseconds);
                self.begun = true;
            }
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            self.row.push(segment.output, text);
            if text.len() < piece.len() {
                self.end_line();
            }
        }
    }

    /// The lines, also one without an end.
    pub(crate) fn finish(mut self) -> Vec<ShownLine> {
        if self.begun && !self.is_full() {
            self.end_line();
        }
        self.lines
    }

    fn end_line(&mut self) {
        let next = Row::new(self.row.style());
        let row = std::mem::replace(&mut self.row, next);
        if self.line >= self.from {
            let marks = self.pattern.as_ref().map(|pattern| pattern.marks(&row.text()));
            let spans = row.spans();
            // Names and brackets count too.
            self.bytes += spans.iter().map(|span| span.text.len() + 64).sum::<usize>() + 64;
            let (line, ms, cut) = (self.line, self.ms, row.is_cut());
            self.lines.push(ShownLine { line, ms, spans, marks: marks.unwrap_or_default(), cut });
        }
        self.line += 1;
        self.begun = false;
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use metaservice::LogOutput;
    use metaservice::control::log_frame;
    use proptest::prelude::*;

    use super::super::index::Index;
    use super::*;

    fn segment(output: LogOutput, ms: u64, bytes: &[u8]) -> LogSegment {
        let time = UNIX_EPOCH + Duration::from_millis(ms);
        log_frame::segment(output, Some(time), Bytes::copy_from_slice(bytes))
    }

    fn texts(lines: &[ShownLine]) -> Vec<(u64, String)> {
        let text = |line: &ShownLine| line.spans.iter().map(|span| span.text.as_str()).collect();
        lines.iter().map(|line| (line.line, text(line))).collect()
    }

    #[test]
    fn lines_have_numbers_times_and_outputs() {
        let [out, err] = LogOutput::ALL;
        let begin = Index::new().seek(0);
        let mut window = Window::new(begin, 1, 3, Some("b".parse().unwrap()));
        for segment in [segment(out, 1, b"a\nb"), segment(err, 2, b"x\nc\n"), segment(out, 3, b"d")]
        {
            window.push(&segment);
        }
        let lines = window.finish();
        let expected = [(1, "bx".to_owned()), (2, "c".to_owned()), (3, "d".to_owned())];
        assert_eq!(texts(&lines), expected);
        assert_eq!(
            lines.iter().map(|line| line.ms).collect::<Vec<_>>(),
            [Some(1), Some(2), Some(3)]
        );
        assert_eq!(
            lines[0].spans.iter().map(|span| span.stderr).collect::<Vec<_>>(),
            [false, true]
        );
        assert_eq!(lines[0].marks, [Mark(0, 1)]);
    }

    #[test]
    fn an_answer_is_limited() {
        let begin = Index::new().seek(0);
        let mut window = Window::new(begin, 0, u64::MAX, None);
        window.push(&segment(LogOutput::Stdout, 0, &b"\n".repeat(2_000)));
        assert_eq!(window.finish().len() as u64, MAX_ROWS);
        let mut window = Window::new(begin, 0, MAX_ROWS, None);
        let wide = ["\x1b[31mx\x1b[32my".repeat(4_000), "\n".to_owned()].concat();
        for _ in 0..MAX_ROWS {
            window.push(&segment(LogOutput::Stdout, 0, wide.as_bytes()));
        }
        assert!(window.is_full());
        let json = serde_json::to_string(&window.finish()).unwrap();
        assert!(json.len() < MAX_BYTES + 1024 * 1024, "{}", json.len());
    }

    proptest! {
        /// From any checkpoint, the same lines are read as from the beginning.
        #[test]
        fn a_window_is_a_part_of_the_whole(
            lines in prop::collection::vec("[ab\r]{0,5}(\x1b\\[3[0-7]m)?[c]{0,3}", 1..40),
            from in 0u64..45,
            count in 0u64..20,
        ) {
            let log = lines.join("\n").into_bytes();
            let mut index = Index::new();
            index.push(0, &log);
            let segment = segment(LogOutput::Stdout, 7, &log);
            let read = |from, count| {
                let mut window = Window::new(index.seek(from), from, count, None);
                window.push(&segment);
                window.finish()
            };
            let all = read(0, MAX_ROWS);
            prop_assert_eq!(all.len() as u64, index.extent().lines);
            let expected: Vec<_> = all.into_iter()
                .filter(|line| line.line >= from && line.line < from + count)
                .collect();
            prop_assert_eq!(read(from, count), expected);
        }
    }
}
