//! The process that the user's shell waits for, while the job has the user's terminal.
//!
//! The process of a job owns its machine and must outlive a detach, but the shell waits for its
//! first process. So `run -it` starts the tool again, as a child that runs the job. The first
//! process waits, and exits with the status of the child. At a detach, the child leaves the
//! terminal and the session, and the first process exits with status 0.
//!
//! The first process executes itself again too, without any environment: a secret must not be
//! readable in `/proc/PID/environ`. If it is killed, the kernel kills the child, and with it the
//! machine.

use std::env;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process;

use anyhow::{Context, Result};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getppid, kill_process, set_parent_process_death_signal,
    setsid, waitpid,
};
use rustix::termios::{LocalModes, tcgetattr};
use tokio::signal::unix::{SignalKind, signal};

use crate::output::stderr;
use crate::status::ExitStatus;

/// For the child: the process id of the first process.
const PARENT: &str = "METASERVICE_FOREGROUND_PARENT";

/// For the first process: the process id of the child.
const CHILD: &str = "METASERVICE_FOREGROUND_CHILD";

/// The signal by which the child says that it has left.
const LEFT: Signal = Signal::USR1;

/// If this process is the first one and its child runs, waits for it.
pub(crate) fn wait() -> Option<Result<ExitStatus>> {
    let child = pid(CHILD)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Some(runtime.context("cannot start").and_then(|runtime| runtime.block_on(follow(child))))
}

/// In the first process: starts the child, if the verb `may_leave`, and does not return then. In
/// the child: has it end with the first process.
///
/// # Errors
/// If the child cannot be started.
pub(crate) fn divide(may_leave: bool) -> io::Result<()> {
    if let Some(parent) = pid(PARENT) {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before.
        return if getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        };
    }
    if !may_leave {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let own = rustix::process::getpid().as_raw_pid().to_string();
    let mut child = process::Command::new("/proc/self/exe");
    let child = child.arg0(&name).args(arguments).env(PARENT, own).spawn()?;
    let mut again = process::Command::new("/proc/self/exe");
    again.arg0(&name).arg("run").env_clear().env(CHILD, child.id().to_string());
    // `exec` returns only on error. The child ends with this process.
    Err(again.exec())
}

fn pid(variable: &str) -> Option<Pid> {
    Pid::from_raw(env::var(variable).ok()?.parse().ok()?)
}

/// Whether this process can leave the terminal.
pub(crate) fn can_leave() -> bool {
    pid(PARENT).is_some_and(|parent| getppid() == Some(parent))
}

/// Leaves the terminal and the session. The first process ends.
///
/// # Errors
/// If the kernel denies what it normally grants.
pub(crate) fn leave() -> io::Result<()> {
    stderr::drain();
    let parent = pid(PARENT).ok_or(io::ErrorKind::NotFound)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    setsid()?;
    set_parent_process_death_signal(None)?;
    kill_process(parent, LEFT)?;
    Ok(())
}

/// Waits for the child, and passes on the signals that it does not get itself.
async fn follow(child: Pid) -> Result<ExitStatus> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut ended = listen(SignalKind::child())?;
    let mut left = listen(SignalKind::from_raw(LEFT.as_raw()))?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    loop {
        // Before the first wait: it may have ended already.
        if let Some((_, status)) = waitpid(Some(child), WaitOptions::NOHANG)? {
            return Ok(exit_status(status));
        }
        let passed = tokio::select! {
            _ = left.recv() => return Ok(ExitStatus::SUCCESS),
            _ = ended.recv() => None,
            _ = terminate.recv() => Some(Signal::TERM),
            _ = hang_up.recv() => Some(Signal::HUP),
            _ = interrupt.recv() => (!is_of_key()).then_some(Signal::INT),
        };
        if let Some(signal) = passed {
            // It may have ended by now.
            let _ = kill_process(child, signal);
        }
    }
}

/// Whether a SIGINT may be of a key: then the child has it too.
fn is_of_key() -> bool {
    let settings = tcgetattr(io::stdin());
    settings.is_ok_and(|settings| settings.local_modes.contains(LocalModes::ISIG))
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    let signal = status.terminating_signal().and_then(|number| u8::try_from(number).ok());
    let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
    signal.map(ExitStatus::signal).or(code.map(ExitStatus)).unwrap_or(ExitStatus::FAILED)
}
