//! A directory as a tar stream that can be resumed in its middle.
//!
//! Owns what becomes a member of the archive, and what does not. It opens plain files and
//! directories only. What cannot be read is left out, and [reported](Packer::skipped). For a
//! socket, a FIFO, a device or a file system of the kernel, the archive has a record instead.

mod cursor;
mod header;
mod walk;

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::EntryType;

use self::header::SECTOR;
use self::walk::{Entered, Root, Step, Walk};
use crate::left_out::{KEY, LeftOut, is_of_kernel};

/// The maximum size of a block, in bytes.
pub const BLOCK: usize = 256 * 1024;

/// The maximum size of a file that the kernel generates. A larger one is left out.
const MAX_GENERATED: u64 = 1024 * 1024;

/// How many skipped files the packer remembers.
const MAX_SKIPPED: usize = 1000;

/// How many files with several names the packer remembers. One more is packed under each name.
const MAX_LINKS: usize = 100_000;

/// The next bytes of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Block {
    /// 1 to [`BLOCK`] bytes.
    pub bytes: Vec<u8>,
    /// A place for [`Packer::resume`], if the block ends a member and a mark is due, see
    /// [`Packer::mark_every`].
    pub cursor: Option<String>,
}

/// A file that is not in the archive as it should be: it cannot be read, or it has become shorter.
#[derive(Debug)]
#[non_exhaustive]
pub struct Skipped {
    /// Its path below the packed directory.
    pub path: PathBuf,
    /// The cause.
    pub reason: io::Error,
}

/// Makes an archive of a directory, or of one file or link, block by block.
///
/// ```
/// use metaservice_archive::{ExtractOptions, Extractor, Packer};
///
/// let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// std::fs::write(from.path().join("greeting"), "hello")?;
/// let mut packer = Packer::open(from.path())?;
/// let mut archive = Vec::new();
/// while let Some(block) = packer.next_block()? {
///     archive.extend(block.bytes);
/// }
/// Extractor::open(to.path(), ExtractOptions::default())?.extract(&archive[..])?;
/// assert_eq!(std::fs::read_to_string(to.path().join("greeting"))?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Packer {
    walk: Walk,
    /// What precedes the path of each member below a directory: its name and a slash, or nothing.
    prefix: Vec<u8>,
    /// The file whose content is being packed.
    content: Option<Content>,
    buffer: Vec<u8>,
    /// The path of the last complete member.
    last: Option<Vec<u8>>,
    since_mark: u64,
    mark_every: u64,
    /// The first path of each file with several names, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    skipped: Vec<Skipped>,
    packed: Packed,
    ended: bool,
}

/// What an archive contains so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Packed {
    /// Plain files. A file with several names counts once for each.
    pub files: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What was left out, because no archive can carry it.
    pub left_out: LeftOut,
}

#[derive(Debug)]
struct Content {
    file: File,
    path: Vec<u8>,
    size: u64,
    left: u64,
}

