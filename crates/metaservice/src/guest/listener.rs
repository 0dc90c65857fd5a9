//! Where connections come from.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, unix};

/// How long a listener waits after an error such as too many open files.
const PAUSE: Duration = Duration::from_secs(1);

/// A source of connections: byte streams, each with its peer.
///
/// Implemented for tokio's [`TcpListener`] and [`UnixListener`]. Implement it for any other source,
/// such as a network card in user space.
pub trait Listener: Send + 'static {
    /// The byte stream of one connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// Who is at the other end, for messages.
    type Peer: fmt::Debug + Send;

    /// Waits for the next connection. An implementation handles its errors itself; one that never
    /// yields another connection stays pending. Must be cancel safe.
    fn accept(&mut self) -> impl Future<Output = (Self::Stream, Self::Peer)> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Peer = std::net::SocketAddr;

    async fn accept(&mut self) -> (TcpStream, std::net::SocketAddr) {
        loop {
            match Self::accept(self).await {
                Ok(accepted) => return accepted,
                Err(error) => pause(error).await,
            }
        }
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    type Peer = unix::SocketAddr;

    async fn accept(&mut self) -> (UnixStream, unix::SocketAddr) {
        loop {
            match Self::accept(self).await {
                Ok(accepted) => return accepted,
                Err(error) => pause(error).await,
            }
        }
    }
}

/// Waits before the next try, unless the error is of one connection only.
async fn pause(error: io::Error) {
    let of_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    );
    if !of_connection {
        tracing::error!(%error, "cannot accept a connection");
        tokio::time::sleep(PAUSE).await;
    }
}
