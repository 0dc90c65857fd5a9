//! The name and the directory of a job, while a process runs it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use metaservice_private::{PartialDirectory, PrivateError, SocketPath, replace_unsynced};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};

use super::place::{Jobs, LOCK, SOCKET};
use super::record::{Began, INDEX, LOG, PastJob, RESULT, SPEC};
use super::retention::Keep;
use crate::job::JobName;
use crate::socket::listen;

/// Why a job cannot have its name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// A job of this name runs.
    #[error("a job named {0} is running")]
    Running(String),
    /// The directory of the job cannot be made.
    #[error(transparent)]
    Directory(#[from] PrivateError),
    /// The control socket cannot be made.
    #[error("cannot make a socket in it")]
    Socket(#[source] io::Error),
}

impl ClaimError {
    /// The error of the system, if there is one.
    pub(crate) fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Running(_) => None,
            Self::Directory(error) => Some(error.kind()),
            Self::Socket(error) => Some(error.kind()),
        }
    }
}

/// The directory of a job that this process runs.
#[derive(Debug)]
pub(crate) struct Claim {
    jobs: Jobs,
    name: JobName,
    /// Whether the directory stays when the job has ended.
    kept: AtomicBool,
    /// Other processes see by this lock that the job runs.
    _lock: File,
}

/// What is made with a directory.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) claim: Claim,
    pub(crate) listener: UnixListener,
    /// Why its history cannot be written, if it is wanted.
    pub(crate) full: Option<io::Error>,
    /// The files of its log and of the log's index, if its history is wanted.
    pub(crate) log: Option<(File, File)>,
}

impl Claim {
    /// Makes the directory of a job, with its control socket. A job of this name that has ended is
    /// replaced. With limits for the history, the directory stays when the job has ended, and old
    /// jobs are removed first.
    pub(crate) fn make(
        jobs: Jobs,
        name: &JobName,
        began: &Began,
        keep: Option<&Keep>,
    ) -> Result<Claimed, ClaimError> {
        let io = |source: io::Error| PrivateError::Io { path: jobs.path().to_owned(), source };
        // Until the end of this function, no other process adds or removes a job.
        let _changes = jobs.change()?;
        if jobs.is_running(name) {
            return Err(ClaimError::Running(name.to_string()));
        }
        if let Some(keep) = keep {
            jobs.tidy(keep, SystemTime::now());
        }
        let parent = jobs.directory().as_fd().try_clone_to_owned().map_err(io)?;
        let partial = PartialDirectory::new(parent).map_err(io)?;
        let lock = create(partial.directory(), LOCK).map_err(io)?;
        let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        let socket = SocketPath::within(partial.directory(), SOCKET).map_err(io)?;
        let listener = listen(socket.as_path()).map_err(ClaimError::Socket)?;
        let full = keep.and_then(|_| begin(partial.directory(), began).err());
        let file = |name| create(partial.directory(), name);
        let log = keep.and_then(|_| Some((file(LOG).ok()?, file(INDEX).ok()?)));
        jobs.erase(name)?;
        partial.keep(name.as_str().as_ref()).map_err(io)?;
        let kept = AtomicBool::new(keep.is_some());
        let claim = Self { jobs, name: name.clone(), kept, _lock: lock };
        Ok(Claimed { claim, listener, full, log })
    }

    pub(crate) fn name(&self) -> &JobName {
        &self.name
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.jobs.path_of(&self.name)
    }

    /// Whether the directory stays when the job has ended.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// The directory goes with the job.
    pub(crate) fn forget(&self) {
        self.kept.store(false, Ordering::Relaxed);
    }

    /// Writes what became of the job.
    pub(super) fn write_result(&self, past: &PastJob) -> io::Result<()> {
        replace_unsynced(&self.path().join(RESULT), &serde_json::to_vec(past)?, 0o600)
    }

    /// Removes the control socket, or the whole directory if it is not kept. Call it when the job
    /// has ended. The lock is held until the value is dropped.
    pub(crate) fn release(&self) {
        let removed = if self.is_kept() {
            std::fs::remove_file(self.jobs.socket(&self.name))
        } else {
            self.jobs.erase(&self.name).map_err(io::Error::from)
        };
        if let Err(error) = removed {
            tracing::debug!(%error, "the directory of the job is not cleaned up");
        }
    }
}

fn begin(directory: BorrowedFd<'_>, began: &Began) -> io::Result<()> {
    create(directory, SPEC)?.write_all(&serde_json::to_vec(began)?)
}

fn create(directory: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
