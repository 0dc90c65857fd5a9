//! The serving end: requests to calls of the handle, outcomes to answers.

mod described;
mod files;
mod job;
mod moved;
mod problem;
mod streams;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use metaservice_private::lock;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post, put};
use http::{HeaderValue, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::timeout;

use self::described::Described;
pub(super) use self::files::*;
pub(super) use self::job::*;
use self::moved::{Moved, Observed};
use self::problem::refuse;
pub(super) use self::streams::*;
use super::Code;
use crate::MetaService;

/// The largest body that is read before its request is looked at.
const SMALL: u64 = 64 * 1024;

/// The largest body that describes a command.
pub(super) const MAX_COMMAND: usize = metaservice_protocol::limits::MAX_ACTION;

/// How long a client may take nothing of its answer once the service has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the process that serves a job says of it.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// The job's name.
    pub name: String,
    /// What is told as the job's command, where the guest runs something around it. The names of
    /// its variables are not told then.
    pub command: Option<Vec<String>>,
    /// About its machine.
    pub machine: MachineDescription,
}

/// What is told of a job's machine: any JSON, for people; `null` for nothing. Clones are of the
/// same description, which may change while it is served.
#[derive(Debug, Clone, Default)]
pub struct MachineDescription(Arc<Mutex<serde_json::Value>>);

impl MachineDescription {
    /// Replaces what is told.
    pub fn set(&self, description: serde_json::Value) {
        *lock(&self.0) = description;
    }

    fn get(&self) -> serde_json::Value {
        lock(&self.0).clone()
    }
}

impl From<&str> for Description {
    fn from(name: &str) -> Self {
        Self::from(name.to_owned())
    }
}

impl From<String> for Description {
    fn from(name: String) -> Self {
        Self { name, ..Self::default() }
    }
}

#[derive(Clone)]
pub(super) struct Served {
    description: Description,
    service: MetaService,
    started: SystemTime,
    described: Arc<Mutex<Described>>,
}

/// Serves the control API of a job until the service is shut down, and each client has its answer
/// or has taken nothing of it for ten seconds. Who can open the socket controls the job: its
/// permissions are the caller's to set.
pub async fn serve(
    description: impl Into<Description>,
    service: MetaService,
    listener: UnixListener,
) {
    let mut terminated = service.0.terminated.subscribe();
    let stopped = terminated.clone();
    let started = SystemTime::now();
    let described = Arc::default();
    let router = router(Served { description: description.into(), service, started, described });
    let ended = async move {
        // An error means that the service is gone: the same.
        let _ = terminated.wait_for(|terminated| *terminated).await;
    };
    let moved = Moved::default();
    let stalled = stalled(stopped, moved.clone());
    let listener = Observed { listener, moved };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(ended) => {
            if let Err(error) = served {
                tracing::warn!(%error, "the control socket is no longer served");
            }
        }
        () = stalled => tracing::debug!("clients of the control socket take nothing, and are cut"),
    }
}

/// Completes when the service has ended and clients have taken nothing for [`PATIENCE`].
async fn stalled(mut terminated: watch::Receiver<bool>, moved: Moved) {
    let _ = terminated.wait_for(|terminated| *terminated).await;
    let mut moves = moved.subscribe();
    while matches!(timeout(PATIENCE, moves.changed()).await, Ok(Ok(()))) {}
}

fn router(served: Served) -> Router {
    let not_allowed = || async { refuse(Code::MethodNotAllowed, "not by this method") };
    Router::new()
        .route("/v1/job", get(job))
        .route("/v1/wait", get(wait))
        .route("/v1/log", get(log))
        .route("/v1/kill", post(kill))
        .route("/v1/signal", post(signal))
        .route("/v1/stats", get(stats))
        .route("/v1/files", get(list_files))
        .route("/v1/entries", get(entries))
        .route("/v1/artifact", get(artifact))
        .route("/v1/read", get(read))
        .route("/v1/write", put(write))
        .route("/v1/exec", get(exec).post(exec_detached).layer(DefaultBodyLimit::max(MAX_COMMAND)))
        .route("/v1/commands", post(describe).layer(DefaultBodyLimit::max(MAX_COMMAND)))
        .route("/v1/shell", get(shell))
        .route("/v1/dial", get(dial))
        .route("/v1/openapi.json", get(|| async { axum::Json(super::openapi()) }))
        .method_not_allowed_fallback(not_allowed)
        .fallback(async || refuse(Code::NoSuchEndPoint, "nothing is served at this path"))
        .layer(from_fn(keep_connection))
        .layer(from_fn(only_http_1_1))
        .with_state(served)
}

/// Keeps a connection good for its next request, or says that it is not. A body that nobody has read
/// ends its connection, and a caller that has not been told may ask the next thing on it: small bodies
/// are read first, and the answer to any other is the last on its connection.
async fn keep_connection(request: Request, next: Next) -> Response {
    if request.body().size_hint().upper().is_none_or(|most| most > SMALL) {
        let mut response = next.run(request).await;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        return response;
    }
    let (parts, body) = request.into_parts();
    match body.collect().await {
        Ok(body) => next.run(Request::from_parts(parts, body.to_bytes().into())).await,
        Err(_) => refuse(Code::InvalidRequest, "the request's body is not whole"),
    }
}

/// Refuses HTTP/1.0, whose bodies end with the connection: one that breaks off looks complete.
async fn only_http_1_1(request: Request, next: Next) -> Response {
    if request.version() < Version::HTTP_11 {
        return refuse(Code::InvalidRequest, "this is spoken in HTTP/1.1");
    }
    next.run(request).await
}
