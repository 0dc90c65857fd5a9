//! A directory that only its user can change.
//!
//! Owns the checks of the directory and of each file in it. It does not create anything in a
//! directory that other users can write, and follows no link that another user can have made.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::error::{NotPrivate, PrivateError};
use crate::replace::replace_at;
use crate::tree;

/// The permission bits by which other users can write.
const OTHERS: u32 = 0o022;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Without blocking, because the name may belong to a FIFO.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Whether only this user, or root, can change a file with these attributes.
pub(crate) fn is_private(metadata: &Metadata) -> bool {
    let owner = metadata.uid();
    (owner == geteuid().as_raw() || owner == 0) && metadata.mode() & OTHERS == 0
}

/// What is wrong with a file or directory.
fn fault(metadata: &Metadata, directory: bool) -> Option<NotPrivate> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return Some(NotPrivate::Link);
    }
    if directory != kind.is_dir() || !directory && !kind.is_file() {
        return Some(NotPrivate::Kind);
    }
    if metadata.uid() != geteuid().as_raw() {
        return Some(NotPrivate::Owner(metadata.uid()));
    }
    if metadata.mode() & OTHERS != 0 {
        return Some(NotPrivate::Mode(metadata.mode() & 0o7777));
    }
    (!directory && metadata.nlink() > 1).then(|| NotPrivate::Names(metadata.nlink()))
}