impl Packer {
    /// Starts to pack a directory, as the member `./`, or one file or link, under its own name. A
    /// link at the end of `path` is not followed.
    ///
    /// # Errors
    /// `path` does not exist, cannot be opened, or is not a directory, a plain file or a link.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_as(path, None)
    }

    /// As [`open`](Self::open), with another name for the directory, or for one file or link.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_as(path: &Path, as_name: Option<&OsStr>) -> io::Result<Self> {
        let mut packer = Self::new();
        match Root::open(path)? {
            Root::Directory(level, status) => {
                packer.set_prefix(as_name);
                packer.add(b"./", EntryType::Directory, &status, None);
                packer.last = Some(b"./".to_vec());
                packer.walk.start(level);
            }
            Root::Single(parent, name) => {
                let status = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                let member = as_name.map_or(name.to_bytes(), OsStr::as_bytes).to_vec();
                packer.member(parent.as_fd(), &name, member, &status)?;
            }
        }
        Ok(packer)
    }

    /// Continues after the member that a cursor names.
    ///
    /// # Errors
    /// As [`open`](Self::open). A cursor that is not one of a packer is
    /// [`InvalidInput`](io::ErrorKind::InvalidInput).
    pub fn resume(path: &Path, cursor: &str) -> io::Result<Self> {
        Self::resume_as(path, cursor, None)
    }

    /// As [`resume`](Self::resume), with the name that [`open_as`](Self::open_as) had.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub fn resume_as(path: &Path, cursor: &str, as_name: Option<&OsStr>) -> io::Result<Self> {
        let last = cursor::unescape(cursor).ok_or(io::ErrorKind::InvalidInput)?;
        let mut packer = Self::new();
        match Root::open(path)? {
            // The only member is complete.
            Root::Single(..) => {}
            Root::Directory(level, _) => {
                packer.set_prefix(as_name);
                packer.walk.start_after(level, &last);
            }
        }
        packer.last = Some(last);
        Ok(packer)
    }

    fn set_prefix(&mut self, name: Option<&OsStr>) {
        self.prefix = name.map(|name| [name.as_bytes(), b"/"].concat()).unwrap_or_default();
    }

    /// The name of a member in the archive.
    fn name(&self, path: &[u8]) -> Vec<u8> {
        match (&self.prefix[..], path) {
            ([], path) => path.to_vec(),
            (prefix, b"./") => prefix.to_vec(),
            (prefix, path) => [prefix, path].concat(),
        }
    }

    fn new() -> Self {
        Self {
            walk: Walk::default(),
            prefix: Vec::new(),
            content: None,
            buffer: Vec::new(),
            last: None,
            since_mark: 0,
            mark_every: u64::MAX,
            links: HashMap::new(),
            skipped: Vec::new(),
            packed: Packed::default(),
            ended: false,
        }
    }

    /// Makes cursors: at the first end of a member that is at least so many bytes after the last
    /// cursor. Without this call there are none.
    pub fn mark_every(&mut self, bytes: u64) {
        self.mark_every = bytes;
    }

    /// What was skipped so far: the first thousand.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// What was packed so far. After [`resume`](Self::resume), what was packed since.
    #[must_use]
    pub const fn packed(&self) -> &Packed {
        &self.packed
    }

    /// The next bytes; `None` at the end. Blocks.
    ///
    /// # Errors
    /// An open file cannot be read. Then the archive is useless.
    pub fn next_block(&mut self) -> io::Result<Option<Block>> {
        while self.buffer.len() < BLOCK && !self.ended {
            if self.content.is_some() {
                self.read_content()?;
            } else if self.is_mark_due() {
                break;
            } else {
                self.step()?;
            }
        }
        let rest = self.buffer.split_off(self.buffer.len().min(BLOCK));
        let bytes = std::mem::replace(&mut self.buffer, rest);
        self.since_mark += bytes.len() as u64;
        let complete = self.content.is_none() && self.buffer.is_empty() && !self.ended;
        let cursor =
            self.last.as_deref().filter(|_| complete && self.since_mark >= self.mark_every);
        let cursor = cursor.map(cursor::escape);
        if cursor.is_some() {
            self.since_mark = 0;
        }
        Ok((!bytes.is_empty()).then_some(Block { bytes, cursor }))
    }

    fn is_mark_due(&self) -> bool {
        !self.buffer.is_empty() && self.since_mark + self.buffer.len() as u64 >= self.mark_every
    }

    /// Packs the next member, or the end of the archive.
    fn step(&mut self) -> io::Result<()> {
        let (directory, name, path) = match self.walk.next()? {
            Step::Visit(directory, name, path) => (directory, name, path),
            Step::Up => return Ok(()),
            Step::End => {
                self.buffer.resize(self.buffer.len() + 2 * SECTOR, 0);
                self.ended = true;
                return Ok(());
            }
        };
        match rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => self.member(directory.as_fd(), &name, path, &status),
            // It was removed after the directory was read.
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => {
                self.miss(&path, errno.into());
                Ok(())
            }
        }
    }

    fn member(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: Vec<u8>,
        status: &Stat,
    ) -> io::Result<()> {
        match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => self.file(parent, name, path),
            FileType::Directory => {
                self.directory(parent, name, path, status);
                Ok(())
            }
            FileType::Symlink => self.symlink(parent, name, path, status),
            // A socket, a FIFO or a device.
            _ if self.walk.is_single() => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is neither a file, a directory nor a link",
            )),
            _ => {
                self.leave_out(path);
                Ok(())
            }
        }
    }

    fn symlink(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: Vec<u8>,
        status: &Stat,
    ) -> io::Result<()> {
        let target = match rustix::fs::readlinkat(parent, name, Vec::new()) {
            Ok(target) => target,
            Err(errno) if self.walk.is_single() => return Err(errno.into()),
            // It was removed meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => {
                self.miss(&path, errno.into());
                return Ok(());
            }
        };
        self.packed.links += 1;
        self.add(&path, EntryType::Symlink, status, Some(target.to_bytes()));
        self.last = Some(path);
        Ok(())
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: Vec<u8>) -> io::Result<()> {
        // Without blocking, because the name may belong to a FIFO by now.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(parent, name, flags, Mode::empty());
        let opened = opened.and_then(|file| rustix::fs::fstat(&file).map(|status| (file, status)));
        let (file, status) = match opened {
            Ok(opened) => opened,
            Err(errno) if self.walk.is_single() => return Err(errno.into()),
            Err(errno) => {
                self.miss(&path, errno.into());
                return Ok(());
            }
        };
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            self.leave_out(path);
            return Ok(());
        }
        let single = self.walk.is_single();
        let of_kernel = if single { is_of_kernel(&file) } else { self.walk.is_of_kernel() };
        if of_kernel {
            self.generated(&file.into(), path, &status);
            return Ok(());
        }
        self.packed.files += 1;
        if status.st_nlink > 1 {
            let identity = (status.st_dev, status.st_ino);
            if let Some(first) = self.links.get(&identity).cloned() {
                self.add(&path, EntryType::Link, &status, Some(&first));
                self.last = Some(path);
                return Ok(());
            }
            if self.links.len() < MAX_LINKS {
                self.links.insert(identity, path.clone());
            }
        }
        let size = u64::try_from(status.st_size).unwrap_or(0);
        let name = self.name(&path);
        header::member(&mut self.buffer, &name, EntryType::Regular, &status, size, None);
        self.content = Some(Content { file: file.into(), path, size, left: size });
        Ok(())
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, mut path: Vec<u8>, status: &Stat) {
        path.push(b'/');
        if self.walk.is_in(status) {
            return;
        }
        self.add(&path, EntryType::Directory, status, None);
        self.last = Some(path.clone());
        match self.walk.enter(parent, name, &path) {
            Entered::Yes => {}
            Entered::TooDeep => self.skip(&path, io::Error::other("too deep")),
            Entered::OfKernel => self.leave_out(path),
            Entered::Failed(error) => self.miss(&path, error),
        }
    }

    /// Packs a file that the kernel generates. Its size is known when it was read.
    fn generated(&mut self, file: &File, path: Vec<u8>, status: &Stat) {
        let mut content = Vec::new();
        let read = file.take(MAX_GENERATED + 1).read_to_end(&mut content);
        if read.is_err() || content.len() as u64 > MAX_GENERATED {
            self.leave_out(path);
            return;
        }
        let size = content.len();
        self.packed.files += 1;
        self.packed.bytes += size as u64;
        let name = self.name(&path);
        header::member(&mut self.buffer, &name, EntryType::Regular, status, size as u64, None);
        self.buffer.append(&mut content);
        header::pad(&mut self.buffer, size);
        self.last = Some(path);
    }

    /// Adds the headers of a member without content.
    fn add(&mut self, path: &[u8], kind: EntryType, status: &Stat, link: Option<&[u8]>) {
        // A hard link names another member.
        let member = link.filter(|_| kind == EntryType::Link).map(|link| self.name(link));
        let name = self.name(path);
        header::member(&mut self.buffer, &name, kind, status, 0, member.as_deref().or(link));
    }

    /// Adds a record of something that no archive can carry.
    fn leave_out(&mut self, path: Vec<u8>) {
        header::global_record(&mut self.buffer, KEY, &path);
        self.packed.left_out.add(&path);
        self.last = Some(path);
    }

    /// Something cannot be read. In a file system of the kernel that is usual, and no error.
    fn miss(&mut self, path: &[u8], reason: io::Error) {
        if self.walk.is_of_kernel() {
            self.leave_out(path.to_vec());
        } else {
            self.skip(path, reason);
        }
    }

    fn skip(&mut self, path: &[u8], reason: io::Error) {
        let path = PathBuf::from(OsStr::from_bytes(path));
        let known = self.skipped.last().is_some_and(|last| last.path == path);
        if self.skipped.len() < MAX_SKIPPED && !known {
            self.skipped.push(Skipped { path, reason });
        }
    }

    /// Reads more of the current file, as far as the block has room.
    fn read_content(&mut self) -> io::Result<()> {
        let Some(content) = &mut self.content else { return Ok(()) };
        let room = (BLOCK - self.buffer.len()) as u64;
        let wanted = content.left.min(room);
        let read = content.file.by_ref().take(wanted).read_to_end(&mut self.buffer)? as u64;
        content.left -= read;
        self.packed.bytes += read;
        if read < wanted {
            // The file has become shorter since its header was written: zeros replace the rest.
            let missing = usize::try_from(content.left.min(room - read)).unwrap_or(0);
            self.buffer.resize(self.buffer.len() + missing, 0);
            content.left -= missing as u64;
            let (path, reason) = (content.path.clone(), io::ErrorKind::UnexpectedEof);
            self.skip(&path, reason.into());
        }
        if let Some(content) = self.content.take_if(|content| content.left == 0) {
            // Only the remainder matters.
            let remainder = usize::try_from(content.size % SECTOR as u64).unwrap_or(0);
            header::pad(&mut self.buffer, remainder);
            self.last = Some(content.path);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
