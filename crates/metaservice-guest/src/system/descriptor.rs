//! A file descriptor that the runtime watches.
//!
//! Owns the only such registration in the agent. `AsyncFd` requires a promise that the descriptor
//! stays the same and stays open while it is registered. The type here keeps that promise: nothing
//! gives the descriptor out by value or by mutable reference.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A descriptor that can be waited for: of a pipe, a terminal or a process.
#[derive(Debug)]
pub(crate) struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    /// Registers a descriptor. Must be called in a runtime.
    ///
    /// A caller that reads or writes sets the descriptor to non-blocking mode first.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` owns a descriptor that is open as long as it lives, which is as
        // long as the `AsyncFd` does. `AsyncFd` gives it out mutably or by value only through
        // `get_mut` and `into_inner`; the field is private and neither is called here.
        #[allow(unsafe_code)]
        let registered = unsafe { AsyncFd::register(fd) };
        Ok(Self(registered?))
    }

    /// Waits until the descriptor is readable. Cancel-safe.
    pub(crate) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.readable().await
    }

    /// Waits until the descriptor is writable. Cancel-safe.
    pub(crate) async fn writable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.writable().await
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
