//! The job from its start to its reported result, in one agent or in several one after another.
//!
//! Owns what a restarted agent does. A command is started once, by the supervisor that registers
//! itself in the state directory. The other files there decide the rest:
//!
//! | in the state directory | the agent |
//! | --- | --- |
//! | another job, or `--again` | stops what still runs, forgets it, starts |
//! | the same job, no supervisor | starts the command, if the job holds it after a start action |
//! | a supervisor that runs | waits for the ending and the log, reports |
//! | a supervisor that is gone, an ending, `delivered` | reports |
//! | a supervisor that is gone, an ending | reports, and adds to the log that its end is lost |
//! | a supervisor that is gone, no ending | reports the job as lost, and adds that to the log |
//! | `reported` | serves actions |

use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use metaservice_protocol::{Ending, Execute, Failure, FailureCode, LogOutput, LogPlace, Reason};

use super::control::{Hold, JobControl, stop};
use super::pending_replies::PendingReplies;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::client::body::Body;
use crate::config::Config;
use crate::diagnostics::{print, with_causes};
use crate::program::Program;
use crate::state::{StateDirectory, StateError};
use crate::supervise::{Kind, LogRoute, Order, Supervisor, supervisor_command};
use crate::system::processes::Process;
use crate::volumes;

const CUT_LOG: &str = "the end of the command's log is lost: its supervisor was stopped";
const LOST: &str = "the command is lost: its supervisor ended without a result";

/// The job, and what is needed to run it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) client: Client,
    pub(crate) state: StateDirectory,
    pub(crate) config: Arc<Config>,
    pub(crate) execute: Arc<Execute>,
    /// Whether the machine is as the job needs it, or why not.
    pub(crate) prepared: Result<(), String>,
    pub(crate) control: JobControl,
    pub(crate) pending_replies: PendingReplies,
}

/// What there is to do for the job.
#[derive(Debug)]
enum Stage {
    Running(Arc<Supervisor>),
    Ended(Outcome),
    Reported,
}

/// How the job ended, and a line for the log if not everything went well.
#[derive(Debug)]
struct Outcome {
    note: Option<String>,
    ending: Ending,
}

impl Job {
    /// Takes up the job at the stage that the state directory shows, and brings it to its reported
    /// result. With `again`, a job that was started or reported before is run again.
    ///
    /// Dropping the future leaves the command running. A later call continues from the state
    /// directory.
    ///
    /// # Errors
    /// When the state directory cannot be used. Any other error is the job's result.
    pub(crate) async fn run(&self, again: bool) -> Result<(), StateError> {
        let Self { state, execute, control, .. } = self;
        let known = state.execute();
        if again || !known.is_some_and(|known| known.is_same_job(execute)) {
            if let Some(supervisor) = state.supervisor().as_ref().and_then(Supervisor::find) {
                print("an earlier job still runs and is stopped");
                stop(state, &supervisor).await;
            }
            state.forget_job()?;
            state.set_execute(execute)?;
        }
        let outcome = match self.take_up().await? {
            Stage::Reported => {
                control.set_gone();
                return Ok(());
            }
            Stage::Ended(outcome) => {
                control.set_gone();
                outcome
            }
            Stage::Running(supervisor) => {
                control.set_registered(&supervisor);
                let ending = self.follow(&supervisor).await?;
                self.outcome(ending)
            }
        };
        if let Some(note) = outcome.note {
            print(&note);
            self.log(&format!("metaservice-guest: {note}\n")).await;
        }
        volumes::sync(&execute.volumes).await;
        self.pending_replies.sent().await;
        self.report(&outcome.ending).await;
        state.set_reported()
    }

    /// Finds the stage of the job. Starts the command if it was not started yet.
    async fn take_up(&self) -> Result<Stage, StateError> {
        let Self { state, .. } = self;
        if state.is_reported() {
            return Ok(Stage::Reported);
        }
        if let Err(reason) = &self.prepared {
            let failure = Some(Failure::new(FailureCode::Other, reason.clone()));
            let ending = Ending { failure, ..Ending::new(Reason::NotExecutable) };
            return Ok(Stage::Ended(Outcome { note: Some(reason.clone()), ending }));
        }
        if state.supervisor().is_none() {
            if self.execute.hold && self.control.released().await == Hold::Killed {
                let ending = Ending::new(Reason::Killed);
                return Ok(Stage::Ended(Outcome { note: None, ending }));
            }
            match self.start().await? {
                Ok(supervisor) => return Ok(Stage::Running(supervisor)),
                Err(note) if state.supervisor().is_none() => {
                    let ending = Ending::new(Reason::NotExecutable);
                    return Ok(Stage::Ended(Outcome { note: Some(note), ending }));
                }
                // Another supervisor was faster and runs the job.
                Err(_) => {}
            }
        }
        if let Some(supervisor) = state.supervisor().as_ref().and_then(Supervisor::find) {
            return Ok(Stage::Running(Arc::new(supervisor)));
        }
        Ok(Stage::Ended(self.outcome(state.ending())))
    }

