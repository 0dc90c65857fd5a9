//! Messages of tunnels over NATS.

use async_nats::{Client, Message, StatusCode, Subject};
use bytes::Bytes;
use tokio::time::timeout;

use super::frame::Reason;
use super::pump::{Incoming, Link, SILENCE};

/// Sends to one subject.
pub(super) struct NatsLink {
    pub(super) client: Client,
    pub(super) to: Subject,
    /// Where the other side answers, and where the server says that no process listens.
    pub(super) reply: Subject,
}

impl Link for NatsLink {
    async fn send(&self, message: Bytes) -> Result<(), Reason> {
        let sending = self.client.publish_with_reply(self.to.clone(), self.reply.clone(), message);
        match timeout(SILENCE, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Reason::Silent),
        }
    }
}

/// What a message of the server is.
pub(super) fn incoming(message: Message) -> Incoming {
    match message.status {
        Some(StatusCode::NO_RESPONDERS) => Incoming::Gone,
        _ => Incoming::Message(message.payload),
    }
}
