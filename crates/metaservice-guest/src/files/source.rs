//! The bytes of a read: a file, or a directory as an archive.
//!
//! Owns the decision between the two, and the search for the position at which an earlier reply was
//! cut. All of it blocks.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use metaservice_archive::Packer;
use metaservice_protocol::transfer::Digest;
use metaservice_protocol::{Failure, FailureCode, FileHead, Form, ReadOptions, Resume};
use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::failure;
use super::status::{mtime_ns, open_place};
use crate::system::blocks::BlockPool;

/// How many bytes are between two positions at which an archive can be resumed.
const MARK_INTERVAL: u64 = 1024 * 1024;

/// The bytes to send, and their description.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) head: FileHead,
    path: PathBuf,
    content: Content,
    /// Bytes that were read together with those that the host already has.
    rest: Option<Block>,
}

#[derive(Debug)]
enum Content {
    /// A file, and how many bytes are left to read; `None` is up to its end.
    File(File, Option<u64>, BlockPool),
    Archive(Box<Packer>),
}

/// The next bytes, and the cursor after them if there is one.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) bytes: Bytes,
    pub(super) cursor: Option<String>,
}

impl Source {
    /// Opens the path, at the position from which the host resumes.
    pub(super) fn open(path: &Path, options: &ReadOptions) -> Result<Self, Failure> {
        let failed = |error: io::Error| failure::from_io(&error, path);
        let follow = options.follow.unwrap_or(options.form != Form::Archive);
        let mut source = if options.form == Form::Archive && follow {
            let path = std::fs::canonicalize(path).map_err(failed)?;
            Self::archive(&path, options)?
        } else {
            Self::open_kind(path, options, follow)?
        };
        if let Some(resume) = &options.resume {
            source.skip(resume)?;
        }
        Ok(source)
    }

    /// Opens the path as a file or an archive, by its kind.
    fn open_kind(path: &Path, options: &ReadOptions, follow: bool) -> Result<Self, Failure> {
        let failed = |error: io::Error| failure::from_io(&error, path);
        let links = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | links, Mode::empty());
        let status =
            place.and_then(|place| rustix::fs::fstat(&place).map(|status| (place, status)));
        let kind = status.as_ref().ok().map(|(_, status)| FileType::from_raw_mode(status.st_mode));
        match (options.form, kind, status) {
            (Form::File | Form::Any, Some(FileType::RegularFile), Ok((place, status))) => {
                let file = open_place(&place).map_err(failed)?;
                Self::file(path, file, &status, options).map_err(failed)
            }
            (Form::File, Some(_), _) => {
                let message = format!("{} is not a plain file", path.display());
                Err(Failure::new(FailureCode::NotAFile, message))
            }
            // A link that is to be followed and whose target is missing.
            (Form::Any, None, status @ Err(_)) if options.follow == Some(true) => {
                let error = status.err().map_or(io::ErrorKind::NotFound.into(), io::Error::from);
                Err(failed(error))
            }
            // A link to a directory stands for the directory, unless the link itself is wanted.
            (Form::Any, Some(FileType::Directory), _) => Self::archive(&path.join(""), options),
            (Form::Any | Form::Archive, ..) => Self::archive(path, options),
            (Form::File, None, status) => {
                let error = status.err().map_or(io::ErrorKind::NotFound.into(), io::Error::from);
                Err(failed(error))
            }
        }
    }

    fn file(path: &Path, mut file: File, status: &Stat, options: &ReadOptions) -> io::Result<Self> {
        let size = u64::try_from(status.st_size).unwrap_or(0);
        // Files that the kernel generates have the size 0.
        let generated = size == 0 && file.read_at(&mut [0], 0).is_ok_and(|count| count > 0);
        let rest = (!generated).then(|| size.saturating_sub(options.offset));
        let left = match (rest, options.length) {
            (Some(rest), Some(length)) => Some(rest.min(length)),
            (rest, length) => rest.or(length),
        };
        if options.offset > 0 {
            file.seek(SeekFrom::Start(options.offset))?;
        }
        let head = FileHead {
            form: Form::File,
            size: (!generated).then_some(size),
            mode: status.st_mode & 0o7777,
            mtime_ns: mtime_ns(status),
            link: false,
        };
        let content = Content::File(file, left, BlockPool::default());
        Ok(Self { head, path: path.to_owned(), content, rest: None })
    }

    fn archive(path: &Path, options: &ReadOptions) -> Result<Self, Failure> {
        if options.name.as_deref().is_some_and(|name| !is_component(name)) {
            return Err(Failure::new(FailureCode::Invalid, "the name is not one path component"));
        }
        Self::pack(path, options).map_err(|error| failure::from_io(&error, path))
    }

    fn pack(path: &Path, options: &ReadOptions) -> io::Result<Self> {
        let status = rustix::fs::lstat(path)?;
        let name = options.name.as_deref().map(OsStr::new);
        let cursor = options.resume.as_ref().map_or("", |resume| resume.cursor.as_str());
        let mut packer = match cursor {
            "" => Packer::open_as(path, name)?,
            cursor => Packer::resume_as(path, cursor, name)?,
        };
        packer.mark_every(MARK_INTERVAL);
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

    /// Skips the bytes that the host already has, and compares their digest.
    fn skip(&mut self, resume: &Resume) -> Result<(), Failure> {
        let message = format!("{} is not what it was before the cut", self.path.display());
        let changed = Failure::new(FailureCode::Changed, message);
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

    /// The next bytes, at most one block; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Block>, Failure> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        let failed = |error: io::Error| failure::from_io(&error, &self.path);
        match &mut self.content {
            Content::Archive(packer) => {
                let block = packer.next_block().map_err(failed)?;
                Ok(block.map(|block| Block { bytes: block.bytes.into(), cursor: block.cursor }))
            }
            Content::File(file, left, pool) => {
                let bytes = pool.read(file, *left).map_err(failed)?;
                if bytes.is_empty() {
                    return self.check_end().map(|()| None);
                }
                *left = left.map(|left| left - bytes.len() as u64);
                Ok(Some(Block { bytes, cursor: None }))
            }
        }
    }

    /// Checks that a file has not become shorter.
    fn check_end(&self) -> Result<(), Failure> {
        match &self.content {
            Content::File(_, Some(1..), _) if self.head.size.is_some() => {
                let message = format!("{} became shorter while it was read", self.path.display());
                Err(Failure::new(FailureCode::Changed, message))
            }
            _ => Ok(()),
        }
    }

    /// The first file that an archive had to leave out.
    pub(super) fn omission(&self) -> Option<Failure> {
        let Content::Archive(packer) = &self.content else { return None };
        let missing = packer.skipped().first()?;
        Some(failure::from_io(&missing.reason, &self.path.join(&missing.path)))
    }
}

