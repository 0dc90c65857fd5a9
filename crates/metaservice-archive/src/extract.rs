//! Members written below the destination in the order of the stream.
//!
//! A file gets a temporary name beside its place and is renamed when it is whole, so a cut leaves
//! no half a file under a real name, and nothing that exists is ever written through. Folders get
//! their modes and times at the end: until then they must be writable, and their contents change.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType, Header};

use crate::member::{Error, Extension, Reason};
use crate::place::{Temporary, components, folder, settable};
use crate::sparse::SparseWriter;
use crate::special::LeftOut;

/// How much of a file is read at once.
const READ: usize = 256 * 1024;

/// What an archive may not exceed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Headers in the archive, those of extensions included.
    pub members: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Bytes of the names of all folders together, which stay in memory until the end.
    pub folder_names: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { members: 4 << 20, bytes: u64::MAX, folder_names: 64 << 20 }
    }
}

/// How to extract.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Give members the owner that the archive says; the process must be allowed to.
    pub keep_owner: bool,
    /// The destination was made for this archive: it gets the mode and times of the archive's
    /// `./`. One that was there before keeps its own, as every folder in it does.
    pub new: bool,
    /// Keep set-user-id and set-group-id bits; the sticky bit is always kept.
    pub keep_set_id: bool,
    /// What the archive may not exceed.
    pub limits: Limits,
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Plain files.
    pub files: u64,
    /// Folders, those that existed included.
    pub folders: u64,
    /// Symbolic and hard links.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What the archive's maker has left out and said so.
    pub left_out: LeftOut,
}

/// Writes an archive below one folder.
#[derive(Debug)]
pub struct Extractor {
    root: OwnedFd,
    options: Options,
}

impl Counts {
    fn left_out_more(&mut self, more: &LeftOut) {
        let unnamed = more.count - more.first.len() as u64;
        more.first.iter().for_each(|path| self.left_out.add(path.as_os_str().as_bytes()));
        self.left_out.count = self.left_out.count.saturating_add(unnamed);
    }
}

