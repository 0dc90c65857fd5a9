//! The host's side of the raw streams: they show the limit of the card.
//!
//! Owns the measurement of time, from the first byte until the other end has confirmed the last,
//! and the servers of this host to which the guest connects by a router.

use std::future::Future;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
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

/// Answers one byte with one byte, and closes.
async fn answer(mut stream: TcpStream) {
    let mut byte = [0];
    if stream.read_exact(&mut byte).await.is_ok() {
        let _ = stream.write_all(&byte).await;
    }
}

/// Servers on the loopback interface of this host, by their ports. They end with the runtime.
#[derive(Debug, Clone, Copy)]
pub(super) struct Servers {
    pub(super) discard: u16,
    pub(super) generate: u16,
    pub(super) answer: u16,
}

impl Servers {
    /// Starts them in the runtime of the caller.
    pub(super) async fn start(flow: &mpsc::UnboundedSender<Flow>) -> anyhow::Result<Self> {
        let (out, back) = (flow.clone(), flow.clone());
        let discard = serve(move |stream| {
            let flow = out.clone();
            async move { discard(stream, &flow).await }
        });
        let generate = serve(move |stream| {
            let flow = back.clone();
            async move { generate(stream, &flow).await }
        });
        Ok(Self {
            discard: discard.await?,
            generate: generate.await?,
            answer: serve(answer).await?,
        })
    }
}

/// Listens, and does the work for each connection. Returns the port.
async fn serve<F>(work: impl Fn(TcpStream) -> F + Send + 'static) -> anyhow::Result<u16>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(work(stream));
        }
    });
    Ok(port)
}
