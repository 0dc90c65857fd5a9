//! A writer of the command's stdin: in the process of the service, or behind its control socket.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use metaservice_protocol::TerminalSize;
use tokio::io::AsyncWrite;

#[cfg(feature = "control")]
use crate::handle::child::command::Child;
#[cfg(feature = "control")]
use crate::handle::child::stream::ChildStdin;
use crate::job::input::{Input, Over};

/// The stdin of the job's command. A write waits until the guest has taken enough of what was
/// written before. Shutting this down ends the command's stdin; dropping it does not: then another
/// caller can attach.
///
/// What was accepted is delivered in order and once, also if connections to the guest are cut, its
/// agent is started again, or this is dropped. A write fails with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe) when the command reads no more.
///
/// ```no_run
/// # async fn example(service: metaservice::MetaService) -> Result<(), Box<dyn std::error::Error>> {
/// use tokio::io::AsyncWriteExt;
///
/// let mut stdin = service.attach()?;
/// stdin.write_all(b"hello\n").await?;
/// stdin.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct JobStdin(Kind);

enum Kind {
    /// `bytes` is whether the command has a stdin.
    Local { input: Arc<Input>, bytes: bool },
    #[cfg(feature = "control")]
    Remote(Remote),
}

/// The child is dropped first. Dropping it says that the client leaves, before dropping the stream
/// would end the command's stdin.
#[cfg(feature = "control")]
struct Remote {
    child: Child,
    stdin: ChildStdin,
}

impl JobStdin {
    pub(super) const fn local(input: Arc<Input>, bytes: bool) -> Self {
        Self(Kind::Local { input, bytes })
    }

    #[cfg(feature = "control")]
    pub(crate) fn remote(mut child: Child) -> Self {
        (child.stdout, child.stderr) = (None, None);
        let stdin = child.stdin.take().expect("a new child has its streams");
        Self(Kind::Remote(Remote { child, stdin }))
    }

    /// Sets the size of the command's terminal. Without a terminal, the guest ignores it.
    pub fn set_size(&self, size: TerminalSize) {
        match &self.0 {
            Kind::Local { input, .. } => input.set_size(size),
            #[cfg(feature = "control")]
            Kind::Remote(remote) => remote.child.set_size(size.columns, size.rows),
        }
    }

    /// Sends a signal, by its number on Linux: to the foreground processes of the terminal, or
    /// without a terminal to the process group of the command.
    pub fn signal(&self, number: u8) {
        match &self.0 {
            Kind::Local { input, .. } => input.signal(number),
            #[cfg(feature = "control")]
            Kind::Remote(remote) => drop(remote.child.signal(number)),
        }
    }

    /// Waits until nothing more is delivered: the command has read all of an ended stdin, or reads
    /// no more, or has ended. Cancel safe. The future does not borrow, so that it can wait while
    /// this is written.
    ///
    /// # Errors
    /// If bytes could not be delivered. The cause says why.
    pub fn closed(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let closed: Pin<Box<dyn Future<Output = io::Result<()>> + Send>> = match &self.0 {
            Kind::Local { input, .. } => {
                let over = input.over();
                Box::pin(async {
                    match over.await {
                        Over::Unwanted => Ok(()),
                        Over::Failed(cause) => Err(io::Error::other(cause)),
                    }
                })
            }
            #[cfg(feature = "control")]
            Kind::Remote(remote) => {
                let closed = remote.child.closed();
                Box::pin(async { closed.await?.map_err(io::Error::other) })
            }
        };
        closed
    }
}

impl AsyncWrite for JobStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Local { bytes: false, .. } => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Kind::Local { input, .. } => {
                let pushed = ready!(input.poll_push(cx, buf));
                Poll::Ready(pushed.ok_or_else(|| io::ErrorKind::BrokenPipe.into()))
            }
            #[cfg(feature = "control")]
            Kind::Remote(remote) => Pin::new(&mut remote.stdin).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It is sent at once: there is nothing to flush.
        Poll::Ready(Ok(()))
    }

    #[cfg_attr(not(feature = "control"), allow(unused_variables))]
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Local { input, .. } => {
                input.end();
                Poll::Ready(Ok(()))
            }
            #[cfg(feature = "control")]
            Kind::Remote(remote) => Pin::new(&mut remote.stdin).poll_shutdown(cx),
        }
    }
}

impl Drop for JobStdin {
    fn drop(&mut self) {
        match &self.0 {
            Kind::Local { input, .. } => input.detach(),
            #[cfg(feature = "control")]
            Kind::Remote(_) => {}
        }
    }
}

impl fmt::Debug for JobStdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JobStdin").finish()
    }
}
