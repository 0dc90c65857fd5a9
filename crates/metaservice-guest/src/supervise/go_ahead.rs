//! A supervisor that was forked waits here for its agent's go-ahead.
//!
//! Owns the supervisor's side of the channel that came with its order. The supervisor sends its
//! process id and a pidfd, and starts the command only after the agent's answer. So a supervisor
//! can be forked before the agent knows that the command is wanted.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, getppid, pidfd_open};

use super::error::SuperviseError;
use super::socket::{receive, send};
use crate::system::streams::CommandStreams;

/// What a forked supervisor needs before it may start its command.
#[derive(Debug)]
pub(super) struct GoAhead {
    pub(super) channel: OwnedFd,
    /// The command's. Before the go-ahead, errors go to the agent's standard error.
    pub(super) streams: CommandStreams,
    pub(super) fork_server: Pid,
}

impl GoAhead {
    /// Identifies this process to the agent, and waits for the go-ahead. Then the command's streams
    /// are the standard streams of this process.
    ///
    /// # Errors
    /// [`Cancelled`](SuperviseError::Cancelled) when the agent cancels the order, or the agent or
    /// the fork server is gone.
    pub(super) fn wait(self) -> Result<(), SuperviseError> {
        let Self { channel, streams, fork_server } = self;
        let own = getpid();
        let server = pidfd_open(fork_server, PidfdFlags::empty());
        let server = server.map_err(|_| SuperviseError::Cancelled)?;
        // If the id was reused, this process has another parent, and the check fails.
        let is_gone = || getppid() != Some(fork_server);
        if is_gone() {
            return Err(SuperviseError::Cancelled);
        }
        let process = pidfd_open(own, PidfdFlags::empty()).map_err(io::Error::from)?;
        send(channel.as_fd(), &own.as_raw_pid().to_be_bytes(), &[process.as_fd()])
            .map_err(|_| SuperviseError::Cancelled)?;
        let mut watched = [&channel, &server].map(|fd| PollFd::new(fd, PollFlags::IN));
        while let Err(error) = poll(&mut watched, None) {
            if error != Errno::INTR {
                return Err(io::Error::from(error).into());
            }
        }
        let ended = !watched[1].revents().is_empty();
        let given = !ended && receive(channel.as_fd(), &mut [0]).is_ok_and(|m| m.count == 1);
        if !given || is_gone() {
            return Err(SuperviseError::Cancelled);
        }
        Ok(streams.install()?)
    }
}
