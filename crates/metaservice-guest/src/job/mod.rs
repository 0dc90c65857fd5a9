//! The job as its agent sees it: taken up, followed to its end, reported.
//!
//! Owns what a restarted agent does. A command is started once, by the supervisor that makes
//! the claim, and only where there is none; what else the folder says decides the rest.
//!
//! | in the folder | the agent |
//! | --- | --- |
//! | another job, or `--again` | stops what still runs, forgets it, begins |
//! | the same job, no claim | starts the command |
//! | claim, its supervisor runs | waits for the ending and the log, reports |
//! | claim, no supervisor, ending | reports; where the log was not delivered, says so in it |
//! | claim, no supervisor, no ending | reports the job as lost, and says so in the log |
//! | reported | serves actions |

pub(crate) mod pending_replies;
pub(crate) mod renewal;

use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use metaservice_private::lock;

use bytes::Bytes;
use metaservice_protocol::{Ending, Execute, LogPlace, Reason};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::agent::Service;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::client::body::Body;
use crate::diagnostics::{chain, say};
use crate::program::Program;
use crate::state::{Folder, StateError};
use crate::supervise::{self, KILL_GRACE, Kind, LogRoute, Order, Supervisor};
use crate::system::processes::Process;

/// How long a supervisor may take to end its command and itself: both of its graces and some.
const STOP_TIMEOUT: Duration = KILL_GRACE.saturating_mul(2).saturating_add(Duration::from_secs(1));

/// What is to be done about a job.
#[derive(Debug)]
enum Standing {
    Running(Arc<Supervisor>),
    /// Over: what the log should still say, and how it ended.
    Over(Option<String>, Ending),
    Reported,
}

/// The running job, for whoever wants it killed.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    state: Arc<Mutex<State>>,
    over: Arc<watch::Sender<bool>>,
}

#[derive(Debug, Default)]
struct State {
    supervisor: Option<Arc<Supervisor>>,
    /// Whether the supervisor has made its claim: before that it may not be ready for a signal.
    begun: bool,
    killed: bool,
}

impl Default for Running {
    fn default() -> Self {
        Self { state: Arc::default(), over: Arc::new(watch::Sender::new(false)) }
    }
}

impl Running {
    /// Completes when the job has ended, also when it had before.
    pub(crate) async fn over(&self) {
        let mut over = self.over.subscribe();
        // The sender lives as long as `self`.
        let _ = over.wait_for(|over| *over).await;
    }

    /// Whether the job has ended.
    pub(crate) fn has_ended(&self) -> bool {
        *self.over.borrow()
    }

    /// Tells the job to die, now or as soon as it has begun.
    pub(crate) fn kill(&self) {
        let mut state = self.lock();
        state.killed = true;
        // Once it has ended, its supervisor would take that for the end of the log's time.
        let running = state.begun && !self.has_ended();
        if let Some(supervisor) = state.supervisor.as_ref().filter(|_| running) {
            supervisor.end();
        }
    }

    fn starts(&self, supervisor: &Arc<Supervisor>) {
        self.lock().supervisor = Some(Arc::clone(supervisor));
    }

    fn has_begun(&self, supervisor: &Arc<Supervisor>) {
        let mut state = self.lock();
        state.supervisor = Some(Arc::clone(supervisor));
        state.begun = true;
        if state.killed {
            supervisor.end();
        }
    }

    /// The command has ended; its log may still be on its way.
    fn ends(&self) {
        let _state = self.lock();
        self.over.send_replace(true);
    }

