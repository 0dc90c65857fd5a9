//! Where a write's bytes go: a file beside its place, or a folder.
//!
//! Owns a blocking thread and the buffers that go round between it and the stream:
//!
//! ```text
//!   push ── copied ─► gathered ── full, or the end ─► parts ─► the thread ── written ─► spare ─┐
//!                        ▲                                                                     │
//!                        └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What comes is copied into them, which costs less than it saves: a connection's buffer is used
//! again at once and not faulted in anew, and the threads change places once for a buffer.
//!
//! Until its end has come, a file has a name of its own, which nothing else uses and which is
//! gone when the sink is dropped.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use metaservice_archive::{Extractor, Options, Reason, SparseWriter};
use metaservice_protocol::{ActionId, Failure, FailureCode, Form, WriteOptions};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::process::Resource;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::failure;
use super::in_memory;
use crate::diagnostics::chain;
use crate::system::account::Account;

/// A file's permission bits where the host says nothing.
const FILE_MODE: u32 = 0o644;

/// How many bytes are handed to the thread at once.
const GATHERED: usize = 128 * 1024;

#[derive(Debug)]
enum Part {
    Data(Vec<u8>),
    /// All of it has come: only now a file takes its place.
    End,
}

/// The writing of one file or folder.
#[derive(Debug)]
pub(super) struct Sink {
    parts: Option<mpsc::Sender<Part>>,
    /// Buffers that were written, to be filled again.
    spare: mpsc::Receiver<Vec<u8>>,
    gathered: Vec<u8>,
    writing: JoinHandle<Result<(), Failure>>,
}

impl Sink {
    /// Begins; what can be known to fail fails here.
    pub(super) async fn open(
        path: PathBuf,
        options: WriteOptions,
        user: Option<String>,
    ) -> Result<Self, Failure> {
        // One part waits while another is written and a third is gathered.
        let (parts, receiver) = mpsc::channel(1);
        let (used, spare) = mpsc::channel(2);
        let prepare = move || Target::open(path, &options, user.as_deref());
        let target = tokio::task::spawn_blocking(prepare).await.unwrap_or_else(|_| Err(died()))?;
        let writing = tokio::task::spawn_blocking(move || target.write(Parts::new(receiver, used)));
        Ok(Self { parts: Some(parts), spare, gathered: Vec::new(), writing })
    }

    /// Takes bytes out of `pending` until nothing is left; waits while the disk is slow. Can be
    /// dropped and called again: what was not taken is still there.
    pub(super) async fn push(&mut self, pending: &mut Option<Bytes>) -> Result<(), Failure> {
        while let Some(bytes) = pending {
            if self.gathered.len() == GATHERED {
                self.hand_over().await?;
            }
            if self.gathered.capacity() == 0 {
                self.gathered =
                    self.spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(GATHERED));
            }
            let count = bytes.len().min(GATHERED - self.gathered.len());
            self.gathered.extend_from_slice(&bytes[..count]);
            bytes.advance(count);
            if bytes.is_empty() {
                *pending = None;
            }
        }
        Ok(())
    }

    /// Gives what was gathered to the thread. Can be dropped and called again.
    async fn hand_over(&mut self) -> Result<(), Failure> {
        let Some(parts) = &self.parts else { return Err(died()) };
        if let Ok(permit) = parts.reserve().await {
            permit.send(Part::Data(std::mem::take(&mut self.gathered)));
            return Ok(());
        }
        Err(self.cause().await)
    }

    /// All bytes have come: completes when the file or folder is in its place. Can be dropped and
    /// called again.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        if !self.gathered.is_empty() {
            self.hand_over().await?;
        }
        if let Some(parts) = &self.parts {
            if parts.send(Part::End).await.is_err() {
                return Err(self.cause().await);
            }
            self.parts = None;
        }
        (&mut self.writing).await.unwrap_or_else(|_| Err(died()))
    }

    /// Why it has given up.
    async fn cause(&mut self) -> Failure {
        match (&mut self.writing).await {
            Ok(Err(failure)) => failure,
            _ => died(),
        }
    }
}

