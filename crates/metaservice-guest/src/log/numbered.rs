//! A log in numbered requests: no byte is lost, and none is stored twice.
//!
//! ```text
//!   output ─► buffer ─► request: live for LOG_LINGER, then ended ─► confirmed: released
//!                ▲                                                     │ cut
//!                └──────────── sent again from its first byte ◄────────┘
//! ```
//!
//! Bytes are kept until the service confirms them: those of one request, at most [`LOG_SEGMENT`]
//! and a chunk. While a request waits for its confirmation, the output is not read. Its pipe
//! fills, and the command waits. Without output there is no request.

use std::cell::Cell;
use std::pin::pin;

use metaservice_protocol::buffer::ResendBuffer;
use metaservice_protocol::limits::{LOG_LINGER, LOG_SEGMENT};
use metaservice_protocol::{ActionId, LogOutput, LogPlace};
use tokio::time::{Instant, timeout_at};

use super::output::Output;
use crate::client::Client;
use crate::client::body::{Body, BodySender, RequestOver};
use crate::client::error::ClientError;

/// A log that is being delivered.
pub(super) struct NumberedLog<'a> {
    client: &'a Client,
    stream: ActionId,
    output: &'a mut Output,
    buffer: ResendBuffer,
}

impl<'a> NumberedLog<'a> {
    pub(super) fn new(client: &'a Client, stream: ActionId, output: &'a mut Output) -> Self {
        Self { client, stream, output, buffer: ResendBuffer::default() }
    }

    /// Waits until there is something to send; `false` at the end of the output, when everything
    /// was confirmed.
    pub(super) async fn has_pending(&mut self) -> bool {
        if self.buffer.held() > 0 {
            return true;
        }
        match self.output.read().await {
            Some(chunk) => {
                self.buffer.push(chunk);
                true
            }
            None => false,
        }
    }

    /// How many bytes the service has confirmed.
    pub(super) fn confirmed(&self) -> u64 {
        self.buffer.released()
    }

    /// Makes one request from the first byte that is not confirmed. `false` if the service ended
    /// it before it was complete.
    pub(super) async fn send(&mut self) -> Result<bool, ClientError> {
        let offset = self.buffer.next();
        let place = LogPlace { stream: self.stream.clone(), offset, output: LogOutput::Stdout };
        let (sender, body) = Body::stream(None);
        let fed = Cell::new(false);
        let result = {
            let mut request = pin!(self.client.log_at(&place, body));
            let mut feeding = pin!(async {
                // If the request is over, its result says why. While the confirmation is awaited,
                // nothing is read: the pipe collects the output, and few large reads cost less.
                fed.set(feed(&sender, self.output, &mut self.buffer, offset).await.is_ok());
            });
            let mut feeds = true;
            loop {
                tokio::select! {
                    biased;
                    result = &mut request => break result,
                    () = &mut feeding, if feeds => feeds = false,
                }
            }
        };
        if result.is_ok() && fed.get() {
            self.buffer.release(self.buffer.next());
        } else {
            self.buffer.rewind();
        }
        result.map(|()| fed.get())
    }

    /// Reads the output to its end and discards it.
    pub(super) async fn discard_rest(&mut self) {
        while self.output.read().await.is_some() {}
    }
}

/// Sends what is there and what comes within [`LOG_LINGER`], up to [`LOG_SEGMENT`].
async fn feed(
    sender: &BodySender,
    output: &mut Output,
    buffer: &mut ResendBuffer,
    begin: u64,
) -> Result<(), RequestOver> {
    let until = Instant::now() + LOG_LINGER;
    while buffer.next() - begin < LOG_SEGMENT {
        if let Some(chunk) = buffer.take() {
            sender.send(chunk).await?;
            continue;
        }
        match timeout_at(until, output.read()).await {
            Ok(Some(chunk)) => buffer.push(chunk),
            Ok(None) | Err(_) => break,
        }
    }
    sender.end().await
}
