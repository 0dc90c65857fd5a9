//! The service of one job: how it is built, and what the host does with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::ws::WebSocket;
use axum::serve::Listener;
use metaservice_protocol::limits::ACTION_ATTEMPTS;
use metaservice_protocol::shell::Dialect;
use metaservice_protocol::{
    Action, ActionId, Agent, Capability, Execute, Reason, Request, TerminalSize,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::actions::{Actions, Outcome};
use crate::artifact::Artifact;
use crate::error::{ActionError, ArtifactError, ListFolderError};
use crate::log::{History, Log, LogError, LogFrom, LogReader, Record};
use crate::result::{self, JobResult};
use crate::session::{Session, SessionMode};
use crate::shell::{Shell, Wire};
use crate::state::{Promised, StateError, Store};
use crate::{connection, endpoints};

/// How many connections [`MetaService::serve`] keeps open at once; one more waits.
const MAX_CONNECTIONS: usize = 1024;

/// The most bytes of a log, and of a file, where nothing else was said.
const MAX_BYTES: u64 = 64 << 30;

/// How long answers may still be written after a shutdown.
const LINGER: Duration = Duration::from_secs(2);

/// The settings of a service that has not started yet; see [`MetaService::builder`].
pub struct Builder {
    execute: Execute,
    log: Pin<Box<dyn AsyncWrite + Send>>,
    on_result: Option<Box<dyn FnOnce(JobResult) + Send>>,
    temporary_folder: PathBuf,
    keep_log: u64,
    session: SessionMode,
    secrets: BTreeMap<String, String>,
    host_names: BTreeSet<String>,
    max_log: u64,
    max_artifact: u64,
    state: Option<PathBuf>,
}

/// Why a service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The temporary folder does not exist, is no folder, or cannot be written.
    #[error("cannot use {} for temporary files", .folder.display())]
    TemporaryFolder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The folder of the [state](Builder::state) cannot be used.
    #[error("cannot use {} for the job's state", .folder.display())]
    State {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: StateError,
    },
}

impl Builder {
    /// Adds a variable to the command's environment; a later one of the same name wins.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.execute.env.insert(name.into(), value.into());
        self
    }

    /// Adds several variables.
    #[must_use]
    pub fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.execute.env.extend(variables);
        self
    }

    /// Gives the command a terminal of this size, whose output is the log (an extension: an
    /// agent of version 1 runs the command without).
    #[must_use]
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        self.execute.terminal = Some(size);
        self
    }

    /// Whether a guest's agent has to claim the service; see [`SessionMode`].
    #[must_use]
    pub fn session(mut self, mode: SessionMode) -> Self {
        self.session = mode;
        self
    }

    /// Adds a variable to the command's environment that is given once, to the agent that claims
    /// the service: whoever else asks for the job does not see it. With one, nothing is served to
    /// an agent that has not claimed the service, whatever the [mode](Self::session).
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.secrets.insert(name.into(), value.into());
        self
    }

    /// A name by which guests know the service, in their requests' `Host` header. Addresses,
    /// names without a dot and names under `internal`, `local` and `localhost` need not be told.
    #[must_use]
    pub fn host_name(mut self, name: impl Into<String>) -> Self {
        self.host_names.insert(name.into().to_ascii_lowercase());
        self
    }

    /// Where the log goes; by default nowhere. When it is slow, the guest is held back.
    #[must_use]
    pub fn log(mut self, drain: impl AsyncWrite + Send + 'static) -> Self {
        self.log = Box::pin(drain);
        self
    }

    /// Called once when the guest reports the result, on a thread where it may block.
    /// [`MetaService::result`] is the same as a future.
    #[must_use]
    pub fn on_result(mut self, callback: impl FnOnce(JobResult) + Send + 'static) -> Self {
        self.on_result = Some(Box::new(callback));
        self
    }

    /// The most bytes of the log; by default 64 GiB. One more is a [failure](MetaService::log_failed)
    /// of the log, after what came before.
    #[must_use]
    pub fn max_log(mut self, bytes: u64) -> Self {
        self.max_log = bytes;
        self
    }

    /// The most bytes of a file of the guest's in temporary storage; by default 64 GiB. One more
    /// is [`ArtifactError::Storage`](crate::ArtifactError::Storage).
    #[must_use]
    pub fn max_artifact(mut self, bytes: u64) -> Self {
        self.max_artifact = bytes;
        self
    }

    /// Keeps the last so many bytes of the log in the temporary folder, for
    /// [`MetaService::log_reader`]; 0, the default, keeps nothing.
    #[must_use]
    pub fn keep_log(mut self, bytes: u64) -> Self {
        self.keep_log = bytes;
        self
    }

    /// Where files of the guest's are kept while somebody reads them; by default the
    /// system's folder for temporary files. The files have no names there.
    #[must_use]
    pub fn temporary_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.temporary_folder = folder.into();
        self
    }

    /// Keeps in this folder what the guest has been promised: a service that is started there
    /// later, for the same command and environment, goes on where this one ended, however it
    /// ended. The guest notices a pause. The folder is made if need be, and holds the whole log in
    /// a file `log`. One service uses it at a time.
    ///
    /// What an agent of version 1 has logged is promised after a second; everything else before
    /// the guest's request is answered.
    #[must_use]
    pub fn state(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state = Some(folder.into());
        self
    }

    /// Starts the service.
    ///
    /// # Errors
    /// [`StartError`] when the temporary folder or the one for the state cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub fn start(self) -> Result<MetaService, StartError> {
        let folder = self.temporary_folder;
        tempfile::tempfile_in(&folder)
            .map_err(|source| StartError::TemporaryFolder { folder: folder.clone(), source })?;
        let history = match self.keep_log {
            0 => None,
            bytes => Some(History::create(&folder, bytes).map_err(|source| {
                StartError::TemporaryFolder { folder: folder.clone(), source }
            })?),
        };
        let terminated = watch::Sender::new(false);
        let state = |folder: &PathBuf| {
            let opened = open_state(folder, &self.execute, history.as_ref());
            opened.map_err(|source| StartError::State { folder: folder.clone(), source })
        };
        let (store, record) = self.state.as_ref().map(state).transpose()?.unzip();
        let promised = store.as_ref().map(|store| store.promised().clone()).unwrap_or_default();
        let log = Log::start(self.log, self.max_log, history, record);
        let outcome = result::Outcome::new(self.on_result);
        if let Some(result) = promised.result() {
            // The first resolution conflicts with nothing.
            let _ = outcome.resolve(result);
        }
        let (completed, mut resolved) = (log.clone(), outcome.subscribe());
        tokio::spawn(async move {
            // An error means that the service is gone, and its log with this clone.
            if resolved.wait_for(Option::is_some).await.is_ok() {
                completed.idle().await;
                completed.complete().await;
            }
        });
        Ok(MetaService(Arc::new(Inner {
            execute: self.execute,
            log,
            outcome,
            fetched: watch::Sender::new(promised.fetched()),
            agent: watch::Sender::new(None),
            actions: Actions::new(terminated.subscribe()),
            terminated,
            temporary_folder: folder,
            session: Session::new(self.session, self.secrets, promised.session),
            store,
            host_names: self.host_names,
            max_artifact: self.max_artifact,
        })))
    }
}

