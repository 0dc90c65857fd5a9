//! The settings of a service that has not started yet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

#[cfg(feature = "cloud")]
use bytes::Bytes;
use metaservice_protocol::{Execute, TerminalSize, Volume};
use tokio::io::AsyncWrite;
use tokio::sync::{Semaphore, watch};

#[cfg(feature = "cloud")]
use crate::guest::cloud::instance::Cloud;
use crate::guest::connection::serve::WIDE_PERMITS;
use crate::guest::context::GuestContext;
use crate::guest::reception::Reception;
use crate::handle::service::MetaService;
use crate::job::actions::Actions;
use crate::job::contact::Contacts;
use crate::job::disk::DiskWork;
use crate::job::limits::{Limits, Storage};
use crate::job::log::{History, Holes, Log, LogSinks, Record};
use crate::job::persistence::{StateError, Store};
use crate::job::result::{JobResult, ResultSlot};
use crate::job::session::{Session, SessionMode};
use crate::job::state::Job;

impl MetaService {
    /// Begins the service of a job that runs `command`, a program and its arguments. An empty
    /// command leaves the choice to the guest's configured entry point.
    #[must_use]
    pub fn builder<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Builder {
        Builder::new(command.into_iter().map(Into::into).collect())
    }
}

/// The settings of a service; see [`MetaService::builder`].
pub struct Builder {
    execute: Execute,
    sinks: LogSinks,
    on_result: Option<Box<dyn FnOnce(JobResult) + Send>>,
    temporary_directory: PathBuf,
    keep_log: u64,
    keep_log_in: Option<(File, File)>,
    session: SessionMode,
    secrets: BTreeMap<String, String>,
    host_names: BTreeSet<String>,
    limits: Limits,
    state: Option<PathBuf>,
    disk_work: DiskWork,
    #[cfg(feature = "cloud")]
    agents: BTreeMap<String, Bytes>,
    #[cfg(feature = "cloud")]
    cloud: Option<Cloud>,
    hostname: Option<String>,
    extensions: bool,
}

/// Why a service cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The temporary directory does not exist, is not a directory, or cannot be written.
    #[error("cannot use {} for temporary files", .directory.display())]
    TemporaryDirectory {
        /// The directory.
        directory: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The [state directory](Builder::state) cannot be used.
    #[error("cannot use {} for the job's state", .directory.display())]
    State {
        /// The directory.
        directory: PathBuf,
        /// The cause.
        #[source]
        source: StateError,
    },
}

impl Builder {
    fn new(command: Vec<String>) -> Self {
        Self {
            execute: Execute { command, ..Execute::default() },
            sinks: LogSinks { log: Box::pin(tokio::io::sink()), stderr: None },
            on_result: None,
            temporary_directory: std::env::temp_dir(),
            keep_log: 0,
            keep_log_in: None,
            session: SessionMode::default(),
            secrets: BTreeMap::new(),
            host_names: BTreeSet::new(),
            limits: Limits::default(),
            state: None,
            disk_work: DiskWork::default(),
            #[cfg(feature = "cloud")]
            agents: BTreeMap::new(),
            #[cfg(feature = "cloud")]
            cloud: None,
            hostname: None,
            extensions: true,
        }
    }

    /// Adds a variable to the command's environment. Of two with the same name, the later one wins.
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

