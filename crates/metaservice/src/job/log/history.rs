//! The end of the log, kept for readers that come later.
//!
//! The log's task writes it, and never waits for a [reader](super::reader). If the files cannot be
//! written, the history ends with a warning, and the log continues.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use metaservice_protocol::LogOutput;
use tokio::sync::watch;

use super::files::Files;
use super::reader::Readers;
use super::record::Record;
use super::segments::{Segments, milliseconds};
use super::shared::Shared;

/// The writing end.
#[derive(Debug)]
pub(crate) struct History {
    shared: Arc<Shared>,
    segments: Segments,
    failure: watch::Sender<Option<Arc<io::Error>>>,
}

impl History {
    /// An empty history that keeps the last `size` bytes (at least one) in unnamed files.
    pub(crate) fn create(directory: &Path, size: u64) -> io::Result<Self> {
        let file = || tempfile::tempfile_in(directory);
        Self::create_in(file()?, file()?, size)
    }

    /// As [`create`](Self::create), in these files. What was in them is lost.
    pub(crate) fn create_in(log: File, index: File, size: u64) -> io::Result<Self> {
        let files = Files::create(log, index, size.max(1))?;
        let shared = Arc::new(Shared::new(files));
        Ok(Self { shared, segments: Segments::default(), failure: watch::Sender::new(None) })
    }

    /// Why nothing is added any longer, once that is so.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<Arc<io::Error>>> {
        self.failure.subscribe()
    }

    pub(crate) fn readers(&self) -> Readers {
        Readers::new(Arc::clone(&self.shared))
    }

    /// Copies the end of an earlier log. Call it first.
    pub(crate) fn refill(&mut self, record: &Record) -> io::Result<()> {
        let log = record.found();
        let mut offset = self.shared.files.ring.first(log.end);
        while offset < log.end {
            for segment in log.files.read_segments(&log.known, offset, log.end)? {
                let time_ms = segment.time.map_or(0, milliseconds);
                let chunks = vec![(segment.output, segment.bytes)];
                let batch = self.segments.batch(chunks, time_ms, offset);
                self.shared.files.write(&batch)?;
                offset = batch.end();
            }
        }
        self.shared.claim(offset, self.segments.count());
        self.shared.publish(offset, self.segments.count());
        Ok(())
    }

    /// Adds bytes, in order. After a failure, nothing is added.
    pub(crate) async fn append(&mut self, chunks: Vec<(LogOutput, Bytes)>) {
        if self.failure.borrow().is_some() {
            return;
        }
        let offset = self.shared.extent.borrow().end;
        let batch = self.segments.batch(chunks, milliseconds(SystemTime::now()), offset);
        let (end, count) = (batch.end(), batch.count());
        if end == offset {
            return;
        }
        self.shared.claim(end, count);
        let shared = Arc::clone(&self.shared);
        let written = tokio::task::spawn_blocking(move || shared.files.write(&batch));
        let written = written.await.map_err(io::Error::other).and_then(|written| written);
        if let Err(error) = written {
            tracing::warn!(%error, "the log is no longer kept for later readers");
            self.failure.send_replace(Some(Arc::new(error)));
            self.complete();
            return;
        }
        self.shared.publish(end, count);
    }

    /// No bytes will be added.
    pub(crate) fn complete(&self) {
        self.shared.extent.send_modify(|extent| extent.complete = true);
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.complete();
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
