//! A log sink that accepts everything at once, and counts.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::AsyncWrite;
use tokio::sync::watch;

/// The number of bytes that the sink has received.
#[derive(Debug, Clone)]
pub(super) struct Tap(watch::Receiver<u64>);

/// The sink.
pub(super) struct Sink(Arc<watch::Sender<u64>>);

impl Tap {
    pub(super) fn new() -> (Self, Sink) {
        let (sender, receiver) = watch::channel(0);
        (Self(receiver), Sink(Arc::new(sender)))
    }

    /// The number of bytes.
    pub(super) fn bytes(&self) -> u64 {
        *self.0.borrow()
    }

    /// Waits for this number of bytes, and returns the time.
    pub(super) async fn at_least(&self, bytes: u64) -> Instant {
        let _ = self.0.clone().wait_for(|count| *count >= bytes).await;
        Instant::now()
    }
}

impl AsyncWrite for Sink {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.send_modify(|count| *count += bytes.len() as u64);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
