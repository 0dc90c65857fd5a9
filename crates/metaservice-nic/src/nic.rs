//! The card, as its user has it.

use std::{
    collections::HashMap,
    future::poll_fn,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use tokio::{net::UnixStream, time::Instant};

use crate::{
    config::Config,
    connection::Connection,
    driver::Driver,
    gateway::Gateway,
    interface::Interface,
    shared::{CardState, Shared, StreamWakers},
    stale::StaleConnection,
    statistics::Statistics,
};

/// Connects a card to the other end of a `-netdev stream` socket.
///
/// Nothing is sent before the [`Driver`] runs. The [`Nic`] accepts connections.
///
/// # Panics
/// Outside of a tokio runtime with time: the driver has a timer.
pub fn attach(socket: UnixStream, mut config: Config) -> (Nic, Driver) {
    // The keys of the hasher come from a random source. Unpredictable sequence numbers matter
    // little here, because the only peer sees all of them.
    let seed = RandomState::new().hash_one("initial sequence numbers");
    let shared = Arc::new(Shared {
        state: Mutex::new(CardState {
            interface: Interface::new(&config, seed),
            driver: None,
            acceptor: None,
            attempter: None,
            receiver: None,
            echoer: None,
            rejecter: None,
            attempts: HashMap::new(),
            streams: HashMap::new(),
            accepting: true,
            routing: false,
            closed: false,
        }),
        start: Instant::now(),
    });
    let driver = Driver::new(socket, config.limits.frames, config.pcap.take(), Arc::clone(&shared));
    (Nic { shared }, driver)
}

/// Connects a card that is also the router of its guest, in the network of
/// [`Config::network`], or in the default one.
///
/// # Panics
/// As [`attach`].
pub fn attach_gateway(socket: UnixStream, mut config: Config) -> (Nic, Gateway, Driver) {
    config.network.get_or_insert_default();
    let (nic, driver) = attach(socket, config);
    nic.shared.lock().routing = true;
    let gateway = Gateway::new(Arc::clone(&nic.shared));
    (nic, gateway, driver)
}

/// A network card, which accepts the guest's connections.
///
/// Dropping it refuses new connections and resets those that were not accepted. The accepted ones
/// stay open. Its [`Driver`] ends after the last of them, and after the [`Gateway`].
pub struct Nic {
    shared: Arc<Shared>,
}

impl Nic {
    /// The next connection that the guest has opened. `None` if the driver has ended and no
    /// connection is left to accept.
    ///
    /// Cancel-safe: the next call returns a connection that was not returned.
    pub async fn accept(&mut self) -> Option<Connection> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    /// [`accept`](Self::accept) as a poll. Only the last task that polled is woken.
    pub fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Option<Connection>> {
        let mut state = self.shared.lock();
        while let Some(id) = state.interface.accept() {
            if let Some((peer, port)) = state.interface.endpoints(id) {
                state.streams.insert(id, StreamWakers::default());
                drop(state);
                tracing::debug!(%peer, port, "connection accepted");
                let shared = Arc::clone(&self.shared);
                return Poll::Ready(Some(Connection::new(shared, id, peer, port)));
            }
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.acceptor = Some(context.waker().clone());
        Poll::Pending
    }

    /// An observer of the card, for another owner.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer { shared: Arc::clone(&self.shared) }
    }

    /// The statistics so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.lock().interface.statistics()
    }
}

/// Reads the connections and the statistics of a card.
#[derive(Clone)]
pub struct Observer {
    shared: Arc<Shared>,
}

impl Observer {
    /// The guest's ends of the open connections. A guest that is restored from a snapshot still has
    /// them: give them to its new card by
    /// [`Config::stale_connections`](crate::Config::stale_connections).
    #[must_use]
    pub fn connections(&self) -> Vec<StaleConnection> {
        self.shared.lock().interface.connections().collect()
    }

    /// The statistics of the card so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.lock().interface.statistics()
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Observer").finish_non_exhaustive()
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.accepting = false;
        state.interface.stop_listening();
        // If there is no connection, the driver must notice that it can end.
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

impl std::fmt::Debug for Nic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Nic").finish_non_exhaustive()
    }
}
