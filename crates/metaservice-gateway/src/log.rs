//! The record of each attempt: a file of lines, the totals, and the first denials.
//!
//! A record is written when its attempt has ended, in one call, so that a reader never sees a part
//! of a line before the file reaches its limit.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metaservice_egress::audit::{Decision, Protocol, Reason, Record, Totals, suggestion};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

/// The most first denials that are reported. They are different from each other.
pub(crate) const MAX_DENIALS: usize = 1024;

/// How much a [`Follower`] reads at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// A file for records, with a limit.
pub struct LogFile {
    file: File,
    limit: u64,
    ended: Option<Box<dyn FnOnce(LogEnd) + Send>>,
}

/// Why a file gets no more records.
#[derive(Debug)]
#[non_exhaustive]
pub enum LogEnd {
    /// It has reached its limit.
    Full,
    /// It cannot be written.
    Failed(io::Error),
}

impl LogFile {
    /// Records are appended to `file`, which is open for reading and appending, until it has
    /// `limit` bytes. Attempts after that are counted as [`Totals::unrecorded`].
    #[must_use]
    pub fn new(file: File, limit: u64) -> Self {
        Self { file, limit, ended: None }
    }

    /// Calls `ended` when the file gets no more records, before the gateway has ended.
    #[must_use]
    pub fn on_end(mut self, ended: impl FnOnce(LogEnd) + Send + 'static) -> Self {
        self.ended = Some(Box::new(ended));
        self
    }

    /// Reports the end, once.
    fn end(&mut self, why: LogEnd) {
        if let Some(ended) = self.ended.take() {
            ended(why);
        }
    }
}

impl fmt::Debug for LogFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, limit, .. } = self;
        formatter.debug_struct("LogFile").field("file", file).field("limit", limit).finish()
    }
}

/// The first time that something is denied, or that an allowed name does not resolve.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Denial {
    /// The attempt.
    pub record: Record,
    /// The rule that would allow it, if one would.
    pub rule: Option<String>,
}

/// Where records go.
#[derive(Debug)]
pub(crate) struct Log {
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
    /// A second handle of the file, for its readers.
    reader: Option<Arc<File>>,
}

/// How far the file is.
#[derive(Debug, Clone, Copy)]
struct Progress {
    length: u64,
    /// No more records come.
    ended: bool,
}

#[derive(Debug)]
struct State {
    file: Option<LogFile>,
    written: u64,
    /// There was a file, and it cannot be written.
    failed: bool,
    totals: Totals,
    denied: HashSet<Key>,
    denials: mpsc::Sender<Denial>,
}

/// What makes two denials the same.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A question has no port.
    Name(String, Option<u16>),
    Address(Option<IpAddr>, Option<u16>, Protocol),
}

impl Log {
    /// A log, and the first denials. Without a file if it cannot be read.
    pub(crate) fn new(file: Option<LogFile>) -> (Self, mpsc::Receiver<Denial>) {
        // There is room for all of them.
        let (denials, receiver) = mpsc::channel(MAX_DENIALS);
        let opened = file.and_then(|log| {
            let opened =
                log.file.metadata().and_then(|data| Ok((data.len(), log.file.try_clone()?)));
            opened
                .inspect_err(|error| tracing::warn!(%error, "the network log cannot be read"))
                .map(|(length, reader)| (log, length, Arc::new(reader)))
                .ok()
        });
        let (file, written, reader) = match opened {
            Some((log, length, reader)) => (Some(log), length, Some(reader)),
            None => (None, 0, None),
        };
        let totals = Totals::default();
        let state = State { file, written, failed: false, totals, denied: HashSet::new(), denials };
        let (progress, _) = watch::channel(Progress { length: written, ended: false });
        (Self { state: Mutex::new(state), progress, reader }, receiver)
    }

    /// Records an attempt that has ended.
    pub(crate) fn record(&self, record: Record) {
        let mut state = self.lock();
        state.totals.add(&record);
        match state.write(&record) {
            Ok(true) => self.progress.send_modify(|progress| progress.length = state.written),
            Ok(false) => {}
            Err(error) => state.fail(error),
        }
        state.report(record);
    }

