//! The routes, and the life of the server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::app::App;
use super::responses::{Code, refuse};
use super::{assets, connections, guard, jobs, log, session};
use crate::access::secret::Secret;
use crate::access::sessions::Sessions;
use crate::source::{Listing, Source, SourceError};

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Other hosts could connect to this address. The page is for this host alone.
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
    /// The address cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The system has no random numbers for the token.
    #[error("the system has no random numbers")]
    Random(#[source] getrandom::Error),
}

/// Why the server ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// There are no jobs to show.
    #[error("the jobs can no longer be followed")]
    Source(#[source] SourceError),
}

/// The server of the page, which listens.
pub struct Server {
    address: SocketAddr,
    listener: TcpListener,
    app: App,
    lists: watch::Sender<Listing>,
    end: CancellationToken,
}

impl Server {
    /// Listens at a loopback address for the page of these jobs. Port 0 is any free port.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(address: SocketAddr, source: Arc<dyn Source>) -> Result<Self, BindError> {
        if !address.ip().is_loopback() {
            return Err(BindError::NotLoopback(address));
        }
        let listen = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let listening: io::Result<_> = listen.await;
        let (listener, address) =
            listening.map_err(|cause| BindError::Listen { address, cause })?;
        let token = Secret::random().map_err(BindError::Random)?;
        let (lists, jobs) = watch::channel(Listing::default());
        let end = CancellationToken::new();
        let sessions = Sessions::new(token, Instant::now());
        let app = App::new(address, source, sessions, jobs, end.clone());
        Ok(Self { address, listener, app, lists, end })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The links that open the page: the first one, and after each use the next one. Each link
    /// opens the page in one browser, and is a secret until then.
    #[must_use]
    pub fn links(&self) -> Links {
        Links { address: self.address, tokens: self.app.tokens.subscribe() }
    }

    /// Serves the page.
    ///
    /// # Errors
    /// [`ServeError`]: it only ends with an error.
    ///
    /// # Cancellation
    /// Dropping the future ends the server and all connections.
    pub async fn serve(self) -> ServeError {
        let Self { listener, app, lists, end, .. } = self;
        let _end = end.drop_guard();
        let following = AbortOnDropHandle::new(tokio::spawn(app.source.follow(lists)));
        tokio::select! {
            followed = following => ServeError::Source(
                followed.unwrap_or_else(|error| SourceError::Failed(error.into())),
            ),
            never = connections::serve(listener, router(app)) => match never {},
        }
    }
}

/// Links that open the page.
#[derive(Debug, Clone)]
pub struct Links {
    address: SocketAddr,
    tokens: watch::Receiver<String>,
}

impl Links {
    /// The link that opens the page in one browser.
    #[must_use]
    pub fn current(&mut self) -> String {
        format!("http://{}/#token={}", self.address, *self.tokens.borrow_and_update())
    }

    /// Waits until the last link that was returned was used, and returns the next one. `None`: the
    /// server has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<String> {
        self.tokens.changed().await.ok()?;
        Some(self.current())
    }
}

fn router(app: App) -> Router {
    let with_session = Router::new()
        .route("/api/session", get(session::show))
        .route("/api/jobs", get(jobs::follow))
        .route("/api/jobs/{name}/kill", post(jobs::kill))
        .route("/api/jobs/{name}/log", get(log::open))
        .route("/api/jobs/{name}/log/length", get(log::follow))
        .route("/api/jobs/{name}/log/lines", get(log::lines))
        .route("/api/jobs/{name}/log/search", get(log::search))
        .route("/api/jobs/{name}/log/download", get(log::download))
        .route_layer(from_fn_with_state(app.clone(), guard::with_session));
    Router::new()
        .route("/", get(assets::index))
        .route("/job/{name}", get(assets::index))
        .route("/assets/{name}", get(assets::asset))
        .route("/session", post(session::exchange))
        .merge(with_session)
        .fallback(async || refuse(Code::NotFound, "nothing is at this address"))
        .layer(from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}
