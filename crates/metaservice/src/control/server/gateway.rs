//! All jobs of a user behind one socket: their list, and a way to the control socket of each.
//!
//! A request to `/v1/jobs/NAME/REST` goes to the job's `/v1/REST`. Bodies, trailers and websockets
//! pass unchanged and without a buffer. Each request has a connection of its own to the job: if one
//! end goes, the other one is closed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::from_fn;
use axum::response::Response;
use axum::routing::get;
use http::uri::PathAndQuery;
use http::{StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::jobs::{Jobs, Shared, list};
use super::responses::refuse;
use super::serve::only_http_1_1;
use crate::control::error::Code;
use crate::control::paths;
use crate::handle::error::BoxError;

/// Serves the list of jobs, and each job below its name, without end. Dropping the future ends what
/// is forwarded, and no more connections are accepted.
///
/// Who can open the socket controls all jobs: set its permissions before.
///
/// # Errors
/// If the socket cannot be served any longer.
pub async fn serve_jobs(jobs: impl Jobs, listener: UnixListener) -> io::Result<()> {
    let (_end, ended) = watch::channel(());
    let serving = axum::serve(listener, router(jobs, ended));
    serving.await
}

fn router<J: Jobs>(jobs: J, ended: watch::Receiver<()>) -> Router {
    let not_allowed = || async { refuse(Code::MethodNotAllowed, "not by this method") };
    let router = Router::new().route(paths::JOBS, get(list::<J>));
    #[cfg(feature = "openapi")]
    let router =
        router.route(paths::OPENAPI, get(|| async { axum::Json(crate::control::openapi()) }));
    router
        .method_not_allowed_fallback(not_allowed)
        .fallback(forward::<J>)
        .layer(from_fn(only_http_1_1))
        .with_state(Shared { jobs: Arc::new(jobs), ended })
}

/// The name of the job that a request is for, and its path and query at the job.
fn of_job(uri: &Uri) -> Option<(&str, PathAndQuery)> {
    let (name, rest) = uri.path().strip_prefix(paths::JOBS)?.strip_prefix('/')?.split_once('/')?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{}/{rest}{query}", paths::PREFIX);
    Some((name, target.parse().ok()?))
}

async fn forward<J: Jobs>(State(shared): State<Shared<J>>, request: Request) -> Response {
    let Some((name, target)) = of_job(request.uri()) else {
        return refuse(Code::NoSuchEndPoint, "nothing is served at this path");
    };
    let socket = match shared.jobs.socket(name).await {
        Ok(socket) => socket,
        Err(error) => return refuse(Code::NotFound, error.to_string()),
    };
    let name = name.to_owned();
    match pass(request, target, &socket, shared.ended).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(%error, name, "a request was not forwarded");
            refuse(Code::Transport, format!("the job {name} does not answer: {error}"))
        }
    }
}

/// Sends a request to the job, and returns its response.
async fn pass(
    mut request: Request,
    target: PathAndQuery,
    socket: &Path,
    ended: watch::Receiver<()>,
) -> Result<Response, BoxError> {
    let client = hyper::upgrade::on(&mut request);
    *request.uri_mut() = target.into();
    let upgrades = request.headers().contains_key(header::UPGRADE);
    if !upgrades {
        // It is about the connection of the client.
        request.headers_mut().remove(header::CONNECTION);
    }
    let io = TokioIo::new(UnixStream::connect(socket).await?);
    let (mut sender, connection) = http1::handshake::<_, Body>(io).await?;
    // The connection ends with its one request.
    let mut over = ended.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = connection.with_upgrades() => {}
            _ = over.changed() => {}
        }
    });
    let mut response = sender.send_request(request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let job = hyper::upgrade::on(&mut response);
        tokio::spawn(connect(client, job, ended));
    }
    Ok(response.map(Body::new))
}

/// Copies the bytes of a websocket in both directions, until both ends are closed.
async fn connect(client: OnUpgrade, job: OnUpgrade, mut ended: watch::Receiver<()>) {
    let copied = async {
        let (client, job) = tokio::try_join!(client, job).map_err(io::Error::other)?;
        tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(job)).await
    };
    tokio::select! {
        copied = copied => {
            if let Err(error) = copied {
                tracing::debug!(%error, "a websocket broke");
            }
        }
        _ = ended.changed() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_job_is_below_its_name() {
        let of = |path: &str| {
            let uri: Uri = path.parse().unwrap();
            of_job(&uri).map(|(name, target)| (name.to_owned(), target.to_string()))
        };
        let some = |name: &str, target: &str| Some((name.to_owned(), target.to_owned()));
        assert_eq!(of("/v1/jobs/build/log?tail=2"), some("build", "/v1/log?tail=2"));
        assert_eq!(of("/v1/jobs/a.b/x/y%2F"), some("a.b", "/v1/x/y%2F"));
        for other in ["/v1/jobs", "/v1/jobs/", "/v1/jobs/build", "/v1/jobsx/a/log", "/v1/log"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
