//! One connection to the service, with one request at a time.
//!
//! A connection has no task of its own. The future of the request drives it, so dropping that
//! future closes the connection, and a request that hangs never delays another.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::activity::{Activity, TrackedStream};
use super::body::Body;
use super::error::ClientError;
use super::host::Host;

/// How long a TCP connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many bytes of a body hyper may buffer: the least that it allows. Bytes that it has not
/// taken can be sent again on another connection.
const HYPER_BUFFER: usize = 8 * 1024;

/// Keep-alive: idle time, interval and number of probes.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 4);

/// The lowest descriptor of a connection. Shells have lower ones; most processes may have 1024.
const MIN_DESCRIPTOR: i32 = 512;

/// The largest body of a response that is not a payload.
pub(super) const MAX_STATUS_BODY: usize = 64 * 1024;

/// Opens a TCP connection to the service. Keep-alive notices when the host is gone.
pub(super) async fn connect(host: &Host) -> Result<TcpStream, ClientError> {
    let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(host.address()));
    let stream = connecting
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(ClientError::Connect)?;
    let (idle, interval, count) = KEEPALIVE;
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let _ = sockopt::set_tcp_keepidle(&stream, idle);
    let _ = sockopt::set_tcp_keepintvl(&stream, interval);
    let _ = sockopt::set_tcp_keepcnt(&stream, count);
    Ok(stream)
}

/// Gives a connection a higher descriptor than shells have.
///
/// Linux closes the descriptors of a killed process from the highest to the lowest
/// (`task_work_run`), and some take milliseconds. A host that sees a shell of a killed agent end,
/// and sends the next action, must not find the poll of that agent still open.
fn move_above_shells(stream: TcpStream) -> io::Result<TcpStream> {
    let stream = stream.into_std()?;
    let moved = rustix::io::fcntl_dupfd_cloexec(&stream, MIN_DESCRIPTOR);
    // If the limit allows no such number, it keeps its own.
    TcpStream::from_std(moved.map_or(stream, std::net::TcpStream::from))
}

/// The response to a request.
#[derive(Debug)]
pub(super) struct ServiceResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Result<Bytes, ClientError>,
}

/// The limits of one request and its response.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExchangeLimits {
    /// How long no byte may move in either direction; `None` is no limit.
    pub(super) stall: Option<Duration>,
    /// The largest body of a success in bytes. Other responses have [`MAX_STATUS_BODY`].
    pub(super) body: usize,
}

/// One HTTP connection.
#[derive(Debug)]
pub(super) struct Connection {
    sender: http1::SendRequest<Body>,
    // Boxed, because the connection moves from request to request.
    driver: Pin<Box<http1::Connection<TokioIo<TrackedStream>, Body>>>,
    activity: Activity,
}

impl Connection {
    pub(super) async fn open(host: &Host) -> Result<Self, ClientError> {
        let activity = Activity::new();
        let stream = move_above_shells(connect(host).await?).map_err(ClientError::Connect)?;
        let stream = TrackedStream::new(stream, &activity);
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(HYPER_BUFFER)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Self { sender, driver: Box::pin(driver), activity })
    }

    /// Makes a request and reads its complete response. Dropping the future leaves the connection
    /// unusable.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Body>,
        limits: ExchangeLimits,
    ) -> Result<ServiceResponse, ClientError> {
        let Self { sender, driver, activity } = self;
        activity.record();
        let mut response = pin!(async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let headers = response.headers().clone();
            let limit = if status == StatusCode::OK { limits.body } else { MAX_STATUS_BODY };
            Ok(ServiceResponse { status, headers, body: collect(response, limit).await })
        });
        let mut stalled = pin!(activity.stalled(limits.stall));
        let mut connected = true;
        loop {
            tokio::select! {
                response = &mut response => return response,
                duration = &mut stalled => return Err(ClientError::Silent(duration)),
                // The connection has ended. The response may already be buffered.
                _ = &mut *driver, if connected => connected = false,
            }
        }
    }

    /// Whether the connection is open and can take a request now.
    pub(super) async fn is_idle(&mut self) -> bool {
        poll_fn(|cx| {
            // Only the driver notices that the peer has closed.
            let ended = self.driver.as_mut().poll(cx).is_ready();
            Poll::Ready(!ended && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(()))))
        })
        .await
    }
}

async fn collect(
    response: Response<hyper::body::Incoming>,
    limit: usize,
) -> Result<Bytes, ClientError> {
    let mut body = response.into_body();
    let mut all = BytesMut::new();
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let Some(frame) = frame else { return Ok(all.freeze()) };
        if let Ok(data) = frame?.into_data() {
            if all.len() + data.len() > limit {
                return Err(ClientError::TooLarge(limit));
            }
            all.extend_from_slice(&data);
        }
    }
}
