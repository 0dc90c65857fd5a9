//! Response bodies that are read while they arrive.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use hyper::body::{Body as _, Incoming};
use tokio::io::{AsyncRead, ReadBuf};

use super::connection::ControlSocket;
use super::error::{ApiError, ClientError};
use super::log_frame::FrameReader;
use crate::{LogOutput, LogSegment};

/// A body that is read while it arrives. Dropping it closes the connection. A read fails if the
/// body is not complete; the [`ClientError`](super::ClientError) is the cause if the job reports
/// one.
#[derive(Debug)]
pub struct BodyReader {
    body: Incoming,
    rest: Bytes,
    socket: ControlSocket,
    silence: Silence,
}

/// While nothing arrives: completes when the job does not answer any longer.
#[derive(Default)]
struct Silence(Option<Pin<Box<dyn Future<Output = ClientError> + Send>>>);

impl fmt::Debug for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Silence").field(&self.0.is_some()).finish()
    }
}

impl BodyReader {
    pub(super) fn new(body: Incoming, socket: ControlSocket) -> Self {
        Self { body, rest: Bytes::new(), socket, silence: Silence::default() }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.rest))));
        }
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                let socket = &self.socket;
                let silence =
                    self.silence.0.get_or_insert_with(|| Box::pin(socket.clone().silence()));
                return silence.as_mut().poll(cx).map(|silent| Err(io::Error::other(silent)));
            };
            self.silence = Silence::default();
            match frame {
                None => return Poll::Ready(Ok(None)),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Ok(Some(data))),
                    Ok(_) => {}
                    Err(frame) => {
                        if let Some(error) = frame.trailers_ref().and_then(ApiError::of_trailers) {
                            return Poll::Ready(Err(io::Error::other(error)));
                        }
                    }
                },
            }
        }
    }
}

/// The bytes in pieces as they arrived, without copying them.
impl Stream for BodyReader {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_chunk(cx).map(Result::transpose)
    }
}

impl AsyncRead for BodyReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut chunk) = ready!(self.poll_chunk(cx))? else { return Poll::Ready(Ok(())) };
        let count = chunk.len().min(buf.remaining());
        buf.put_slice(&chunk[..count]);
        chunk.advance(count);
        self.rest = chunk;
        Poll::Ready(Ok(()))
    }
}

/// A log that is being read.
#[derive(Debug)]
#[non_exhaustive]
pub struct LogBody {
    /// How many bytes before the first one are no longer kept.
    pub missed: u64,
    /// The rest.
    pub body: BodyReader,
}

/// A log that is being read, with the output of each byte and the time at which it arrived.
#[derive(Debug)]
#[non_exhaustive]
pub struct LogSegments {
    /// How many bytes before the first one are no longer kept.
    pub missed: u64,
    body: BodyReader,
    /// `None` if the job's process is of an earlier version, and sends bytes without frames.
    frames: Option<FrameReader>,
}

impl LogSegments {
    pub(super) fn new(log: LogBody, framed: bool) -> Self {
        let LogBody { missed, body } = log;
        Self { missed, body, frames: framed.then(FrameReader::default) }
    }

    /// The next segment; `None` at the end. If the job's process is of an earlier version, all of
    /// them are stdout, at an unknown time. Cancel safe.
    ///
    /// # Errors
    /// If the log is cut.
    pub async fn next(&mut self) -> io::Result<Option<LogSegment>> {
        loop {
            if let Some(frames) = &mut self.frames
                && let Some(segment) = frames.next().map_err(io::Error::other)?
            {
                return Ok(Some(segment));
            }
            let bytes = poll_fn(|cx| self.body.poll_chunk(cx)).await?;
            match (&mut self.frames, bytes) {
                (Some(frames), Some(bytes)) => frames.push(bytes),
                (Some(frames), None) if frames.is_within() => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                (None, Some(bytes)) => {
                    return Ok(Some(LogSegment::new(LogOutput::Stdout, None, bytes)));
                }
                (_, None) => return Ok(None),
            }
        }
    }
}
