//! A command's processes, to be told to die.
//!
//! Owns finding and signalling them. The supervisor is their subreaper, so whatever forks
//! twice and starts a session of its own still descends from it, and "no children left" is
//! the same as "nothing left". That makes waiting simple: after every child's death the
//! supervisor looks again, until there is none.

use std::collections::HashSet;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::cgroup::Cgroup;
use crate::system::processes::{Process, descendants};

/// How often the tree is looked through for processes that were forked meanwhile, before all
/// are killed. A tree that still grows then is caught at the next child's death.
const STOP_ROUNDS: usize = 16;

/// All below this process.
#[derive(Debug)]
pub(crate) struct Tree {
    cgroup: Option<Cgroup>,
}

impl Tree {
    pub(crate) const fn new(cgroup: Option<Cgroup>) -> Self {
        Self { cgroup }
    }

    /// What [`Cgroup::oom_kills`] says of its group, if it has one.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        self.cgroup.as_ref().and_then(Cgroup::oom_kills)
    }

    /// Asks everyone to end, by `signals`, once: what somebody starts to end in order is not asked.
    /// All are stopped while they are found, or who forks in between would leave one behind; what
    /// was stopped before is continued too, to hear the signals. Children go on before their
    /// parents, so that nobody sees a child that has been stopped.
    pub(crate) fn ask(&self, signals: &[Signal]) {
        let stopped = Self::stop();
        for process in &stopped {
            for &name in signals {
                tell(process, name);
            }
        }
        for process in stopped.iter().rev() {
            tell(process, Signal::CONT);
        }
    }

    /// Kills everyone. What forks faster than it is found is stopped first: a stopped process
    /// does not fork, and still counts against the limit that holds the others back.
    pub(crate) fn force(&self) {
        if !self.cgroup.as_ref().is_some_and(Cgroup::kill) {
            Self::stop();
        }
        for process in descendants(getpid()).unwrap_or_default() {
            tell(&process, Signal::KILL);
        }
    }

    /// Stops everyone, and finds them; parents come before their children.
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
                tell(&process, Signal::STOP);
                known.insert((process.pid, process.start));
                stopped.push(process);
            }
        }
        stopped
    }
}

/// It may have ended meanwhile, or belong to somebody else: then it is left.
fn tell(process: &Process, name: Signal) {
    let _ = signal(process, name);
}

/// Signals the very process that was found: not another that has got its number since.
pub(crate) fn signal(process: &Process, signal: Signal) -> rustix::io::Result<()> {
    let pid = Pid::from_raw(process.pid).ok_or(Errno::SRCH)?;
    let fd = pidfd_open(pid, PidfdFlags::empty())?;
    if Process::find(process.pid).is_none_or(|now| now.start != process.start) {
        return Err(Errno::SRCH);
    }
    pidfd_send_signal(fd, signal)
}
