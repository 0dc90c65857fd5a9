//! A place below the destination. It is reached one component at a time, never through a link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::ExtractCause;

/// The maximum length of a member's name, in bytes.
const MAX_NAME: usize = 4096;

/// The maximum number of components of a member's name.
const MAX_DEPTH: usize = 256;

/// The components of a member's name. The destination itself has none.
pub(super) fn components(name: &[u8]) -> Result<Vec<&[u8]>, ExtractCause> {
    if name.is_empty() || name.len() > MAX_NAME || name[0] == b'/' || name.contains(&0) {
        return Err(ExtractCause::Name);
    }
    let parts: Vec<&[u8]> =
        name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.len() > MAX_DEPTH || parts.contains(&&b".."[..]) {
        return Err(ExtractCause::Name);
    }
    Ok(parts)
}

/// Opens a directory in `parent`. A link is an error.
fn step(parent: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    fs::openat2(parent, name, flags, Mode::empty(), resolve)
}

/// Opens the directory with these components. With `make`, it makes missing ones with this mode,
/// less the umask.
pub(super) fn directory(
    root: &OwnedFd,
    parts: &[&[u8]],
    make: Option<Mode>,
) -> Result<OwnedFd, Errno> {
    let mut at = step(root.as_fd(), b".", OFlags::PATH)?;
    for part in parts {
        if let Some(mode) = make {
            match fs::mkdirat(&at, *part, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        at = step(at.as_fd(), part, OFlags::PATH)?;
    }
    Ok(at)
}

/// Opens the same directory again, so that its mode and times can be set.
pub(super) fn settable(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    step(directory.as_fd(), b".", OFlags::RDONLY)
}

/// A temporary name in a directory. Dropped before it is [put](Self::put) in place, it is removed.
pub(super) struct Temporary<'a> {
    directory: &'a OwnedFd,
    name: String,
}

impl<'a> Temporary<'a> {
    /// Calls `make` with names until one is free.
    pub(super) fn make<T>(
        directory: &'a OwnedFd,
        mut make: impl FnMut(&str) -> Result<T, Errno>,
    ) -> Result<(Self, T), Errno> {
        use std::hash::{BuildHasher, RandomState};
        for attempt in 0..64 {
            // A random name, so that drop cannot remove another file.
            let name = format!(".metaservice-{:016x}.part", RandomState::new().hash_one(attempt));
            match make(&name) {
                Ok(made) => return Ok((Self { directory, name }, made)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EXIST)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Renames it to `name`, and replaces what was there. A link is replaced, not its target.
    pub(super) fn put(self, name: &[u8]) -> Result<(), Errno> {
        fs::renameat(self.directory, &*self.name, self.directory, name)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // A rename removes the name, except if both names were links to the same file.
        let _ = fs::unlinkat(self.directory, &*self.name, AtFlags::empty());
    }
}
