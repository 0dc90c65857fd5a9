//! What ends a job besides its command: in each state, what follows from a signal, a machine or an
//! agent that is gone, an order to end the machine, and a log that cannot be written.

use std::time::Instant;

use super::types::after;
use super::{Collected, Effect, End, Force, KillReason, Life, Signal, Start, State};

impl Life {
    pub(super) fn log_failed(&mut self, unread: bool, now: Instant) {
        if unread && self.rules.disposable && self.rules.artifact_timeout.is_none() {
            // As a process that SIGPIPE ends.
            self.finish_as(End::Unread);
        } else {
            self.kill(KillReason::LogFailed { unread }, now);
        }
    }

    pub(super) fn signal(&mut self, signal: Signal, now: Instant) {
        let again = std::mem::replace(&mut self.signalled, true);
        match self.state {
            State::Done => {}
            // The outcome is known. A signal only ends the wait for the machine.
            State::Ending => self.finish(),
            State::Kept => self.close(self.collected),
            State::Starting(_) if !again => self.finish_as(End::Cancelled(signal)),
            State::CopyingIn | State::Running | State::Unresponsive
                if !again && self.rules.persistent =>
            {
                self.end = Some(End::Left(signal));
                self.close(self.no_artifacts());
            }
            State::CopyingIn | State::Running | State::Unresponsive if !again => {
                self.kill(KillReason::Signal(signal), now);
            }
            State::Starting(_)
            | State::CopyingIn
            | State::Running
            | State::Unresponsive
            | State::Killing(_)
            | State::Collecting
            | State::Closing => self.finish_as(End::Abandoned(signal)),
        }
    }

    pub(super) fn gone(&mut self, reported: bool, now: Instant) {
        self.machine_gone = true;
        match self.state {
            State::Starting(Start::Restore) if !reported => self.boot_instead(),
            State::Starting(_) | State::CopyingIn | State::Running | State::Unresponsive => {
                match reported {
                    true => self.collect(End::Result, now),
                    false => self.lose(End::MachineGone, now),
                }
            }
            State::Killing(reason) => self.collect(End::Killed(reason), now),
            State::Collecting => {
                self.effects.push_back(Effect::StopCollecting);
                self.close(Collected::MachineGone);
            }
            State::Kept => self.close(self.collected),
            // In `Ending`, it is the end that was requested.
            State::Closing | State::Ending | State::Done => {}
        }
    }

    pub(super) fn agent_dead(&mut self, now: Instant) {
        match self.state {
            State::CopyingIn | State::Running | State::Unresponsive => {
                self.lose(End::AgentDead, now);
            }
            State::Killing(reason) => self.abandon(End::Killed(reason), now),
            State::Collecting => {
                self.effects.push_back(Effect::StopCollecting);
                self.close(Collected::Unresponsive);
            }
            State::Kept => self.close(self.collected),
            // The time to boot has a limit of its own.
            State::Starting(_) | State::Closing | State::Ending | State::Done => {}
        }
    }

    pub(super) fn no_guest(&mut self, now: Instant) {
        match self.state {
            State::Starting(_) | State::CopyingIn | State::Running | State::Unresponsive => {
                self.lose(End::NoGuest, now);
            }
            State::Killing(_)
            | State::Collecting
            | State::Kept
            | State::Closing
            | State::Ending
            | State::Done => self.agent_dead(now),
        }
    }

    pub(super) fn force(&mut self, force: Force, now: Instant) {
        match self.state {
            State::Starting(_) | State::CopyingIn | State::Running | State::Unresponsive => {
                self.abandon(End::Forced(force), now);
            }
            State::Killing(reason) => self.abandon(End::Killed(reason), now),
            State::Collecting => {
                self.effects.push_back(Effect::StopCollecting);
                self.abandon(self.end.unwrap_or(End::Result), now);
            }
            State::Kept => {
                self.kill_machine();
                self.close(self.collected);
                self.deadline = Some(after(now, self.rules.close_timeout));
            }
            // The outcome is known.
            State::Closing => {
                self.kill_machine();
                self.deadline.get_or_insert(after(now, self.rules.close_timeout));
            }
            State::Ending => self.kill_machine(),
            State::Done => {}
        }
    }
}
