//! The last step before a command: a child of the supervisor execs it.
//!
//! Owns what happens between fork and exec: session, terminal, control group, user, working
//! directory. The supervisor has one thread, so its child may run ordinary safe code here (see
//! [`fork`]).
//!
//! A failure is printed to the command's standard error, where the command's own errors would be.
//! For the supervisor it is written into a file that is opened first. The file closes by itself
//! when the command starts, and is empty then.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use metaservice_protocol::{Failure, FailureCode, Reason};
use rustix::process::{Gid, Pid, Signal, Uid};
use rustix::thread;
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use super::fork;
use super::order::{Environment, Order};
use crate::diagnostics::with_causes;
use crate::state::StateDirectory;
use crate::system::account::{Account, AccountError};
use crate::system::oom;
use crate::system::streams::CommandStreams;

/// Why a command was not started.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("there is no command to run")]
    Empty,
    #[error("cannot run '{0}'")]
    Exec(String, #[source] io::Error),
    #[error("cannot enter the directory '{0}'")]
    Workdir(String, #[source] io::Error),
    #[error("cannot run as user '{0}'")]
    User(String, #[source] AccountError),
    #[error("cannot become user '{0}'")]
    Become(String, #[source] io::Error),
    #[error("cannot prepare the command's session")]
    Session(#[source] io::Error),
}

impl LaunchError {
    fn code(&self) -> FailureCode {
        let of_io = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FailureCode::NotFound,
            io::ErrorKind::PermissionDenied => FailureCode::PermissionDenied,
            _ => FailureCode::Other,
        };
        match self {
            Self::Empty => FailureCode::NotFound,
            Self::User(_, AccountError::Unreadable(error)) => of_io(error),
            Self::User(..) => FailureCode::NotFound,
            Self::Exec(_, error) | Self::Workdir(_, error) | Self::Become(_, error) => of_io(error),
            Self::Session(_) => FailureCode::Other,
        }
    }

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

/// Why a command was not started, as the supervisor's child wrote it into the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartFailure {
    /// For programs.
    pub(crate) reason: Reason,
    /// The cause.
    pub(crate) failure: Failure,
}

impl StartFailure {
    /// Reads the failure; `None` if the command was started.
    pub(crate) fn read(state: &StateDirectory) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(state.failure()).ok()?).ok()
    }
}

/// A command that is ready to be started.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) order: Order,
    /// Added to the environment of this process.
    pub(super) env: Environment,
    /// The supervisor.
    pub(super) parent: Pid,
    pub(super) cgroup: Option<&'a Cgroup>,
    /// Whether the standard streams are a terminal that the command controls.
    pub(super) tty: bool,
    /// The child's end of a pipe, if the agent waits for the start. It closes when the command
    /// has started, or the child has written why not.
    pub(super) _started: Option<OwnedFd>,
}

impl Launch<'_> {
    /// Forks the child that becomes the command, with these standard streams or those of this
    /// process. The child reports its own failures.
    pub(super) fn spawn(self, streams: Option<&CommandStreams>) -> io::Result<Pid> {
        let group = self.cgroup.and_then(Cgroup::open);
        fork::fork_child(group.as_ref().map(AsFd::as_fd), |within| {
            if let Some(cgroup) = self.cgroup.filter(|_| !within) {
                cgroup.enter();
            }
            let installed = streams.map_or(Ok(()), CommandStreams::install);
            self.run(installed.map_err(LaunchError::Session))
        })
    }

    /// Execs the command. Returns an exit status only if that fails.
    fn run(&self, installed: Result<(), LaunchError>) -> u8 {
        let failure = File::create(StateDirectory::at(self.order.state.clone()).failure());
        let result = installed.and_then(|()| self.prepare()).and_then(|()| self.exec());
        let Err(error) = result;
        let (reason, message) = (error.reason(), with_causes(&error));
        let _ = writeln!(io::stderr(), "metaservice-guest: {message}");
        if let Ok(mut failure) = failure {
            let cause = Failure::new(error.code(), message);
            let json = serde_json::to_vec(&StartFailure { reason, failure: cause });
            let _ = failure.write_all(&json.unwrap_or_default());
        }
        if reason == Reason::NotFound { 127 } else { 126 }
    }

    fn prepare(&self) -> Result<(), LaunchError> {
        let order = &self.order;
        let session = |error: rustix::io::Errno| LaunchError::Session(error.into());
        if let Some(score) = order.oom_score {
            // The supervisor is protected from the OOM killer; the command is not. Raising the
            // score needs no privileges.
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
            // This process has one thread, so the thread's user is the user of the process.
            switch_user(&account, &groups).map_err(|e| LaunchError::Become(name, e.into()))?;
        }
        // After the change of user, which clears this.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(session)?;
        if rustix::process::getppid() != Some(self.parent) {
            return Err(LaunchError::Session(io::Error::other("the supervisor is gone")));
        }
        if let Some(workdir) = &order.workdir {
            let name = workdir.to_string_lossy().into_owned();
            std::env::set_current_dir(workdir).map_err(|e| LaunchError::Workdir(name, e))?;
        }
        Ok(())
    }

    fn exec(&self) -> Result<std::convert::Infallible, LaunchError> {
        let (program, arguments) = self.order.command.split_first().ok_or(LaunchError::Empty)?;
        let env = self.env.iter().map(|(name, value)| (name, value));
        let error = Command::new(program).args(arguments).envs(env).exec();
        Err(LaunchError::Exec(program.to_string_lossy().into_owned(), error))
    }
}

fn switch_user(account: &Account, groups: &[Gid]) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    if rustix::process::geteuid() == uid && !uid.is_root() {
        // An agent that already runs as this user has its groups, and may not set them.
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
    fn not_found_and_not_executable_are_different() {
        let reason = |kind: io::ErrorKind| LaunchError::Exec(String::new(), kind.into()).reason();
        assert_eq!(reason(io::ErrorKind::NotFound), Reason::NotFound);
        assert_eq!(reason(io::ErrorKind::PermissionDenied), Reason::NotExecutable);
        assert_eq!(LaunchError::Empty.reason(), Reason::NotFound);
        let workdir = LaunchError::Workdir("/x".into(), io::ErrorKind::NotFound.into());
        assert_eq!(workdir.reason(), Reason::NotExecutable);
        assert_eq!(workdir.code(), FailureCode::NotFound);
        let unknown = AccountError::UnknownUser("x".into());
        let user = LaunchError::User("x".into(), unknown);
        assert_eq!((user.reason(), user.code()), (Reason::NotExecutable, FailureCode::NotFound));
    }
}
