//! Errors of the card, and of one connection.

use std::io;

use crate::frame::FramingError;

/// Why a [`Driver`](crate::Driver) has failed.
///
/// It is no error that QEMU closes the socket: that is the normal end of a machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The socket to QEMU failed.
    #[error("the socket to the machine failed")]
    Socket(#[from] io::Error),
    /// The data is not a stream of frames, and the start of the next frame cannot be found.
    #[error("the machine's network stream is not understood")]
    Framing(#[from] FramingError),
}

/// Why a connection can no longer be read or written.
///
/// `AsyncRead` and `AsyncWrite` return it within an [`io::Error`] of the kind that is named here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The guest has reset the connection ([`io::ErrorKind::ConnectionReset`]).
    #[error("the guest has reset the connection")]
    Reset,
    /// This end was shut down before the write ([`io::ErrorKind::BrokenPipe`]).
    #[error("the connection was shut down for writing")]
    ShutDown,
    /// The machine, or the driver of its card, has ended ([`io::ErrorKind::ConnectionAborted`]).
    #[error("the machine's network card is gone")]
    Gone,
}

/// Why there is no connection to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The guest refuses it: nothing listens on the port, or a packet filter rejects it.
    #[error("the guest refuses the connection")]
    Refused,
    /// The guest does not answer within half a minute.
    #[error("the guest does not answer")]
    NoAnswer,
    /// There is a connection with this source and port already, or the source has no free port.
    #[error("there is such a connection already")]
    InUse,
    /// The port is 0, or the source is an address that the guest cannot see: its own, that of the
    /// service, or not one of a single host.
    #[error("not an address that the guest can be connected from")]
    Address,
    /// A limit is reached: [`Limits::opens`](crate::Limits::opens),
    /// [`routed_connections`](crate::Limits::routed_connections) or
    /// [`routed_buffers`](crate::Limits::routed_buffers).
    #[error("there are too many connections")]
    Limit,
    /// The machine, or the driver of its card, has ended.
    #[error("the machine's network card is gone")]
    Gone,
}

/// An attempt of the guest to connect has ended before the connection was there: the guest has
/// given up, others have displaced it, or the card is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the guest does not wait for the connection any more")]
pub struct AttemptError;

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset => io::ErrorKind::ConnectionReset,
            StreamError::ShutDown => io::ErrorKind::BrokenPipe,
            StreamError::Gone => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}
