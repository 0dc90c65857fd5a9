//! The job's log: one writer, any number of log requests, any number of later readers.
//!
//! A task owns the drain, so bytes that came in are written even if the request that
//! brought them is cut a moment later. Requests hand it chunks over a short bounded
//! channel: when the drain is slow the channel fills, the request's body is no longer
//! read, the connection's window closes and the guest's command blocks. Memory stays at
//! [`CHUNKS_IN_FLIGHT`] chunks, and [`GATHERED`] bytes where a history is kept, whatever the drain
//! does. The history has them before the drain does: who has seen bytes finds them in `logs`.

mod history;
mod hole;
mod index;
mod record;
mod streams;

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use metaservice_protocol::LogPlace;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

pub(crate) use self::history::History;
use self::history::Readers;
pub use self::history::{LogFrom, LogItem, LogReader};
pub(crate) use self::hole::Holes;
pub(crate) use self::record::Record;
pub(crate) use self::streams::Misplaced;
use self::streams::Streams;

/// How many chunks may wait for the drain. A chunk is what one read of a connection gave.
const CHUNKS_IN_FLIGHT: usize = 4;

/// How many bytes are gathered while more is coming, where a history is kept.
const GATHERED: usize = 256 * 1024;

/// How many chunks, however small.
const MOST_GATHERED: usize = 256;

enum Entry {
    /// Bytes, and to where the numbered log they are of has come with them.
    Chunk(Bytes, Option<LogPlace>),
    /// Everything before this is to be flushed, then the sender told.
    Flush(oneshot::Sender<()>),
    /// What is in the record is to be promised.
    Promise,
    /// Whoever follows the log need not wait for more.
    Complete,
}

/// The drain has failed; the first cause is kept and given to everyone who asks.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the log cannot be written")]
pub struct LogError(#[source] Arc<io::Error>);

/// The sending side of the log.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// In boxes: the channel has room for 32, and most logs are quiet.
    entries: mpsc::Sender<Box<Entry>>,
    failure: watch::Receiver<Option<LogError>>,
    readers: Option<Readers>,
    /// How many log requests are under way.
    requests: Arc<watch::Sender<usize>>,
    /// Held while a chunk of a numbered log is handed over.
    streams: Arc<Mutex<Streams>>,
}

/// Why a chunk of a numbered log is not taken.
#[derive(Debug)]
pub(crate) enum Untaken {
    Misplaced(Misplaced),
    Failed(LogError),
}

/// A log request that is under way, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct LogRequest(Arc<watch::Sender<usize>>);

