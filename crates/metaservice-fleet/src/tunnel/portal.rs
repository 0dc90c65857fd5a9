//! The client's end: a socket of this host that leads to a job on another one.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use metaservice_private::SocketPath;
use metaservice_private::bases::{NamedFilesError, temporary_for_names};
use metaservice_sandbox::exit::CleanUp;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::door::MAX_CONNECTIONS;
use super::flow::{Flow, Side};
use super::frame::Reason;
use super::nats::{NatsLink, incoming};
use super::pump::{Link, Opening, Pump};
use super::subject;
use crate::name::JobId;
use crate::queue::{Denied, Queue, ReadError};
use crate::state::Phase;

/// How long a worker may take to listen for a job that it has just claimed.
const CLAIM: Duration = Duration::from_secs(5);

/// How long to wait before it is asked again.
const RETRY: Duration = Duration::from_millis(250);

/// How long no connection is accepted after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no way to a job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortalError {
    /// No worker runs it yet.
    #[error("the job {0} waits for a worker")]
    Waits(JobId),
    /// It has its result.
    #[error("the job {0} has ended")]
    Ended(JobId),
    /// The queue cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The user may not enter jobs.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The worker refuses, or does not answer.
    #[error("cannot reach the job {id}")]
    Refused {
        /// The job.
        id: JobId,
        /// Why.
        #[source]
        reason: Reason,
    },
    /// There is no place for the socket.
    #[error("there is no place for a socket")]
    Place(#[source] NamedFilesError),
    /// The socket cannot be made.
    #[error("cannot make a socket in {}", path.display())]
    Socket {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// A socket of this process that leads to the control socket of a job of a queue. Only this user
/// can connect. Dropping it removes the socket and ends its connections.
#[derive(Debug)]
pub struct Portal {
    path: PathBuf,
    _serving: AbortOnDropHandle<()>,
    /// Also when the process is ended at once.
    _removal: CleanUp,
}

impl Portal {
    /// A way to the job, which must run. Waits until its worker has reached it: a machine may still
    /// boot.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// When the job does not run, or its worker cannot be reached.
    pub async fn open(queue: &Queue, id: &JobId) -> Result<Self, PortalError> {
        let deadline = Instant::now() + CLAIM;
        loop {
            let attempt = running(queue, id).await?;
            let probing = probe(queue, id, attempt);
            let subjects = format!("ms.open.{id}.{attempt}.>");
            match queue.denials().watch_all(&[&subjects], probing).await? {
                Ok(()) => return Self::to_attempt(queue, id, attempt),
                // The job may have just been claimed, or have just ended.
                Err(Reason::Silent | Reason::Ended) if Instant::now() < deadline => {
                    tokio::time::sleep(RETRY).await;
                }
                Err(reason) => return Err(PortalError::Refused { id: id.clone(), reason }),
            }
        }
    }

    /// A way to an attempt, without a look at whether it runs.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn to_attempt(queue: &Queue, id: &JobId, attempt: u32) -> Result<Self, PortalError> {
        let base = temporary_for_names().map_err(PortalError::Place)?;
        let failed = |cause| PortalError::Socket { path: base.clone(), cause };
        let mut builder = tempfile::Builder::new();
        builder.prefix("metaservice-").permissions(std::fs::Permissions::from_mode(0o700));
        let directory = builder.tempdir_in(&base).map_err(failed)?;
        let path = directory.path().join("socket");
        let address = SocketPath::of(&path).map_err(failed)?;
        let listener = UnixListener::bind(address.as_path()).map_err(failed)?;
        let serving = serve(listener, queue.clone(), id.clone(), attempt);
        let serving = AbortOnDropHandle::new(tokio::spawn(serving));
        let directory = directory.keep();
        let removal = CleanUp::new(move || drop(std::fs::remove_dir_all(directory)));
        Ok(Self { path, _serving: serving, _removal: removal })
    }

    /// The path of the socket, for a client of the control API.
    #[must_use]
    pub fn client_path(&self) -> &Path {
        &self.path
    }
}

/// The attempt that runs.
async fn running(queue: &Queue, id: &JobId) -> Result<u32, PortalError> {
    let job = queue.job(id).await?.ok_or_else(|| ReadError::NoJob(id.clone()))?;
    match job.phase {
        Phase::Running { .. } => Ok(job.attempt),
        Phase::Waiting { .. } => Err(PortalError::Waits(id.clone())),
        Phase::Ended { .. } => Err(PortalError::Ended(id.clone())),
    }
}

/// Opens a connection, and closes it.
async fn probe(queue: &Queue, id: &JobId, attempt: u32) -> Result<(), Reason> {
    let over = CancellationToken::new();
    let (link, messages) = connect(queue, id, attempt).await?;
    let mut flow = Flow::new(Side::Client);
    link.send(flow.open()).await?;
    Pump::new(flow, &link, messages.map(incoming), &over).opened().await
}

async fn connect(
    queue: &Queue,
    id: &JobId,
    attempt: u32,
) -> Result<(NatsLink, async_nats::Subscriber), Reason> {
    let client = queue.client().clone();
    let inbox = client.new_inbox();
    let messages = client.subscribe(inbox.clone()).await.map_err(|_| Reason::Silent)?;
    let (to, reply) = (subject::connection(id, attempt).into(), inbox.into());
    Ok((NatsLink { client, to, reply }, messages))
}

async fn serve(listener: UnixListener, queue: Queue, id: JobId, attempt: u32) {
    let over = CancellationToken::new();
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < MAX_CONNECTIONS;
        tokio::select! {
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => {
                    let (queue, id, over) = (queue.clone(), id.clone(), over.clone());
                    connections.spawn(async move {
                        if let Err(reason) = carry(stream, &queue, &id, attempt, &over).await {
                            tracing::debug!(%reason, "a connection to a job ended");
                        }
                    });
                }
                // There are no free descriptors.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(
    stream: UnixStream,
    queue: &Queue,
    id: &JobId,
    attempt: u32,
    over: &CancellationToken,
) -> Result<(), Reason> {
    let (link, messages) = connect(queue, id, attempt).await?;
    let mut flow = Flow::new(Side::Client);
    link.send(flow.open()).await?;
    let connecting = std::future::ready(Ok(stream));
    Pump::new(flow, &link, messages.map(incoming), over).run(connecting, Opening::Done).await
}
