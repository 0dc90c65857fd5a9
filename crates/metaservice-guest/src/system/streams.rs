//! The standard streams of a command: three pipes, or a terminal.
//!
//! Owns both sides of each stream: it creates them, sets the size of a terminal, and ends its
//! input. The agent's side never blocks. The command's side is what any program expects.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;

use metaservice_protocol::TerminalSize;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};

use super::account::Account;
use super::descriptor::Descriptor;

/// The size of a terminal until the host sets another.
const DEFAULT_SIZE: TerminalSize = TerminalSize { columns: 80, rows: 24 };

/// The agent's end of a stream. A terminal has one end for input and output.
pub(crate) type AgentEnd = Arc<Descriptor>;

/// The agent's ends of a command's standard streams.
#[derive(Debug)]
pub(crate) struct AgentStreams {
    /// Dropping it closes the command's standard input, unless that is a terminal.
    pub(crate) stdin: Option<CommandInput>,
    pub(crate) stdout: Option<AgentEnd>,
    /// `None` for a terminal: both outputs are one.
    pub(crate) stderr: Option<AgentEnd>,
}

/// The agent's end of a command's standard input.
#[derive(Debug)]
pub(crate) struct CommandInput {
    end: AgentEnd,
    is_terminal: bool,
}

/// The command's ends of its standard streams.
#[derive(Debug)]
pub(crate) struct CommandStreams {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl CommandStreams {
    /// `/dev/null` for all three.
    pub(crate) fn null() -> io::Result<Self> {
        let null = null_device()?;
        Ok(Self { stdout: null.try_clone()?, stderr: null.try_clone()?, stdin: null })
    }

    /// Makes them the standard streams of this process.
    pub(crate) fn install(&self) -> io::Result<()> {
        rustix::stdio::dup2_stdin(&self.stdin)?;
        rustix::stdio::dup2_stdout(&self.stdout)?;
        rustix::stdio::dup2_stderr(&self.stderr)?;
        Ok(())
    }

    pub(crate) fn into_stdio(self) -> [Stdio; 3] {
        [self.stdin.into(), self.stdout.into(), self.stderr.into()]
    }
}

/// Opens `/dev/null` for reading and writing.
pub(crate) fn null_device() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

/// Creates three pipes for a command of this user.
pub(crate) fn pipes(user: Option<&Account>) -> io::Result<(AgentStreams, CommandStreams)> {
    let (input, stdin) = input_pipe(user)?;
    let (from, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (from_error, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    for stream in [&stdout, &stderr] {
        give_to_user(stream, user);
    }
    let streams = CommandStreams { stdin, stdout, stderr };
    let ends = AgentStreams {
        stdin: Some(input),
        stdout: Some(agent_end(from)?),
        stderr: Some(agent_end(from_error)?),
    };
    Ok((ends, streams))
}

/// Creates a pipe for the input of a command of this user, and returns the command's end with it.
pub(crate) fn input_pipe(user: Option<&Account>) -> io::Result<(CommandInput, OwnedFd)> {
    let (stdin, to) = pipe_with(PipeFlags::CLOEXEC)?;
    give_to_user(&stdin, user);
    Ok((CommandInput { end: agent_end(to)?, is_terminal: false }, stdin))
}

/// Creates a terminal that is all three streams of a command of this user. Its end is both the
/// input and the output of the command.
pub(crate) fn terminal(
    user: Option<&Account>,
    size: Option<TerminalSize>,
) -> io::Result<(CommandInput, AgentEnd, CommandStreams)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = openpt(flags)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let stdin = ioctl_tiocgptpeer(&controller, flags)?;
    give_to_user(&stdin, user);
    resize(&controller, size.unwrap_or(DEFAULT_SIZE));
    let streams = CommandStreams { stdout: stdin.try_clone()?, stderr: stdin.try_clone()?, stdin };
    let end = agent_end(controller)?;
    let input = CommandInput { end: Arc::clone(&end), is_terminal: true };
    Ok((input, end, streams))
}

/// Changes the owner of a stream, so that the command can open it again as `/dev/stdout`.
pub(crate) fn give_to_user(fd: &OwnedFd, user: Option<&Account>) {
    if let Some(user) = user {
        let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(user.uid)), None);
    }
}

fn agent_end(fd: OwnedFd) -> io::Result<AgentEnd> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(Arc::new(Descriptor::new(fd)?))
}

/// The foreground process group of a terminal, which gets the signals of its keyboard.
pub(crate) fn foreground(terminal: impl AsFd) -> Option<Pid> {
    rustix::termios::tcgetpgrp(terminal).ok()
}

/// Sets the size of a terminal. The kernel sends SIGWINCH to the foreground processes.
pub(crate) fn resize(terminal: impl AsFd, TerminalSize { columns, rows }: TerminalSize) {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    // The terminal may be closed by now.
    let _ = tcsetwinsize(terminal, size);
}

impl CommandInput {
    /// The terminal, if the input is one.
    pub(crate) fn terminal(&self) -> Option<AgentEnd> {
        self.is_terminal.then(|| Arc::clone(&self.end))
    }

    /// Writes all of `bytes`; `false` if no process has the stream open for reading.
    pub(crate) async fn write(&self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Ok(count) = self.write_some(bytes).await else { return false };
            bytes = &bytes[count..];
        }
        true
    }

    /// Writes some of the first `bytes`, as soon as there is room. Fails if no process has the
    /// stream open for reading. Cancel-safe: a future that is dropped has written nothing.
    pub(crate) async fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.end.writable().await?;
            match ready.try_io(|end| Ok(rustix::io::write(end, bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => return written,
                Err(_would_block) => {}
            }
        }
    }

    /// What a terminal takes as the end of its input: its end-of-file character, if it reads lines.
    /// A pipe ends when this is dropped.
    pub(crate) fn end_character(&self) -> Option<u8> {
        let mode = self.is_terminal.then(|| tcgetattr(&*self.end).ok()).flatten()?;
        let reads_lines = mode.local_modes.contains(LocalModes::ICANON);
        reads_lines.then(|| mode.special_codes[SpecialCodeIndex::VEOF])
    }

    /// Ends the input.
    ///
    /// A terminal stays open for its output, and gets its [end](Self::end_character).
    pub(crate) async fn finish(self) {
        if let Some(last) = self.end_character() {
            self.write(&[last]).await;
        }
    }
}

/// Reads what is available. `Ok(0)` is the end; a terminal reports its end as `EIO`.
pub(crate) fn read_now(end: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match rustix::io::read(&end, &mut *buffer) {
            Err(Errno::INTR) => {}
            Err(Errno::IO) => return Ok(0),
            result => return result,
        }
    }
}