    /// Gives the command a terminal of this size; its output is the log. An agent of version 1 runs
    /// the command without one.
    #[must_use]
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        self.execute.terminal = Some(size);
        self
    }

    /// Runs the command in this directory of the guest, in place of the one that the agent's
    /// configuration names. An agent that cannot do this ends the job; see
    /// [`Reason::Unsupported`](crate::Reason::Unsupported).
    #[must_use]
    pub fn workdir(mut self, directory: impl Into<String>) -> Self {
        self.execute.workdir = Some(directory.into());
        self
    }

    /// Runs the command as this user, in place of the one that the agent's configuration names:
    /// `NAME`, `UID`, `NAME:GROUP` or `UID:GID`. An agent that cannot do this ends the job.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.execute.user = Some(user.into());
        self
    }

    /// Puts these words in front of the command, in place of those of the agent's configuration.
    /// Empty is none. An agent that cannot do this ends the job.
    #[must_use]
    pub fn entrypoint<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.execute.entrypoint = Some(words.into_iter().map(Into::into).collect());
        self
    }

    /// Has the agent mount these directories of the host before the command starts, in this order.
    /// The machine must have their devices. An agent that cannot do this ends the job.
    #[must_use]
    pub fn volumes(mut self, volumes: impl IntoIterator<Item = Volume>) -> Self {
        self.execute.volumes.extend(volumes);
        self
    }

    /// Holds the command back until [`MetaService::start_command`]. Meanwhile the agent performs
    /// actions. An agent that cannot do this ends the job.
    #[must_use]
    pub fn hold(mut self) -> Self {
        self.execute.hold = true;
        self
    }

    /// Has the agent set this host name, if it may. With an agent that cannot, the guest keeps its
    /// own; see [`MetaService::without`].
    #[must_use]
    pub fn set_hostname(mut self, name: impl Into<String>) -> Self {
        self.execute.hostname = Some(name.into());
        self
    }

    /// Gives the command a stdin that the host feeds, by
    /// [`MetaService::attach`](crate::MetaService::attach). Without it, stdin is `/dev/null`, or a
    /// terminal without input. An agent that cannot do this ends the job; see
    /// [`Reason::Unsupported`](crate::Reason::Unsupported).
    #[must_use]
    pub fn stdin(mut self, feeds: bool) -> Self {
        self.execute.stdin = feeds;
        self
    }

    /// Whether an agent has to claim the job; see [`SessionMode`].
    #[must_use]
    pub fn session(mut self, mode: SessionMode) -> Self {
        self.session = mode;
        self
    }

    /// Adds a variable to the command's environment that only the agent gets that claims the job,
    /// and only once. With a secret, [`SessionMode::Required`] applies whatever the
    /// [mode](Self::session).
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.secrets.insert(name.into(), value.into());
        self
    }

    /// Allows a name of the service in requests' `Host` header. Addresses, names without a dot, and
    /// names under `internal`, `local` and `localhost` are always allowed.
    #[must_use]
    pub fn host_name(mut self, name: impl Into<String>) -> Self {
        self.host_names.insert(name.into().to_ascii_lowercase());
        self
    }

    /// Asks the agent to deliver stdout and stderr of the command as two outputs of the log; by
    /// default they are one, in the order in which the command wrote. An agent that cannot, such as
    /// one of version 1, delivers them as one. With a [terminal](Self::terminal) there is one.
    ///
    /// The log has both in the order in which they arrived. See
    /// [`LogReader::next_segment`](crate::LogReader::next_segment), and
    /// [`log_stderr`](Self::log_stderr).
    #[must_use]
    pub fn separate(mut self, separate: bool) -> Self {
        self.execute.separate = separate;
        self
    }

    /// The log sink: where the host writes the log. By default the log is discarded. A slow sink
    /// holds the guest back.
    #[must_use]
    pub fn log(mut self, sink: impl AsyncWrite + Send + 'static) -> Self {
        self.sinks.log = Box::pin(sink);
        self
    }

    /// Writes the part of the log that is stderr to this sink instead of the [log sink](Self::log).
    /// The service flushes one of them before it writes to the other, so that both can lead to the
    /// same file.
    #[must_use]
    pub fn log_stderr(mut self, sink: impl AsyncWrite + Send + 'static) -> Self {
        self.sinks.stderr = Some(Box::pin(sink));
        self
    }

    /// A function that is called once when the guest reports the result, on a thread where it may
    /// block. If the [state directory](Self::state) has a result already, it is called at the
    /// start. [`MetaService::result`] is the same as a future.
    #[must_use]
    pub fn on_result(mut self, callback: impl FnOnce(JobResult) + Send + 'static) -> Self {
        self.on_result = Some(Box::new(callback));
        self
    }

    /// What the guest may use of the host.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Keeps the last `bytes` of the log in the temporary directory, for
    /// [`MetaService::log_reader`]. 0, the default, keeps nothing.
    #[must_use]
    pub fn keep_log(mut self, bytes: u64) -> Self {
        self.keep_log = bytes;
        self
    }

    /// Where the [kept](Self::keep_log) part of the log is stored, for a
    /// [`StoredLog`](crate::StoredLog) after the end; by default in files without names. What was
    /// in the files is lost. They must be open for reading and writing, and not for appending.
    #[must_use]
    pub fn keep_log_in(mut self, log: File, index: File) -> Self {
        self.keep_log_in = Some((log, index));
        self
    }

    /// Where files of the guest are stored while the host reads them; by default the system's
    /// directory for temporary files. The files there have no names.
    #[must_use]
    pub fn temporary_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.temporary_directory = directory.into();
        self
    }

    /// The state directory: everything that the service acknowledges to its guest is written there
    /// before. Another service that is started there for the same command and environment takes
    /// the job over, however the first one ended; the guest notices a pause. The directory is
    /// created if it does not exist, and its file `log` is the whole log. One service can use it
    /// at a time.
    ///
    /// The exception is the log of an agent of version 1. It is persisted once a second.
    #[must_use]
    pub fn state(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state = Some(directory.into());
        self
    }

    /// Where blocking work on files is done; by default on threads.
    #[must_use]
    pub fn disk_work(mut self, work: DiskWork) -> Self {
        self.disk_work = work;
        self
    }

    /// Offers a static agent to guests that have none, by platform as `OS-ARCH` (`linux-x86_64`),
    /// with a script that installs it: `GET /engine/v1/agent/install`. Each process of the guest
    /// can fetch both, with or without a session. Of two agents for a platform, the later one wins.
    #[cfg(feature = "cloud")]
    #[must_use]
    pub fn agent(mut self, platform: impl Into<String>, program: impl Into<Bytes>) -> Self {
        self.agents.insert(platform.into(), program.into());
        self
    }

    /// Answers the cloud-init of a stock cloud image, so that the image configures itself and
    /// installs the [agent](Self::agent). Without it, the metadata's paths do not exist.
    #[cfg(feature = "cloud")]
    #[must_use]
    pub fn cloud(mut self, cloud: Cloud) -> Self {
        self.cloud = Some(cloud);
        self
    }

    /// The host name of a machine that was restored from a snapshot and waited at an
    /// [`IdleService`](crate::IdleService).
    #[must_use]
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }

    /// Whether the service announces extensions of the protocol to agents, as it does by default.
    /// Without, each agent behaves as one of version 1: for tests and comparisons.
    #[must_use]
    pub fn extensions(mut self, announce: bool) -> Self {
        self.extensions = announce;
        self
    }

    /// Checks that the [state directory](Self::state) belongs to this job or to none. It only
    /// reads, and starts nothing: another service may use the directory, and it may not exist.
    ///
    /// # Errors
    /// [`StartError::State`] as from [`start`](Self::start), if the directory belongs to another
    /// job, is damaged, or cannot be read.
    pub fn check_state(&self) -> Result<(), StartError> {
        let Some(directory) = &self.state else { return Ok(()) };
        Store::check(directory, &self.execute)
            .map_err(|source| StartError::State { directory: directory.clone(), source })
    }

    /// Starts the service.
    ///
    /// # Errors
    /// [`StartError`] if the temporary directory or the state directory cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    pub fn start(mut self) -> Result<MetaService, StartError> {
        let mut history = self.open_temporary_directory()?;
        let (store, record) = self.open_state(history.as_mut())?.unzip();
        let reception = self.reception(store.as_deref())?;
        let state = store.as_ref().map(|store| store.persisted().clone()).unwrap_or_default();
        let log = Log::start(self.sinks, self.limits.log, history, record);
        let result = ResultSlot::new(self.on_result);
        if let Some(persisted) = state.result() {
            // The first result is never in conflict.
            let _ = result.resolve(persisted);
        }
        complete_log_with_result(&log, &result);
        let terminated = watch::Sender::new(false);
        let job = Job {
            execute: self.execute,
            log,
            holes: Arc::new(Holes::new(state.log_hole)),
            result,
            fetched: watch::Sender::new(state.fetched()),
            agent: watch::Sender::new(None),
            without: watch::Sender::default(),
            actions: Actions::new(terminated.subscribe()),
            input: Arc::default(),
            feeder: Mutex::default(),
            terminated,
            temporary_directory: self.temporary_directory,
            disk_work: self.disk_work,
            contact: Contacts::new(&self.limits),
            session: Session::new(self.session, self.secrets, state.session),
            store,
            streams: Arc::new(Semaphore::new(self.limits.streams.min(Semaphore::MAX_PERMITS))),
            storage: Storage::new(self.limits.storage),
            limits: self.limits,
        };
        Ok(MetaService::new(GuestContext {
            job: Arc::new(job),
            host_names: self.host_names,
            extensions: self.extensions,
            reception,
            hostname: self.hostname,
            wide: Semaphore::new(WIDE_PERMITS),
        }))
    }

    /// Checks that the temporary directory can be written, and creates what keeps the log there.
    fn open_temporary_directory(&mut self) -> Result<Option<History>, StartError> {
        let files = self.keep_log_in.take();
        let open = |directory: &Path| {
            tempfile::tempfile_in(directory)?;
            match (self.keep_log, files) {
                (0, _) => Ok(None),
                (bytes, Some((log, index))) => History::create_in(log, index, bytes).map(Some),
                (bytes, None) => History::create(directory, bytes).map(Some),
            }
        };
        open(&self.temporary_directory).map_err(|source| StartError::TemporaryDirectory {
            directory: self.temporary_directory.clone(),
            source,
        })
    }

    /// Opens the state directory, and the log in it.
    fn open_state(
        &self,
        history: Option<&mut History>,
    ) -> Result<Option<(Arc<Store>, Record)>, StartError> {
        let Some(directory) = &self.state else { return Ok(None) };
        let open = || {
            let store = Arc::new(Store::open(directory, &self.execute, self.disk_work)?);
            let record = Record::open(Arc::clone(&store))?;
            if let Some(history) = history {
                history.refill(&record)?;
            }
            Ok((store, record))
        };
        open()
            .map(Some)
            .map_err(|source| StartError::State { directory: directory.clone(), source })
    }

    /// What a machine without an agent gets. The instance id is persisted.
    #[cfg(feature = "cloud")]
    fn reception(&mut self, store: Option<&Store>) -> Result<Reception, StartError> {
        if let (Some(store), Some(cloud)) = (store, &mut self.cloud) {
            let instance = store.instance(cloud.instance_id());
            cloud.set_instance_id(instance.map_err(|source| StartError::State {
                directory: self.state.clone().unwrap_or_default(),
                source,
            })?);
        }
        Ok(Reception::new(std::mem::take(&mut self.agents), self.cloud.as_ref()))
    }

    #[cfg(not(feature = "cloud"))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)]
    fn reception(&mut self, _: Option<&Store>) -> Result<Reception, StartError> {
        Ok(Reception)
    }
}

/// Ends following readers of the log once the job has a result and no log request is under way. The
/// task ends with the job: it keeps neither the job nor its handle.
fn complete_log_with_result(log: &Log, result: &ResultSlot) {
    let (log, mut resolved) = (log.clone(), result.subscribe());
    tokio::spawn(async move {
        // An error means that the job is gone.
        if resolved.wait_for(Option::is_some).await.is_ok() {
            log.idle().await;
            log.complete().await;
        }
    });
}

impl fmt::Debug for Builder {
    /// Shows no variable: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("command", &self.execute.command)
            .field("session", &self.session)
            .field("limits", &self.limits)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