    fn is_over(&self) {
        self.lock().supervisor = None;
        self.over.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Kills the job, if it runs, and waits until nothing of it is left.
    pub(crate) async fn stop(&self, folder: &Folder) {
        let supervisor = self.lock().supervisor.clone();
        if let Some(supervisor) = supervisor {
            stop(folder, &supervisor).await;
        }
    }
}

async fn stop(folder: &Folder, supervisor: &Supervisor) {
    let stopped = timeout(STOP_TIMEOUT, async {
        // One that has only just been started could not make sense of a signal yet.
        let _ = is_claimed(folder, supervisor).await;
        if folder.ending().is_none() {
            supervisor.end();
        }
        let _ = ending(folder, supervisor).await;
        // It waits for somebody to take the log. Nobody will.
        supervisor.end();
        supervisor.gone().await;
    });
    if stopped.await.is_err() {
        say("the command's supervisor does not end");
    }
}

/// Takes the job up where the folder says it is, and brings it to its reported end.
///
/// Dropping the future leaves the command running, and everything in the folder that another
/// call needs to go on.
///
/// # Errors
/// [`StateError`] when the folder cannot be used. Whatever else goes wrong is the job's result.
pub(crate) async fn see_through(service: &Service, again: bool) -> Result<(), StateError> {
    let Service { client, folder, config, execute, running, partings, .. } = service;
    let same = folder.execute().as_ref() == Some(execute);
    if again || !same {
        if let Some(supervisor) = folder.claim().as_ref().and_then(Supervisor::find) {
            say("an earlier job still runs and is stopped");
            stop(folder, &supervisor).await;
        }
        folder.forget()?;
        folder.set_execute(execute)?;
    }
    let (note, ending) =
        match look(client, folder, execute, &Program::job(config, execute), running).await? {
            Standing::Reported => {
                running.is_over();
                return Ok(());
            }
            Standing::Over(note, ending) => {
                running.is_over();
                (note, ending)
            }
            Standing::Running(supervisor) => {
                running.has_begun(&supervisor);
                match follow(folder, &supervisor, running).await? {
                    Some(ending) if folder.is_delivered() => (None, ending),
                    Some(ending) => (Some(CUT_LOG.to_owned()), ending),
                    None => (Some(lost()), Ending::new(Reason::Lost)),
                }
            }
        };
    if let Some(note) = note {
        say(&note);
        say_in_log(client, &format!("metaservice-guest: {note}\n")).await;
    }
    partings.said().await;
    report(client, &ending).await;
    folder.set_reported()
}

async fn look(
    client: &Client,
    folder: &Folder,
    execute: &Execute,
    program: &Program,
    running: &Running,
) -> Result<Standing, StateError> {
    if folder.is_reported() {
        return Ok(Standing::Reported);
    }
    if folder.claim().is_none() {
        match start(client, folder, execute, program, running).await? {
            Ok(supervisor) => return Ok(Standing::Running(supervisor)),
            Err(note) if folder.claim().is_none() => {
                let ending = Ending::new(Reason::NotExecutable);
                return Ok(Standing::Over(Some(note), ending));
            }
            // Another supervisor was faster; it has the job.
            Err(_) => {}
        }
    }
    let claim = folder.claim();
    if let Some(supervisor) = claim.as_ref().and_then(Supervisor::find) {
        return Ok(Standing::Running(Arc::new(supervisor)));
    }
    Ok(match folder.ending() {
        Some(ending) if folder.is_delivered() => Standing::Over(None, ending),
        Some(ending) => Standing::Over(Some(CUT_LOG.to_owned()), ending),
        None => Standing::Over(Some(lost()), Ending::new(Reason::Lost)),
    })
}

const CUT_LOG: &str = "the end of the command's log is lost: its supervisor was stopped";

fn lost() -> String {
    "the command is lost: its supervisor is gone without a word".to_owned()
}

/// Starts the command; what went wrong otherwise, in words.
async fn start(
    client: &Client,
    folder: &Folder,
    execute: &Execute,
    program: &Program,
    running: &Running,
) -> Result<Result<Arc<Supervisor>, String>, StateError> {
    let terminal = execute.terminal;
    let numbered = client.service().log;
    let log = Some(LogRoute { host: client.host().authority().to_owned(), numbered });
    let order = Order { terminal, log, ..Order::new(folder, Kind::Job, false, program) };
    let mut command = supervise::command(&order, &program.env);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let supervisor = match Supervisor::spawn(&mut command) {
        Ok(supervisor) => Arc::new(supervisor),
        Err(error) => {
            let name = program.words.first().map_or("", String::as_str);
            return Ok(Err(format!("cannot run '{name}': {}", chain(&error))));
        }
    };
    running.starts(&supervisor);
    is_claimed(folder, &supervisor).await?;
    // It may be the claim of another one, which an agent before this one had started.
    if folder.claim().is_some_and(|claim| supervisor.made(&claim)) {
        Ok(Ok(supervisor))
    } else {
        Ok(Err("the command's supervisor could not start".to_owned()))
    }
}

/// Waits until the folder has a claim; `false` when the supervisor is gone without one.
async fn is_claimed(folder: &Folder, supervisor: &Supervisor) -> Result<bool, StateError> {
    let watch = folder.watch()?;
    loop {
        if folder.claim().is_some() {
            return Ok(true);
        }
        tokio::select! {
            () = watch.changed() => {}
            () = supervisor.gone() => return Ok(folder.claim().is_some()),
        }
    }
}

/// Waits until a running command has ended and its supervisor has delivered the log.
async fn follow(
    folder: &Folder,
    supervisor: &Supervisor,
    running: &Running,
) -> Result<Option<Ending>, StateError> {
    let ending = ending(folder, supervisor).await?;
    running.ends();
    supervisor.gone().await;
    running.is_over();
    Ok(ending)
}

/// Waits until the supervisor has left word of the ending; `None` when it is gone without.
async fn ending(folder: &Folder, supervisor: &Supervisor) -> Result<Option<Ending>, StateError> {
    let watch = folder.watch()?;
    loop {
        if let Some(ending) = folder.ending() {
            return Ok(Some(ending));
        }
        tokio::select! {
            () = watch.changed() => {}
            () = supervisor.gone() => return Ok(folder.ending()),
        }
    }
}

/// Adds a line of the agent's own to the log, if the service takes it.
async fn say_in_log(client: &Client, line: &str) {
    let own = Process::find(rustix::process::getpid().as_raw_pid()).map(Process::claim);
    let stream = own.and_then(|own| own.as_id()).filter(|_| client.service().log);
    let place = stream.map(|stream| LogPlace { stream, offset: 0 });
    let mut backoff = Backoff::new();
    loop {
        let body = Body::Whole(Bytes::copy_from_slice(line.as_bytes()));
        let said = match &place {
            Some(place) => client.log_at(place, body).await,
            None => client.log(body).await,
        };
        match said {
            Err(error) if error.status().is_none() => tokio::time::sleep(backoff.delay()).await,
            _ => return,
        }
    }
}

/// Reports until the service has the result, this one or another.
async fn report(client: &Client, ending: &Ending) {
    let mut backoff = Backoff::new();
    let mut said = false;
    loop {
        match client.report(ending).await {
            Ok(()) => return,
            Err(error) if error.status() == Some(409) => {
                say("the service has another result for this job");
                return;
            }
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    say(&format!("the result is not reported yet: {}", chain(&error)));
                }
                tokio::time::sleep(backoff.delay()).await;
            }
        }
    }
}
