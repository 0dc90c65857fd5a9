//! The terminal of a job that has one.
//!
//! Owns copying the terminal's output into the pipe that becomes the log. The supervisor does
//! this, because a terminal hangs up when its controlling end is closed, and the job must outlive
//! the agent.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use metaservice_protocol::TerminalSize;

use crate::system::account::Account;
use crate::system::descriptor::Descriptor;
use crate::system::streams::{AgentEnd, CommandInput, CommandStreams, read_now, terminal};

/// How many bytes are copied at once.
const CHUNK: usize = 64 * 1024;

/// The controlling end of a terminal, and the pipe for its output.
#[derive(Debug)]
pub(super) struct Console {
    screen: AgentEnd,
    output: Descriptor,
}

impl Console {
    /// Creates a terminal, and returns its input and the command's streams.
    pub(super) fn open(
        writer: &OwnedFd,
        user: Option<&Account>,
        size: TerminalSize,
    ) -> io::Result<(Self, CommandInput, CommandStreams)> {
        let (input, screen, streams) = terminal(user, Some(size))?;
        // The command writes to the terminal, so only the console writes to the pipe.
        rustix::io::ioctl_fionbio(writer, true)?;
        let output = Descriptor::new(writer.try_clone()?)?;
        Ok((Self { screen, output }, input, streams))
    }

    /// Copies until no process has the terminal open. Waits while the pipe is full.
    pub(super) async fn copy(self) {
        let mut buffer = vec![0; CHUNK];
        loop {
            let Ok(mut ready) = self.screen.readable().await else { return };
            match ready.try_io(|screen| read_now(screen, &mut buffer).map_err(Into::into)) {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(count)) => {
                    if !write(&self.output, &buffer[..count]).await {
                        return;
                    }
                }
                Err(_would_block) => {}
            }
        }
    }
}

async fn write(output: &Descriptor, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Ok(mut ready) = output.writable().await else { return false };
        match ready.try_io(|output| Ok(rustix::io::write(output.as_fd(), bytes)?)) {
            Ok(Ok(count)) => bytes = &bytes[count..],
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(_)) => return false,
            Err(_would_block) => {}
        }
    }
    true
}
