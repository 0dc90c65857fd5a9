//! Where a read's bytes come from: a file, or a folder as an archive.
//!
//! Owns finding out which, and finding the place again at which an earlier reply was cut. All
//! of it blocks.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use metaservice_archive::Packer;
use metaservice_protocol::transfer::Digest;
use metaservice_protocol::{Failure, FailureCode, FileHead, Form, ReadOptions, Resume};
use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::failure;
use crate::files::blocks::Pool;
use crate::files::list::mtime_ns;

/// How many bytes lie between two places at which a folder can be resumed.
const MARK_EVERY: u64 = 1024 * 1024;

/// Bytes to be sent, and what they are.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) head: FileHead,
    path: PathBuf,
    content: Content,
    /// What was read behind the place of a resumption.
    rest: Option<Block>,
}

#[derive(Debug)]
enum Content {
    /// How much of the file is still to be read; `None` for as far as it goes.
    File(File, Option<u64>, Pool),
    Archive(Box<Packer>),
}

/// The next bytes, and the cursor behind them where there is one.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) bytes: Bytes,
    pub(super) cursor: Option<String>,
}

impl Source {
    /// Opens what the host asks for, at the place from which it wants it.
    pub(super) fn open(path: &Path, options: &ReadOptions) -> Result<Self, Failure> {
        let failed = |error: io::Error| failure(&error, path);
        let follow = options.follow.unwrap_or(options.form != Form::Archive);
        if options.form == Form::Archive && follow {
            let path = std::fs::canonicalize(path).map_err(failed)?;
            let mut source = Self::archive(&path, options.resume.as_ref()).map_err(failed)?;
            if let Some(resume) = &options.resume {
                source.pass_over(resume)?;
            }
            return Ok(source);
        }
        let links = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | links, Mode::empty());
        let status =
            place.and_then(|place| rustix::fs::fstat(&place).map(|status| (place, status)));
        let kind = status.as_ref().ok().map(|(_, status)| FileType::from_raw_mode(status.st_mode));
        let mut source = match (options.form, kind, status) {
            (Form::File | Form::Any, Some(FileType::RegularFile), Ok((place, status))) => {
                // The very file that was looked at, and without blocking: a few files of
                // /proc have no end.
                let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
                let file = File::options()
                    .read(true)
                    .custom_flags(flags.bits().cast_signed())
                    .open(format!("/proc/self/fd/{}", place.as_raw_fd()))
                    .map_err(failed)?;
                Self::file(path, file, &status, options).map_err(failed)?
            }
            (Form::File, Some(_), _) => {
                let message = format!("{} is not a plain file", path.display());
                return Err(Failure::new(FailureCode::NotAFile, message));
            }
            // A link that is to be followed and leads to nothing.
            (Form::Any, None, status @ Err(_)) if options.follow == Some(true) => {
                let error = status.err().map_or(io::ErrorKind::NotFound.into(), io::Error::from);
                return Err(failed(error));
            }
            // A folder behind a link is that folder, unless the link itself is wanted.
            (Form::Any, Some(FileType::Directory), _) => {
                Self::archive(&path.join(""), options.resume.as_ref()).map_err(failed)?
            }
            (Form::Any | Form::Archive, ..) => {
                Self::archive(path, options.resume.as_ref()).map_err(failed)?
            }
            (Form::File, None, status) => {
                let error = status.err().map_or(io::ErrorKind::NotFound.into(), io::Error::from);
                return Err(failed(error));
            }
        };
        if let Some(resume) = &options.resume {
            source.pass_over(resume)?;
        }
        Ok(source)
    }

    fn file(path: &Path, mut file: File, status: &Stat, options: &ReadOptions) -> io::Result<Self> {
        let size = u64::try_from(status.st_size).unwrap_or(0);
        // Files that the kernel makes up say that they are empty.
        let made_up = size == 0 && file.read_at(&mut [0], 0).is_ok_and(|count| count > 0);
        let rest = (!made_up).then(|| size.saturating_sub(options.offset));
        let left = match (rest, options.length) {
            (Some(rest), Some(length)) => Some(rest.min(length)),
            (rest, length) => rest.or(length),
        };
        if options.offset > 0 {
            file.seek(SeekFrom::Start(options.offset))?;
        }
        let head = FileHead {
            form: Form::File,
            size: (!made_up).then_some(size),
            mode: status.st_mode & 0o7777,
            mtime_ns: mtime_ns(status),
            link: false,
        };
        let content = Content::File(file, left, Pool::default());
        Ok(Self { head, path: path.to_owned(), content, rest: None })
    }

    fn archive(path: &Path, resume: Option<&Resume>) -> io::Result<Self> {
        let status = rustix::fs::lstat(path)?;
        let cursor = resume.map_or("", |resume| resume.cursor.as_str());
        let mut packer = match cursor {
            "" => Packer::open(path)?,
            cursor => Packer::resume(path, cursor)?,
        };
        packer.mark_every(MARK_EVERY);
        let head = FileHead {
            form: Form::Archive,
            size: None,
            mode: status.st_mode & 0o7777,
            mtime_ns: mtime_ns(&status),
            link: FileType::from_raw_mode(status.st_mode) == FileType::Symlink,
        };
        let content = Content::Archive(Box::new(packer));
        Ok(Self { head, path: path.to_owned(), content, rest: None })
    }

    /// Reads what the host has already, and makes sure that it is that.
    fn pass_over(&mut self, resume: &Resume) -> Result<(), Failure> {
        let changed = || {
            let message = format!("{} is not what it was before the cut", self.path.display());
            Failure::new(FailureCode::Changed, message)
        };
        let changed = changed();
        let mut digest = Digest::new();
        while digest.length() < resume.skip {
            let Some(Block { mut bytes, cursor }) = self.next()? else { return Err(changed) };
            let left = resume.skip - digest.length();
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            digest.update(&bytes.split_to(wanted));
            if !bytes.is_empty() {
                self.rest = Some(Block { bytes, cursor });
            }
        }
        if digest.value() == resume.digest { Ok(()) } else { Err(changed) }
    }

    /// The next bytes, one block at most; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Block>, Failure> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        let failed = |error: io::Error| failure(&error, &self.path);
        match &mut self.content {
            Content::Archive(packer) => {
                let block = packer.next_block().map_err(failed)?;
                Ok(block.map(|block| Block { bytes: block.bytes.into(), cursor: block.cursor }))
            }
            Content::File(file, left, pool) => {
                let bytes = pool.read(file, *left).map_err(failed)?;
                if bytes.is_empty() {
                    return self.at_the_end();
                }
                *left = left.map(|left| left - bytes.len() as u64);
                Ok(Some(Block { bytes, cursor: None }))
            }
        }
    }

    fn at_the_end(&self) -> Result<Option<Block>, Failure> {
        match &self.content {
            Content::File(_, Some(1..), _) if self.head.size.is_some() => {
                let message = format!("{} became shorter while it was read", self.path.display());
                Err(Failure::new(FailureCode::Changed, message))
            }
            _ => Ok(None),
        }
    }

    /// What an archive had to leave out although it would be missed.
    pub(super) fn left_out(&self) -> Option<Failure> {
        let Content::Archive(packer) = &self.content else { return None };
        let missing = packer.skipped().first()?;
        Some(failure(&missing.reason, &self.path.join(&missing.path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(form: Form) -> ReadOptions {
        ReadOptions { form, offset: 0, length: None, compress: false, follow: None, resume: None }
    }

    fn read(path: &Path, options: &ReadOptions) -> Result<(FileHead, Vec<u8>), Failure> {
        let mut source = Source::open(path, options)?;
        let mut all = Vec::new();
        while let Some(block) = source.next()? {
            all.extend_from_slice(&block.bytes);
        }
        Ok((source.head, all))
    }

    #[test]
    fn a_file_is_read_in_part_and_from_a_cut_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let content: Vec<u8> = (0..=255).cycle().take(700_000).collect();
        std::fs::write(&path, &content).unwrap();
        let (head, all) = read(&path, &options(Form::Any)).unwrap();
        assert_eq!((head.form, head.size), (Form::File, Some(700_000)));
        assert!(all == content);
        let part = ReadOptions { offset: 10, length: Some(300_000), ..options(Form::File) };
        assert!(read(&path, &part).unwrap().1 == content[10..300_010]);
        let beyond = ReadOptions { offset: 800_000, ..options(Form::File) };
        assert!(read(&path, &beyond).unwrap().1.is_empty());

        let mut digest = Digest::new();
        digest.update(&content[10..290_010]);
        let resume = Resume { cursor: String::new(), skip: 290_000, digest: digest.value() };
        let rest = ReadOptions { resume: Some(resume.clone()), ..part.clone() };
        assert!(read(&path, &rest).unwrap().1 == content[290_010..300_010]);
        let resume = Resume { digest: resume.digest ^ 1, ..resume };
        let other = ReadOptions { resume: Some(resume), ..part };
        assert_eq!(read(&path, &other).unwrap_err().code, FailureCode::Changed);
    }

    #[test]
    fn a_folder_is_read_from_a_cut_on() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..40 {
            std::fs::write(folder.path().join(format!("f{n:02}")), vec![n; 100_000]).unwrap();
        }
        let (head, all) = read(folder.path(), &options(Form::Any)).unwrap();
        assert_eq!((head.form, head.size), (Form::Archive, None));
        let mut source = Source::open(folder.path(), &options(Form::Archive)).unwrap();
        let (mut done, mut cursors) = (0, Vec::new());
        while let Some(block) = source.next().unwrap() {
            done += block.bytes.len();
            cursors.extend(block.cursor.map(|cursor| (cursor, done)));
        }
        assert!(cursors.len() >= 3, "{cursors:?}");
        for (cursor, at) in cursors {
            let most = all.len() - at;
            for skip in [0, 1, 777_777.min(most), most] {
                let mut digest = Digest::new();
                digest.update(&all[at..at + skip]);
                let (skip, digest) = (skip as u64, digest.value());
                let resume = Some(Resume { cursor: cursor.clone(), skip, digest });
                let rest = ReadOptions { resume, ..options(Form::Archive) };
                let from = at + usize::try_from(skip).unwrap();
                assert!(read(folder.path(), &rest).unwrap().1 == all[from..], "{cursor} {skip}");
            }
        }
    }

    #[test]
    fn what_is_there_decides() {
        let folder = tempfile::tempdir().unwrap();
        let code = |path: &Path, form| read(path, &options(form)).map(drop).unwrap_err().code;
        assert_eq!(code(folder.path(), Form::File), FailureCode::NotAFile);
        assert_eq!(code(Path::new("/dev/zero"), Form::File), FailureCode::NotAFile);
        for form in [Form::File, Form::Any, Form::Archive] {
            assert_eq!(code(&folder.path().join("none"), form), FailureCode::NotFound);
        }
        let (head, version) = read(Path::new("/proc/version"), &options(Form::Any)).unwrap();
        assert!(head.size.is_none() && version.starts_with(b"Linux"));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let (_, behind) = read(&link, &options(Form::Any)).unwrap();
        let (_, itself) = read(&link, &options(Form::Archive)).unwrap();
        let names = |archive: &[u8], name: &[u8]| archive.chunks(512).any(|h| h.starts_with(name));
        assert!(names(&behind, b"./\0") && !names(&itself, b"./\0"));
        assert!(names(&itself, b"link\0"));
        // As the host wants it, for links to files and to nothing too.
        std::fs::write(folder.path().join("file"), "content").unwrap();
        for (link, target) in [("to file", "file"), ("to nothing", "none"), ("to folder", ".")] {
            let link = folder.path().join(link);
            std::os::unix::fs::symlink(target, &link).unwrap();
            for form in [Form::Any, Form::Archive] {
                let itself = ReadOptions { follow: Some(false), ..options(form) };
                let (head, archive) = read(&link, &itself).unwrap();
                assert!(head.link && head.form == Form::Archive);
                assert!(names(&archive, b"to "));
            }
        }
        let followed = ReadOptions { follow: Some(true), ..options(Form::Archive) };
        let (head, archive) = read(&folder.path().join("to file"), &followed).unwrap();
        assert!(!head.link && names(&archive, b"file\0"));
        let plain = ReadOptions { follow: Some(false), ..options(Form::Any) };
        assert_eq!(read(&folder.path().join("file"), &plain).unwrap().1, b"content");
    }
}
