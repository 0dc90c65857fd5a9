//! The name of a job, while a process runs it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use metaservice_private::{PartialDirectory, PrivateError, SocketPath, remove_tree, sweep};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};

use super::{CHANGES, Jobs, LOCK, SOCKET};
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

/// The directory of a job that this process runs. Dropping it removes the directory.
#[derive(Debug)]
pub(crate) struct Claim {
    jobs: Jobs,
    name: JobName,
    /// Other processes see by this lock that the job runs.
    _lock: File,
}

impl Claim {
    /// Makes the directory of a job, with its control socket. A job of this name that has ended is
    /// replaced.
    pub(crate) fn new(jobs: Jobs, name: &JobName) -> Result<(Self, UnixListener), ClaimError> {
        let io = |source: io::Error| PrivateError::Io { path: jobs.path().to_owned(), source };
        // Until the end of this function, no other process adds or removes a job.
        let changes = jobs.directory.append(CHANGES)?;
        // A file system without locks still has jobs with different names.
        let _ = flock(&changes, FlockOperation::LockExclusive);
        sweep(jobs.directory.as_fd());
        if jobs.is_running(name).unwrap_or(false) {
            return Err(ClaimError::Running(name.to_string()));
        }
        let parent = jobs.directory.as_fd().try_clone_to_owned().map_err(io)?;
        let partial = PartialDirectory::new(parent).map_err(io)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let lock = openat(partial.directory(), LOCK, flags, Mode::RUSR | Mode::WUSR);
        let lock = File::from(lock.map_err(|errno| io(errno.into()))?);
        let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        let socket = SocketPath::within(partial.directory(), SOCKET).map_err(io)?;
        let listener = listen(socket.as_path()).map_err(ClaimError::Socket)?;
        match remove_tree(jobs.directory.as_fd(), name.as_str().as_ref()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error).into()),
            _ => {}
        }
        partial.keep(name.as_str().as_ref()).map_err(io)?;
        Ok((Self { jobs, name: name.clone(), _lock: lock }, listener))
    }

    /// Removes everything of the job. Its lock is held until this returns.
    pub(crate) fn remove(&self) {
        let _ = remove_tree(self.jobs.directory.as_fd(), self.name.as_str().as_ref());
    }
}

#[cfg(test)]
mod tests {
    use metaservice_private::Location;

    use super::*;

    fn jobs(directory: &tempfile::TempDir) -> Jobs {
        Jobs { directory: Location::At(directory.path().join("jobs")).open().unwrap() }
    }

    #[test]
    fn a_name_belongs_to_one_process_and_is_free_after_it() {
        let place = tempfile::tempdir().unwrap();
        let name: JobName = "build".parse().unwrap();
        let (claim, _listener) = Claim::new(jobs(&place), &name).unwrap();
        assert!(jobs(&place).is_running(&name).unwrap());
        assert_eq!(jobs(&place).names().unwrap(), [name.clone()]);
        let refused = Claim::new(jobs(&place), &name).unwrap_err();
        assert!(matches!(refused, ClaimError::Running(_)), "{refused:?}");
        // The process is gone, and its directory is left.
        drop(claim);
        assert!(!jobs(&place).is_running(&name).unwrap());
        let (claim, _listener) = Claim::new(jobs(&place), &name).unwrap();
        claim.remove();
        assert!(jobs(&place).names().unwrap().is_empty());
    }

    #[test]
    fn many_processes_claim_one_name_and_one_gets_it() {
        let place = tempfile::tempdir().unwrap();
        let name: JobName = "build".parse().unwrap();
        let claim = || Claim::new(jobs(&place), &name).ok();
        let claims: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(claim)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(claims.len(), 1);
    }

    #[test]
    fn clients_find_a_socket_below_a_long_home() {
        let place = tempfile::tempdir().unwrap();
        let home = place.path().join("h".repeat(120));
        std::fs::create_dir(&home).unwrap();
        let jobs = Jobs { directory: Location::At(home.join("jobs")).open().unwrap() };
        let name: JobName = "n".repeat(JobName::MAX).parse().unwrap();
        let path = jobs.socket(&name);
        let (claim, listener) = Claim::new(jobs, &name).unwrap();
        let socket = SocketPath::of(&path).unwrap();
        std::os::unix::net::UnixStream::connect(socket.as_path()).unwrap();
        listener.accept().unwrap();
        claim.remove();
    }
}
