//! The live log of an attempt, in chunks with offsets.
//!
//! A chunk is a message: its version, the output it came from, its offset in the whole log (8 bytes,
//! big endian), and its bytes. The one worker of an attempt writes one chunk after the other, and
//! the next only after the server has confirmed the one before. A chunk that came twice has the same
//! offset, so a reader loses no byte and repeats none.

use bytes::{BufMut, Bytes, BytesMut};

use crate::name::JobId;

/// The longest chunk in bytes, without its head.
pub const MAX_CHUNK: usize = 128 * 1024;

const HEAD: usize = 10;
const VERSION: u8 = 1;

/// An output of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or both in one.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its place in the whole log, in bytes.
    pub offset: u64,
    /// The output that it came from.
    pub stream: Stream,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Chunk {
    /// The message that carries it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut message = BytesMut::with_capacity(HEAD + self.bytes.len());
        message.put_u8(VERSION);
        message.put_u8(match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        });
        message.put_u64(self.offset);
        message.put_slice(&self.bytes);
        message.freeze()
    }

    /// The chunk of a message; `None` if it is none.
    #[must_use]
    pub fn decode(message: &Bytes) -> Option<Self> {
        let (head, _) = message.split_first_chunk::<HEAD>()?;
        let stream = match head[..2] {
            [VERSION, 1] => Stream::Stdout,
            [VERSION, 2] => Stream::Stderr,
            _ => return None,
        };
        let offset = u64::from_be_bytes(head[2..].try_into().ok()?);
        let bytes = message.slice(HEAD..);
        offset.checked_add(bytes.len() as u64)?;
        Some(Self { offset, stream, bytes })
    }

    /// The offset behind its last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// What a reader has not read yet, which is at this offset.
    pub(crate) fn unread(mut self, offset: u64) -> Option<Self> {
        let known = offset.saturating_sub(self.offset);
        if known >= self.bytes.len() as u64 {
            return None;
        }
        self.offset += known;
        self.bytes = self.bytes.split_off(usize::try_from(known).ok()?);
        Some(self)
    }
}

/// The subject of an attempt's log.
pub(crate) fn subject(id: &JobId, attempt: u32) -> String {
    format!("ms.log.{id}.{attempt}")
}

/// The subjects of the logs of all attempts of a job.
pub(crate) fn subjects(id: &JobId) -> String {
    format!("ms.log.{id}.*")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(offset: u64, bytes: &'static [u8]) -> Chunk {
        Chunk { offset, stream: Stream::Stderr, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn a_reader_gets_each_byte_once() {
        assert_eq!(chunk(5, b"abc").unread(5), Some(chunk(5, b"abc")));
        assert_eq!(chunk(5, b"abc").unread(7), Some(chunk(7, b"c")));
        assert_eq!(chunk(5, b"abc").unread(8), None);
        assert_eq!(chunk(5, b"abc").unread(9), None);
        assert_eq!(chunk(5, b"abc").unread(2), Some(chunk(5, b"abc")));
    }

    #[test]
    fn a_message_of_another_form_is_no_chunk() {
        for wrong in
            [&b""[..], &[1; 9], &[2, 1, 0, 0, 0, 0, 0, 0, 0, 0], &[1, 3, 0, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert_eq!(Chunk::decode(&Bytes::copy_from_slice(wrong)), None, "{wrong:?}");
        }
        let mut end = vec![1, 1];
        end.extend([0xff; 8]);
        end.push(0);
        assert_eq!(Chunk::decode(&end.into()), None, "it ends behind the largest offset");
    }

    proptest! {
        #[test]
        fn a_chunk_survives_its_message(offset in 0..u64::MAX / 2, bytes: Vec<u8>, first: bool) {
            let stream = if first { Stream::Stdout } else { Stream::Stderr };
            let chunk = Chunk { offset, stream, bytes: bytes.into() };
            prop_assert_eq!(Chunk::decode(&chunk.encode()), Some(chunk));
        }

        #[test]
        fn no_message_is_too_strange(message: Vec<u8>) {
            if let Some(chunk) = Chunk::decode(&Bytes::from(message.clone())) {
                prop_assert_eq!(chunk.encode(), message);
            }
        }
    }
}
