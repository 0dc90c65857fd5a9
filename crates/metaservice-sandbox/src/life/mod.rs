//! The life of one job, as a state machine without I/O and without a clock.
//!
//! Owns every decision between the start of a machine and the job's outcome: what a deadline, a
//! signal, a lost machine or a failed log leads to, and in which order the job ends. It performs
//! nothing: the caller performs the [`Effect`]s and reports their results as [`Input`]s.
//!
//! ```text
//!   Starting(restore) ── restore failed, or its time is over ──► Starting(boot)
//!        │                                                            │
//!        └─────────────── fetched ────────────┬───────────────────────┘
//!                                             ▼
//!                                          Running ── timeout, signal, log failed ──► Killing
//!                                             │                                          │
//!                         result, from any of these states          result, kill failed, deadline,
//!                                             │                                     machine gone
//!                                             ▼                                          │
//!                                         Collecting ◄───────────────────────────────────┘
//!                                             │ artifacts are fetched, failed, or lost
//!                                             ▼
//!                                          Closing: the log is written to its end
//!                                             ▼
//!                                          Ending: the machine ends
//!                                             ▼
//!                                           Done
//! ```
//!
//! Shorter ways to the end:
//!
//! - The machine is gone, or the guest never came, and there is no result: the job is *lost*. Its
//!   log is closed within [`Rules::close_timeout`], and nothing else is waited for.
//! - The machine does not start at all: done at once.
//! - The agent cannot run the command: no artifacts are collected.
//! - A signal before the guest has fetched its command: there is nothing to kill; done at once.
//! - A signal to a job whose state is persistent: the log is closed and the job is left to a later
//!   service.
//! - The log's reader is gone, there are no artifacts and the machine is disposable: done at once.
//! - A second signal: done at once.
//!
//! Call [`Life::handle`] with each input and [`Life::handle_time`] when [`Life::deadline`] has
//! passed. After each of them take effects from [`Life::effect`] until there is none.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a job's life depends on, besides its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How the machine starts.
    pub start: Start,
    /// How long a restored guest may take to fetch its command. After it, the machine is booted.
    pub restore_timeout: Duration,
    /// How long a guest may take to fetch its command. After it, the job is lost. `None`: no
    /// limit.
    pub boot_timeout: Option<Duration>,
    /// How long the command may run, counted from when the guest fetched it. `None`: no limit.
    pub timeout: Option<Duration>,
    /// How long a killed command may take to be reported.
    pub kill_timeout: Duration,
    /// How long all artifacts together may take. `None`: there are no artifacts.
    pub artifact_timeout: Option<Duration>,
    /// How long the log of a lost job may take to be written.
    pub close_timeout: Duration,
    /// Whether the job's state is persistent: a signal leaves the job to a later service.
    pub persistent: bool,
    /// Whether the machine may be killed at any time: no state of it outlives it.
    pub disposable: bool,
}

/// How a machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From a snapshot.
    Restore,
    /// Without a snapshot.
    Boot,
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The machine runs. The deadline for its guest begins.
    MachineStarted,
    /// The snapshot is unusable. No machine of this attempt is left.
    RestoreFailed,
    /// The machine cannot be started.
    BootFailed,
    /// The guest fetched its command, this long ago.
    Fetched(Duration),
    /// The guest reported the command's result.
    Result,
    /// The guest's agent cannot run the command: the command never started.
    Unsupported,
    /// The log cannot be written.
    LogFailed {
        /// Whether its reader has closed it, as `head` does.
        unread: bool,
    },
    /// The user wants the job to end.
    Signal(Signal),
    /// The machine ended without a request. What it sent before has been read.
    MachineGone {
        /// Whether the guest had reported a result.
        reported: bool,
    },
    /// The guest refused to kill the command, or cannot be asked.
    KillFailed,
    /// The artifacts were fetched, or could not be.
    Collected(Collected),
    /// The log is written to its end, or could not be.
    Closed,
    /// The machine was ended, as requested.
    MachineEnded,
}

/// A signal to the host's process, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub u8);

/// Something to do. What comes of it is reported as an [`Input`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Start the machine. After a restore that failed this is a boot.
    Start(Start),
    /// Ask the guest to kill the command, and give the reason. A result follows, or
    /// [`Input::KillFailed`].
    KillCommand(KillReason),
    /// Fetch the artifacts; [`Input::Collected`] follows.
    Collect,
    /// Stop fetching artifacts; nothing follows.
    StopCollecting,
    /// Write what was received of the log, and end the service; [`Input::Closed`] follows.
    Close,
    /// End the machine; [`Input::MachineEnded`] follows.
    EndMachine,
    /// The life is over: release everything. No effect follows.
    Finish(Outcome),
}