    /// Lets readers end when they have read everything. Handles of the gateway do not hold them.
    pub(crate) fn end(&self) {
        self.progress.send_modify(|progress| progress.ended = true);
    }

    /// Counts a denied attempt that is one too many to be recorded.
    pub(crate) fn count_unrecorded(&self) {
        self.count_all_unrecorded(1);
    }

    /// As [`count_unrecorded`](Self::count_unrecorded), for many.
    pub(crate) fn count_all_unrecorded(&self, count: u64) {
        let mut state = self.lock();
        state.totals.denied += count;
        state.totals.unrecorded += count;
    }

    pub(crate) fn totals(&self) -> Totals {
        self.lock().totals
    }

    /// A reader of the file, from its beginning.
    pub(crate) fn follow(&self) -> Option<Follower> {
        let file = Arc::clone(self.reader.as_ref()?);
        Some(Follower { file, progress: self.progress.subscribe(), position: 0 })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    record: &'a Record,
    /// The rule that would allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<String>,
}

impl<'a> Line<'a> {
    fn of(record: &'a Record) -> Self {
        let is_denied = record.verdict == Decision::Denied;
        Self { record, suggestion: if is_denied { suggestion(record) } else { None } }
    }
}

impl State {
    /// Returns whether the file has grown.
    fn write(&mut self, record: &Record) -> io::Result<bool> {
        let Some(log) = &mut self.file else {
            self.totals.unrecorded += u64::from(self.failed);
            return Ok(false);
        };
        let mut line = serde_json::to_vec(&Line::of(record)).map_err(io::Error::other)?;
        line.push(b'\n');
        let after = self.written.saturating_add(line.len() as u64);
        if after > log.limit {
            // A shorter line would fit, and hide that this one is missing.
            log.limit = 0;
            log.end(LogEnd::Full);
            self.totals.unrecorded += 1;
            return Ok(false);
        }
        log.file.write_all(&line)?;
        self.written = after;
        Ok(true)
    }

    /// Ends the file before a record that it cannot take.
    fn fail(&mut self, error: io::Error) {
        tracing::debug!(%error, "the network log cannot be written");
        self.totals.unrecorded += 1;
        self.failed = true;
        if let Some(mut log) = self.file.take() {
            // A part of a line may be there.
            let _ = log.file.set_len(self.written);
            log.end(LogEnd::Failed(error));
        }
    }

    fn report(&mut self, record: Record) {
        // A name that does not resolve is not denied. The guest cannot tell the difference.
        let failed = record.verdict == Decision::Denied || record.reason == Reason::Unresolved;
        if !failed || self.denied.len() >= MAX_DENIALS {
            return;
        }
        let key = match &record.name {
            Some(name) => Key::Name(name.clone(), record.port),
            // A question for a name that no rule can have. Resolvers ask for the root by
            // themselves.
            None if record.address.is_none() => return,
            None => Key::Address(record.address, record.port, record.protocol),
        };
        if self.denied.insert(key) {
            let rule = suggestion(&record);
            // It fails only if the receiver is dropped.
            let _ = self.denials.try_send(Denial { record, rule });
        }
    }
}

/// Reads the log from its beginning, and follows it.
#[derive(Debug)]
pub struct Follower {
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
    position: u64,
}

impl Follower {
    /// The next complete lines that are there already. `None`: there are no more yet.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Progress { length, .. } = *self.progress.borrow_and_update();
        let left = usize::try_from(length.saturating_sub(self.position)).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; left.min(CHUNK)];
        self.file.read_exact_at(&mut bytes, self.position)?;
        // Each line is shorter than a chunk.
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.truncate(end);
        self.position += end as u64;
        Ok(Some(bytes))
    }

    /// The next complete lines, once there are some. `None`: the gateway has ended, and everything
    /// was read.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(lines) = self.read()? {
                return Ok(Some(lines));
            }
            let ended = self.progress.wait_for(|now| now.ended || now.length > self.position);
            if ended.await.map_or(true, |now| now.ended) {
                // The last lines may have come since.
                return self.read();
            }
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
