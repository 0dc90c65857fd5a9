//! The host's side of the raw streams: they show the limit of the card.
//!
//! Owns the measurement of time, from the first byte until the other end has confirmed the last.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::guest::PIECE;

/// A completed stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) bytes: u64,
    time: Duration,
}

impl Flow {
    /// The rate in MB/s.
    pub(super) fn rate(&self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64() / 1e6
    }
}

/// Discards a stream, until its end.
pub(super) async fn discard(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    flow: &mpsc::UnboundedSender<Flow>,
) {
    let mut piece = vec![0; PIECE];
    let (mut bytes, mut begun) = (0, None);
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        begun.get_or_insert_with(Instant::now);
        bytes += count as u64;
    }
    let time = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
    let _ = flow.send(Flow { bytes, time });
    let _ = stream.shutdown().await;
}

/// Reads a number of bytes from the first eight bytes, sends as many, and waits until they are
/// read.
pub(super) async fn generate(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    flow: &mpsc::UnboundedSender<Flow>,
) {
    let Ok(bytes) = stream.read_u64().await else { return };
    let piece = vec![0x5a; PIECE];
    let begun = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        if stream.write_all(&piece[..count]).await.is_err() {
            break;
        }
        left -= count as u64;
    }
    let _ = stream.read(&mut [0]).await;
    let _ = flow.send(Flow { bytes: bytes - left, time: begun.elapsed() });
}

/// Runs [`discard`] for each connection.
pub(super) async fn serve(listener: TcpListener, flow: mpsc::UnboundedSender<Flow>) {
    while let Ok((stream, _)) = listener.accept().await {
        let flow = flow.clone();
        tokio::spawn(async move { discard(stream, &flow).await });
    }
}
