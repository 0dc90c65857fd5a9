//! A process that forks the supervisors of shells.
//!
//! The start of a program takes about a millisecond. In an emulated machine it takes many, because
//! the emulator translates the program's code again for each process. So the agent starts one fork
//! server, together with the first shell. The fork server forks a child for each order that it
//! receives on its socket. The child is the supervisor.
//!
//! ```text
//!   agent ── order, streams, channel ─► fork server ── fork ─► supervisor ── fork, exec ─► command
//!     ▲                                                          │
//!     └── channel: process id and pidfd; then the go-ahead ──────┘
//! ```
//!
//! Each order has a channel of its own, a socket whose other end the child gets. The child prepares
//! everything, identifies itself to the agent, and starts its command at the go-ahead. It exits
//! when the channel closes, which cancels the order, or when the fork server ends. So a supervisor
//! can be forked before its command is wanted, and after a failure the agent can order another
//! without running a command twice.
//!
//! The kernel kills the fork server when the agent ends, and signals the supervisors when the fork
//! server ends. So a shell dies with its agent, as if the agent had started it. Without a fork
//! server, the agent starts supervisors as programs.

pub(super) mod client;
mod message;

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, pidfd_open};

use self::message::{MAX_ORDER, decode};
use super::error::SuperviseError;
use super::fork::fork_child;
use super::go_ahead::GoAhead;
use super::socket::{Received, receive};
use super::supervision::{Origin, begin};
use crate::diagnostics::with_causes;
use crate::system::streams::CommandStreams;

/// Forks a supervisor for each order from the standard input, until that ends. This process must
/// have no other thread and no other task.
///
/// # Errors
/// When the agent with this process id is not the parent, or the kernel denies what it normally
/// grants.
pub(crate) fn fork_server(agent: i32) -> Result<(), SuperviseError> {
    let _ = rustix::thread::set_name(c"metaservice-frk");
    // Ctrl-C in a terminal is for the agent, which ends this process in order.
    let _ = rustix::process::setsid();
    let death = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    death.map_err(io::Error::from)?;
    if getppid().map(Pid::as_raw_pid) != Some(agent) {
        return Err(SuperviseError::AgentGone);
    }
    let mut children = Vec::new();
    let mut bytes = vec![0; MAX_ORDER];
    loop {
        if !wait(&mut children)? {
            continue;
        }
        match receive(rustix::stdio::stdin(), &mut bytes) {
            Ok(Received { count: 0, .. }) => return Ok(()),
            Ok(Received { count, descriptors }) => {
                children.extend(serve(&bytes[..count], descriptors));
                // Later children must not see the environment of this command.
                bytes[..count].fill(0);
            }
            // Its descriptors are dropped, so its channel closes and the agent sees the failure.
            Err(Errno::INVAL) => bytes.fill(0),
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}

/// Waits for an order, and reaps children that have ended. Returns whether there is an order.
fn wait(children: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let socket = rustix::stdio::stdin();
    let watched = [socket].into_iter().chain(children.iter().map(AsFd::as_fd));
    let mut watched: Vec<_> =
        watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    match poll(&mut watched, None) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let ready: Vec<_> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
    let mut ready = ready.into_iter();
    let ordered = ready.next().unwrap_or_default();
    children.retain(|_| !ready.next().unwrap_or_default());
    while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
    Ok(ordered)
}

/// Forks one supervisor. Returns its pidfd, or `None` if that failed: then the channel closes.
fn serve(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Option<OwnedFd> {
    let [stdin, stdout, stderr, channel] = descriptors.try_into().ok()?;
    let own = getpid();
    let streams = CommandStreams { stdin, stdout, stderr };
    let go_ahead = GoAhead { channel, streams, fork_server: own };
    let work = move |_| {
        // Decoded only in the child, so that this process keeps nothing of the order.
        let Some((order, env)) = decode(bytes) else { return 1 };
        match begin(&order, Origin { parent: Some(own), env, go_ahead: Some(go_ahead) }) {
            Ok(()) => 0,
            // The agent has cancelled the order itself.
            Err(SuperviseError::Cancelled) => 1,
            Err(error) => {
                let _ = writeln!(io::stderr(), "error: {}", with_causes(&error));
                1
            }
        }
    };
    let pid = fork_child(None, work).ok()?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}
