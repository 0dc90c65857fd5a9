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
//!                                         CopyingIn ── failed, timeout, signal ────────► Killing
//!                                             ▼ started
//!                      ┌── agent silent ── Running ──┐
//!                      ▼                      ▲      ├ timeout, signal, log failed ──► Killing
//!                 Unresponsive ── agent back ─┘      │                              │       │
//!                      └─────────────────────────────┤        result, kill failed,  │       │
//!                         result, from any of these states  taken but not reported, │       │
//!                                             │                       machine gone  │       │
//!                                             ▼                                     │       │
//!                                         Collecting ◄──────────────────────────────┘       │
//!                                             │ artifacts are fetched,    order not taken,  │
//!                                             │ failed, or lost           agent dead: the   │
//!                                             ▼                        machine is killed    │
//!                                          Closing ◄────────────────────────────────────────┘
//!                                             │ the log is written to its end
//!                                             ▼
//!                                          Ending: the machine ends
//!                                             ▼
//!                                           Done
//! ```
//!
//! After `Collecting`, the machine of a command that has failed may be *kept* for clients, until a
//! time, a signal or the machine itself ends this.
//!
//! Shorter ways to the end:
//!
//! - The machine is gone, or the guest never came, and there is no result: the job is *lost*. Its
//!   log is closed within [`Rules::close_timeout`], and nothing else is waited for. The same holds
//!   if the agent is dead: it has polled, and has sent nothing for the limit `agent-dead`.
//!   After the command has ended, a dead agent ends only the wait for artifacts or clients.
//! - The machine is ended by force: it is killed at once, from any state. The log is closed, and
//!   clients get their answers.
//! - The machine does not start at all: done at once.
//! - The agent cannot run the command: no artifacts are collected.
//! - A signal before the guest has fetched its command: there is nothing to kill; done at once.
//! - A signal to a job whose state is persistent: the log is closed and the job is left to a later
//!   service.
//! - The log's reader is gone, there are no artifacts and the machine is disposable: done at once.
//! - A second signal, or one while the command is being killed, artifacts are fetched or the log is
//!   closed: done at once.
//!
//! Call [`Life::handle`] with each input and [`Life::handle_time`] when [`Life::deadline`] has
//! passed. After each of them take effects from [`Life::effect`] until there is none.

