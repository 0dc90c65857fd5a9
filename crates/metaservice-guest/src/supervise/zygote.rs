//! A process of which the supervisors of shells are copies.
//!
//! To start a program takes the kernel a millisecond, and an emulated machine many: it translates
//! the code of each anew. So the agent starts one process beside it, with the first shell, which
//! does nothing but make a copy of itself for each order that comes over their socket. The copy
//! is the supervisor.
//!
//! ```text
//!   agent ── order, three streams ──► zygote ── fork ──► supervisor ── fork, exec ──► command
//!     ▲                                  │
//!     └───── number, pidfd ──────────────┘
//! ```
//!
//! The kernel kills it when the agent ends, and tells the supervisors when it ends: a shell dies
//! with its agent as if the agent had started it. Where there is none, or it cannot be had, the
//! agent starts a supervisor as a program.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, kill_process, pidfd_open, waitpid,
};

use super::handle::Supervisor;
use super::order::{Order, SELF};
use super::{SuperviseError, begin, fork};
use crate::shell::terminal::Streams;

/// The most bytes of an order: what a socket takes at once. Those that are larger are rare.
const MOST: usize = 64 * 1024;

/// How long a copy may take. Only a machine that stands still, or somebody who stops processes,
/// takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Variables of an environment.
pub(super) type Env = Vec<(OsString, OsString)>;

/// The zygote as its agent sees it. Dropping it ends it, and the shells that came of it.
#[derive(Debug)]
pub(crate) struct Zygote {
    pid: Pid,
    socket: OwnedFd,
}

/// Why there is no copy.
#[derive(Debug)]
pub(crate) enum NoCopy {
    /// This order is not one for it.
    Unfit,
    /// It is of no use any more.
    Broken,
}

impl Zygote {
    /// Starts one.
    pub(crate) fn start() -> io::Result<Self> {
        let kind = SocketType::SEQPACKET;
        let (socket, other) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        let mut command = Command::new(SELF);
        command.arg0("metaservice-guest").arg("zygote").arg(getpid().as_raw_pid().to_string());
        let child = command.stdin(other).stdout(Stdio::null()).spawn()?;
        Ok(Self { pid: Pid::from_child(&child), socket })
    }

