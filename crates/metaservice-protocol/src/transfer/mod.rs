//! Extension: files and folders as a stream that can be resumed and that is checked.
//!
//! A transfer is the body of a reply to read, and what flows on the stdin of a write's stream. It
//! is a sequence of blocks, each a big-endian `u32` (3 bits kind, 29 bits length), then as
//! many bytes:
//!
//! | kind | bytes |
//! | --- | --- |
//! | 0 data | 1 to [`TRANSFER_BLOCK`](crate::limits::TRANSFER_BLOCK) bytes of content |
//! | 1 compressed | `u32` length of the content, then one LZ4 block of it |
//! | 2 mark | `u64` content length and `u64` digest since the beginning, then a cursor: the content up to here is complete and can be resumed from here |
//! | 3 end | `u64` content length and `u64` digest since the beginning; nothing follows |
//! | 4 failed | a [`Failure`](crate::Failure) as JSON: the sender cannot go on; nothing follows |
//!
//! The digest is XXH64 with seed 0: it is there to notice what a broken disk, memory or
//! implementation did, and what changed between two attempts; it is no protection from a sender who lies.

mod choice;
mod decoder;
mod encoder;

pub use choice::Choice;
pub use decoder::{Decoder, InvalidTransfer, Item};
pub use encoder::Encoder;

use std::hash::Hasher;

use twox_hash::XxHash64;

const DATA: u32 = 0;
const COMPRESSED: u32 = 1;
const MARK: u32 = 2;
const END: u32 = 3;
const FAILED: u32 = 4;

const LENGTH_BITS: u32 = 29;

/// Bytes of a block's head.
const HEAD: usize = 4;

/// A running length and digest.
///
/// ```
/// use metaservice_protocol::transfer::Digest;
///
/// let (mut whole, mut parts) = (Digest::new(), Digest::new());
/// whole.update(b"abcd");
/// parts.update(b"ab");
/// parts.update(b"cd");
/// assert_eq!((whole.length(), whole.value()), (parts.length(), parts.value()));
/// ```
#[derive(Debug, Clone)]
pub struct Digest {
    length: u64,
    hash: XxHash64,
}

impl Digest {
    /// The digest of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { length: 0, hash: XxHash64::with_seed(0) }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.hash.write(bytes);
    }

    /// How many bytes were added.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// XXH64 of all bytes that were added.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.hash.finish()
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
