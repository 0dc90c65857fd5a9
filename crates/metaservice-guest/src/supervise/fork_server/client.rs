//! A zygote and the copies that are being made of it, as its agent sees them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use tokio::time::timeout;

use super::message::{encode, line, receive, send};
use crate::program::hide_unit;
use crate::supervise::handle::Supervisor;
use crate::supervise::order::{Order, SELF};
use crate::system::descriptor::Descriptor;
use crate::system::streams::Streams;

/// How long a copy may take. Only a machine that stands still, or somebody who stops processes,
/// takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The zygote as its agent sees it. Dropping it ends it, and the shells that came of it.
#[derive(Debug)]
pub(crate) struct Zygote {
    pid: Pid,
    socket: OwnedFd,
}

/// Why an order is not for a zygote.
#[derive(Debug)]
pub(crate) enum NoCopy {
    /// It cannot be had now, or for this order.
    Unfit,
    /// It has ended.
    Gone,
}

/// Why there is no copy.
#[derive(Debug)]
pub(crate) enum Unborn {
    /// There is none, and will be none.
    Refused,
    /// Nobody has said anything in time. What may still come does not begin.
    Late,
}

/// A copy that is being made. Dropping it gives the order up.
#[derive(Debug)]
pub(crate) struct Birth {
    line: Descriptor,
}

impl Zygote {
    /// Starts one.
    pub(crate) fn start() -> io::Result<Self> {
        let (socket, other) = line()?;
        let mut command = Command::new(SELF);
        command.arg0("metaservice-guest").arg("zygote").arg(getpid().as_raw_pid().to_string());
        let child = hide_unit(&mut command).stdin(other).stdout(Stdio::null()).spawn()?;
        Ok(Self { pid: Pid::from_child(&child), socket })
    }

    /// Orders a supervisor with these standard streams.
    pub(crate) fn order(
        &self,
        order: &Order,
        env: &[(String, String)],
        streams: &Streams,
    ) -> Result<Birth, NoCopy> {
        let bytes = encode(order, env).ok_or(NoCopy::Unfit)?;
        let (ours, theirs) = line().map_err(|_| NoCopy::Unfit)?;
        let made = rustix::io::ioctl_fionbio(&ours, true).map_err(io::Error::from);
        let line = made.and_then(|()| Descriptor::new(ours)).map_err(|_| NoCopy::Unfit)?;
        let Streams { stdin, stdout, stderr } = streams;
        let descriptors = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), theirs.as_fd()];
        match send(self.socket.as_fd(), &bytes, &descriptors) {
            Ok(()) => Ok(Birth { line }),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(NoCopy::Gone),
            Err(_) => Err(NoCopy::Unfit),
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // It is a child that nobody has waited for, so the number is its own; and it is gone when
        // this returns.
        let _ = kill_process(self.pid, Signal::KILL);
        while matches!(waitpid(Some(self.pid), WaitOptions::empty()), Err(Errno::INTR)) {}
    }
}

impl Birth {
    /// Waits for the copy, and lets it begin.
    pub(crate) async fn supervisor(self) -> Result<Supervisor, Unborn> {
        let born = timeout(PATIENCE, self.born()).await;
        let supervisor = born.unwrap_or(Err(Unborn::Late))?;
        // One that has ended meanwhile has not begun.
        send(self.line.as_fd(), b"!", &[]).map_err(|_| Unborn::Refused)?;
        Ok(supervisor)
    }

    async fn born(&self) -> Result<Supervisor, Unborn> {
        let mut number = [0; 4];
        let received = loop {
            let mut ready = self.line.readable().await.map_err(|_| Unborn::Refused)?;
            let received = ready.try_io(|line| Ok(receive(line.as_fd(), &mut number)?));
            // Otherwise it was not readable after all.
            if let Ok(received) = received {
                break received.map_err(|_| Unborn::Refused)?;
            }
        };
        let process = received.descriptors.into_iter().next().ok_or(Unborn::Refused)?;
        let pid = Pid::from_raw(i32::from_be_bytes(number)).ok_or(Unborn::Refused)?;
        Supervisor::of(pid, process).map_err(|_| Unborn::Refused)
    }
}
