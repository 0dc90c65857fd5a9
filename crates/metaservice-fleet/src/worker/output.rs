//! The log of an attempt on its way to the queue: over a file, so that a queue that is slow or down
//! does not stop the command.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use metaservice_private::lock;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;

use super::backlog::{Backlog, Part};
use crate::log::{Chunk, MAX_CHUNK, Stream, subject};
use crate::name::JobId;
use crate::queue::Queue;

/// How much of each output waits in memory, in bytes.
const BUFFER: usize = 256 * 1024;

/// How long to wait before a part is sent or written again that found no room.
const RETRY: Duration = Duration::from_millis(500);

/// The ends of the two outputs: those that the sandbox writes, and the log that reads them.
pub(super) fn pipes() -> ([DuplexStream; 2], Log) {
    let (stdout, out) = tokio::io::duplex(BUFFER);
    let (stderr, err) = tokio::io::duplex(BUFFER);
    ([stdout, stderr], Log { out: Some(out), err: Some(err) })
}

/// The read ends of the outputs. `None`: it has ended.
pub(super) struct Log {
    out: Option<DuplexStream>,
    err: Option<DuplexStream>,
}

/// Where a log goes.
pub(super) struct Destination<'a> {
    pub(super) queue: &'a Queue,
    pub(super) id: &'a JobId,
    pub(super) attempt: u32,
    /// An empty directory of this attempt.
    pub(super) directory: &'a Path,
    /// Whether the file keeps the whole log.
    pub(super) keeps_file: bool,
}

/// The file of a log in the directory of its attempt.
pub(super) fn file(directory: &Path) -> PathBuf {
    directory.join("log")
}

impl Log {
    /// Sends all of the log, and returns its length in bytes. It tries again as long as the queue
    /// or the disk takes no more, and says so once: its owner ends it with the lease. `first` is
    /// called when output comes first.
    ///
    /// # Errors
    /// When the file of what waits cannot be used.
    pub(super) async fn send(
        self,
        to: Destination<'_>,
        first: impl FnOnce(),
        full: impl Fn(String) + Sync,
    ) -> io::Result<u64> {
        let path = file(to.directory);
        let mut options = File::options();
        let writing = options.write(true).create_new(true).open(&path).await?;
        let reading = File::open(&path).await?;
        let spool = Spool {
            state: Mutex::default(),
            more: Notify::new(),
            less: Notify::new(),
            keeps_file: to.keeps_file,
        };
        let ((), length) = tokio::join!(
            spool.collect(self, writing, first, &full), //
            spool.deliver(reading, to, &full),
        );
        length
    }

    /// The next bytes of either output. `None`: both have ended.
    async fn next(&mut self) -> Option<(Stream, BytesMut)> {
        loop {
            let (stream, read) = match (&mut self.out, &mut self.err) {
                (None, None) => return None,
                (Some(out), None) => (Stream::Stdout, part(out).await),
                (None, Some(err)) => (Stream::Stderr, part(err).await),
                (Some(out), Some(err)) => tokio::select! {
                    read = part(out) => (Stream::Stdout, read),
                    read = part(err) => (Stream::Stderr, read),
                },
            };
            match (read, stream) {
                (Some(bytes), stream) => return Some((stream, bytes)),
                (None, Stream::Stdout) => self.out = None,
                (None, Stream::Stderr) => self.err = None,
            }
        }
    }
}

/// What is there of an output, at most one chunk. `None`: it has ended.
///
/// Cancellation: no byte is lost.
async fn part(output: &mut DuplexStream) -> Option<BytesMut> {
    let mut bytes = BytesMut::new().limit(MAX_CHUNK);
    match output.read_buf(&mut bytes).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(bytes.into_inner()),
    }
}

/// A file between the outputs and the queue.
struct Spool {
    state: Mutex<Backlog>,
    /// There is more to send, or the end.
    more: Notify,
    /// There is less to send.
    less: Notify,
    keeps_file: bool,
}

impl Spool {
    /// Writes the outputs to the file.
    async fn collect(
        &self,
        mut log: Log,
        mut file: File,
        first: impl FnOnce(),
        full: &(impl Fn(String) + Sync),
    ) {
        let mut first = Some(first);
        while let Some((stream, bytes)) = log.next().await {
            if let Some(first) = first.take() {
                first();
            }
            while !lock(&self.state).has_room() {
                self.less.notified().await;
            }
            let mut was_told = false;
            while let Err(error) = self.write(&mut file, &bytes).await {
                if !std::mem::replace(&mut was_told, true) {
                    full(error.to_string());
                }
                tokio::time::sleep(RETRY).await;
            }
            lock(&self.state).write(stream, bytes.len() as u64);
            self.more.notify_one();
        }
        lock(&self.state).end();
        self.more.notify_one();
    }

    async fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let is_sent = lock(&self.state).is_sent();
        if is_sent && !self.keeps_file {
            file.set_len(0).await?;
            lock(&self.state).emptied();
        }
        let end = lock(&self.state).end_of_file();
        file.seek(SeekFrom::Start(end)).await?;
        file.write_all(bytes).await?;
        file.flush().await
    }

    /// Sends what is in the file.
    async fn deliver(
        &self,
        mut file: File,
        to: Destination<'_>,
        full: &(impl Fn(String) + Sync),
    ) -> io::Result<u64> {
        let subject = subject(to.id, to.attempt);
        loop {
            let (part, length) = {
                let state = lock(&self.state);
                (state.first(MAX_CHUNK), state.length())
            };
            let Some(part) = part else {
                match length {
                    Some(length) => return Ok(length),
                    None => self.more.notified().await,
                }
                continue;
            };
            let bytes = read(&mut file, part).await?;
            let message = Chunk { offset: part.offset, stream: part.stream, bytes }.encode();
            publish(to.queue, &subject, &message, full).await;
            lock(&self.state).send(part);
            self.less.notify_one();
        }
    }
}

async fn read(file: &mut File, part: Part) -> io::Result<Bytes> {
    let mut bytes = BytesMut::zeroed(part.length);
    file.seek(SeekFrom::Start(part.place)).await?;
    file.read_exact(&mut bytes).await?;
    Ok(bytes.freeze())
}

/// Completes when a server has confirmed the message.
async fn publish(queue: &Queue, subject: &str, message: &Bytes, full: &impl Fn(String)) {
    let mut was_told = false;
    loop {
        let sending =
            async { queue.context().publish(subject.to_owned(), message.clone()).await?.await };
        let error = match queue.denials().watch(subject, sending).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(denied) => denied.to_string(),
        };
        if queue.is_connected() && !std::mem::replace(&mut was_told, true) {
            full(error);
        }
        tokio::time::sleep(RETRY).await;
    }
}