/// Why a command is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// Its timeout has passed.
    Timeout,
    /// A signal came.
    Signal(Signal),
    /// Its log cannot be written.
    LogFailed {
        /// Whether the log's reader has closed it.
        unread: bool,
    },
}

/// What became of the artifacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// All were fetched, or there were none.
    All,
    /// Some could not be fetched.
    Failed,
    /// They took longer than [`Rules::artifact_timeout`].
    Late,
    /// The machine was gone before all were fetched.
    MachineGone,
}

/// How a job's command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The guest reported a result, and nothing else ended the command.
    Result,
    /// The command was killed.
    Killed(KillReason),
    /// The machine was gone before there was a result.
    MachineGone,
    /// The machine did not start.
    NotStarted,
    /// The guest never fetched its command.
    NeverFetched,
    /// A signal came before the guest fetched its command.
    Cancelled(Signal),
    /// A signal came, and the job is left to a later service with the same state.
    Left(Signal),
    /// The log's reader is gone, and nothing else was wanted of the job.
    Unread,
    /// A second signal came: nothing was waited for.
    Abandoned(Signal),
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How the command ended.
    pub end: End,
    /// What became of its artifacts.
    pub collected: Collected,
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The machine starts, and its guest has not fetched its command.
    Starting(Start),
    /// The command runs.
    Running,
    /// The command is being killed.
    Killing(KillReason),
    /// The artifacts are being fetched.
    Collecting,
    /// The log is being written to its end.
    Closing,
    /// The machine is being ended.
    Ending,
    /// The life is over.
    Done,
}

/// The life of one job.
#[derive(Debug)]
pub struct Life {
    rules: Rules,
    state: State,
    /// When the state ends without an input.
    deadline: Option<Instant>,
    /// The command's end, once it is known.
    end: Option<End>,
    collected: Collected,
    machine_gone: bool,
    signalled: bool,
    effects: VecDeque<Effect>,
}

