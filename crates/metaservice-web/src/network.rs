//! The record of what a guest has tried to connect to: the last attempts, then each new one.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use metaservice::control::NetworkPolicy;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::source::Reached;

/// The most attempts that are sent at first.
const MAX_FIRST: usize = 1000;

/// The most attempts of a later message.
const MAX_NEXT: usize = 500;

/// The longest line, in bytes. A guest chooses the names in it.
const MAX_LINE: usize = 16 * 1024;

/// How long attempts are collected for a message.
const PACE: Duration = Duration::from_millis(200);

/// A message: some attempts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attempts {
    /// What the guest may connect to. Only the first message has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<NetworkPolicy>,
    /// How many older attempts are left out.
    pub(crate) more: u64,
    /// The attempts, the oldest first.
    pub(crate) records: VecDeque<Value>,
    /// Whether more may come.
    pub(crate) live: bool,
}

impl Attempts {
    fn add(&mut self, record: Value, most: usize) {
        if self.records.len() == most {
            self.records.pop_front();
            self.more += 1;
        }
        self.records.push_back(record);
    }
}

/// Sends the attempts of a job that runs, to the end of its network. An error ends them too.
pub(crate) async fn follow(client: Reached, first: Attempts, messages: mpsc::Sender<Attempts>) {
    let following = async {
        let mut sent = first;
        let before = {
            let mut log = Lines::of(client.network_log(false).await.map_err(other)?);
            let mut lines = 0_u64;
            while let Some(record) = log.next().await? {
                lines += 1;
                sent.add(record, MAX_FIRST);
            }
            lines
        };
        let mut log = Lines::of(client.network_log(true).await.map_err(other)?);
        for _ in 0..before {
            if log.next().await?.is_none() {
                break;
            }
        }
        loop {
            if messages.send(std::mem::take(&mut sent)).await.is_err() {
                return Ok(());
            }
            let Some(record) = log.next().await? else { return Ok(()) };
            sent.records.push_back(record);
            let pace = Instant::now() + PACE;
            while sent.records.len() < MAX_NEXT
                && let Ok(next) = timeout_at(pace, log.next()).await
                && let Some(record) = next?
            {
                sent.records.push_back(record);
            }
            sent.live = true;
        }
    };
    let ended: io::Result<()> = following.await;
    if let Err(error) = ended {
        tracing::debug!(%error, "the record of a network ends");
    }
    let _ = messages.send(Attempts::default()).await;
}

/// Sends the attempts of a job that has ended.
pub(crate) async fn read(log: impl AsyncRead + Unpin, messages: mpsc::Sender<Attempts>) {
    let mut log = Lines::of(log);
    let mut sent = Attempts::default();
    while let Ok(Some(record)) = log.next().await {
        sent.add(record, MAX_FIRST);
    }
    let _ = messages.send(sent).await;
}

fn other(error: metaservice::control::ClientError) -> io::Error {
    io::Error::other(error)
}

/// Lines of JSON.
struct Lines<R> {
    log: BufReader<R>,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn of(log: R) -> Self {
        Self { log: BufReader::new(log), line: Vec::new() }
    }

    /// The next line; `null` if it is too long, or no JSON. `None` at the end; a line without its
    /// end is left out. Cancel safe.
    async fn next(&mut self) -> io::Result<Option<Value>> {
        loop {
            let bytes = self.log.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            let room = (MAX_LINE + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            let used = piece.len() + usize::from(end.is_some());
            self.log.consume(used);
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                let is_short = line.len() <= MAX_LINE;
                let value = is_short.then(|| serde_json::from_slice(&line).ok()).flatten();
                return Ok(Some(value.unwrap_or_default()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn the_last_attempts_of_a_job_are_sent() {
        let mut log = String::new();
        for number in 0..MAX_FIRST + 5 {
            log.push_str(&format!("{{\"port\":{number}}}\n"));
        }
        log.push_str("{\"port\":");
        let (sender, mut messages) = mpsc::channel(1);
        read(log.as_bytes(), sender).await;
        let sent = messages.recv().await.unwrap();
        assert_eq!((sent.more, sent.records.len(), sent.live), (5, MAX_FIRST, false));
        assert_eq!(sent.records.back(), Some(&json!({ "port": MAX_FIRST + 4 })));
        assert!(messages.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_long_line_is_left_out_and_takes_no_memory() {
        let log = format!("\"{}\"\nno json\n7\n", "x".repeat(10 * MAX_LINE));
        let mut lines = Lines::of(log.as_bytes());
        let mut values = Vec::new();
        while let Some(value) = lines.next().await.unwrap() {
            assert!(lines.line.capacity() <= 2 * MAX_LINE);
            values.push(value);
        }
        assert_eq!(values, [Value::Null, Value::Null, json!(7)]);
    }
}
