//! The life of the server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::app::{App, Door};
use super::connections;
use super::routes::router;
use super::tls::Identity;
use crate::access::gate::Gate;
use crate::access::secret::Secret;
use crate::access::sessions::{Key, Sessions};
use crate::access::users::Users;
use crate::source::{Fleet, Listing, Source, SourceError};

/// Where a server listens, and for whom.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The address. Port 0 is any free port.
    pub listen: SocketAddr,
    /// The names by which browsers reach the server, besides the address. A name has no port. With a
    /// scheme (`https://jobs.example`), it is the address of a proxy, with its port if it needs one.
    pub names: Vec<String>,
    /// Who may use it. `None`: the user of this host, by a link.
    pub users: Option<Users>,
    /// The certificate. `None`: without TLS.
    pub identity: Option<Identity>,
}

impl Settings {
    /// A server at this address, for the user of this host.
    #[must_use]
    pub const fn new(listen: SocketAddr) -> Self {
        Self { listen, names: Vec::new(), users: None, identity: None }
    }

    /// Whether other hosts may connect: there are users, and a certificate.
    const fn is_for_others(&self) -> bool {
        self.users.is_some() && self.identity.is_some()
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Other hosts could connect to this address. For them, the server needs TLS and users.
    #[error("{0} is not a loopback address, so the server needs TLS and users")]
    Open(SocketAddr),
    /// The server listens at all addresses, and has no name.
    #[error("{0} stands for all addresses, so the server needs a name")]
    NoName(SocketAddr),
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
    /// The name that browsers use, if one was given.
    name: Option<String>,
    listener: TcpListener,
    identity: Option<Identity>,
    app: App,
    lists: watch::Sender<Listing>,
    fleets: watch::Sender<Fleet>,
    end: CancellationToken,
}

impl Server {
    /// Listens for the page of these jobs.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(settings: Settings, source: Arc<dyn Source>) -> Result<Self, BindError> {
        let listen = settings.listen;
        if !listen.ip().is_loopback() && !settings.is_for_others() {
            return Err(BindError::Open(listen));
        }
        if listen.ip().is_unspecified() && settings.names.is_empty() {
            return Err(BindError::NoName(listen));
        }
        let listening = async {
            let listener = TcpListener::bind(listen).await?;
            let address = listener.local_addr()?;
            io::Result::Ok((listener, address))
        };
        let (listener, address) =
            listening.await.map_err(|cause| BindError::Listen { address: listen, cause })?;
        let Settings { names, users, identity, .. } = settings;
        let key = match users {
            Some(users) => Key::Users(users),
            None => Key::Link(Secret::random().map_err(BindError::Random)?),
        };
        let is_tls = identity.is_some();
        let door = Door {
            gate: Gate::new(address, &names, is_tls),
            is_tls,
            port: address.port(),
            sessions: Sessions::new(key, Instant::now()),
        };
        let (lists, jobs) = watch::channel(Listing::default());
        let (fleets, fleet) = watch::channel(Fleet::default());
        let end = CancellationToken::new();
        let app = App::new(door, source, jobs, fleet, end.clone());
        let name = names.into_iter().next();
        Ok(Self { address, name, listener, identity, app, lists, fleets, end })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The links that open the page: the first one, and after each use the next one. Each link
    /// opens the page in one browser, and is a secret until then. If there are users, there is one
    /// link, for all of them, and it is no secret.
    #[must_use]
    pub fn links(&self) -> Links {
        let (scheme, usual) = if self.app.is_tls { ("https", 443) } else { ("http", 80) };
        let page = match &self.name {
            None => format!("{scheme}://{}/", self.address),
            Some(proxy) if proxy.contains("://") => format!("{proxy}/"),
            Some(name) if self.address.port() == usual => format!("{scheme}://{name}/"),
            Some(name) => format!("{scheme}://{name}:{}/", self.address.port()),
        };
        Links { page, tokens: self.app.tokens.subscribe() }
    }

    /// Serves the page.
    ///
    /// # Errors
    /// [`ServeError`]: it only ends with an error.
    ///
    /// # Cancellation
    /// Dropping the future ends the server and all connections.
    pub async fn serve(self) -> ServeError {
        let Self { listener, identity, app, lists, fleets, end, .. } = self;
        let _end = end.drop_guard();
        let following = AbortOnDropHandle::new(tokio::spawn(app.source.follow(lists)));
        let fleet = app.source.fleet(fleets);
        let fleet = AbortOnDropHandle::new(tokio::spawn(async move {
            match fleet {
                Some(fleet) => fleet.await,
                None => std::future::pending().await,
            }
        }));
        let (samples, jobs) = (Arc::clone(&app.samples), app.jobs.clone());
        let _sampling = AbortOnDropHandle::new(tokio::spawn(async move {
            samples.follow(jobs).await;
        }));
        tokio::select! {
            followed = following => ServeError::Source(
                followed.unwrap_or_else(|error| SourceError::Failed(error.into())),
            ),
            followed = fleet => ServeError::Source(
                followed.unwrap_or_else(|error| SourceError::Failed(error.into())),
            ),
            never = connections::serve(listener, identity, router(app)) => match never {},
        }
    }
}

/// Links that open the page.
#[derive(Debug, Clone)]
pub struct Links {
    page: String,
    /// `None`: a link has no token.
    tokens: watch::Receiver<Option<String>>,
}

impl Links {
    /// The link that opens the page.
    #[must_use]
    pub fn current(&mut self) -> String {
        match &*self.tokens.borrow_and_update() {
            Some(token) => format!("{}#token={token}", self.page),
            None => self.page.clone(),
        }
    }

    /// Waits until the last link that was returned was used, and returns the next one. `None`: the
    /// server has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<String> {
        self.tokens.changed().await.ok()?;
        Some(self.current())
    }
}
