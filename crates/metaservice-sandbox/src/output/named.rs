//! Who decides where the path of a destination leads, and the directories on the way.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

/// Where the path of a destination comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// The user wrote all of the path.
    ByUser,
    /// The last name is the name of the file in the guest.
    ByGuest,
    /// The guest can change what is at the path: its directory is in a volume that the guest
    /// writes. The path had no links before the guest started, and no link in it is followed.
    InVolume,
}

/// Opens a directory that gets a file, or that is filled.
pub(crate) fn open_directory(path: &Path, named: Named) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = match named {
        Named::ByUser | Named::ByGuest => openat(CWD, path, flags, Mode::empty()),
        Named::InVolume => openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS),
    };
    Ok(opened?)
}

/// Opens the directory of a path.
pub(crate) fn open_parent(path: &Path, named: Named) -> io::Result<OwnedFd> {
    open_directory(parent(path), named)
}

/// The directory of a path.
pub(crate) fn parent(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}
