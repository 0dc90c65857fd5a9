//! The walk through a tree of directories, by their descriptors.
//!
//! Owns the open directories and the order of their names, sorted by bytes. A name is opened in its
//! open parent and never through a link, so a directory that is renamed during the walk cannot
//! lead it elsewhere. A file system of the kernel below the root is not entered.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Dir, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::left_out::is_of_kernel;

/// The maximum depth: each level keeps a directory open.
const MAX_DEPTH: usize = 256;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The start of a walk.
pub(super) enum Root {
    Directory(Level, Box<Stat>),
    /// One file or link: its parent, and its name there.
    Single(OwnedFd, CString),
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // With a slash at its end, a path to a link would lead to the target.
        match rustix::fs::open(path, DIRECTORY, Mode::empty()) {
            Ok(directory) => {
                let status = rustix::fs::fstat(&directory)?;
                let of_kernel = is_of_kernel(&directory);
                let level = Level::new(directory, Vec::new(), &status, of_kernel)?;
                return Ok(Self::Directory(level, Box::new(status)));
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(errno.into()),
        }
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent =
            path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat(CWD, parent, flags, Mode::empty())?;
        let name = CString::new(name.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self::Single(parent, name))
    }
}

/// An open directory with the names that were not visited.
#[derive(Debug)]
pub(super) struct Level {
    directory: OwnedFd,
    /// Device and inode.
    identity: (u64, u64),
    /// Whether it is in a file system of the kernel.
    of_kernel: bool,
    /// The path below the root, with a slash at its end. Empty for the root.
    prefix: Vec<u8>,
    /// The next name is the last one.
    names: Vec<CString>,
}

impl Level {
    /// Opens a directory of `above`. `None` if a file system of the kernel begins here.
    fn open(
        parent: BorrowedFd<'_>,
        name: &CStr,
        prefix: Vec<u8>,
        above: Option<&Self>,
    ) -> io::Result<Option<Self>> {
        let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
        let status = rustix::fs::fstat(&directory)?;
        let of_kernel = match above {
            Some(above) if above.identity.0 == status.st_dev => above.of_kernel,
            _ if is_of_kernel(&directory) => return Ok(None),
            _ => false,
        };
        Self::new(directory, prefix, &status, of_kernel).map(Some)
    }

    fn new(
        directory: OwnedFd,
        prefix: Vec<u8>,
        status: &Stat,
        of_kernel: bool,
    ) -> io::Result<Self> {
        let mut names = Vec::new();
        let mut entries = Dir::read_from(&directory)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        let identity = (status.st_dev, status.st_ino);
        Ok(Self { directory, identity, of_kernel, prefix, names })
    }
}

/// The next step of a walk.
pub(super) enum Step {
    /// A name in an open directory, and its path below the root.
    Visit(OwnedFd, CString, Vec<u8>),
    /// The last name of a directory was visited: the walk is back in its parent.
    Up,
    End,
}

/// What became of a directory that the walk was asked to enter.
pub(super) enum Entered {
    Yes,
    /// It is too deep.
    TooDeep,
    /// A file system of the kernel begins here.
    OfKernel,
    Failed(io::Error),
}

/// A walk: the open directories from the root to the current one.
#[derive(Debug, Default)]
pub(super) struct Walk {
    levels: Vec<Level>,
}

impl Walk {
    pub(super) fn start(&mut self, root: Level) {
        self.levels.push(root);
    }

    /// Whether the walk is not in a directory: there is one file or link, and no tree.
    pub(super) fn is_single(&self) -> bool {
        self.levels.is_empty()
    }

    /// Whether the current directory is in a file system of the kernel.
    pub(super) fn is_of_kernel(&self) -> bool {
        self.levels.last().is_some_and(|level| level.of_kernel)
    }

    /// Whether the walk is in this directory already, as in one that is mounted into itself.
    pub(super) fn is_in(&self, status: &Stat) -> bool {
        let identity = (status.st_dev, status.st_ino);
        self.levels.iter().any(|level| level.identity == identity)
    }

    pub(super) fn next(&mut self) -> io::Result<Step> {
        let Some(level) = self.levels.last_mut() else { return Ok(Step::End) };
        let Some(name) = level.names.pop() else {
            self.levels.pop();
            return Ok(Step::Up);
        };
        let path = [&level.prefix[..], name.to_bytes()].concat();
        Ok(Step::Visit(level.directory.try_clone()?, name, path))
    }

    /// Enters a directory. `path` ends with a slash.
    pub(super) fn enter(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Entered {
        if self.levels.len() >= MAX_DEPTH {
            return Entered::TooDeep;
        }
        match Level::open(parent, name, path.to_vec(), self.levels.last()) {
            Ok(Some(level)) => {
                self.levels.push(level);
                Entered::Yes
            }
            Ok(None) => Entered::OfKernel,
            Err(error) => Entered::Failed(error),
        }
    }

    /// Opens the directories on the way to a member, as if all names before it had been visited.
    pub(super) fn start_after(&mut self, root: Level, member: &[u8]) {
        self.levels.push(root);
        if member == b"./" {
            return;
        }
        let mut parts =
            member.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            let Some(level) = self.levels.last_mut() else { return };
            level.names.retain(|name| name.to_bytes() > part);
            let inside = parts.peek().is_some() || member.ends_with(b"/");
            let Ok(name) = CString::new(part) else { return };
            if !inside || self.levels.len() >= MAX_DEPTH {
                return;
            }
            let Some(parent) = self.levels.last() else { return };
            let path = [&parent.prefix[..], part, b"/"].concat();
            match Level::open(parent.directory.as_fd(), &name, path, Some(parent)) {
                Ok(Some(level)) => self.levels.push(level),
                // It was removed since, or it was left out.
                Ok(None) | Err(_) => return,
            }
        }
    }
}
