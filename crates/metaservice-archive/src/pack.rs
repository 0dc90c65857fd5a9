//! A folder as a tar stream that can be begun again in its middle.
//!
//! Owns the walk and the headers (POSIX pax). The walk goes down by folder descriptors, visits the
//! names of each folder sorted by their bytes, and opens nothing but plain files and folders,
//! never through a link: what is renamed meanwhile cannot lead it elsewhere. What cannot be read is
//! left out and [told](Packer::skipped). Sockets, FIFOs and devices are left out with a record in the
//! archive, and so is what is in a file system of the kernel's below the one that was asked for.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use tar::{EntryType, Header};

use crate::special::{KEY, LeftOut, is_of_kernel};

/// The most bytes of a block.
pub const BLOCK: usize = 256 * 1024;

/// How deep the walk goes; each level keeps a folder open.
const MAX_DEPTH: usize = 256;

/// The most that is read of a file that the kernel makes up.
const MADE_UP: u64 = 1024 * 1024;

/// How many of the files that cannot be read are remembered.
const MAX_SKIPPED: usize = 1000;

/// How many files with several names are remembered: one more is sent again under each.
const MAX_LINKS: usize = 100_000;

const SECTOR: usize = 512;

/// The next bytes of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// 1 to [`BLOCK`] bytes.
    pub bytes: Vec<u8>,
    /// Where these bytes end a member, and [`Packer::mark_every`] says so: the place, for
    /// [`Packer::resume`].
    pub cursor: Option<String>,
}

/// Something that should be in an archive and cannot be read, or is not as it was.
#[derive(Debug)]
pub struct Skipped {
    /// Its path below the folder.
    pub path: PathBuf,
    /// Why.
    pub reason: io::Error,
}

/// Makes an archive of a folder, or of one file or link, block by block.
///
/// ```
/// use metaservice_archive::{Extractor, Packer};
///
/// let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// std::fs::write(from.path().join("greeting"), "hello")?;
/// let mut packer = Packer::open(from.path())?;
/// let mut archive = Vec::new();
/// while let Some(block) = packer.next_block()? {
///     archive.extend(block.bytes);
/// }
/// Extractor::open(to.path(), Default::default())?.extract(&archive[..])?;
/// assert_eq!(std::fs::read_to_string(to.path().join("greeting"))?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Packer {
    levels: Vec<Level>,
    /// A member whose bytes are under way.
    content: Option<Content>,
    buffer: Vec<u8>,
    /// The member that was completed last.
    last: Option<Vec<u8>>,
    since_mark: u64,
    mark_every: u64,
    links: HashMap<(u64, u64), Vec<u8>>,
    skipped: Vec<Skipped>,
    packed: Packed,
    ended: bool,
}

/// What has gone into an archive so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// Plain files, each name counted.
    pub files: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What no archive carries.
    pub left_out: LeftOut,
}

/// A folder that is being walked.
#[derive(Debug)]
struct Level {
    folder: OwnedFd,
    identity: (u64, u64),
    /// Whether it is in a file system of the kernel's.
    of_kernel: bool,
    /// Its path below the root, with a slash at its end unless it is the root.
    prefix: Vec<u8>,
    /// What is still to be visited, the next one last.
    names: Vec<CString>,
}

#[derive(Debug)]
struct Content {
    file: File,
    path: Vec<u8>,
    left: u64,
    padding: usize,
}

/// How a walk begins.
enum Root {
    Folder(Level, Box<Stat>),
    /// The parent, and the name in it.
    Single(OwnedFd, CString),
}

