//! A tar stream, which may be hostile, as a directory.
//!
//! Owns what is written below the destination, in the order of the stream. A file is
//! written under a temporary name in its directory, and is renamed when it is complete. So a cut
//! leaves no incomplete file under a real name, and an existing file is replaced, not overwritten.
//! Directories get their modes and times at the end: until then they must be writable, and their
//! contents change.

mod extension;
mod place;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType, Header};

use self::extension::Extension;
use self::place::{Temporary, components, directory, settable};
use crate::error::{ExtractCause, ExtractError};
use crate::left_out::LeftOut;
use crate::sparse::SparseWriter;

/// How many bytes of a file are read at once.
const READ: usize = 256 * 1024;

/// The limits of an archive.
///
/// ```
/// use metaservice_archive::{ExtractLimits, ExtractOptions};
///
/// let mut options = ExtractOptions::default();
/// options.limits.bytes = 1 << 30;
/// assert_eq!(options.limits.members, ExtractLimits::default().members);
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ExtractLimits {
    /// The maximum number of headers, including extension headers. The default is 4 Mi.
    pub members: u64,
    /// The maximum size of all files together, in bytes. The default is no limit.
    pub bytes: u64,
    /// The maximum length of the names of all directories together, in bytes. They stay in memory
    /// until the end. The default is 64 MiB.
    pub directory_names: usize,
}

impl Default for ExtractLimits {
    fn default() -> Self {
        Self { members: 4 << 20, bytes: u64::MAX, directory_names: 64 << 20 }
    }
}

/// How to extract an archive.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct ExtractOptions {
    /// Give members their owners in the archive. The process needs the permission.
    pub keep_owner: bool,
    /// The destination was made for this archive: it gets the mode and times of the archive's `./`.
    /// Otherwise the destination, and each directory that was in it, keeps its own.
    pub new: bool,
    /// Keep set-user-id and set-group-id bits. The sticky bit is always kept.
    pub keep_set_id: bool,
    /// The limits of the archive.
    pub limits: ExtractLimits,
}

/// What was extracted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extracted {
    /// Plain files.
    pub files: u64,
    /// Directories, including those that existed.
    pub directories: u64,
    /// Symbolic and hard links.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What the packer reports as left out.
    pub left_out: LeftOut,
}

/// Extracts an archive below one directory.
///
/// ```
/// use metaservice_archive::{ExtractOptions, Extractor};
///
/// let destination = tempfile::tempdir()?;
/// let extractor = Extractor::open(destination.path(), ExtractOptions::default())?;
/// let empty_archive = [0; 1024];
/// assert_eq!(extractor.extract(&empty_archive[..])?.files, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Extractor {
    root: OwnedFd,
    options: ExtractOptions,
}

impl Extracted {
    fn add_left_out(&mut self, more: &LeftOut) {
        let unnamed = more.count - more.first.len() as u64;
        more.first.iter().for_each(|path| self.left_out.add(path.as_os_str().as_bytes()));
        self.left_out.count = self.left_out.count.saturating_add(unnamed);
    }
}

