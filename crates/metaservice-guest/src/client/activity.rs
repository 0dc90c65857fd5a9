//! When a connection last moved a byte.
//!
//! Owns the clock of "no progress". HTTP alone cannot tell a large reply that moves from one that
//! hangs, and a deadline for the whole reply would cut a large one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// When a connection last moved a byte. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Activity {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Activity {
    /// The activity of a connection that was just opened.
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), last_ms: Arc::default() }
    }

    /// Records that bytes move now.
    pub(super) fn record(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    /// Completes when no byte has moved for `limit`, and returns it. Without a limit it never
    /// completes. Cancel-safe.
    pub(super) async fn stalled(&self, limit: Option<Duration>) -> Duration {
        let Some(limit) = limit else { return std::future::pending().await };
        loop {
            let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let deadline = self.start + last + limit;
            if Instant::now() >= deadline {
                return limit;
            }
            sleep_until(deadline).await;
        }
    }
}

/// A TCP connection that records its [`Activity`].
#[derive(Debug)]
pub(super) struct TrackedStream {
    stream: TcpStream,
    activity: Activity,
}

impl TrackedStream {
    pub(super) fn new(stream: TcpStream, activity: &Activity) -> Self {
        Self { stream, activity: activity.clone() }
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.activity.record();
        Poll::Ready(result)
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.activity.record();
        Poll::Ready(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        self.activity.record();
        Poll::Ready(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_counted_from_the_last_byte() {
        let activity = Activity::new();
        let start = Instant::now();
        let mover = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            activity.record();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = mover => unreachable!(),
            duration = activity.stalled(Some(Duration::from_secs(10))) => {
                assert_eq!(duration, Duration::from_secs(10));
            }
        }
        assert_eq!(start.elapsed(), Duration::from_secs(18));
    }
}
