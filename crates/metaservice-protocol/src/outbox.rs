//! What of a byte stream is on its way, as a value.
//!
//! ```text
//!   offset 0 ......... released ......... next ......... end
//!            forgotten │ in doubt (sent)  │ queued       │
//!                      │◄──── kept here: `held` bytes ───►│
//! ```
//!
//! Owns the order of bytes and which of them can still be sent again. Where nobody says what has
//! arrived, as with the log of version 1, a byte is released once the connection has taken it; a
//! peer that does say so releases by its own offsets, and nothing else changes.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// Bytes between a source and a connection that may break.
///
/// ```
/// use metaservice_protocol::Outbox;
///
/// let mut outbox = Outbox::default();
/// outbox.push("abc".into());
/// assert_eq!(outbox.take().unwrap(), "abc");
/// outbox.release(1); // the peer says that it has one byte
/// outbox.rewind(); // and the connection breaks
/// assert_eq!(outbox.take().unwrap(), "bc");
/// ```
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<Bytes>,
    /// The offset of the first byte that is kept.
    released: u64,
    /// The offset of the first byte that is to be sent next.
    next: u64,
    /// The offset behind the last byte.
    end: u64,
}

impl Outbox {
    /// How many bytes are kept.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.end - self.released
    }

    /// The offset of the first byte that is kept: everything before it was released.
    #[must_use]
    pub const fn released(&self) -> u64 {
        self.released
    }

    /// The offset of the next byte to be sent.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Queues bytes behind all others.
    pub fn push(&mut self, chunk: Bytes) {
        self.end += chunk.len() as u64;
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// The next bytes to send, which are in doubt from now on.
    pub fn take(&mut self) -> Option<Bytes> {
        let mut offset = self.released;
        for chunk in &self.chunks {
            let behind = offset + chunk.len() as u64;
            if self.next < behind {
                let skip = usize::try_from(self.next - offset).unwrap_or(usize::MAX);
                self.next = behind;
                return Some(chunk.slice(skip..));
            }
            offset = behind;
        }
        None
    }

    /// Forgets everything before `offset`. An offset behind what was sent counts as all that
    /// was sent, and one before what was released as nothing.
    pub fn release(&mut self, offset: u64) {
        let offset = offset.min(self.next);
        while self.released < offset {
            let Some(first) = self.chunks.front_mut() else { return };
            let wanted = usize::try_from(offset - self.released).unwrap_or(usize::MAX);
            let count = wanted.min(first.len());
            first.advance(count);
            self.released += count as u64;
            if first.is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    /// The connection broke: what is in doubt is to be sent again.
    pub fn rewind(&mut self) {
        self.next = self.released;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A peer that takes only part of what was sent before each cut, and says how much,
        /// has everything once and in order in the end.
        #[test]
        fn nothing_is_lost_and_nothing_sent_twice_by_a_peer_that_says_what_it_has(
            steps in proptest::collection::vec((0u8..4, 0usize..50), 0..200),
        ) {
            let mut outbox = Outbox::default();
            let [mut written, mut wire, mut got]: [Vec<u8>; 3] = Default::default();
            for (step, amount) in steps {
                match step {
                    0 => {
                        let chunk: Vec<u8> =
                            (0..=255).cycle().skip(written.len() % 256).take(amount).collect();
                        written.extend(&chunk);
                        outbox.push(chunk.into());
                    }
                    1 => wire.extend(outbox.take().unwrap_or_default()),
                    2 => {
                        let count = amount.min(wire.len());
                        got.extend(wire.drain(..count));
                        outbox.release(got.len() as u64);
                        prop_assert_eq!(outbox.held(), (written.len() - got.len()) as u64);
                    }
                    _ => {
                        wire.clear();
                        outbox.rewind();
                        prop_assert_eq!(outbox.next(), got.len() as u64);
                    }
                }
            }
            got.extend(wire);
            while let Some(chunk) = outbox.take() {
                got.extend(chunk);
            }
            prop_assert_eq!(got, written);
        }
    }

    #[test]
    fn a_peer_cannot_release_what_was_not_sent() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"abcdef"));
        outbox.release(4);
        assert_eq!(outbox.held(), 6);
        outbox.take();
        outbox.release(2);
        outbox.release(1);
        outbox.rewind();
        assert_eq!(outbox.take().unwrap(), "cdef");
        outbox.release(u64::MAX);
        assert_eq!((outbox.held(), outbox.next()), (0, 6));
    }
}
