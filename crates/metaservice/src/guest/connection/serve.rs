//! A connection by hyper, and the decision which connections are hyper's.
//!
//! Most connections only wait for an action, so [`polls`] serves those, in little memory. From the
//! first other request on, a connection is hyper's.
//!
//! A request may be answered before its body has arrived; each error is. Agents of version 1 write
//! the whole body before they read. Such a response is the last on its connection and says so, and
//! [`Watched`] reads on for a while after it: a connection that is closed with unread bytes is
//! reset, and a reset discards a response that the peer has not read.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metaservice_protocol::header::FILE_HEADER;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::sleep;

use super::head;
use super::polls::{self, LAST_REQUEST, Step};
use super::watched::Watched;
use crate::guest::context::GuestContext;
use crate::guest::endpoints;
use crate::guest::outbox::Outbox;
use crate::job::limits::Limits;

/// The size of one read of a body.
const BUFFER: usize = 64 * 1024;

/// The same on a connection that begins with a log or a reply: a quarter of the reads.
const WIDE: usize = 512 * 1024;

/// How many connections of a job may have the large buffer.
pub(crate) const WIDE_PERMITS: usize = 16;

/// Serves one connection until it ends. After a shutdown of the service the response that is under
/// way is the last.
pub(crate) async fn serve<IO>(io: IO, guest: &Arc<GuestContext>) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let job = &guest.job;
    let mut io = Watched::new(io, &job.limits);
    let terminated = job.terminated.subscribe();
    match polls::serve(&mut io, guest, terminated.clone()).await? {
        Step::End => Ok(()),
        // Boxed, so that a connection that only waits has no memory for it.
        Step::Other => {
            let wide = head::has_large_body(&io.ahead).then(|| guest.wide.try_acquire().ok());
            let wide = wide.flatten();
            let buffer = if wide.is_some() { WIDE } else { BUFFER };
            let router = endpoints::router(Arc::clone(guest));
            Box::pin(serve_all(io, router, &job.limits, buffer, terminated)).await
        }
    }
}

/// Serves one connection by a router, as [`serve`] does, until `terminated` becomes true.
pub(crate) async fn serve_router<IO>(
    io: IO,
    router: Router,
    limits: &Limits,
    terminated: watch::Receiver<bool>,
) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    serve_all(Watched::new(io, limits), router, limits, BUFFER, terminated).await
}

async fn serve_all<IO>(
    io: Watched<IO>,
    router: Router,
    limits: &Limits,
    buffer: usize,
    mut terminated: watch::Receiver<bool>,
) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let outbox = io.outbox.clone();
    let router = router
        .layer(axum::Extension(outbox.clone()))
        .layer(axum::middleware::from_fn_with_state(outbox.clone(), close_if_unread));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_headers(limits.headers)
        .max_header_size(limits.head)
        .max_buf_size(buffer.max(limits.head))
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        _ = terminated.wait_for(|terminated| *terminated) => {}
    }
    outbox.lock().last = true;
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = sleep(LAST_REQUEST) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.map_err(io::Error::other)
}

/// Closes the connection after a response whose request's body was not read to its end.
async fn close_if_unread(State(outbox): State<Outbox>, request: Request, next: Next) -> Response {
    let empty = request.body().is_end_stream();
    // Newer agents send this header, and read the response while they write.
    let reads_late = !request.headers().contains_key(FILE_HEADER);
    let request = match empty {
        true => request,
        false => {
            outbox.lock().unread = true;
            request.map(|body| Body::new(ObservedBody { body, outbox: outbox.clone() }))
        }
    };
    let mut response = next.run(request).await;
    let mut held = outbox.lock();
    held.linger = held.unread && reads_late;
    if (held.unread || held.last) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    drop(held);
    response
}

/// A request's body that tells the outbox when it was read to its end.
struct ObservedBody {
    body: Body,
    outbox: Outbox,
}

impl http_body::Body for ObservedBody {
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
