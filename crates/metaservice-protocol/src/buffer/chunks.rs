//! A queue of byte chunks with a known use of memory.
//!
//! A `Bytes` from a connection can be one byte of a large buffer, and keeps that whole buffer in
//! memory. A peer that sends many small messages could fill the host's memory this way, and no
//! limit would count it. So this queue copies small chunks together, and keeps large ones as they
//! are.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Smaller chunks are copied. The buffers of a connection are only a few times larger, so a chunk
/// that is not copied keeps only a few times its size in memory.
const SMALL: usize = 16 * 1024;

/// A queue of bytes that uses about as much memory as it has bytes.
///
/// ```
/// use metaservice_protocol::buffer::ChunkQueue;
///
/// let mut chunks = ChunkQueue::default();
/// chunks.push("a".into());
/// chunks.push("bc".into());
/// assert_eq!(chunks.len(), 3);
/// assert_eq!(chunks.pop().unwrap(), "abc");
/// ```
#[derive(Debug, Default)]
pub struct ChunkQueue {
    whole: VecDeque<Bytes>,
    /// Small chunks, after all of `whole`.
    small: BytesMut,
    length: usize,
}

impl ChunkQueue {
    /// The number of bytes in the queue.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether the queue is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds bytes at the end.
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

    /// Takes the first chunk; `None` if the queue is empty.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.whole.is_empty() {
            self.gather();
        }
        let first = self.whole.pop_front()?;
        self.length -= first.len();
        Some(first)
    }

    /// Takes the first chunk, or its first `limit` bytes. `limit` is at least 1.
    pub fn pop_some(&mut self, limit: usize) -> Option<Bytes> {
        let mut first = self.pop()?;
        if first.len() > limit {
            let rest = first.split_off(limit);
            self.length += rest.len();
            self.whole.push_front(rest);
        }
        Some(first)
    }

    /// Takes exactly `length` bytes as one chunk. If there are fewer, it returns `None` and takes
    /// nothing.
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
        fn bytes_come_out_in_order_and_are_counted(
            steps in proptest::collection::vec((0u8..4, 0usize..40_000), 0..60),
        ) {
            let mut chunks = ChunkQueue::default();
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0u8;
            for (step, size) in steps {
                let taken = match step {
                    0 | 1 => {
                        let pattern = std::iter::repeat_with(|| {
                            next = next.wrapping_mul(5).wrapping_add(3);
                            next
                        });
                        let bytes: Vec<u8> = pattern.take(size).collect();
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
    fn small_chunks_of_large_buffers_are_copied_together() {
        let mut chunks = ChunkQueue::default();
        for _ in 0..100_000 {
            chunks.push(Bytes::from(vec![7; 64 * 1024]).slice(9..10));
        }
        assert_eq!(chunks.len(), 100_000);
        let pieces = std::iter::from_fn(|| chunks.pop()).count();
        assert!(pieces <= 100_000 / SMALL + 1, "{pieces}");
    }
}
