//! Standard input, with reads that can be abandoned.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyhow::{Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::termios;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest, ReadBuf, Stdin};

/// Standard input. An abandoned read of a terminal takes nothing. A file or a pipe is read by a
/// thread, which ends with the process.
pub(crate) enum Input {
    Terminal(AsyncFd<OwnedFd>),
    Other(Stdin),
}

impl Input {
    /// Opens it. This needs a runtime.
    pub(crate) fn open() -> Result<Self> {
        let stdin = io::stdin();
        if !termios::isatty(&stdin) {
            return Ok(Self::Other(tokio::io::stdin()));
        }
        // The replacement is an unsafe function. It needs a descriptor that stays the same, which
        // an `OwnedFd` guarantees.
        #[expect(deprecated, reason = "sound for an OwnedFd, and this crate has no unsafe code")]
        let tty = AsyncFd::with_interest(reopen(&stdin)?, Interest::READABLE)?;
        Ok(Self::Terminal(tty))
    }
}

impl AsyncRead for Input {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tty = match self.get_mut() {
            Self::Other(stdin) => return Pin::new(stdin).poll_read(cx, buf),
            Self::Terminal(tty) => tty,
        };
        loop {
            let mut ready = ready!(tty.poll_read_ready(cx))?;
            let into = buf.initialize_unfilled();
            match ready.try_io(|tty| Ok(rustix::io::read(tty, &mut *into)?)) {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // EIO: the terminal has gone. This is the end of the input.
                Ok(Err(error)) if error.raw_os_error() == Some(5) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

/// Opens the terminal `tty` again, as a file description that does not block. The flag belongs to
/// the description: on that of stdin, it would affect the shell that shares it.
pub(super) fn reopen(tty: impl std::os::fd::AsFd) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let named = termios::ttyname(tty, Vec::new()).ok();
    // In a container, the name can lead to another file. The controlling terminal has a fixed name.
    for name in named.as_deref().into_iter().chain([c"/dev/tty"]) {
        if let Ok(tty) = rustix::fs::open(name, flags, Mode::empty()) {
            return Ok(tty);
        }
    }
    bail!("neither by its name nor as /dev/tty");
}
