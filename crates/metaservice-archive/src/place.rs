//! A place below the destination: found component by component, never through a link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::member::Reason;

const PATH_BYTES: usize = 4096;
const DEPTH: usize = 256;

/// The components of a member's name; none for the folder itself.
pub(crate) fn components(name: &[u8]) -> Result<Vec<&[u8]>, Reason> {
    if name.is_empty() || name.len() > PATH_BYTES || name[0] == b'/' || name.contains(&0) {
        return Err(Reason::Name);
    }
    let parts: Vec<&[u8]> =
        name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.len() > DEPTH || parts.contains(&&b".."[..]) {
        return Err(Reason::Name);
    }
    Ok(parts)
}

/// Opens one folder in `parent`; a link is an error.
fn step(parent: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    fs::openat2(parent, name, flags, Mode::empty(), resolve)
}

/// Walks to the folder `parts`, making what is missing with the mode of `make`, less the umask.
pub(crate) fn folder(
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

/// The same folder, open so that its mode and times can be set.
pub(crate) fn settable(folder: &OwnedFd) -> Result<OwnedFd, Errno> {
    step(folder.as_fd(), b".", OFlags::RDONLY)
}

/// A temporary name in a folder; removed when dropped unless it was put in place.
pub(crate) struct Temporary<'a> {
    folder: &'a OwnedFd,
    name: String,
}

impl<'a> Temporary<'a> {
    /// Makes something under a name that is free, by means of `make`.
    pub(crate) fn make<T>(
        folder: &'a OwnedFd,
        mut make: impl FnMut(&str) -> Result<T, Errno>,
    ) -> Result<(Self, T), Errno> {
        use std::hash::{BuildHasher, RandomState};
        for attempt in 0..64 {
            // A name that nobody else has had, so that the right file is removed by it.
            let name = format!(".metaservice-{:016x}.part", RandomState::new().hash_one(attempt));
            match make(&name) {
                Ok(made) => return Ok((Self { folder, name }, made)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EXIST)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Renames it to `name`; what was there is replaced, a link itself and not its target.
    pub(crate) fn put(self, name: &[u8]) -> Result<(), Errno> {
        fs::renameat(self.folder, &*self.name, self.folder, name)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // Gone after a rename, except where both names were links to one file already.
        let _ = fs::unlinkat(self.folder, &*self.name, AtFlags::empty());
    }
}
