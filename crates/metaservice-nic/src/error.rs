//! What can go wrong with the card as a whole, and with one connection.

use std::io;

use crate::frame::FramingError;

/// Why a [`Driver`](crate::Driver) has given up.
///
/// That QEMU closes the wire is not among them: a machine that ends is a normal end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The socket to QEMU failed.
    #[error("the socket to the machine failed")]
    Socket(#[from] io::Error),
    /// What came is not a stream of frames, and there is no way to find the next one.
    #[error("the machine's network stream is not understood")]
    Framing(#[from] FramingError),
}

/// Why a connection can no longer be read or written.
///
/// As the error of an `AsyncRead` or `AsyncWrite` it is inside of the [`io::Error`], whose
/// kind is named with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The guest has reset the connection ([`io::ErrorKind::ConnectionReset`]).
    #[error("the guest has reset the connection")]
    Reset,
    /// This end was shut down before the write ([`io::ErrorKind::BrokenPipe`]).
    #[error("the connection was shut down for writing")]
    ShutDown,
    /// The machine, or the driver of its card, is gone
    /// ([`io::ErrorKind::ConnectionAborted`]).
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
