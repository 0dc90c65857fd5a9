//! A directory that only its user can change.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::replace::replace_at;

/// The bits by which others can write.
const OTHERS: u32 = 0o022;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opening waits for nothing: a FIFO could have the name.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A file or directory that is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The system refuses.
    #[error("cannot use {path}")]
    Io {
        /// What was used.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not this user's alone.
    #[error("{path} {objection}")]
    Refused {
        /// What was looked at.
        path: PathBuf,
        /// What is wrong with it.
        objection: Objection,
    },
}

impl PrivateError {
    /// What the system says, or what it would say.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } => source.kind(),
            Self::Refused { .. } => io::ErrorKind::PermissionDenied,
        }
    }
}

impl From<PrivateError> for io::Error {
    fn from(error: PrivateError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Why a file or directory is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objection {
    /// A symbolic link: others may have laid it.
    Link,
    /// Not the kind of thing that was asked for.
    Kind,
    /// This user's is another.
    Owner(u32),
    /// Others can write it.
    Mode(u32),
    /// The file has this many names; some may be elsewhere.
    Names(u64),
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => write!(f, "is a symbolic link, and none is followed here"),
            Self::Kind => write!(f, "is neither a plain file nor a directory as expected"),
            Self::Owner(user) => write!(f, "belongs to the user with the id {user}"),
            Self::Mode(mode) => {
                write!(f, "can be written by other users (mode {mode:o}): type 'chmod go-w' for it")
            }
            Self::Names(count) => write!(f, "has {count} names (hard links)"),
        }
    }
}

/// Whether only this user, or root, can change what has these attributes.
pub(crate) fn is_private(metadata: &Metadata) -> bool {
    let owner = metadata.uid();
    (owner == geteuid().as_raw() || owner == 0) && metadata.mode() & OTHERS == 0
}

fn object(metadata: &Metadata, directory: bool) -> Option<Objection> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return Some(Objection::Link);
    }
    if directory != kind.is_dir() || !directory && !kind.is_file() {
        return Some(Objection::Kind);
    }
    if metadata.uid() != geteuid().as_raw() {
        return Some(Objection::Owner(metadata.uid()));
    }
    if metadata.mode() & OTHERS != 0 {
        return Some(Objection::Mode(metadata.mode() & 0o7777));
    }
    (!directory && metadata.nlink() > 1).then(|| Objection::Names(metadata.nlink()))
}

