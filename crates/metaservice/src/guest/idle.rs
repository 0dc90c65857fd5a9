//! The service of a machine that has no job yet, and is about to be saved.
//!
//! Owns one thing: the guest's agent is told that there is nothing to do, and to wait. It refuses
//! everything else, so that nothing of any job can be in the machine's memory. An agent that does
//! not know how to wait is told nothing that it would understand otherwise than as "not yet". A
//! stock cloud image is told what brings the agent in, as an instance that is no job's.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use metaservice_protocol::header::SERVICE_HEADER;
use metaservice_protocol::{Capability, Endpoint, ErrorCode, ServiceInfo};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Listener;
use crate::guest::cloud::Cloud;
use crate::guest::connection;
use crate::guest::endpoints::{Refused, announced};
use crate::guest::reception::Reception;
use crate::job::limits::Bounds;

/// The service of a machine without a job. Clones share it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use metaservice::Preparation;
///
/// let preparation = Preparation::new();
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let serving = tokio::spawn(preparation.clone().serve(listener));
/// // ... start a machine, then: preparation.waiting().await, and save it
/// # serving.abort();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Preparation {
    waiting: Arc<watch::Sender<bool>>,
    reception: Arc<Reception>,
}

impl fmt::Debug for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preparation")
            .field("waiting", &*self.waiting.borrow())
            .finish_non_exhaustive()
    }
}

impl Preparation {
    /// A service that nobody waits at yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For a stock cloud image: what its cloud-init is told, and the static agent that it fetches
    /// for a platform, as in [`Builder::agent`](crate::Builder::agent).
    #[must_use]
    pub fn cloud(cloud: &Cloud, platform: impl Into<String>, agent: impl Into<Bytes>) -> Self {
        let agents = [(platform.into(), agent.into())].into();
        Self { reception: Arc::new(Reception::new(agents, Some(cloud))), ..Self::default() }
    }

    /// Waits until the guest's agent waits for its job. From then on nothing moves between guest
    /// and service: this is the moment to stop the machine.
    pub async fn waiting(&self) {
        // The sender lives as long as `self`.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting).await;
    }

    /// Serves every connection of `listener`, for ever. Dropping the future closes all.
    pub async fn serve<L: Listener>(self, mut listener: L) -> Infallible {
        let (bounds, mut connections) = (Bounds::default(), JoinSet::new());
        let (_end, ended) = watch::channel(false);
        loop {
            tokio::select! {
                (io, _) = listener.accept(), if connections.len() < bounds.connections => {
                    let router = Router::new().fallback(dispatch).with_state(self.clone());
                    let (bounds, ended) = (bounds.clone(), ended.clone());
                    connections.spawn(async move {
                        if let Err(error) = connection::serve_router(io, router, &bounds, ended).await {
                            tracing::debug!(%error, "a connection ended with an error");
                        }
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn dispatch(State(preparation): State<Preparation>, request: Request) -> Response {
    let agent = announced(request.headers());
    let renews = agent.as_ref().is_some_and(|agent| agent.capabilities.has(Capability::Renew));
    match Endpoint::from_path(request.uri().path()) {
        Some(endpoint) if !endpoint.allows(request.method().as_str()) => {
            let message = format!("{endpoint:?} is not used by this method");
            Refused::new(ErrorCode::MethodNotAllowed, message).into_response()
        }
        Some(Endpoint::Ping) => StatusCode::OK.into_response(),
        Some(Endpoint::Renewal) if renews => {
            preparation.waiting.send_replace(true);
            // There never is a job here: the connection ends, or the machine.
            std::future::pending().await
        }
        None => preparation
            .reception
            .answer(&BTreeSet::new(), &request)
            .unwrap_or_else(Refused::into_response),
        Some(Endpoint::Session | Endpoint::Renewal) => Refused::no_endpoint().into_response(),
        Some(_) => {
            let message = "there is no job yet";
            let mut response = Refused::new(ErrorCode::NoJob, message).into_response();
            let announced = ServiceInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                renewal: true,
                ..ServiceInfo::default()
            };
            if renews && let Ok(value) = HeaderValue::try_from(announced.to_header()) {
                response.headers_mut().insert(SERVICE_HEADER, value);
            }
            response
        }
    }
}