    /// The outcome of a job whose supervisor is gone.
    fn outcome(&self, ending: Option<Ending>) -> Outcome {
        match ending {
            Some(ending) if self.state.is_delivered() => Outcome { note: None, ending },
            Some(ending) => Outcome { note: Some(CUT_LOG.to_owned()), ending },
            None => Outcome { note: Some(LOST.to_owned()), ending: Ending::new(Reason::Lost) },
        }
    }

    /// Starts the command under a supervisor. The inner error is a line for the log.
    async fn start(&self) -> Result<Result<Arc<Supervisor>, String>, StateError> {
        let Self { client, state, config, execute, control, .. } = self;
        let program = Program::job(config, execute);
        let numbered = client.service().log;
        let log = Some(LogRoute { host: client.host().authority().to_owned(), numbered });
        let order = Order {
            terminal: execute.terminal,
            stdin: execute.stdin,
            // A signal waits for it.
            reports_start: true,
            separate: self.is_separate(),
            log,
            ..Order::new(state, Kind::Job, false, &program)
        };
        let mut command = supervisor_command(&order, &program.env);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let supervisor = match Supervisor::spawn(&mut command) {
            Ok(supervisor) => Arc::new(supervisor),
            Err(error) => {
                let name = program.words.first().map_or("", String::as_str);
                return Ok(Err(format!("cannot run '{name}': {}", with_causes(&error))));
            }
        };
        control.set_supervisor(&supervisor);
        supervisor.registered(state).await?;
        // A supervisor of an earlier agent may have been faster.
        if state.supervisor().is_some_and(|registered| supervisor.is(&registered)) {
            Ok(Ok(supervisor))
        } else {
            Ok(Err("the command's supervisor could not start".to_owned()))
        }
    }

    /// Whether stdout and stderr of the command are two logs.
    fn is_separate(&self) -> bool {
        let Execute { separate, terminal, .. } = *self.execute;
        separate && terminal.is_none() && self.client.service().log
    }

    /// Waits until the command has ended and its supervisor has delivered the log.
    async fn follow(&self, supervisor: &Supervisor) -> Result<Option<Ending>, StateError> {
        let ending = supervisor.ending(&self.state).await?;
        self.control.set_ended();
        supervisor.gone().await;
        self.control.set_gone();
        Ok(ending)
    }

    /// Adds a line of the agent's own to the log, if the service takes it.
    async fn log(&self, line: &str) {
        let numbered = self.client.service().log;
        let own = Process::own_identity().filter(|_| numbered);
        let stream = own.and_then(|own| own.as_id());
        let output = if self.is_separate() { LogOutput::Stderr } else { LogOutput::Stdout };
        let place = stream.map(|stream| LogPlace { stream, offset: 0, output });
        let mut backoff = Backoff::new();
        loop {
            let body = Body::Whole(Bytes::copy_from_slice(line.as_bytes()));
            let sent = match &place {
                Some(place) => self.client.log_at(place, body).await,
                None => self.client.log(body).await,
            };
            match sent {
                Err(error) if error.status().is_none() => {
                    tokio::time::sleep(backoff.delay()).await;
                }
                _ => return,
            }
        }
    }

    /// Reports until the service has a result: this one, or another.
    async fn report(&self, ending: &Ending) {
        let mut backoff = Backoff::new();
        let mut printed = false;
        loop {
            match self.client.report(ending).await {
                Ok(()) => return,
                Err(error) if error.status() == Some(409) => {
                    print("the service has another result for this job");
                    return;
                }
                Err(error) => {
                    if !std::mem::replace(&mut printed, true) {
                        print(&format!("the result is not reported yet: {}", with_causes(&error)));
                    }
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
    }
}
