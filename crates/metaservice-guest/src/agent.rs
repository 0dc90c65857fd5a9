//! The agent: one job, and the host's actions all the while.
//!
//! Owns the order of things and the end of it. Job and polls run side by side; an action is a
//! task of its own, so nothing that an action does delays the next or the job.
//!
//! ```text
//!   fetch execute ─► job to its reported end ─► host silent for 60 s ─► exit
//!                └─► polls, actions ..............................┘     (not under our init)
//!   SIGTERM, SIGINT at any time: job and shells are killed, exit
//! ```
//!
//! The state stays until the next boot, whatever ends the agent: a host that was away for longer
//! finds the one that it knows, and a job that was reported is not run again. Only a host of
//! version 1, which cannot go on with a job, is given up with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metaservice_protocol::{Execute, Failure, FailureCode, SessionGrant};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::actions;
use crate::backoff::Backoff;
use crate::client::host::Host;
use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::diagnostics::{chain, say};
use crate::files::Transfers;
use crate::job::pending_replies::Partings;
use crate::job::renewal;
use crate::job::{self, Running};
use crate::shell::{Leftovers, Nursery};
use crate::state::{Folder, StateError};
use crate::supervise::{KILL_GRACE, signal_process};
use crate::system::oom;
use crate::system::processes::Process;

/// How long shells may take to end when the agent is stopped: their supervisors' grace and some.
const SHELLS_TIMEOUT: Duration = KILL_GRACE.saturating_add(Duration::from_secs(2));

/// How long a host may be silent after the result before nothing more is expected of it.
const FAREWELL: Duration = Duration::from_secs(60);

/// How an agent is to work.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where the service is.
    pub host: Host,
    /// What the image wants.
    pub config: Config,
    /// Where the state is kept; `None` is `/run/metaservice` for root, else
    /// `metaservice-guest` in `$XDG_RUNTIME_DIR`, else `/tmp/metaservice-guest-UID`.
    pub state: Option<PathBuf>,
    /// Whether a job that was begun or finished already is run again.
    pub again: bool,
    /// Whether to serve actions for ever, also when the host is gone after the result.
    pub stay: bool,
    /// How long a host may be silent after the result before the agent ends; `None` is 60 s.
    pub farewell: Option<Duration>,
}

/// An agent that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
}

/// What the actions need of their agent.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) execute: Execute,
    pub(crate) folder: Folder,
    pub(crate) running: Running,
    pub(crate) transfers: Transfers,
    pub(crate) nursery: Nursery,
    pub(crate) leftovers: Leftovers,
    pub(crate) partings: Partings,
    shells: AtomicU64,
}

impl Service {
    /// Sends the job's main process a signal.
    pub(crate) fn signal(&self, number: u8) -> Result<(), Failure> {
        let invalid = || Failure::new(FailureCode::Invalid, format!("signal {number} has no name"));
        let signal = Some(number).filter(|number| (1..=31).contains(number));
        let signal = signal.and_then(|number| Signal::from_named_raw(number.into()));
        let signal = signal.ok_or_else(invalid)?;
        let running = self.folder.main().filter(|_| self.folder.ending().is_none());
        let process = running.and_then(|main| Process::same(&main));
        let not_running = || Failure::new(FailureCode::NotRunning, "the command is not running");
        match signal_process(&process.ok_or_else(not_running)?, signal) {
            Ok(()) => Ok(()),
            Err(Errno::SRCH) => Err(not_running()),
            Err(errno) => {
                let reason = chain(&std::io::Error::from(errno));
                Err(Failure::new(FailureCode::PermissionDenied, reason))
            }
        }
    }

    /// A number for a shell's folder, used once.
    pub(crate) fn next_number(&self) -> u64 {
        self.shells.fetch_add(1, Ordering::Relaxed)
    }

    /// A path of the host's: a relative one refers to the job's folder.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        if path.is_absolute() || path == Path::new("") {
            return path.to_owned();
        }
        match &self.config.workdir {
            Some(workdir) => workdir.join(path),
            None => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        }
    }
}

