//! Control sockets, by which clients find the jobs of this user.
//!
//! The socket of a job is in its directory, in the user's [directory of jobs](crate::history). A
//! killed process leaves its socket without a listener. Such a socket refuses connections.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use metaservice::control::Client;
use metaservice_private::{PrivateError, SocketPath};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use crate::blocking::block;
use crate::exit::CleanUp;
use crate::history::{self, Claim, ClaimError, Jobs};
use crate::job::JobName;
use crate::socket::listen;

/// Why a socket cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The directory of jobs cannot be used.
    #[error("the jobs of this user cannot be found in {}", history::place().display())]
    Directory(#[source] PrivateError),
    /// The job cannot have its name.
    #[error("cannot make {}", path.display())]
    Claim {
        /// The directory of the job.
        path: PathBuf,
        /// Why.
        #[source]
        cause: ClaimError,
    },
    /// A job of this name runs.
    #[error("a job named {0} is running")]
    NameTaken(String),
    /// Another process listens at this path.
    #[error("another process is listening on {}", .0.display())]
    InUse(PathBuf),
    /// There is something at this path that is no socket.
    #[error("{} exists and is not a socket; it is left alone", .0.display())]
    NotASocket(PathBuf),
    /// The socket cannot be used.
    #[error("cannot use {}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// No job of this name runs.
    #[error("no job named {name:?} is running (looked in {})", place.display())]
    NotFound {
        /// The name.
        name: String,
        /// The directory of jobs.
        place: PathBuf,
        /// The names of the jobs that run.
        running: Vec<String>,
    },
}

/// A socket with a name in the file system. Dropping it removes the name.
#[derive(Debug)]
pub struct SocketFile {
    _removal: CleanUp,
}

impl SocketFile {
    fn new(path: PathBuf) -> Self {
        Self { _removal: CleanUp::new(move || drop(std::fs::remove_file(path))) }
    }
}

/// The control socket of a job and the task that serves it.
pub(crate) struct Control {
    files: JobFiles,
    serving: AbortOnDropHandle<()>,
}

impl Control {
    /// Serves clients that connect to the socket.
    pub(crate) fn new(files: JobFiles, serving: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { files, serving: AbortOnDropHandle::new(tokio::spawn(serving)) }
    }

    /// Completes when clients have their answers: after the service's shutdown. Then it removes the
    /// socket.
    pub(crate) async fn end(self) {
        let Self { files, serving } = self;
        let _ = serving.await;
        drop(files);
    }
}

/// A job that runs. It may not answer.
#[derive(Debug)]
pub struct Running {
    /// The job's name.
    pub name: String,
    /// The process that serves it, if the system says it.
    pub pid: Option<i32>,
    /// A client of its control API.
    pub client: Client,
}

/// Listens at `path`. Only this user can connect.
///
/// # Errors
/// When another process listens there, or the socket cannot be made.
pub async fn bind(path: &Path) -> Result<(UnixListener, SocketFile), ControlError> {
    if is_live(path).await? {
        return Err(ControlError::InUse(path.to_owned()));
    }
    let made = listen(path).and_then(UnixListener::from_std);
    let listener = made.map_err(|cause| ControlError::Listen { path: path.to_owned(), cause })?;
    Ok((listener, SocketFile::new(path.to_owned())))
}

/// The directory of a running job. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct JobFiles {
    _removal: CleanUp,
}

/// Makes the directory of the job `name`, and listens there for clients.
pub(crate) fn bind_job(name: &JobName) -> Result<(UnixListener, JobFiles), ControlError> {
    let jobs = block(Jobs::open).map_err(ControlError::Directory)?;
    let path = jobs.path_of(name);
    let (claim, listener) = block(|| Claim::new(jobs, name)).map_err(|error| match error {
        ClaimError::Running(name) => ControlError::NameTaken(name),
        cause => ControlError::Claim { path: path.clone(), cause },
    })?;
    let files = JobFiles { _removal: CleanUp::new(move || claim.remove()) };
    let listener = UnixListener::from_std(listener);
    let listener = listener.map_err(|cause| ControlError::Socket { path, cause })?;
    Ok((listener, files))
}

/// A client of the job `name`.
///
/// # Errors
/// When no job of this name runs.
pub async fn find(name: &str) -> Result<Client, ControlError> {
    let jobs = block(Jobs::open).map_err(ControlError::Directory)?;
    if let Ok(job) = name.parse::<JobName>() {
        let path = jobs.socket(&job);
        if is_live(&path).await? {
            return Ok(Client::new(path));
        }
    }
    let running = names().await.unwrap_or_default();
    let place = jobs.path().to_owned();
    Err(ControlError::NotFound { name: name.to_owned(), place, running })
}

/// The names of the jobs that run. Waits for no job.
///
/// # Errors
/// When the directory of jobs cannot be used.
pub async fn names() -> Result<Vec<String>, ControlError> {
    Ok(all().await?.into_iter().map(|running| running.name).collect())
}

/// The jobs that run, by name. Waits for no job.
///
/// # Errors
/// When the directory of jobs cannot be used.
pub async fn all() -> Result<Vec<Running>, ControlError> {
    let jobs = block(Jobs::open).map_err(ControlError::Directory)?;
    let mut all = Vec::new();
    for name in block(|| jobs.names()).map_err(ControlError::Directory)? {
        let path = jobs.socket(&name);
        match listener(&path).await {
            Ok(Some(pid)) => {
                all.push(Running { name: name.to_string(), pid, client: Client::new(&path) });
            }
            Ok(None) => {}
            // One that cannot be used does not hide the others.
            Err(error) => tracing::warn!("{error}"),
        }
    }
    Ok(all)
}

/// Whether a process listens at `path`.
async fn is_live(path: &Path) -> Result<bool, ControlError> {
    Ok(listener(path).await?.is_some())
}

/// The process that listens at `path`, if there is one and as far as it is known. Removes a socket
/// without a listener.
async fn listener(path: &Path) -> Result<Option<Option<i32>>, ControlError> {
    let cannot = |cause| ControlError::Socket { path: path.to_owned(), cause };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(ControlError::NotASocket(path.to_owned())),
    }
    let connected = async {
        let path = SocketPath::of(path)?;
        UnixStream::connect(path.as_path()).await
    };
    match connected.await {
        Ok(stream) => Ok(Some(stream.peer_cred().ok().and_then(|peer| peer.pid()))),
        // Its queue of connections is full: the process is stopped or busy.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(None)),
        Err(error) => match error.kind() {
            // Its process has ended, perhaps just now.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                let _ = std::fs::remove_file(path);
                Ok(None)
            }
            _ => Err(cannot(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_without_a_listener_is_replaced_and_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (_listener, _socket) = bind(&path).await.unwrap();
        assert!(matches!(bind(&path).await, Err(ControlError::InUse(_))));
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(bind(&file).await, Err(ControlError::NotASocket(_))));
        assert!(file.exists());
    }
}
