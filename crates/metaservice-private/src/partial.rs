//! Files and directories that appear under their name when they are complete.
//!
//! A partial file has no name, if the file system supports that (`O_TMPFILE`). So nothing is left
//! of a process that is killed. Otherwise, and for a directory, it has a temporary name, and its
//! process holds a lock on it. The system releases the lock with the process. [`sweep`] removes
//! files and directories with such a name and without a lock.
//!
//! A process makes the name and locks it in two steps. A sweep in between can remove it. So the
//! process checks after the lock whether the name is still its own. If not, it takes another one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, flock, fstat, linkat, mkdirat, openat,
    renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::tree;

const PREFIX: &[u8] = b".metaservice-";
const SUFFIX: &[u8] = b".partial";

/// The number of random characters in a temporary name.
const RANDOM: usize = 12;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A new file. Dropped before it is [kept](Self::keep), it is removed.
///
/// ```
/// use std::io::Write;
/// use std::os::fd::OwnedFd;
/// use metaservice_private::PartialFile;
///
/// let directory = tempfile::tempdir()?;
/// let parent: OwnedFd = std::fs::File::open(directory.path())?.into();
/// let partial = PartialFile::new(parent, 0o644)?;
/// partial.file().write_all(b"content")?;
/// assert!(!directory.path().join("result").exists());
/// partial.keep("result".as_ref())?;
/// assert!(directory.path().join("result").exists());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct PartialFile {
    parent: OwnedFd,
    file: File,
    /// The temporary name, if it has one.
    name: Option<OsString>,
}

impl PartialFile {
    /// Starts a file in the directory `parent`, with the permissions `mode`, less the umask.
    ///
    /// # Errors
    /// The directory does not allow it.
    pub fn new(parent: OwnedFd, mode: u32) -> io::Result<Self> {
        match Self::unnamed(&parent, mode) {
            Ok(file) => Ok(Self { parent, file, name: None }),
            Err(_) => Self::named(parent, mode),
        }
    }

    fn unnamed(parent: &OwnedFd, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = openat(parent, ".", flags, Mode::from_raw_mode(mode))?;
        // `keep` needs this path.
        let there = statat(CWD, proc_path(&file), AtFlags::empty())?;
        if there.st_ino != fstat(&file)?.st_ino {
            return Err(io::ErrorKind::Unsupported.into());
        }
        lock(file.as_fd());
        Ok(file.into())
    }

    /// As [`new`](Self::new), with a temporary name, so that other processes can open it.
    ///
    /// # Errors
    /// The directory does not allow it.
    pub fn named(parent: OwnedFd, mode: u32) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        loop {
            let name = temporary_name();
            match openat(&parent, &name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode)) {
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(errno.into()),
                Ok(file) => {
                    lock(file.as_fd());
                    if is_at(parent.as_fd(), &name, file.as_fd()) {
                        return Ok(Self { parent, file: file.into(), name: Some(name) });
                    }
                }
            }
        }
    }

    /// The file, to be written.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The temporary name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&OsStr> {
        self.name.as_deref()
    }

    /// Gives it the name `name`. A file of this name is replaced.
    ///
    /// # Errors
    /// It cannot have this name. Then it is removed.
    pub fn keep(mut self, name: &OsStr) -> io::Result<()> {
        if self.name.is_none() {
            let unnamed = proc_path(&self.file);
            let link =
                |name: &OsStr| linkat(CWD, &unnamed, &self.parent, name, AtFlags::SYMLINK_FOLLOW);
            match link(name) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            // Only a rename can replace a file. Until then, the lock protects the temporary name.
            self.name = Some(loop {
                let name = temporary_name();
                match link(&name) {
                    Ok(()) => break name,
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
            });
        }
        if let Some(temporary) = &self.name {
            renameat(&self.parent, temporary, &self.parent, name)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Another process may have removed it.
            let _ = unlinkat(&self.parent, name, AtFlags::empty());
        }
    }
}