impl Drop for LogRequest {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

impl Log {
    /// Starts the task that owns `drain` and gives it `most` bytes, with what a `record` has of
    /// them; it ends when the last clone of the log is dropped.
    pub(crate) fn start(
        drain: Pin<Box<dyn AsyncWrite + Send>>,
        most: u64,
        history: Option<History>,
        record: Option<Record>,
    ) -> Self {
        let (entries, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let (failed, failure) = watch::channel(None);
        let readers = history.as_ref().map(History::readers);
        let had = record.as_ref().map(Record::written).unwrap_or_default();
        let streams = Arc::new(Mutex::new(Streams::from(had.received)));
        let drain = Drain { drain, record, left: most.saturating_sub(had.length), most };
        tokio::spawn(run(drain, history, receiver, failed));
        Self { entries, failure, readers, requests: Arc::default(), streams }
    }

    /// Hands a chunk to the drain; waits while the drain is slow. A chunk is handed
    /// over whole or not at all, also when this future is dropped.
    pub(crate) async fn write(&self, chunk: Bytes) -> Result<(), LogError> {
        self.hand_over(chunk, None).await
    }

    async fn hand_over(&self, chunk: Bytes, place: Option<LogPlace>) -> Result<(), LogError> {
        let sent = self.entries.send(Box::new(Entry::Chunk(chunk, place))).await;
        sent.map_err(|_| self.failure())
    }

    /// Hands what is new of a chunk of a numbered log to the drain, as [`write`](Self::write), and
    /// moves `place` behind the chunk.
    pub(crate) async fn write_at(
        &self,
        place: &mut LogPlace,
        mut chunk: Bytes,
    ) -> Result<(), Untaken> {
        let mut streams = self.streams.lock().await;
        let known = streams.known(&place.stream, place.offset, chunk.len());
        let known = known.map_err(Untaken::Misplaced)?;
        let end = place.offset.saturating_add(chunk.len() as u64);
        if known < chunk.len() {
            let come = LogPlace { stream: place.stream.clone(), offset: end };
            let new = chunk.split_off(known);
            self.hand_over(new, Some(come)).await.map_err(Untaken::Failed)?;
        }
        // Nothing can come between: it is handed over, and known to be.
        streams.took(&place.stream, end);
        place.offset = end;
        Ok(())
    }

    /// Waits until everything handed over so far has been written and flushed.
    pub(crate) async fn flush(&self) -> Result<(), LogError> {
        let (done, flushed) = oneshot::channel();
        self.entries.send(Box::new(Entry::Flush(done))).await.map_err(|_| self.failure())?;
        flushed.await.map_err(|_| self.failure())
    }

    /// A reader of what is kept; `None` where nothing is.
    pub(crate) async fn reader(
        &self,
        from: LogFrom,
        follow: bool,
    ) -> Option<io::Result<LogReader>> {
        Some(self.readers.as_ref()?.open(from, follow).await)
    }

    /// A log request begins.
    pub(crate) fn request(&self) -> LogRequest {
        self.requests.send_modify(|requests| *requests += 1);
        LogRequest(Arc::clone(&self.requests))
    }

    /// Waits until no log request is under way.
    pub(crate) async fn idle(&self) {
        // The sender lives as long as `self`.
        let _ = self.requests.subscribe().wait_for(|requests| *requests == 0).await;
    }

    /// Nothing more will come: readers that follow have an end.
    pub(crate) async fn complete(&self) {
        let _ = self.entries.send(Box::new(Entry::Complete)).await;
    }

    fn failure(&self) -> LogError {
        self.failure.borrow().clone().unwrap_or_else(ended)
    }

    /// Waits until the drain fails; for ever while it does not.
    pub(crate) async fn failed(&self) -> LogError {
        let mut failure = self.failure.clone();
        // The guard is dropped before the next await: the future can be sent to another thread.
        let failed = failure.wait_for(Option::is_some).await.map(|failure| failure.clone());
        match failed {
            Ok(failure) => failure.unwrap_or_else(ended),
            Err(_) => std::future::pending().await,
        }
    }
}

fn ended() -> LogError {
    LogError(Arc::new(io::Error::from(io::ErrorKind::BrokenPipe)))
}

async fn run(
    mut drain: Drain,
    mut history: Option<History>,
    mut entries: mpsc::Receiver<Box<Entry>>,
    failed: watch::Sender<Option<LogError>>,
) {
    let mut gathered = Gathered::default();
    loop {
        let entry = tokio::select! {
            biased;
            // First, or a guest that never pauses would never be promised anything.
            () = due(drain.record.as_ref()) => Entry::Promise,
            entry = entries.recv() => match entry {
                Some(entry) => *entry,
                None => break,
            },
        };
        // Live: nothing is kept back when nothing more is on its way.
        let flush = entries.is_empty();
        let kept = history.is_some();
        gathered.take(entry);
        if kept && !flush && gathered.may_grow() {
            continue;
        }
        let Gathered { batch, .. } = std::mem::take(&mut gathered);
        if let Some(history) = &mut history {
            // First: a later reader finds everything that the drain has shown.
            history.append(drain.allowed(&batch)).await;
        }
        let last = batch.len() - 1;
        for (number, entry) in batch.into_iter().enumerate() {
            if let Err(error) = drain.apply(&entry, flush && number == last).await {
                tracing::warn!(%error, "the log cannot be written");
                // Before the entry is dropped, so that who waits for it finds the cause.
                failed.send_replace(Some(LogError(Arc::new(error))));
                return;
            }
            if let (Entry::Complete, Some(history)) = (&entry, &history) {
                history.complete();
            }
            if let Entry::Flush(done) = entry {
                let _ = done.send(());
            }
        }
    }
    let _ = drain.drain.shutdown().await;
}

/// Entries that go to the history and to the drain together.
#[derive(Default)]
struct Gathered {
    batch: Vec<Entry>,
    bytes: usize,
}

impl Gathered {
    fn take(&mut self, entry: Entry) {
        if let Entry::Chunk(chunk, _) = &entry {
            self.bytes += chunk.len();
        }
        self.batch.push(entry);
    }

