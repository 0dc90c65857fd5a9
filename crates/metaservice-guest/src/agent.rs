//! The agent: runs one job, and serves the host's actions meanwhile.
//!
//! Owns the composition of the other modules, the order of events and the end. The job and the
//! polls run concurrently.
//!
//! ```text
//!   fetch the job ─► job to its reported result ─► host silent for 60 s ─► exit
//!                └─► polls and actions .............................┘     (not with `--stay`)
//!   SIGTERM or SIGINT at any time: the job and the shells are killed, exit
//! ```
//!
//! The state directory stays until the next boot, however the agent ends. If a host comes back
//! late, the next agent continues with its session, and does not run a reported job again. A host
//! of version 1 cannot continue a job, so its job is forgotten.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::actions::dispatch::Actions;
use crate::actions::poll::{self, Leave};
use crate::client::Client;
use crate::client::host::Host;
use crate::config::Config;
use crate::files::write::Writes;
use crate::job::control::JobControl;
use crate::job::pending_replies::PendingReplies;
use crate::job::run::Job;
use crate::job::session;
use crate::shell::Shells;
use crate::state::{StateDirectory, StateError};
use crate::supervise::KILL_GRACE;
use crate::system::{host_name, oom};
use crate::volumes;

/// How long shells may take to end when the agent stops: the grace period and two seconds.
const SHELLS_TIMEOUT: Duration = KILL_GRACE.saturating_add(Duration::from_secs(2));

/// How long the host may be silent after the result before the agent ends.
const HOST_TIMEOUT: Duration = Duration::from_secs(60);

/// How an agent works.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where the service is.
    pub(crate) host: Host,
    /// The settings of the image.
    pub(crate) config: Config,
    /// The state directory. `None` is `/run/metaservice` for root, else `metaservice-guest` in
    /// `$XDG_RUNTIME_DIR`, else `/tmp/metaservice-guest-UID`.
    pub(crate) state: Option<PathBuf>,
    /// Whether to run a job that was started or reported before.
    pub(crate) again: bool,
    /// Whether to serve actions for ever, even if the host is silent after the result.
    pub(crate) stay: bool,
    /// How long the host may be silent after the result; `None` is [`HOST_TIMEOUT`].
    pub(crate) host_timeout: Option<Duration>,
}

/// Why an agent does not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
}

/// Fetches the job, runs it, reports its result and serves actions, until the host is gone or this
/// process gets SIGTERM.
///
/// Must be called in a tokio runtime with I/O and time. Dropping the future closes all connections,
/// and leaves a running command to the next agent.
///
/// # Errors
/// When the agent cannot start, or the state directory fails later.
pub(crate) async fn run(settings: Settings) -> Result<(), AgentError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Signals)?;
    let (state, _lock) = StateDirectory::open_soon(settings.state.clone()).await?;
    state.remove_shells();
    let control = JobControl::new(state.clone());
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let worked = tokio::select! {
        worked = work(settings, state, control.clone(), stopping, &mut tasks) => Some(worked),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    stop.send_replace(true);
    let ended = async { while tasks.join_next().await.is_some() {} };
    match worked {
        None => {
            let (_, ()) = tokio::join!(timeout(SHELLS_TIMEOUT, ended), control.stop());
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
    state: StateDirectory,
    control: JobControl,
    stopping: watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<(), StateError> {
    let Settings { host, config, again, stay, host_timeout, .. } = settings;
    let client = Client::new(host);
    let execute = Arc::new(session::fetch(&client, &state).await?);
    // Not before: while it waits for a job, the agent may exec itself, and would then take its own
    // lowered score for that of commands.
    oom::protect();
    if let Some(name) = &execute.hostname {
        host_name::set(name);
    }
    let config = Arc::new(config.for_job(&execute));
    // Before anything that a process could be started by: a volume can be the root.
    let prepared = volumes::mount(&execute.volumes, &state).await;
    let pending_replies = PendingReplies::default();
    let job = Job {
        client: client.clone(),
        state: state.clone(),
        config: Arc::clone(&config),
        execute: Arc::clone(&execute),
        prepared,
        control: control.clone(),
        pending_replies: pending_replies.clone(),
    };
    let actions = Arc::new(Actions {
        client: client.clone(),
        config: Arc::clone(&config),
        execute: Arc::clone(&execute),
        job: control.clone(),
        pending_replies: pending_replies.clone(),
        writes: Writes::new(config.user.clone()),
        shells: Shells::new(
            client.clone(),
            config,
            execute,
            state.clone(),
            control,
            pending_replies,
        ),
    });
    let (reported, allowed) = watch::channel(false);
    let running = async {
        job.run(again).await?;
        reported.send_replace(!stay);
        Ok(())
    };
    let polling = async {
        let leave = Leave { allowed, silence: host_timeout.unwrap_or(HOST_TIMEOUT) };
        poll::run(&actions, &stopping, leave, tasks).await;
        Ok(())
    };
    tokio::try_join!(running, polling)?;
    if !client.service().has_extensions() {
        // The next host of version 1 has a job of its own, even if the command is the same.
        state.forget_job()?;
    }
    Ok(())
}
