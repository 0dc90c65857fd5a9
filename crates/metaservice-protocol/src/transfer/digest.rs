//! Length and digest of a transfer's content.

use std::hash::Hasher;

use twox_hash::XxHash64;

/// The length and the XXH64 digest of the bytes so far.
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

    /// The number of bytes so far.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The XXH64 of the bytes so far.
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
