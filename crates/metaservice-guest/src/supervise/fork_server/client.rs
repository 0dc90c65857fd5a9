//! The fork server and its pending children, as the agent sees them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use tokio::time::timeout;

use super::message::encode;
use crate::program::remove_unit_variables;
use crate::supervise::handle::Supervisor;
use crate::supervise::order::{NAME, Order, SELF};
use crate::supervise::socket::{pair, receive, send};
use crate::system::descriptor::Descriptor;
use crate::system::streams::CommandStreams;

/// How long a fork may take. It takes longer only if the machine hangs, or a process was stopped.
const FORK_TIMEOUT: Duration = Duration::from_secs(5);

/// The running fork server. Dropping this kills it, and with it the shells that it has forked.
#[derive(Debug)]
pub(crate) struct ForkServer {
    pid: Pid,
    socket: OwnedFd,
}

/// Why the fork server did not take an order.
#[derive(Debug)]
pub(crate) enum OrderError {
    /// It cannot take this order, or none now.
    Unsuitable,
    /// It has ended.
    Ended,
}

/// Why there is no forked supervisor.
#[derive(Debug)]
pub(crate) enum ForkError {
    /// The fork failed. The command was not started.
    Failed,
    /// There was no answer in time. A supervisor that answers later does not start the command.
    TimedOut,
}

/// A supervisor that is being forked. Dropping this cancels the order.
#[derive(Debug)]
pub(crate) struct PendingFork {
    channel: Descriptor,
}

impl ForkServer {
    pub(crate) fn start() -> io::Result<Self> {
        let (socket, other) = pair()?;
        let mut command = Command::new(SELF);
        command.arg0(NAME).arg("fork-server").arg(getpid().as_raw_pid().to_string());
        let command = remove_unit_variables(&mut command).stdin(other).stdout(Stdio::null());
        Ok(Self { pid: Pid::from_child(&command.spawn()?), socket })
    }

    /// Orders a supervisor with these standard streams.
    pub(crate) fn order(
        &self,
        order: &Order,
        env: &[(String, String)],
        streams: &CommandStreams,
    ) -> Result<PendingFork, OrderError> {
        let bytes = encode(order, env).ok_or(OrderError::Unsuitable)?;
        let (own, other) = pair().map_err(|_| OrderError::Unsuitable)?;
        let set = rustix::io::ioctl_fionbio(&own, true).map_err(io::Error::from);
        let channel =
            set.and_then(|()| Descriptor::new(own)).map_err(|_| OrderError::Unsuitable)?;
        let CommandStreams { stdin, stdout, stderr } = streams;
        let descriptors = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), other.as_fd()];
        match send(self.socket.as_fd(), &bytes, &descriptors) {
            Ok(()) => Ok(PendingFork { channel }),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(OrderError::Ended),
            Err(_) => Err(OrderError::Unsuitable),
        }
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        // The child was not waited for, so its id was not reused. It is gone when this returns.
        let _ = kill_process(self.pid, Signal::KILL);
        while matches!(waitpid(Some(self.pid), WaitOptions::empty()), Err(Errno::INTR)) {}
    }
}

impl PendingFork {
    /// Waits for the supervisor, and gives it the go-ahead.
    pub(crate) async fn go_ahead(self) -> Result<Supervisor, ForkError> {
        let forked = timeout(FORK_TIMEOUT, self.forked()).await;
        let supervisor = forked.unwrap_or(Err(ForkError::TimedOut))?;
        // A supervisor that has ended by now has not started its command.
        send(self.channel.as_fd(), b"!", &[]).map_err(|_| ForkError::Failed)?;
        Ok(supervisor)
    }

    async fn forked(&self) -> Result<Supervisor, ForkError> {
        let mut number = [0; 4];
        let received = loop {
            let mut ready = self.channel.readable().await.map_err(|_| ForkError::Failed)?;
            let received = ready.try_io(|channel| Ok(receive(channel.as_fd(), &mut number)?));
            if let Ok(received) = received {
                break received.map_err(|_| ForkError::Failed)?;
            }
        };
        let process = received.descriptors.into_iter().next().ok_or(ForkError::Failed)?;
        let pid = Pid::from_raw(i32::from_be_bytes(number)).ok_or(ForkError::Failed)?;
        Supervisor::of(pid, process).map_err(|_| ForkError::Failed)
    }
}
