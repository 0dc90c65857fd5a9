//! The service of one job: how it is built, and what the host does with it.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::serve::Listener;
use metaservice_protocol::shell::StreamProtocol;
use metaservice_protocol::{
    Action, ActionId, ActionRequest, AgentInfo, Capability, Execute, Reason,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::guest::reception::Reception;
use crate::guest::{connection, endpoints};
use crate::handle::builder::Builder;
use crate::handle::error::{ActionError, ArtifactError, ListFolderError};
use crate::handle::shell::{Connected, Shell, Wire};
use crate::job::actions::{Actions, Attempt, AttemptError, Received};
use crate::job::artifact::Artifact;
use crate::job::contact::{Contact, Contacts};
use crate::job::disk::DiskWork;
use crate::job::limits::{Bounds, Storage};
use crate::job::log::{Holes, Log, LogError, LogFrom, LogReader};
use crate::job::persistence::{Promised, Store};
use crate::job::result::{self, JobResult};
use crate::job::session::Session;

/// How long answers may still be written after a shutdown.
const LINGER: Duration = Duration::from_secs(2);

pub(crate) struct Inner {
    pub(crate) execute: Execute,
    pub(crate) log: Log,
    pub(crate) holes: Arc<Holes>,
    pub(crate) outcome: result::Outcome,
    pub(crate) fetched: watch::Sender<Option<SystemTime>>,
    pub(crate) agent: watch::Sender<Option<AgentInfo>>,
    pub(crate) actions: Actions,
    pub(crate) terminated: watch::Sender<bool>,
    pub(crate) temporary_folder: PathBuf,
    pub(crate) disk_work: DiskWork,
    pub(crate) session: Session,
    pub(crate) contact: Contacts,
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) host_names: BTreeSet<String>,
    pub(crate) reception: Reception,
    pub(crate) hostname: Option<String>,
    pub(crate) bounds: Bounds,
    pub(crate) storage: Arc<Storage>,
    pub(crate) streams: Arc<Semaphore>,
    /// Places for connections that read much at once.
    pub(crate) wide: Semaphore,
}

/// The metadata service of one job, and the host's handle on it. Clones share the job.
///
/// *Serving:* [`serve`](Self::serve), [`serve_connection`](Self::serve_connection),
/// [`router`](Self::router). *The job:* [`fetched`](Self::fetched), [`is_fetched`](Self::is_fetched), [`result`](Self::result),
/// [`try_result`](Self::try_result). *Actions:* [`get_artifact`](Self::get_artifact),
/// [`list_folder`](Self::list_folder), [`exec_shell`](Self::exec_shell),
/// [`kill_process`](Self::kill_process). *The end:* [`stop_pollers`](Self::stop_pollers),
/// [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct MetaService(pub(crate) Arc<Inner>);

impl MetaService {
    /// Gives the job to whoever claims it next, with all its secrets, as when the machine that has
    /// claimed it was given up for another one. `false`, and nothing, once the job was fetched, or
    /// when a [state](crate::Builder::state) is kept: it was promised then.
    pub fn release(&self) -> bool {
        let free = !self.is_fetched() && self.0.store.is_none();
        if free {
            self.0.session.release();
        }
        free
    }

    /// Begins the service of a job that runs `command`, a program and its arguments. An
    /// empty command leaves it to the guest's configured entry point.
    #[must_use]
    pub fn builder<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Builder {
        Builder::new(command.into_iter().map(Into::into).collect())
    }

    /// The end-points as a router, for a server of your own. Websocket upgrades need a
    /// server that supports them. Such a server does not tell when an answer has
    /// left: an action then counts as handed out once the server has read the answer.
    pub fn router(&self) -> Router {
        endpoints::router(self.clone())
    }

