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
//! Each order has a line of its own, a socket whose other end the copy gets. The copy begins when
//! the agent, which knows it by then, says so, and ends when the line does: an order that is given
//! up is not carried out.
//!
//! The kernel kills the zygote when the agent ends, and tells the supervisors when the zygote ends:
//! a shell dies with its agent as if the agent had started it. Where there is none, or it cannot be
//! had, the agent starts a supervisor as a program.

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
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, kill_process, pidfd_open, waitpid,
};

use tokio::time::timeout;

use super::handle::Supervisor;
use super::order::{Order, SELF};
use super::{SuperviseError, begin, fork};
use crate::descriptor::Descriptor;
use crate::shell::terminal::Streams;

/// The most bytes of an order: less than what a socket takes at once. Those that are larger are
/// rare.
const MOST: usize = 64 * 1024;

/// How long a copy may take. Only a machine that stands still, or somebody who stops processes,
/// takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The descriptors of an order: three streams and a line.
const DESCRIPTORS: usize = 4;

/// Variables of an environment.
pub(super) type Env = Vec<(OsString, OsString)>;

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
        let child = command.stdin(other).stdout(Stdio::null()).spawn()?;
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
            Ok(received) => copies.extend(serve(&bytes[..received.count], received.descriptors)),
            // Without a descriptor for what came with it, it is refused by the end of its line.
            Err(Errno::INVAL) => {}
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
    let (order, env) = decode(bytes)?;
    let own = getpid();
    let streams = Streams { stdin, stdout, stderr };
    let work = move |_| {
        if streams.take_place().is_err() || !may_begin(&line) {
            return 1;
        }
        // Only the command shall hold them.
        drop((streams, line));
        match begin(&order, env, Some(own)) {
            Ok(()) => 0,
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

/// Tells the agent who this is, and waits for its word.
fn may_begin(line: &OwnedFd) -> bool {
    let own = getpid();
    let Ok(process) = pidfd_open(own, PidfdFlags::empty()) else { return false };
    let told = send(line.as_fd(), &own.as_raw_pid().to_be_bytes(), &[process.as_fd()]);
    told.is_ok() && receive(line.as_fd(), &mut [0]).is_ok_and(|word| word.count == 1)
}

/// Two ends of a socket that keeps messages apart.
fn line() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
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

fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    // It is taken at once, or not at all.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// The next message; `INVAL` for one that has not come whole.
fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> rustix::io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(bytes)];
        match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            message => break message?,
        }
    };
    let mut descriptors = Vec::with_capacity(DESCRIPTORS);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let whole = !message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    whole.then_some(Received { count: message.bytes, descriptors }).ok_or(Errno::INVAL)
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
