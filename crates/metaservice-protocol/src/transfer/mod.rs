//! Extension: files and directories as a stream that is checked and can be resumed.
//!
//! A transfer is the body of a reply to read, and the stdin of a write's stream. It is a sequence
//! of blocks. Each is a big-endian `u32` (3 bits kind, 29 bits length) and that many bytes:
//!
//! | kind | bytes |
//! | --- | --- |
//! | 0 data | 1 to [`TRANSFER_BLOCK`](crate::limits::TRANSFER_BLOCK) bytes of content |
//! | 1 compressed | `u32` length of the content, then one LZ4 block of it |
//! | 2 mark | `u64` length and `u64` digest of the content so far, then a cursor |
//! | 3 end | `u64` length and `u64` digest of the content so far; nothing follows |
//! | 4 failed | a [`Failure`](crate::Failure) as JSON; nothing follows |
//!
//! A mark says that the content so far is complete, and can be resumed here by its cursor.
//!
//! The digest is XXH64 with seed 0. It detects faults of disks, memory and implementations, and
//! changes between two attempts. It does not protect against a sender that lies.

mod block;
mod decoder;
mod digest;
mod encoder;

pub use decoder::{Decoder, InvalidTransfer, Item};
pub use digest::Digest;
pub use encoder::Encoder;

#[cfg(test)]
mod tests;
