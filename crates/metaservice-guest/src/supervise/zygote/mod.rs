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
//! starts its command when the agent, which knows it by then, says so, and ends when the line does:
//! an order that is given up is not carried out. So a copy can be made before it is sure that
//! anybody wants it.
//!
//! The kernel kills the zygote when the agent ends, and tells the supervisors when the zygote ends:
//! a shell dies with its agent as if the agent had started it. Where there is none, or it cannot be
//! had, the agent starts a supervisor as a program.

mod birth;
mod message;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, pidfd_open};

pub(crate) use self::birth::{Birth, NoCopy, Unborn, Zygote};
use self::message::{MOST, Received, decode, receive, send};
use super::{Origin, SuperviseError, begin, fork};
use crate::shell::terminal::Streams;

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
    let streams = Streams { stdin, stdout, stderr };
    let work = move |_| {
        // Read in the copy only: here nothing of it is kept.
        let Some((order, env)) = decode(bytes) else { return 1 };
        let Ok(word) = streams.take_place().and_then(|()| Word::ask(line)) else { return 1 };
        // Only the command shall hold them.
        drop(streams);
        match begin(&order, Origin { parent: Some(own), env, word: Some(word) }) {
            Ok(()) => 0,
            // Nobody reads what it says.
            Err(SuperviseError::GivenUp) => 1,
            Err(error) => {
                let _ = writeln!(io::stderr(), "error: {}", crate::words::chain(&error));
                1
            }
        }
    };
    // Where it fails the line ends, which is the answer.
    let pid = fork::copy(None, work).ok()?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// The agent's word that a command may start.
#[derive(Debug)]
pub(super) struct Word {
    line: OwnedFd,
}

impl Word {
    /// Tells the agent who this is, which may give its word then.
    fn ask(line: OwnedFd) -> io::Result<Self> {
        let own = getpid();
        let process = pidfd_open(own, PidfdFlags::empty())?;
        send(line.as_fd(), &own.as_raw_pid().to_be_bytes(), &[process.as_fd()])?;
        Ok(Self { line })
    }

    /// Waits for it; `false` when the order was given up, or the agent is gone.
    pub(super) fn given(self) -> bool {
        receive(self.line.as_fd(), &mut [0]).is_ok_and(|word| word.count == 1)
    }
}
