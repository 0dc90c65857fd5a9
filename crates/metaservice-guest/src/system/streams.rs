//! What a shell's command has for standard streams: three pipes, or a terminal.
//!
//! Owns making both ends, sizing the terminal and ending its input. The agent's ends never
//! block; the command's ends are as any program expects them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;

use crate::system::descriptor::Descriptor;
use metaservice_protocol::TerminalSize;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};

use crate::system::account::Account;

/// The size of a terminal until the host says another.
const FIRST_SIZE: (u16, u16) = (80, 24);

/// An end that belongs to the agent.
pub(crate) type End = Arc<Descriptor>;

/// The agent's ends.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Closed by dropping it.
    pub(crate) stdin: Option<Input>,
    pub(crate) stdout: Option<End>,
    pub(crate) stderr: Option<End>,
}

/// Where the host's input goes.
#[derive(Debug)]
pub(crate) struct Input {
    end: End,
    tty: bool,
}

/// The command's ends.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Streams {
    /// Nothing to read, and nobody who reads.
    pub(crate) fn null() -> io::Result<Self> {
        let null: OwnedFd = File::options().read(true).write(true).open("/dev/null")?.into();
        Ok(Self { stdout: null.try_clone()?, stderr: null.try_clone()?, stdin: null })
    }

    /// Makes them the standard streams of this process.
    pub(crate) fn take_place(&self) -> io::Result<()> {
        rustix::stdio::dup2_stdin(&self.stdin)?;
        rustix::stdio::dup2_stdout(&self.stdout)?;
        rustix::stdio::dup2_stderr(&self.stderr)?;
        Ok(())
    }

    pub(crate) fn into_stdio(self) -> [Stdio; 3] {
        [self.stdin.into(), self.stdout.into(), self.stderr.into()]
    }
}

/// Three pipes.
pub(crate) fn pipes(user: Option<&Account>) -> io::Result<(Ends, Streams)> {
    let (stdin, to) = pipe_with(PipeFlags::CLOEXEC)?;
    let (from, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (from_error, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let streams = Streams { stdin, stdout, stderr };
    for stream in [&streams.stdin, &streams.stdout, &streams.stderr] {
        hand_over(stream, user);
    }
    let ends = Ends {
        stdin: Some(Input { end: end(to)?, tty: false }),
        stdout: Some(end(from)?),
        stderr: Some(end(from_error)?),
    };
    Ok((ends, streams))
}

/// A terminal, for all three.
pub(crate) fn terminal(
    user: Option<&Account>,
    size: Option<TerminalSize>,
) -> io::Result<(Ends, Streams)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let stdin = ioctl_tiocgptpeer(&ours, flags)?;
    hand_over(&stdin, user);
    resize(&ours, size.map_or(FIRST_SIZE, |size| (size.columns, size.rows)));
    let streams = Streams { stdout: stdin.try_clone()?, stderr: stdin.try_clone()?, stdin };
    let end = end(ours)?;
    let stdin = Some(Input { end: Arc::clone(&end), tty: true });
    Ok((Ends { stdin, stdout: Some(end), stderr: None }, streams))
}

/// The command may want to open its own streams again by way of `/dev/stdout`.
fn hand_over(fd: &OwnedFd, user: Option<&Account>) {
    if let Some(user) = user {
        let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(user.uid)), None);
    }
}

fn end(fd: OwnedFd) -> io::Result<End> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(Arc::new(Descriptor::new(fd)?))
}

/// The process group that hears a terminal's keyboard.
pub(crate) fn foreground(terminal: impl AsFd) -> Option<rustix::process::Pid> {
    rustix::termios::tcgetpgrp(terminal).ok()
}

/// Sets a terminal's size; its processes are told by the kernel.
pub(crate) fn resize(terminal: impl AsFd, (columns, rows): (u16, u16)) {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    // Whoever closed the terminal needs no size.
    let _ = tcsetwinsize(terminal, size);
}

impl Input {
    /// The terminal, if it is one.
    pub(crate) fn terminal(&self) -> Option<End> {
        self.tty.then(|| Arc::clone(&self.end))
    }

    /// Writes all of `bytes`; `false` when nobody reads any more.
    pub(crate) async fn write(&self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Ok(mut ready) = self.end.writable().await else { return false };
            match ready.try_io(|end| Ok(rustix::io::write(end, bytes)?)) {
                Ok(Ok(count)) => bytes = &bytes[count..],
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => return false,
                Err(_would_block) => {}
            }
        }
        true
    }

    /// Says that there is no more. A terminal stays open for its output: its end-of-file
    /// character says it there, to programs that read by lines.
    pub(crate) async fn finish(self) {
        if !self.tty {
            return;
        }
        if let Ok(mode) = tcgetattr(&*self.end)
            && mode.local_modes.contains(LocalModes::ICANON)
        {
            self.write(&[mode.special_codes[SpecialCodeIndex::VEOF]]).await;
        }
    }
}

/// Reads what is there. `Ok(0)` is the end; a terminal says so by an error of its own.
pub(crate) fn read_now(end: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match rustix::io::read(&end, &mut *buffer) {
            Err(Errno::INTR) => {}
            Err(Errno::IO) => return Ok(0),
            result => return result,
        }
    }
}