/// Fetches the job, runs it, reports it and serves actions, until there is nothing left to do.
///
/// Must be called in a tokio runtime with I/O and time. Dropping the future cuts all
/// conversations and leaves a running command to an agent that is started later.
///
/// # Errors
/// [`AgentError`] before the job has begun, or when the state folder fails in the middle of it.
pub async fn run(settings: Settings) -> Result<(), AgentError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Signals)?;
    let (folder, _lock) = Folder::open_soon(settings.state.clone()).await?;
    folder.remove_shells();
    let running = Running::default();
    let (stop, stopping) = watch::channel(false);
    let mut actions = JoinSet::new();
    let worked = tokio::select! {
        worked = work(settings, &folder, &running, stopping, &mut actions) => Some(worked),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    stop.send_replace(true);
    let ended = async { while actions.join_next().await.is_some() {} };
    match worked {
        None => {
            let stopped = running.stop(&folder);
            let (_, ()) = tokio::join!(timeout(SHELLS_TIMEOUT, ended), stopped);
            Ok(())
        }
        Some(Ok(())) => {
            let _ = timeout(SHELLS_TIMEOUT, ended).await;
            Ok(())
        }
        Some(Err(error)) => Err(error.into()),
    }
}

async fn work(
    settings: Settings,
    folder: &Folder,
    running: &Running,
    stopping: watch::Receiver<bool>,
    actions: &mut JoinSet<()>,
) -> Result<(), StateError> {
    let client = Client::new(settings.host);
    let execute = fetch(&client, folder).await?;
    // Not before: an agent that waits for a job starts itself anew, and would find its own.
    oom::protect();
    let service = Arc::new(Service {
        client: client.clone(),
        config: settings.config,
        execute,
        folder: folder.clone(),
        running: running.clone(),
        transfers: Transfers::default(),
        nursery: Nursery::default(),
        leftovers: Leftovers::default(),
        partings: Partings::default(),
        shells: AtomicU64::new(0),
    });
    let (reported, leave) = watch::channel(false);
    let job = async {
        job::see_through(&service, settings.again).await?;
        reported.send_replace(!settings.stay);
        Ok(())
    };
    let polls = async {
        let farewell = settings.farewell.unwrap_or(FAREWELL);
        actions::run(&service, &stopping, (leave, farewell), actions).await;
        Ok(())
    };
    tokio::try_join!(job, polls)?;
    if !service.client.service().has_extensions() {
        // A host of version 1 keeps no job: the one that is there next has its own, even if it is
        // the same command.
        folder.forget()?;
    }
    Ok(())
}

/// Fetches the job, as soon as there is a network and a service on it, and claims it where the
/// service wants that.
async fn fetch(client: &Client, folder: &Folder) -> Result<Execute, StateError> {
    let mut grant = None;
    let mut backoff = Backoff::new();
    let mut said = false;
    loop {
        let error = match client.execute().await {
            Ok(execute) if client.has_session() || !client.service().session => {
                return Ok(with_secrets(execute, grant));
            }
            // It has not been claimed, or what we have is of another service.
            Ok(_) | Err(ClientError::Status { status: 401, .. }) => {
                match claim(client, folder).await? {
                    Ok(granted) => {
                        client.set_session(Some(&granted.secret));
                        grant = Some(granted);
                        continue;
                    }
                    Err(error) => error,
                }
            }
            Err(ClientError::Status { status: 503, .. }) if client.service().renewal => {
                folder.forget_agent()?;
                renewal::wait(client).await
            }
            Err(error) => error,
        };
        if !std::mem::replace(&mut said, true) {
            let reason = chain(&error);
            say(&format!("waiting for the service at {}: {reason}", client.host()));
        }
        tokio::time::sleep(backoff.delay()).await;
    }
}

/// The variables that only the claimant gets win over the job's others.
fn with_secrets(mut execute: Execute, grant: Option<SessionGrant>) -> Execute {
    execute.env.extend(grant.into_iter().flat_map(|grant| grant.env));
    execute
}

/// Claims the job, and remembers what comes of it for an agent that is started after this one.
async fn claim(
    client: &Client,
    folder: &Folder,
) -> Result<Result<SessionGrant, ClientError>, StateError> {
    client.set_session(None);
    // Written down first: an answer that is cut, or an agent that dies, can be asked for again.
    let nonce = folder.nonce()?;
    match client.claim(&nonce).await {
        Ok(mut grant) => {
            match folder.session().filter(|before| before.secret == grant.secret) {
                // What is given once was given to the agent before this one.
                Some(before) => grant.env.extend(before.env),
                // Another service has heard nothing of a result: its job is another one, even if it
                // is the same command.
                None if folder.is_reported() => folder.forget()?,
                None => {}
            }
            folder.set_session(&grant)?;
            Ok(Ok(grant))
        }
        Err(error) => Ok(Err(error)),
    }
}