/// A stream that knows whether it has ended.
struct Input<R> {
    from: R,
    ended: bool,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

impl<R: Read> Input<R> {
    /// Reads to the end of the stream, after the end of the archive. It contains zeros only.
    fn finish(mut self) -> Result<(), ExtractCause> {
        if self.ended {
            return Err(ExtractCause::Unended);
        }
        let mut block = vec![0; READ];
        loop {
            match self.from.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(count) if block[..count].iter().any(|byte| *byte != 0) => {
                    return Err(ExtractCause::AfterEnd);
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
    /// Opens the destination, which must exist. Links in `path` are followed.
    ///
    /// # Errors
    /// `path` is not a directory, or cannot be opened.
    pub fn open(path: &Path, options: ExtractOptions) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::within(fs::open(path, flags, Mode::empty())?, options))
    }

    /// Uses an open directory as destination.
    #[must_use]
    pub const fn within(root: OwnedFd, options: ExtractOptions) -> Self {
        Self { root, options }
    }

    /// Extracts all members, and reads `from` to its end. Blocks.
    ///
    /// # Errors
    /// A member is refused, or `from` fails: the members before it stay. After the last member, the
    /// archive has no end, or more than zeros after it: all members stay.
    pub fn extract(self, from: impl Read) -> Result<Extracted, ExtractError> {
        self.extract_observed(from, |_| {})
    }

    /// As [`extract`](Self::extract). After each write, it calls `observe` with the number of bytes
    /// of files so far.
    ///
    /// # Errors
    /// As [`extract`](Self::extract).
    pub fn extract_observed(
        self,
        from: impl Read,
        mut observe: impl FnMut(u64),
    ) -> Result<Extracted, ExtractError> {
        let mut archive = Archive::new(Input { from, ended: false });
        let entries = archive.entries().map_err(ExtractError::unnamed)?.raw(true);
        let mut extraction = Extraction::new(self);
        let mut extension = Extension::default();
        for (number, entry) in (1_u64..).zip(entries) {
            let mut entry = entry.map_err(ExtractError::unnamed)?;
            if number > extraction.extractor.options.limits.members {
                return Err(ExtractError::unnamed(ExtractCause::Limit));
            }
            if extension.take(&mut entry).map_err(ExtractError::unnamed)? {
                continue;
            }
            let said = std::mem::take(&mut extension);
            let name = said.path.clone().unwrap_or_else(|| entry.header().path_bytes().into());
            extraction.extracted.add_left_out(&said.left_out);
            let written = extraction.member(&name, &said, &mut entry, &mut observe);
            written.map_err(|cause| ExtractError::of(&name, cause))?;
        }
        extraction.extracted.add_left_out(&extension.left_out);
        archive.into_inner().finish().map_err(ExtractError::unnamed)?;
        extraction.finish()
    }

    fn attributes(&self, header: &Header, said: &Extension) -> Result<Attributes, ExtractCause> {
        let corrupt = |_| ExtractCause::Corrupt;
        let mask = if self.options.keep_set_id { 0o7777 } else { 0o1777 };
        let mode = Mode::from_raw_mode(header.mode().map_err(corrupt)? & mask);
        let (seconds, nanos) = match said.mtime {
            Some(time) => time,
            None => (header.mtime().map_err(corrupt)?.try_into().unwrap_or(0), 0),
        };
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        let owner = if self.options.keep_owner {
            // The highest number means 'unchanged' to the kernel.
            let id = |said: Option<u64>, plain: io::Result<u64>| {
                let id = said.map_or(plain, Ok).map_err(corrupt)?;
                u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(ExtractCause::Corrupt)
            };
            let (uid, gid) = (id(said.uid, header.uid())?, id(said.gid, header.gid())?);
            Some((Uid::from_raw(uid), Gid::from_raw(gid)))
        } else {
            None
        };
        Ok(Attributes { mode, owner, times })
    }

    /// Makes a hard link to a file below the destination.
    fn hard_link(&self, parent: &OwnedFd, name: &[u8], target: &[u8]) -> Result<(), ExtractCause> {
        let target = components(target)?;
        let (last, parents) = target.split_last().ok_or(ExtractCause::Name)?;
        let from = directory(&self.root, parents, None)?;
        let (temporary, ()) = Temporary::make(parent, |temporary| {
            fs::linkat(&from, *last, parent, temporary, AtFlags::empty())
        })?;
        Ok(temporary.put(name)?)
    }
}

/// The extraction of one archive.
struct Extraction {
    extractor: Extractor,
    extracted: Extracted,
    /// The attributes that directories get at the end, by name.
    directories: BTreeMap<Vec<u8>, Attributes>,
    directory_names: usize,
}

impl Extraction {
    fn new(extractor: Extractor) -> Self {
        Self {
            extractor,
            extracted: Extracted::default(),
            directories: BTreeMap::new(),
            directory_names: 0,
        }
    }

