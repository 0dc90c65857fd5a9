//! The running job, for the parts of the agent that signal it, kill it or wait for it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use metaservice_private::lock;
use metaservice_protocol::{ActionId, Execute, Failure, FailureCode};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::diagnostics::{print, with_causes};
use crate::state::{StateDirectory, StateError};
use crate::supervise::{KILL_GRACE, StartFailure, Supervisor};
use crate::system::processes::Process;

/// How long a supervisor may take to end its command and itself: both grace periods and a second.
const STOP_TIMEOUT: Duration = KILL_GRACE.saturating_mul(2).saturating_add(Duration::from_secs(1));

/// Controls the job. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct JobControl {
    state: StateDirectory,
    tracked: Arc<Mutex<TrackedSupervisor>>,
    hold: Arc<watch::Sender<Hold>>,
    begun: Arc<watch::Sender<bool>>,
    ended: Arc<watch::Sender<bool>>,
}

/// Whether a command that the job holds may start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Hold {
    /// Not yet.
    #[default]
    Held,
    /// It may.
    Released,
    /// The job was killed before.
    Killed,
}

#[derive(Debug, Default)]
struct TrackedSupervisor {
    supervisor: Option<Arc<Supervisor>>,
    /// Whether the supervisor has registered itself. Before that it may not handle signals yet.
    registered: bool,
    killed: bool,
}

impl JobControl {
    pub(crate) fn new(state: StateDirectory) -> Self {
        Self {
            state,
            tracked: Arc::default(),
            hold: Arc::default(),
            begun: Arc::default(),
            ended: Arc::default(),
        }
    }

    /// Lets a held command start. Does nothing if it has started, or if the job was killed.
    pub(crate) fn release(&self) {
        self.end_hold(Hold::Released);
    }

    /// Waits until a held command may start, or never will. Cancel-safe.
    pub(super) async fn released(&self) -> Hold {
        let mut hold = self.hold.subscribe();
        // The sender lives as long as `self`.
        hold.wait_for(|hold| *hold != Hold::Held).await.map_or(Hold::Killed, |hold| *hold)
    }

    /// Completes when the command was started, or the job has ended without it. Cancel-safe.
    pub(crate) async fn begun(&self) {
        let mut begun = self.begun.subscribe();
        // The sender lives as long as `self`.
        let _ = begun.wait_for(|begun| *begun).await;
    }

    fn end_hold(&self, to: Hold) {
        self.hold.send_if_modified(|hold| {
            let held = *hold == Hold::Held;
            if held {
                *hold = to;
            }
            held
        });
    }

    /// Completes when the job has ended. Cancel-safe.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as `self`.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Whether the job has ended.
    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Kills the job, now or as soon as it has a supervisor.
    pub(crate) fn kill(&self) {
        let mut tracked = self.lock();
        tracked.killed = true;
        self.end_hold(Hold::Killed);
        // After the command's end, the supervisor would stop to deliver the log instead.
        let running = tracked.registered && !self.has_ended();
        if let Some(supervisor) = tracked.supervisor.as_ref().filter(|_| running) {
            supervisor.end();
        }
    }

    /// Waits until the command has started, or cannot start. Returns whether it has. Cancel-safe.
    async fn started(&self) -> Result<bool, StateError> {
        let watch = self.state.watch()?;
        while !self.state.has_begun() && self.state.ending().is_none() {
            tokio::select! {
                () = watch.changed() => {}
                () = self.ended() => break,
            }
        }
        Ok(StartFailure::read(&self.state).is_none())
    }

    /// Sends a signal to the job's main process, now or as soon as it has started. Cancel-safe.
    ///
    /// # Errors
    /// A failure for the host: no such signal, no running command, or not permitted.
    pub(crate) async fn signal(&self, number: u8) -> Result<(), Failure> {
        let invalid = || Failure::new(FailureCode::Invalid, format!("signal {number} has no name"));
        let signal = Some(number).filter(|number| (1..=31).contains(number));
        let signal = signal.and_then(|number| Signal::from_named_raw(number.into()));
        let signal = signal.ok_or_else(invalid)?;
        let failed = |error| Failure::new(FailureCode::Other, with_causes(&error));
        let started = self.started().await.map_err(failed)?;
        let running = self.state.main().filter(|_| started && self.state.ending().is_none());
        let process = running.and_then(|main| Process::find_same(&main));
        let not_running = || Failure::new(FailureCode::NotRunning, "the command is not running");
        match process.ok_or_else(not_running)?.signal(signal) {
            Ok(()) => Ok(()),
            Err(Errno::SRCH) => Err(not_running()),
            Err(errno) => {
                let reason = with_causes(&std::io::Error::from(errno));
                Err(Failure::new(FailureCode::PermissionDenied, reason))
            }
        }
    }

    /// Hands an attach action to the supervisor of this job, which replies to it.
    ///
    /// # Errors
    /// A failure for the host: the command has no input, or has ended.
    pub(crate) fn attach(&self, id: &ActionId, execute: &Execute) -> Result<(), Failure> {
        if !execute.stdin && execute.terminal.is_none() {
            let message = "the command has neither a standard input nor a terminal";
            return Err(Failure::new(FailureCode::Invalid, message));
        }
        if self.has_ended() {
            return Err(Failure::new(FailureCode::NotRunning, "the command has ended"));
        }
        let failed = |error| Failure::new(FailureCode::Other, with_causes(&error));
        self.state.set_attach(id).map_err(failed)
    }

    /// Kills the job, if it runs, and waits until its supervisor is gone.
    pub(crate) async fn stop(&self) {
        let supervisor = self.lock().supervisor.clone();
        if let Some(supervisor) = supervisor {
            stop(&self.state, &supervisor).await;
        }
    }

    /// A supervisor was started.
    pub(super) fn set_supervisor(&self, supervisor: &Arc<Supervisor>) {
        self.lock().supervisor = Some(Arc::clone(supervisor));
    }

    /// The supervisor has registered itself and handles signals.
    pub(super) fn set_registered(&self, supervisor: &Arc<Supervisor>) {
        let mut tracked = self.lock();
        tracked.supervisor = Some(Arc::clone(supervisor));
        tracked.registered = true;
        self.begun.send_replace(true);
        if tracked.killed {
            supervisor.end();
        }
    }

    /// The command has ended. Its supervisor may still deliver the log.
    pub(super) fn set_ended(&self) {
        // With the lock: a kill is either before the end, or has no effect.
        let _tracked = self.lock();
        self.ended.send_replace(true);
    }

    /// The supervisor is gone, or there never was one.
    pub(super) fn set_gone(&self) {
        self.lock().supervisor = None;
        self.begun.send_replace(true);
        self.ended.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, TrackedSupervisor> {
        lock(&self.tracked)
    }
}

/// Ends a supervisor and its command.
pub(super) async fn stop(state: &StateDirectory, supervisor: &Supervisor) {
    let stopped = timeout(STOP_TIMEOUT, async {
        // A supervisor that was just started may not handle signals yet.
        let _ = supervisor.registered(state).await;
        if state.ending().is_none() {
            supervisor.end();
        }
        let _ = supervisor.ending(state).await;
        // Now it waits until the service has the log. The second signal ends that.
        supervisor.end();
        supervisor.gone().await;
    });
    if stopped.await.is_err() {
        print("the command's supervisor does not end");
    }
}