    /// Serves one byte stream until it ends, or until the answer under way at
    /// [`shutdown`](Self::shutdown) is written. Dropping the future closes the connection.
    ///
    /// # Errors
    /// Of a connection that broke or did not speak HTTP/1.1.
    pub async fn serve_connection<IO>(&self, io: IO) -> io::Result<()>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        connection::serve(io, self).await
    }

    /// Serves every connection of `listener`, up to [so many](Bounds::connections) at once, until the
    /// service is [shut down](Self::shutdown); then answers that are on their way may
    /// take another two seconds. Dropping the future closes everything at once.
    pub async fn serve<L: Listener>(self, mut listener: L) {
        let places =
            Arc::new(Semaphore::new(self.0.bounds.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let mut connections = JoinSet::new();
        let mut terminated = self.0.terminated.subscribe();
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await.0)
            };
            tokio::select! {
                (place, io) = next => {
                    let service = self.clone();
                    connections.spawn(async move {
                        let _place = place;
                        if let Err(error) = service.serve_connection(io).await {
                            tracing::debug!(%error, "a connection ended with an error");
                        }
                    });
                }
                // Finished connections are let go as they finish.
                Some(_) = connections.join_next() => {}
                _ = terminated.wait_for(|terminated| *terminated) => break,
            }
        }
        drop(listener);
        let finished = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LINGER, finished).await;
    }

    /// Waits until the guest has fetched its command, which is the first sign of life.
    pub async fn fetched(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.fetched.subscribe().wait_for(Option::is_some).await;
    }

    /// Whether the guest has fetched its command.
    #[must_use]
    pub fn is_fetched(&self) -> bool {
        self.fetched_at().is_some()
    }

    /// When the guest has fetched its command first, perhaps from a service before this one.
    #[must_use]
    pub fn fetched_at(&self) -> Option<SystemTime> {
        *self.0.fetched.borrow()
    }

    /// What is known of the guest's agent: whether it is there, silent or refused.
    #[must_use]
    pub fn contact(&self) -> Contact {
        self.0.contact.get()
    }

    /// Waits until something else is known of the guest's agent than `before`. Dropping the future
    /// changes nothing.
    pub async fn contact_changed(&self, before: Contact) -> Contact {
        self.0.contact.changed(before).await
    }

    /// Whether the guest's log may lack bytes: one of an agent of version 1 that was cut, or under
    /// way when the service was started anew from its [state](crate::Builder::state).
    #[must_use]
    pub fn log_has_hole(&self) -> bool {
        self.0.holes.has()
    }

    /// Waits until no log request is under way, as when all connections of a machine that has gone
    /// have ended.
    pub async fn log_idle(&self) {
        self.0.log.idle().await;
    }

    /// Waits until the guest's log [may lack bytes](Self::log_has_hole).
    pub async fn log_hole(&self) {
        self.0.holes.found().await;
    }

    /// Waits for the result. Dropping the future changes nothing.
    pub async fn result(&self) -> JobResult {
        self.0.outcome.wait().await
    }

    /// The result, if the guest has reported it.
    #[must_use]
    pub fn try_result(&self) -> Option<JobResult> {
        self.0.outcome.get()
    }

    /// Waits until the log drain fails; for ever while it does not. The guest is told by
    /// an `InternalError`; what becomes of the job is the caller's decision.
    pub async fn log_failed(&self) -> LogError {
        self.0.log.failed().await
    }

    /// A reader of what is [kept](Builder::keep_log) of the log, from a place on; with `follow`
    /// it waits for more until the job has a result and no log request is under way, or the service
    /// is shut down. `None` when nothing is kept.
    ///
    /// # Errors
    /// What the system says of the file in which it is kept.
    pub async fn log_reader(&self, from: LogFrom, follow: bool) -> io::Result<Option<LogReader>> {
        self.0.log.reader(from, follow).await.transpose()
    }

    /// Fetches a file of the guest's as it is now.
    ///
    /// # Errors
    /// [`ArtifactError`]; a broken transport is tried three times. With an agent of ours a cut
    /// file is resumed where it was cut, and checked by its digest.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the action and frees what was received.
    pub async fn get_artifact(&self, path: impl Into<String>) -> Result<Artifact, ArtifactError> {
        let path = path.into();
        if self.can(Capability::Read)
            && let Some(spooled) = self.spool(&path).await
        {
            return spooled;
        }
        match self.act_v1(ActionRequest::GetArtifact { path }).await? {
            Received::Artifact(artifact) => artifact,
            other => Err(other.unexpected().into()),
        }
    }

    /// Lists every plain file below a folder of the guest's, recursively, by absolute path.
    /// The names are the guest's words: treat them as text, never as host paths.
    ///
    /// # Errors
    /// [`ListFolderError`]; a broken transport is tried three times.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the action.
    pub async fn list_folder(
        &self,
        path: impl Into<String>,
    ) -> Result<Vec<String>, ListFolderError> {
        match self.act_v1(ActionRequest::ListFolder { path: path.into() }).await? {
            Received::Files(files) if files.not_found => Err(ListFolderError::NotFound),
            Received::Files(files) => Ok(files.files.unwrap_or_default()),
            other => Err(other.unexpected().into()),
        }
    }

    /// Starts a command in the guest, beside the job, with streams of its own. An empty
    /// command is the guest's default shell; `tty` gives it a terminal.
    ///
    /// # Errors
    /// [`ActionError`]; this is tried once only, as a second try could run it twice.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the action; a shell that had just started is aborted.
    pub async fn exec_shell<S: Into<String>>(
        &self,
        command: impl IntoIterator<Item = S>,
        tty: bool,
    ) -> Result<Shell, ActionError> {
        let command = command.into_iter().map(Into::into).collect();
        let place = self.place()?;
        match self.act_v1(ActionRequest::ExecShell { command, tty }).await? {
            Received::Stream(socket, protocol, admitted) => {
                Ok(self.start_shell(Connected { socket: *socket, protocol, place, admitted }))
            }
            other => Err(other.unexpected()),
        }
    }

    pub(crate) fn start_shell(&self, connected: Connected) -> Shell {
        let Connected { socket, protocol, place, admitted } = connected;
        let wire = Wire::from_axum(socket, place, admitted);
        Shell::start(wire, protocol, self.0.terminated.subscribe())
    }

    /// A place for one stream more.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, ActionError> {
        let place = Arc::clone(&self.0.streams).try_acquire_owned();
        place.map_err(|_| ActionError::TooMany(self.0.bounds.streams))
    }

    /// Tells the guest to kill the job's command and everything under it. Returns when
    /// the guest has done so; the result is then reported as of any command that died.
    /// A guest may be beyond listening: also end its machine where it matters.
    ///
    /// # Errors
    /// [`ActionError`]; a broken transport is tried three times.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the action, unless the guest has it already.
    pub async fn kill_process(&self) -> Result<(), ActionError> {
        match self.act_v1(ActionRequest::KillProcess).await? {
            Received::Done => Ok(()),
            other => Err(other.unexpected()),
        }
    }

    /// As [`kill_process`](Self::kill_process), because the command's time is over: a guest that
    /// reports it as killed has its ending's reason changed to [`Reason::TimedOut`].
    ///
    /// # Errors
    /// [`ActionError`]; a broken transport is tried three times.
    pub async fn time_out(&self) -> Result<(), ActionError> {
        self.0.outcome.killed_for(Reason::TimedOut);
        self.kill_process().await
    }

    /// Answers every poll that waits now with `none`, and every later one at once, until the
    /// service ends: for a machine that is about to be stopped. Actions are not handed out any more.
    pub fn stop_pollers(&self) {
        self.0.actions.stop_pollers();
    }

    /// Ends the service: every pending action and every shell ends as terminated,
    /// [`serve`](Self::serve) returns, and what was received of the log is written and
    /// flushed before this returns.
    ///
    /// # Errors
    /// [`LogError`] when the log could not be written.
    pub async fn shutdown(&self) -> Result<(), LogError> {
        self.0.terminated.send_replace(true);
        self.0.actions.stop_pollers();
        let flushed = self.0.log.flush().await;
        self.0.log.complete().await;
        flushed
    }

    /// Promises something, where promises are kept.
    pub(crate) async fn promise(
        &self,
        what: impl FnOnce(&mut Promised) + Send + 'static,
    ) -> io::Result<()> {
        match &self.0.store {
            Some(store) => store.promise(what).await,
            None => Ok(()),
        }
    }

    /// Whether the agent has announced this.
    pub(crate) fn can(&self, capability: Capability) -> bool {
        self.0.agent.borrow().as_ref().is_some_and(|agent| agent.capabilities.has(capability))
    }

    async fn act_v1(&self, request: ActionRequest) -> Result<Received, ActionError> {
        Ok(self.act(request, StreamProtocol::V2).await?)
    }

    /// Has the guest perform an action, as often as the protocol's table allows if the connection
    /// breaks. A stream is of this protocol at most.
    pub(crate) async fn act(&self, request: ActionRequest, protocol: StreamProtocol) -> Attempt {
        let description = request.description();
        let mut attempts = 1;
        loop {
            let action = Action { id: new_id(), request: request.clone() };
            match self.0.actions.submit(action, protocol).await {
                Err(AttemptError::Action(ActionError::Transport(cause)))
                    if attempts < description.host_attempts =>
                {
                    tracing::debug!(%cause, attempts, action = description.name, "trying again");
                    attempts += 1;
                }
                outcome => return outcome,
            }
        }
    }
}

/// An id that no action had before and no guest can guess: 128 random bits.
pub(crate) fn new_id() -> ActionId {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("Linux gives random bytes once it has booted");
    let id = format!("{:032x}", u128::from_ne_bytes(bits));
    ActionId::parse(&id).expect("hexadecimal digits are URL-safe")
}
