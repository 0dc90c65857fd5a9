//! A connection on which a guest waits for actions.
//!
//! Most guests do nothing else most of the time, and a host may have ten thousand of them. So a
//! poll is read and answered here, without hyper's buffers: while it waits there is what its
//! future holds, and no buffer at all. What it is answered with is the end-point's business, and
//! what it looks like on the wire is what hyper would write.

use std::io;
use std::time::SystemTime;

use axum::response::Response;
use http::{HeaderValue, header};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::head::{Head, Poll, Search};
use super::{LAST_REQUEST, Watched};
use crate::MetaService;
use crate::guest::endpoints;
use crate::job::limits::Bounds;

/// What is to be done with a connection.
pub(super) enum Step {
    /// Nothing.
    End,
    /// There is another request on it than a poll, as the bytes that have been read ahead.
    Other,
}

/// Serves polls until there is something else.
pub(super) async fn serve<IO>(
    io: &mut Watched<IO>,
    service: &MetaService,
    mut terminated: watch::Receiver<bool>,
) -> io::Result<Step>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let bounds = &service.0.bounds;
    loop {
        let head = tokio::select! {
            biased;
            head = timeout(bounds.head_time, next(io, bounds)) => head,
            () = over(&mut terminated) => return Ok(Step::End),
        };
        let Poll { headers, close, length } = match head {
            Ok(Ok(Some(Head::Poll(poll)))) => poll,
            Ok(Ok(Some(_))) => return Ok(Step::Other),
            Ok(Ok(None)) => return Ok(Step::End),
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => return Err(io::ErrorKind::TimedOut.into()),
        };
        io.served(length);
        let answer = endpoints::answer_poll(service, &headers, io.outbox.clone());
        drop(headers);
        let response = tokio::select! {
            biased;
            // The poll is lost with its connection, and its action goes to the next one.
            error = gone(io) => return Err(error),
            response = answer => response,
        };
        let close = close || *terminated.borrow();
        io.write_all(&bytes_of(response, close).await).await?;
        io.flush().await?;
        if close {
            io.shutdown().await?;
            return Ok(Step::End);
        }
    }
}

/// Completes when a connection without a request has had its time for one after a shutdown.
async fn over(terminated: &mut watch::Receiver<bool>) {
    if terminated.wait_for(|terminated| *terminated).await.is_ok() {
        sleep(LAST_REQUEST).await;
    }
}

/// What is asked next; `None` when the connection has ended instead.
async fn next<IO>(io: &mut Watched<IO>, bounds: &Bounds) -> io::Result<Option<Head>>
where
    IO: AsyncRead + Unpin,
{
    let mut search = Search::default();
    loop {
        match search.look(&io.ahead, bounds) {
            Head::Partial => {}
            head => return Ok(Some(head)),
        }
        if io.read_ahead().await? == 0 {
            let whole = io.ahead.is_empty();
            return if whole { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// Completes when the guest has given the connection up. A guest that sends more before it has its
/// answer is not listened to any further until then.
async fn gone<IO: AsyncRead + Unpin>(io: &mut Watched<IO>) -> io::Error {
    if io.ahead.is_empty() {
        match io.read_ahead().await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
    std::future::pending().await
}

/// An answer on the wire.
async fn bytes_of(response: Response, close: bool) -> Vec<u8> {
    let (mut parts, body) = response.into_parts();
    // The bodies of a poll's answers are there, and cannot fail.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if close {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    if let Ok(date) = httpdate::fmt_http_date(SystemTime::now()).try_into() {
        parts.headers.insert(header::DATE, date);
    }
    let mut bytes = Vec::with_capacity(512 + body.len());
    let reason = parts.status.canonical_reason().unwrap_or_default();
    bytes.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_u16()).as_bytes());
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}
