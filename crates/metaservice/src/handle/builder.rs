//! The service of one job before it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use metaservice_protocol::{Execute, TerminalSize};
use tokio::io::AsyncWrite;
use tokio::sync::{Semaphore, watch};

use crate::MetaService;
use crate::guest::cloud::Cloud;
use crate::guest::connection::WIDE_PLACES;
use crate::guest::reception::Reception;
use crate::handle::service::Inner;
use crate::job::actions::Actions;
use crate::job::contact::Contacts;
use crate::job::disk::DiskWork;
use crate::job::limits::{Bounds, Storage};
use crate::job::log::{History, Holes, Log, Record};
use crate::job::persistence::{StateError, Store};
use crate::job::result::{self, JobResult};
use crate::job::session::{Session, SessionMode};

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
    bounds: Bounds,
    state: Option<PathBuf>,
    disk_work: DiskWork,
    agents: BTreeMap<String, Bytes>,
    cloud: Option<Cloud>,
    hostname: Option<String>,
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
    pub(crate) fn new(command: Vec<String>) -> Self {
        Self {
            execute: Execute { command, ..Execute::default() },
            log: Box::pin(tokio::io::sink()),
            on_result: None,
            temporary_folder: std::env::temp_dir(),
            keep_log: 0,
            session: SessionMode::default(),
            secrets: BTreeMap::new(),
            host_names: BTreeSet::new(),
            bounds: Bounds::default(),
            state: None,
            disk_work: DiskWork::default(),
            agents: BTreeMap::new(),
            cloud: None,
            hostname: None,
        }
    }

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

    /// Called once when the guest reports the result, on a thread where it may block; by a service
    /// that goes on from a [state](Self::state) with a result in it, once when it starts.
    /// [`MetaService::result`] is the same as a future.
    #[must_use]
    pub fn on_result(mut self, callback: impl FnOnce(JobResult) + Send + 'static) -> Self {
        self.on_result = Some(Box::new(callback));
        self
    }

    /// What the guest may take of the host.
    #[must_use]
    pub fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// The most bytes of the log; by default 64 GiB. One more is a [failure](MetaService::log_failed)
    /// of the log, after what came before.
    #[must_use]
    pub fn max_log(mut self, bytes: u64) -> Self {
        self.bounds.log = bytes;
        self
    }

    /// The most bytes of a file of the guest's in temporary storage; by default 64 GiB. One more
    /// is [`ArtifactError::Storage`](crate::ArtifactError::Storage).
    #[must_use]
    pub fn max_artifact(mut self, bytes: u64) -> Self {
        self.bounds.artifact = bytes;
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

    /// Where the service's blocking work on files is done; by default on threads of its own.
    #[must_use]
    pub fn disk_work(mut self, work: DiskWork) -> Self {
        self.disk_work = work;
        self
    }

    /// Hands out a static agent to guests that lack one, by `OS-ARCH` (`linux-x86_64`), and the script
    /// that installs it: `GET /engine/v1/agent/install`. Anybody in the guest may have them, with or
    /// without a session. The last agent of a platform wins.
    #[must_use]
    pub fn agent(mut self, platform: impl Into<String>, program: impl Into<Bytes>) -> Self {
        self.agents.insert(platform.into(), program.into());
        self
    }

    /// Answers a stock cloud image's cloud-init, so that it sets itself up and takes the
    /// [agent](Self::agent) in. Without it these paths are none.
    #[must_use]
    pub fn cloud(mut self, cloud: Cloud) -> Self {
        self.cloud = Some(cloud);
        self
    }

    /// The name that a machine gets which goes on from a [`Preparation`](crate::Preparation).
    #[must_use]
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }

    /// Looks whether the folder of the [state](Self::state) is this job's, or nobody's yet, and
    /// starts nothing. It only reads: the folder may be in use, or not be there.
    ///
    /// # Errors
    /// [`StartError::State`], as from [`start`](Self::start), for what is another job's, damaged,
    /// or cannot be read.
    pub fn check_state(&self) -> Result<(), StartError> {
        let Some(folder) = &self.state else { return Ok(()) };
        Store::check(folder, &self.execute)
            .map_err(|source| StartError::State { folder: folder.clone(), source })
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
            let opened = open_state(folder, &self.execute, self.disk_work, history.as_ref());
            opened.map_err(|source| StartError::State { folder: folder.clone(), source })
        };
        let (store, record) = self.state.as_ref().map(state).transpose()?.unzip();
        let mut cloud = self.cloud;
        if let (Some(store), Some(cloud)) = (&store, &mut cloud) {
            let instance = store.instance(&cloud.instance_id);
            cloud.instance_id = instance.map_err(|source| StartError::State {
                folder: self.state.clone().unwrap_or_default(),
                source,
            })?;
        }
        let reception = Reception::new(self.agents, cloud.as_ref());
        let promised = store.as_ref().map(|store| store.promised().clone()).unwrap_or_default();
        let log = Log::start(self.log, self.bounds.log, history, record);
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
            holes: Arc::new(Holes::new(promised.log_hole)),
            outcome,
            fetched: watch::Sender::new(promised.fetched()),
            agent: watch::Sender::new(None),
            actions: Actions::new(terminated.subscribe()),
            terminated,
            temporary_folder: folder,
            disk_work: self.disk_work,
            contact: Contacts::default(),
            session: Session::new(self.session, self.secrets, promised.session),
            store,
            host_names: self.host_names,
            reception,
            hostname: self.hostname,
            wide: Semaphore::new(WIDE_PLACES),
            streams: Arc::new(Semaphore::new(self.bounds.streams.min(Semaphore::MAX_PERMITS))),
            storage: Storage::new(self.bounds.storage),
            bounds: self.bounds,
        })))
    }
}

/// The state in a folder, and the log in it.
fn open_state(
    folder: &Path,
    execute: &Execute,
    work: DiskWork,
    history: Option<&History>,
) -> Result<(Arc<Store>, Record), StateError> {
    let store = Arc::new(Store::open(folder, execute, work)?);
    let log = store.log()?;
    if let Some(history) = history {
        history.refill(&log, store.promised().log.length)?;
    }
    let record = Record::new(log, Arc::clone(&store));
    Ok((store, record))
}
