//! The options of a copy.

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct How {
    /// Whether a source that is a link is followed.
    pub(super) follow: bool,
    /// Whether set-user-id and set-group-id bits are kept.
    pub(super) set_id: bool,
}

impl How {
    /// The bits of a mode that are kept. The sticky bit is harmless.
    pub(super) const fn mask(self) -> u32 {
        if self.set_id { 0o7777 } else { 0o1777 }
    }

    /// Whether a source of this name is followed: a slash or a dot at its end means a directory.
    pub(super) fn follows(self, path: &str) -> bool {
        self.follow || path.ends_with('/') || path.ends_with("/.")
    }
}
