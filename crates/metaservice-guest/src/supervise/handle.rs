//! A supervisor as its agent sees it.
//!
//! Owns starting a supervisor, finding it again and ending it. It notices the files that the
//! supervisor writes, and its end. It uses a pidfd, so that a process id that was reused is never
//! signalled.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use metaservice_protocol::Ending;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::state::{StateDirectory, StateError};
use crate::system::descriptor::Descriptor;
use crate::system::processes::{Process, ProcessIdentity};

/// A running supervisor. Dropping this does not end the process.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pid: Pid,
    process: Descriptor,
}

impl Supervisor {
    /// Starts a supervisor as a program.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        // The child was not waited for, so its id was not reused.
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, process: Descriptor::new(process)? })
    }

    /// A supervisor that is the child of another process.
    pub(super) fn of(pid: Pid, process: OwnedFd) -> io::Result<Self> {
        Ok(Self { pid, process: Descriptor::new(process)? })
    }

    /// The supervisor with this identity; `None` if it is gone.
    pub(crate) fn find(identity: &ProcessIdentity) -> Option<Self> {
        let pid = Pid::from_raw(identity.pid)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Process::find_same(identity)?;
        Some(Self { pid, process: Descriptor::new(process).ok()? })
    }

    /// Whether this is the supervisor with that identity.
    pub(crate) fn is(&self, identity: &ProcessIdentity) -> bool {
        identity.pid == self.pid.as_raw_pid()
    }

    /// Sends SIGTERM: kills the command, or, after its end, the supervisor itself.
    pub(crate) fn end(&self) {
        // It may be gone already.
        let _ = pidfd_send_signal(&self.process, Signal::TERM);
    }

    /// Completes when the supervisor is gone. Cancel-safe.
    pub(crate) async fn gone(&self) {
        let _ = self.process.readable().await;
        // Fails for the child of another process, which waits for it itself.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let _ = waitid(WaitId::PidFd(self.process.as_fd()), options);
    }

    /// Waits until a supervisor is registered in the state directory; `false` if this one is gone
    /// and there is none. Cancel-safe.
    pub(crate) async fn registered(&self, state: &StateDirectory) -> Result<bool, StateError> {
        let watch = state.watch()?;
        loop {
            if state.supervisor().is_some() {
                return Ok(true);
            }
            tokio::select! {
                () = watch.changed() => {}
                () = self.gone() => return Ok(state.supervisor().is_some()),
            }
        }
    }

    /// Waits until the supervisor has written the ending; `None` if it is gone and there is none.
    /// Cancel-safe.
    pub(crate) async fn ending(
        &self,
        state: &StateDirectory,
    ) -> Result<Option<Ending>, StateError> {
        let watch = state.watch()?;
        loop {
            if let Some(ending) = state.ending() {
                return Ok(Some(ending));
            }
            tokio::select! {
                () = watch.changed() => {}
                () = self.gone() => return Ok(state.ending()),
            }
        }
    }
}
