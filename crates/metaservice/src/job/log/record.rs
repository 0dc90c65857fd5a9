//! The log in the state directory, and how much of it is persisted.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use metaservice_protocol::{LogOutput, LogPlace};
use tokio::time::Instant;

use super::files::{Files, Found};
use super::segments::{Segments, milliseconds};
use crate::job::persistence::{PersistedLog, StateError, Store};

/// How long bytes of a log of version 1 may be written and not persisted. Such a log is confirmed
/// at its end only.
const PERSIST_AFTER: Duration = Duration::from_secs(1);

/// The files of the log, and the state that counts its bytes.
pub(crate) struct Record {
    found: Arc<Found>,
    segments: Segments,
    store: Arc<Store>,
    /// What was written to the files.
    written: PersistedLog,
    /// When it must be persisted.
    due: Option<Instant>,
}

impl Record {
    /// Continues the log in the state directory.
    pub(crate) fn open(store: Arc<Store>) -> Result<Self, StateError> {
        let (log, index) = store.log()?;
        let written = store.persisted().log.clone();
        let (found, segments) = Files::resume(log, index, written.length)?;
        Ok(Self { found: Arc::new(found), segments, store, written, due: None })
    }

    /// The log that was persisted before.
    pub(super) fn found(&self) -> &Found {
        &self.found
    }

    /// What was written to the file.
    pub(super) fn written(&self) -> PersistedLog {
        self.written.clone()
    }

    /// Adds bytes of an output. `place` is the end of their numbered log after them.
    pub(super) async fn write(
        &mut self,
        output: LogOutput,
        bytes: Bytes,
        place: Option<&LogPlace>,
    ) -> io::Result<()> {
        let (found, length) = (Arc::clone(&self.found), bytes.len() as u64);
        let time_ms = milliseconds(SystemTime::now());
        let batch = self.segments.batch(vec![(output, bytes)], time_ms, self.written.length);
        self.store.work().run(move || found.files.write(&batch)).await?;
        self.written.length += length;
        if let Some(place) = place {
            self.written.received.insert(place.stream.clone(), place.offset);
        }
        self.due.get_or_insert_with(|| Instant::now() + PERSIST_AFTER);
        Ok(())
    }

    /// Persists all of it.
    pub(super) async fn persist(&mut self) -> io::Result<()> {
        if self.due.take().is_none() {
            return Ok(());
        }
        // The index may be lost: bytes without it count as stdout.
        let found = Arc::clone(&self.found);
        self.store.work().run(move || found.files.ring.file.sync_data()).await?;
        let written = self.written.clone();
        self.store.persist(move |persisted| persisted.log = written).await
    }

    /// When [`persist`](Self::persist) is due at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}
