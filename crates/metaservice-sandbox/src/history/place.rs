//! The directory of this user's jobs, and what is in it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use metaservice_private::{Directory, Location, PrivateError, SocketPath, remove_tree, sweep};
use rustix::fs::{FlockOperation, flock};

use super::record::{PastJob, RESULT, SPEC};
use super::retention::{Candidate, Keep, expired};
use crate::job::JobName;

/// Where the jobs are.
const PLACE: Location = Location::State("jobs");

/// The control socket, in the directory of its job.
pub(super) const SOCKET: &str = "control.sock";

/// The file in the directory of a job in the background that has what its process printed.
pub const MESSAGES: &str = "messages";

/// The file that the process of a running job has locked.
pub(super) const LOCK: &str = "lock";

/// The file that a process locks while it adds or removes a job.
const CHANGES: &str = ".changes";

/// How many ended jobs one start of a job removes at most.
const MOST_REMOVALS: usize = 256;

/// The path of the directory of jobs. It is empty if this user has no home directory.
#[must_use]
pub fn place() -> PathBuf {
    PLACE.path().unwrap_or_default()
}

/// The directory of this user's jobs. Other users cannot read it.
#[derive(Debug)]
pub struct Jobs {
    directory: Directory,
}

impl Jobs {
    /// Opens the directory, and makes it if it does not exist.
    ///
    /// # Errors
    /// It cannot be made, or belongs to another user.
    pub fn open() -> Result<Self, PrivateError> {
        Ok(Self { directory: PLACE.open()? })
    }

    #[cfg(test)]
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { directory: Location::At(path).open().unwrap() }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The names of all jobs, in order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn names(&self) -> Result<Vec<JobName>, PrivateError> {
        let names = self.directory.names()?;
        let mut names: Vec<JobName> =
            names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// The directory of a job.
    #[must_use]
    pub fn path_of(&self, name: &JobName) -> PathBuf {
        self.path().join(name.as_str())
    }

    /// The path of a job's control socket.
    pub(crate) fn socket(&self, name: &JobName) -> PathBuf {
        self.path_of(name).join(SOCKET)
    }

    /// Whether there is a job of this name, running or ended.
    #[must_use]
    pub fn has(&self, name: &JobName) -> bool {
        self.path_of(name).symlink_metadata().is_ok()
    }

    /// Whether a process runs this job.
    #[must_use]
    pub fn is_running(&self, name: &JobName) -> bool {
        let Ok(lock) = File::open(self.path_of(name).join(LOCK)) else { return false };
        // Only the process of the job takes an exclusive lock, before the directory has its name.
        match flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => false,
            Err(rustix::io::Errno::WOULDBLOCK) => true,
            // The file system has no locks.
            Err(_) => self.is_listening(name),
        }
    }

    fn is_listening(&self, name: &JobName) -> bool {
        let connect = || {
            let path = SocketPath::of(&self.socket(name))?;
            std::os::unix::net::UnixStream::connect(path.as_path())
        };
        connect().is_ok()
    }

    /// A call that waits until no process runs this job. It blocks.
    pub fn end_of(&self, name: &JobName) -> impl FnOnce() + Send + use<> {
        let lock = File::open(self.path_of(name).join(LOCK));
        move || {
            if let Ok(lock) = lock {
                let _ = flock(&lock, FlockOperation::LockShared);
            }
        }
    }

    /// What is known of a job whose process has ended. `None` if there is no such job, or if it
    /// runs.
    #[must_use]
    pub fn past(&self, name: &JobName) -> Option<PastJob> {
        if !self.has(name) || self.is_running(name) {
            return None;
        }
        Some(PastJob::read(name, self.path_of(name)))
    }

    /// Removes a job whose process has ended, with its log. Returns whether there was one.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, name: &JobName) -> Result<bool, PrivateError> {
        let _changes = self.change()?;
        if self.has(name) && !self.is_running(name) {
            self.erase(name).map(|()| true)
        } else {
            Ok(false)
        }
    }

    /// Removes what is in the directory of a job. The caller holds the lock of
    /// [`change`](Self::change), or the job's own.
    pub(super) fn erase(&self, name: &JobName) -> Result<(), PrivateError> {
        match remove_tree(self.directory.as_fd(), name.as_str().as_ref()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(PrivateError::Io { path: self.path_of(name), source })
            }
            _ => Ok(()),
        }
    }

    /// Until the returned file is dropped, no other process adds or removes a job.
    pub(super) fn change(&self) -> Result<File, PrivateError> {
        let changes = self.directory.append(CHANGES)?;
        // A file system without locks still has jobs with different names.
        let _ = flock(&changes, FlockOperation::LockExclusive);
        Ok(changes)
    }

    /// Removes the ended jobs that are not to be kept, and what killed processes have left. The
    /// caller holds the lock of [`change`](Self::change).
    pub(super) fn tidy(&self, keep: &Keep, now: SystemTime) {
        sweep(self.directory.as_fd());
        let names = self.names().unwrap_or_default();
        let ended = names.into_iter().filter(|name| !self.is_running(name));
        let candidates = ended.filter_map(|name| self.candidate(name)).collect();
        for name in expired(candidates, keep, now).into_iter().take(MOST_REMOVALS) {
            if let Err(error) = self.erase(&name) {
                tracing::debug!(%error, "an ended job is not removed");
            }
        }
    }

    fn candidate(&self, name: JobName) -> Option<Candidate> {
        let path = self.path_of(&name);
        let files = std::fs::read_dir(&path).ok()?.flatten();
        let size =
            files.filter_map(|file| file.metadata().ok()).map(|file| file.blocks() * 512).sum();
        let modified =
            |file: &str| path.join(file).metadata().and_then(|file| file.modified()).ok();
        let ended = modified(RESULT).or_else(|| modified(SPEC)).or_else(|| modified(LOCK));
        Some(Candidate { name, ended: ended.unwrap_or(SystemTime::UNIX_EPOCH), size })
    }
}