impl Packer {
    /// Begins with the folder itself, as the member `./`, or with the one file or link that is at
    /// `path`, under its own name. A link at the end of `path` is not followed.
    ///
    /// # Errors
    /// Nothing is there, or it cannot be opened, or it is neither a folder, a plain file nor a link.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_as(path, None)
    }

    /// As [`open`](Self::open), with another name for what is no folder.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_as(path: &Path, as_name: Option<&OsStr>) -> io::Result<Self> {
        let mut packer = Self::new();
        match Root::open(path)? {
            Root::Folder(level, status) => {
                packer.header(b"./", EntryType::Directory, &status, 0, None);
                packer.last = Some(b"./".to_vec());
                packer.levels.push(level);
            }
            Root::Single(parent, name) => {
                let status = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                let member = as_name.map_or(name.to_bytes(), OsStr::as_bytes).to_vec();
                packer.member(parent.as_fd(), &name, member, &status)?;
            }
        }
        Ok(packer)
    }

    /// Begins behind the member that a cursor names.
    ///
    /// # Errors
    /// As [`open`](Self::open); a cursor that no packer made is [`InvalidInput`](io::ErrorKind::InvalidInput).
    pub fn resume(path: &Path, cursor: &str) -> io::Result<Self> {
        let behind = unescape(cursor).ok_or(io::ErrorKind::InvalidInput)?;
        let mut packer = Self::new();
        match Root::open(path)? {
            // One member, and it is behind us.
            Root::Single(..) => {}
            Root::Folder(level, _) => packer.go_behind(level, &behind)?,
        }
        packer.last = Some(behind);
        Ok(packer)
    }

    fn new() -> Self {
        Self {
            levels: Vec::new(),
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

    /// Ends a block at the first end of a member that lies so many bytes behind the last such
    /// place, and gives a cursor with it. Without this call there are no cursors.
    pub fn mark_every(&mut self, bytes: u64) {
        self.mark_every = bytes;
    }

    /// What was left out so far: at most the first thousand.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// What has been packed so far. After a [resumption](Self::resume), since then.
    #[must_use]
    pub const fn packed(&self) -> &Packed {
        &self.packed
    }

    /// The next bytes; `None` at the end. Blocks.
    ///
    /// # Errors
    /// A file that could be opened and cannot be read. The archive cannot be gone on with then.
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
        let cursor = cursor.map(escape);
        if cursor.is_some() {
            self.since_mark = 0;
        }
        Ok((!bytes.is_empty()).then_some(Block { bytes, cursor }))
    }

    fn is_mark_due(&self) -> bool {
        !self.buffer.is_empty() && self.since_mark + self.buffer.len() as u64 >= self.mark_every
    }

    /// The next member, or the end.
    fn step(&mut self) -> io::Result<()> {
        let Some(level) = self.levels.last_mut() else {
            self.buffer.resize(self.buffer.len() + 2 * SECTOR, 0);
            self.ended = true;
            return Ok(());
        };
        let Some(name) = level.names.pop() else {
            self.levels.pop();
            return Ok(());
        };
        let path = [&level.prefix[..], name.to_bytes()].concat();
        let folder = level.folder.try_clone()?;
        match rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => self.member(folder.as_fd(), &name, path, &status),
            // Gone since the folder was read.
            Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => {
                self.miss(&path, errno.into());
                Ok(())
            }
        }
    }

    fn member(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        path: Vec<u8>,
        status: &Stat,
    ) -> io::Result<()> {
        match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => self.file(folder, name, path),
            FileType::Directory => self.folder(folder, name, path, status),
            FileType::Symlink => {
                let target = match rustix::fs::readlinkat(folder, name, Vec::new()) {
                    Ok(target) => target,
                    Err(errno) if self.levels.is_empty() => return Err(errno.into()),
                    // Gone since it was looked at.
                    Err(rustix::io::Errno::NOENT) => return Ok(()),
                    Err(errno) => {
                        self.miss(&path, errno.into());
                        return Ok(());
                    }
                };
                self.packed.links += 1;
                self.header(&path, EntryType::Symlink, status, 0, Some(target.to_bytes()));
                self.last = Some(path);
                Ok(())
            }
            // Sockets, FIFOs and devices mean nothing elsewhere.
            _ if self.levels.is_empty() => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is neither a file, a directory nor a link",
            )),
            _ => {
                self.leave_out(path);
                Ok(())
            }
        }
    }

    fn file(&mut self, folder: BorrowedFd<'_>, name: &CStr, path: Vec<u8>) -> io::Result<()> {
        // Without blocking: it may have become a FIFO.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(folder, name, flags, Mode::empty());
        let opened = opened.and_then(|file| rustix::fs::fstat(&file).map(|status| (file, status)));
        let (file, status) = match opened {
            Ok(opened) => opened,
            Err(errno) if self.levels.is_empty() => return Err(errno.into()),
            Err(errno) => {
                self.miss(&path, errno.into());
                return Ok(());
            }
        };
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            self.leave_out(path);
            return Ok(());
        }
        let of_kernel = match self.levels.last() {
            Some(level) => level.of_kernel,
            None => is_of_kernel(&file),
        };
        if of_kernel {
            self.made_up(&file.into(), path, &status);
            return Ok(());
        }
        self.packed.files += 1;
        if status.st_nlink > 1 {
            let identity = (status.st_dev, status.st_ino);
            if let Some(first) = self.links.get(&identity).cloned() {
                self.header(&path, EntryType::Link, &status, 0, Some(&first));
                self.last = Some(path);
                return Ok(());
            }
            if self.links.len() < MAX_LINKS {
                self.links.insert(identity, path.clone());
            }
        }
        let left = u64::try_from(status.st_size).unwrap_or(0);
        self.header(&path, EntryType::Regular, &status, left, None);
        let padding = usize::try_from(left.next_multiple_of(SECTOR as u64) - left).unwrap_or(0);
        self.content = Some(Content { file: file.into(), path, left, padding });
        Ok(())
    }

    fn folder(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        mut path: Vec<u8>,
        status: &Stat,
    ) -> io::Result<()> {
        path.push(b'/');
        let identity = (status.st_dev, status.st_ino);
        if self.levels.iter().any(|level| level.identity == identity) {
            // A folder that is mounted into itself.
            return Ok(());
        }
        self.header(&path, EntryType::Directory, status, 0, None);
        self.last = Some(path.clone());
        if self.levels.len() >= MAX_DEPTH {
            self.skip(&path, io::Error::other("too deep"));
            return Ok(());
        }
        match Level::open(parent, name, path.clone(), self.levels.last()) {
            Ok(Some(level)) => self.levels.push(level),
            Ok(None) => self.leave_out(path),
            Err(error) => self.miss(&path, error),
        }
        Ok(())
    }

    /// A file that the kernel makes up: how long it is is known when it has been read.
    fn made_up(&mut self, file: &File, path: Vec<u8>, status: &Stat) {
        let mut content = Vec::new();
        let read = file.take(MADE_UP + 1).read_to_end(&mut content);
        if read.is_err() || content.len() as u64 > MADE_UP {
            self.leave_out(path);
            return;
        }
        self.packed.files += 1;
        self.packed.bytes += content.len() as u64;
        self.header(&path, EntryType::Regular, status, content.len() as u64, None);
        self.buffer.append(&mut content);
        self.buffer.resize(self.buffer.len().next_multiple_of(SECTOR), 0);
        self.last = Some(path);
    }

    /// Leaves a record of what is not in the archive by intent.
    fn leave_out(&mut self, path: Vec<u8>) {
        let mut records = Vec::new();
        record(&mut records, KEY, &path);
        self.extension(EntryType::XGlobalHeader, records);
        self.packed.left_out.add(&path);
        self.last = Some(path);
    }

    /// What cannot be read: of the kernel's files nobody expects more.
    fn miss(&mut self, path: &[u8], reason: io::Error) {
        if self.levels.last().is_some_and(|level| level.of_kernel) {
            self.leave_out(path.to_vec());
        } else {
            self.skip(path, reason);
        }
    }

    /// Reads on in the file under way, as far as the block has room.
    fn read_content(&mut self) -> io::Result<()> {
        let Some(content) = &mut self.content else { return Ok(()) };
        let room = (BLOCK - self.buffer.len()) as u64;
        let wanted = content.left.min(room);
        let read = content.file.by_ref().take(wanted).read_to_end(&mut self.buffer)? as u64;
        content.left -= read;
        self.packed.bytes += read;
        if read < wanted {
            // It has become shorter since its header was written.
            let missing = usize::try_from(content.left.min(room - read)).unwrap_or(0);
            self.buffer.resize(self.buffer.len() + missing, 0);
            content.left -= missing as u64;
            let (path, reason) = (content.path.clone(), io::ErrorKind::UnexpectedEof);
            self.skip(&path, reason.into());
        }
        if let Some(content) = self.content.take_if(|content| content.left == 0) {
            self.buffer.resize(self.buffer.len() + content.padding, 0);
            self.last = Some(content.path);
        }
        Ok(())
    }

    fn skip(&mut self, path: &[u8], reason: io::Error) {
        let path = PathBuf::from(OsStr::from_bytes(path));
        let known = self.skipped.last().is_some_and(|last| last.path == path);
        if self.skipped.len() < MAX_SKIPPED && !known {
            self.skipped.push(Skipped { path, reason });
        }
    }

    /// Opens the folders on the way to a member, as if all before it had been visited.
    fn go_behind(&mut self, root: Level, member: &[u8]) -> io::Result<()> {
        self.levels.push(root);
        if member == b"./" {
            return Ok(());
        }
        let mut parts =
            member.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            let Some(level) = self.levels.last_mut() else { return Ok(()) };
            // The next one is last: what is left is what sorts behind this part.
            level.names.retain(|name| name.to_bytes() > part);
            let inside = parts.peek().is_some() || member.ends_with(b"/");
            let Ok(name) = CString::new(part) else { return Ok(()) };
            if !inside || self.levels.len() >= MAX_DEPTH {
                return Ok(());
            }
            let Some(parent) = self.levels.last() else { return Ok(()) };
            let path = [&parent.prefix[..], part, b"/"].concat();
            match Level::open(parent.folder.as_fd(), &name, path, Some(parent)) {
                Ok(Some(level)) => self.levels.push(level),
                // It is gone, and what was in it, or was left out.
                Ok(None) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn header(
        &mut self,
        path: &[u8],
        kind: EntryType,
        status: &Stat,
        size: u64,
        link: Option<&[u8]>,
    ) {
        let mut records = Vec::new();
        let mut header = Header::new_ustar();
        set_name(&mut header.as_old_mut().name, path, b"path", &mut records);
        if let Some(link) = link {
            set_name(&mut header.as_old_mut().linkname, link, b"linkpath", &mut records);
        }
        header.set_entry_type(kind);
        header.set_mode(status.st_mode & 0o7777);
        set_number(status.st_uid.into(), OCTAL_7, b"uid", &mut records, |n| header.set_uid(n));
        set_number(status.st_gid.into(), OCTAL_7, b"gid", &mut records, |n| header.set_gid(n));
        // In the form of GNU's where it is too large for octal digits: unlike an extended record it
        // is where every reader looks.
        header.set_size(size);
        header.set_mtime(u64::try_from(status.st_mtime).unwrap_or(0).min(OCTAL_11));
        let fraction = i64::try_from(status.st_mtime_nsec).unwrap_or(0);
        if fraction != 0
            || status.st_mtime < 0
            || u64::try_from(status.st_mtime).is_ok_and(|t| t > OCTAL_11)
        {
            record(&mut records, b"mtime", time(status.st_mtime, fraction).as_bytes());
        }
        if !records.is_empty() {
            self.extension(EntryType::XHeader, records);
        }
        header.set_cksum();
        self.buffer.extend_from_slice(header.as_bytes());
    }

    /// A header of records: for the next member, or for all.
    fn extension(&mut self, kind: EntryType, mut records: Vec<u8>) {
        let mut header = Header::new_ustar();
        set_name(&mut header.as_old_mut().name, b"./PaxHeaders/member", b"", &mut Vec::new());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.buffer.extend_from_slice(header.as_bytes());
        records.resize(records.len().next_multiple_of(SECTOR), 0);
        self.buffer.append(&mut records);
    }
}

/// The largest number of seven octal digits.
const OCTAL_7: u64 = 0o7_777_777;

/// The largest number of eleven octal digits.
const OCTAL_11: u64 = 0o77_777_777_777;

/// A name goes into the header, or, if it is too long for that, into a record, and its beginning
/// into the header.
fn set_name(field: &mut [u8; 100], name: &[u8], key: &[u8], records: &mut Vec<u8>) {
    let fits = name.len().min(field.len());
    field[..fits].copy_from_slice(&name[..fits]);
    if fits < name.len() {
        record(records, key, name);
    }
}

fn set_number(number: u64, most: u64, key: &[u8], records: &mut Vec<u8>, set: impl FnOnce(u64)) {
    set(number.min(most));
    if number > most {
        record(records, key, number.to_string().as_bytes());
    }
}

/// Adds `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length += 1;
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Seconds with a fraction, as pax writes them: before 1970 the fraction counts the other way.
fn time(seconds: i64, nanoseconds: i64) -> String {
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    let (seconds, nanoseconds) = (seconds + 1, 1_000_000_000 - nanoseconds);
    format!("-{}.{nanoseconds:09}", -seconds)
}

impl Root {
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A slash at the end of a path follows a link before it.
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(folder) => {
                let status = rustix::fs::fstat(&folder)?;
                let of_kernel = is_of_kernel(&folder);
                let level = Level::of(folder, Vec::new(), &status, of_kernel)?;
                return Ok(Self::Folder(level, Box::new(status)));
            }
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {}
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

impl Level {
    /// Opens a folder of `above`. `None` where a file system of the kernel's begins, which is not the
    /// one that was asked for.
    fn open(
        parent: BorrowedFd<'_>,
        name: &CStr,
        prefix: Vec<u8>,
        above: Option<&Self>,
    ) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        let status = rustix::fs::fstat(&folder)?;
        let of_kernel = match above {
            Some(above) if above.identity.0 == status.st_dev => above.of_kernel,
            _ if is_of_kernel(&folder) => return Ok(None),
            _ => false,
        };
        Self::of(folder, prefix, &status, of_kernel).map(Some)
    }

    fn of(folder: OwnedFd, prefix: Vec<u8>, status: &Stat, of_kernel: bool) -> io::Result<Self> {
        let mut names = Vec::new();
        let mut entries = Dir::read_from(&folder)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        let identity = (status.st_dev, status.st_ino);
        Ok(Self { folder, identity, of_kernel, prefix, names })
    }
}

/// A path as printable ASCII.
fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for &byte in path {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut path = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            path.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            path.push(byte);
        }
    }
    Some(path)
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
