//! A log drain that takes everything at once, and counts.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::AsyncWrite;
use tokio::sync::watch;

/// How much has come, and when the last of it did.
#[derive(Debug, Clone)]
pub(super) struct Tap(watch::Receiver<u64>);

/// The drain.
pub(super) struct Drain(Arc<watch::Sender<u64>>);

impl Tap {
    pub(super) fn new() -> (Self, Drain) {
        let (sender, receiver) = watch::channel(0);
        (Self(receiver), Drain(Arc::new(sender)))
    }

    /// How many bytes have come.
    pub(super) fn bytes(&self) -> u64 {
        *self.0.borrow()
    }

    /// When so many bytes have come.
    pub(super) async fn at_least(&self, bytes: u64) -> Instant {
        let _ = self.0.clone().wait_for(|count| *count >= bytes).await;
        Instant::now()
    }
}

impl AsyncWrite for Drain {
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