pub(crate) struct Inner {
    pub(crate) execute: Execute,
    pub(crate) log: Log,
    pub(crate) outcome: result::Outcome,
    pub(crate) fetched: watch::Sender<Option<SystemTime>>,
    pub(crate) agent: watch::Sender<Option<Agent>>,
    pub(crate) actions: Actions,
    pub(crate) terminated: watch::Sender<bool>,
    pub(crate) temporary_folder: PathBuf,
    pub(crate) session: Session,
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) host_names: BTreeSet<String>,
    pub(crate) max_artifact: u64,
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
    /// Begins the service of a job that runs `command`, a program and its arguments. An
    /// empty command leaves it to the guest's configured entry point.
    #[must_use]
    pub fn builder<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Builder {
        let command = command.into_iter().map(Into::into).collect();
        Builder {
            execute: Execute { command, ..Execute::default() },
            log: Box::pin(tokio::io::sink()),
            on_result: None,
            temporary_folder: std::env::temp_dir(),
            keep_log: 0,
            session: SessionMode::default(),
            secrets: BTreeMap::new(),
            host_names: BTreeSet::new(),
            max_log: MAX_BYTES,
            max_artifact: MAX_BYTES,
            state: None,
        }
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
    /// What hyper says of a connection that broke or did not speak HTTP/1.1.
    pub async fn serve_connection<IO>(&self, io: IO) -> Result<(), hyper::Error>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        connection::serve(io, self.router(), self.0.terminated.subscribe()).await
    }

    /// Serves every connection of `listener`, up to 1024 at once, until the
    /// service is [shut down](Self::shutdown); then answers that are on their way may
    /// take another two seconds. Dropping the future closes everything at once.
    pub async fn serve<L: Listener>(self, mut listener: L) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
        match self.attempt(&Request::GetArtifact { path }).await {
            Outcome::Artifact(artifact) => artifact,
            other => Err(ActionError::from(other).into()),
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
        match self.attempt(&Request::ListFolder { path: path.into() }).await {
            Outcome::Files(files) if files.not_found => Err(ListFolderError::NotFound),
            Outcome::Files(files) => Ok(files.files.unwrap_or_default()),
            other => Err(ActionError::from(other).into()),
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
        match self.once(Request::ExecShell { command, tty }, Dialect::V2).await {
            Outcome::Shell(socket, dialect) => Ok(self.start_shell(*socket, dialect)),
            other => Err(other.into()),
        }
    }

    pub(crate) fn start_shell(&self, socket: WebSocket, dialect: Dialect) -> Shell {
        Shell::start(Wire::from_axum(socket), dialect, self.0.terminated.subscribe())
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
        match self.attempt(&Request::KillProcess).await {
            Outcome::Done => Ok(()),
            other => Err(other.into()),
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

    /// Answers every poll that waits now with `none`, so that the guest asks anew: for
    /// a machine that is about to be paused, saved or moved.
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

    async fn attempt(&self, request: &Request) -> Outcome {
        let mut attempts = 1;
        loop {
            match self.once(request.clone(), Dialect::V2).await {
                Outcome::Broken(cause) if attempts < ACTION_ATTEMPTS => {
                    tracing::debug!(%cause, attempts, action = request.name(), "trying again");
                    attempts += 1;
                }
                outcome => return outcome,
            }
        }
    }

    pub(crate) async fn once(&self, request: Request, dialect: Dialect) -> Outcome {
        self.0.actions.submit(Action { id: new_id(), request }, dialect).await
    }
}

/// The state in a folder, and the log in it.
fn open_state(
    folder: &Path,
    execute: &Execute,
    history: Option<&History>,
) -> Result<(Arc<Store>, Record), StateError> {
    let store = Arc::new(Store::open(folder, execute)?);
    let log = store.log()?;
    if let Some(history) = history {
        history.refill(&log, store.promised().log.length)?;
    }
    let record = Record::new(log, Arc::clone(&store));
    Ok((store, record))
}

/// An id that no action had before and no guest can guess: 128 random bits.
pub(crate) fn new_id() -> ActionId {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("Linux gives random bytes once it has booted");
    let id = format!("{:032x}", u128::from_ne_bytes(bits));
    ActionId::parse(&id).expect("hexadecimal digits are URL-safe")
}
