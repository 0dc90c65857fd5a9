//! The control socket: routes, and what holds for each request.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post, put};
use http::{HeaderValue, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::watch;
use tokio::time::timeout;

use super::description::Description;
use super::extract::MAX_COMMAND;
use super::observed::{Observed, Progress};
use super::responses::refuse;
use super::served::Served;
use super::{attach, files, job, network, run, streams};
use crate::control::error::Code;
use crate::control::paths;
use crate::handle::service::MetaService;

/// The largest body that is read before its request is handled, in bytes.
const SMALL: u64 = 64 * 1024;

/// How long a client may read nothing of its response once the service has ended.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the control API of a job until the service is shut down. Then each client gets the rest
/// of its response, unless it reads nothing for ten seconds.
///
/// Who can open the socket controls the job: set its permissions before.
pub async fn serve(
    description: impl Into<Description>,
    service: MetaService,
    listener: tokio::net::UnixListener,
) {
    let mut terminated = service.terminated();
    let stopped = terminated.clone();
    let router = router(Served::new(description.into(), service));
    let ended = async move {
        // An error means that the service is gone, which is the same.
        let _ = terminated.wait_for(|terminated| *terminated).await;
    };
    let progress = Progress::default();
    let stalled = stalled(stopped, progress.clone());
    let listener = Observed { listener, progress };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(ended) => {
            if let Err(error) = served {
                tracing::warn!(%error, "the control socket is no longer served");
            }
        }
        () = stalled => tracing::debug!("clients of the control socket read nothing, and are cut"),
    }
}

/// Completes when the service has ended and no client has read anything for [`WRITE_TIMEOUT`].
async fn stalled(mut terminated: watch::Receiver<bool>, progress: Progress) {
    let _ = terminated.wait_for(|terminated| *terminated).await;
    let mut moves = progress.subscribe();
    while matches!(timeout(WRITE_TIMEOUT, moves.changed()).await, Ok(Ok(()))) {}
}

fn router(served: Served) -> Router {
    let not_allowed = || async { refuse(Code::MethodNotAllowed, "not by this method") };
    let router = Router::new()
        .route(paths::JOB, get(job::job))
        .route(paths::WAIT, get(job::wait))
        .route(paths::LOG, get(job::log))
        .route(paths::KILL, post(job::kill))
        .route(paths::SIGNAL, post(job::signal))
        .route(paths::ATTACH, get(attach::attach))
        .route(paths::STATS, get(files::stats))
        .route(paths::FILES, get(files::list_files))
        .route(paths::ENTRIES, get(files::entries))
        .route(paths::ARTIFACT, get(files::artifact))
        .route(paths::READ, get(files::read))
        .route(paths::WRITE, put(files::write))
        .route(
            paths::EXEC,
            get(streams::exec)
                .post(streams::exec_detached)
                .layer(DefaultBodyLimit::max(MAX_COMMAND)),
        )
        .route(paths::COMMANDS, post(streams::describe).layer(DefaultBodyLimit::max(MAX_COMMAND)))
        .route(paths::RUN, post(run::run).layer(DefaultBodyLimit::max(MAX_COMMAND)))
        .route(paths::SHELL, get(streams::shell))
        .route(paths::DIAL, get(streams::dial))
        .route(
            paths::NET_POLICY,
            get(network::policy).put(network::set_policy).layer(DefaultBodyLimit::max(MAX_COMMAND)),
        )
        .route(paths::NET_LOG, get(network::log))
        .route(paths::NET_PUBLISH, post(network::publish));
    #[cfg(feature = "openapi")]
    let router =
        router.route(paths::OPENAPI, get(|| async { axum::Json(crate::control::openapi()) }));
    router
        .method_not_allowed_fallback(not_allowed)
        .fallback(async || refuse(Code::NoSuchEndPoint, "nothing is served at this path"))
        .layer(from_fn(keep_connection))
        .layer(from_fn(only_http_1_1))
        .with_state(served)
}

/// Keeps a connection usable for its next request, or says that it is not. A connection ends after
/// a body that was not read, and a client that does not know that may send its next request on it.
/// So small bodies are read first, and a response to a larger one is the last on its connection.
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

/// Refuses HTTP/1.0. There a body ends with the connection, so one that is cut looks complete.
pub(super) async fn only_http_1_1(request: Request, next: Next) -> Response {
    if request.version() < Version::HTTP_11 {
        return refuse(Code::InvalidRequest, "this is spoken in HTTP/1.1");
    }
    next.run(request).await
}

#[cfg(test)]
#[cfg(feature = "openapi")]
mod tests {
    use axum::body::Body;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    /// The status of a request without a body.
    async fn status(router: &Router, method: &str, path: &str) -> StatusCode {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let service = TowerToHyperService::new(router.clone());
        hyper::service::Service::call(&service, request).await.unwrap().status()
    }

    #[tokio::test(start_paused = true)]
    async fn each_documented_path_exists_with_its_methods() {
        let service = MetaService::builder(["true"]).keep_log(1).start().unwrap();
        let router = router(Served::new(Description::from("job"), service.clone()));
        // No call of a handler waits for a guest.
        service.shutdown().await.unwrap();
        assert_eq!(status(&router, "GET", "/v1/none").await, StatusCode::NOT_FOUND);
        let document = crate::control::openapi();
        let documented = document["paths"].as_object().unwrap();
        // The list of jobs is at another socket.
        for (path, methods) in documented.iter().filter(|(path, _)| *path != "/jobs") {
            let path = &format!("/v1{path}");
            for method in methods.as_object().unwrap().keys() {
                let method = method.to_uppercase();
                let status = status(&router, &method, path).await;
                let missing = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
                assert!(!missing.contains(&status), "{method} {path}: {status}");
            }
            let status = status(&router, "DELETE", path).await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
        assert!(documented.len() >= 15, "{} paths", documented.len());
        // The table of the module's documentation has the same paths.
        let table = include_str!("../mod.rs");
        for path in documented.keys() {
            assert!(table.contains(&format!(" /v1{path}`")), "{path}");
        }
    }
}
