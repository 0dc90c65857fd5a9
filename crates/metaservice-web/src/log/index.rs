//! A sparse index of the lines of a log. It does no I/O.
//!
//! A line ends with a line break, in the order in which both outputs arrived. The index knows where
//! some lines begin; a reader begins at the last of them before its own. Its memory is limited: in
//! a long log, it knows fewer lines.

use serde::Serialize;

use super::feed::Feed;
use super::row::MAX_LINE;
use super::style::{Style, StyleOnly};

/// How many bytes are between two checkpoints at first.
const SPACING: u64 = 64 * 1024;

/// The most checkpoints. Then every second one is dropped.
const MAX_CHECKPOINTS: usize = 16 * 1024;

/// Where a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The number of the line, from 0.
    pub(crate) line: u64,
    /// Its first byte in the log.
    pub(crate) offset: u64,
    /// The style at its beginning.
    pub(crate) style: Style,
}

/// What is known of the lines of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Extent {
    /// The number of the first line that can be read, from 0.
    pub(crate) first: u64,
    /// The number after that of the last line, also of one without an end.
    pub(crate) lines: u64,
    /// The length of the log in bytes.
    pub(crate) bytes: u64,
    /// How many bytes were no longer kept when they were to be counted. Their lines have no number.
    pub(crate) missed: u64,
}

/// The index.
pub(crate) struct Index {
    checkpoints: Vec<Checkpoint>,
    spacing: u64,
    /// The line that has not ended.
    line: u64,
    line_start: u64,
    end: u64,
    missed: u64,
    style: StyleOnly,
    /// Parses the line that has not ended, from its first control sequence on.
    parser: Option<Feed>,
    parsed: usize,
}

impl Index {
    /// The index of an empty log.
    pub(crate) fn new() -> Self {
        Self {
            checkpoints: vec![Checkpoint { line: 0, offset: 0, style: Style::default() }],
            spacing: SPACING,
            line: 0,
            line_start: 0,
            end: 0,
            missed: 0,
            style: StyleOnly::default(),
            parser: None,
            parsed: 0,
        }
    }

    /// What is known.
    pub(crate) fn extent(&self) -> Extent {
        let partial = u64::from(self.end > self.line_start);
        let first = self.checkpoints.first().map_or(0, |first| first.line);
        Extent { first, lines: self.line + partial, bytes: self.end, missed: self.missed }
    }

    /// Adds the next bytes, after `missed` bytes that are no longer kept.
    pub(crate) fn push(&mut self, missed: u64, bytes: &[u8]) {
        if missed > 0 {
            self.skip(missed);
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.follow_style(piece);
            self.end += piece.len() as u64;
            if piece.last() == Some(&b'\n') {
                self.end_line();
            }
        }
    }

    /// The last line before `line`, or this line, from which a reader can begin.
    pub(crate) fn seek(&self, line: u64) -> Checkpoint {
        let after = self.checkpoints.partition_point(|known| known.line <= line);
        self.checkpoints[after.saturating_sub(1)]
    }

    /// What comes before the missed bytes is not kept either.
    fn skip(&mut self, missed: u64) {
        if self.end > self.line_start {
            self.line += 1;
        }
        self.end += missed;
        self.missed += missed;
        self.line_start = self.end;
        self.parser = None;
        self.parsed = 0;
        self.style = StyleOnly::default();
        self.checkpoints.clear();
        self.checkpoint();
    }

    fn follow_style(&mut self, piece: &[u8]) {
        let Some(escape) = (if self.parser.is_some() { Some(0) } else { position(piece) }) else {
            return;
        };
        let parser = self.parser.get_or_insert_with(Feed::new);
        let piece = &piece[escape..];
        let taken = &piece[..piece.len().min(MAX_LINE - self.parsed)];
        self.parsed += taken.len();
        parser.advance(&mut self.style, taken);
    }

    fn end_line(&mut self) {
        self.parser = None;
        self.parsed = 0;
        self.line += 1;
        self.line_start = self.end;
        let last = self.checkpoints.last().map_or(0, |last| last.offset);
        if self.end - last >= self.spacing {
            self.checkpoint();
        }
    }

    fn checkpoint(&mut self) {
        if self.checkpoints.len() == MAX_CHECKPOINTS {
            let mut number = 0;
            self.checkpoints.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.spacing *= 2;
        }
        let style = self.style.0;
        self.checkpoints.push(Checkpoint { line: self.line, offset: self.end, style });
    }
}

fn position(piece: &[u8]) -> Option<usize> {
    piece.iter().position(|byte| *byte == 0x1b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vte::Parser;

    use super::*;

    #[test]
    fn the_last_line_may_have_no_end() {
        let mut index = Index::new();
        assert_eq!(index.extent().lines, 0);
        index.push(0, b"a\nb");
        assert_eq!(index.extent(), Extent { first: 0, lines: 2, bytes: 3, missed: 0 });
        index.push(0, b"\n");
        assert_eq!(index.extent().lines, 2);
    }

    #[test]
    fn after_a_gap_the_earlier_lines_are_gone() {
        let mut index = Index::new();
        index.push(0, b"a\n\x1b[31mb");
        index.push(100, b"c\n");
        assert_eq!(index.extent(), Extent { first: 2, lines: 3, bytes: 110, missed: 100 });
        assert_eq!(index.seek(0), Checkpoint { line: 2, offset: 108, style: Style::default() });
    }

    #[test]
    fn the_memory_for_a_long_log_is_limited() {
        let mut index = Index::new();
        index.spacing = 8;
        let line = b"xxxxxxx\n";
        let lines = 3 * MAX_CHECKPOINTS as u64;
        for _ in 0..lines {
            index.push(0, line);
        }
        assert!(index.checkpoints.len() <= MAX_CHECKPOINTS);
        for line in [0, 1, 5_000, lines - 1] {
            let found = index.seek(line);
            assert!(found.line <= line && line - found.line <= 4, "{line}: {found:?}");
            assert_eq!(found.offset, found.line * 8);
        }
    }

    proptest! {
        /// However the log is cut into pieces, each checkpoint is the beginning of its line, in the
        /// style of a terminal.
        #[test]
        fn a_checkpoint_is_where_its_line_begins(
            lines in prop::collection::vec(
                "[ab]{0,5}(\x1b\\[3[0-7]m)?(\x1b\\[0?m)?[c]{0,3}", 1..60,
            ),
            cuts in prop::collection::vec(1usize..30, 1..10),
        ) {
            let log: Vec<u8> =
                lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
            let mut index = Index::new();
            index.spacing = 16;
            let (mut rest, mut cuts) = (&log[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                index.push(0, piece);
                rest = later;
            }
            prop_assert_eq!(index.extent().lines, lines.len() as u64);
            for line in 0..lines.len() as u64 {
                let Checkpoint { line: from, offset, style } = index.seek(line);
                prop_assert!(from <= line);
                let before = usize::try_from(offset).unwrap();
                let breaks = log[..before].iter().filter(|byte| **byte == b'\n').count() as u64;
                prop_assert_eq!(breaks, from);
                let mut expected = StyleOnly::default();
                Parser::new().advance(&mut expected, &log[..before]);
                prop_assert_eq!(style, expected.0);
            }
        }
    }
}
