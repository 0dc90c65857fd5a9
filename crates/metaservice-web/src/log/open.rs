//! A log that a page looks at: its index grows with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::access::{Access, AccessError};
use super::index::{Checkpoint, Extent, Index};
use super::pattern::Pattern;
use super::search::{Matches, Search};
use super::window::{ShownLine, Window};
use crate::source::Source;

/// How long a search may take.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long lines may take. What is read by then is shown.
const LINES_TIMEOUT: Duration = Duration::from_secs(5);

/// How often reading begins again in a row when it breaks without a new byte.
const MAX_BREAKS: u32 = 3;

/// What a page knows of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Progress {
    #[serde(flatten)]
    pub(crate) extent: Extent,
    pub(crate) state: State,
}

/// Whether the log grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum State {
    /// It may grow.
    Open,
    /// The job has ended, and the log is complete.
    Complete,
    /// It can no longer be read.
    Broken,
}

/// Why lines cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("another job has this name now")]
    Replaced,
}

/// A log that is open. Dropping it ends its task.
pub(crate) struct OpenLog {
    name: String,
    attempt: Option<u32>,
    started_ms: u64,
    source: Arc<dyn Source>,
    index: Arc<Mutex<Index>>,
    progress: watch::Receiver<Progress>,
    _following: AbortOnDropHandle<()>,
}

impl OpenLog {
    /// Follows the log of this job, or of one of its attempts.
    pub(crate) fn start(
        source: Arc<dyn Source>,
        name: &str,
        attempt: Option<u32>,
        access: Access,
    ) -> Self {
        let index = Arc::new(Mutex::new(Index::new()));
        let extent = Extent::default();
        let (sender, progress) = watch::channel(Progress { extent, state: State::Open });
        let started_ms = access.started_ms();
        let follower = Follower {
            name: name.to_owned(),
            attempt,
            started_ms,
            source: Arc::clone(&source),
            index: Arc::clone(&index),
            progress: sender,
        };
        let following = AbortOnDropHandle::new(tokio::spawn(follower.run(access)));
        let name = name.to_owned();
        Self { name, attempt, started_ms, source, index, progress, _following: following }
    }

    /// When its job was started.
    pub(crate) const fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// Its length, and whether it grows.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Some lines. Cancel safe.
    pub(crate) async fn lines(
        &self,
        from: u64,
        count: u64,
        pattern: Option<Pattern>,
    ) -> Result<Vec<ShownLine>, ReadError> {
        let begin = self.seek(from);
        let mut window = Window::new(begin, from, count, pattern);
        let mut reader = self.access().await?.read(begin.offset, false).await?;
        let deadline = Instant::now() + LINES_TIMEOUT;
        while !window.is_full() && Instant::now() < deadline {
            match reader.next().await.map_err(AccessError::from)? {
                // The lines were overwritten since the index was read.
                Some(segment) if segment.missed > 0 => return Ok(Vec::new()),
                Some(segment) => window.push(&segment),
                None => break,
            }
        }
        Ok(window.finish())
    }

    /// All lines that match, as far as the log goes now. Cancel safe.
    pub(crate) async fn search(&self, pattern: Pattern) -> Result<Matches, ReadError> {
        let deadline = Instant::now() + SEARCH_TIMEOUT;
        let begin = self.seek(0);
        let mut search = Search::new(begin, pattern);
        let mut reader = self.access().await?.read(begin.offset, false).await?;
        let complete = loop {
            match timeout_at(deadline, reader.next()).await {
                Err(_) => break false,
                Ok(next) => match next.map_err(AccessError::from)? {
                    Some(segment) if segment.missed > 0 => break false,
                    Some(segment) => search.push(&segment.bytes),
                    None => break true,
                },
            }
            // A log that is in memory is always ready.
            tokio::task::yield_now().await;
        };
        Ok(search.finish(complete))
    }

    /// The job, which must be the one that was opened. Cancel safe.
    pub(crate) async fn access(&self) -> Result<Access, ReadError> {
        let access = Access::find(&*self.source, &self.name, self.attempt).await?;
        if access.started_ms() == self.started_ms { Ok(access) } else { Err(ReadError::Replaced) }
    }

    fn seek(&self, line: u64) -> Checkpoint {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).seek(line)
    }
}

/// The task that reads the log.
struct Follower {
    name: String,
    attempt: Option<u32>,
    started_ms: u64,
    source: Arc<dyn Source>,
    index: Arc<Mutex<Index>>,
    progress: watch::Sender<Progress>,
}

impl Follower {
    async fn run(self, mut access: Access) {
        let mut breaks = 0;
        loop {
            let before = self.extent().bytes;
            match self.read(&access).await {
                // A running job ends its log when it is complete.
                Ok(()) => return self.publish(State::Complete),
                Err(error) => tracing::debug!(%error, job = self.name, "the log breaks"),
            }
            // A job that has ended has no more to say, and one that is cut is read again.
            breaks = if self.extent().bytes > before { 0 } else { breaks + 1 };
            let found = Access::find(&*self.source, &self.name, self.attempt).await;
            match found {
                Ok(found) if found.started_ms() == self.started_ms && breaks < MAX_BREAKS => {
                    access = found;
                }
                _ => return self.publish(State::Broken),
            }
        }
    }

    async fn read(&self, access: &Access) -> Result<(), AccessError> {
        let mut reader = access.read(self.extent().bytes, !access.has_ended()).await?;
        while let Some(segment) = reader.next().await? {
            self.add(segment.missed, &segment.bytes);
            self.publish(State::Open);
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn add(&self, missed: u64, bytes: &[u8]) {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).push(missed, bytes);
    }

    fn extent(&self) -> Extent {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).extent()
    }

    fn publish(&self, state: State) {
        let extent = self.extent();
        self.progress.send_if_modified(|progress| {
            let next = Progress { extent, state };
            let changed = *progress != next;
            *progress = next;
            changed
        });
    }
}
