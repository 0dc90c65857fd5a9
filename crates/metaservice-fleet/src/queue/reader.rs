//! Reads the log of an attempt while it grows.

use super::connection::{LOGS, Queue};
use super::error::ReadError;
use super::follow::Follow;
use super::watch::LogMessages;
use crate::log::{Chunk, subject};
use crate::name::JobId;
use crate::state::{JobState, Phase, ServerTime};

/// Reads the log of an attempt, from its first byte to its end.
#[derive(Debug)]
pub struct LogReader {
    queue: Queue,
    subject: String,
    attempt: u32,
    messages: LogMessages,
    follow: Follow,
    offset: u64,
    end: Option<u64>,
    after_gap: Option<Chunk>,
    stored_at: ServerTime,
}

impl LogReader {
    pub(crate) async fn open(queue: &Queue, id: &JobId, attempt: u32) -> Result<Self, ReadError> {
        let mut follow = queue.follow(id).await?;
        let state = follow.next().await?;
        let subject = subject(id, attempt);
        let messages = LogMessages::open(queue, &subject).await?;
        let mut reader = Self {
            queue: queue.clone(),
            subject,
            attempt,
            messages,
            follow,
            offset: 0,
            end: None,
            after_gap: None,
            stored_at: 0,
        };
        reader.note(&state).await?;
        Ok(reader)
    }

    /// The next part. Waits for it while the attempt runs. `None`: the log is complete.
    ///
    /// Cancellation: no byte is lost.
    ///
    /// # Errors
    /// When no server answers, or bytes were removed: the next call continues behind them.
    pub async fn next(&mut self) -> Result<Option<Chunk>, ReadError> {
        loop {
            if let Some(chunk) = self.after_gap.take() {
                return Ok(Some(self.pass(chunk)));
            }
            if self.end.is_some_and(|end| self.offset >= end) {
                return Ok(None);
            }
            tokio::select! {
                message = self.messages.next() => {
                    let (message, stored_at) = message?;
                    let Some(chunk) = Chunk::decode(&message) else { continue };
                    let Some(chunk) = chunk.unread(self.offset) else { continue };
                    self.stored_at = stored_at;
                    if chunk.offset > self.offset {
                        let (from, to) = (self.offset, chunk.offset);
                        self.after_gap = Some(chunk);
                        return Err(ReadError::Gap { from, to });
                    }
                    return Ok(Some(self.pass(chunk)));
                }
                state = self.follow.next(), if self.end.is_none() => self.note(&state?).await?,
            }
        }
    }

    /// The next part that is there. `None`: there is none now.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn try_next(&mut self) -> Result<Option<Chunk>, ReadError> {
        if self.after_gap.is_none() && self.offset >= self.stored().await? {
            return Ok(None);
        }
        self.next().await
    }

    /// When the server stored the part that was returned last.
    #[must_use]
    pub const fn stored_at(&self) -> ServerTime {
        self.stored_at
    }

    fn pass(&mut self, chunk: Chunk) -> Chunk {
        self.offset = chunk.end();
        chunk
    }

    /// Notes the end of the log, once its attempt is over.
    async fn note(&mut self, state: &JobState) -> Result<(), ReadError> {
        let runs = matches!(state.phase, Phase::Running { .. });
        let is_over = match state.attempt.cmp(&self.attempt) {
            std::cmp::Ordering::Less => state.outcome().is_some(),
            std::cmp::Ordering::Equal => !runs,
            std::cmp::Ordering::Greater => true,
        };
        if is_over {
            self.end = Some(self.stored().await?);
        }
        Ok(())
    }

    /// The length of what the server has.
    async fn stored(&self) -> Result<u64, ReadError> {
        use async_nats::jetstream::stream::LastRawMessageErrorKind;
        match self.queue.last(LOGS, &self.subject).await? {
            Ok(message) => Ok(Chunk::decode(&message.payload).map_or(0, |chunk| chunk.end())),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
            Err(error) => Err(ReadError::Server(error.into())),
        }
    }
}
