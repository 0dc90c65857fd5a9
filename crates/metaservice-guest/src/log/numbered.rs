//! A log in numbered requests, of which nothing is lost and nothing comes twice.
//!
//! ```text
//!   output ─► ResendBuffer ─► a request: live for LOG_LINGER, then ended ─► confirmed: forgotten
//!                ▲                                                       │ cut
//!                └───────────── sent again, from where it began ◄────────┘
//! ```
//!
//! What is not confirmed is kept: one request's bytes, [`LOG_SEGMENT`] and a chunk at most. Until
//! the answer comes the output is not read, its pipe fills, and the command waits. While there is
//! nothing to send there is no request.

use std::cell::Cell;
use std::pin::pin;

use metaservice_protocol::buffer::ResendBuffer;
use metaservice_protocol::limits::{LOG_LINGER, LOG_SEGMENT};
use metaservice_protocol::{ActionId, LogPlace};
use tokio::time::{Instant, timeout_at};

use super::Output;
use crate::client::body::{Body, BodySender, RequestOver};
use crate::client::{Client, ClientError};

/// A log on its way.
pub(super) struct Numbered<'a> {
    client: &'a Client,
    stream: ActionId,
    output: &'a mut Output,
    buffer: ResendBuffer,
}

impl<'a> Numbered<'a> {
    pub(super) fn new(client: &'a Client, stream: ActionId, output: &'a mut Output) -> Self {
        Self { client, stream, output, buffer: ResendBuffer::default() }
    }

    /// Waits until there is something to send; `false` when everything has been sent and more
    /// will not come.
    pub(super) async fn pending(&mut self) -> bool {
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

    /// How far the confirmed part goes.
    pub(super) fn confirmed(&self) -> u64 {
        self.buffer.released()
    }

    /// One request, from the first byte that is not confirmed. `false` when the service has ended
    /// it before it was whole.
    pub(super) async fn send(&mut self) -> Result<bool, ClientError> {
        let offset = self.buffer.next();
        let place = LogPlace { stream: self.stream.clone(), offset };
        let (sender, body) = Body::stream(None);
        let fed = Cell::new(false);
        let result = {
            let mut request = pin!(self.client.log_at(&place, body));
            let mut work = pin!(async {
                // A request that is over tells its own reason. While the answer is awaited nothing
                // is read: the pipe gathers what comes, and a few large pieces cost less.
                fed.set(feed(&sender, self.output, &mut self.buffer, offset).await.is_ok());
            });
            let mut working = true;
            loop {
                tokio::select! {
                    biased;
                    result = &mut request => break result,
                    () = &mut work, if working => working = false,
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

    /// Reads the rest of the output for nobody.
    pub(super) async fn drop_rest(&mut self) {
        while self.output.read().await.is_some() {}
    }
}

/// Sends what there is, and what comes within a moment, up to the bound.
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
