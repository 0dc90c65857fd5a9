//! Files and folders between a guest and here, with the words of `docker cp`.
//!
//! What comes is written beside its destination and renamed into place when it is whole:
//! a copy that fails or is interrupted leaves nothing behind. Only a folder that exists already
//! is filled in place, file by file.

mod beside;
mod fetch;
mod folder;
mod place;
mod send;
mod told;

pub(crate) use self::fetch::fetch;
pub(crate) use self::place::Place;
pub(crate) use self::send::send;

/// How a copy is made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct How {
    /// Whether a source that is a link is followed.
    pub(crate) follow: bool,
    /// Whether set-user-id and set-group-id bits are kept.
    pub(crate) set_id: bool,
}

impl How {
    /// What is kept of a mode. The sticky bit harms nobody.
    const fn mask(self) -> u32 {
        if self.set_id { 0o7777 } else { 0o1777 }
    }

    /// Whether a source of this name is followed: a slash or a dot at its end means a directory.
    fn follows(self, path: &str) -> bool {
        self.follow || path.ends_with('/') || path.ends_with("/.")
    }
}