/// An open directory of this user's that others cannot change.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens a directory; a link in its place is refused.
    ///
    /// # Errors
    /// When it is not there, or not this user's alone.
    pub fn open(path: &Path) -> Result<Self, PrivateError> {
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let path = &plain(path);
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(|errno| refuse(path, errno))?;
        Self::check(fd, path)
    }

    /// Opens a directory, or makes it where its parent is; whether it was made.
    ///
    /// # Errors
    /// When it cannot be made, or is not this user's alone.
    pub fn open_or_make(path: &Path) -> Result<(Self, bool), PrivateError> {
        let path = &plain(path);
        let made = match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            // An existing one on a file system that cannot be written.
            Err(errno) if path.symlink_metadata().is_err() => return Err(failed(path, errno)),
            Err(_) => false,
        };
        Ok((Self::open(path)?, made))
    }

    /// Opens or makes directories of this program's within `base`, which exists, one in another.
    ///
    /// A link is followed where only this user could have made it. A directory of this user's
    /// that others can write, as old umasks have left it, is closed to them. One of root's that
    /// others cannot write is as good as one's own, to be read.
    ///
    /// # Errors
    /// When one of them cannot be made, or is not this user's.
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
                open().map_err(|errno| refuse(&path, errno))?
            }
            opened => opened.map_err(|errno| refuse(&path, errno))?,
        };
        let directory = Self { fd, path };
        let metadata = directory.metadata()?;
        match object(&metadata, true) {
            None => {}
            Some(Objection::Owner(0)) if is_private(&metadata) => {}
            Some(Objection::Mode(mode)) => {
                let closed = Mode::from_raw_mode(mode & !OTHERS);
                fchmod(&directory.fd, closed).map_err(|e| failed(&directory.path, e))?;
            }
            Some(objection) => {
                return Err(PrivateError::Refused { path: directory.path, objection });
            }
        }
        Ok(directory)
    }

    fn check(fd: OwnedFd, path: &Path) -> Result<Self, PrivateError> {
        let directory = Self { fd, path: path.to_owned() };
        match object(&directory.metadata()?, true) {
            None => Ok(directory),
            Some(objection) => Err(PrivateError::Refused { path: directory.path, objection }),
        }
    }

    fn metadata(&self) -> Result<Metadata, PrivateError> {
        let metadata = self.fd.try_clone().and_then(|fd| File::from(fd).metadata());
        metadata.map_err(|source| PrivateError::Io { path: self.path.clone(), source })
    }

    /// Its path, as it was named.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its entries' names.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self) -> Result<Vec<std::ffi::OsString>, PrivateError> {
        crate::partial::names(self.fd.as_fd())
            .map_err(|source| PrivateError::Io { path: self.path.clone(), source })
    }

    /// Creates a file for reading and writing; there is none of this name yet.
    ///
    /// # Errors
    /// When there is one, or the system refuses.
    pub fn create(&self, name: impl AsRef<OsStr>) -> Result<File, PrivateError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | FILE;
        let file = openat(&self.fd, name.as_ref(), flags, Mode::RUSR | Mode::WUSR);
        file.map(File::from).map_err(|errno| refuse(&self.path.join(name.as_ref()), errno))
    }

    /// Opens a file for reading, if it is there.
    ///
    /// # Errors
    /// When it is not a plain file of this user's alone.
    pub fn read(&self, name: impl AsRef<OsStr>) -> Result<Option<File>, PrivateError> {
        self.open_file(name.as_ref(), OFlags::RDONLY)
    }

    /// Opens a file for reading and appending, or creates it.
    ///
    /// # Errors
    /// When it is not a plain file of this user's alone, or the system refuses.
    pub fn append(&self, name: impl AsRef<OsStr>) -> Result<File, PrivateError> {
        let name = name.as_ref();
        loop {
            let flags = OFlags::RDWR | OFlags::APPEND;
            if let Some(file) = self.open_file(name, flags)? {
                return Ok(file);
            }
            let flags = flags | OFlags::CREATE | OFlags::EXCL | FILE;
            match openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok(file.into()),
                // Somebody of this user's has created it meanwhile.
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
            Err(errno) => return Err(refuse(&path, errno)),
        };
        let metadata = file.metadata();
        let metadata =
            metadata.map_err(|source| PrivateError::Io { path: path.clone(), source })?;
        match object(&metadata, false) {
            None => Ok(Some(file)),
            // To be read, root's is as good as one's own.
            Some(Objection::Owner(0)) if is_private(&metadata) => Ok(Some(file)),
            Some(objection) => Err(PrivateError::Refused { path, objection }),
        }
    }

    /// Replaces a file as a whole. When this returns, the disk has it.
    ///
    /// # Errors
    /// When it cannot be written. What was there is there still.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), PrivateError> {
        replace_at(self.fd.as_fd(), name.as_ref(), bytes, 0o600)
            .map_err(|source| PrivateError::Io { path: self.path.join(name), source })
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> Result<(), PrivateError> {
        match unlinkat(&self.fd, name.as_ref(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed(&self.path.join(name.as_ref()), errno)),
        }
    }

    /// Has the names in it written to the disk.
    ///
    /// # Errors
    /// When they cannot be.
    pub fn sync(&self) -> Result<(), PrivateError> {
        rustix::fs::fsync(&self.fd).map_err(|errno| failed(&self.path, errno))
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A path without what stands behind its last name: by `D/` and `D/.` a link `D` is followed.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

fn failed(path: &Path, errno: Errno) -> PrivateError {
    PrivateError::Io { path: path.to_owned(), source: errno.into() }
}

/// What the system says of a link that is not to be followed, in words.
fn refuse(path: &Path, errno: Errno) -> PrivateError {
    let metadata = path.symlink_metadata();
    let objection = match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::EXIST | Errno::NXIO => {
            metadata.ok().and_then(|found| match errno {
                _ if found.is_symlink() => Some(Objection::Link),
                Errno::EXIST => None,
                _ => Some(Objection::Kind),
            })
        }
        _ => None,
    };
    match objection {
        Some(objection) => PrivateError::Refused { path: path.to_owned(), objection },
        None => failed(path, errno),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::io::Read;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[track_caller]
    fn objection<T: fmt::Debug>(outcome: Result<T, PrivateError>) -> Objection {
        match outcome {
            Err(PrivateError::Refused { objection, .. }) => objection,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_directory_is_made_for_its_user_alone_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        assert!(Directory::open_or_make(&path).unwrap().1);
        assert!(!Directory::open_or_make(&path).unwrap().1);
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        let none = Directory::open_or_make(&folder.path().join("none/new")).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_directory_that_others_made_or_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("open")).unwrap();
        for bits in [0o777, 0o1777, 0o770, 0o702] {
            mode(&at("open"), bits);
            assert_eq!(objection(Directory::open(&at("open"))), Objection::Mode(bits));
        }
        mode(&at("open"), 0o755);
        symlink(at("open"), at("link")).unwrap();
        assert_eq!(objection(Directory::open(&at("link"))), Objection::Link);
        for link in ["link", "link/", "link/.", "link//"] {
            assert_eq!(objection(Directory::open(&at(link))), Objection::Link, "{link}");
            assert_eq!(objection(Directory::open_or_make(&at(link))), Objection::Link, "{link}");
        }
        symlink(at("none"), at("dangling")).unwrap();
        assert_eq!(objection(Directory::open_or_make(&at("dangling"))), Objection::Link);
        assert!(!at("none").exists());
        fs::write(at("file"), "").unwrap();
        assert_eq!(objection(Directory::open_or_make(&at("file"))), Objection::Kind);
        if geteuid().is_root() {
            fs::create_dir(at("theirs")).unwrap();
            std::os::unix::fs::chown(at("theirs"), Some(12345), None).unwrap();
            assert_eq!(objection(Directory::open(&at("theirs"))), Objection::Owner(12345));
        }
    }

    #[test]
    fn a_file_that_others_could_have_made_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let victim = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
        fs::write(victim.path(), "precious").unwrap();
        let path = folder.path().join("directory");
        let directory = Directory::open_or_make(&path).unwrap().0;
        let at = |name: &str| path.join(name);
        symlink(victim.path(), at("link")).unwrap();
        symlink(at("none"), at("dangling")).unwrap();
        fs::hard_link(victim.path(), at("hard")).unwrap();
        fs::write(at("open"), "").unwrap();
        mode(&at("open"), 0o666);
        fs::create_dir(at("below")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap();
        assert!(fifo.success());
        for (name, wrong) in [
            ("link", Objection::Link),
            ("dangling", Objection::Link),
            ("hard", Objection::Names(2)),
            ("open", Objection::Mode(0o666)),
            ("fifo", Objection::Kind),
        ] {
            assert_eq!(objection(directory.read(name)), wrong, "{name}");
            assert_eq!(objection(directory.append(name)), wrong, "{name}");
            assert!(directory.create(name).is_err(), "{name}");
        }
        assert!(directory.append("below").is_err() && directory.read("below").is_err());
        // What is replaced is the name.
        symlink(victim.path(), at("link.next")).unwrap();
        directory.replace("link", b"new").unwrap();
        assert_eq!(fs::read(at("link")).unwrap(), b"new");
        assert_eq!(fs::read(victim.path()).unwrap(), b"precious");
        assert!(!at("none").exists() && !at("link.next").exists());
    }

    #[test]
    fn a_file_is_created_appended_to_read_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap();
        assert!(directory.read("a").unwrap().is_none());
        directory.append("a").unwrap().write_all(b"one").unwrap();
        directory.append("a").unwrap().write_all(b"two").unwrap();
        let mut text = String::new();
        directory.read("a").unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "onetwo");
        assert_eq!(fs::metadata(folder.path().join("a")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(directory.create("a").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        directory.replace("a", b"all").unwrap();
        assert_eq!(directory.names().unwrap(), ["a"]);
        directory.remove("a").unwrap();
        directory.remove("a").unwrap();
        assert!(directory.names().unwrap().is_empty());
    }

    #[test]
    fn a_programs_own_directories_are_closed_to_others_and_links_only_their_users() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let deep = Directory::within(folder.path(), &["a", "b"]).unwrap();
        assert_eq!(deep.path(), at("a/b"));
        mode(&at("a"), 0o777);
        Directory::within(folder.path(), &["a", "b"]).unwrap();
        assert_eq!(at("a").metadata().unwrap().mode() & 0o777, 0o755);
        // The user's own link leads to a larger disk; another could be anybody's.
        symlink(at("a"), at("link")).unwrap();
        Directory::within(folder.path(), &["link", "b"]).unwrap();
        mode(folder.path(), 0o1777);
        assert_eq!(objection(Directory::within(folder.path(), &["link"])), Objection::Link);
        Directory::within(folder.path(), &["a"]).unwrap();
        mode(folder.path(), 0o700);
        assert!(Directory::within(&at("none"), &["a"]).is_err() && !at("none").exists());
    }
}
