//! The jobs of this user on this host: one directory for each, below one place.
//!
//! The place is `metaservice/jobs` in the user's state directory. It does not depend on `TMPDIR` or
//! on a login session, so that each process of the user finds the same jobs. A job's directory
//! appears complete, with its control socket. The process that runs the job holds a lock on a file
//! in it. The system releases the lock with the process.

mod claim;

use std::io;
use std::path::{Path, PathBuf};

use metaservice_private::{Directory, Location, PrivateError};
use rustix::fs::{FlockOperation, flock};

use crate::job::JobName;

pub(crate) use claim::Claim;
pub use claim::ClaimError;

/// Where the jobs are.
const PLACE: Location = Location::State("jobs");

/// The control socket, in the directory of its job.
pub(crate) const SOCKET: &str = "control.sock";

/// The file that the process of a running job has locked.
const LOCK: &str = "lock";

/// The file that a process locks while it adds or removes a job.
const CHANGES: &str = ".changes";

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

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
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
    pub(crate) fn path_of(&self, name: &JobName) -> PathBuf {
        self.path().join(name.as_str())
    }

    /// The path of a job's control socket.
    pub(crate) fn socket(&self, name: &JobName) -> PathBuf {
        self.path_of(name).join(SOCKET)
    }

    /// Whether a process runs this job.
    ///
    /// # Errors
    /// The lock cannot be tested.
    pub fn is_running(&self, name: &JobName) -> Result<bool, PrivateError> {
        let path = self.path_of(name);
        let io = |source| PrivateError::Io { path: path.clone(), source };
        let lock = match std::fs::File::open(path.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io(error)),
        };
        // Only the process of the job takes an exclusive lock, before the directory has its name.
        match flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(io(errno.into())),
        }
    }
}