/// An open directory that belongs to this user, and that other users cannot change.
///
/// *Opening:* [`open`](Self::open), [`open_or_make`](Self::open_or_make),
/// [`within`](Self::within). *Files:* [`create`](Self::create), [`read`](Self::read),
/// [`append`](Self::append), [`replace`](Self::replace), [`remove`](Self::remove),
/// [`names`](Self::names), [`sync`](Self::sync).
///
/// ```
/// use std::io::Read;
/// use metaservice_private::Directory;
///
/// let parent = tempfile::tempdir()?;
/// let (directory, made) = Directory::open_or_make(&parent.path().join("state"))?;
/// assert!(made);
/// directory.replace("counter", b"1")?;
/// let mut text = String::new();
/// directory.read("counter")?.unwrap().read_to_string(&mut text)?;
/// assert_eq!(text, "1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens a directory. A link at the end of `path` is an error.
    ///
    /// # Errors
    /// It does not exist, or other users can change it.
    pub fn open(path: &Path) -> Result<Self, PrivateError> {
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let path = &plain(path);
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(|errno| refused(path, errno))?;
        Self::check(fd, path)
    }

    /// Opens a directory, or makes it if its parent exists. Also returns whether it was made.
    ///
    /// # Errors
    /// It cannot be made, or other users can change it.
    pub fn open_or_make(path: &Path) -> Result<(Self, bool), PrivateError> {
        let path = &plain(path);
        let made = match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) if path.symlink_metadata().is_err() => return Err(failed(path, errno)),
            // It exists, on a read-only file system.
            Err(_) => false,
        };
        Ok((Self::open(path)?, made))
    }

    /// Opens or makes directories below `base`, each in the one before it. `base` must exist.
    ///
    /// A link is followed if only this user can have made it. If other users can write a directory
    /// of this user, for example because of an old umask, this removes their permission. A
    /// directory of root that other users cannot write is accepted, for reading.
    ///
    /// # Errors
    /// A directory cannot be made, or belongs to another user.
    pub fn within(base: &Path, names: &[&str]) -> Result<Self, PrivateError> {
        let fd = openat(CWD, base, DIRECTORY, Mode::empty()).map_err(|e| failed(base, e))?;
        let mut directory = Self { fd, path: base.to_owned() };
        for name in names {
            directory = directory.descend(name)?;
        }
        Ok(directory)
    }

    fn descend(&self, name: &str) -> Result<Self, PrivateError> {
        let path = self.path.join(name);
        let parent = self.metadata()?;
        let follow = if is_private(&parent) { OFlags::empty() } else { OFlags::NOFOLLOW };
        let open = || openat(&self.fd, name, DIRECTORY | follow, Mode::empty());
        let fd = match open() {
            Err(Errno::NOENT) => {
                match mkdirat(&self.fd, name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(failed(&path, errno)),
                }
                open().map_err(|errno| refused(&path, errno))?
            }
            opened => opened.map_err(|errno| refused(&path, errno))?,
        };
        let directory = Self { fd, path };
        let metadata = directory.metadata()?;
        match fault(&metadata, true) {
            None => {}
            Some(NotPrivate::Owner(0)) if is_private(&metadata) => {}
            Some(NotPrivate::Mode(mode)) => {
                let closed = Mode::from_raw_mode(mode & !OTHERS);
                fchmod(&directory.fd, closed).map_err(|e| failed(&directory.path, e))?;
            }
            Some(cause) => {
                return Err(PrivateError::NotPrivate { path: directory.path, cause });
            }
        }
        Ok(directory)
    }

    fn check(fd: OwnedFd, path: &Path) -> Result<Self, PrivateError> {
        let directory = Self { fd, path: path.to_owned() };
        match fault(&directory.metadata()?, true) {
            None => Ok(directory),
            Some(cause) => Err(PrivateError::NotPrivate { path: directory.path, cause }),
        }
    }

    fn metadata(&self) -> Result<Metadata, PrivateError> {
        let metadata = self.fd.try_clone().and_then(|fd| File::from(fd).metadata());
        metadata.map_err(|source| PrivateError::Io { path: self.path.clone(), source })
    }

    /// Removes the permission of other users to read it.
    ///
    /// # Errors
    /// It belongs to root, and other users can read it.
    pub(crate) fn close_to_others(&self) -> Result<(), PrivateError> {
        let mode = self.metadata()?.mode();
        if mode & 0o077 == 0 {
            return Ok(());
        }
        let closed = Mode::from_raw_mode(mode & 0o700);
        fchmod(&self.fd, closed).map_err(|errno| failed(&self.path, errno))
    }

    /// The path by which it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its entries.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn names(&self) -> Result<Vec<std::ffi::OsString>, PrivateError> {
        tree::names(self.fd.as_fd())
            .map_err(|source| PrivateError::Io { path: self.path.clone(), source })
    }

    /// Creates a file for reading and writing.
    ///
    /// # Errors
    /// The name exists, or the file cannot be created.
    pub fn create(&self, name: impl AsRef<OsStr>) -> Result<File, PrivateError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | FILE;
        let file = openat(&self.fd, name.as_ref(), flags, Mode::RUSR | Mode::WUSR);
        file.map(File::from).map_err(|errno| refused(&self.path.join(name.as_ref()), errno))
    }

    /// Opens a file for reading; `None` if it does not exist.
    ///
    /// # Errors
    /// It is not a plain file, or other users can change it.
    pub fn read(&self, name: impl AsRef<OsStr>) -> Result<Option<File>, PrivateError> {
        self.open_file(name.as_ref(), OFlags::RDONLY)
    }

    /// Opens a file for reading and appending, or creates it.
    ///
    /// # Errors
    /// It is not a plain file, other users can change it, or it cannot be created.
    pub fn append(&self, name: impl AsRef<OsStr>) -> Result<File, PrivateError> {
        self.open_or_create(name.as_ref(), OFlags::RDWR | OFlags::APPEND)
    }

    /// Opens a file for reading and writing, or creates it.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn update(&self, name: impl AsRef<OsStr>) -> Result<File, PrivateError> {
        self.open_or_create(name.as_ref(), OFlags::RDWR)
    }

    fn open_or_create(&self, name: &OsStr, flags: OFlags) -> Result<File, PrivateError> {
        loop {
            if let Some(file) = self.open_file(name, flags)? {
                return Ok(file);
            }
            let flags = flags | OFlags::CREATE | OFlags::EXCL | FILE;
            match openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok(file.into()),
                // Another process of this user has created it meanwhile.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(&self.path.join(name), errno)),
            }
        }
    }

    fn open_file(&self, name: &OsStr, flags: OFlags) -> Result<Option<File>, PrivateError> {
        let path = self.path.join(name);
        let file = match openat(&self.fd, name, flags | FILE, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(refused(&path, errno)),
        };
        let metadata = file.metadata();
        let metadata =
            metadata.map_err(|source| PrivateError::Io { path: path.clone(), source })?;
        match fault(&metadata, false) {
            None => Ok(Some(file)),
            // A file of root is accepted, for reading.
            Some(NotPrivate::Owner(0)) if is_private(&metadata) => Ok(Some(file)),
            Some(cause) => Err(PrivateError::NotPrivate { path, cause }),
        }
    }

    /// Replaces the content of a file at once. When this returns, it is on the disk.
    ///
    /// # Errors
    /// It cannot be written. Then the old content is still there.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), PrivateError> {
        replace_at(self.fd.as_fd(), name.as_ref(), bytes, 0o600)
            .map_err(|source| PrivateError::Io { path: self.path.join(name), source })
    }

    /// Removes a file, if it exists.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> Result<(), PrivateError> {
        match unlinkat(&self.fd, name.as_ref(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed(&self.path.join(name.as_ref()), errno)),
        }
    }

    /// Writes the names of its entries to the disk.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn sync(&self) -> Result<(), PrivateError> {
        rustix::fs::fsync(&self.fd).map_err(|errno| failed(&self.path, errno))
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A path without slashes and dots after its last name. `D/` and `D/.` would follow a link `D`.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

fn failed(path: &Path, errno: Errno) -> PrivateError {
    PrivateError::Io { path: path.to_owned(), source: errno.into() }
}

/// The error for a name that could not be opened: whether it is a link or of another kind.
fn refused(path: &Path, errno: Errno) -> PrivateError {
    let metadata = path.symlink_metadata();
    let cause = match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::EXIST | Errno::NXIO => {
            metadata.ok().and_then(|found| match errno {
                _ if found.is_symlink() => Some(NotPrivate::Link),
                Errno::EXIST => None,
                _ => Some(NotPrivate::Kind),
            })
        }
        _ => None,
    };
    match cause {
        Some(cause) => PrivateError::NotPrivate { path: path.to_owned(), cause },
        None => failed(path, errno),
    }
}

#[cfg(test)]
mod tests;