fn died() -> Failure {
    Failure::new(FailureCode::Other, "the writing has ended")
}

/// The parts as a stream of bytes, which breaks off where the end has not come.
struct Parts {
    receiver: mpsc::Receiver<Part>,
    used: mpsc::Sender<Vec<u8>>,
    part: Vec<u8>,
    /// How much of the part was taken.
    taken: usize,
    ended: bool,
}

impl Parts {
    fn new(receiver: mpsc::Receiver<Part>, used: mpsc::Sender<Vec<u8>>) -> Self {
        Self { receiver, used, part: Vec::new(), taken: 0, ended: false }
    }

    /// The next bytes in one piece; `None` at the end.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let mut used = std::mem::take(&mut self.part);
        if used.capacity() > 0 {
            used.clear();
            // Where there are enough of them, one less is needed.
            let _ = self.used.try_send(used);
        }
        self.taken = 0;
        if self.ended {
            return Ok(None);
        }
        match self.receiver.blocking_recv() {
            Some(Part::Data(bytes)) => {
                self.part = bytes;
                Ok(Some(&self.part))
            }
            Some(Part::End) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.part.len() {
            if self.next()?.is_none() {
                return Ok(0);
            }
        }
        let rest = &self.part[self.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

#[derive(Debug)]
enum Target {
    File(Box<Beside>),
    Folder(PathBuf, Extractor),
}

/// How far ahead of what is written a file's end is set, in file systems in memory: what lies
/// within a file's size gets large pages there, with which writing is twice as fast in an
/// emulated machine. Smaller files have no use for them.
const AHEAD: u64 = 8 * 1024 * 1024;

/// A file on its way to its place.
#[derive(Debug)]
struct Beside {
    folder: OwnedFd,
    draft: String,
    name: PathBuf,
    path: PathBuf,
    file: File,
    /// Whether it is in memory.
    light: bool,
    writer: SparseWriter,
    /// Where its end has been set, if that was ahead.
    end: u64,
    mode: u32,
    mtime_ns: Option<i64>,
    owner: Option<Account>,
    placed: bool,
}

impl Target {
    fn open(path: PathBuf, options: &WriteOptions, user: Option<&str>) -> Result<Self, Failure> {
        let path = resolve(path, options.name.as_deref())?;
        match options.form {
            Form::File => Beside::open(path, options, user).map(|file| Self::File(Box::new(file))),
            Form::Archive => {
                let failed = |error: io::Error| failure(&error, &path);
                let new = match std::fs::create_dir(&path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(failed(error));
                    }
                    made => made.is_ok(),
                };
                if !path.is_dir() {
                    let message = format!("{} is not a folder", path.display());
                    return Err(Failure::new(FailureCode::NotADirectory, message));
                }
                let keep_set_id = options.set_id;
                let options = Options { new, keep_set_id, ..Options::default() };
                let extractor = Extractor::open(&path, options).map_err(failed)?;
                Ok(Self::Folder(path, extractor))
            }
            Form::Any => {
                Err(Failure::new(FailureCode::Invalid, "a write is of a file or an archive"))
            }
        }
    }

    fn write(self, mut parts: Parts) -> Result<(), Failure> {
        match self {
            Self::File(mut beside) => {
                let failed = |path: &Path, error: io::Error| failure(&error, path);
                while let Some(bytes) = parts.next().map_err(|e| failed(&beside.path, e))? {
                    beside.write(bytes).map_err(|e| failed(&beside.path, e))?;
                }
                beside.put_in_place().map_err(|e| failed(&beside.path, e))
            }
            Self::Folder(path, extractor) => {
                extractor.extract(&mut parts).map_err(|error| refusal(&error, &path))?;
                Ok(())
            }
        }
    }
}

fn refusal(error: &metaservice_archive::Error, path: &Path) -> Failure {
    let code = match &error.reason {
        Reason::System(errno) => crate::files::list::failure(*errno, path).code,
        Reason::Io(error) if error.raw_os_error().is_some() => failure(error, path).code,
        _ => FailureCode::Invalid,
    };
    Failure::new(code, format!("{}: {}", path.display(), chain(error)))
}

/// The place itself: in a folder that is there already, if a name for that is given.
fn resolve(path: PathBuf, name: Option<&str>) -> Result<PathBuf, Failure> {
    let Some(name) = name.filter(|_| path.is_dir()) else { return Ok(path) };
    let component = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if !component {
        let message = format!("'{name}' is no name in a folder");
        return Err(Failure::new(FailureCode::Invalid, message));
    }
    Ok(path.join(name))
}

impl Beside {
    fn open(path: PathBuf, options: &WriteOptions, user: Option<&str>) -> Result<Self, Failure> {
        let failed = |error: io::Error| failure(&error, &path);
        let slash = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let name = match path.file_name() {
            Some(name) if !slash && !path.is_dir() => PathBuf::from(name),
            _ => {
                let message = format!("{} is a folder", path.display());
                return Err(Failure::new(FailureCode::NotAFile, message));
            }
        };
        let parent = path.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, parent, flags, Mode::empty());
        let folder = folder.map_err(|errno| failed(errno.into()))?;
        let draft = draft(&options.transfer);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &draft, flags, Mode::RUSR | Mode::WUSR);
        let file: File = file.map_err(|errno| failed(errno.into()))?.into();
        // Where files are bounded, an end that is set too far ahead is met by a signal.
        let bounded = rustix::process::getrlimit(Resource::Fsize).current.is_some();
        let light = !bounded && in_memory::holds(&file);
        let owner = user.and_then(|user| Account::find(user).ok());
        let (mode, mtime_ns) = (options.mode.unwrap_or(FILE_MODE) & 0o7777, options.mtime_ns);
        Ok(Self {
            folder,
            draft,
            name,
            path,
            file,
            light,
            writer: SparseWriter::default(),
            end: 0,
            mode,
            mtime_ns,
            owner,
            placed: false,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.writer.length() + bytes.len() as u64;
        if self.light && written > self.end.max(AHEAD) {
            // Where it cannot be set, writing goes on as it is.
            match self.file.set_len(written + AHEAD) {
                Ok(()) => self.end = written + AHEAD,
                Err(_) => self.light = false,
            }
        }
        self.writer.write(&self.file, bytes)
    }

    fn put_in_place(&mut self) -> io::Result<()> {
        if self.end > self.writer.length() {
            self.file.set_len(self.writer.length())?;
        }
        self.writer.finish(&self.file)?;
        if let Some(owner) = &self.owner {
            let (uid, gid) = (owner.uid, owner.gid);
            // An agent that may not is that user, or cannot be any other.
            let _ = rustix::fs::fchown(
                &self.file,
                Some(rustix::fs::Uid::from_raw(uid)),
                Some(rustix::fs::Gid::from_raw(gid)),
            );
        }
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(self.mode))?;
        if let Some(mtime_ns) = self.mtime_ns {
            let seconds = mtime_ns.div_euclid(1_000_000_000);
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: Timespec {
                    tv_sec: seconds,
                    tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
                },
            };
            rustix::fs::futimens(&self.file, &times)?;
        }
        rustix::fs::renameat(&self.folder, &self.draft, &self.folder, &self.name)?;
        self.placed = true;
        Ok(())
    }
}

/// A name that nothing else has: the transfer's is used once.
fn draft(transfer: &ActionId) -> String {
    let name: String = transfer.as_str().chars().take(64).collect();
    format!(".metaservice-{name}.part")
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.placed {
            let _ = rustix::fs::unlinkat(&self.folder, &self.draft, AtFlags::empty());
        }
    }
}
