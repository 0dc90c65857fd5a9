//! The task that writes the log.
//!
//! The task owns the log sink, so bytes that arrived are written even if their request is cut a
//! moment later. Requests send it chunks over a short channel. If the sink is slow the channel is
//! full, the request's body is not read, the connection's window closes, and the guest's command
//! blocks. Memory is limited to [`CHUNKS_IN_FLIGHT`] chunks, and [`GATHERED`] bytes if a history is
//! kept. The history gets bytes before the sink does: bytes that were seen are found in `logs`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use metaservice_protocol::{LogOutput, LogPlace};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::history::History;
use super::reader::{LogFrom, LogReader, Readers};
use super::record::Record;
use super::streams::{Misplaced, Streams};

/// How many chunks may wait for the sink. A chunk is the result of one read of a connection.
const CHUNKS_IN_FLIGHT: usize = 4;

/// How many bytes are gathered while more arrive, if a history is kept.
const GATHERED: usize = 256 * 1024;

/// How many chunks are gathered, however small they are.
const MAX_GATHERED: usize = 256;

type DynSink = Pin<Box<dyn AsyncWrite + Send>>;

/// Where the log is written.
pub(crate) struct LogSinks {
    pub(crate) log: DynSink,
    /// Where stderr is written, if that is not the same.
    pub(crate) stderr: Option<DynSink>,
}

impl LogSinks {
    fn of(&mut self, output: LogOutput) -> &mut DynSink {
        match (output, &mut self.stderr) {
            (LogOutput::Stderr, Some(stderr)) => stderr,
            _ => &mut self.log,
        }
    }

    async fn shutdown(&mut self) {
        let _ = self.log.shutdown().await;
        if let Some(stderr) = &mut self.stderr {
            let _ = stderr.shutdown().await;
        }
    }
}

enum LogEntry {
    /// Bytes of an output, and the end of their numbered log after them.
    Chunk(LogOutput, Bytes, Option<LogPlace>),
    /// Flush everything before this, then confirm.
    Flush(oneshot::Sender<()>),
    /// Persist the length of the record.
    Persist,
    /// Nothing more comes: following readers end.
    Complete,
}

/// The log sink failed. The first cause is kept; each caller gets it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the log cannot be written")]
pub struct LogError(#[source] Arc<io::Error>);

/// The sending side of the log.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// Boxed: the channel allocates room for 32 entries, and most logs are quiet.
    entries: mpsc::Sender<Box<LogEntry>>,
    failure: watch::Receiver<Option<LogError>>,
    readers: Option<Readers>,
    /// Why the history has ended early, once that is so.
    unkept: Option<watch::Receiver<Option<Arc<io::Error>>>>,
    /// How many log requests are under way.
    requests: Arc<watch::Sender<usize>>,
    /// Locked while a chunk of a numbered log is sent to the task.
    streams: Arc<Mutex<Streams>>,
}

/// Why a chunk of a numbered log is not accepted.
#[derive(Debug)]
pub(crate) enum WriteError {
    Misplaced(Misplaced),
    Failed(LogError),
}

/// A log request that is under way, as long as this lives.
#[derive(Debug)]
pub(crate) struct LogRequest(Arc<watch::Sender<usize>>);

