//! The byte stream of a connection.
//!
//! [`Watched`] tells the [`Outbox`] when everything was flushed, ends a connection whose peer does
//! not read, and reads on for a while after a response that came before its request's body.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::guest::outbox::Outbox;
use crate::job::actions::PollReply;
use crate::job::limits::Limits;

/// The size of one read of what is not a body.
const PIECE: usize = 2 * 1024;

/// How many bytes are read and discarded after a response that came before its request's body.
const REST: usize = 32 * 1024 * 1024;

/// How long bytes are read and discarded.
const REST_TIME: Duration = Duration::from_secs(10);

/// A byte stream with its outbox. Hyper flushes the stream only when its own buffer is empty, so a
/// flush means that the answers in the outbox have left the host.
pub(super) struct Watched<IO> {
    io: IO,
    pub(super) outbox: Outbox,
    /// Bytes that were read and not served yet.
    pub(super) ahead: BytesMut,
    /// How long the peer may read nothing of what is written.
    stall: Duration,
    /// Runs while the peer reads nothing. Boxed, as most connections never have one.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set while the connection reads the rest of a body after the last response.
    rest: Option<Box<Rest>>,
}

/// What may still be read, and for how long.
struct Rest {
    left: usize,
    time: Pin<Box<Sleep>>,
}

impl<IO> Watched<IO> {
    pub(super) fn new(io: IO, limits: &Limits) -> Self {
        let (outbox, ahead) = (Outbox::default(), BytesMut::new());
        Self { io, outbox, ahead, stall: limits.stall, stalled: None, rest: None }
    }

    /// Removes the first bytes, which are served. An empty buffer takes no memory.
    pub(super) fn served(&mut self, length: usize) {
        self.ahead.advance(length);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }
}

impl<IO: AsyncRead + Unpin> Watched<IO> {
    /// Reads available bytes to the end of `ahead`. Returns their number, 0 at the stream's end.
    pub(super) async fn read_ahead(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            let mut room = [MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut piece))?;
            self.ahead.extend_from_slice(piece.filled());
            Poll::Ready(Ok(piece.filled().len()))
        })
        .await
    }
}

impl<IO: AsyncWrite + Unpin> Watched<IO> {
    /// Runs a step of writing. Fails if the peer has read nothing for the stall timeout.
    fn poll_step<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut IO>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = step(Pin::new(&mut self.io), cx) {
            self.stalled = None;
            return Poll::Ready(result);
        }
        let stall = self.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn check(&self) -> io::Result<()> {
        match self.outbox.lock().abandoned {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Watched<IO> {
    /// Reads and discards what arrives, until the peer ends or a limit is reached.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let begin = || Box::new(Rest { left: REST, time: Box::pin(sleep(REST_TIME)) });
        let rest = self.rest.get_or_insert_with(begin);
        if rest.time.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut room = [MaybeUninit::uninit(); 4 * PIECE];
        // Other tasks get their turn after 32 reads.
        for _ in 0..32 {
            let mut piece = ReadBuf::uninit(&mut room);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut piece)) {
                Ok(()) if !piece.filled().is_empty() && rest.left >= piece.filled().len() => {
                    rest.left -= piece.filled().len();
                }
                _ => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..count]);
            self.served(count);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        self.poll_step(cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_step(cx, AsyncWrite::poll_flush))?;
        self.outbox.take().into_iter().for_each(PollReply::written);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_none() {
            ready!(self.poll_step(cx, AsyncWrite::poll_shutdown))?;
        }
        if self.outbox.lock().linger {
            ready!(self.poll_rest(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        self.poll_step(cx, |io, cx| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<IO> Drop for Watched<IO> {
    fn drop(&mut self) {
        // The requests of an upgraded connection may keep the outbox alive, but its answers will
        // never be written.
        drop(self.outbox.take());
    }
}
