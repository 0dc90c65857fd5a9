//! Bodies that are read while they come.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::{Body as _, Incoming};
use tokio::io::{AsyncRead, ReadBuf};

use super::{Client, ClientError, Problem};

/// A body that is read while it comes. Dropping it closes the connection.
#[derive(Debug)]
pub struct BodyReader {
    body: Incoming,
    rest: Bytes,
    /// Where it comes from.
    client: Client,
    silence: Silence,
}

/// While nothing comes: completes when the job does not answer any longer.
#[derive(Default)]
struct Silence(Option<Pin<Box<dyn Future<Output = ClientError> + Send>>>);

impl fmt::Debug for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Silence").field(&self.0.is_some()).finish()
    }
}

impl BodyReader {
    pub(super) fn new(body: Incoming, client: Client) -> Self {
        Self { body, rest: Bytes::new(), client, silence: Silence::default() }
    }

    /// The next bytes as they came; `None` at the end. May be dropped and called again.
    ///
    /// # Errors
    /// A body that breaks off before its end, with the [`ClientError`](super::ClientError) inside
    /// where the job says why.
    pub async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.rest))));
        }
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                let client = &self.client;
                let silence =
                    self.silence.0.get_or_insert_with(|| Box::pin(client.clone().silence()));
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
                        if let Some(problem) = frame.trailers_ref().and_then(Problem::of_trailers) {
                            return Poll::Ready(Err(io::Error::other(problem)));
                        }
                    }
                },
            }
        }
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

/// A log on its way.
#[derive(Debug)]
pub struct LogBody {
    /// How many bytes before the first one are no longer kept.
    pub missed: u64,
    /// The rest.
    pub body: BodyReader,
}
