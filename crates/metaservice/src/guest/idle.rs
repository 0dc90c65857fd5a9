//! The idle service: a machine waits here for a job, so that a snapshot of it can be taken.
//!
//! It answers the agent that there is no job and that it should wait. It refuses everything else,
//! so that the machine's memory contains no data of any job. An agent that cannot wait gets an
//! error that means "not yet". A stock cloud image gets the script that installs the agent, as an
//! instance that belongs to no job.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode};
use metaservice_protocol::header::SERVICE_HEADER;
use metaservice_protocol::{Capability, Endpoint, ErrorCode, ServiceInfo};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::guest::connection::serve;
use crate::guest::endpoints::announced;
use crate::guest::http_error::HttpError;
use crate::guest::listener::Listener;
use crate::guest::reception::Reception;
use crate::job::limits::Limits;

/// The service of a machine without a job. Clones share it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use metaservice::IdleService;
///
/// let idle = IdleService::new();
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let serving = tokio::spawn(idle.clone().serve(listener));
/// // ... start a machine, then: idle.waiting().await, and take the snapshot
/// # serving.abort();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct IdleService {
    waiting: Arc<watch::Sender<bool>>,
    reception: Arc<Reception>,
}

impl fmt::Debug for IdleService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleService")
            .field("waiting", &*self.waiting.borrow())
            .finish_non_exhaustive()
    }
}

impl IdleService {
    /// A service at which no agent waits yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A service for a stock cloud image: `cloud` is its metadata, `agent` the static agent that it
    /// installs for `platform`, as for [`Builder::agent`](crate::Builder::agent).
    #[cfg(feature = "cloud")]
    #[must_use]
    pub fn cloud(
        cloud: &crate::Cloud,
        platform: impl Into<String>,
        agent: impl Into<bytes::Bytes>,
    ) -> Self {
        let agents = [(platform.into(), agent.into())].into();
        Self { reception: Arc::new(Reception::new(agents, Some(cloud))), ..Self::default() }
    }

    /// Waits until the guest's agent waits for a job. From then on no byte moves between guest and
    /// service: stop the machine now. Cancel safe.
    pub async fn waiting(&self) {
        // The sender lives as long as `self`.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting).await;
    }

    /// Serves the connections of `listener` without end. Dropping the future closes all of them.
    pub async fn serve<L: Listener>(self, mut listener: L) -> Infallible {
        let (limits, mut connections) = (Limits::default(), JoinSet::new());
        let (_end, ended) = watch::channel(false);
        loop {
            tokio::select! {
                (io, _) = listener.accept(), if connections.len() < limits.connections => {
                    let router = Router::new().fallback(dispatch).with_state(self.clone());
                    let (limits, ended) = (limits.clone(), ended.clone());
                    connections.spawn(async move {
                        if let Err(error) = serve::serve_router(io, router, &limits, ended).await {
                            tracing::debug!(%error, "a connection ended with an error");
                        }
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn dispatch(State(idle): State<IdleService>, request: Request) -> Response {
    let agent = announced(request.headers());
    let renews = agent.as_ref().is_some_and(|agent| agent.capabilities.has(Capability::Renew));
    match Endpoint::from_path(request.uri().path()) {
        Some(endpoint) if !endpoint.allows(request.method().as_str()) => {
            let message = format!("{endpoint:?} is not used by this method");
            HttpError::new(ErrorCode::MethodNotAllowed, message).into_response()
        }
        Some(Endpoint::Ping) => StatusCode::OK.into_response(),
        Some(Endpoint::Renewal) if renews => {
            idle.waiting.send_replace(true);
            // This service never has a job: the connection ends with the machine.
            std::future::pending().await
        }
        None => idle
            .reception
            .answer(&BTreeSet::new(), &request)
            .unwrap_or_else(IntoResponse::into_response),
        Some(Endpoint::Session | Endpoint::Renewal) => HttpError::no_endpoint().into_response(),
        Some(_) => {
            let message = "there is no job yet";
            let mut response = HttpError::new(ErrorCode::NoJob, message).into_response();
            let service = ServiceInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                renewal: true,
                ..ServiceInfo::default()
            };
            if renews && let Ok(value) = HeaderValue::try_from(service.to_header()) {
                response.headers_mut().insert(SERVICE_HEADER, value);
            }
            response
        }
    }
}
