//! A connection to a port in the guest.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::handle::shell::{Shell, ShellInput, ShellOutput};

/// A TCP connection to a port in the guest. Shutting it down for writing is a half-close, and
/// dropping it before both directions have ended resets the connection in the guest.
#[derive(Debug)]
pub struct Dialled {
    input: ShellInput,
    output: ShellOutput,
    /// Aborts what is left when this is dropped.
    _shell: Shell,
}

impl Dialled {
    pub(crate) fn new(mut shell: Shell) -> Self {
        let streams = shell.stdin.take().zip(shell.stdout.take());
        let (input, output) = streams.expect("a shell that nobody else has had");
        // Nothing is said there.
        shell.stderr = None;
        Self { input, output, _shell: shell }
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}
