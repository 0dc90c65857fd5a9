//! The receiver of a transfer.
//!
//! ```text
//!            data, compressed, mark              end, with the right length and digest
//!   Head ◄──────────────────────────► Body ──────────────────────────────────► Over
//!                                       │ an invalid block                         ▲
//!                                       └─► an error, again at each call           │ failed
//! ```

use bytes::{Buf, Bytes};

use super::block::{COMPRESSED, DATA, END, FAILED, HEAD, LENGTH_BITS, MARK};
use super::digest::Digest;
use crate::action::Resume;
use crate::buffer::ChunkQueue;
use crate::failure::Failure;
use crate::limits::{MAX_CURSOR, MAX_FAILURE, TRANSFER_BLOCK};

/// The next part of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Content. If it was not compressed, it is usually a slice of what was pushed, not a copy.
    Data(Bytes),
    /// The transfer is complete, and its length and digest are right.
    End,
    /// The sender has failed.
    Failed(Failure),
}

/// The sender has sent an invalid block. The transfer is useless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTransfer {
    /// There is no such kind of block.
    #[error("there is no block of kind {0}")]
    UnknownKind(u32),
    /// A block is too long or too short for its kind.
    #[error("a block of kind {kind} cannot have {length} bytes")]
    WrongLength {
        /// The block's kind.
        kind: u32,
        /// The length in its head, in bytes.
        length: usize,
    },
    /// A compressed block cannot be decompressed, or not to its length.
    #[error("a compressed block is damaged")]
    Damaged,
    /// A cursor is not UTF-8.
    #[error("a cursor is not text")]
    Cursor,
    /// The length or the digest is not the sender's.
    #[error("the bytes that arrived are not the bytes that were sent")]
    Digest,
    /// There are bytes after the end.
    #[error("there are bytes after the end")]
    AfterEnd,
}

/// Reads a transfer. It stores the bytes that were pushed and not taken. A number from the sender
/// makes it allocate one block at most.
///
/// Call [`push`](Self::push) with each received chunk, then [`next`](Self::next) until it returns
/// `None`. If the transfer is cut, send [`resume`](Self::resume) to the sender, and read the rest
/// with [`resumed`](Self::resumed).
///
/// ```
/// use metaservice_protocol::transfer::{Decoder, Encoder, Item};
///
/// let mut encoder = Encoder::new();
/// let [head, content] = encoder.data("hello".into());
/// let mut decoder = Decoder::new();
/// decoder.push(head);
/// decoder.push(content.slice(..2));
/// assert_eq!(decoder.next(), Ok(Some(Item::Data("he".into()))));
/// assert_eq!(decoder.resume().skip, 2);
///
/// let mut decoder = decoder.resumed();
/// let mut encoder = Encoder::new();
/// for chunk in encoder.data("llo".into()) {
///     decoder.push(chunk);
/// }
/// decoder.push(encoder.end());
/// assert_eq!(decoder.next(), Ok(Some(Item::Data("llo".into()))));
/// assert_eq!(decoder.next(), Ok(Some(Item::End)));
/// ```
#[derive(Debug)]
pub struct Decoder {
    pending: ChunkQueue,
    /// The kind of the current block. For data: the number of missing bytes. For others: the length
    /// of the block.
    block: Option<(u32, usize)>,
    digest: Digest,
    /// The cursor of the last mark.
    cursor: String,
    /// The digest of the content since the last mark. `None` before the first mark: use `digest`
    /// then, which covers the content since the beginning.
    since_mark: Option<Digest>,
    over: bool,
    broken: Option<InvalidTransfer>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// The decoder of a new transfer.
    #[must_use]
    pub fn new() -> Self {
        Self {
            pending: ChunkQueue::default(),
            block: None,
            digest: Digest::new(),
            cursor: String::new(),
            since_mark: None,
            over: false,
            broken: None,
        }
    }

    /// The decoder of the rest of a transfer that was cut. Bytes that were pushed and not taken are
    /// dropped: the sender sends them again.
    #[must_use]
    pub fn resumed(self) -> Self {
        let since_mark = self.since_mark.unwrap_or(self.digest);
        Self { cursor: self.cursor, since_mark: Some(since_mark), ..Self::new() }
    }

