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
