//! Standard input, with reads that can be abandoned.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyhow::{Result, bail};
use rustix::fs::{FileType, Mode, OFlags};
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

/// Completes once standard input has bytes without a reader: a pipe or a socket, when they come, or
/// a file. Never completes for anything else, such as a terminal. It reads nothing.
pub(crate) async fn unread_bytes() {
    if has_unread().await.is_none() {
        std::future::pending::<()>().await;
    }
}

async fn has_unread() -> Option<()> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().ok()?;
    let kind = rustix::fs::fstat(&stdin).ok()?;
    match FileType::from_raw_mode(kind.st_mode) {
        FileType::RegularFile => {
            let at = rustix::fs::tell(&stdin).ok()?;
            (at < u64::try_from(kind.st_size).ok()?).then_some(())
        }
        FileType::Fifo | FileType::Socket => {
            #[expect(
                deprecated,
                reason = "sound for an OwnedFd, and this crate has no unsafe code"
            )]
            let stdin = AsyncFd::with_interest(stdin, Interest::READABLE).ok()?;
            let _ready = stdin.readable().await.ok()?;
            // At the end of a pipe there are none.
            (rustix::io::ioctl_fionread(&stdin).ok()? > 0).then_some(())
        }
        _ => None,
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
