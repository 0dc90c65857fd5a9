//! How a reply's connection breaks.

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a reply's connection broke.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The body ended before it was complete.
    #[error("the reply was cut off")]
    Cut(#[source] BoxError),
    /// No byte came for [`Limits::stall`](crate::Limits::stall).
    #[error("the reply stalled")]
    Stalled,
    /// The connection was closed before the reply was complete.
    #[error("the connection was closed")]
    Closed,
    /// The websocket handshake did not complete; without a cause, it did not complete in time.
    #[error("the websocket handshake failed")]
    Handshake(#[source] Option<BoxError>),
}
