//! dial: a TCP connection from here to a port of this guest, for the host.
//!
//! Owns connecting and both directions. The connection is made before the stream is dialled, so
//! that a port where nobody listens is a refusal. Half-closes go through; what is cut on one
//! side is reset on the other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use metaservice_protocol::shell::Stream;
use metaservice_protocol::{ActionId, Dial, Failure, FailureCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

use crate::client::stream::{Over, Reader, Wire, goodbye};
use crate::client::{Client, ClientError};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much is read of the connection at once, where there is room for it.
const READ: usize = 64 * 1024;

/// Answers a dial action; returns when both directions have ended or one side is gone. Dropping
/// the future cuts both sides.
pub(crate) async fn serve(client: &Client, id: &ActionId, dial: &Dial) -> Result<(), ClientError> {
    let mut connection = match connect(dial).await {
        Ok(connection) => connection,
        Err(failure) => return client.refuse(id, &failure).await,
    };
    let (socket, protocol) = client.stream(id).await?;
    let wire = Wire::new(protocol);
    let (sink, stream) = socket.split();
    let ignore = |_| {};
    let mut reader = Reader::new(stream, &wire, &ignore);
    let mut sending = pin!(wire.send(sink));
    let over = {
        let (from, to) = connection.split();
        // One direction that breaks leaves the other: what was received before is still wanted.
        let mut carrying = pin!(async {
            let (received, sent) = tokio::join!(receive(from, &wire), send(to, &wire));
            received.and(sent)
        });
        wire.finish(Stream::Stderr);
        tokio::select! {
            carried = &mut carrying => {
                match carried {
                    Ok(()) => wire.exit(true, &[]),
                    Err(error) => wire.fail(&failure(&error)),
                }
                None
            }
            over = reader.run() => Some(over),
            () = &mut sending => Some(Over::Gone),
        }
    };
    if over.is_some() {
        // Not an end in order: the other side is to notice.
        let _ = rustix::net::sockopt::set_socket_linger(&connection, Some(Duration::ZERO));
    }
    drop(connection);
    if over != Some(Over::Gone) {
        wire.exit(false, &[]);
        goodbye(sending, &mut reader).await;
    }
    Ok(())
}

async fn connect(dial: &Dial) -> Result<TcpStream, Failure> {
    let addresses: Vec<IpAddr> = match dial.host.as_str() {
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        host => vec![host.parse().map_err(|_| {
            let message = format!("'{host}' is neither an address nor localhost");
            Failure::new(FailureCode::Invalid, message)
        })?],
    };
    let mut refused = None;
    for address in addresses {
        let address = SocketAddr::new(address, dial.port);
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(connection)) => {
                let _ = connection.set_nodelay(true);
                return Ok(connection);
            }
            Ok(Err(error)) => {
                // A guest without IPv6 has no more to say than what its IPv4 has said.
                refused.get_or_insert_with(|| failure(&error));
            }
            Err(_) => {
                let message = format!("{address} does not answer");
                refused
                    .get_or_insert_with(|| Failure::new(FailureCode::ConnectionRefused, message));
            }
        }
    }
    Err(refused.unwrap_or_else(|| Failure::new(FailureCode::Invalid, "there is no address")))
}

fn failure(error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::ConnectionRefused => FailureCode::ConnectionRefused,
        io::ErrorKind::PermissionDenied => FailureCode::PermissionDenied,
        _ => FailureCode::Other,
    };
    Failure::new(code, crate::diagnostics::chain(error))
}

/// From the connection to the host.
async fn receive(mut from: ReadHalf<'_>, wire: &Wire) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        let room = wire.room(Stream::Stdout).await;
        buffer.reserve(READ);
        let count = (&mut from).take(room as u64).read_buf(&mut buffer).await?;
        if count == 0 {
            break;
        }
        wire.write(Stream::Stdout, buffer.split().freeze());
    }
    wire.finish(Stream::Stdout);
    Ok(())
}

/// From the host to the connection.
async fn send(mut to: WriteHalf<'_>, wire: &Wire) -> io::Result<()> {
    let mut broken = None;
    while let Some(block) = wire.read().await {
        // What a closed connection no longer takes is taken and dropped.
        if broken.is_none() {
            broken = to.write_all(&block).await.err();
        }
    }
    match broken {
        Some(error) => Err(error),
        None => to.shutdown().await,
    }
}
