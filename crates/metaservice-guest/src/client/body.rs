//! The body of a request: empty, bytes, or a stream that is still being produced.
//!
//! Owns the rule that a truncated stream never looks complete. A sender that is dropped before
//! [`end`](BodySender::end) breaks the request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// The body of a request.
#[derive(Debug)]
pub(crate) enum Body {
    /// All bytes are known.
    Whole(Bytes),
    /// The bytes come through a [`BodySender`].
    Stream(BodyStream),
}

/// The receiving side of a [`BodySender`].
#[derive(Debug)]
pub(crate) struct BodyStream {
    parts: mpsc::Receiver<BodyPart>,
    length: Option<u64>,
    given: u64,
    taken: Arc<AtomicU64>,
    /// The second half of a pair, after the first half was given.
    second: Option<Bytes>,
    ended: bool,
}

#[derive(Debug)]
enum BodyPart {
    Bytes(Bytes),
    Pair([Bytes; 2]),
    End,
}

/// Produces a [`Body`].
#[derive(Debug)]
pub(crate) struct BodySender {
    parts: mpsc::Sender<BodyPart>,
    taken: Arc<AtomicU64>,
}

/// The sender was dropped before the end of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its source has ended early")]
pub(crate) struct CutShort;

/// The request is over, so its body is not needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestOver;

impl Body {
    pub(crate) const fn empty() -> Self {
        Self::Whole(Bytes::new())
    }

    /// The bytes, if all are known.
    pub(super) fn whole(&self) -> Option<Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes.clone()),
            Self::Stream(_) => None,
        }
    }

    /// A body that a sender produces, with one part waiting at most.
    ///
    /// `length` becomes the content length. Without it the body is chunked.
    pub(crate) fn stream(length: Option<u64>) -> (BodySender, Self) {
        let (sender, parts) = mpsc::channel(1);
        let taken = Arc::new(AtomicU64::new(0));
        let stream = BodyStream {
            parts,
            length,
            given: 0,
            taken: Arc::clone(&taken),
            second: None,
            ended: false,
        };
        (BodySender { parts: sender, taken }, Self::Stream(stream))
    }
}

impl BodySender {
    /// Sends a part. Waits until the previous part was taken.
    pub(crate) async fn send(&self, bytes: Bytes) -> Result<(), RequestOver> {
        self.parts.send(BodyPart::Bytes(bytes)).await.map_err(|_| RequestOver)
    }

    /// [`send`](Self::send) for a blocking thread.
    pub(crate) fn send_blocking(&self, bytes: Bytes) -> Result<(), RequestOver> {
        self.parts.blocking_send(BodyPart::Bytes(bytes)).map_err(|_| RequestOver)
    }

    /// [`send_blocking`](Self::send_blocking) for two parts that are sent together.
    pub(crate) fn send_pair_blocking(&self, pair: [Bytes; 2]) -> Result<(), RequestOver> {
        self.parts.blocking_send(BodyPart::Pair(pair)).map_err(|_| RequestOver)
    }

    /// Ends the body. Dropping the sender without this breaks the request.
    pub(crate) async fn end(&self) -> Result<(), RequestOver> {
        self.parts.send(BodyPart::End).await.map_err(|_| RequestOver)
    }

    /// Completes when the request is over, successful or not.
    pub(crate) async fn over(&self) {
        self.parts.closed().await;
    }

    /// How many bytes the connection has written. It asked for more after them.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The counter of [`taken`](Self::taken), which outlives the sender.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.taken)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        let stream = match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Self::Whole(bytes) => {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))));
            }
            Self::Stream(stream) => stream,
        };
        if stream.ended {
            return Poll::Ready(None);
        }
        stream.taken.store(stream.given, Ordering::Relaxed);
        if let Some(second) = stream.second.take() {
            stream.given += second.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(second))));
        }
        stream.parts.poll_recv(cx).map(|part| match part {
            Some(BodyPart::Bytes(bytes)) => {
                stream.given += bytes.len() as u64;
                Some(Ok(Frame::data(bytes)))
            }
            Some(BodyPart::Pair([first, second])) => {
                stream.given += first.len() as u64;
                stream.second = Some(second);
                Some(Ok(Frame::data(first)))
            }
            Some(BodyPart::End) => {
                stream.ended = true;
                None
            }
            None => Some(Err(CutShort)),
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.length.map_or_else(SizeHint::default, |all| {
                SizeHint::with_exact(all.saturating_sub(stream.given))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(body: &mut Body) -> Option<Result<Bytes, CutShort>> {
        let frame =
            std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut *body), cx));
        frame.await.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test]
    async fn bytes_count_as_taken_once_the_connection_asks_for_more() {
        let (sender, mut body) = Body::stream(None);
        sender.send(Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(next(&mut body).await, Some(Ok(Bytes::from_static(b"abc"))));
        assert_eq!(sender.taken(), 0);
        sender.send(Bytes::from_static(b"d")).await.unwrap();
        next(&mut body).await;
        assert_eq!(sender.taken(), 3);
        sender.end().await.unwrap();
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test]
    async fn a_pair_is_available_at_once() {
        let (sender, mut body) = Body::stream(None);
        let pair = ["ab", "c"].map(|part| Bytes::from_static(part.as_bytes()));
        let sent = tokio::task::spawn_blocking(move || {
            sender.send_pair_blocking(pair).unwrap();
            sender
        });
        let sender = sent.await.unwrap();
        assert_eq!(next(&mut body).await, Some(Ok(Bytes::from_static(b"ab"))));
        assert_eq!(next(&mut body).await, Some(Ok(Bytes::from_static(b"c"))));
        sender.end().await.unwrap();
        assert_eq!((next(&mut body).await, sender.taken()), (None, 3));
    }

    #[tokio::test]
    async fn a_dropped_sender_breaks_the_body() {
        let (sender, mut body) = Body::stream(Some(5));
        sender.send(Bytes::from_static(b"abc")).await.unwrap();
        drop(sender);
        assert!(next(&mut body).await.unwrap().is_ok());
        assert_eq!(next(&mut body).await, Some(Err(CutShort)));
    }
}
