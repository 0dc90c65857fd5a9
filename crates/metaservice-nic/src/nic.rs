//! The card as its user holds it, and what it shares with its driver and its connections.
//!
//! One lock guards the whole card. Every holder keeps it for a bounded piece of work in
//! memory, never across I/O or a wake.

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
    interface::Interface,
    shared::{CardState, Shared, StreamWakers},
    stale::StaleConnection,
    statistics::Statistics,
};

/// Makes a card at the other end of a connected `-netdev stream` socket.
///
/// Nothing happens on the wire before the [`Driver`] is run. The [`Nic`] accepts connections.
///
/// # Panics
/// Outside of a tokio runtime with its time driver: the driver holds a timer.
pub fn attach(socket: UnixStream, mut config: Config) -> (Nic, Driver) {
    // The hasher's keys are the standard library's source of randomness. Sequence numbers
    // that cannot be guessed matter little where the only peer sees them all.
    let seed = RandomState::new().hash_one("initial sequence numbers");
    let shared = Arc::new(Shared {
        state: Mutex::new(CardState {
            interface: Interface::new(&config, seed),
            driver: None,
            acceptor: None,
            streams: HashMap::new(),
            accepting: true,
            closed: false,
        }),
        start: Instant::now(),
    });
    let driver = Driver::new(socket, config.limits.frames, config.pcap.take(), Arc::clone(&shared));
    (Nic { shared }, driver)
}

/// A network card, from which the guest's connections are accepted.
///
/// Dropping it refuses further connections and resets those that were not accepted; the
/// accepted ones live on. Its [`Driver`] ends when they have ended too.
pub struct Nic {
    shared: Arc<Shared>,
}

impl Nic {
    /// The next connection that the guest has opened; `None` when the driver is gone and no
    /// connection is left to accept.
    ///
    /// Cancel safe: a connection that was not returned is returned by the next call.
    pub async fn accept(&mut self) -> Option<Connection> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    /// [`accept`](Self::accept) as a poll. Only the last task to ask is woken.
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

    /// Looks at the card while another owns it.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer { shared: Arc::clone(&self.shared) }
    }

    /// What the card has seen and done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.lock().interface.statistics()
    }
}

/// Sees which connections a card has, and its statistics.
#[derive(Clone)]
pub struct Observer {
    shared: Arc<Shared>,
}

impl Observer {
    /// The guest's ends of the connections that are open now. A guest that is stopped, saved
    /// and continued with another card has them still: give them to that card as
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
        // The driver may have nothing left to do, which it has to notice.
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
