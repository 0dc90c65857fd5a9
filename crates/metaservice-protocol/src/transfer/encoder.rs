//! The sender of a transfer.

use bytes::{BufMut, Bytes, BytesMut};

use super::block::{COMPRESSED, DATA, END, FAILED, HEAD, LENGTH_BITS, MARK};
use super::digest::Digest;
use crate::failure::Failure;
use crate::limits::{MAX_CURSOR, TRANSFER_BLOCK};

/// Makes the blocks of a transfer. It stores a digest and no content.
///
/// ```
/// use bytes::Bytes;
/// use metaservice_protocol::transfer::{Decoder, Encoder, Item};
///
/// let mut encoder = Encoder::new();
/// let mut decoder = Decoder::new();
/// let [head, content] = encoder.data(Bytes::from_static(b"hello"));
/// for chunk in [head, content, encoder.end()] {
///     decoder.push(chunk);
/// }
/// assert_eq!(decoder.next(), Ok(Some(Item::Data(Bytes::from_static(b"hello")))));
/// assert_eq!(decoder.next(), Ok(Some(Item::End)));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Encoder {
    digest: Digest,
}

impl Encoder {
    /// The encoder of a new transfer, or of the rest of a resumed one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A data block: its head, and the content, which is not copied.
    ///
    /// # Panics
    /// If `content` is empty or longer than [`TRANSFER_BLOCK`]: a bug of the caller.
    #[must_use]
    pub fn data(&mut self, content: Bytes) -> [Bytes; 2] {
        assert!((1..=TRANSFER_BLOCK).contains(&content.len()), "a block of {}", content.len());
        self.digest.update(&content);
        let mut head = BytesMut::with_capacity(HEAD);
        put_head(&mut head, DATA, content.len());
        [head.freeze(), content]
    }

    /// A compressed block. `None` if the content does not become smaller: then the encoder is
    /// unchanged.
    ///
    /// # Panics
    /// As [`data`](Self::data).
    #[must_use]
    pub fn compressed(&mut self, content: &[u8]) -> Option<Bytes> {
        assert!((1..=TRANSFER_BLOCK).contains(&content.len()), "a block of {}", content.len());
        let packed = lz4_flex::block::compress(content);
        if packed.len() + 4 >= content.len() {
            return None;
        }
        self.digest.update(content);
        let mut block = BytesMut::with_capacity(HEAD + 4 + packed.len());
        put_head(&mut block, COMPRESSED, 4 + packed.len());
        block.put_u32(u32::try_from(content.len()).unwrap_or(0));
        block.put_slice(&packed);
        Some(block.freeze())
    }

    /// A mark: a place at which the transfer can be resumed by this cursor. `None` if the cursor is
    /// longer than [`MAX_CURSOR`].
    #[must_use]
    pub fn mark(&self, cursor: &str) -> Option<Bytes> {
        if cursor.len() > MAX_CURSOR {
            return None;
        }
        let mut block = BytesMut::with_capacity(HEAD + 16 + cursor.len());
        put_head(&mut block, MARK, 16 + cursor.len());
        self.put_digest(&mut block);
        block.put_slice(cursor.as_bytes());
        Some(block.freeze())
    }

    /// The end of the transfer.
    #[must_use]
    pub fn end(&self) -> Bytes {
        let mut block = BytesMut::with_capacity(HEAD + 16);
        put_head(&mut block, END, 16);
        self.put_digest(&mut block);
        block.freeze()
    }

    /// The end of a transfer that has failed.
    #[must_use]
    pub fn failed(failure: &Failure) -> Bytes {
        let json = failure.to_json();
        let mut block = BytesMut::with_capacity(HEAD + json.len());
        put_head(&mut block, FAILED, json.len());
        block.put_slice(&json);
        block.freeze()
    }

    /// The number of bytes of content so far.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.digest.length()
    }

    fn put_digest(&self, block: &mut BytesMut) {
        block.put_u64(self.digest.length());
        block.put_u64(self.digest.value());
    }
}

fn put_head(block: &mut BytesMut, kind: u32, length: usize) {
    // No block is nearly as large as 2^29 bytes.
    block.put_u32(kind << LENGTH_BITS | u32::try_from(length).unwrap_or(0));
}
