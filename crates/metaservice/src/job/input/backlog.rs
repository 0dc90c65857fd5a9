//! What the host has for the command's stdin and has not delivered: a state machine without I/O.
//!
//! ```text
//!            connected(from)                       cut, from any offset
//!   waiting ────────────────► connected ─┬──────────────────────────────► waiting
//!                                        └── finished ─► over: nothing more is wanted
//! ```
//!
//! Bytes are kept until the guest acknowledges them. A new connection begins at the byte that the
//! guest names. The size of the terminal is sent on each connection, because the guest may have
//! missed it.

use std::collections::VecDeque;

use bytes::Bytes;
use metaservice_protocol::TerminalSize;
use metaservice_protocol::buffer::ResendBuffer;
use metaservice_protocol::limits::{SHELL2_BLOCK, SHELL2_WINDOW};

/// How many bytes are kept: the window of a connection, and a block that is sent next.
pub(crate) const MAX_KEPT: usize = SHELL2_WINDOW + SHELL2_BLOCK;

/// How many signals may wait for a connection. More are dropped.
const MAX_SIGNALS: usize = 16;

/// What to send next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    Bytes(Bytes),
    End,
    Size(TerminalSize),
    Signal(u8),
}

/// The guest wants bytes that the host does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest wants byte {wanted}, and the host has those from {first} to {last}")]
pub(crate) struct Misplaced {
    wanted: u64,
    first: u64,
    last: u64,
}

/// The bytes, the end, the size and the signals that wait.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    buffer: ResendBuffer,
    /// The guest's count at the first byte of the buffer's offsets, once it is known: a service
    /// that was started again continues after the bytes of the earlier one.
    base: Option<u64>,
    /// The offset at which the current connection began.
    begun: u64,
    ended: bool,
    end_sent: bool,
    size: Option<TerminalSize>,
    size_sent: bool,
    signals: VecDeque<u8>,
}

impl Backlog {
    /// How many bytes [`push`](Self::push) takes now.
    pub(crate) fn room(&self) -> usize {
        let held = usize::try_from(self.buffer.held()).unwrap_or(usize::MAX);
        MAX_KEPT.saturating_sub(held)
    }

