//! A file descriptor that the runtime watches.
//!
//! Owns the crate's only such watch. The runtime's own wrapper asks its caller to promise
//! that the descriptor stays the same and open while it is watched; here the types keep that
//! promise, because nothing of this one gives it out mutably or by value.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A descriptor of a pipe, a terminal, a process: of anything that can be waited for.
#[derive(Debug)]
pub(crate) struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    /// Must be called in a runtime. Who reads or writes sets the descriptor non-blocking before.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` owns a descriptor that is open as long as it lives, which is as
        // long as the `AsyncFd` does. `AsyncFd` gives it out mutably or by value only through
        // `get_mut` and `into_inner`; the field is private and neither is called here.
        #[allow(unsafe_code)]
        let watched = unsafe { AsyncFd::register(fd) };
        Ok(Self(watched?))
    }

    /// Waits until it may be read. Can be dropped and called again.
    pub(crate) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.readable().await
    }

    /// Waits until it may be written. Can be dropped and called again.
    pub(crate) async fn writable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.writable().await
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
