//! Connections to ports in the guest.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use metaservice_protocol::{ActionRequest, Dial};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::handle::child::command::Child;
use crate::handle::child::stream::{ChildOutput, ChildStdin};
use crate::handle::error::ActionError;
use crate::handle::service::MetaService;

/// A TCP connection to a port in the guest. Shutting it down for writing is a half-close. Dropping
/// it before both directions have ended resets the connection in the guest.
#[derive(Debug)]
pub struct GuestStream {
    input: ChildStdin,
    output: ChildOutput,
    /// Aborts the stream when this is dropped.
    _child: Child,
}

impl GuestStream {
    pub(crate) fn new(mut child: Child) -> Self {
        let streams = child.stdin.take().zip(child.stdout.take());
        let (input, output) = streams.expect("a new child has its streams");
        child.stderr = None;
        Self { input, output, _child: child }
    }
}

impl MetaService {
    /// Connects to a TCP port in the guest. `host` is an address or `localhost`.
    ///
    /// # Errors
    /// [`ActionError`]. An agent of version 1 cannot do this.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the action. A connection that had just been made is reset.
    pub async fn dial(
        &self,
        host: impl Into<String>,
        port: u16,
    ) -> Result<GuestStream, ActionError> {
        let dial = Dial { host: host.into(), port };
        self.stream(ActionRequest::Dial(dial)).await.map(GuestStream::new)
    }
}

impl AsyncRead for GuestStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buf)
    }
}

impl AsyncWrite for GuestStream {
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
