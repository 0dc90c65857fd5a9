//! What is being written, until it is whole.
//!
//! A file that is being written has no name where the file system can do that (`O_TMPFILE`), so
//! that nothing is left of a process that is killed. Elsewhere, and for a directory, it has a name
//! of its own and is locked by its maker: the system drops the lock with the process, and
//! [`sweep`] removes what has such a name and no lock.
//!
//! A name is taken and locked in two steps. A sweeper may come in between and remove what it takes
//! for abandoned; the maker sees after the lock whether the name is still its own, and takes
//! another one if not.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, chmodat, flock, fstat, linkat,
    mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

const PREFIX: &[u8] = b".metaservice-";
const SUFFIX: &[u8] = b".partial";
const DRAWN: usize = 12;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A new file. Dropped before it is [kept](Self::keep), it is gone.
#[derive(Debug)]
pub struct Partial {
    parent: OwnedFd,
    file: File,
    /// Its name until it is kept, if it has one.
    name: Option<OsString>,
}

impl Partial {
    /// Begins a file that is to be in the directory `parent`; it gets what the umask leaves of
    /// `mode`.
    ///
    /// # Errors
    /// When none can be made there.
    pub fn new(parent: OwnedFd, mode: u32) -> io::Result<Self> {
        match Self::unnamed(&parent, mode) {
            Ok(file) => Ok(Self { parent, file, name: None }),
            Err(_) => Self::named(parent, mode),
        }
    }

    fn unnamed(parent: &OwnedFd, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = openat(parent, ".", flags, Mode::from_raw_mode(mode))?;
        // It will get its name by this path.
        let there = statat(CWD, proc_path(&file), AtFlags::empty())?;
        if there.st_ino != fstat(&file)?.st_ino {
            return Err(io::ErrorKind::Unsupported.into());
        }
        lock(file.as_fd());
        Ok(file.into())
    }

    /// Begins a file that has a name from the beginning, for those who need one.
    ///
    /// # Errors
    /// When none can be made there.
    pub fn named(parent: OwnedFd, mode: u32) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        loop {
            let name = draw();
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

    /// What is written to.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The name that it has until it is kept, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&OsStr> {
        self.name.as_deref()
    }

