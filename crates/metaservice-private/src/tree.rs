//! Trees of directories, by their descriptors.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, chmodat, openat, unlinkat};
use rustix::io::Errno;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a file, or a directory with its content. It also removes directories that their modes
/// have locked. Each level needs a descriptor.
///
/// # Errors
/// Something cannot be removed.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        outcome => return Ok(outcome?),
    }
    chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
    let directory = openat(parent, name, DIRECTORY, Mode::empty())?;
    for inner in names(directory.as_fd())? {
        remove_tree(directory.as_fd(), &inner)?;
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// The names in a directory.
pub(crate) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(OsString::from_vec(entry.file_name().to_bytes().to_vec()));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_tree_with_locked_directories_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let locked = parent.path().join("a/locked");
        fs::create_dir_all(&locked).unwrap();
        fs::write(locked.join("file"), "").unwrap();
        fs::set_permissions(&locked, Permissions::from_mode(0o000)).unwrap();
        let directory = File::open(parent.path()).unwrap();
        remove_tree(directory.as_fd(), OsStr::new("a")).unwrap();
        assert!(names(directory.as_fd()).unwrap().is_empty());
    }
}
