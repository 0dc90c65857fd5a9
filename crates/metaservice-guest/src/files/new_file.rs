//! A file that is written under a temporary name and then renamed.
//!
//! Owns the name, the mode, the owner and the time of the file. Until the file is complete it has a
//! name that no other file uses, and dropping it removes it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use metaservice_archive::SparseWriter;
use metaservice_protocol::{ActionId, Failure, FailureCode, WriteOptions};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::process::Resource;

use super::{failure, in_memory};
use crate::system::account::Account;

/// A file's permission bits if the host sets none.
const DEFAULT_MODE: u32 = 0o644;

/// How many bytes the end of a file in memory is set ahead of what is written.
///
/// Within a file's size, tmpfs uses large pages. In an emulated machine, writing to them is twice
/// as fast. Smaller files do not need them.
const AHEAD: u64 = 8 * 1024 * 1024;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct NewFile {
    directory: OwnedFd,
    draft: String,
    name: PathBuf,
    path: PathBuf,
    file: File,
    /// Whether to set the end of the file ahead.
    extends: bool,
    writer: SparseWriter,
    /// The end of the file, if it was set ahead.
    end: u64,
    mode: u32,
    mtime_ns: Option<i64>,
    owner: Option<Account>,
    placed: bool,
}

impl NewFile {
    /// Creates the file under its temporary name.
    pub(super) fn create(
        path: PathBuf,
        options: &WriteOptions,
        user: Option<&str>,
    ) -> Result<Self, Failure> {
        let failed = |error: io::Error| failure::from_io(&error, &path);
        let slash = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let name = match path.file_name() {
            Some(name) if !slash && !path.is_dir() => PathBuf::from(name),
            _ => {
                let shown = path.display();
                let message = match slash && !path.is_dir() {
                    true => format!("there is no directory {shown}"),
                    false => format!("{shown} is a directory"),
                };
                return Err(Failure::new(FailureCode::NotAFile, message));
            }
        };
        let parent = path.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, parent, flags, Mode::empty());
        let directory = directory.map_err(|errno| failure::from_io(&errno.into(), parent))?;
        let draft = draft_name(&options.transfer);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, &draft, flags, Mode::RUSR | Mode::WUSR);
        let file: File = file.map_err(|errno| failed(errno.into()))?.into();
        // With a limit for the size of files, an end beyond it would raise SIGXFSZ.
        let limited = rustix::process::getrlimit(Resource::Fsize).current.is_some();
        let extends = !limited && in_memory::contains(&file);
        let owner = user.and_then(|user| Account::find(user).ok());
        let (mode, mtime_ns) = (options.mode.unwrap_or(DEFAULT_MODE) & 0o7777, options.mtime_ns);
        Ok(Self {
            directory,
            draft,
            name,
            path,
            file,
            extends,
            writer: SparseWriter::default(),
            end: 0,
            mode,
            mtime_ns,
            owner,
            placed: false,
        })
    }

    /// The failure for an error of this file.
    pub(super) fn failure(&self, error: &io::Error) -> Failure {
        failure::from_io(error, &self.path)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.writer.length() + bytes.len() as u64;
        if self.extends && written > self.end.max(AHEAD) {
            match self.file.set_len(written + AHEAD) {
                Ok(()) => self.end = written + AHEAD,
                // Writing works without it.
                Err(_) => self.extends = false,
            }
        }
        self.writer.write(&self.file, bytes)
    }

    /// Completes the file and gives it its name.
    pub(super) fn place(&mut self) -> io::Result<()> {
        if self.end > self.writer.length() {
            self.file.set_len(self.writer.length())?;
        }
        self.writer.finish(&self.file)?;
        if let Some(owner) = &self.owner {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            // An unprivileged agent cannot change the owner, and usually is that user.
            let _ = rustix::fs::fchown(&self.file, Some(uid), Some(gid));
        }
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(self.mode))?;
        if let Some(mtime_ns) = self.mtime_ns {
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: Timespec {
                    tv_sec: mtime_ns.div_euclid(1_000_000_000),
                    tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
                },
            };
            rustix::fs::futimens(&self.file, &times)?;
        }
        rustix::fs::renameat(&self.directory, &self.draft, &self.directory, &self.name)?;
        self.placed = true;
        Ok(())
    }
}

/// A name that no other file has, because a transfer's id is used once.
fn draft_name(transfer: &ActionId) -> String {
    let name: String = transfer.as_str().chars().take(64).collect();
    format!(".metaservice-{name}.part")
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.placed {
            let _ = rustix::fs::unlinkat(&self.directory, &self.draft, AtFlags::empty());
        }
    }
}