    /// Gives it the name `place`. What had this name is replaced.
    ///
    /// # Errors
    /// When the system refuses; then it is gone.
    pub fn keep(mut self, place: &OsStr) -> io::Result<()> {
        if self.name.is_none() {
            let unnamed = proc_path(&self.file);
            let link =
                |name: &OsStr| linkat(CWD, &unnamed, &self.parent, name, AtFlags::SYMLINK_FOLLOW);
            match link(place) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            // Only a rename replaces. The name in between is known by the lock.
            self.name = Some(loop {
                let name = draw();
                match link(&name) {
                    Ok(()) => break name,
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
            });
        }
        if let Some(name) = &self.name {
            renameat(&self.parent, name, &self.parent, place)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // It may have been removed by somebody else.
            let _ = unlinkat(&self.parent, name, AtFlags::empty());
        }
    }
}

/// A new directory. Dropped before it is [kept](Self::keep), it is gone with all that is in it.
#[derive(Debug)]
pub struct PartialDirectory {
    parent: OwnedFd,
    directory: OwnedFd,
    name: Option<OsString>,
}

impl PartialDirectory {
    /// Makes a directory that nobody else can enter, in the directory `parent`.
    ///
    /// # Errors
    /// When none can be made there.
    pub fn new(parent: OwnedFd) -> io::Result<Self> {
        loop {
            let name = draw();
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

    /// The directory that it is to be in.
    #[must_use]
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// Gives it the name `place`.
    ///
    /// # Errors
    /// When the system refuses; then it is gone.
    pub fn keep(mut self, place: &OsStr) -> io::Result<()> {
        if let Some(name) = &self.name {
            renameat(&self.parent, name, &self.parent, place)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for PartialDirectory {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Somebody else may have removed it.
            let _ = remove_tree(self.parent.as_fd(), name);
        }
    }
}

/// Removes what makers that are no more have left in the directory `parent`. What cannot be
/// removed, or may have a maker, stays.
pub fn sweep(parent: BorrowedFd<'_>) {
    for name in names(parent).unwrap_or_default() {
        if is_drawn(&name) {
            let _ = sweep_one(parent, &name);
        }
    }
}

fn sweep_one(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let left = openat(parent, name, flags, Mode::empty())?;
    let status = fstat(&left)?;
    let kind = FileType::from_raw_mode(status.st_mode);
    let ours = status.st_uid == geteuid().as_raw();
    if !ours || !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Ok(());
    }
    flock(&left, FlockOperation::NonBlockingLockExclusive)?;
    if is_at(parent, name, left.as_fd()) { remove_tree(parent, name) } else { Ok(()) }
}

/// Removes whatever has this name, a directory with all that is in it. It may hold directories
/// that their modes have closed. It is no deeper than descriptors allow.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        outcome => return Ok(outcome?),
    }
    chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
    let directory = openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
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

fn draw() -> OsString {
    let mut name = PREFIX.to_vec();
    name.extend(std::iter::repeat_with(fastrand::alphanumeric).take(DRAWN).map(|c| c as u8));
    name.extend_from_slice(SUFFIX);
    OsString::from_vec(name)
}

fn is_drawn(name: &OsStr) -> bool {
    let middle = name.as_bytes().strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    middle.is_some_and(|drawn| drawn.len() == DRAWN && drawn.iter().all(u8::is_ascii_alphanumeric))
}

/// Locks what is new. Where the file system has no locks, it is never taken for abandoned either.
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

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    fn entries(path: &Path) -> Vec<OsString> {
        let mut names = names(open(path).as_fd()).unwrap();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_and_replaces_what_was_there() {
        let here = tempfile::tempdir().unwrap();
        let at = |name: &str| here.path().join(name);
        std::fs::write(at("other"), "other").unwrap();
        type Make = fn(OwnedFd, u32) -> io::Result<Partial>;
        for (make, named) in [(Partial::new as Make, false), (Partial::named, true)] {
            let _ = std::fs::remove_file(at("place"));
            for round in ["new", "newer"] {
                let partial = make(open(here.path()), 0o666).unwrap();
                partial.file().write_all(round.as_bytes()).unwrap();
                assert!(!named || partial.name().is_some());
                sweep(open(here.path()).as_fd());
                partial.keep(OsStr::new("place")).unwrap();
                assert_eq!(std::fs::read_to_string(at("place")).unwrap(), round);
                assert_eq!(entries(here.path()), ["other", "place"]);
            }
            std::fs::remove_file(at("place")).unwrap();
            symlink("other", at("place")).unwrap();
            make(open(here.path()), 0o666).unwrap().keep(OsStr::new("place")).unwrap();
            assert_eq!(std::fs::read_to_string(at("other")).unwrap(), "other");
            drop(make(open(here.path()), 0o666).unwrap());
            assert_eq!(entries(here.path()), ["other", "place"]);
        }
    }

    #[test]
    fn what_has_a_maker_stays_and_what_has_none_is_removed() {
        let here = tempfile::tempdir().unwrap();
        let file = Partial::named(open(here.path()), 0o600).unwrap();
        let directory = PartialDirectory::new(open(here.path())).unwrap();
        let inner =
            openat(directory.directory(), "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
        drop(inner.unwrap());
        // As a killed maker leaves it.
        let dead = here.path().join(draw());
        std::fs::create_dir_all(dead.join("a/b")).unwrap();
        std::fs::write(dead.join("a/file"), "").unwrap();
        let dead = here.path().join(draw());
        std::fs::write(&dead, "half").unwrap();
        let kept = [".metaservice-config", ".metaservice-abc.partial", "x.partial"];
        for name in kept {
            std::fs::write(here.path().join(name), "").unwrap();
        }
        let victim = tempfile::tempdir().unwrap();
        symlink(victim.path(), here.path().join(draw())).unwrap();
        assert_eq!(entries(here.path()).len(), 8);
        sweep(open(here.path()).as_fd());
        assert_eq!(entries(here.path()).len(), 6, "{:?}", entries(here.path()));
        assert!(!dead.exists() && victim.path().exists());
        directory.keep(OsStr::new("tree")).unwrap();
        file.keep(OsStr::new("one")).unwrap();
        assert!(here.path().join("tree/file").exists() && here.path().join("one").exists());
    }

    #[test]
    fn a_makers_lock_goes_with_it() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join(draw());
        std::fs::create_dir(&path).unwrap();
        let directory = open(&path);
        lock(directory.as_fd());
        // A process that holds the descriptor stands for the maker.
        let mut maker = {
            let mut command = std::process::Command::new("sleep");
            command.arg("1000").stdin(File::from(directory)).spawn().unwrap()
        };
        sweep(open(here.path()).as_fd());
        assert!(path.exists(), "its maker lives");
        maker.kill().unwrap();
        maker.wait().unwrap();
        sweep(open(here.path()).as_fd());
        assert!(!path.exists(), "its maker is gone");
    }
}
