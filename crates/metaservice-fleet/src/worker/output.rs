//! The log of an attempt on its way to the queue.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, DuplexStream};

use crate::log::{Chunk, MAX_CHUNK, Stream, subject};
use crate::name::JobId;
use crate::queue::Queue;

/// How much of each output waits while the queue is slow, in bytes. More slows the command.
const BUFFER: usize = 256 * 1024;

/// How long to wait before a chunk is sent again that the queue did not take.
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

impl Log {
    /// Sends all of the log, and returns its length in bytes. It tries again as long as the queue
    /// takes no chunk: its owner ends it with the lease.
    pub(super) async fn send(
        mut self,
        queue: &Queue,
        id: &JobId,
        attempt: u32,
        mut full: impl FnMut(String),
    ) -> u64 {
        let subject = subject(id, attempt);
        let mut offset = 0;
        while let Some((stream, bytes)) = self.next().await {
            let chunk = Chunk { offset, stream, bytes: bytes.freeze() };
            offset = chunk.end();
            let message = chunk.encode();
            let mut was_told = false;
            loop {
                let sent = queue.context().publish(subject.clone(), message.clone()).await;
                let error = match sent {
                    Ok(confirmed) => match confirmed.await {
                        Ok(_) => break,
                        Err(error) => error,
                    },
                    Err(error) => error,
                };
                if queue.is_connected() && !std::mem::replace(&mut was_told, true) {
                    full(error.to_string());
                }
                tokio::time::sleep(RETRY).await;
            }
        }
        offset
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