    /// The place after the content that was taken.
    #[must_use]
    pub fn resume(&self) -> Resume {
        let since_mark = self.since_mark.as_ref().unwrap_or(&self.digest);
        Resume {
            cursor: self.cursor.clone(),
            skip: since_mark.length(),
            digest: since_mark.value(),
        }
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: Bytes) {
        self.pending.push(bytes);
    }

    /// Whether the transfer has ended or failed. If not, the end of the bytes is a cut.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// The next item; `None` if it needs more bytes.
    ///
    /// # Errors
    /// [`InvalidTransfer`], and the same again at each later call.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends at the first None")]
    pub fn next(&mut self) -> Result<Option<Item>, InvalidTransfer> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let next = self.advance();
        if let Err(broken) = next {
            self.broken = Some(broken);
        }
        next
    }

    fn advance(&mut self) -> Result<Option<Item>, InvalidTransfer> {
        loop {
            if self.over {
                let empty = self.pending.is_empty();
                return if empty { Ok(None) } else { Err(InvalidTransfer::AfterEnd) };
            }
            let Some((kind, length)) = self.block else {
                let Some(mut head) = self.pending.pop_exactly(HEAD) else { return Ok(None) };
                self.block = Some(parse_head(head.get_u32())?);
                continue;
            };
            if kind == DATA {
                let Some(content) = self.pending.pop_some(length) else { return Ok(None) };
                let left = length - content.len();
                self.block = (left > 0).then_some((kind, left));
                return Ok(Some(self.content(content)));
            }
            let Some(body) = self.pending.pop_exactly(length) else { return Ok(None) };
            self.block = None;
            if let Some(item) = self.complete(kind, body)? {
                return Ok(Some(item));
            }
        }
    }

    /// Handles a complete block of another kind than data.
    fn complete(&mut self, kind: u32, mut body: Bytes) -> Result<Option<Item>, InvalidTransfer> {
        match kind {
            COMPRESSED => {
                let length = body.get_u32() as usize;
                if !(1..=TRANSFER_BLOCK).contains(&length) {
                    return Err(InvalidTransfer::Damaged);
                }
                let content = lz4_flex::block::decompress(&body, length);
                let content = content.map_err(|_| InvalidTransfer::Damaged)?;
                if content.len() != length {
                    return Err(InvalidTransfer::Damaged);
                }
                Ok(Some(self.content(content.into())))
            }
            MARK => {
                self.compare(&mut body)?;
                let cursor = std::str::from_utf8(&body).map_err(|_| InvalidTransfer::Cursor)?;
                cursor.clone_into(&mut self.cursor);
                self.since_mark = Some(Digest::new());
                Ok(None)
            }
            END => {
                self.compare(&mut body)?;
                self.over = true;
                Ok(Some(Item::End))
            }
            _ => {
                self.over = true;
                Ok(Some(Item::Failed(Failure::from_json(&body))))
            }
        }
    }

    fn content(&mut self, content: Bytes) -> Item {
        self.digest.update(&content);
        if let Some(since_mark) = &mut self.since_mark {
            since_mark.update(&content);
        }
        Item::Data(content)
    }

    fn compare(&self, body: &mut Bytes) -> Result<(), InvalidTransfer> {
        let (length, digest) = (body.get_u64(), body.get_u64());
        let same = length == self.digest.length() && digest == self.digest.value();
        if same { Ok(()) } else { Err(InvalidTransfer::Digest) }
    }
}

fn parse_head(head: u32) -> Result<(u32, usize), InvalidTransfer> {
    let kind = head >> LENGTH_BITS;
    let length = (head & ((1 << LENGTH_BITS) - 1)) as usize;
    let allowed = match kind {
        DATA => 1..=TRANSFER_BLOCK,
        COMPRESSED => 5..=TRANSFER_BLOCK,
        MARK => 16..=16 + MAX_CURSOR,
        END => 16..=16,
        FAILED => 0..=MAX_FAILURE,
        _ => return Err(InvalidTransfer::UnknownKind(kind)),
    };
    if !allowed.contains(&length) {
        return Err(InvalidTransfer::WrongLength { kind, length });
    }
    Ok((kind, length))
}
