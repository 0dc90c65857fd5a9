//! The log in the state directory, and how much of it is persisted.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metaservice_protocol::LogPlace;
use tokio::time::Instant;

use crate::job::persistence::{PersistedLog, Store};

/// How long bytes of a log of version 1 may be written and not persisted. Such a log is confirmed at
/// its end only.
const PERSIST_AFTER: Duration = Duration::from_secs(1);

/// The log file, and the state that counts its bytes.
pub(crate) struct Record {
    file: Arc<File>,
    store: Arc<Store>,
    /// What was written to the file.
    written: PersistedLog,
    /// When it must be persisted.
    due: Option<Instant>,
}

impl Record {
    pub(crate) fn new(file: File, store: Arc<Store>) -> Self {
        let written = store.persisted().log.clone();
        Self { file: Arc::new(file), store, written, due: None }
    }

    /// What was written to the file.
    pub(super) fn written(&self) -> PersistedLog {
        self.written.clone()
    }

    /// Adds bytes. `place` is the end of their numbered log after them.
    pub(super) async fn write(&mut self, bytes: Bytes, place: Option<&LogPlace>) -> io::Result<()> {
        let (file, length) = (Arc::clone(&self.file), bytes.len() as u64);
        self.store.work().run(move || (&*file).write_all(&bytes)).await?;
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
        let file = Arc::clone(&self.file);
        self.store.work().run(move || file.sync_data()).await?;
        let written = self.written.clone();
        self.store.persist(move |persisted| persisted.log = written).await
    }

    /// When [`persist`](Self::persist) is due at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}
