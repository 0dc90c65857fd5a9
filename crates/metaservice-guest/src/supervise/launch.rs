//! The last step before a command: this process becomes it.
//!
//! Owns what has to happen between fork and exec (a session, a terminal, a control group,
//! another user, another folder). It does so in a program of its own instead of in a forked
//! copy of a larger one: here ordinary safe code may run, allocate and read files.
//!
//! What goes wrong is said where the command's own errors would be seen, on its standard
//! error. The reason for the supervisor goes into a file that was opened beforehand, closes
//! by itself when the command starts, and is empty then.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

use metaservice_protocol::Reason;
use rustix::process::{Gid, Signal, Uid};
use rustix::thread;

use super::cgroup::Cgroup;
use super::order::Order;
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

/// Becomes the ordered command. Returns the exit status only when that fails.
#[must_use]
pub fn launch(order: &Order) -> u8 {
    let failure = File::create(Folder::at(order.folder.clone()).failure());
    let Err(error) = prepare(order).and_then(|()| become_command(order));
    let _ = writeln!(io::stderr(), "metaservice-guest: {}", crate::words::chain(&error));
    let reason = error.reason();
    if let Ok(mut failure) = failure {
        let _ = failure.write_all(&serde_json::to_vec(&reason).unwrap_or_default());
    }
    if reason == Reason::NotFound { 127 } else { 126 }
}

fn prepare(order: &Order) -> Result<(), LaunchError> {
    let session = |error: rustix::io::Errno| LaunchError::Session(error.into());
    if let Some(cgroup) = &order.cgroup {
        Cgroup::enter(cgroup);
    }
    rustix::process::setsid().map_err(session)?;
    if order.tty {
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
    if rustix::process::getppid().map(rustix::process::Pid::as_raw_pid) != Some(order.parent) {
        return Err(LaunchError::Session(io::Error::other("the supervisor is gone")));
    }
    if let Some(workdir) = &order.workdir {
        let name = workdir.to_string_lossy().into_owned();
        std::env::set_current_dir(workdir).map_err(|e| LaunchError::Folder(name, e))?;
    }
    Ok(())
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
