//! A log in one request, for a service of version 1.
//!
//! A chunk is read from the output only after the connection has taken the previous one. Bytes
//! that a broken connection has not taken are sent again on another. Bytes that it has taken and
//! not delivered are lost: version 1 has no confirmation.

use std::pin::pin;
use std::sync::atomic::Ordering;

use metaservice_protocol::buffer::ResendBuffer;

use super::output::Output;
use crate::client::Client;
use crate::client::body::{Body, BodySender, RequestOver};
use crate::client::error::ClientError;

/// Makes one log request. `true` if it carried everything to the end of the output. Otherwise the
/// bytes that the connection has not taken are in the buffer again.
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
        let mut feeding = pin!(feed(&sender, base, output, buffer));
        let mut fed = None;
        loop {
            tokio::select! {
                biased;
                result = &mut request => break result.map(|()| fed == Some(Ok(()))),
                over = &mut feeding, if fed.is_none() => fed = Some(over),
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
                Some((_, chunk)) => {
                    buffer.push(chunk);
                    continue;
                }
                None => return sender.end().await,
            },
        };
        sender.send(chunk).await?;
    }
}
