//! The last step before a command: a copy of the supervisor becomes it.
//!
//! Owns what has to happen between fork and exec (a session, a terminal, a control group,
//! another user, another folder), and the fork itself. A program of its own for this would
//! cost the start of one more process for each command, a millisecond; a copy of the agent
//! could not do it, as that may have threads.
//!
//! What goes wrong is said where the command's own errors would be seen, on its standard
//! error. The reason for the supervisor goes into a file that was opened beforehand, closes
//! by itself when the command starts, and is empty then.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use metaservice_protocol::Reason;
use rustix::process::{Gid, Pid, Signal, Uid};
use rustix::thread;

use super::cgroup::Cgroup;
use super::order::{Order, SELF};
use crate::account::{Account, AccountError};
use crate::state::Folder;

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

/// What is on its way to become the ordered command.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) order: Order,
    /// The supervisor.
    pub(super) parent: Pid,
    /// The control group to enter.
    pub(super) cgroup: Option<PathBuf>,
    /// Whether the standard streams are a terminal that the command is to control.
    pub(super) tty: bool,
}

impl Launch {
    /// Starts the command, with these standard streams or this process's own; returns once it
    /// has begun, or has failed to and said so.
    pub(super) fn spawn(self, streams: Option<[Stdio; 3]>) -> io::Result<Child> {
        // Named for the form: what is started is a copy of this process, not its program.
        let mut command = Command::new(SELF);
        if let Some([stdin, stdout, stderr]) = streams {
            command.stdin(stdin).stdout(stdout).stderr(stderr);
        }
        if std::fs::read_dir("/proc/self/task")?.count() != 1 {
            return Err(io::Error::other("a supervisor has one thread"));
        }
        let hook = move || std::process::exit(self.run().into());
        // SAFETY: what may not be done between fork and exec may not because another thread could
        // have been forked in the midst of it: a lock that is held, a heap that is half changed.
        // This process has one thread, which is here and starts no other before it forks. So the
        // copy is an ordinary process and may run ordinary code.
        unsafe { command.pre_exec(hook) };
        command.spawn()
    }

    /// Becomes the ordered command. Returns the exit status only when that fails.
    fn run(&self) -> u8 {
        let order = &self.order;
        let failure = File::create(Folder::at(order.folder.clone()).failure());
        let Err(error) = self.prepare().and_then(|()| become_command(order));
        let _ = writeln!(io::stderr(), "metaservice-guest: {}", crate::words::chain(&error));
        let reason = error.reason();
        if let Ok(mut failure) = failure {
            let _ = failure.write_all(&serde_json::to_vec(&reason).unwrap_or_default());
        }
        if reason == Reason::NotFound { 127 } else { 126 }
    }

    fn prepare(&self) -> Result<(), LaunchError> {
        let order = &self.order;
        let session = |error: rustix::io::Errno| LaunchError::Session(error.into());
        if let Some(cgroup) = &self.cgroup {
            Cgroup::enter(cgroup);
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

fn become_command(order: &Order) -> Result<std::convert::Infallible, LaunchError> {
    let (program, arguments) = order.command.split_first().ok_or(LaunchError::Empty)?;
    let error = Command::new(program).args(arguments).exec();
    Err(LaunchError::Exec(program.to_string_lossy().into_owned(), error))
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