    /// Starts a supervisor with these standard streams.
    pub(crate) fn supervisor(
        &self,
        order: &Order,
        env: &[(String, String)],
        streams: &Streams,
    ) -> Result<Supervisor, NoCopy> {
        let bytes = encode(order, env).ok_or(NoCopy::Unfit)?;
        let streams = [streams.stdin.as_fd(), streams.stdout.as_fd(), streams.stderr.as_fd()];
        send(self.socket.as_fd(), &bytes, &streams).map_err(|_| NoCopy::Broken)?;
        let mut answer = [0; 4];
        let received = receive(self.socket.as_fd(), &mut answer).map_err(|_| NoCopy::Broken)?;
        match (received.count, received.descriptors.into_iter().next()) {
            // The kernel has no process for it.
            (1, None) => Err(NoCopy::Unfit),
            (4, Some(process)) => {
                let pid = Pid::from_raw(i32::from_be_bytes(answer)).ok_or(NoCopy::Broken)?;
                Supervisor::of(pid, process).map_err(|_| NoCopy::Broken)
            }
            _ => Err(NoCopy::Broken),
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
        if wait(&mut copies)? && !serve(&mut bytes, &mut copies)? {
            return Ok(());
        }
    }
}

/// Waits for an order, and takes leave of copies that have ended; whether there is an order.
fn wait(copies: &mut Vec<(Pid, OwnedFd)>) -> io::Result<bool> {
    let socket = rustix::stdio::stdin();
    let watched = [socket].into_iter().chain(copies.iter().map(|(_, process)| process.as_fd()));
    let mut watched: Vec<_> =
        watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    match poll(&mut watched, None) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let ended: Vec<_> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
    let mut ended = ended.into_iter();
    let ordered = ended.next().unwrap_or_default();
    copies.retain(|(pid, _)| {
        let ended = ended.next().unwrap_or_default();
        if ended {
            let _ = waitpid(Some(*pid), WaitOptions::NOHANG);
        }
        !ended
    });
    Ok(ordered)
}

/// Makes one copy; `false` when there are no more orders.
fn serve(bytes: &mut [u8], copies: &mut Vec<(Pid, OwnedFd)>) -> io::Result<bool> {
    let socket = rustix::stdio::stdin();
    let received = receive(socket, bytes)?;
    let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(received.descriptors) else {
        return Ok(false);
    };
    let Some((order, env)) = decode(&bytes[..received.count]) else { return Ok(false) };
    let own = getpid();
    let streams = Streams { stdin, stdout, stderr };
    let made = fork::copy(None, move |_| {
        let supervised = streams.take_place().map_err(SuperviseError::from);
        // Only the command shall hold them.
        drop(streams);
        match supervised.and_then(|()| begin(&order, env, Some(own))) {
            Ok(()) => 0,
            Err(error) => {
                let _ = writeln!(io::stderr(), "error: {}", crate::words::chain(&error));
                1
            }
        }
    });
    let made = made.and_then(|pid| Ok((pid, pidfd_open(pid, PidfdFlags::empty())?)));
    match made {
        Ok((pid, process)) => {
            send(socket, &pid.as_raw_pid().to_be_bytes(), &[process.as_fd()])?;
            copies.push((pid, process));
        }
        Err(_) => send(socket, &[0], &[])?,
    }
    Ok(true)
}

/// An order and an environment as one message: the number of its words, then all words, each
/// ended by a zero. `None` for what is too long, or has a zero in it.
fn encode(order: &Order, env: &[(String, String)]) -> Option<Vec<u8>> {
    let arguments = order.arguments();
    let mut bytes = u32::try_from(arguments.len()).ok()?.to_be_bytes().to_vec();
    let variables = env.iter().flat_map(|(name, value)| [OsStr::new(name), OsStr::new(value)]);
    for word in arguments.iter().map(OsString::as_os_str).chain(variables) {
        if word.as_bytes().contains(&0) {
            return None;
        }
        bytes.extend_from_slice(word.as_bytes());
        bytes.push(0);
    }
    (bytes.len() <= MOST).then_some(bytes)
}

fn decode(bytes: &[u8]) -> Option<(Order, Env)> {
    let (count, words) = bytes.split_first_chunk()?;
    let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
    let mut words = words.split_inclusive(|byte| *byte == 0).map(|word| {
        let word = word.strip_suffix(&[0]).unwrap_or(word);
        OsString::from_vec(word.to_vec())
    });
    let arguments: Vec<_> = words.by_ref().take(count).collect();
    let order = Order::parse(&mut lexopt::Parser::from_args(arguments)).ok()?;
    let mut env = Env::new();
    while let Some(name) = words.next() {
        env.push((name, words.next()?));
    }
    Some((order, env))
}

struct Received {
    /// How many bytes came; none at the end.
    count: usize,
    descriptors: Vec<OwnedFd>,
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // It takes what it is sent at once, or does not work any more.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(bytes)];
        match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            message => break message?,
        }
    };
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut descriptors = Vec::with_capacity(3);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(Received { count: message.bytes, descriptors })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::program::Program;
    use crate::state::Folder;
    use crate::supervise::Kind;

    fn order(words: Vec<String>) -> Order {
        let program = Program { words, env: Vec::new(), user: None, workdir: None };
        Order::new(&Folder::at("/folder".into()), Kind::Shell, true, &program)
    }

    proptest! {
        #[test]
        fn decode_inverts_encode(
            words in proptest::collection::vec("[^\0]{0,8}", 0..4),
            env in proptest::collection::vec(("[^\0]{0,8}", "[^\0]{0,8}"), 0..4),
        ) {
            let order = order(words);
            let (same, variables) = decode(&encode(&order, &env).unwrap()).unwrap();
            prop_assert_eq!(same, order);
            let env: Env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            prop_assert_eq!(variables, env);
        }

        #[test]
        fn nothing_that_comes_is_too_much(bytes in any::<Vec<u8>>()) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn what_no_message_carries_is_not_for_it() {
        let with = |length| order(vec!["x".repeat(length)]);
        let rest = encode(&with(0), &[]).unwrap().len();
        assert_eq!(encode(&with(MOST - rest), &[]).unwrap().len(), MOST);
        assert!(encode(&with(MOST - rest + 1), &[]).is_none());
        assert!(encode(&order(vec!["a\0b".to_owned()]), &[]).is_none());
        assert!(encode(&with(0), &[("a\0".to_owned(), String::new())]).is_none());
    }
}
