//! A supervisor as its agent sees it.
//!
//! Owns starting one, finding one again, telling it to end, and noticing that it is gone.
//! All by a pidfd, so that a process id which was used again is never signalled.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use crate::system::descriptor::Descriptor;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::state::Claim;
use crate::system::processes::Process;

/// A running supervisor. Dropping it changes nothing for the process.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pid: Pid,
    process: Descriptor,
}

impl Supervisor {
    /// Starts one.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        // It is a child that nobody has waited for, so the number is still its own.
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, process: Descriptor::new(process)? })
    }

    /// One that is another's child: this is its number, and this the process.
    pub(super) fn of(pid: Pid, process: OwnedFd) -> io::Result<Self> {
        Ok(Self { pid, process: Descriptor::new(process)? })
    }

    /// Finds the one that has made `claim`; `None` when it is gone.
    pub(crate) fn find(claim: &Claim) -> Option<Self> {
        let pid = Pid::from_raw(claim.pid)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Process::same(claim)?;
        Some(Self { pid, process: Descriptor::new(process).ok()? })
    }

    /// Whether a claim is this one's.
    pub(crate) fn made(&self, claim: &Claim) -> bool {
        claim.pid == self.pid.as_raw_pid()
    }

    /// Tells it to end: to kill its command, or, when that has ended, to go itself.
    pub(crate) fn end(&self) {
        // It may be gone already.
        let _ = pidfd_send_signal(&self.process, Signal::TERM);
    }

    /// Completes when it is gone. Can be dropped and called again.
    pub(crate) async fn gone(&self) {
        let _ = self.process.readable().await;
        // Where it is another's child, its end is not ours to take.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let _ = waitid(WaitId::PidFd(self.process.as_fd()), options);
    }
}
