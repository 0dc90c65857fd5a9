//! What all requests share.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::access::gate::Gate;
use crate::access::sessions::Sessions;
use crate::log::Logs;
use crate::source::{Listing, Source};

/// The most searches at a time. Each uses a processor.
const MAX_SEARCHES: usize = 2;

/// What all requests share. Clones share it too.
#[derive(Clone)]
pub(super) struct App(Arc<Shared>);

pub(super) struct Shared {
    pub(super) gate: Gate,
    pub(super) cookie: String,
    pub(super) source: Arc<dyn Source>,
    pub(super) logs: Logs,
    pub(super) jobs: watch::Receiver<Listing>,
    /// The token that makes the next session, for those who print it.
    pub(super) tokens: watch::Sender<String>,
    /// Searches that may run at a time.
    pub(super) searches: Semaphore,
    /// Ends websockets with the server.
    pub(super) end: CancellationToken,
    sessions: Mutex<Sessions>,
}

impl App {
    pub(super) fn new(
        address: SocketAddr,
        source: Arc<dyn Source>,
        sessions: Sessions,
        jobs: watch::Receiver<Listing>,
        end: CancellationToken,
    ) -> Self {
        Self(Arc::new(Shared {
            gate: Gate::new(address),
            // Browsers do not separate the cookies of ports.
            cookie: format!("metaservice-{}", address.port()),
            logs: Logs::new(Arc::clone(&source)),
            source,
            jobs,
            tokens: watch::Sender::new(sessions.token().reveal().to_owned()),
            searches: Semaphore::new(MAX_SEARCHES),
            end,
            sessions: Mutex::new(sessions),
        }))
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
