//! One connection of a guest's, of whatever byte stream.
//!
//! What this adds to hyper is the knowledge of when an answer has left the host: an
//! action counts as handed out when the bytes of the poll's answer have been written
//! and flushed, not when they were put into a buffer. [`Watched`] sees the flush,
//! [`Outbox`] holds the answers on their way; if the connection ends first they are
//! dropped, which gives their actions to the next poll.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::actions::Answer;
use crate::bounds::Bounds;

/// The least that hyper's buffer can be bounded to.
const LEAST_BUFFER: usize = 8 * 1024;

/// Serves one connection until it ends, or until what is being answered when
/// `terminated` becomes true is answered.
pub(crate) async fn serve<IO>(
    io: IO,
    router: Router,
    bounds: &Bounds,
    mut terminated: watch::Receiver<bool>,
) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let outbox = Outbox::default();
    let router = router.layer(axum::Extension(outbox.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_time)
        .max_headers(bounds.headers)
        .max_buf_size(bounds.head.max(LEAST_BUFFER))
        .serve_connection(TokioIo::new(Watched { io, outbox }), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        _ = terminated.wait_for(|terminated| *terminated) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// The answers of a connection that are in hyper's buffer.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Mutex<Vec<Answer>>>);

impl Outbox {
    fn put(&self, answer: Answer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    }

    fn take(&self) -> Vec<Answer> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The body of a poll's answer. Under a server of somebody else's there is no outbox:
/// then the answer counts as written when its body has been read by that server.
pub(crate) struct AnswerBody {
    pub(crate) data: Option<Bytes>,
    pub(crate) answer: Option<Answer>,
    pub(crate) outbox: Option<Outbox>,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.data.take();
        if data.is_some()
            && let Some(answer) = self.answer.take()
        {
            match &self.outbox {
                Some(outbox) => outbox.put(answer),
                None => answer.written(),
            }
        }
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

impl From<AnswerBody> for Body {
    fn from(body: AnswerBody) -> Self {
        Self::new(body)
    }
}

/// A byte stream that tells its outbox when everything has been flushed: hyper flushes
/// the stream only after its own buffer is empty.
struct Watched<IO> {
    io: IO,
    outbox: Outbox,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.outbox.take().into_iter().for_each(Answer::written);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<IO> Drop for Watched<IO> {
    fn drop(&mut self) {
        // Requests of an upgraded connection may keep the outbox alive; what it holds
        // will never be written.
        drop(self.outbox.take());
    }
}
