//! QEMU's process: a thread starts it, watches it and reaps it, and lives as long as it does.
//!
//! Owns the life of the process and its stderr. It works for any command. The thread is needed for
//! the death signal: the kernel sends it when the *thread* of the parent ends. It also reaps the
//! process if the async runtime is gone.

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

/// How many bytes of stderr are kept: the last ones.
const KEPT_STDERR: usize = 16 * 1024;

/// A running process, or one that has ended. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    id: u32,
    /// The process, even if another process has its id by now.
    handle: OwnedFd,
    ended: watch::Receiver<Option<ExitStatus>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    /// Starts a command in a process group of its own, so that Ctrl-C in a terminal does not reach
    /// it. It dies with this process, however this process ends. It inherits the descriptors in
    /// `kept`, with their numbers.
    pub(crate) async fn start(
        mut command: Command,
        kept: Vec<OwnedFd>,
        confinement: Confinement,
    ) -> Result<Self, ConfineError> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let armed = confinement.arm(&mut command);
        // The descriptors keep their numbers: others could be in use in the child.
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

    /// Kills the process. It has no effect after its end.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// A handle that can kill the process, and does not kill it when it is dropped.
    pub(crate) fn killer(&self) -> io::Result<Killer> {
        Ok(Killer(self.handle.try_clone()?))
    }

    /// Waits for the end. Cancel-safe.
    pub(crate) fn ended(&self) -> impl Future<Output = Option<ExitStatus>> + use<> {
        let mut ended = self.ended.clone();
        async move { ended.wait_for(Option::is_some).await.ok().and_then(|status| *status) }
    }

    /// The end of its stderr, sanitized. It is complete once the process has ended.
    pub(crate) fn stderr(&self) -> Stderr {
        Stderr(Arc::clone(&self.stderr))
    }
}

/// Kills a process. It has no effect if another process has its id by now.
#[derive(Debug)]
pub(crate) struct Killer(OwnedFd);

impl Killer {
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

/// The stderr of a process.
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
    // The command still holds the descriptors for the process.
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
        // If the caller does not wait any more, this drops the process, which kills it.
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

/// The handle of the process. The process is not reaped yet, so its id is its own.
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
                let mut kept = lock(kept);
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
