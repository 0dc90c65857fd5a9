//! A connection that notes when it last moved a byte.
//!
//! Owns the clock of "no progress": HTTP alone cannot tell a large reply that moves from one
//! that is stuck, and a deadline for the whole would cut the former.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// When a connection last moved a byte.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Activity {
    /// A connection that has just been made.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), last_ms: Arc::default() }
    }

    /// Something moves now.
    pub(crate) fn note(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    /// Completes when nothing has moved for `patience`, with it; without one, never.
    pub(crate) async fn silent(&self, patience: Option<Duration>) -> Duration {
        let Some(patience) = patience else { return std::future::pending().await };
        loop {
            let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let deadline = self.start + last + patience;
            if Instant::now() >= deadline {
                return patience;
            }
            sleep_until(deadline).await;
        }
    }
}

/// A TCP connection that keeps an [`Activity`].
#[derive(Debug)]
pub(crate) struct Watched {
    stream: TcpStream,
    activity: Activity,
}

impl Watched {
    pub(crate) fn new(stream: TcpStream, activity: &Activity) -> Self {
        Self { stream, activity: activity.clone() }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.activity.note();
        Poll::Ready(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.activity.note();
        Poll::Ready(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        self.activity.note();
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
    async fn silence_is_counted_from_the_last_byte() {
        let activity = Activity::new();
        let start = Instant::now();
        let mover = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            activity.note();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = mover => unreachable!(),
            patience = activity.silent(Some(Duration::from_secs(10))) => {
                assert_eq!(patience, Duration::from_secs(10));
            }
        }
        assert_eq!(start.elapsed(), Duration::from_secs(18));
    }
}
