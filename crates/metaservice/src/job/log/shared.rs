//! What the writing end of a history shares with its readers: the files, and how much is in them.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::files::{Files, Found};
use super::index::Known;

/// How much of the log there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) end: u64,
    pub(super) known: Known,
    /// No bytes will be added.
    pub(super) complete: bool,
}

/// What the writing end shares with its readers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) files: Files,
    pub(super) extent: watch::Sender<Extent>,
    /// The end of the write that is under way: what it overwrites is no longer kept.
    pub(super) claimed: AtomicU64,
    /// The same for the records of the index.
    pub(super) claimed_records: AtomicU64,
}

impl Shared {
    pub(super) fn new(files: Files) -> Self {
        let extent = Extent { end: 0, known: Known::all(0), complete: false };
        Self {
            files,
            extent: watch::Sender::new(extent),
            claimed: AtomicU64::new(0),
            claimed_records: AtomicU64::new(0),
        }
    }

    /// A log that is complete.
    pub(super) fn complete(found: Found) -> Self {
        let Found { files, known, end } = found;
        let shared = Self::new(files);
        shared.claimed.store(end, Ordering::SeqCst);
        shared.extent.send_replace(Extent { end, known, complete: true });
        shared
    }

    /// The first byte that is kept.
    pub(super) fn first(&self) -> u64 {
        self.files.ring.first(self.claimed.load(Ordering::SeqCst))
    }

    /// Claims the place of bytes and records before they are written.
    pub(super) fn claim(&self, end: u64, records: u64) {
        self.claimed.store(end, Ordering::SeqCst);
        self.claimed_records.store(records, Ordering::SeqCst);
    }

    pub(super) fn publish(&self, end: u64, records: u64) {
        self.extent.send_modify(|extent| {
            extent.end = end;
            extent.known = Known::all(records);
        });
    }

    /// Whether records were overwritten after this was the extent.
    pub(super) fn has_overwritten(&self, extent: &Extent) -> bool {
        extent.known.is_overwritten(self.claimed_records.load(Ordering::SeqCst))
    }
}