    fn member<R: Read>(
        &mut self,
        name: &[u8],
        said: &Extension,
        entry: &mut Entry<'_, R>,
        observe: &mut impl FnMut(u64),
    ) -> Result<(), ExtractCause> {
        let parts = components(name)?;
        let attributes = self.extractor.attributes(entry.header(), said)?;
        if said.size.is_some_and(|said| said != entry.size()) {
            return Err(ExtractCause::Corrupt);
        }
        if entry.header().entry_type() == EntryType::Directory {
            return self.directory(&parts, attributes);
        }
        let (last, parents) = parts.split_last().ok_or(ExtractCause::Name)?;
        // Only a directory can have a slash or a dot at the end.
        if !name.ends_with(last) {
            return Err(ExtractCause::Name);
        }
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let size = entry.size();
                let before = self.extracted.bytes;
                self.extracted.bytes = before.saturating_add(size);
                if self.extracted.bytes > self.extractor.options.limits.bytes {
                    return Err(ExtractCause::Limit);
                }
                let observe = |written| observe(before.saturating_add(written));
                file(&self.parent(parents)?, last, (entry, size), &attributes, observe)?;
                self.extracted.files += 1;
            }
            EntryType::Symlink | EntryType::Link => {
                let target = said.link.clone();
                let target = target
                    .or_else(|| entry.header().link_name_bytes().map(Into::into))
                    .ok_or(ExtractCause::Corrupt)?;
                let parent = self.parent(parents)?;
                if kind == EntryType::Symlink {
                    symlink(&parent, last, &target, &attributes)?;
                } else {
                    self.extractor.hard_link(&parent, last, &target)?;
                }
                self.extracted.links += 1;
            }
            _ => return Err(ExtractCause::Kind),
        }
        Ok(())
    }

    fn directory(&mut self, parts: &[&[u8]], attributes: Attributes) -> Result<(), ExtractCause> {
        if let Some((_, parents)) = parts.split_last() {
            self.parent(parents)?;
        }
        let is_new = match parts.split_last() {
            None => self.extractor.options.new,
            Some((last, parents)) => {
                // For its user alone, until it has its mode.
                let parent = directory(&self.extractor.root, parents, None)?;
                let made = fs::mkdirat(&parent, *last, Mode::RWXU);
                if made != Err(Errno::EXIST) {
                    made?;
                }
                // It is a directory, and not a link to one.
                directory(&parent, &[last], None)?;
                made.is_ok()
            }
        };
        self.extracted.directories += 1;
        let name = parts.join(&b'/');
        // A directory that this archive has made counts as new.
        if !is_new && !self.directories.contains_key(&name) {
            return Ok(());
        }
        self.directory_names = self.directory_names.saturating_add(name.len());
        if self.directory_names > self.extractor.options.limits.directory_names {
            return Err(ExtractCause::Limit);
        }
        self.directories.insert(name, attributes);
        Ok(())
    }

    /// The parent of a member. It makes missing directories as `mkdir -p` does.
    fn parent(&self, parts: &[&[u8]]) -> Result<OwnedFd, Errno> {
        directory(&self.extractor.root, parts, Some(Mode::from_raw_mode(0o777)))
    }

    fn finish(self) -> Result<Extracted, ExtractError> {
        // Children first: the mode of a parent may lock them.
        for (name, attributes) in self.directories.iter().rev() {
            let finish = || {
                let parts: Vec<&[u8]> =
                    name.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
                set(&settable(&directory(&self.extractor.root, &parts, None)?)?, attributes)
            };
            finish().map_err(|cause| ExtractError::of(name, cause))?;
        }
        Ok(self.extracted)
    }
}

/// The owner first, because a change of the owner clears bits of the mode.
fn set(file: &OwnedFd, attributes: &Attributes) -> Result<(), ExtractCause> {
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
) -> Result<(), ExtractCause> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (temporary, file) = Temporary::make(parent, |temporary| {
        fs::openat(parent, temporary, flags, Mode::RUSR | Mode::WUSR)
    })?;
    let file = File::from(file);
    let mut writer = SparseWriter::default();
    let mut block = Vec::with_capacity(usize::try_from(size).unwrap_or(READ).min(READ));
    loop {
        block.clear();
        // Full blocks, so that the writer recognizes zeros.
        content.by_ref().take(READ as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            break;
        }
        writer.write(&file, &block)?;
        observe(writer.length());
    }
    if writer.length() != size {
        return Err(ExtractCause::Corrupt);
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
) -> Result<(), ExtractCause> {
    let (temporary, ()) =
        Temporary::make(parent, |temporary| fs::symlinkat(target, parent, temporary))?;
    let (path, nofollow) = (temporary.name(), AtFlags::SYMLINK_NOFOLLOW);
    if let Some((uid, gid)) = attributes.owner {
        fs::chownat(parent, path, Some(uid), Some(gid), nofollow)?;
    }
    fs::utimensat(parent, path, &attributes.times, nofollow)?;
    Ok(temporary.put(name)?)
}
