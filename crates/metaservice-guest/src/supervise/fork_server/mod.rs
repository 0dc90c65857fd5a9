//! A process of which the supervisors of shells are copies.
//!
//! To start a program takes the kernel a millisecond, and an emulated machine many: it translates
//! the code of each anew. So the agent starts one process beside it, with the first shell, which
//! does nothing but make a copy of itself for each order that comes over their socket. The copy
//! is the supervisor.
//!
//! ```text
//!   agent ── order, streams, line ──► zygote ── fork ──► supervisor ── fork, exec ──► command
//!     ▲                                                     │
//!     └── line: its number and pidfd; then "go" ────────────┘
//! ```
//!
//! Each order has a line of its own, a socket whose other end the copy gets. The copy makes ready,
//! tells the agent who it is, and starts its command when that says so. It ends when the line does,
//! which is how an order is given up, and when the zygote ends. So a copy can be made before
//! it is sure that anybody wants it, and the agent may order another where none has begun.
//!
//! The kernel kills the zygote when the agent ends, and tells the supervisors when the zygote ends:
//! a shell dies with its agent as if the agent had started it. Where there is none, or it cannot be
//! had, the agent starts a supervisor as a program.

mod client;
mod message;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, pidfd_open};

pub(crate) use self::client::{Birth, NoCopy, Unborn, Zygote};
use self::message::{MOST, Received, decode, receive, send};
use super::{Origin, SuperviseError, begin, fork};
use crate::system::streams::Streams;

/// Variables of an environment.
pub(super) type Env = Vec<(OsString, OsString)>;

/// Copies this process for each order from the standard input, until that ends. This process must
/// have no other thread and no other purpose.
///
/// # Errors
/// [`SuperviseError`] when the agent of this number is not the parent, or the kernel refuses what
/// it normally grants.
pub fn zygote(agent: i32) -> Result<(), SuperviseError> {
    let _ = rustix::thread::set_name(c"metaservice-zyg");
    // A terminal's Ctrl-C is for the agent, which knows what to do first.
    let _ = rustix::process::setsid();
    let death = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    death.map_err(io::Error::from)?;
    if getppid().map(Pid::as_raw_pid) != Some(agent) {
        return Err(SuperviseError::Orphaned);
    }
    let mut copies = Vec::new();
    let mut bytes = vec![0; MOST];
    loop {
        if !wait(&mut copies)? {
            continue;
        }
        match receive(rustix::stdio::stdin(), &mut bytes) {
            Ok(Received { count: 0, .. }) => return Ok(()),
            Ok(Received { count, descriptors }) => {
                copies.extend(serve(&bytes[..count], descriptors));
                // What one command has in its environment is not for the copies after it.
                bytes[..count].fill(0);
            }
            // Without a descriptor for what came with it, it is refused by the end of its line.
            Err(Errno::INVAL) => bytes.fill(0),
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}

/// Waits for an order, and takes leave of copies that have ended; whether there is an order.
fn wait(copies: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let socket = rustix::stdio::stdin();
    let watched = [socket].into_iter().chain(copies.iter().map(AsFd::as_fd));
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
    copies.retain(|_| !ready.next().unwrap_or_default());
    while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
    Ok(ordered)
}

/// Makes one copy, if that can be: by what it ends is seen.
fn serve(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Option<OwnedFd> {
    let [stdin, stdout, stderr, line] = descriptors.try_into().ok()?;
    let own = getpid();
    let word = Word { line, streams: Streams { stdin, stdout, stderr }, zygote: own };
    let work = move |_| {
        // Read in the copy only: here nothing of it is kept.
        let Some((order, env)) = decode(bytes) else { return 1 };
        match begin(&order, Origin { parent: Some(own), env, word: Some(word) }) {
            Ok(()) => 0,
            // The agent knows.
            Err(SuperviseError::GivenUp) => 1,
            Err(error) => {
                let _ = writeln!(io::stderr(), "error: {}", crate::diagnostics::chain(&error));
                1
            }
        }
    };
    // Where it fails the line ends, which is the answer.
    let pid = fork::copy(None, work).ok()?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// What a copy needs of its agent before it may start the command.
#[derive(Debug)]
pub(super) struct Word {
    line: OwnedFd,
    /// The command's. Until it may start, errors are the agent's to read.
    streams: Streams,
    zygote: Pid,
}

impl Word {
    /// Tells the agent who this is and waits for its word, from which on the command's streams are
    /// this process's. [`GivenUp`](SuperviseError::GivenUp) when the agent does not want it any longer, or
    /// either of the two is gone.
    pub(super) fn wait(self) -> Result<(), SuperviseError> {
        let Self { line, streams, zygote } = self;
        let own = getpid();
        let watched =
            pidfd_open(zygote, PidfdFlags::empty()).map_err(|_| SuperviseError::GivenUp)?;
        // Whose number it was before is not asked: only this one can be the parent.
        let orphaned = || getppid() != Some(zygote);
        if orphaned() {
            return Err(SuperviseError::GivenUp);
        }
        let process = pidfd_open(own, PidfdFlags::empty()).map_err(io::Error::from)?;
        send(line.as_fd(), &own.as_raw_pid().to_be_bytes(), &[process.as_fd()])
            .map_err(|_| SuperviseError::GivenUp)?;
        let mut ends = [&line, &watched].map(|fd| PollFd::new(fd, PollFlags::IN));
        while let Err(error) = poll(&mut ends, None) {
            if error != Errno::INTR {
                return Err(io::Error::from(error).into());
            }
        }
        let ended = !ends[1].revents().is_empty();
        let given = !ended && receive(line.as_fd(), &mut [0]).is_ok_and(|word| word.count == 1);
        if !given || orphaned() {
            return Err(SuperviseError::GivenUp);
        }
        Ok(streams.take_place()?)
    }
}
