//! The head of a block: its kind and its length.

/// The kinds of blocks.
pub(super) const DATA: u32 = 0;
pub(super) const COMPRESSED: u32 = 1;
pub(super) const MARK: u32 = 2;
pub(super) const END: u32 = 3;
pub(super) const FAILED: u32 = 4;

/// The number of bits for the length.
pub(super) const LENGTH_BITS: u32 = 29;

/// The size of a block's head, in bytes.
pub(super) const HEAD: usize = 4;
