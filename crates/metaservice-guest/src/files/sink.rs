//! The target of a write: a file, or a directory for an archive.
//!
//! Owns a blocking thread, and the buffers that circulate between it and the stream:
//!
//! ```text
//!   push ── copied ─► gathered ── full, or the end ─► parts ─► the thread ── written ─► spare ─┐
//!                        ▲                                                                     │
//!                        └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The copy costs less than it saves. The connection's buffer can be reused at once, without new
//! page faults, and the threads switch once per buffer instead of once per message.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use metaservice_archive::{ExtractCause, ExtractError, ExtractOptions, Extractor};
use metaservice_protocol::{Failure, FailureCode, Form, WriteOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::failure;
use super::new_file::NewFile;
use crate::diagnostics::with_causes;

/// How many bytes the thread gets at once.
const GATHERED: usize = 128 * 1024;

#[derive(Debug)]
enum SinkPart {
    Data(Vec<u8>),
    /// The transfer is complete. Only now a file gets its name.
    End,
}

/// The writing of one file or directory. Dropping this before its end removes an incomplete file.
#[derive(Debug)]
pub(super) struct Sink {
    parts: Option<mpsc::Sender<SinkPart>>,
    /// Buffers that were written and can be filled again.
    spare: mpsc::Receiver<Vec<u8>>,
    gathered: Vec<u8>,
    writing: JoinHandle<Result<(), Failure>>,
}

impl Sink {
    /// Opens the target and starts the thread.
    pub(super) async fn open(
        path: PathBuf,
        options: WriteOptions,
        user: Option<String>,
    ) -> Result<Self, Failure> {
        // One part waits, another is written, and a third is gathered.
        let (parts, receiver) = mpsc::channel(1);
        let (used, spare) = mpsc::channel(2);
        let open = move || Target::open(path, &options, user.as_deref());
        let target = tokio::task::spawn_blocking(open).await.unwrap_or_else(|_| Err(died()))?;
        let writing =
            tokio::task::spawn_blocking(move || target.write(SinkParts::new(receiver, used)));
        Ok(Self { parts: Some(parts), spare, gathered: Vec::new(), writing })
    }

    /// Takes all bytes out of `pending`. Waits while the disk is slow. Cancel-safe: bytes that were
    /// not taken stay in `pending`.
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

    /// Gives the gathered bytes to the thread. Cancel-safe.
    async fn hand_over(&mut self) -> Result<(), Failure> {
        let Some(parts) = &self.parts else { return Err(died()) };
        if let Ok(permit) = parts.reserve().await {
            permit.send(SinkPart::Data(std::mem::take(&mut self.gathered)));
            return Ok(());
        }
        Err(self.cause().await)
    }

    /// Ends the transfer. Completes when the file or directory is in its place. Cancel-safe.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        if !self.gathered.is_empty() {
            self.hand_over().await?;
        }
        if let Some(parts) = &self.parts {
            if parts.send(SinkPart::End).await.is_err() {
                return Err(self.cause().await);
            }
            self.parts = None;
        }
        (&mut self.writing).await.unwrap_or_else(|_| Err(died()))
    }

    /// Why the thread has ended.
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

/// The parts as a stream of bytes. Without [`SinkPart::End`] it ends with an error.
struct SinkParts {
    receiver: mpsc::Receiver<SinkPart>,
    used: mpsc::Sender<Vec<u8>>,
    part: Vec<u8>,
    /// How much of the part was read.
    taken: usize,
    ended: bool,
}

impl SinkParts {
    fn new(receiver: mpsc::Receiver<SinkPart>, used: mpsc::Sender<Vec<u8>>) -> Self {
        Self { receiver, used, part: Vec::new(), taken: 0, ended: false }
    }

    /// The next bytes in one piece; `None` at the end.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let mut used = std::mem::take(&mut self.part);
        if used.capacity() > 0 {
            used.clear();
            // If there are enough spare buffers, this one is freed.
            let _ = self.used.try_send(used);
        }
        self.taken = 0;
        if self.ended {
            return Ok(None);
        }
        match self.receiver.blocking_recv() {
            Some(SinkPart::Data(bytes)) => {
                self.part = bytes;
                Ok(Some(&self.part))
            }
            Some(SinkPart::End) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Read for SinkParts {
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
    File(Box<NewFile>),
    Directory(PathBuf, Extractor),
}

impl Target {
    fn open(path: PathBuf, options: &WriteOptions, user: Option<&str>) -> Result<Self, Failure> {
        let path = resolve(path, options.name.as_deref())?;
        match options.form {
            Form::File => {
                NewFile::create(path, options, user).map(|file| Self::File(Box::new(file)))
            }
            Form::Archive => Self::open_directory(path, options.set_id),
            Form::Any => {
                Err(Failure::new(FailureCode::Invalid, "a write is of a file or an archive"))
            }
        }
    }

    fn open_directory(path: PathBuf, keep_set_id: bool) -> Result<Self, Failure> {
        let failed = |error: io::Error| failure::from_io(&error, &path);
        let new = match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            made => made.is_ok(),
        };
        if !path.is_dir() {
            let message = format!("{} is not a directory", path.display());
            return Err(Failure::new(FailureCode::NotADirectory, message));
        }
        let mut options = ExtractOptions::default();
        options.new = new;
        options.keep_set_id = keep_set_id;
        let extractor = Extractor::open(&path, options).map_err(failed)?;
        Ok(Self::Directory(path, extractor))
    }

    fn write(self, mut parts: SinkParts) -> Result<(), Failure> {
        match self {
            Self::File(mut file) => {
                while let Some(bytes) = parts.next().map_err(|e| file.failure(&e))? {
                    file.write(bytes).map_err(|e| file.failure(&e))?;
                }
                file.place().map_err(|e| file.failure(&e))
            }
            Self::Directory(path, extractor) => {
                extractor.extract(&mut parts).map_err(|error| from_archive(&error, &path))?;
                Ok(())
            }
        }
    }
}

/// The failure for an error of an archive.
fn from_archive(error: &ExtractError, path: &Path) -> Failure {
    let code = match &error.cause {
        ExtractCause::System(errno) => failure::from_errno(*errno, path).code,
        ExtractCause::Io(error) if error.raw_os_error().is_some() => {
            failure::from_io(error, path).code
        }
        _ => FailureCode::Invalid,
    };
    Failure::new(code, format!("{}: {}", path.display(), with_causes(error)))
}

/// The path to write to: `name` in the directory at `path`, if that exists and a name is given.
fn resolve(path: PathBuf, name: Option<&str>) -> Result<PathBuf, Failure> {
    let Some(name) = name.filter(|_| path.is_dir()) else { return Ok(path) };
    let component = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if !component {
        let message = format!("'{name}' is not a name in a directory");
        return Err(Failure::new(FailureCode::Invalid, message));
    }
    Ok(path.join(name))
}
