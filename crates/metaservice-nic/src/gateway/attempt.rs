//! Attempts to connect, in both directions, until there is a connection.

use std::future::poll_fn;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::task::Poll;

use crate::connection::Connection;
use crate::error::{AttemptError, ConnectError};
use crate::interface::{AttemptId, AttemptProgress, ConnectionId};
use crate::network::Unreachable;
use crate::shared::{Shared, StreamWakers};

/// An attempt of the guest to connect, whose SYN is not answered yet.
///
/// It ends half a minute after the SYN. The guest then repeats its SYN, which is another attempt.
/// Dropping it refuses it.
pub struct Attempt {
    pending: Pending,
    source: SocketAddrV4,
    destination: SocketAddrV4,
}

impl Attempt {
    pub(super) fn new(
        shared: Arc<Shared>,
        (id, source, destination): (AttemptId, SocketAddrV4, SocketAddrV4),
    ) -> Self {
        Self { pending: Pending { shared, id, ended: false }, source, destination }
    }

    /// The guest's address and port.
    #[must_use]
    pub fn source(&self) -> SocketAddrV4 {
        self.source
    }

    /// Where the guest wants to connect.
    #[must_use]
    pub fn destination(&self) -> SocketAddrV4 {
        self.destination
    }

    /// Completes when the guest does not wait any more: it has given up, its time is over, others
    /// have displaced it, or the driver has ended. An owner that dials can stop.
    ///
    /// Cancel-safe.
    pub async fn abandoned(&mut self) {
        // An attempt is established only after `accept`.
        let _ = self.pending.outcome().await;
    }

    /// Answers the SYN, and completes when the guest has completed the handshake.
    ///
    /// # Errors
    /// [`AttemptError`] if the guest has given up or does not complete the handshake within half a
    /// minute, or the driver has ended. Dropping the future resets the connection.
    pub async fn accept(mut self) -> Result<Connection, AttemptError> {
        let Pending { shared, id, .. } = &self.pending;
        let now = shared.now();
        shared.act(|state| state.interface.accept_attempt(*id, now));
        let connection = self.pending.outcome().await.map_err(|_| AttemptError)?;
        let (shared, port) = (Arc::clone(&self.pending.shared), self.destination.port());
        Ok(Connection::new(shared, connection, self.source, port))
    }

    /// Refuses it by a reset: the guest sees that nothing listens there.
    pub fn refuse(self) {}

    /// Refuses it with an ICMP error, which ends the guest's attempt at once.
    pub fn unreachable(mut self, reason: Unreachable) {
        self.pending.end(Some(reason));
    }
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Attempt")
            .field("source", &self.source)
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}

/// Connects to a port of the guest.
pub(super) async fn call(
    shared: &Arc<Shared>,
    port: u16,
    source: SocketAddrV4,
) -> Result<Connection, ConnectError> {
    let now = shared.now();
    let id = shared.act(|state| {
        if state.closed {
            return Err(ConnectError::Gone);
        }
        state.interface.connect(port, source, now)
    })?;
    let mut pending = Pending { shared: Arc::clone(shared), id, ended: false };
    let connection = pending.outcome().await?;
    let ends = shared.lock().interface.endpoints(connection);
    let (guest, own) = ends.ok_or(ConnectError::Gone)?;
    Ok(Connection::new(Arc::clone(shared), connection, guest, own))
}

/// An attempt that is not a connection yet. Dropping it ends the attempt.
struct Pending {
    shared: Arc<Shared>,
    id: AttemptId,
    ended: bool,
}

impl Pending {
    /// Completes when the attempt has ended. Cancel-safe.
    async fn outcome(&mut self) -> Result<ConnectionId, ConnectError> {
        let result = poll_fn(|context| {
            let mut state = self.shared.lock();
            match state.interface.attempt_progress(self.id) {
                AttemptProgress::Established(id) => {
                    state.streams.insert(id, StreamWakers::default());
                    Poll::Ready(Ok(id))
                }
                AttemptProgress::Refused => Poll::Ready(Err(ConnectError::Refused)),
                AttemptProgress::Gone => Poll::Ready(Err(ConnectError::NoAnswer)),
                AttemptProgress::Pending if state.closed => Poll::Ready(Err(ConnectError::Gone)),
                AttemptProgress::Pending => {
                    state.attempts.insert(self.id, context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        self.ended = result.is_ok();
        result
    }

    fn end(&mut self, reason: Option<Unreachable>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.shared.act(|state| {
                state.attempts.remove(&self.id);
                state.interface.refuse(self.id, reason);
            });
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.end(None);
    }
}