    /// Adds bytes, at most as many as there is [room](Self::room) for.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        self.buffer.push(bytes);
    }

    /// No more bytes follow.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) const fn is_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn set_size(&mut self, size: TerminalSize) {
        (self.size, self.size_sent) = (Some(size), false);
    }

    pub(crate) fn signal(&mut self, number: u8) {
        if self.signals.len() < MAX_SIGNALS {
            self.signals.push_back(number);
        }
    }

    /// A connection begins at the byte that the guest names.
    ///
    /// # Errors
    /// [`Misplaced`] if the host does not have this byte, or has not sent those before it.
    pub(crate) fn connected(&mut self, from: u64) -> Result<(), Misplaced> {
        let base = *self.base.get_or_insert(from);
        let (first, last) = (self.buffer.released(), self.buffer.next());
        // The base is the guest's: it can be any number.
        let begun = from.checked_sub(base).filter(|begun| (first..=last).contains(begun));
        self.begun = begun.ok_or(Misplaced {
            wanted: from,
            first: base.saturating_add(first),
            last: base.saturating_add(last),
        })?;
        self.buffer.release(self.begun);
        self.buffer.rewind();
        (self.end_sent, self.size_sent) = (false, false);
        Ok(())
    }

    /// The guest has acknowledged this many bytes of the current connection.
    pub(crate) fn acknowledged(&mut self, count: u64) {
        self.buffer.release(self.begun.saturating_add(count));
    }

    /// What to send next on the current connection. With `bytes` false, only what does not wait
    /// behind bytes.
    pub(crate) fn next(&mut self, bytes: bool) -> Option<Next> {
        if let Some(size) = self.size.filter(|_| !self.size_sent) {
            self.size_sent = true;
            return Some(Next::Size(size));
        }
        if let Some(number) = self.signals.pop_front() {
            return Some(Next::Signal(number));
        }
        if !bytes {
            return None;
        }
        if let Some(bytes) = self.buffer.take() {
            return Some(Next::Bytes(bytes));
        }
        (self.ended && !std::mem::replace(&mut self.end_sent, true)).then_some(Next::End)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A guest that takes bytes in order, and the connection to it.
    #[derive(Default)]
    struct Guest {
        taken: Vec<u8>,
        ended: bool,
        wire: VecDeque<Next>,
        acknowledged: u64,
    }

    impl Guest {
        fn connect(&mut self, backlog: &mut Backlog, base: u64) {
            self.wire.clear();
            self.acknowledged = 0;
            backlog.connected(base + self.taken.len() as u64).unwrap();
        }

        fn receive(&mut self, limit: usize) {
            match self.wire.pop_front() {
                Some(Next::Bytes(mut bytes)) => {
                    let rest = bytes.split_off(limit.min(bytes.len()));
                    self.acknowledged += bytes.len() as u64;
                    self.taken.extend_from_slice(&bytes);
                    if !rest.is_empty() {
                        self.wire.push_front(Next::Bytes(rest));
                    }
                }
                Some(Next::End) => self.ended = true,
                _ => {}
            }
        }
    }

    proptest! {
        /// Connections are cut with any number of bytes under way, and acknowledgements are lost.
        #[test]
        fn each_byte_arrives_once_and_in_order(
            steps in proptest::collection::vec((0u8..6, 1usize..40), 0..200),
            base in 0u64..1 << 40,
        ) {
            let (mut backlog, mut guest) = (Backlog::default(), Guest::default());
            guest.connect(&mut backlog, base);
            let mut written = Vec::new();
            for (step, amount) in steps {
                match step {
                    0 | 1 => {
                        let bytes: Vec<u8> =
                            (0..=255).cycle().skip(written.len() % 256).take(amount).collect();
                        written.extend_from_slice(&bytes);
                        backlog.push(bytes.into());
                    }
                    2 => guest.wire.extend(backlog.next(true)),
                    3 => guest.receive(amount),
                    4 => backlog.acknowledged(guest.acknowledged),
                    _ => guest.connect(&mut backlog, base),
                }
                prop_assert_eq!(&guest.taken[..], &written[..guest.taken.len()]);
            }
            backlog.end();
            while !guest.ended {
                guest.wire.extend(backlog.next(true));
                guest.receive(7);
                backlog.acknowledged(guest.acknowledged);
            }
            prop_assert_eq!(guest.taken, written);
            prop_assert_eq!(backlog.room(), MAX_KEPT);
        }
    }

    #[test]
    fn a_size_is_sent_on_each_connection_and_overtakes_bytes() {
        let (small, large) =
            (TerminalSize { columns: 80, rows: 24 }, TerminalSize { columns: 132, rows: 50 });
        let mut backlog = Backlog::default();
        backlog.push(Bytes::from_static(b"abc"));
        backlog.set_size(small);
        backlog.set_size(large);
        backlog.signal(2);
        backlog.connected(0).unwrap();
        let next: Vec<_> = std::iter::from_fn(|| backlog.next(false)).collect();
        assert_eq!(next, [Next::Size(large), Next::Signal(2)]);
        assert_eq!(backlog.next(true), Some(Next::Bytes(Bytes::from_static(b"abc"))));
        backlog.connected(1).unwrap();
        let next: Vec<_> = std::iter::from_fn(|| backlog.next(true)).collect();
        assert_eq!(next, [Next::Size(large), Next::Bytes(Bytes::from_static(b"bc"))]);
    }

    #[test]
    fn a_guest_does_not_get_bytes_that_are_gone_or_skip_any() {
        let mut backlog = Backlog::default();
        backlog.push(Bytes::from_static(b"abcdef"));
        backlog.connected(10).unwrap();
        assert_eq!(backlog.connected(11), Err(Misplaced { wanted: 11, first: 10, last: 10 }));
        backlog.next(true);
        backlog.acknowledged(4);
        for wrong in [0, 9, 13, 17] {
            assert!(backlog.connected(wrong).is_err(), "{wrong}");
        }
        assert_eq!(backlog.connected(16), Ok(()));
        assert_eq!(backlog.next(true), None);
    }

    #[test]
    fn a_guest_can_name_any_byte_and_none_counts_beyond_the_largest_number() {
        let mut backlog = Backlog::default();
        backlog.push(Bytes::from_static(b"abcdef"));
        backlog.connected(u64::MAX - 1).unwrap();
        backlog.next(true);
        assert_eq!(backlog.connected(u64::MAX), Ok(()));
        assert_eq!(backlog.next(true), Some(Next::Bytes(Bytes::from_static(b"bcdef"))));
        let last = Misplaced { wanted: 3, first: u64::MAX, last: u64::MAX };
        assert_eq!(backlog.connected(3), Err(last));
    }
}
