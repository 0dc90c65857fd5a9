//! Whether the log may lack bytes that the host never received.
//!
//! A log request of version 1 does not say where its bytes belong. If it is cut, or if the service
//! ends while it is under way, the bytes on their way are lost, and their number is unknown.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// The log requests of version 1 that are under way, and whether one was cut.
#[derive(Debug)]
pub(crate) struct Holes {
    open: AtomicUsize,
    found: watch::Sender<bool>,
}

impl Holes {
    /// `found`: an earlier service had a hole, or ended while a request was under way.
    pub(crate) fn new(found: bool) -> Self {
        Self { open: AtomicUsize::new(0), found: watch::Sender::new(found) }
    }

    /// A request begins. If it does not end normally, it counts as under way from then on.
    pub(crate) fn begin(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    /// A request has ended normally.
    pub(crate) fn end(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// A request was cut.
    pub(crate) fn cut(&self) {
        self.found.send_replace(true);
    }

    /// Whether the log has a hole if this process ends now.
    pub(crate) fn may_follow(&self) -> bool {
        self.has() || self.open.load(Ordering::SeqCst) > 0
    }

    /// Whether there is a hole.
    pub(crate) fn has(&self) -> bool {
        *self.found.borrow()
    }

    /// Waits until there is a hole.
    pub(crate) async fn found(&self) {
        // The sender lives as long as `self`.
        let _ = self.found.subscribe().wait_for(|found| *found).await;
    }
}