impl Drop for LogRequest {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

impl Log {
    /// Starts the task, which writes `most` bytes at most, those in the `record` included. It ends
    /// when the last clone of the log is dropped.
    pub(crate) fn start(
        sinks: LogSinks,
        most: u64,
        history: Option<History>,
        record: Option<Record>,
    ) -> Self {
        let (entries, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let (failed, failure) = watch::channel(None);
        let readers = history.as_ref().map(History::readers);
        let unkept = history.as_ref().map(History::failure);
        let written = record.as_ref().map(Record::written).unwrap_or_default();
        let streams = Arc::new(Mutex::new(Streams::from(written.received)));
        let left = most.saturating_sub(written.length);
        let sink = LogSink { sinks, last: LogOutput::Stdout, record, left, most };
        tokio::spawn(run(sink, history, receiver, failed));
        Self { entries, failure, readers, unkept, requests: Arc::default(), streams }
    }

    /// Sends a chunk of version 1 to the task; waits while the sink is slow. A chunk is sent whole
    /// or not at all, also if this future is dropped.
    pub(crate) async fn write(&self, chunk: Bytes) -> Result<(), LogError> {
        self.send(LogEntry::Chunk(LogOutput::Stdout, chunk, None)).await
    }

    async fn send(&self, entry: LogEntry) -> Result<(), LogError> {
        self.entries.send(Box::new(entry)).await.map_err(|_| self.failure())
    }

    /// Sends the new bytes of a chunk of a numbered log, as [`write`](Self::write) does, and moves
    /// `place` to the end of the chunk.
    pub(crate) async fn write_at(
        &self,
        place: &mut LogPlace,
        mut chunk: Bytes,
    ) -> Result<(), WriteError> {
        let mut streams = self.streams.lock().await;
        let known = streams.known(&place.stream, place.offset, chunk.len());
        let known = known.map_err(WriteError::Misplaced)?;
        let end = place.offset.saturating_add(chunk.len() as u64);
        if known < chunk.len() {
            let after = LogPlace { offset: end, ..place.clone() };
            let new = chunk.split_off(known);
            let entry = LogEntry::Chunk(place.output, new, Some(after));
            self.send(entry).await.map_err(WriteError::Failed)?;
        }
        // No await after the send: a chunk that was sent is always recorded.
        streams.received(&place.stream, end);
        place.offset = end;
        Ok(())
    }

    /// Waits until every chunk that was sent is written and flushed.
    pub(crate) async fn flush(&self) -> Result<(), LogError> {
        let (done, flushed) = oneshot::channel();
        self.send(LogEntry::Flush(done)).await?;
        flushed.await.map_err(|_| self.failure())
    }

    /// Waits until the history cannot be written; without end if it can, or if none is kept.
    pub(crate) async fn unkept(&self) -> Arc<io::Error> {
        if let Some(mut unkept) = self.unkept.clone() {
            let error = unkept.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
            if let Some(error) = error {
                return error;
            }
        }
        std::future::pending().await
    }

    /// A reader of the history; `None` if none is kept.
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

    /// Nothing more comes: following readers end.
    pub(crate) async fn complete(&self) {
        let _ = self.entries.send(Box::new(LogEntry::Complete)).await;
    }

    fn failure(&self) -> LogError {
        self.failure.borrow().clone().unwrap_or_else(ended)
    }

    /// Waits until the sink fails.
    pub(crate) async fn failed(&self) -> LogError {
        let mut failure = self.failure.clone();
        // The guard is dropped before the next await, so that the future is `Send`.
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
    mut sink: LogSink,
    mut history: Option<History>,
    mut entries: mpsc::Receiver<Box<LogEntry>>,
    failed: watch::Sender<Option<LogError>>,
) {
    let mut gathered = Gathered::default();
    loop {
        let entry = tokio::select! {
            biased;
            // First: the log of a guest that never pauses must be persisted too.
            () = due(sink.record.as_ref()) => LogEntry::Persist,
            entry = entries.recv() => match entry {
                Some(entry) => *entry,
                None => break,
            },
        };
        // The log is live: nothing is held back if nothing more is on its way.
        let flush = entries.is_empty();
        let kept = history.is_some();
        gathered.push(entry);
        if kept && !flush && gathered.may_grow() {
            continue;
        }
        let Gathered { batch, .. } = std::mem::take(&mut gathered);
        if let Some(history) = &mut history {
            // First: a later reader finds all bytes that the sink got.
            history.append(sink.allowed(&batch)).await;
        }
        let last = batch.len() - 1;
        for (number, entry) in batch.into_iter().enumerate() {
            if let Err(error) = sink.apply(&entry, flush && number == last).await {
                tracing::warn!(%error, "the log cannot be written");
                // Before the entry is dropped, so that its sender finds the cause.
                failed.send_replace(Some(LogError(Arc::new(error))));
                return;
            }
            if let (LogEntry::Complete, Some(history)) = (&entry, &history) {
                history.complete();
            }
            if let LogEntry::Flush(done) = entry {
                let _ = done.send(());
            }
        }
    }
    sink.sinks.shutdown().await;
}

/// Entries that go to the history and to the sink together.
#[derive(Default)]
struct Gathered {
    batch: Vec<LogEntry>,
    bytes: usize,
}

impl Gathered {
    fn push(&mut self, entry: LogEntry) {
        if let LogEntry::Chunk(_, chunk, _) = &entry {
            self.bytes += chunk.len();
        }
        self.batch.push(entry);
    }

    /// Whether another entry may be added: only chunks are gathered, and not too many.
    fn may_grow(&self) -> bool {
        let chunk = matches!(self.batch.last(), Some(LogEntry::Chunk(..)));
        chunk && self.bytes < GATHERED && self.batch.len() < MAX_GATHERED
    }
}

/// Completes when the record must be persisted without a flush.
async fn due(record: Option<&Record>) {
    match record.and_then(Record::due) {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Where the log goes, and how much of it.
struct LogSink {
    sinks: LogSinks,
    /// The output that was written last.
    last: LogOutput,
    record: Option<Record>,
    left: u64,
    most: u64,
}

impl LogSink {
    /// The part of the chunks in a batch that is within the limit.
    fn allowed(&self, batch: &[LogEntry]) -> Vec<(LogOutput, Bytes)> {
        let mut left = self.left;
        let allowed = |entry: &LogEntry| match entry {
            LogEntry::Chunk(output, chunk, _) => {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
                left -= most as u64;
                Some((*output, chunk.slice(..most)))
            }
            _ => None,
        };
        batch.iter().filter_map(allowed).collect()
    }

    async fn apply(&mut self, entry: &LogEntry, flush: bool) -> io::Result<()> {
        if let LogEntry::Chunk(output, chunk, place) = entry {
            let allowed = usize::try_from(self.left).unwrap_or(usize::MAX).min(chunk.len());
            if let Some(record) = &mut self.record {
                record.write(*output, chunk.slice(..allowed), place.as_ref()).await?;
            }
            self.select(*output).await?.write_all(&chunk[..allowed]).await?;
            self.left -= allowed as u64;
            if allowed < chunk.len() {
                self.sinks.of(*output).flush().await?;
                let message = format!("it is longer than {} bytes", self.most);
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
        }
        if flush || matches!(entry, LogEntry::Flush(_)) {
            self.sinks.of(self.last).flush().await?;
        }
        if let (LogEntry::Flush(_) | LogEntry::Persist, Some(record)) = (entry, &mut self.record) {
            record.persist().await?;
        }
        Ok(())
    }

    /// The sink of an output. The one that was written before is flushed: both can lead to the same
    /// file or terminal.
    async fn select(&mut self, output: LogOutput) -> io::Result<&mut DynSink> {
        if std::mem::replace(&mut self.last, output) != output && self.sinks.stderr.is_some() {
            let [first, second] = LogOutput::ALL;
            let before = if output == first { second } else { first };
            self.sinks.of(before).flush().await?;
        }
        Ok(self.sinks.of(output))
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use super::*;

    fn to(sink: impl AsyncWrite + Send + 'static) -> LogSinks {
        LogSinks { log: Box::pin(sink), stderr: None }
    }

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
    async fn a_full_disk_is_reported_with_its_cause_from_then_on() {
        let log = Log::start(to(FullDisk { room: 3 }), u64::MAX, None, None);
        log.write(Bytes::from_static(b"four")).await.unwrap();
        for _ in 0..2 {
            let error = log.flush().await.unwrap_err();
            assert_eq!(error.0.kind(), io::ErrorKind::StorageFull);
        }
        assert!(log.write(Bytes::from_static(b"x")).await.is_err());
    }

    /// Compares what a later reader finds with what the sink was given.
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
    async fn what_the_sink_gets_is_in_the_history_already() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::create(directory.path(), 1 << 20).unwrap();
        let missing = Arc::default();
        let readers = history.readers();
        let sink = Watching { readers: readers.clone(), shown: 0, missing: Arc::clone(&missing) };
        let log = Log::start(to(sink), 5000, Some(history), None);
        for _ in 0..500 {
            log.write(Bytes::from_static(b"0123456789")).await.unwrap();
        }
        log.flush().await.unwrap();
        assert!(!missing.load(std::sync::atomic::Ordering::SeqCst));
        // Bytes beyond the limit go neither to the sink nor to the history.
        let _ = log.write(Bytes::from_static(b"beyond")).await;
        log.flush().await.unwrap_err();
        assert_eq!(readers.end(), 5000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_sink_stops_the_writer_and_loses_nothing() {
        use tokio::io::AsyncReadExt;
        let (sink, mut reader) = tokio::io::duplex(10);
        let log = Log::start(to(sink), u64::MAX, None, None);
        let writer = tokio::spawn(async move {
            for n in 0..100u8 {
                log.write(Bytes::from(vec![n; 10])).await.unwrap();
            }
        });
        // Time only passes when no task can run: the writer is held back.
        tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
        assert!(!writer.is_finished());
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        writer.await.unwrap();
        let expected: Vec<u8> = (0..100u8).flat_map(|n| [n; 10]).collect();
        assert_eq!(all, expected);
    }
}
