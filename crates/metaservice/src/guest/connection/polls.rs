//! A connection that carries polls.
//!
//! One process may host 10,000 jobs, and nearly all of their connections are a poll that waits. So
//! a poll is read and answered here without hyper. An idle guest costs about 13 KiB of host memory
//! in all (`bench loopback/idle`); hyper would add three buffers of 8 KiB. This is what a second
//! parser of requests at a security boundary is worth. What keeps it small:
//!
//! - `httparse`, the parser that hyper uses, parses the bytes. [`head`](super::head) adds no syntax
//!   of its own.
//! - Only `GET /engine/v1/poll` without a body is served here. For every other byte sequence,
//!   valid or not, hyper gets the connection with all bytes that were read.
//! - The same function answers a poll on both ways, so both have the same checks.

use std::io;
use std::time::{Duration, SystemTime};

use axum::response::Response;
use http::{HeaderValue, header};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::head::{Head, Poll, Search};
use super::watched::Watched;
use crate::guest::context::GuestContext;
use crate::guest::endpoints;
use crate::job::limits::Limits;

/// How long an idle connection is kept open after a shutdown of the service: a request may be on
/// its way, and gets its answer.
pub(super) const LAST_REQUEST: Duration = Duration::from_millis(100);

/// What comes after the polls of a connection.
pub(super) enum Step {
    /// Nothing: it has ended.
    End,
    /// Another request than a poll. Its first bytes were read ahead.
    Other,
}

/// Serves polls until something else arrives.
pub(super) async fn serve<IO>(
    io: &mut Watched<IO>,
    guest: &GuestContext,
    mut terminated: watch::Receiver<bool>,
) -> io::Result<Step>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &guest.job.limits;
    loop {
        let head = tokio::select! {
            biased;
            head = timeout(limits.head_time, next(io, limits)) => head,
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
        let answer = endpoints::answer_poll(guest, &headers, io.outbox.clone());
        drop(headers);
        let response = tokio::select! {
            biased;
            // If the connection ends, dropping the answer gives its action to the next poll.
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

/// Completes when an idle connection is to be closed after a shutdown.
async fn over(terminated: &mut watch::Receiver<bool>) {
    if terminated.wait_for(|terminated| *terminated).await.is_ok() {
        sleep(LAST_REQUEST).await;
    }
}

/// The next request's head; `None` at the end of the connection.
async fn next<IO>(io: &mut Watched<IO>, limits: &Limits) -> io::Result<Option<Head>>
where
    IO: AsyncRead + Unpin,
{
    let mut search = Search::default();
    loop {
        match search.look(&io.ahead, limits) {
            Head::Partial => {}
            head => return Ok(Some(head)),
        }
        if io.read_ahead().await? == 0 {
            let whole = io.ahead.is_empty();
            return if whole { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// Completes when the guest closes the connection. If the guest sends more before it has its
/// answer, nothing more is read until the answer is written.
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

/// A response as bytes, as hyper would write it.
async fn bytes_of(response: Response, close: bool) -> Vec<u8> {
    let (mut parts, body) = response.into_parts();
    // A poll's answer has its whole body in memory: this does not wait and cannot fail.
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