fn is_component(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(form: Form) -> ReadOptions {
        ReadOptions {
            form,
            offset: 0,
            length: None,
            compress: false,
            follow: None,
            name: None,
            resume: None,
        }
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
    fn a_file_is_read_in_part_and_resumed_after_a_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
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
    fn a_directory_is_resumed_after_a_cut() {
        let directory = tempfile::tempdir().unwrap();
        for n in 0..40 {
            std::fs::write(directory.path().join(format!("f{n:02}")), vec![n; 100_000]).unwrap();
        }
        let (head, all) = read(directory.path(), &options(Form::Any)).unwrap();
        assert_eq!((head.form, head.size), (Form::Archive, None));
        let mut source = Source::open(directory.path(), &options(Form::Archive)).unwrap();
        let (mut done, mut cursors) = (0, Vec::new());
        while let Some(block) = source.next().unwrap() {
            done += block.bytes.len();
            cursors.extend(block.cursor.map(|cursor| (cursor, done)));
        }
        assert!(cursors.len() >= 3, "{cursors:?}");
        for (cursor, at) in cursors {
            let rest_length = all.len() - at;
            for skip in [0, 1, 777_777.min(rest_length), rest_length] {
                let mut digest = Digest::new();
                digest.update(&all[at..at + skip]);
                let (skip, digest) = (skip as u64, digest.value());
                let resume = Some(Resume { cursor: cursor.clone(), skip, digest });
                let rest = ReadOptions { resume, ..options(Form::Archive) };
                let from = at + usize::try_from(skip).unwrap();
                assert!(read(directory.path(), &rest).unwrap().1 == all[from..], "{cursor} {skip}");
            }
        }
    }

    #[test]
    fn the_kind_of_file_decides() {
        let directory = tempfile::tempdir().unwrap();
        let code = |path: &Path, form| read(path, &options(form)).map(drop).unwrap_err().code;
        assert_eq!(code(directory.path(), Form::File), FailureCode::NotAFile);
        assert_eq!(code(Path::new("/dev/zero"), Form::File), FailureCode::NotAFile);
        for form in [Form::File, Form::Any, Form::Archive] {
            assert_eq!(code(&directory.path().join("none"), form), FailureCode::NotFound);
        }
        let (head, version) = read(Path::new("/proc/version"), &options(Form::Any)).unwrap();
        assert!(head.size.is_none() && version.starts_with(b"Linux"));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        let (_, behind) = read(&link, &options(Form::Any)).unwrap();
        let (_, itself) = read(&link, &options(Form::Archive)).unwrap();
        let names = |archive: &[u8], name: &[u8]| archive.chunks(512).any(|h| h.starts_with(name));
        assert!(names(&behind, b"./\0") && !names(&itself, b"./\0"));
        assert!(names(&itself, b"link\0"));
        // The host chooses whether a link is followed.
        std::fs::write(directory.path().join("file"), "content").unwrap();
        for (link, target) in [("to file", "file"), ("to nothing", "none"), ("to directory", ".")] {
            let link = directory.path().join(link);
            std::os::unix::fs::symlink(target, &link).unwrap();
            for form in [Form::Any, Form::Archive] {
                let itself = ReadOptions { follow: Some(false), ..options(form) };
                let (head, archive) = read(&link, &itself).unwrap();
                assert!(head.link && head.form == Form::Archive);
                assert!(names(&archive, b"to "));
            }
        }
        let followed = ReadOptions { follow: Some(true), ..options(Form::Archive) };
        let (head, archive) = read(&directory.path().join("to file"), &followed).unwrap();
        assert!(!head.link && names(&archive, b"file\0"));
        let plain = ReadOptions { follow: Some(false), ..options(Form::Any) };
        assert_eq!(read(&directory.path().join("file"), &plain).unwrap().1, b"content");
    }
}
