//! Finds the lines of a log that match. It does no I/O.

use bytes::{Bytes, BytesMut};
use metaservice::LogOutput;
use serde::Serialize;

use super::index::Checkpoint;
use super::pattern::Pattern;
use super::row::{MAX_LINE, Row};
use super::style::Style;

/// The most matching lines whose numbers are kept.
pub(crate) const MAX_FOUND: usize = 10_000;

/// What a search has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Matches {
    /// How many lines match.
    pub(crate) total: u64,
    /// The numbers of the first of them, from 0.
    pub(crate) lines: Vec<u64>,
    /// How many lines were searched.
    pub(crate) searched: u64,
    /// Whether the whole log was searched, as it was when the search began.
    pub(crate) complete: bool,
}

/// A search.
pub(crate) struct Search {
    pattern: Pattern,
    line: u64,
    /// The begin of a line that has not ended.
    rest: BytesMut,
    begun: bool,
    found: Matches,
}

impl Search {
    /// A search for `pattern`. The next byte that is added is that of the checkpoint.
    pub(crate) fn new(begin: Checkpoint, pattern: Pattern) -> Self {
        let found = Matches::default();
        Self { pattern, line: begin.line, rest: BytesMut::new(), begun: false, found }
    }

    /// Adds the next bytes.
    pub(crate) fn push(&mut self, bytes: &Bytes) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let whole = piece.last() == Some(&b'\n');
            if whole && !self.begun {
                self.end_line(&piece[..piece.len() - 1]);
                continue;
            }
            self.begun = true;
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = MAX_LINE - self.rest.len();
            self.rest.extend_from_slice(&text[..text.len().min(room)]);
            if whole {
                self.end_rest();
            }
        }
    }

    /// What was found, also in a line without an end.
    pub(crate) fn finish(mut self, complete: bool) -> Matches {
        if self.begun {
            self.end_rest();
        }
        Matches { complete, ..self.found }
    }

    fn end_rest(&mut self) {
        let line = std::mem::take(&mut self.rest);
        self.end_line(&line);
        self.rest = line;
        self.rest.clear();
        self.begun = false;
    }

    fn end_line(&mut self, line: &[u8]) {
        let line = &line[..line.len().min(MAX_LINE)];
        // What is searched is what is shown.
        let matches = if line.iter().any(u8::is_ascii_control) {
            let mut row = Row::new(Style::default());
            row.push(LogOutput::Stdout, line);
            self.pattern.is_in(row.text().as_bytes())
        } else {
            self.pattern.is_in(line)
        };
        if matches {
            self.found.total += 1;
            if self.found.lines.len() < MAX_FOUND {
                self.found.lines.push(self.line);
            }
        }
        self.line += 1;
        self.found.searched += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::index::Index;
    use super::*;

    fn search(pattern: &str, pieces: &[&[u8]]) -> Matches {
        let mut search = Search::new(Index::new().seek(0), pattern.parse().unwrap());
        for piece in pieces {
            search.push(&Bytes::copy_from_slice(piece));
        }
        search.finish(true)
    }

    #[test]
    fn all_matching_lines_are_counted() {
        let log = "an error\nfine\n".repeat(MAX_FOUND + 5);
        let found = search("^an error$", &[log.as_bytes()]);
        assert_eq!(found.total, MAX_FOUND as u64 + 5);
        assert_eq!((found.lines.len(), found.lines[1]), (MAX_FOUND, 2));
        assert_eq!(found.searched, 2 * (MAX_FOUND as u64 + 5));
    }

    #[test]
    fn what_is_shown_is_searched() {
        let found = search("abc", &[b"a\x1b[31mb\x1b[mc\n", b"xbc\ra\nab", b"c"]);
        assert_eq!(found.lines, [0, 1, 2]);
        assert_eq!(search("31", &[b"a\x1b[31mb\n"]).total, 0);
    }

    #[test]
    fn a_line_without_end_uses_limited_memory() {
        let piece = vec![b'x'; 300 * 1024];
        let mut search = Search::new(Index::new().seek(0), "x$".parse().unwrap());
        for _ in 0..20 {
            search.push(&Bytes::copy_from_slice(&piece));
            assert!(search.rest.len() <= MAX_LINE);
        }
        assert_eq!(search.finish(false).lines, [0]);
    }

    proptest! {
        /// However the log is cut into pieces, the same lines are found.
        #[test]
        fn cuts_do_not_show(log in "[ab\n]{0,60}", cut in 0usize..60) {
            let cut = cut.min(log.len());
            let (first, second) = log.as_bytes().split_at(cut);
            let expected = log.split('\n').enumerate().filter(|(_, line)| line.contains("ab"));
            let expected: Vec<u64> = expected.map(|(line, _)| line as u64).collect();
            prop_assert_eq!(search("ab", &[first, second]).lines, expected);
        }
    }
}
