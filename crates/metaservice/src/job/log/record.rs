//! The log in a file that outlives the process, and what has been promised of it.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metaservice_protocol::LogPlace;
use tokio::time::Instant;

use crate::job::persistence::{PromisedLog, Store};

/// How long bytes of a log without numbers, which is confirmed only at its end, may be
/// unpromised.
const UNPROMISED: Duration = Duration::from_secs(1);

pub(crate) struct Record {
    file: Arc<File>,
    store: Arc<Store>,
    /// What the file has.
    written: PromisedLog,
    /// When what was written is to be promised.
    due: Option<Instant>,
}

impl Record {
    pub(crate) fn new(file: File, store: Arc<Store>) -> Self {
        let written = store.promised().log.clone();
        Self { file: Arc::new(file), store, written, due: None }
    }

    /// What the file has.
    pub(super) fn written(&self) -> PromisedLog {
        self.written.clone()
    }

    /// Adds bytes, with which the numbered log they are of has come to `place`.
    pub(super) async fn write(&mut self, bytes: Bytes, place: Option<&LogPlace>) -> io::Result<()> {
        let (file, length) = (Arc::clone(&self.file), bytes.len() as u64);
        self.store.work().run(move || (&*file).write_all(&bytes)).await?;
        self.written.length += length;
        if let Some(place) = place {
            self.written.received.insert(place.stream.clone(), place.offset);
        }
        self.due.get_or_insert_with(|| Instant::now() + UNPROMISED);
        Ok(())
    }

    /// Promises all of it.
    pub(super) async fn promise(&mut self) -> io::Result<()> {
        if self.due.take().is_none() {
            return Ok(());
        }
        let file = Arc::clone(&self.file);
        self.store.work().run(move || file.sync_data()).await?;
        let written = self.written.clone();
        self.store.promise(move |promised| promised.log = written).await
    }

    /// When [`promise`](Self::promise) is due, if nobody asks for it before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}
