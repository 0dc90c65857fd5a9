//! A command's processes, to be told to die.
//!
//! Owns finding and signalling them. The supervisor is their subreaper, so whatever forks
//! twice and starts a session of its own still descends from it, and "no children left" is
//! the same as "nothing left". That makes waiting simple: after every child's death the
//! supervisor looks again, until there is none.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::cgroup::Cgroup;
use crate::processes::{Process, descendants};

/// How often the tree is looked through for processes that were forked meanwhile, before all
/// are killed. A tree that still grows then is caught at the next child's death.
const STOP_ROUNDS: usize = 16;

/// All below this process.
#[derive(Debug)]
pub(crate) struct Tree {
    cgroup: Option<Cgroup>,
    /// What was asked of whom.
    signals: &'static [Signal],
    asked: Vec<Process>,
}

impl Tree {
    pub(crate) const fn new(cgroup: Option<Cgroup>) -> Self {
        Self { cgroup, signals: &[], asked: Vec::new() }
    }

    /// Asks everyone to end, by `signals`; what is stopped is continued to hear them.
    pub(crate) fn ask(&mut self, signals: &'static [Signal]) {
        self.signals = signals;
        self.ask_others();
    }

    /// Asks those who were forked while the others were being asked.
    pub(crate) fn ask_others(&mut self) {
        let found = descendants(getpid()).unwrap_or_default();
        let same =
            |one: &Process, other: &Process| (one.pid, one.start) == (other.pid, other.start);
        for process in &found {
            if self.asked.iter().any(|asked| same(asked, process)) {
                continue;
            }
            for &name in self.signals {
                tell(process, name);
            }
            tell(process, Signal::CONT);
        }
        self.asked = found;
    }

    /// Kills everyone. What forks faster than it is found is stopped first: a stopped process
    /// does not fork, and still counts against the limit that holds the others back.
    pub(crate) fn force(&self) {
        let at_once = self.cgroup.as_ref().is_some_and(Cgroup::kill);
        let mut known = 0;
        for _ in 0..STOP_ROUNDS {
            let found = descendants(getpid()).unwrap_or_default();
            if at_once || found.len() == known {
                break;
            }
            known = found.len();
            for process in &found {
                tell(process, Signal::STOP);
            }
        }
        for process in descendants(getpid()).unwrap_or_default() {
            tell(&process, Signal::KILL);
        }
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