    /// Whether the next entry may come to these: only chunks do, and not for long.
    fn may_grow(&self) -> bool {
        let chunk = matches!(self.batch.last(), Some(Entry::Chunk(..)));
        chunk && self.bytes < GATHERED && self.batch.len() < MOST_GATHERED
    }
}

/// Completes when something is to be promised that nobody has asked for.
async fn due(record: Option<&Record>) {
    match record.and_then(Record::due) {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Where the log goes, and how much of it.
struct Drain {
    drain: Pin<Box<dyn AsyncWrite + Send>>,
    record: Option<Record>,
    left: u64,
    most: u64,
}

impl Drain {
    /// What is still allowed of the chunks in a batch.
    fn allowed(&self, batch: &[Entry]) -> Vec<Bytes> {
        let mut left = self.left;
        let allowed = |entry: &Entry| match entry {
            Entry::Chunk(chunk, _) => {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
                left -= most as u64;
                Some(chunk.slice(..most))
            }
            _ => None,
        };
        batch.iter().filter_map(allowed).collect()
    }

    async fn apply(&mut self, entry: &Entry, flush: bool) -> io::Result<()> {
        if let Entry::Chunk(chunk, place) = entry {
            let allowed = usize::try_from(self.left).unwrap_or(usize::MAX).min(chunk.len());
            if let Some(record) = &mut self.record {
                record.write(chunk.slice(..allowed), place.as_ref()).await?;
            }
            self.drain.write_all(&chunk[..allowed]).await?;
            self.left -= allowed as u64;
            if allowed < chunk.len() {
                self.drain.flush().await?;
                let message = format!("it is longer than {} bytes", self.most);
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
        }
        if flush || matches!(entry, Entry::Flush(_)) {
            self.drain.flush().await?;
        }
        if let (Entry::Flush(_) | Entry::Promise, Some(record)) = (entry, &mut self.record) {
            record.promise().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use super::*;

    /// Accepts `room` bytes, then fails as a full disk does.
    struct FullDisk {
        room: usize,
    }

    impl AsyncWrite for FullDisk {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = buf.len().min(self.room);
            self.room -= count;
            Poll::Ready(if count == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(count) })
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_told_with_its_cause_and_for_good() {
        let log = Log::start(Box::pin(FullDisk { room: 3 }), u64::MAX, None, None);
        log.write(Bytes::from_static(b"four")).await.unwrap();
        for _ in 0..2 {
            let error = log.flush().await.unwrap_err();
            assert_eq!(error.0.kind(), io::ErrorKind::StorageFull);
        }
        assert!(log.write(Bytes::from_static(b"x")).await.is_err());
    }

    /// Shows what a later reader finds while the drain is given bytes.
    struct Watching {
        readers: Readers,
        shown: u64,
        missing: Arc<std::sync::atomic::AtomicBool>,
    }

    impl AsyncWrite for Watching {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.shown += buf.len() as u64;
            if self.readers.end() < self.shown {
                self.missing.store(true, std::sync::atomic::Ordering::SeqCst);
            }
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_the_drain_shows_is_kept_already() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::create(folder.path(), 1 << 20).unwrap();
        let missing = Arc::default();
        let readers = history.readers();
        let drain = Watching { readers: readers.clone(), shown: 0, missing: Arc::clone(&missing) };
        let log = Log::start(Box::pin(drain), 5000, Some(history), None);
        for _ in 0..500 {
            log.write(Bytes::from_static(b"0123456789")).await.unwrap();
        }
        log.flush().await.unwrap();
        assert!(!missing.load(std::sync::atomic::Ordering::SeqCst));
        // What is beyond the limit is kept no more than it is shown.
        let _ = log.write(Bytes::from_static(b"beyond")).await;
        log.flush().await.unwrap_err();
        assert_eq!(readers.end(), 5000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_drain_stops_the_writer_and_loses_nothing() {
        use tokio::io::AsyncReadExt;
        let (drain, mut reader) = tokio::io::duplex(10);
        let log = Log::start(Box::pin(drain), u64::MAX, None, None);
        let writer = tokio::spawn(async move {
            for n in 0..100u8 {
                log.write(Bytes::from(vec![n; 10])).await.unwrap();
            }
        });
        // Time only passes when nobody can move: the writer is held back.
        tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
        assert!(!writer.is_finished());
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        writer.await.unwrap();
        let expected: Vec<u8> = (0..100u8).flat_map(|n| [n; 10]).collect();
        assert_eq!(all, expected);
    }
}
