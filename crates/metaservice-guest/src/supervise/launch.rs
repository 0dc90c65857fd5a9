//! The last step before a command: a copy of the supervisor becomes it.
//!
//! Owns what has to happen between fork and exec (a session, a terminal, a control group,
//! another user, another folder). As the copy is of a process with one thread, ordinary safe
//! code may do it (see [`fork`]).
//!
//! What goes wrong is said where the command's own errors would be seen, on its standard
//! error. The reason for the supervisor goes into a file that was opened beforehand, closes
//! by itself when the command starts, and is empty then.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use metaservice_protocol::Reason;
use rustix::process::{Gid, Pid, Signal, Uid};
use rustix::thread;
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use super::fork;
use super::fork_server::Env;
use super::order::Order;
use crate::state::Folder;
use crate::system::account::{Account, AccountError};
use crate::system::oom;
use crate::system::streams::Streams;

/// Why a command was not started.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("there is no command to run")]
    Empty,
    #[error("cannot run '{0}'")]
    Exec(String, #[source] io::Error),
    #[error("cannot enter the folder '{0}'")]
    Folder(String, #[source] io::Error),
    #[error("cannot run as user '{0}'")]
    User(String, #[source] AccountError),
    #[error("cannot become user '{0}'")]
    Become(String, #[source] io::Error),
    #[error("cannot prepare the command's session")]
    Session(#[source] io::Error),
}

impl LaunchError {
    fn reason(&self) -> Reason {
        let missing = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        };
        match self {
            Self::Empty => Reason::NotFound,
            Self::Exec(_, error) if missing(error) => Reason::NotFound,
            _ => Reason::NotExecutable,
        }
    }
}

/// Why a command was not started, as its copy of the supervisor has left it in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartFailure {
    /// For programs.
    pub(crate) reason: Reason,
    /// For people.
    pub(crate) message: String,
}

impl StartFailure {
    /// The failure that a folder tells of; none when the command was started.
    pub(crate) fn of(folder: &Folder) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.failure()).ok()?).ok()
    }
}

/// What is on its way to become the ordered command.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) order: Order,
    /// What it has in its environment beside what this process has.
    pub(super) env: Env,
    /// The supervisor.
    pub(super) parent: Pid,
    /// The control group to be in.
    pub(super) cgroup: Option<&'a Cgroup>,
    /// Whether the standard streams are a terminal that the command is to control.
    pub(super) tty: bool,
    /// Where the start is awaited: the copy's end of a pipe, which closes when the command has been
    /// started or the copy has said why not.
    pub(super) _begun: Option<OwnedFd>,
}

impl Launch<'_> {
    /// Starts the command, with these standard streams or this process's own. Where it fails
    /// after this, it says so itself.
    pub(super) fn spawn(self, streams: Option<&Streams>) -> io::Result<Pid> {
        let group = self.cgroup.and_then(Cgroup::open);
        fork::copy(group.as_ref().map(AsFd::as_fd), |within| {
            if let Some(cgroup) = self.cgroup.filter(|_| !within) {
                cgroup.enter();
            }
            let placed = streams.map_or(Ok(()), Streams::take_place);
            self.run(placed.map_err(LaunchError::Session))
        })
    }

    /// Becomes the ordered command. Returns the exit status only when that fails.
    fn run(&self, placed: Result<(), LaunchError>) -> u8 {
        let failure = File::create(Folder::at(self.order.folder.clone()).failure());
        let begun = placed.and_then(|()| self.prepare()).and_then(|()| self.become_command());
        let Err(error) = begun;
        let (reason, message) = (error.reason(), crate::diagnostics::chain(&error));
        let _ = writeln!(io::stderr(), "metaservice-guest: {message}");
        if let Ok(mut failure) = failure {
            let json = serde_json::to_vec(&StartFailure { reason, message });
            let _ = failure.write_all(&json.unwrap_or_default());
        }
        if reason == Reason::NotFound { 127 } else { 126 }
    }

    fn prepare(&self) -> Result<(), LaunchError> {
        let order = &self.order;
        let session = |error: rustix::io::Errno| LaunchError::Session(error.into());
        if let Some(score) = order.oom_score {
            // The kernel may kill the command, not its supervisor. Raising it is always allowed.
            oom::set_score(score).map_err(LaunchError::Session)?;
        }
        rustix::process::setsid().map_err(session)?;
        if self.tty {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(session)?;
        }
        if let Some(user) = &order.user {
            let name = user.to_string_lossy().into_owned();
            let account = Account::find(&name).map_err(|e| LaunchError::User(name.clone(), e))?;
            let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
            // This process has one thread, so what holds for the thread holds for it.
            switch(&account, &groups).map_err(|e| LaunchError::Become(name, e.into()))?;
        }
        // A change of user clears it, so it comes after.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(session)?;
        if rustix::process::getppid() != Some(self.parent) {
            return Err(LaunchError::Session(io::Error::other("the supervisor is gone")));
        }
        if let Some(workdir) = &order.workdir {
            let name = workdir.to_string_lossy().into_owned();
            std::env::set_current_dir(workdir).map_err(|e| LaunchError::Folder(name, e))?;
        }
        Ok(())
    }

    fn become_command(&self) -> Result<std::convert::Infallible, LaunchError> {
        let (program, arguments) = self.order.command.split_first().ok_or(LaunchError::Empty)?;
        let env = self.env.iter().map(|(name, value)| (name, value));
        let error = Command::new(program).args(arguments).envs(env).exec();
        Err(LaunchError::Exec(program.to_string_lossy().into_owned(), error))
    }
}

fn switch(account: &Account, groups: &[Gid]) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    if rustix::process::geteuid() == uid && !uid.is_root() {
        // An agent that is that user already may not set groups, and has them.
        return Ok(());
    }
    thread::set_thread_groups(groups)?;
    thread::set_thread_res_gid(gid, gid, gid)?;
    thread::set_thread_res_uid(uid, uid, uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_found_and_not_executable_are_told_apart() {
        let reason = |kind: io::ErrorKind| LaunchError::Exec(String::new(), kind.into()).reason();
        assert_eq!(reason(io::ErrorKind::NotFound), Reason::NotFound);
        assert_eq!(reason(io::ErrorKind::PermissionDenied), Reason::NotExecutable);
        assert_eq!(LaunchError::Empty.reason(), Reason::NotFound);
        let folder = LaunchError::Folder("/x".into(), io::ErrorKind::NotFound.into());
        assert_eq!(folder.reason(), Reason::NotExecutable);
    }
}
