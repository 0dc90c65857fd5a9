//! QEMU's process: started, watched and reaped by a thread that lives as long as it does.
//!
//! Owns the process's life and what it says on stderr. It knows no QEMU: any command will
//! do. The thread is what the signal of
//! a parent's death needs, which the kernel sends when the *thread* ends; it also means that a process is reaped whatever
//! becomes of the async runtime.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use metaservice_private::lock;

use command_fds::CommandFdExt;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{oneshot, watch};

use super::sanitize::clean_lines;
use crate::confine::armed::Armed;
use crate::confine::confinement::Confinement;
use crate::confine::error::ConfineError;

/// How much of what a process says on stderr is kept, in bytes: its end.
const KEPT_STDERR: usize = 16 * 1024;

/// A running process, or one that has ended. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    id: u32,
    /// Names the process even when its number is another's by now.
    handle: OwnedFd,
    ended: watch::Receiver<Option<ExitStatus>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    /// Starts a command in a process group of its own, so that a terminal's Ctrl-C is ours to
    /// handle. It dies with this process, however this process ends.
    /// Of this process's descriptors it gets those in `kept`, under their numbers.
    pub(crate) async fn start(
        mut command: Command,
        kept: Vec<OwnedFd>,
        confinement: Confinement,
    ) -> Result<Self, ConfineError> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let armed = confinement.arm(&mut command);
        // The numbers stay the same in it: moving them could hit a descriptor in use.
        command.preserved_fds(kept);
        let (started, start) = oneshot::channel();
        std::thread::Builder::new()
            .name("qemu".into())
            .spawn(move || attend(command, armed, started))?;
        let ended = |_| Err(io::Error::other("the thread for the process ended").into());
        start.await.unwrap_or_else(ended)
    }

    pub(crate) const fn id(&self) -> u32 {
        self.id
    }

    /// Kills the process. One that has ended already is left alone.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// What can kill it besides, and does not by being dropped.
    pub(crate) fn killer(&self) -> io::Result<Killer> {
        Ok(Killer(self.handle.try_clone()?))
    }

    /// Waits for the end. Cancel-safe.
    pub(crate) fn ended(&self) -> impl Future<Output = Option<ExitStatus>> + use<> {
        let mut ended = self.ended.clone();
        async move { ended.wait_for(Option::is_some).await.ok().and_then(|status| *status) }
    }

    /// The end of what it said on stderr, fit to be shown. Complete once it has ended.
    pub(crate) fn stderr(&self) -> Stderr {
        Stderr(Arc::clone(&self.stderr))
    }
}

/// Kills a process, even when its number is another's by now: then nothing happens.
#[derive(Debug)]
pub(crate) struct Killer(OwnedFd);

impl Killer {
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

/// What a process says on stderr.
#[derive(Debug, Clone)]
pub(crate) struct Stderr(Arc<Mutex<Vec<u8>>>);

impl Stderr {
    pub(crate) fn shown(&self) -> String {
        clean_lines(&lock(&self.0)).join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The thread of one process.
fn attend(
    mut command: Command,
    armed: Armed,
    started: oneshot::Sender<Result<Process, ConfineError>>,
) {
    let spawned = armed.spawn(&mut command);
    // The command holds the descriptors that only the process is to have.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let (end, ended) = watch::channel(None);
    let kept = Arc::default();
    match open(&child) {
        // A caller that does not wait any more drops the process, which kills it.
        Ok((id, handle)) => {
            let _ = started.send(Ok(Process { id, handle, ended, stderr: Arc::clone(&kept) }));
        }
        Err(error) => {
            let _ = child.kill();
            let _ = started.send(Err(error.into()));
        }
    }
    if let Some(stderr) = child.stderr.take() {
        keep(stderr, &kept);
    }
    match child.wait() {
        Ok(status) => {
            end.send_replace(Some(status));
        }
        Err(error) => tracing::error!(%error, "a process could not be waited for"),
    }
}

/// The process's handle. It is not reaped yet, so its number is its own.
fn open(child: &Child) -> io::Result<(u32, OwnedFd)> {
    let id = child.id();
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    Ok((id, pidfd_open(pid, PidfdFlags::empty())?))
}

fn keep(mut stderr: ChildStderr, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    loop {
        match stderr.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let mut kept = lock(&kept);
                kept.extend_from_slice(&buffer[..count]);
                let excess = kept.len().saturating_sub(KEPT_STDERR);
                kept.drain(..excess);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn start(command: Command) -> Result<Process, ConfineError> {
        Process::start(command, Vec::new(), Confinement::default()).await
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn status_and_last_words() {
        let process = start(shell("printf 'no \\033[1mroom\\n' >&2; exit 3")).await.unwrap();
        assert_eq!(process.ended().await.unwrap().code(), Some(3));
        assert_eq!(process.stderr().shown(), "no room");
        process.kill();
    }

    #[tokio::test]
    async fn of_a_flood_the_end_is_kept() {
        let process = start(shell("yes abc | head -c 1000000 >&2; echo end >&2")).await.unwrap();
        process.ended().await.unwrap();
        let shown = process.stderr().shown();
        assert!(shown.len() <= KEPT_STDERR && shown.ends_with("abc\nend"));
    }

    #[tokio::test]
    async fn dropping_kills_and_reaps() {
        let process = start(shell("exec sleep 1000")).await.unwrap();
        let (id, ended) = (process.id(), process.ended());
        drop(process);
        assert_eq!(ended.await.unwrap().code(), None);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }

    #[tokio::test]
    async fn a_program_that_is_not_there() {
        let error = start(Command::new("/no/such/program")).await.unwrap_err();
        assert!(
            matches!(error, ConfineError::Io(error) if error.kind() == io::ErrorKind::NotFound)
        );
    }

    #[tokio::test]
    async fn the_process_outlives_the_thread_that_asked_for_it() {
        let process = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(start(shell("exec sleep 1000"))).unwrap()
        });
        let process = process.join().unwrap();
        assert!(process.ended.borrow().is_none());
        assert!(std::path::Path::new(&format!("/proc/{}", process.id())).exists());
    }
}
