//! What of a job's output was read, and is not in a request yet.
//!
//! Owns how far it is read ahead. With one output, nothing is read while a request waits for its
//! confirmation: the pipe collects the output, and few large reads cost less. With two, the order
//! between them is lost in the pipes. So they are read as long as little is there.

use std::collections::VecDeque;

use bytes::Bytes;
use metaservice_protocol::LogOutput;

use super::output::Output;

/// How many chunks are read ahead.
const MAX_CHUNKS: usize = 64;

/// How many bytes are read ahead, besides one chunk.
const MAX_BYTES: usize = 64 * 1024;

/// The next chunk, if it is of the wanted output.
pub(super) enum Next {
    Chunk(Bytes),
    /// The next chunk is of the other output. It stays where it is.
    Other,
    End,
}

/// A job's output, with what was read ahead.
pub(super) struct Source<'a> {
    output: &'a mut Output,
    ahead: VecDeque<(LogOutput, Bytes)>,
    bytes: usize,
    ended: bool,
}

impl<'a> Source<'a> {
    pub(super) const fn new(output: &'a mut Output) -> Self {
        Self { output, ahead: VecDeque::new(), bytes: 0, ended: false }
    }

    /// The next chunk; `None` at the end. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<(LogOutput, Bytes)> {
        if self.ahead.is_empty() {
            self.read().await;
        }
        let (output, chunk) = self.ahead.pop_front()?;
        self.bytes -= chunk.len();
        Some((output, chunk))
    }

    /// The next chunk, if it is of this output. Cancel-safe.
    pub(super) async fn next_of(&mut self, wanted: LogOutput) -> Next {
        if self.ahead.is_empty() {
            self.read().await;
        }
        match self.ahead.front() {
            None => Next::End,
            Some((output, _)) if *output != wanted => Next::Other,
            Some(_) => self.next().await.map_or(Next::End, |(_, chunk)| Next::Chunk(chunk)),
        }
    }

    /// Whether more may be read while a request waits for its confirmation.
    pub(super) fn may_read_ahead(&self) -> bool {
        let little = self.bytes < MAX_BYTES && self.ahead.len() < MAX_CHUNKS;
        self.output.is_separate() && !self.ended && little
    }

    /// Reads a chunk. Cancel-safe.
    pub(super) async fn read(&mut self) {
        match self.output.read().await {
            Some((output, chunk)) => {
                self.bytes += chunk.len();
                self.ahead.push_back((output, chunk));
            }
            None => self.ended = true,
        }
    }
}
