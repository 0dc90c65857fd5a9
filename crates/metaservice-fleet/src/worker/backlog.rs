//! The part of a log that is written to disk and not sent yet. No I/O.

use std::collections::VecDeque;

use crate::log::Stream;

/// The most bytes of a log that wait on disk while the queue takes none. More slows the command.
const MAX_BYTES: u64 = 1 << 30;

/// The most runs of one output that wait. Each needs some bytes of memory.
const MAX_RUNS: usize = 64 * 1024;

/// What waits. Positions are offsets in the whole log, in bytes.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// The output of each run, and its end.
    runs: VecDeque<(Stream, u64)>,
    written: u64,
    sent: u64,
    /// The offset of the first byte of the file.
    base: u64,
    has_ended: bool,
}

/// Bytes of one output that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) stream: Stream,
    pub(super) offset: u64,
    pub(super) length: usize,
    /// Where it is in the file.
    pub(super) place: u64,
}

impl Backlog {
    /// Whether there is room for more.
    pub(super) fn has_room(&self) -> bool {
        self.written - self.sent < MAX_BYTES && self.runs.len() < MAX_RUNS
    }

    /// Whether all that was written is sent: the file may be emptied.
    pub(super) const fn is_sent(&self) -> bool {
        self.written == self.sent
    }

    /// Notes that the file is empty. Only if [all is sent](Self::is_sent).
    pub(super) const fn emptied(&mut self) {
        self.base = self.sent;
    }

    /// Where the next bytes go in the file.
    pub(super) const fn end_of_file(&self) -> u64 {
        self.written - self.base
    }

    /// Notes that these bytes are written.
    pub(super) fn write(&mut self, stream: Stream, length: u64) {
        self.written += length;
        match self.runs.back_mut() {
            Some((last, end)) if *last == stream => *end = self.written,
            _ => self.runs.push_back((stream, self.written)),
        }
    }

    /// The first bytes that wait, at most so many.
    pub(super) fn first(&self, most: usize) -> Option<Part> {
        let (stream, end) = *self.runs.front()?;
        let length = usize::try_from(end - self.sent).unwrap_or(most).min(most);
        Some(Part { stream, offset: self.sent, length, place: self.sent - self.base })
    }

    /// Notes that this part is sent.
    pub(super) fn send(&mut self, part: Part) {
        self.sent = part.offset + part.length as u64;
        if self.runs.front().is_some_and(|(_, end)| *end == self.sent) {
            self.runs.pop_front();
        }
    }

    /// Notes that no more is written.
    pub(super) const fn end(&mut self) {
        self.has_ended = true;
    }

    /// The length of the log, once it has ended and all of it is sent.
    pub(super) fn length(&self) -> Option<u64> {
        (self.has_ended && self.is_sent()).then_some(self.sent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_of_one_output_are_one_part() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.first(10), None);
        backlog.write(Stream::Stdout, 3);
        backlog.write(Stream::Stdout, 4);
        backlog.write(Stream::Stderr, 2);
        let part = backlog.first(5).unwrap();
        assert_eq!(part, Part { stream: Stream::Stdout, offset: 0, length: 5, place: 0 });
        backlog.send(part);
        let part = backlog.first(5).unwrap();
        assert_eq!(part, Part { stream: Stream::Stdout, offset: 5, length: 2, place: 5 });
        backlog.send(part);
        let part = backlog.first(5).unwrap();
        assert_eq!(part, Part { stream: Stream::Stderr, offset: 7, length: 2, place: 7 });
        assert_eq!(backlog.length(), None);
        backlog.end();
        assert_eq!(backlog.length(), None);
        backlog.send(part);
        assert_eq!(backlog.length(), Some(9));
    }

    #[test]
    fn a_file_that_was_emptied_begins_at_the_next_byte() {
        let mut backlog = Backlog::default();
        backlog.write(Stream::Stdout, 3);
        backlog.send(backlog.first(9).unwrap());
        assert!(backlog.is_sent());
        backlog.emptied();
        assert_eq!(backlog.end_of_file(), 0);
        backlog.write(Stream::Stdout, 2);
        let part = backlog.first(9).unwrap();
        assert_eq!((part.offset, part.place, part.length), (3, 0, 2));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut backlog = Backlog::default();
        backlog.write(Stream::Stdout, MAX_BYTES);
        assert!(!backlog.has_room());
        let mut backlog = Backlog::default();
        for _ in 0..MAX_RUNS / 2 {
            backlog.write(Stream::Stdout, 1);
            backlog.write(Stream::Stderr, 1);
        }
        assert!(!backlog.has_room());
        backlog.send(backlog.first(1).unwrap());
        assert!(backlog.has_room());
    }

    proptest! {
        #[test]
        fn each_byte_is_sent_once_and_in_order(
            steps in proptest::collection::vec((any::<bool>(), any::<bool>(), 1_usize..9), 0..60),
        ) {
            let (mut backlog, mut written, mut sent) = (Backlog::default(), Vec::new(), Vec::new());
            let mut file: Vec<Stream> = Vec::new();
            let mut send = |backlog: &mut Backlog, file: &[Stream], most| {
                let Some(part) = backlog.first(most) else { return };
                let place = usize::try_from(part.place).unwrap();
                let bytes = &file[place..place + part.length];
                assert!(bytes.iter().all(|stream| *stream == part.stream));
                assert_eq!(part.offset, sent.len() as u64);
                sent.extend_from_slice(bytes);
                backlog.send(part);
            };
            for (writes, first, size) in steps {
                if writes {
                    if backlog.is_sent() {
                        file.clear();
                        backlog.emptied();
                    }
                    let stream = if first { Stream::Stdout } else { Stream::Stderr };
                    assert_eq!(backlog.end_of_file(), file.len() as u64);
                    file.extend(std::iter::repeat_n(stream, size));
                    written.extend(std::iter::repeat_n(stream, size));
                    backlog.write(stream, size as u64);
                } else {
                    send(&mut backlog, &file, size);
                }
            }
            while backlog.first(1).is_some() {
                send(&mut backlog, &file, 5);
            }
            prop_assert_eq!(written, sent);
        }
    }
}