/// A stream, and whether its end was met.
struct Watched<R> {
    from: R,
    over: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.over |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

impl<R: Read> Watched<R> {
    /// The archive is over by its own word, and nothing but zeros are behind it.
    fn end(mut self) -> Result<(), Reason> {
        if self.over {
            return Err(Reason::Unended);
        }
        let mut block = vec![0; READ];
        loop {
            match self.from.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(count) if block[..count].iter().any(|byte| *byte != 0) => {
                    return Err(Reason::Behind);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

struct Attributes {
    mode: Mode,
    owner: Option<(Uid, Gid)>,
    times: Timestamps,
}

impl Extractor {
    /// Opens the destination, which must exist; links in `path` itself are followed.
    ///
    /// # Errors
    /// It is not a folder, or cannot be opened.
    pub fn open(path: &Path, options: Options) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::within(fs::open(path, flags, Mode::empty())?, options))
    }

    /// The destination is a folder that is open already.
    #[must_use]
    pub const fn within(root: OwnedFd, options: Options) -> Self {
        Self { root, options }
    }

    /// Writes every member and reads `from` to its end. Blocks; whatever `from` returns as an error
    /// ends it.
    ///
    /// # Errors
    /// The first member that is refused; those before it stay. An archive without its end, or with
    /// anything but zeros behind it, is an error when all members have been written.
    pub fn extract(self, from: impl Read) -> Result<Counts, Error> {
        self.extract_observed(from, |_| {})
    }

    /// As [`extract`](Self::extract); `observe` is told how many bytes of files have been written so
    /// far, and as often as they are.
    ///
    /// # Errors
    /// As [`extract`](Self::extract).
    pub fn extract_observed(
        self,
        from: impl Read,
        mut observe: impl FnMut(u64),
    ) -> Result<Counts, Error> {
        let mut archive = Archive::new(Watched { from, over: false });
        let entries = archive.entries().map_err(unnamed)?.raw(true);
        let mut extraction = Extraction::new(self);
        let mut extension = Extension::default();
        for (number, entry) in (1_u64..).zip(entries) {
            let mut entry = entry.map_err(unnamed)?;
            if number > extraction.extractor.options.limits.members {
                return Err(unnamed(Reason::Limit));
            }
            if extension.take(&mut entry).map_err(unnamed)? {
                continue;
            }
            let said = std::mem::take(&mut extension);
            let name = said.path.clone().unwrap_or_else(|| entry.header().path_bytes().into());
            extraction.counts.left_out_more(&said.left_out);
            let written = extraction.member(&name, &said, &mut entry, &mut observe);
            written.map_err(|reason| named(&name, reason))?;
        }
        extraction.counts.left_out_more(&extension.left_out);
        archive.into_inner().end().map_err(unnamed)?;
        extraction.finish()
    }

    fn attributes(&self, header: &Header, said: &Extension) -> Result<Attributes, Reason> {
        let corrupt = |_| Reason::Corrupt;
        let mask = if self.options.keep_set_id { 0o7777 } else { 0o1777 };
        let mode = Mode::from_raw_mode(header.mode().map_err(corrupt)? & mask);
        let (seconds, nanos) = match said.mtime {
            Some(time) => time,
            None => (header.mtime().map_err(corrupt)?.try_into().unwrap_or(0), 0),
        };
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        let owner = if self.options.keep_owner {
            // The highest number means "leave it" to the kernel.
            let id = |said: Option<u64>, plain: io::Result<u64>| {
                let id = said.map_or(plain, Ok).map_err(corrupt)?;
                u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(Reason::Corrupt)
            };
            let (uid, gid) = (id(said.uid, header.uid())?, id(said.gid, header.gid())?);
            Some((Uid::from_raw(uid), Gid::from_raw(gid)))
        } else {
            None
        };
        Ok(Attributes { mode, owner, times })
    }

    /// A hard link to what is already below the destination.
    fn hard_link(&self, parent: &OwnedFd, name: &[u8], target: &[u8]) -> Result<(), Reason> {
        let target = components(target)?;
        let (last, parents) = target.split_last().ok_or(Reason::Name)?;
        let from = folder(&self.root, parents, None)?;
        let (temporary, ()) = Temporary::make(parent, |temporary| {
            fs::linkat(&from, *last, parent, temporary, AtFlags::empty())
        })?;
        Ok(temporary.put(name)?)
    }
}

/// An archive on its way into the destination.
struct Extraction {
    extractor: Extractor,
    counts: Counts,
    /// What the folders are to be like in the end.
    folders: BTreeMap<Vec<u8>, Attributes>,
    folder_names: usize,
}

impl Extraction {
    fn new(extractor: Extractor) -> Self {
        Self { extractor, counts: Counts::default(), folders: BTreeMap::new(), folder_names: 0 }
    }

    fn member<R: Read>(
        &mut self,
        name: &[u8],
        said: &Extension,
        entry: &mut Entry<'_, R>,
        observe: &mut impl FnMut(u64),
    ) -> Result<(), Reason> {
        let parts = components(name)?;
        let attributes = self.extractor.attributes(entry.header(), said)?;
        if said.size.is_some_and(|said| said != entry.size()) {
            return Err(Reason::Corrupt);
        }
        if entry.header().entry_type() == EntryType::Directory {
            return self.folder(&parts, attributes);
        }
        let (last, parents) = parts.split_last().ok_or(Reason::Name)?;
        // A trailing slash or dot names a folder.
        if !name.ends_with(last) {
            return Err(Reason::Name);
        }
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let size = entry.size();
                let before = self.counts.bytes;
                self.counts.bytes = before.saturating_add(size);
                if self.counts.bytes > self.extractor.options.limits.bytes {
                    return Err(Reason::Limit);
                }
                let observe = |written| observe(before.saturating_add(written));
                file(&self.parent(parents)?, last, (entry, size), &attributes, observe)?;
                self.counts.files += 1;
            }
            EntryType::Symlink | EntryType::Link => {
                let target = said.link.clone();
                let target = target
                    .or_else(|| entry.header().link_name_bytes().map(Into::into))
                    .ok_or(Reason::Corrupt)?;
                let parent = self.parent(parents)?;
                if kind == EntryType::Symlink {
                    symlink(&parent, last, &target, &attributes)?;
                } else {
                    self.extractor.hard_link(&parent, last, &target)?;
                }
                self.counts.links += 1;
            }
            _ => return Err(Reason::Kind),
        }
        Ok(())
    }