impl Life {
    /// A job whose machine is to be started: the first effect says how.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let mut life = Self {
            state: State::Starting(rules.start),
            rules,
            deadline: None,
            end: None,
            collected: Collected::All,
            machine_gone: false,
            signalled: false,
            effects: VecDeque::new(),
        };
        life.start(life.rules.start);
        life
    }

    /// Where the job is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// What has become of the job, once its command has ended.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.end.map(|end| Outcome { end, collected: self.collected })
    }

    /// When [`Life::handle_time`] is due, if nothing else happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The next thing to do.
    pub fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Takes in that time has passed. Does nothing before the deadline.
    pub fn handle_time(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        match self.state {
            State::Starting(Start::Restore) => self.boot_instead(),
            State::Starting(Start::Boot) => self.lose(End::NeverFetched, now),
            State::Running => self.kill(KillReason::Timeout, now),
            State::Killing(reason) => self.collect(End::Killed(reason), now),
            State::Collecting => {
                self.effects.push_back(Effect::StopCollecting);
                self.close(Collected::Late);
            }
            // Only the log of a lost job has a deadline.
            State::Closing => self.finish(),
            State::Ending | State::Done => {}
        }
    }

    /// Takes in an input. One that does not fit the state changes nothing: it crossed with an
    /// earlier decision.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match (input, self.state) {
            (Input::MachineStarted, State::Starting(start)) => {
                let timeout = match start {
                    Start::Restore => Some(self.rules.restore_timeout),
                    Start::Boot => self.rules.boot_timeout,
                };
                self.deadline = timeout.map(|timeout| now + timeout);
            }
            (Input::RestoreFailed, State::Starting(Start::Restore)) => self.boot_instead(),
            (Input::BootFailed, State::Starting(Start::Boot)) => self.finish_as(End::NotStarted),
            (Input::Fetched(ago), State::Starting(_)) => {
                self.state = State::Running;
                let left = |timeout: Duration| now + timeout.saturating_sub(ago);
                self.deadline = self.rules.timeout.map(left);
            }
            (Input::Result, State::Starting(_) | State::Running) => self.collect(End::Result, now),
            (Input::Result | Input::KillFailed, State::Killing(reason)) => {
                self.collect(End::Killed(reason), now);
            }
            // There is nothing to collect.
            (Input::Unsupported, State::Starting(_) | State::Running | State::Killing(_)) => {
                self.end = Some(End::Result);
                self.close(Collected::All);
            }
            (Input::LogFailed { unread }, State::Starting(_) | State::Running) => {
                self.log_failed(unread, now);
            }
            (Input::Signal(signal), _) => self.signal(signal, now),
            (Input::MachineGone { reported }, _) => self.gone(reported, now),
            (Input::Collected(collected), State::Collecting) => self.close(collected),
            (Input::Closed, State::Closing) => self.closed(),
            (Input::MachineEnded, State::Ending) => self.finish(),
            (
                Input::MachineStarted
                | Input::RestoreFailed
                | Input::BootFailed
                | Input::Fetched(_)
                | Input::Result
                | Input::Unsupported
                | Input::LogFailed { .. }
                | Input::KillFailed
                | Input::Collected(_)
                | Input::Closed
                | Input::MachineEnded,
                _,
            ) => {}
        }
    }

    fn start(&mut self, start: Start) {
        self.state = State::Starting(start);
        self.deadline = None;
        self.effects.push_back(Effect::Start(start));
    }

    fn boot_instead(&mut self) {
        // If a machine is gone, it was the restored one.
        self.machine_gone = false;
        self.start(Start::Boot);
    }

    fn log_failed(&mut self, unread: bool, now: Instant) {
        if unread && self.rules.disposable && self.rules.artifact_timeout.is_none() {
            // As a process that SIGPIPE ends.
            self.finish_as(End::Unread);
        } else {
            self.kill(KillReason::LogFailed { unread }, now);
        }
    }

    fn signal(&mut self, signal: Signal, now: Instant) {
        let again = std::mem::replace(&mut self.signalled, true);
        match self.state {
            State::Done => {}
            // The outcome is known. A signal only ends the wait for the machine.
            State::Ending => self.finish(),
            State::Starting(_) if !again => self.finish_as(End::Cancelled(signal)),
            State::Running if !again && self.rules.persistent => {
                self.end = Some(End::Left(signal));
                self.close(self.no_artifacts());
            }
            State::Running if !again => self.kill(KillReason::Signal(signal), now),
            State::Starting(_)
            | State::Running
            | State::Killing(_)
            | State::Collecting
            | State::Closing => self.finish_as(End::Abandoned(signal)),
        }
    }

    fn gone(&mut self, reported: bool, now: Instant) {
        self.machine_gone = true;
        match self.state {
            State::Starting(Start::Restore) if !reported => self.boot_instead(),
            State::Starting(_) | State::Running if reported => self.collect(End::Result, now),
            State::Starting(_) | State::Running => self.lose(End::MachineGone, now),
            State::Killing(reason) => self.collect(End::Killed(reason), now),
            State::Collecting => {
                self.effects.push_back(Effect::StopCollecting);
                self.close(Collected::MachineGone);
            }
            // In `Ending`, it is the end that was requested.
            State::Closing | State::Ending | State::Done => {}
        }
    }

    fn kill(&mut self, reason: KillReason, now: Instant) {
        self.state = State::Killing(reason);
        self.deadline = Some(now + self.rules.kill_timeout);
        self.effects.push_back(Effect::KillCommand(reason));
    }

    fn collect(&mut self, end: End, now: Instant) {
        self.end = Some(end);
        match self.rules.artifact_timeout {
            Some(timeout) if !self.machine_gone => {
                self.state = State::Collecting;
                self.deadline = Some(now + timeout);
                self.effects.push_back(Effect::Collect);
            }
            Some(_) | None => self.close(self.no_artifacts()),
        }
    }

    /// What became of artifacts that are not asked for.
    fn no_artifacts(&self) -> Collected {
        match self.rules.artifact_timeout {
            Some(_) => Collected::MachineGone,
            None => Collected::All,
        }
    }

    fn close(&mut self, collected: Collected) {
        self.collected = collected;
        self.deadline = None;
        self.state = State::Closing;
        self.effects.push_back(Effect::Close);
    }

    /// Ends a job whose guest will send nothing more: only its log is still closed, within
    /// [`Rules::close_timeout`].
    fn lose(&mut self, end: End, now: Instant) {
        self.end = Some(end);
        self.close(self.no_artifacts());
        self.deadline = Some(now + self.rules.close_timeout);
    }

    fn closed(&mut self) {
        self.deadline = None;
        match self.end {
            Some(End::Result | End::Killed(_)) => {
                self.state = State::Ending;
                self.effects.push_back(Effect::EndMachine);
            }
            // Nothing more is waited for.
            _ => self.finish(),
        }
    }

    fn finish_as(&mut self, end: End) {
        self.end = Some(end);
        self.finish();
    }

    fn finish(&mut self) {
        self.state = State::Done;
        self.deadline = None;
        // Effects that were not begun are not wanted any more.
        self.effects.clear();
        let end = self.end.unwrap_or(End::MachineGone);
        self.effects.push_back(Effect::Finish(Outcome { end, collected: self.collected }));
    }
}

#[cfg(test)]
mod tests;
