//! A connection to the service, and those that are kept for another request.
//!
//! A connection has no task of its own: it is driven inside the future of the request that uses
//! it, and dropping that cuts it. Only one that has answered whole is kept, and only for a moment:
//! what is asked next comes soon or not at all, and a host closes one that asks nothing.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use metaservice_private::lock;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::client::ClientError;
use crate::client::activity::{Activity, Watched};
use crate::client::body::Body;
use crate::client::host::Host;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much hyper may hold of a body: the least it allows. What it has not taken can be sent
/// again on another connection.
const HELD_BY_HYPER: usize = 8 * 1024;

/// Keep-alive: idle time, interval and count of probes.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 4);

/// How long a connection that nothing is asked on is good for: less than a host waits.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// How many connections are kept.
const KEPT: usize = 4;

/// The first number of what is closed first; most processes may have 1024.
const ABOVE_SHELLS: i32 = 512;

/// The most that is read of an answer that is not a payload.
pub(crate) const MAX_ANSWER: usize = 64 * 1024;

/// Makes a connection to the service, which notices by itself when the host is gone.
pub(crate) async fn connect(host: &Host) -> Result<TcpStream, ClientError> {
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

/// Gives a connection a higher number than shells have. What a killed process had open is closed by
/// Linux from the highest number down (`task_work_run`), and some of it takes milliseconds: whoever
/// sees a shell end and asks for the next one shall not meet a poll that is still open and that
/// nobody reads any more.
fn first_to_close(stream: TcpStream) -> io::Result<TcpStream> {
    let stream = stream.into_std()?;
    let moved = rustix::io::fcntl_dupfd_cloexec(&stream, ABOVE_SHELLS);
    // Where there are no such numbers it stays where it is.
    TcpStream::from_std(moved.map_or(stream, std::net::TcpStream::from))
}

/// What came back for a request.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Result<Bytes, ClientError>,
}

/// How long a request may stand still, and how much its answer may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Without a byte in either direction; `None` is for ever.
    pub(crate) time: Option<Duration>,
    /// Bytes of an answer that is success; others have [`MAX_ANSWER`].
    pub(crate) most: usize,
}

/// One connection, on which one request at a time is made.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: http1::SendRequest<Body>,
    // In a box, because it moves from request to request.
    driver: Pin<Box<http1::Connection<TokioIo<Watched>, Body>>>,
    activity: Activity,
}

impl Connection {
    pub(crate) async fn open(host: &Host) -> Result<Self, ClientError> {
        let activity = Activity::new();
        let stream = first_to_close(connect(host).await?).map_err(ClientError::Connect)?;
        let stream = Watched::new(stream, &activity);
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(HELD_BY_HYPER)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Self { sender, driver: Box::pin(driver), activity })
    }

    /// Makes a request and takes its whole answer.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Body>,
        patience: Patience,
    ) -> Result<Answer, ClientError> {
        let Self { sender, driver, activity } = self;
        activity.note();
        let mut answer = pin!(async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let success = status == StatusCode::OK;
            let headers = response.headers().clone();
            let limit = if success { patience.most } else { MAX_ANSWER };
            Ok(Answer { status, headers, body: collect(response, limit).await })
        });
        let mut silent = pin!(activity.silent(patience.time));
        let mut connected = true;
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                patience = &mut silent => return Err(ClientError::Silent(patience)),
                // What has been read of the answer is still to be taken.
                _ = &mut *driver, if connected => connected = false,
            }
        }
    }

    /// Whether another request can be made at once.
    async fn is_free(&mut self) -> bool {
        poll_fn(|cx| {
            // It notices an end only when it is asked.
            let ended = self.driver.as_mut().poll(cx).is_ready();
            Poll::Ready(!ended && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(()))))
        })
        .await
    }
}

/// Connections that wait for another request.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Vec<(Instant, Connection)>>);

impl Kept {
    /// The connection that was used last, if it is still good.
    pub(crate) async fn take(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.pop()?;
            if since.elapsed() < KEPT_FOR && connection.is_free().await {
                return Some(connection);
            }
        }
    }

    fn pop(&self) -> Option<(Instant, Connection)> {
        lock(&self.0).pop()
    }

    /// Keeps a connection whose request is over, if it can take another.
    pub(crate) async fn put(&self, mut connection: Connection) {
        if connection.is_free().await {
            let mut kept = lock(&self.0);
            kept.retain(|(since, _)| since.elapsed() < KEPT_FOR);
            if kept.len() < KEPT {
                kept.push((Instant::now(), connection));
            }
        }
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
