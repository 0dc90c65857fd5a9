//! The processes of a command.
//!
//! Owns finding and signalling them. The supervisor is their subreaper, so even a process that
//! forks twice and starts a session of its own is its descendant. "No children left" means that no
//! process is left. The supervisor looks again after the death of each child, until there is none.

use std::collections::HashSet;

use rustix::process::{Signal, getpid};

use super::cgroup::Cgroup;
use crate::system::processes::{Process, descendants};

/// How often the tree is searched for processes that were forked meanwhile, before all are killed.
/// A tree that still grows then is killed at the death of the next child.
const STOP_ROUNDS: usize = 16;

/// All processes below this one.
#[derive(Debug)]
pub(super) struct Tree {
    cgroup: Option<Cgroup>,
}

impl Tree {
    pub(super) const fn new(cgroup: Option<Cgroup>) -> Self {
        Self { cgroup }
    }

    /// [`Cgroup::oom_kills`] of the control group, if there is one.
    pub(super) fn oom_kills(&self) -> Option<u64> {
        self.cgroup.as_ref().and_then(Cgroup::oom_kills)
    }

    /// Sends `signals` to each process, once. A process that a command starts later, to end in
    /// order, does not get them.
    ///
    /// All processes are stopped while they are found, so that none forks meanwhile. Then all are
    /// continued, also those that were stopped before, so that they handle the signals. Children
    /// are continued before their parents, so that no parent sees a stopped child.
    pub(super) fn ask(&self, signals: &[Signal]) {
        let stopped = Self::stop();
        for process in &stopped {
            for &signal in signals {
                send(process, signal);
            }
        }
        for process in stopped.iter().rev() {
            send(process, Signal::CONT);
        }
    }

    /// Kills all processes, by `cgroup.kill` if the command has a control group.
    ///
    /// Otherwise all are stopped (SIGSTOP) first, so that a fork bomb cannot outrun the search: a
    /// stopped process does not fork, but it still counts toward the kernel's maximum number of
    /// processes, so that the others soon cannot fork either.
    pub(super) fn force(&self) {
        if !self.cgroup.as_ref().is_some_and(Cgroup::kill) {
            Self::stop();
        }
        for process in descendants(getpid()).unwrap_or_default() {
            send(&process, Signal::KILL);
        }
    }

    /// Stops all processes and returns them, parents before their children.
    fn stop() -> Vec<Process> {
        let mut stopped: Vec<Process> = Vec::new();
        let mut known = HashSet::new();
        for _ in 0..STOP_ROUNDS {
            let found = descendants(getpid()).unwrap_or_default();
            let new = |process: &Process| !known.contains(&(process.pid, process.start));
            let new: Vec<_> = found.into_iter().filter(new).collect();
            if new.is_empty() {
                break;
            }
            for process in new {
                send(&process, Signal::STOP);
                known.insert((process.pid, process.start));
                stopped.push(process);
            }
        }
        stopped
    }
}

/// Fails if the process has ended, or belongs to another user. Then it is left alone.
fn send(process: &Process, signal: Signal) {
    let _ = process.signal(signal);
}
