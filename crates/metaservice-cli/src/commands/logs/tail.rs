//! The last lines of a log.

use std::collections::VecDeque;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use crate::output::AsyncOutput;

/// How many bytes of the last lines are kept in memory.
const MAX_TAIL: usize = 64 * 1024 * 1024;

/// Prints the last lines of a log, when it has ended.
pub(super) async fn show_tail(mut log: impl AsyncBufReadExt + Unpin, lines: u64) -> Result<()> {
    let (mut last, mut held) = (VecDeque::new(), 0);
    loop {
        let mut line = Vec::new();
        // The log's own limit is the limit of a line without an end.
        if log.read_until(b'\n', &mut line).await.context("the log is cut")? == 0 {
            break;
        }
        held += line.len();
        last.push_back(line);
        while last.len() as u64 > lines || held > MAX_TAIL {
            held -= last.pop_front().map_or(0, |line| line.len());
        }
    }
    let mut stdout = AsyncOutput::new();
    for line in last {
        stdout.write_all(&line).await?;
    }
    Ok(stdout.flush().await?)
}
