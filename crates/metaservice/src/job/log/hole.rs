//! Whether the guest's log may lack bytes that this host has never seen.
//!
//! A log request of version 1 says nothing of where its bytes belong. When it is cut, or the service
//! is started anew in its midst, what was on its way is lost, and nobody can say how much that was.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// The log requests of version 1 that are under way, and whether one was cut.
#[derive(Debug)]
pub(crate) struct Holes {
    open: AtomicUsize,
    found: watch::Sender<bool>,
}

impl Holes {
    /// Of a service before which there was a hole, or a request under way.
    pub(crate) fn new(found: bool) -> Self {
        Self { open: AtomicUsize::new(0), found: watch::Sender::new(found) }
    }

    /// A request begins. One that never ends in order counts as under way for good.
    pub(crate) fn begin(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    /// A request has ended in order.
    pub(crate) fn end(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// A request was cut.
    pub(crate) fn cut(&self) {
        self.found.send_replace(true);
    }

    /// Whether a service that is started after this one has to take it that there is a hole.
    pub(crate) fn may_follow(&self) -> bool {
        self.has() || self.open.load(Ordering::SeqCst) > 0
    }

    /// Whether there is a hole.
    pub(crate) fn has(&self) -> bool {
        *self.found.borrow()
    }

    /// Waits until there is one.
    pub(crate) async fn found(&self) {
        // The sender lives as long as `self`.
        let _ = self.found.subscribe().wait_for(|found| *found).await;
    }
}
