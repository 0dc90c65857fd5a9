//! Readers of a stored log. They are independent of each other and of the writing of the log.
//!
//! A reader that was overtaken learns how many bytes it has missed.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::watch;

use super::ring::READ;
use super::segments::{LogSegment, milliseconds};
use super::shared::{Extent, Shared};

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFrom {
    /// At the first byte that is kept.
    Start,
    /// This many lines before the end.
    Tail(u64),
    /// At the bytes that arrived at this time or later. The resolution is 1 ms, less in long logs.
    Since(SystemTime),
    /// At this byte of the log.
    Offset(u64),
}

/// What a reader finds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogItem {
    /// The next bytes.
    Bytes(Bytes),
    /// This many bytes are no longer kept.
    Missed(u64),
}

/// Creates readers of a history.
#[derive(Debug, Clone)]
pub(crate) struct Readers(Arc<Shared>);

impl Readers {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// The length of the log.
    pub(super) fn end(&self) -> u64 {
        self.0.extent.borrow().end
    }

    /// A reader from `from` on. With `follow` it waits at the end for more.
    pub(crate) async fn open(&self, from: LogFrom, follow: bool) -> io::Result<LogReader> {
        let extent = self.0.extent.borrow().clone();
        let first = self.0.first().min(extent.end);
        let (position, missed) = match from {
            LogFrom::Start => (first, first),
            LogFrom::Offset(offset) => {
                (offset.clamp(first, extent.end), first.saturating_sub(offset))
            }
            LogFrom::Since(time) => {
                let offset = self.since(time, extent).await?;
                (offset.max(first), first.saturating_sub(offset))
            }
            LogFrom::Tail(lines) => {
                let shared = Arc::clone(&self.0);
                let search = move || shared.files.ring.tail(extent.end, lines);
                let found = tokio::task::spawn_blocking(search).await;
                (found.map_err(io::Error::other)??, 0)
            }
        };
        Ok(LogReader {
            shared: Arc::clone(&self.0),
            extent: self.0.extent.subscribe(),
            position,
            missed,
            follow,
            segments: VecDeque::new(),
        })
    }

    async fn since(&self, time: SystemTime, mut extent: Extent) -> io::Result<u64> {
        loop {
            let (shared, known) = (Arc::clone(&self.0), extent.known.clone());
            let search = move || shared.files.index.since(&known, milliseconds(time), extent.end);
            let found = tokio::task::spawn_blocking(search).await.map_err(io::Error::other)?;
            if !self.0.has_overwritten(&extent) {
                return found;
            }
            extent = self.0.extent.borrow().clone();
        }
    }
}

/// A reader of a job's log. Readers are independent of each other and of the writing of the log.
///
/// [`next`](Self::next) gives the bytes as they arrived. [`next_segment`](Self::next_segment) also
/// says which output of the command they are of, and when they arrived.
#[derive(Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
    extent: watch::Receiver<Extent>,
    position: u64,
    missed: u64,
    follow: bool,
    /// What was read and not returned.
    segments: VecDeque<LogSegment>,
}

impl LogReader {
    /// The offset of the next byte in the log.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes are missing at the beginning. A second call returns 0.
    #[cfg(feature = "control")]
    pub(crate) fn take_missed(&mut self) -> u64 {
        self.overtaken();
        std::mem::take(&mut self.missed)
    }

    /// The next bytes, or how many are missing before them. `None` at the end; a following reader
    /// reaches it when the log is complete or no longer kept. Cancel safe.
    ///
    /// # Errors
    /// If the file that keeps the log cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<LogItem>> {
        if let Some(segment) = self.segments.pop_front() {
            self.position += segment.bytes.len() as u64;
            return Ok(Some(LogItem::Bytes(segment.bytes)));
        }
        loop {
            let missed = std::mem::take(&mut self.missed);
            if missed > 0 {
                return Ok(Some(LogItem::Missed(missed)));
            }
            let Some(extent) = self.more().await else { return Ok(None) };
            if self.missed > 0 {
                continue;
            }
            let (shared, position) = (Arc::clone(&self.shared), self.position);
            let most = (extent.end - position).min(READ);
            let read = tokio::task::spawn_blocking(move || shared.files.ring.read(position, most));
            let bytes = read.await.map_err(io::Error::other)??;
            // A write in the meantime may have overwritten what was read.
            if self.overtaken() {
                continue;
            }
            self.position = position + bytes.len() as u64;
            return Ok(Some(LogItem::Bytes(bytes.into())));
        }
    }

    /// The next bytes of one output, with the time at which they arrived. Otherwise as
    /// [`next`](Self::next). Cancel safe.
    ///
    /// # Errors
    /// If the files that keep the log cannot be read.
    pub async fn next_segment(&mut self) -> io::Result<Option<LogSegment>> {
        while self.segments.is_empty() {
            let Some(extent) = self.more().await else { return Ok(None) };
            let (shared, position) = (Arc::clone(&self.shared), self.position);
            let (known, end) = (extent.known.clone(), extent.end);
            let read = move || shared.files.read_segments(&known, position, end);
            let read = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?;
            // A write in the meantime may have overwritten what was read.
            if self.overtaken() || self.shared.has_overwritten(&extent) {
                continue;
            }
            self.segments.extend(read?);
        }
        let Some(mut segment) = self.segments.pop_front() else { return Ok(None) };
        segment.missed = std::mem::take(&mut self.missed);
        self.position += segment.bytes.len() as u64;
        Ok(Some(segment))
    }

    /// Waits until there is more than was read; `None` at the end. Skips bytes that are no longer
    /// kept.
    async fn more(&mut self) -> Option<Extent> {
        loop {
            let extent = self.extent.borrow_and_update().clone();
            self.overtaken();
            // A write that is under way may overwrite everything that is known.
            if self.position < extent.end {
                return Some(extent);
            }
            if extent.complete || !self.follow || self.extent.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Skips bytes that are no longer kept.
    fn overtaken(&mut self) -> bool {
        let end = self.extent.borrow().end;
        let first = self.shared.first().min(end);
        if self.position >= first {
            return false;
        }
        self.missed += first - self.position;
        self.position = first;
        true
    }
}
