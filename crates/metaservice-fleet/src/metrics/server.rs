//! The HTTP end-point of a worker: its metrics, and whether it works.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::condition::Readiness;
use super::handle::Metrics;

/// The most connections at a time. Others wait until one ends.
pub const MAX_CONNECTIONS: usize = 64;

/// How long a connection may take, from its start to the last byte of its one response.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after a connection could not be accepted: descriptors may be used up.
const PAUSE: Duration = Duration::from_millis(500);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves `/metrics`, `/healthz` and `/readyz`, to GET only, without end.
///
/// It has no authentication: who can connect can read the names of tenants. It serves at most
/// [`MAX_CONNECTIONS`] at a time, each for at most [`CONNECTION_TIMEOUT`].
///
/// Cancellation: all connections end.
pub async fn serve(listener: TcpListener, metrics: Metrics) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the metrics end-point accepts no connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let metrics = metrics.clone();
        connections.spawn(async move {
            // A client that is slow or gone is no matter of the worker.
            let _ = timeout(CONNECTION_TIMEOUT, converse(stream, metrics)).await;
            drop(permit);
        });
    }
}

/// Answers one request.
async fn converse(stream: TcpStream, metrics: Metrics) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let response = answer(request.method(), request.uri().path(), &metrics);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut server = http1::Builder::new();
    server.keep_alive(false).serve_connection(TokioIo::new(stream), service).await
}

fn answer(method: &Method, path: &str, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (status, kind, text) = match path {
        "/metrics" | "/healthz" | "/readyz" if *method != Method::GET => {
            (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned())
        }
        "/metrics" => (StatusCode::OK, OPEN_METRICS, metrics.text()),
        "/healthz" => (StatusCode::OK, PLAIN, "ok\n".to_owned()),
        "/readyz" => {
            let (status, text) = ready(metrics.readiness());
            (status, PLAIN, format!("{text}\n"))
        }
        _ => (StatusCode::NOT_FOUND, PLAIN, "nothing is served at this path\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
    }
    response
}

fn ready(readiness: Readiness) -> (StatusCode, &'static str) {
    match readiness {
        Readiness::Ready => (StatusCode::OK, "ready"),
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting: it reads the queue"),
        Readiness::Cut => {
            (StatusCode::SERVICE_UNAVAILABLE, "cut off: no server confirms its lease")
        }
        Readiness::Down => (StatusCode::SERVICE_UNAVAILABLE, "cut off: the queue is down"),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining: it takes no more jobs"),
    }
}
