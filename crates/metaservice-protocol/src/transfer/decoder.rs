//! The receiving side of a transfer.
//!
//! ```text
//!            data, compressed, mark              end, and digest and length are right
//!   Head ◄──────────────────────────► Body ──────────────────────────────────► Over
//!                                       │ anything that breaks a rule              ▲
//!                                       └─► an error, and the same again for ever  │ failed
//! ```

use bytes::{Buf, Bytes};

use super::{COMPRESSED, DATA, Digest, END, FAILED, HEAD, LENGTH_BITS, MARK};
use crate::chunks::Chunks;
use crate::failure::Failure;
use crate::limits::{MAX_CURSOR, MAX_FAILURE, TRANSFER_BLOCK};
use crate::options::Resume;

/// Something that came out of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Content. Data that was not compressed is a slice of what was pushed, where it came in
    /// one piece.
    Data(Bytes),
    /// All of the content has come, and it is what was sent.
    End,
    /// The sender cannot go on.
    Failed(Failure),
}

/// A rule that the sender has broken. The transfer is worth nothing any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTransfer {
    /// A block of a kind that does not exist.
    #[error("a block of the unknown kind {0}")]
    UnknownKind(u32),
    /// A block that is longer or shorter than its kind allows.
    #[error("a block of kind {kind} cannot have {length} bytes")]
    WrongLength {
        /// The block's kind.
        kind: u32,
        /// What it says of its length, in bytes.
        length: usize,
    },
    /// A compressed block that is not what it says.
    #[error("a compressed block is damaged")]
    Damaged,
    /// A cursor that is not UTF-8.
    #[error("a cursor is not text")]
    Cursor,
    /// Length or digest differ from the sender's.
    #[error("the bytes that came are not the bytes that were sent")]
    Digest,
    /// Something came behind the end.
    #[error("something came behind the end")]
    AfterEnd,
}

/// Takes a transfer apart. It holds what was pushed and not taken, and allocates no more than
/// one block by a number that came from the sender.
///
/// Call [`push`](Self::push) with what comes, then [`next`](Self::next) until it gives `None`.
/// When the transfer is cut, [`resume`](Self::resume) is how far it came; give that to the
/// sender and [`resumed`](Self::resumed) to the rest.
#[derive(Debug)]
pub struct Decoder {
    pending: Chunks,
    /// Kind, and bytes that are left (of data) or that the whole block has (of others).
    block: Option<(u32, usize)>,
    digest: Digest,
    /// The last mark, for a resumption.
    cursor: String,
    /// What came since then; `None` where that is all that came, and `digest` its digest.
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
    /// A transfer at its beginning.
    #[must_use]
    pub fn new() -> Self {
        Self {
            pending: Chunks::default(),
            block: None,
            digest: Digest::new(),
            cursor: String::new(),
            since_mark: None,
            over: false,
            broken: None,
        }
    }

    /// The decoder of the rest of a transfer that was cut: what was pushed and not taken is
    /// forgotten, what was taken counts.
    #[must_use]
    pub fn resumed(self) -> Self {
        let since_mark = self.since_mark.unwrap_or(self.digest);
        Self { cursor: self.cursor, since_mark: Some(since_mark), ..Self::new() }
    }

    /// How far the content that was taken goes.
    #[must_use]
    pub fn resume(&self) -> Resume {
        let since_mark = self.since_mark.as_ref().unwrap_or(&self.digest);
        Resume {
            cursor: self.cursor.clone(),
            skip: since_mark.length(),
            digest: since_mark.value(),
        }
    }

    /// Takes bytes that came. Empty ones change nothing.
    pub fn push(&mut self, bytes: Bytes) {
        self.pending.push(bytes);
    }

    /// Whether the end has come, or a failure. Without it, the end of the bytes is a cut.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// The next item, `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`InvalidTransfer`], again at every further call.
    #[expect(clippy::should_implement_trait, reason = "an iterator would end at the first None")]
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
                return if !self.pending.is_empty() {
                    Err(InvalidTransfer::AfterEnd)
                } else {
                    Ok(None)
                };
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
            if let Some(item) = self.whole(kind, body)? {
                return Ok(Some(item));
            }
        }
    }

    /// A block other than data, complete.
    fn whole(&mut self, kind: u32, mut body: Bytes) -> Result<Option<Item>, InvalidTransfer> {
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
