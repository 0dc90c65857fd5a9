//! Bytes in the order in which they came, without what they would keep alive.
//!
//! A `Bytes` that a connection gives may be a byte of a buffer of a hundred thousand: a peer that
//! sends small pieces between large nothings would so fill the memory with what nobody counts.
//! Small pieces are therefore copied together; large ones stay as they are.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces that are smaller are copied. The buffers of our connections are not many times as
/// large, so what is kept alive is not many times what is counted.
const SMALL: usize = 16 * 1024;

/// A queue of bytes that keeps about as much memory as it has bytes.
///
/// ```
/// use metaservice_protocol::Chunks;
///
/// let mut chunks = Chunks::default();
/// chunks.push("a".into());
/// chunks.push("bc".into());
/// assert_eq!(chunks.len(), 3);
/// assert_eq!(chunks.pop().unwrap(), "abc");
/// ```
#[derive(Debug, Default)]
pub struct Chunks {
    whole: VecDeque<Bytes>,
    /// Small pieces behind all of `whole`.
    small: BytesMut,
    length: usize,
}

impl Chunks {
    /// How many bytes there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Queues bytes behind all others. Empty ones change nothing.
    pub fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        if bytes.len() >= SMALL {
            self.gather();
            self.whole.push_back(bytes);
        } else {
            self.small.extend_from_slice(&bytes);
            if self.small.len() >= SMALL {
                self.gather();
            }
        }
    }

    /// The first bytes as they lie there; `None` if there are none.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.whole.is_empty() {
            self.gather();
        }
        let first = self.whole.pop_front()?;
        self.length -= first.len();
        Some(first)
    }

    /// As [`pop`](Self::pop), at most so many bytes; `most` is not 0.
    pub fn pop_some(&mut self, most: usize) -> Option<Bytes> {
        let mut first = self.pop()?;
        if first.len() > most {
            let rest = first.split_off(most);
            self.length += rest.len();
            self.whole.push_front(rest);
        }
        Some(first)
    }

    /// Exactly `length` bytes in one piece; `None`, and nothing changes, if there are fewer.
    pub fn pop_exactly(&mut self, length: usize) -> Option<Bytes> {
        if self.length < length {
            return None;
        }
        let mut first = self.pop_some(length)?;
        if first.len() < length {
            let mut joined = BytesMut::with_capacity(length);
            joined.extend_from_slice(&first);
            while joined.len() < length {
                joined.extend_from_slice(&self.pop_some(length - joined.len())?);
            }
            first = joined.freeze();
        }
        Some(first)
    }

    fn gather(&mut self) {
        if !self.small.is_empty() {
            self.whole.push_back(self.small.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_and_length_are_kept(
            steps in proptest::collection::vec((0u8..4, 0usize..40_000), 0..60),
        ) {
            let mut chunks = Chunks::default();
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0u8;
            for (step, size) in steps {
                let taken = match step {
                    0 | 1 => {
                        let bytes: Vec<u8> = (0..size).map(|_| { next = next.wrapping_mul(5).wrapping_add(3); next }).collect();
                        model.extend(&bytes);
                        chunks.push(bytes.into());
                        None
                    }
                    2 => chunks.pop_some(size + 1),
                    _ => chunks.pop_exactly(size + 1),
                };
                if let Some(taken) = taken {
                    prop_assert!(taken.len() <= size + 1);
                    prop_assert!(step == 2 || taken.len() == size + 1);
                    let expected: Vec<u8> = model.drain(..taken.len()).collect();
                    prop_assert!(taken == expected);
                }
                prop_assert_eq!(chunks.len(), model.len());
                prop_assert_eq!(chunks.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn small_pieces_of_large_buffers_do_not_keep_them() {
        let mut chunks = Chunks::default();
        for _ in 0..100_000 {
            chunks.push(Bytes::from(vec![7; 64 * 1024]).slice(9..10));
        }
        assert_eq!(chunks.len(), 100_000);
        let pieces = std::iter::from_fn(|| chunks.pop()).count();
        assert!(pieces <= 100_000 / SMALL + 1, "{pieces}");
    }
}
