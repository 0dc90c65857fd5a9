//! The serving end: requests to calls of the handle, outcomes to answers.

mod files;
mod job;
mod problem;
mod streams;

use std::time::SystemTime;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post, put};
use http::Version;
use tokio::net::UnixListener;

pub(super) use self::files::*;
pub(super) use self::job::*;
use self::problem::refuse;
pub(super) use self::streams::*;
use super::Code;
use crate::MetaService;

/// What whoever serves a job says of it.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// The job's name.
    pub name: String,
    /// Anything about its machine, for people; `null` for nothing.
    pub machine: serde_json::Value,
}

impl From<&str> for Description {
    fn from(name: &str) -> Self {
        Self::from(name.to_owned())
    }
}

impl From<String> for Description {
    fn from(name: String) -> Self {
        Self { name, machine: serde_json::Value::Null }
    }
}

#[derive(Clone)]
pub(super) struct Served {
    description: Description,
    service: MetaService,
    started: SystemTime,
}

/// Serves the control API of a job until the service is shut down. Whoever can open the
/// socket controls the job: its permissions are the caller's to set.
pub async fn serve(
    description: impl Into<Description>,
    service: MetaService,
    listener: UnixListener,
) {
    let mut terminated = service.0.terminated.subscribe();
    let started = SystemTime::now();
    let router = router(Served { description: description.into(), service, started });
    let ended = async move {
        // An error means that the service is gone: the same.
        let _ = terminated.wait_for(|terminated| *terminated).await;
    };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(ended) => {
            if let Err(error) = served {
                tracing::warn!(%error, "the control socket is no longer served");
            }
        }
    }
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
        .route("/v1/exec", get(exec).post(exec_detached))
        .route("/v1/shell", get(shell))
        .route("/v1/dial", get(dial))
        .route("/v1/openapi.json", get(|| async { axum::Json(super::openapi()) }))
        .method_not_allowed_fallback(not_allowed)
        .fallback(async || refuse(Code::NoSuchEndPoint, "nothing is served at this path"))
        .layer(from_fn(in_chunks))
        .with_state(served)
}

/// Refuses HTTP/1.0, whose bodies end with the connection: one that breaks off looks complete.
async fn in_chunks(request: Request, next: Next) -> Response {
    if request.version() < Version::HTTP_11 {
        return refuse(Code::InvalidRequest, "this is spoken in HTTP/1.1");
    }
    next.run(request).await
}
