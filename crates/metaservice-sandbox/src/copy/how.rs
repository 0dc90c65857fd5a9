//! The options of a copy.

/// How to copy.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct How {
    /// Whether a source that is a link is followed.
    pub follow: bool,
    /// Whether set-user-id and set-group-id bits are kept.
    pub set_id: bool,
    /// The maximum size of all files of a directory together, in bytes. `None` leaves it to the
    /// limit of the service.
    pub limit: Option<u64>,
}

impl How {
    /// The bits of a mode that are kept. The sticky bit is harmless.
    pub(super) const fn mask(self) -> u32 {
        if self.set_id { 0o7777 } else { 0o1777 }
    }

    /// Whether a source of this name is followed: a slash or a dot at its end means a directory.
    #[must_use]
    pub fn follows(self, path: &str) -> bool {
        self.follow || path.ends_with('/') || path.ends_with("/.")
    }
}