mod interruption;
mod types;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::types::after;
pub use self::types::{
    Collected, Effect, End, Force, Input, KillReason, Outcome, Rules, Signal, Start, State,
};

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
    /// Whether the command was started, as far as it is known.
    started: bool,
    machine_gone: bool,
    signalled: bool,
    /// Whether the command has failed.
    failed: bool,
    /// When the command that is being killed must be reported, once the order is taken.
    report_by: Option<Instant>,
    /// Whether the machine was killed, or is to be killed: the guest is not waited for.
    abandoned: bool,
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
            started: true,
            machine_gone: false,
            signalled: false,
            failed: false,
            report_by: None,
            abandoned: false,
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

    /// Whether the machine is killed, and its guest not waited for.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.abandoned
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
            State::CopyingIn => self.kill(KillReason::CopyIn { late: true }, now),
            State::Running | State::Unresponsive => self.kill(KillReason::Timeout, now),
            // The guest has taken the order, and does not report the end.
            State::Killing(reason) if self.report_by.is_none() => {
                self.collect(End::Killed(reason), now);
            }
            State::Killing(reason) => self.abandon(End::Killed(reason), now),
            State::Collecting => {
                self.effects.push_back(Effect::StopCollecting);
                self.close(Collected::Late);
            }
            State::Kept => self.close(self.collected),
            // Only the log of a job whose guest is not waited for has a deadline.
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
                self.deadline = timeout.map(|timeout| after(now, timeout));
            }
            (Input::RestoreFailed, State::Starting(Start::Restore)) => self.boot_instead(),
            (Input::StartFailed, State::Starting(_)) => self.finish_as(End::NotStarted),
            (Input::Fetched(ago), State::Starting(_)) => match self.rules.copy_in_timeout {
                None => self.run(ago, now),
                Some(timeout) => self.copy_in(timeout, now),
            },
            (Input::Failed, _) => self.failed = true,
            (Input::CopiedIn, State::CopyingIn) => self.run(Duration::ZERO, now),
            (Input::CopyInFailed, State::CopyingIn) => {
                self.kill(KillReason::CopyIn { late: false }, now);
            }
            (
                Input::Result,
                State::Starting(_) | State::CopyingIn | State::Running | State::Unresponsive,
            ) => self.collect(End::Result, now),
            (Input::Result | Input::KillFailed, State::Killing(reason)) => {
                self.collect(End::Killed(reason), now);
            }
            // There is nothing to collect.
            (
                Input::Unsupported,
                State::Starting(_)
                | State::CopyingIn
                | State::Running
                | State::Unresponsive
                | State::Killing(_),
            ) => {
                self.end = Some(End::Result);
                self.close(Collected::All);
            }
            (
                Input::LogFailed { unread },
                State::Starting(_) | State::CopyingIn | State::Running | State::Unresponsive,
            ) => self.log_failed(unread, now),
            (Input::AgentSilent, State::Running) => self.state = State::Unresponsive,
            (Input::AgentBack, State::Unresponsive) => self.state = State::Running,
            (Input::AgentDead, _) => self.agent_dead(now),
            (Input::NoGuest, _) => self.no_guest(now),
            (Input::Forced(force), _) => self.force(force, now),
            (Input::KillTaken, State::Killing(_)) => {
                self.deadline = self.report_by.take().or(self.deadline);
            }
            (Input::Signal(signal), _) => self.signal(signal, now),
            (Input::MachineGone { reported }, _) => self.gone(reported, now),
            (Input::Collected(collected), State::Collecting) => self.keep(collected, now),
            (Input::Closed, State::Closing) => self.closed(),
            (Input::MachineEnded, State::Ending) => self.finish(),
            (
                Input::MachineStarted
                | Input::RestoreFailed
                | Input::StartFailed
                | Input::Fetched(_)
                | Input::CopiedIn
                | Input::CopyInFailed
                | Input::Result
                | Input::Unsupported
                | Input::LogFailed { .. }
                | Input::AgentSilent
                | Input::AgentBack
                | Input::KillTaken
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

    /// The command waits for its files.
    fn copy_in(&mut self, timeout: Duration, now: Instant) {
        self.started = false;
        self.state = State::CopyingIn;
        self.deadline = Some(after(now, timeout));
        self.effects.push_back(Effect::CopyIn);
    }

    /// The command runs, since this time.
    fn run(&mut self, ago: Duration, now: Instant) {
        self.started = true;
        self.state = State::Running;
        let left = |timeout: Duration| after(now, timeout.saturating_sub(ago));
        self.deadline = self.rules.timeout.map(left);
    }

    fn stop_copying_in(&mut self) {
        if self.state == State::CopyingIn {
            self.effects.push_back(Effect::StopCopyingIn);
        }
    }

    fn boot_instead(&mut self) {
        // If a machine is gone, it was the restored one.
        self.machine_gone = false;
        self.start(Start::Boot);
    }

    fn kill(&mut self, reason: KillReason, now: Instant) {
        let order = match reason {
            KillReason::Timeout => self.rules.timeout_order_timeout,
            KillReason::Signal(_) | KillReason::CopyIn { .. } | KillReason::LogFailed { .. } => {
                self.rules.order_timeout
            }
        };
        self.stop_copying_in();
        self.state = State::Killing(reason);
        self.deadline = Some(after(now, order));
        self.report_by = Some(after(now, self.rules.kill_timeout));
        self.effects.push_back(Effect::KillCommand(reason));
    }

    fn kill_machine(&mut self) {
        if !std::mem::replace(&mut self.abandoned, true) {
            self.effects.push_back(Effect::KillMachine);
        }
    }

    /// Ends a job without its guest: kills the machine, and closes the log within
    /// [`Rules::close_timeout`].
    fn abandon(&mut self, end: End, now: Instant) {
        self.end = Some(end);
        self.kill_machine();
        self.close(match self.rules.artifact_timeout {
            Some(_) if self.started && self.machine_gone => Collected::MachineGone,
            Some(_) if self.started => Collected::Unresponsive,
            Some(_) | None => Collected::All,
        });
        self.deadline = Some(after(now, self.rules.close_timeout));
    }

    fn collect(&mut self, end: End, now: Instant) {
        self.end = Some(end);
        match self.rules.artifact_timeout {
            Some(timeout) if self.started && !self.machine_gone => {
                self.state = State::Collecting;
                self.deadline = Some(after(now, timeout));
                self.effects.push_back(Effect::Collect);
            }
            Some(_) | None => self.keep(self.no_artifacts(), now),
        }
    }

    /// Keeps the machine of a command that has failed, if the rules say so. Otherwise closes.
    fn keep(&mut self, collected: Collected, now: Instant) {
        let ended = matches!(self.end, Some(End::Result | End::Killed(KillReason::Timeout)));
        let failed = self.failed || matches!(self.end, Some(End::Killed(_)));
        match self.rules.keep {
            Some(keep) if ended && failed && !self.machine_gone && !self.signalled => {
                self.collected = collected;
                self.state = State::Kept;
                self.deadline = Some(after(now, keep));
                self.effects.push_back(Effect::Keep(keep));
            }
            _ => self.close(collected),
        }
    }

    /// What became of artifacts that are not asked for.
    fn no_artifacts(&self) -> Collected {
        match self.rules.artifact_timeout {
            Some(_) if self.started => Collected::MachineGone,
            // A command that never started has none.
            Some(_) | None => Collected::All,
        }
    }

    fn close(&mut self, collected: Collected) {
        self.stop_copying_in();
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
        self.deadline = Some(after(now, self.rules.close_timeout));
    }

    fn closed(&mut self) {
        self.deadline = None;
        match self.end {
            Some(End::Result | End::Killed(_) | End::Forced(_)) => {
                self.state = State::Ending;
                self.effects.push_back(Effect::EndMachine { at_once: self.abandoned });
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
