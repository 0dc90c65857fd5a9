//! dial: a TCP connection to an address of the guest, for the host.
//!
//! Owns the connection and its two directions. It is made before the stream is opened, so that a
//! port without a listener is a failure. A half-close is passed on. If the stream is cut, the
//! connection is reset.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use metaservice_protocol::shell::Stream;
use metaservice_protocol::{ActionId, Dial, Failure, FailureCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::stream::{AgentStream, MessageReceiver, ReceiveEnd, close};
use crate::diagnostics::with_causes;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How many bytes are read at once, if there is room for them.
const READ: usize = 64 * 1024;

/// Serves a dial action. Returns when both directions have ended, or one side is gone. Dropping the
/// future cuts both sides.
pub(super) async fn serve(client: &Client, id: &ActionId, dial: &Dial) -> Result<(), ClientError> {
    let mut connection = match connect(dial).await {
        Ok(connection) => connection,
        Err(failure) => return client.reply_failure(id, &failure).await,
    };
    let (stream, sink, source) = client.stream(id).await?.split();
    let ignore = |_| {};
    let mut receiver = MessageReceiver::new(source, &stream, &ignore);
    let mut sending = pin!(stream.send(sink));
    let cut = {
        let (from, to) = connection.split();
        // If one direction breaks, the other continues with the bytes that have come before.
        let mut carrying = pin!(async {
            let (received, sent) = tokio::join!(receive(from, &stream), send(to, &stream));
            received.and(sent)
        });
        stream.finish(Stream::Stderr);
        tokio::select! {
            carried = &mut carrying => {
                match carried {
                    Ok(()) => stream.exit(true, &[]),
                    Err(error) => stream.fail(&failure(&error)),
                }
                None
            }
            cut = receiver.run() => Some(cut),
            () = &mut sending => Some(ReceiveEnd::Disconnected),
        }
    };
    if cut.is_some() {
        // The peer gets a reset, because this is not a normal end.
        let _ = rustix::net::sockopt::set_socket_linger(&connection, Some(Duration::ZERO));
    }
    drop(connection);
    if cut != Some(ReceiveEnd::Disconnected) {
        stream.exit(false, &[]);
        close(sending, &mut receiver).await;
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
    // The first failure counts: in a guest without IPv6, the second says nothing.
    let mut first = None;
    for address in addresses {
        let address = SocketAddr::new(address, dial.port);
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(connection)) => {
                let _ = connection.set_nodelay(true);
                return Ok(connection);
            }
            Ok(Err(error)) => {
                first.get_or_insert_with(|| failure(&error));
            }
            Err(_) => {
                let message = format!("{address} does not answer");
                first.get_or_insert_with(|| Failure::new(FailureCode::ConnectionRefused, message));
            }
        }
    }
    Err(first.unwrap_or_else(|| Failure::new(FailureCode::Invalid, "there is no address")))
}

fn failure(error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::ConnectionRefused => FailureCode::ConnectionRefused,
        io::ErrorKind::PermissionDenied => FailureCode::PermissionDenied,
        _ => FailureCode::Other,
    };
    Failure::new(code, with_causes(error))
}

/// From the connection to the host.
async fn receive(mut from: ReadHalf<'_>, stream: &AgentStream) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        let room = stream.room(Stream::Stdout).await;
        buffer.reserve(READ);
        let count = (&mut from).take(room as u64).read_buf(&mut buffer).await?;
        if count == 0 {
            break;
        }
        stream.write(Stream::Stdout, buffer.split().freeze());
    }
    stream.finish(Stream::Stdout);
    Ok(())
}

/// From the host to the connection.
async fn send(mut to: WriteHalf<'_>, stream: &AgentStream) -> io::Result<()> {
    let mut broken = None;
    while let Some(block) = stream.read().await {
        // Blocks for a broken connection are acknowledged and discarded.
        if broken.is_none() {
            broken = to.write_all(&block).await.err();
        }
    }
    match broken {
        Some(error) => Err(error),
        None => to.shutdown().await,
    }
}
