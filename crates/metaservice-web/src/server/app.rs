//! What all requests share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::access::gate::Gate;
use crate::access::sessions::Sessions;
use crate::log::Logs;
use crate::source::{Fleet, Listing, Source};
use crate::stats::Samples;
use crate::upload::Uploads;

/// The most searches at a time. Each uses a processor.
const MAX_SEARCHES: usize = 2;

/// The most terminals at a time.
const MAX_TERMINALS: usize = 24;

/// What all requests share. Clones share it too.
#[derive(Clone)]
pub(super) struct App(Arc<Shared>);

pub(super) struct Shared {
    pub(super) gate: Gate,
    pub(super) is_tls: bool,
    pub(super) cookie: String,
    pub(super) source: Arc<dyn Source>,
    pub(super) logs: Logs,
    pub(super) samples: Arc<Samples>,
    pub(super) uploads: Uploads,
    pub(super) jobs: watch::Receiver<Listing>,
    pub(super) fleet: watch::Receiver<Fleet>,
    /// The token of the link that makes the next session, for those who print it.
    pub(super) tokens: watch::Sender<Option<String>>,
    /// Searches that may run at a time.
    pub(super) searches: Arc<Semaphore>,
    /// Terminals that may be open at a time.
    pub(super) terminals: Arc<Semaphore>,
    /// Ends websockets with the server.
    pub(super) end: CancellationToken,
    sessions: Mutex<Sessions>,
}

/// Who may use the server, and by which address.
pub(super) struct Door {
    pub(super) gate: Gate,
    pub(super) is_tls: bool,
    pub(super) port: u16,
    pub(super) sessions: Sessions,
}

impl App {
    pub(super) fn new(
        door: Door,
        source: Arc<dyn Source>,
        jobs: watch::Receiver<Listing>,
        fleet: watch::Receiver<Fleet>,
        end: CancellationToken,
    ) -> Self {
        let Door { gate, is_tls, port, sessions } = door;
        let token = sessions.token().map(|token| token.reveal().to_owned());
        Self(Arc::new(Shared {
            gate,
            is_tls,
            // Browsers do not separate the cookies of ports.
            cookie: format!("metaservice-{port}"),
            logs: Logs::new(Arc::clone(&source)),
            samples: Arc::new(Samples::new(Arc::clone(&source))),
            uploads: Uploads::default(),
            source,
            jobs,
            fleet,
            tokens: watch::Sender::new(token),
            searches: Arc::new(Semaphore::new(MAX_SEARCHES)),
            terminals: Arc::new(Semaphore::new(MAX_TERMINALS)),
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
