//! Control sockets, by which clients find the jobs of this user.
//!
//! The socket of a job is in its directory, in the user's [directory of jobs](crate::history). A
//! killed process leaves its socket without a listener. Such a socket refuses connections.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metaservice::control::{Client, Job, JobState};
use metaservice_private::{PrivateError, SocketPath};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::blocking::block;
use crate::exit::CleanUp;
use crate::history::{
    self, Began, Changes, Claim, ClaimError, Claimed, HistoryError, Jobs, Keep, PastJob,
};
use crate::job::JobName;
use crate::socket::listen;

/// Why a socket cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The directory of jobs cannot be used.
    #[error("the jobs of this user cannot be found in {}", history::place().display())]
    Directory(#[source] PrivateError),
    /// The directory of jobs cannot be watched.
    #[error("cannot watch {}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
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
    /// The job runs, and only one that has ended can be removed.
    #[error("the job {0} is running")]
    Running(String),
    /// The job has ended.
    #[error("the job {name} has ended")]
    Ended {
        /// Its name.
        name: String,
        /// What is known of it.
        past: Box<PastJob>,
    },
    /// There is no job of this name.
    #[error("there is no job named {name:?} (looked in {})", place.display())]
    NotFound {
        /// The name.
        name: String,
        /// The directory of jobs.
        place: PathBuf,
        /// The names of the jobs that run.
        running: Vec<String>,
    },
}

impl ControlError {
    /// Whether a socket is missing because the disk is full.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Directory(error) => is_full(error.kind()),
            Self::Claim { cause, .. } => cause.kind().is_some_and(is_full),
            _ => false,
        }
    }
}

fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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
    _files: JobFiles,
    serving: AbortOnDropHandle<()>,
}

impl Control {
    /// Serves clients that connect to the socket.
    pub(crate) fn new(files: JobFiles, serving: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { _files: files, serving: AbortOnDropHandle::new(tokio::spawn(serving)) }
    }

    /// Completes when clients have their answers: after the service's shutdown. Then it removes the
    /// socket.
    pub(crate) async fn end(self) {
        let Self { _files: files, serving } = self;
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
    // Without a listener, it is left by a process that was killed.
    let _ = std::fs::remove_file(path);
    let made = listen(path).and_then(UnixListener::from_std);
    let listener = made.map_err(|cause| ControlError::Listen { path: path.to_owned(), cause })?;
    Ok((listener, SocketFile::new(path.to_owned())))
}

/// The directory of a running job. When the last clone is dropped, the socket is removed, or the
/// whole directory if the job has no history.
#[derive(Debug, Clone)]
pub(crate) struct JobFiles {
    pub(crate) claim: Arc<Claim>,
    _release: Arc<CleanUp>,
}

/// A job that clients can find.
pub(crate) struct Registered {
    pub(crate) listener: UnixListener,
    pub(crate) files: JobFiles,
    /// Why the history of the job cannot be written, if it is wanted.
    pub(crate) full: Option<HistoryError>,
    /// The files of its log, if it has a history.
    pub(crate) log: Option<(File, File)>,
}

/// Makes the directory of the job `name`, and listens there for clients.
pub(crate) fn register(
    name: &JobName,
    began: &Began,
    keep: Option<&Keep>,
) -> Result<Registered, ControlError> {
    let jobs = block(Jobs::open).map_err(ControlError::Directory)?;
    let path = jobs.path_of(name);
    let claimed = block(|| Claim::make(jobs, name, began, keep)).map_err(|error| match error {
        ClaimError::Running(name) => ControlError::NameTaken(name),
        cause => ControlError::Claim { path: path.clone(), cause },
    })?;
    let Claimed { claim, listener, full, log } = claimed;
    let claim = Arc::new(claim);
    let released = Arc::clone(&claim);
    let release = CleanUp::new(move || released.release());
    let files = JobFiles { claim, _release: Arc::new(release) };
    let full = full.map(|cause| HistoryError { path: path.clone(), cause });
    let listener = UnixListener::from_std(listener);
    let listener = listener.map_err(|cause| ControlError::Socket { path, cause })?;
    Ok(Registered { listener, files, full, log })
}

/// A job that was found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Found {
    /// It runs.
    Running(Client),
    /// Its process has ended.
    Ended(Box<PastJob>),
}

