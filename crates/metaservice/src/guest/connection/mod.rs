//! One connection of a guest's, of whatever byte stream.
//!
//! A guest that waits for an action is all that most connections ever are, so [`polls`] serves
//! those by themselves, in little memory; from the first other request on a connection is hyper's.
//!
//! What both have is the knowledge of when an answer has left the host: an
//! action counts as handed out when the bytes of the poll's answer have been written
//! and flushed, not when they were put into a buffer. [`Watched`] sees the flush,
//! [`Outbox`] holds the answers on their way; if the connection ends first they are
//! dropped, which gives their actions to the next poll. [`Watched`] also ends a connection whose
//! peer takes nothing of what it asked for.
//!
//! A request may be answered before its body has come, as every refusal is. Agents of version 1
//! write the whole body before they read: such an answer is its connection's last and says so, and
//! [`Watched`] reads on for a while behind it. A connection that is closed with unread bytes is
//! reset, which takes the answer from a peer that has not read it.

mod head;
mod polls;

use std::convert::Infallible;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use metaservice_private::lock;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metaservice_protocol::header::FILE_HEADER;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

use self::polls::Step;
use crate::MetaService;
use crate::job::actions::Answer;
use crate::job::limits::Bounds;

/// What is read at once of a body at most.
const BUFFER: usize = 64 * 1024;

/// The same on a connection that begins with a log or a reply: a quarter of the reads, and of the
/// hand-overs to whoever takes what was read.
const WIDE: usize = 512 * 1024;

/// How many connections of a job may read so much at once.
pub(crate) const WIDE_PLACES: usize = 16;

/// How much is read at once of what is not a body.
const PIECE: usize = 2 * 1024;

/// The most that is read, and thrown away, behind an answer that was given before its body had come.
const REST: usize = 32 * 1024 * 1024;

/// For how long.
const REST_TIME: Duration = Duration::from_secs(10);

/// How long a connection without a request waits for one once the service is shut down: it may be on
/// its way, and is answered.
const LAST_REQUEST: Duration = Duration::from_millis(100);

/// Serves one connection until it ends, or until what is being answered when the service is
/// shut down is answered.
pub(crate) async fn serve<IO>(io: IO, service: &MetaService) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut io = Watched::new(io, &service.0.bounds);
    let terminated = service.0.terminated.subscribe();
    match polls::serve(&mut io, service, terminated.clone()).await? {
        Step::End => Ok(()),
        // In a box, so that a connection that only waits has no room for it.
        Step::Other => {
            let wide = head::carries(&io.ahead).then(|| service.0.wide.try_acquire().ok());
            let wide = wide.flatten();
            let buffer = if wide.is_some() { WIDE } else { BUFFER };
            let bounds = &service.0.bounds;
            Box::pin(serve_all(io, service.router(), bounds, buffer, terminated)).await
        }
    }
}

/// Serves one connection by a router, as [`serve`] until `terminated` becomes true.
pub(crate) async fn serve_router<IO>(
    io: IO,
    router: Router,
    bounds: &Bounds,
    terminated: watch::Receiver<bool>,
) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    serve_all(Watched::new(io, bounds), router, bounds, BUFFER, terminated).await
}

async fn serve_all<IO>(
    io: Watched<IO>,
    router: Router,
    bounds: &Bounds,
    buffer: usize,
    mut terminated: watch::Receiver<bool>,
) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let outbox = io.outbox.clone();
    let router = router
        .layer(axum::Extension(outbox.clone()))
        .layer(axum::middleware::from_fn_with_state(outbox.clone(), answer_and_close));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_time)
        .max_headers(bounds.headers)
        .max_header_size(bounds.head)
        .max_buf_size(buffer.max(bounds.head))
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        _ = terminated.wait_for(|terminated| *terminated) => {}
    }
    // From now on each answer is its connection's last.
    outbox.lock().last = true;
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = sleep(LAST_REQUEST) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.map_err(io::Error::other)
}

/// Makes the answer to a request whose body has not come the last on its connection.
async fn answer_and_close(State(outbox): State<Outbox>, request: Request, next: Next) -> Response {
    let empty = request.body().is_end_stream();
    // An agent that is newer than version 1 reads its answer while it writes.
    let patient = !request.headers().contains_key(FILE_HEADER);
    let request = match empty {
        true => request,
        false => {
            outbox.lock().unread = true;
            request.map(|body| Body::new(Counted { body, outbox: outbox.clone() }))
        }
    };
    let mut response = next.run(request).await;
    let mut state = outbox.lock();
    state.linger = state.unread && patient;
    if (state.unread || state.last) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    drop(state);
    response
}

/// A request's body that tells its connection when it has come whole.
struct Counted {
    body: Body,
    outbox: Outbox,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.outbox.lock().unread = false;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The answers of a connection that are in hyper's buffer.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    answers: Vec<Answer>,
    abandoned: bool,
    /// The body of the request that is being served has not come whole.
    unread: bool,
    /// What still comes of it is read behind the answer.
    linger: bool,
    /// The service is shut down.
    last: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Held> {
        lock(&self.0)
    }

    fn put(&self, answer: Answer) {
        self.lock().answers.push(answer);
    }

    fn take(&self) -> Vec<Answer> {
        std::mem::take(&mut self.lock().answers)
    }

    /// Nothing more is written: the connection ends without what it would still be answered.
    pub(crate) fn abandon(&self) {
        self.lock().abandoned = true;
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
    /// What has been read and is not served yet.
    ahead: BytesMut,
    /// How long a peer may take nothing of what is written.
    stall: Duration,
    /// Runs while the peer takes nothing. In a box, as most connections never have one.
    stalled: Option<Pin<Box<Sleep>>>,
    /// What is read behind the last answer.
    rest: Option<Box<Rest>>,
}

/// The end of a connection on which something is still coming.
struct Rest {
    left: usize,
    time: Pin<Box<Sleep>>,
}

impl<IO> Watched<IO> {
    fn new(io: IO, bounds: &Bounds) -> Self {
        let (outbox, ahead) = (Outbox::default(), BytesMut::new());
        Self { io, outbox, ahead, stall: bounds.stall, stalled: None, rest: None }
    }

    /// What was read first is served; an empty buffer takes no memory.
    fn served(&mut self, length: usize) {
        self.ahead.advance(length);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }
}

impl<IO: AsyncRead + Unpin> Watched<IO> {
    /// Reads what there is behind what is `ahead`: how much that is, 0 at the stream's end.
    async fn read_ahead(&mut self) -> io::Result<usize> {
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
    /// Writes as `step` does, as long as the peer takes something now and then.
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
    /// Reads what still comes until the peer has no more, or it is too much or too late.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let begin = || Box::new(Rest { left: REST, time: Box::pin(sleep(REST_TIME)) });
        let rest = self.rest.get_or_insert_with(begin);
        if rest.time.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut room = [MaybeUninit::uninit(); 4 * PIECE];
        // Others have their turn in between.
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
        self.outbox.take().into_iter().for_each(Answer::written);
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
        // Requests of an upgraded connection may keep the outbox alive; what it holds
        // will never be written.
        drop(self.outbox.take());
    }
}
