//! A log in one request, for a service of version 1.
//!
//! A chunk is read from the output only when the connection has taken the one before, and what
//! a broken connection had not taken is sent again on another. What it had taken and not
//! delivered is lost: version 1 has no word for it.

use std::pin::pin;
use std::sync::atomic::Ordering;

use metaservice_protocol::buffer::ResendBuffer;

use super::Output;
use crate::client::body::{Body, BodySender, RequestOver};
use crate::client::{Client, ClientError};

/// One log request. `true` when it carried everything to the end; else what the connection
/// has not taken is queued again.
pub(super) async fn send(
    client: &Client,
    output: &mut Output,
    buffer: &mut ResendBuffer,
) -> Result<bool, ClientError> {
    let base = buffer.next();
    let (sender, body) = Body::stream(None);
    let taken = sender.counter();
    let result = {
        let mut request = pin!(client.log(body));
        let mut feed = pin!(feed(&sender, base, output, buffer));
        let mut fed = None;
        loop {
            tokio::select! {
                biased;
                result = &mut request => break result.map(|()| fed == Some(Ok(()))),
                over = &mut feed, if fed.is_none() => fed = Some(over),
            }
        }
    };
    buffer.release(base + taken.load(Ordering::Relaxed));
    buffer.rewind();
    result
}

async fn feed(
    sender: &BodySender,
    base: u64,
    output: &mut Output,
    buffer: &mut ResendBuffer,
) -> Result<(), RequestOver> {
    loop {
        buffer.release(base + sender.taken());
        let chunk = match buffer.take() {
            Some(chunk) => chunk,
            None => match output.read().await {
                Some(chunk) => {
                    buffer.push(chunk);
                    continue;
                }
                None => return sender.end().await,
            },
        };
        sender.send(chunk).await?;
    }
}