/// A new directory. Dropped before it is [kept](Self::keep), it is removed with its content.
#[derive(Debug)]
pub struct PartialDirectory {
    parent: OwnedFd,
    directory: OwnedFd,
    name: Option<OsString>,
}

impl PartialDirectory {
    /// Starts a directory in the directory `parent`. Other users cannot enter it.
    ///
    /// # Errors
    /// The parent does not allow it.
    pub fn new(parent: OwnedFd) -> io::Result<Self> {
        loop {
            let name = temporary_name();
            match mkdirat(&parent, &name, Mode::RWXU) {
                Err(Errno::EXIST) => continue,
                outcome => outcome?,
            }
            let directory =
                match openat(&parent, &name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                    Err(Errno::NOENT) => continue,
                    opened => opened?,
                };
            lock(directory.as_fd());
            if is_at(parent.as_fd(), &name, directory.as_fd()) {
                return Ok(Self { parent, directory, name: Some(name) });
            }
        }
    }

    /// The directory, to be filled.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The parent.
    #[must_use]
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// Gives it the name `name`.
    ///
    /// # Errors
    /// It cannot have this name. Then it is removed.
    pub fn keep(mut self, name: &OsStr) -> io::Result<()> {
        if let Some(temporary) = &self.name {
            renameat(&self.parent, temporary, &self.parent, name)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for PartialDirectory {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Another process may have removed it.
            let _ = tree::remove_tree(self.parent.as_fd(), name);
        }
    }
}

/// Removes the partial files and directories of processes that have ended, in the directory
/// `parent`. What cannot be removed, or may belong to a running process, stays.
pub fn sweep(parent: BorrowedFd<'_>) {
    for name in tree::names(parent).unwrap_or_default() {
        if is_temporary_name(&name) {
            let _ = sweep_one(parent, &name);
        }
    }
}

fn sweep_one(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let left = openat(parent, name, flags, Mode::empty())?;
    let status = fstat(&left)?;
    let kind = FileType::from_raw_mode(status.st_mode);
    let own = status.st_uid == geteuid().as_raw();
    if !own || !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Ok(());
    }
    flock(&left, FlockOperation::NonBlockingLockExclusive)?;
    if is_at(parent, name, left.as_fd()) { tree::remove_tree(parent, name) } else { Ok(()) }
}

fn temporary_name() -> OsString {
    let mut name = PREFIX.to_vec();
    name.extend(std::iter::repeat_with(fastrand::alphanumeric).take(RANDOM).map(|c| c as u8));
    name.extend_from_slice(SUFFIX);
    OsString::from_vec(name)
}

fn is_temporary_name(name: &OsStr) -> bool {
    let middle = name.as_bytes().strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    middle.is_some_and(|random| {
        random.len() == RANDOM && random.iter().all(u8::is_ascii_alphanumeric)
    })
}

/// Locks a new file or directory. On a file system without locks, a sweep cannot lock it either,
/// and leaves it.
fn lock(file: BorrowedFd<'_>) {
    let _ = flock(file, FlockOperation::LockExclusive);
}

fn is_at(parent: BorrowedFd<'_>, name: &OsStr, file: BorrowedFd<'_>) -> bool {
    let there = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    match (there, fstat(file)) {
        (Ok(there), Ok(own)) => (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino),
        _ => false,
    }
}

