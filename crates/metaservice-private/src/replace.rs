//! The replacement of a small file at once.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Replaces the content of a file at once, or creates it, with these permissions. When this
/// returns, the content is on the disk. A symbolic link with this name is replaced, not followed.
///
/// Only for a directory that no other user can write.
///
/// ```
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("state");
/// metaservice_private::replace(&path, b"1", 0o600)?;
/// assert_eq!(std::fs::read(path)?, b"1");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// If the file cannot be written. Then the old content is still there.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_in_parent(path, bytes, mode, true)
}

/// As [`replace`], without waiting for the disk: for a file that is not needed after a crash of the
/// machine.
///
/// # Errors
/// If the file cannot be written. Then the old content is still there.
pub fn replace_unsynced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_in_parent(path, bytes, mode, false)
}

fn replace_in_parent(path: &Path, bytes: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(parent.unwrap_or(Path::new(".")))?;
    write_and_rename(directory.as_fd(), name, bytes, mode, sync)
}

/// As [`replace`], in an open directory.
pub(crate) fn replace_at(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    bytes: &[u8],
    mode: u32,
) -> io::Result<()> {
    write_and_rename(directory, name, bytes, mode, true)
}

fn write_and_rename(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    bytes: &[u8],
    mode: u32,
    sync: bool,
) -> io::Result<()> {
    // The name is always the same: what a killed process left is replaced, so it cannot pile up.
    let mut next = name.to_owned();
    next.push(".next");
    let remove = || match unlinkat(directory, &next, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    };
    remove()?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, &next, flags, Mode::RUSR | Mode::WUSR)?);
    let mut write = || {
        file.write_all(bytes)?;
        fchmod(&file, Mode::from_raw_mode(mode))?;
        if sync {
            file.sync_all()?;
        }
        renameat(directory, &next, directory, name)?;
        Ok(())
    };
    write().inspect_err(|_: &io::Error| {
        let _ = remove();
    })?;
    if sync {
        rustix::fs::fsync(directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        // A killed process left half of a file.
        fs::write(directory.path().join("file.next"), "half").unwrap();
        for (content, mode) in [("one", 0o644), ("another", 0o600)] {
            replace(&path, content.as_bytes(), mode).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, target) = (directory.path().join("file"), directory.path().join("target"));
        fs::write(&target, "precious").unwrap();
        symlink(&target, &path).unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_failure_keeps_the_old_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::create_dir_all(path.join("within")).unwrap();
        assert!(replace(&path, b"new", 0o600).is_err());
        assert!(path.join("within").exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