/// How long the process of a job may take to end when its control socket is no longer served.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// The job `name`, running or ended.
///
/// A job whose process is about to end is awaited, for half a minute at most.
///
/// # Errors
/// When there is no job of this name.
pub async fn lookup(name: &str) -> Result<Found, ControlError> {
    let jobs = block(Jobs::open).map_err(ControlError::Directory)?;
    let Ok(job) = name.parse::<JobName>() else { return Err(not_found(name).await) };
    let path = jobs.socket(&job);
    loop {
        // A job listens from the moment that it has a directory until it is about to end.
        let running = jobs.is_running(&job);
        if is_live(&path).await? {
            return Ok(Found::Running(Client::new(path)));
        }
        if running && !has_ended(&jobs, &job).await {
            return Err(not_found(name).await);
        }
        match block(|| jobs.past(&job)) {
            Some(past) => return Ok(Found::Ended(Box::new(past))),
            // It has started just now.
            None if jobs.is_running(&job) => {}
            None => return Err(not_found(name).await),
        }
    }
}

/// Waits until the process of a job has ended, for [`END_TIMEOUT`] at most. Returns whether it has.
pub(crate) async fn has_ended(jobs: &Jobs, name: &JobName) -> bool {
    let wait = tokio::task::spawn_blocking(jobs.end_of(name));
    matches!(tokio::time::timeout(END_TIMEOUT, wait).await, Ok(Ok(())))
}

/// Waits until the process of the job `name` has ended, with its machine. Cancel safe.
///
/// # Errors
/// When the directory of jobs cannot be used.
pub async fn wait_for_process(name: &JobName) -> Result<(), ControlError> {
    let jobs = block(Jobs::open).map_err(ControlError::Directory)?;
    // It does not panic, and is not aborted.
    let _ = tokio::task::spawn_blocking(jobs.end_of(name)).await;
    Ok(())
}

async fn not_found(name: &str) -> ControlError {
    let running = names().await.unwrap_or_default();
    ControlError::NotFound { name: name.to_owned(), place: history::place(), running }
}

/// A client of the job `name`.
///
/// # Errors
/// When no job of this name runs.
pub async fn find(name: &str) -> Result<Client, ControlError> {
    match lookup(name).await? {
        Found::Running(client) => Ok(client),
        Found::Ended(past) => Err(ControlError::Ended { name: name.to_owned(), past }),
    }
}

/// How long a process that was just started may take until clients find its job.
pub const START_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of the job `name`. If no job of this name runs, one that starts within
/// [`START_TIMEOUT`] is awaited: its process may have been started just now.
///
/// Cancel safe.
///
/// # Errors
/// As [`find`], after that time.
pub async fn find_starting(name: &str) -> Result<Client, ControlError> {
    let deadline = Instant::now() + START_TIMEOUT;
    let missing = |found: &Result<_, _>| {
        matches!(found, Err(ControlError::NotFound { .. } | ControlError::Ended { .. }))
    };
    let found = find(name).await;
    if !missing(&found) {
        return found;
    }
    let jobs = block(Jobs::open).map_err(ControlError::Directory)?;
    let cannot = |cause| ControlError::Watch { path: jobs.path().to_owned(), cause };
    let mut changes = Changes::of(jobs.path()).map_err(cannot)?;
    loop {
        // The job may have come before its directory was watched.
        let found = find(name).await;
        if !missing(&found) {
            return found;
        }
        match timeout_at(deadline, changes.next()).await {
            Err(_) => return found,
            Ok(changed) => changed.map_err(cannot)?,
        }
    }
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
    all_in(&block(Jobs::open).map_err(ControlError::Directory)?).await
}