    fn folder(&mut self, parts: &[&[u8]], attributes: Attributes) -> Result<(), Reason> {
        if let Some((_, parents)) = parts.split_last() {
            self.parent(parents)?;
        }
        let is_new = match parts.split_last() {
            None => self.extractor.options.new,
            Some((last, parents)) => {
                // Nobody else's until it is as the archive wants it.
                let parent = folder(&self.extractor.root, parents, None)?;
                let made = fs::mkdirat(&parent, *last, Mode::RWXU);
                if made != Err(Errno::EXIST) {
                    made?;
                }
                // A folder, and not a link to one.
                folder(&parent, &[last], None)?;
                made.is_ok()
            }
        };
        self.counts.folders += 1;
        let name = parts.join(&b'/');
        // One that this archive made earlier counts as new.
        if !is_new && !self.folders.contains_key(&name) {
            return Ok(());
        }
        self.folder_names = self.folder_names.saturating_add(name.len());
        if self.folder_names > self.extractor.options.limits.folder_names {
            return Err(Reason::Limit);
        }
        self.folders.insert(name, attributes);
        Ok(())
    }

    /// The folder of a member; what the archive does not have of it is made as `mkdir -p` would.
    fn parent(&self, parts: &[&[u8]]) -> Result<OwnedFd, Errno> {
        folder(&self.extractor.root, parts, Some(Mode::from_raw_mode(0o777)))
    }

    fn finish(self) -> Result<Counts, Error> {
        // Children before their parents: a parent's mode may close the way.
        for (name, attributes) in self.folders.iter().rev() {
            let finish = || {
                let parts: Vec<&[u8]> =
                    name.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
                set(&settable(&folder(&self.extractor.root, &parts, None)?)?, attributes)
            };
            finish().map_err(|reason| named(name, reason))?;
        }
        Ok(self.counts)
    }
}

fn named(member: &[u8], reason: Reason) -> Error {
    Error { member: member.to_vec(), reason }
}

fn unnamed(reason: impl Into<Reason>) -> Error {
    named(b"", reason.into())
}

/// Owner first: a change of owner clears bits of the mode.
fn set(file: &OwnedFd, attributes: &Attributes) -> Result<(), Reason> {
    if let Some((uid, gid)) = attributes.owner {
        fs::fchown(file, Some(uid), Some(gid))?;
    }
    fs::fchmod(file, attributes.mode)?;
    Ok(fs::futimens(file, &attributes.times)?)
}

fn file(
    parent: &OwnedFd,
    name: &[u8],
    (content, size): (&mut impl Read, u64),
    attributes: &Attributes,
    mut observe: impl FnMut(u64),
) -> Result<(), Reason> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (temporary, file) = Temporary::make(parent, |temporary| {
        fs::openat(parent, temporary, flags, Mode::RUSR | Mode::WUSR)
    })?;
    let file = File::from(file);
    let mut writer = SparseWriter::default();
    let mut block = Vec::with_capacity(usize::try_from(size).unwrap_or(READ).min(READ));
    loop {
        block.clear();
        // Full blocks, of which the zeros are seen.
        content.by_ref().take(READ as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            break;
        }
        writer.write(&file, &block)?;
        observe(writer.length());
    }
    if writer.length() != size {
        return Err(Reason::Corrupt);
    }
    writer.finish(&file)?;
    set(&file.into(), attributes)?;
    Ok(temporary.put(name)?)
}

fn symlink(
    parent: &OwnedFd,
    name: &[u8],
    target: &[u8],
    attributes: &Attributes,
) -> Result<(), Reason> {
    let (temporary, ()) =
        Temporary::make(parent, |temporary| fs::symlinkat(target, parent, temporary))?;
    let (path, nofollow) = (temporary.name(), AtFlags::SYMLINK_NOFOLLOW);
    if let Some((uid, gid)) = attributes.owner {
        fs::chownat(parent, path, Some(uid), Some(gid), nofollow)?;
    }
    fs::utimensat(parent, path, &attributes.times, nofollow)?;
    Ok(temporary.put(name)?)
}
