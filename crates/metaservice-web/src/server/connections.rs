//! Accepts connections, a limited number of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::counted::Counted;
use super::tls::Identity;

/// The most connections, also those that have become websockets.
pub(crate) const MAX_CONNECTIONS: usize = 256;

/// How long a connection may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// How long no connection is accepted when the system has no room for one.
const PAUSE: Duration = Duration::from_millis(200);

/// What a connection too many gets.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Serves connections as long as it is polled, with TLS if there is a certificate. Dropping it ends
/// them, but for websockets.
pub(super) async fn serve(
    listener: TcpListener,
    identity: Option<Identity>,
    router: Router,
) -> Infallible {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match Arc::clone(&room).try_acquire_owned() {
                    Ok(permit) => {
                        let counted = Counted::new(stream, permit);
                        connections.spawn(secured(counted, identity.clone(), router.clone()));
                    }
                    // A new connection has room for these bytes.
                    Err(_) if identity.is_none() => drop(stream.try_write(FULL)),
                    Err(_) => {}
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection is not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn secured(stream: Counted<TcpStream>, identity: Option<Identity>, router: Router) {
    match identity {
        None => connection(stream, router).await,
        Some(identity) => match identity.accept(stream).await {
            Ok(stream) => connection(stream, router).await,
            Err(error) => tracing::debug!(%error, "a handshake fails"),
        },
    }
}

async fn connection<S>(stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection ends");
    }
}