pub(crate) async fn all_in(jobs: &Jobs) -> Result<Vec<Running>, ControlError> {
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

/// Removes the jobs that have ended and that `choose` accepts. Returns their names. Jobs that are
/// about to end are awaited, for half a minute at most.
///
/// # Errors
/// When the directory of jobs cannot be used, or a job cannot be removed.
pub async fn prune(choose: impl Fn(&PastJob) -> bool) -> Result<Vec<String>, ControlError> {
    let jobs = block(Jobs::open).map_err(ControlError::Directory)?;
    let deadline = Instant::now() + END_TIMEOUT;
    let mut removed = Vec::new();
    for name in block(|| jobs.names()).map_err(ControlError::Directory)? {
        if !settles(&jobs, &name, deadline).await {
            continue;
        }
        let remove = || match jobs.past(&name) {
            Some(past) if choose(&past) => jobs.remove(&name),
            _ => Ok(false),
        };
        if block(remove).map_err(ControlError::Directory)? {
            removed.push(name.to_string());
        }
    }
    Ok(removed)
}

/// Waits for a job that is about to end: its command has ended, and its process has not. Returns
/// whether no process runs it.
async fn settles(jobs: &Jobs, name: &JobName, deadline: Instant) -> bool {
    if !jobs.is_running(name) {
        return true;
    }
    let path = jobs.socket(name);
    if matches!(is_live(&path).await, Ok(true)) {
        let job = timeout_at(deadline, Client::new(path).job()).await;
        let ends = |job: &Job| matches!(job.state, JobState::Succeeded | JobState::Failed);
        if matches!(&job, Ok(Ok(job)) if !ends(job)) || job.is_err() {
            return false;
        }
    }
    timeout_at(deadline, has_ended(jobs, name)).await == Ok(true)
}

/// Removes the job `name`, which has ended; one that is about to end is awaited. With `force`, a
/// running one is killed first: its process and its machine, without waiting for artifacts.
///
/// # Errors
/// When there is no such job, when it runs, or when it cannot be removed.
pub async fn remove(name: &str, force: bool) -> Result<(), ControlError> {
    let jobs = block(Jobs::open).map_err(ControlError::Directory)?;
    let known = name.parse::<JobName>().ok().filter(|job| jobs.has(job));
    let Some(job) = known else { return Err(not_found(name).await) };
    if jobs.is_running(&job) {
        if force {
            if let Some(Some(pid)) = listener(&jobs.socket(&job)).await? {
                kill(pid);
            }
        } else if !settles(&jobs, &job, Instant::now() + END_TIMEOUT).await {
            return Err(ControlError::Running(name.to_owned()));
        }
    }
    let removal = move || {
        jobs.end_of(&job)();
        jobs.remove(&job)
    };
    let removed = tokio::time::timeout(END_TIMEOUT, tokio::task::spawn_blocking(removal)).await;
    match removed {
        Ok(Ok(removed)) => removed.map(drop).map_err(ControlError::Directory),
        Ok(Err(_)) | Err(_) => Err(ControlError::Running(name.to_owned())),
    }
}

/// Kills the process of a job. Its machine ends with it.
fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // It may have just ended.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Whether a process listens at `path`.
async fn is_live(path: &Path) -> Result<bool, ControlError> {
    Ok(listener(path).await?.is_some())
}

/// The process that listens at `path`, if there is one and as far as it is known.
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
            // Its process has ended, perhaps just now, with this connection in its queue.
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotFound => Ok(None),
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

    #[tokio::test]
    async fn a_listener_that_ends_meanwhile_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let ends = std::thread::spawn({
            let path = path.clone();
            move || {
                for _ in 0..5_000 {
                    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
                    std::fs::remove_file(&path).unwrap();
                }
            }
        });
        while !ends.is_finished() {
            listener(&path).await.unwrap();
        }
        ends.join().unwrap();
    }
}
