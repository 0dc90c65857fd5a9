//! A log in numbered requests: no byte is lost, and none is stored twice.
//!
//! ```text
//!   output ─► buffer ─► request: live for LOG_LINGER, then ended ─► confirmed: released
//!                ▲                                                     │ cut
//!                └──────────── sent again from its first byte ◄────────┘
//! ```
//!
//! Bytes are kept until the service confirms them: those of one request, at most [`LOG_SEGMENT`]
//! and a chunk. While a request waits for its confirmation, the pipe fills, and the command waits.
//! Without output there is no request.
//!
//! Stdout and stderr can be two logs. Then a request has bytes of one of them, and ends when the
//! next bytes are of the other. There is one request at a time: so the service gets the bytes of
//! both in the order in which they were [read](super::output), and they share one buffer.

use std::pin::pin;

use metaservice_protocol::buffer::ResendBuffer;
use metaservice_protocol::limits::{LOG_LINGER, LOG_SEGMENT};
use metaservice_protocol::{ActionId, LogOutput, LogPlace};
use tokio::time::{Instant, timeout_at};

use super::output::Output;
use super::source::{Next, Source};
use crate::client::Client;
use crate::client::body::{Body, BodySender, RequestOver};
use crate::client::error::ClientError;

/// A log that is being delivered.
pub(super) struct NumberedLog<'a> {
    client: &'a Client,
    source: Source<'a>,
    stdout: Stream,
    stderr: Stream,
    /// The output of the bytes that are not confirmed.
    current: LogOutput,
}

/// One output, and its bytes that are not confirmed.
struct Stream {
    name: ActionId,
    buffer: ResendBuffer,
}

impl<'a> NumberedLog<'a> {
    /// `streams` are the names of the logs of stdout and stderr.
    pub(super) fn new(client: &'a Client, streams: [ActionId; 2], output: &'a mut Output) -> Self {
        let [stdout, stderr] = streams.map(|name| Stream { name, buffer: ResendBuffer::default() });
        let source = Source::new(output);
        Self { client, source, stdout, stderr, current: LogOutput::Stdout }
    }

    fn stream(&mut self) -> &mut Stream {
        match self.current {
            LogOutput::Stdout => &mut self.stdout,
            LogOutput::Stderr => &mut self.stderr,
        }
    }

    /// Waits until there is something to send; `false` at the end of the output, when everything
    /// was confirmed.
    pub(super) async fn has_pending(&mut self) -> bool {
        if self.stream().buffer.held() > 0 {
            return true;
        }
        match self.source.next().await {
            Some((output, chunk)) => {
                self.current = output;
                self.stream().buffer.push(chunk);
                true
            }
            None => false,
        }
    }

    /// How many bytes the service has confirmed.
    pub(super) fn confirmed(&self) -> u64 {
        self.stdout.buffer.released() + self.stderr.buffer.released()
    }

    /// Makes one request from the first byte that is not confirmed. `false` if the service ended
    /// it before it was complete.
    pub(super) async fn send(&mut self) -> Result<bool, ClientError> {
        let Self { client, source, stdout, stderr, current } = self;
        let output = *current;
        let Stream { name, buffer } = if output == LogOutput::Stdout { stdout } else { stderr };
        let offset = buffer.next();
        let place = LogPlace { stream: name.clone(), offset, output };
        let (sender, body) = Body::stream(None);
        let mut request = pin!(client.log_at(&place, body));
        let fed = tokio::select! {
            biased;
            result = &mut request => Err(result),
            fed = feed(&sender, source, output, buffer, offset) => Ok(fed.is_ok()),
        };
        // If the request is over, its result says why.
        let (result, fed) = match fed {
            Err(result) => (result, false),
            Ok(fed) => loop {
                tokio::select! {
                    biased;
                    result = &mut request => break (result, fed),
                    () = source.read(), if source.may_read_ahead() => {}
                }
            },
        };
        if result.is_ok() && fed {
            buffer.release(buffer.next());
        } else {
            buffer.rewind();
        }
        result.map(|()| fed)
    }

    /// Reads the output to its end and discards it.
    pub(super) async fn discard_rest(&mut self) {
        while self.source.next().await.is_some() {}
    }
}

/// Sends what is there and what comes within [`LOG_LINGER`], up to [`LOG_SEGMENT`] and to the first
/// byte of the other output.
async fn feed(
    sender: &BodySender,
    source: &mut Source<'_>,
    output: LogOutput,
    buffer: &mut ResendBuffer,
    begin: u64,
) -> Result<(), RequestOver> {
    let until = Instant::now() + LOG_LINGER;
    while buffer.next() - begin < LOG_SEGMENT {
        if let Some(chunk) = buffer.take() {
            sender.send(chunk).await?;
            continue;
        }
        match timeout_at(until, source.next_of(output)).await {
            Ok(Next::Chunk(chunk)) => buffer.push(chunk),
            Ok(Next::Other | Next::End) | Err(_) => break,
        }
    }
    sender.end().await
}