fn proc_path(file: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    fn entries(directory: &TempDir) -> Vec<OsString> {
        let mut names = tree::names(open(directory.path()).as_fd()).unwrap();
        names.sort();
        names
    }

    /// The two ways to make a partial file.
    const WAYS: [fn(OwnedFd, u32) -> io::Result<PartialFile>; 2] =
        [PartialFile::new, PartialFile::named];

    #[test]
    fn a_file_appears_complete_and_replaces_the_one_before() {
        for make in WAYS {
            let here = tempfile::tempdir().unwrap();
            for content in ["new", "newer"] {
                let partial = make(open(here.path()), 0o666).unwrap();
                partial.file().write_all(content.as_bytes()).unwrap();
                partial.keep(OsStr::new("place")).unwrap();
                let path = here.path().join("place");
                assert_eq!(std::fs::read_to_string(path).unwrap(), content);
                assert_eq!(entries(&here), ["place"]);
            }
        }
    }

    #[test]
    fn a_file_replaces_a_link_and_not_its_target() {
        for make in WAYS {
            let here = tempfile::tempdir().unwrap();
            std::fs::write(here.path().join("other"), "other").unwrap();
            symlink("other", here.path().join("place")).unwrap();
            make(open(here.path()), 0o666).unwrap().keep(OsStr::new("place")).unwrap();
            assert_eq!(std::fs::read_to_string(here.path().join("other")).unwrap(), "other");
            assert_eq!(std::fs::read_to_string(here.path().join("place")).unwrap(), "");
        }
    }

    #[test]
    fn a_file_that_is_dropped_is_removed() {
        for make in WAYS {
            let here = tempfile::tempdir().unwrap();
            drop(make(open(here.path()), 0o666).unwrap());
            assert_eq!(entries(&here).len(), 0);
        }
    }

    #[test]
    fn a_directory_that_is_dropped_is_removed_with_its_content() {
        let here = tempfile::tempdir().unwrap();
        let directory = PartialDirectory::new(open(here.path())).unwrap();
        let flags = OFlags::CREATE | OFlags::WRONLY;
        drop(openat(directory.directory(), "file", flags, Mode::RUSR).unwrap());
        drop(directory);
        assert_eq!(entries(&here).len(), 0);
    }

    #[test]
    fn a_sweep_leaves_what_belongs_to_a_running_process() {
        let here = tempfile::tempdir().unwrap();
        let unnamed = PartialFile::new(open(here.path()), 0o600).unwrap();
        let file = PartialFile::named(open(here.path()), 0o600).unwrap();
        assert!(file.name().is_some());
        let directory = PartialDirectory::new(open(here.path())).unwrap();
        let flags = OFlags::CREATE | OFlags::WRONLY;
        drop(openat(directory.directory(), "file", flags, Mode::RUSR).unwrap());
        sweep(open(here.path()).as_fd());
        unnamed.keep(OsStr::new("unnamed")).unwrap();
        file.keep(OsStr::new("named")).unwrap();
        directory.keep(OsStr::new("tree")).unwrap();
        assert_eq!(entries(&here), ["named", "tree", "unnamed"]);
        assert!(here.path().join("tree/file").exists());
    }

    #[test]
    fn a_sweep_removes_what_a_killed_process_left() {
        let here = tempfile::tempdir().unwrap();
        let left = here.path().join(temporary_name());
        std::fs::create_dir_all(left.join("a/b")).unwrap();
        std::fs::write(left.join("a/file"), "").unwrap();
        std::fs::write(here.path().join(temporary_name()), "half").unwrap();
        sweep(open(here.path()).as_fd());
        assert_eq!(entries(&here).len(), 0);
    }

    #[test]
    fn a_sweep_leaves_other_names_and_links() {
        let (here, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in [".metaservice-config", ".metaservice-abc.partial", "x.partial"] {
            std::fs::write(here.path().join(name), "").unwrap();
        }
        symlink(target.path(), here.path().join(temporary_name())).unwrap();
        sweep(open(here.path()).as_fd());
        assert_eq!(entries(&here).len(), 4);
        assert!(target.path().exists());
    }

    #[test]
    fn the_lock_of_a_partial_directory_ends_with_its_process() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join(temporary_name());
        std::fs::create_dir(&path).unwrap();
        let directory = open(&path);
        lock(directory.as_fd());
        // A process that holds the descriptor stands for the one that makes the directory.
        let mut maker = {
            let mut command = std::process::Command::new("sleep");
            command.arg("1000").stdin(File::from(directory)).spawn().unwrap()
        };
        sweep(open(here.path()).as_fd());
        assert!(path.exists(), "its process runs");
        maker.kill().unwrap();
        maker.wait().unwrap();
        sweep(open(here.path()).as_fd());
        assert!(!path.exists(), "its process has ended");
    }
}
