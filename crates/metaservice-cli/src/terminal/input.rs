//! Our stdin, so that waiting for it can be given up.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyhow::Result;
use rustix::termios;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest, ReadBuf, Stdin};

use super::reopen;

/// Our stdin. Of a terminal nothing is read that nobody waits for; a file or a pipe is
/// read by a thread, which does not outlive the process.
pub(crate) enum Input {
    Terminal(AsyncFd<OwnedFd>),
    Other(Stdin),
}

impl Input {
    /// Inside a runtime only.
    pub(crate) fn open() -> Result<Self> {
        let stdin = io::stdin();
        if !termios::isatty(&stdin) {
            return Ok(Self::Other(tokio::io::stdin()));
        }
        // The successor is an unsafe function: it wants a descriptor that stays the same, and of
        // all types an `OwnedFd` promises that.
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
                // A terminal that is gone has nothing more to say.
                Ok(Err(error)) if error.raw_os_error() == Some(5) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}
