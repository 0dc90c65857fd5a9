//! The bytes of a stream that may have to be sent again.
//!
//! ```text
//!   offset 0 ......... released ......... next ......... end
//!            dropped   │ sent, not        │ not sent     │
//!                      │ confirmed        │              │
//!                      │◄──── kept here: `held` bytes ───►│
//! ```
//!
//! Owns the order of the bytes, and which of them can still be sent again. The caller decides when
//! to release bytes: when the peer confirms an offset, or, for the log of version 1, which has no
//! confirmation, when the connection has accepted the bytes.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// Bytes between a source and a connection that can break.
///
/// ```
/// use metaservice_protocol::buffer::ResendBuffer;
///
/// let mut buffer = ResendBuffer::default();
/// buffer.push("abc".into());
/// assert_eq!(buffer.take().unwrap(), "abc");
/// buffer.release(1); // The peer confirms one byte.
/// buffer.rewind(); // The connection breaks.
/// assert_eq!(buffer.take().unwrap(), "bc");
/// ```
#[derive(Debug, Default)]
pub struct ResendBuffer {
    chunks: VecDeque<Bytes>,
    /// The offset of the first byte in the buffer.
    released: u64,
    /// The offset of the next byte to send.
    next: u64,
    /// The offset after the last byte.
    end: u64,
}

impl ResendBuffer {
    /// The number of bytes in the buffer.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.end - self.released
    }

    /// The offset of the first byte in the buffer. All bytes before it were released.
    #[must_use]
    pub const fn released(&self) -> u64 {
        self.released
    }

    /// The offset of the next byte to send.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, chunk: Bytes) {
        self.end += chunk.len() as u64;
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// The next bytes to send. They stay in the buffer until they are
    /// [released](Self::release).
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

    /// Drops all bytes before `offset`. A larger offset than that of the next byte counts as that
    /// one: a peer cannot confirm what was not sent.
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

    /// The connection broke: sends all bytes in the buffer again.
    pub fn rewind(&mut self) {
        self.next = self.released;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each connection carries a part of what was sent, and the peer confirms that part.
        #[test]
        fn a_peer_that_confirms_gets_each_byte_once_and_in_order(
            steps in proptest::collection::vec((0u8..4, 0usize..50), 0..200),
        ) {
            let mut buffer = ResendBuffer::default();
            let [mut written, mut wire, mut got]: [Vec<u8>; 3] = Default::default();
            for (step, amount) in steps {
                match step {
                    0 => {
                        let chunk: Vec<u8> =
                            (0..=255).cycle().skip(written.len() % 256).take(amount).collect();
                        written.extend(&chunk);
                        buffer.push(chunk.into());
                    }
                    1 => wire.extend(buffer.take().unwrap_or_default()),
                    2 => {
                        let count = amount.min(wire.len());
                        got.extend(wire.drain(..count));
                        buffer.release(got.len() as u64);
                        prop_assert_eq!(buffer.held(), (written.len() - got.len()) as u64);
                    }
                    _ => {
                        wire.clear();
                        buffer.rewind();
                        prop_assert_eq!(buffer.next(), got.len() as u64);
                    }
                }
            }
            got.extend(wire);
            while let Some(chunk) = buffer.take() {
                got.extend(chunk);
            }
            prop_assert_eq!(got, written);
        }
    }

    #[test]
    fn a_peer_cannot_confirm_what_was_not_sent() {
        let mut buffer = ResendBuffer::default();
        buffer.push(Bytes::from_static(b"abcdef"));
        buffer.release(4);
        assert_eq!(buffer.held(), 6);
        buffer.take();
        buffer.release(2);
        buffer.release(1);
        buffer.rewind();
        assert_eq!(buffer.take().unwrap(), "cdef");
        buffer.release(u64::MAX);
        assert_eq!((buffer.held(), buffer.next()), (0, 6));
    }
}
